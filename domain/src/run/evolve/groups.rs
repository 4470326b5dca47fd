//! How group instances come, change and go.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::took;
use crate::run::event::{Extended, InstanceId, Opened, RunError, TokenId, TransitionIndex};
use crate::run::state::{Added, Branch, Instance, Live, Parent, Phase, Timer, Token};
use crate::run::vars::Vars;

impl Live {
    pub(super) fn open(&mut self, token: &Token, opened: &Opened) {
        let vars = if token.branch.is_some() { token.vars.clone() } else { self.root.clone() };
        if let Some(deadline) = opened.deadline {
            self.timers.insert((deadline, Timer::Join(opened.instance)));
        }
        let instance = Instance {
            group: opened.group.clone(),
            parent: Parent {
                branch: token.branch,
                vars,
                item: token.item.clone(),
                taken: Arc::clone(&token.taken),
            },
            declared: opened.branches.iter().map(|branches| branches.count).sum(),
            branches: opened.branches.clone(),
            spawned: 0,
            arrived: Default::default(),
            failed: Default::default(),
            ended: Default::default(),
            first_error: None,
            extra_parts: Default::default(),
            fired: false,
            deadline: opened.deadline,
            cause: Some(token.phase.clone()),
            added: Default::default(),
            taken: opened.branches.iter().fold(Arc::clone(&token.taken), |taken, branches| {
                took(&taken, branches.transition, branches.iteration)
            }),
            arrived_bytes: 0,
        };
        self.next_instance = self.next_instance.max(opened.instance + 1);
        self.unmade += instance.declared;
        self.instances.insert(opened.instance, instance);
    }

    /// An open instance gets further branches.
    pub(super) fn extend(&mut self, by: TokenId, extended: &Extended) {
        let Some(token) = self.tokens.get(&by) else { return };
        let Some(instance) = self.instances.get_mut(&extended.instance) else { return };
        let branches = &extended.branches;
        let taken = took(&token.taken, branches.transition, branches.iteration);
        let mut items = extended.items.iter();
        for index in instance.declared..instance.declared + branches.count {
            let item = items.next().cloned().map(Arc::new);
            instance.added.insert(index, Added { item, taken: Arc::clone(&taken) });
        }
        instance.declared += branches.count;
        self.unmade += branches.count;
        instance.branches.push(branches.clone());
        instance.take_most(&taken);
    }

    pub(super) fn spawn(
        &mut self,
        id: InstanceId,
        first: u64,
        token: TokenId,
        count: u64,
        items: &[Value],
    ) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let unmade = instance.unmade();
        instance.spawned = instance.spawned.max(first + count);
        instance.skip_ended();
        self.unmade -= unmade - instance.unmade();
        let error = instance.cause.as_ref().and_then(Phase::error).cloned().map(Box::new);
        // One after the other they are mostly at one node, and share its name.
        let mut at = Token::at("");
        if instance.spawned == instance.declared {
            instance.cause = None;
        }
        let mut made = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        for offset in 0..count {
            let index = first + offset;
            let added = instance.added.remove(&index);
            let Some(branches) = instance.branches_of(index) else { continue };
            if *at.node != *branches.node {
                at.node = Arc::from(&*branches.node);
            }
            let item = usize::try_from(offset).ok().and_then(|offset| items.get(offset));
            let item = item.filter(|_| branches.foreach).cloned().map(Arc::new);
            made.push((
                token + offset,
                Token {
                    branch: Some(Branch { instance: id, index }),
                    // Within a branch of a `foreach`, a plain split keeps the item.
                    item: item.or_else(|| instance.parent.item.clone()),
                    taken: match added {
                        Some(added) => added.taken,
                        None => {
                            took(&instance.parent.taken, branches.transition, branches.iteration)
                        }
                    },
                    error: error.clone(),
                    ..at.clone()
                },
            ));
        }
        for (id, token) in made {
            self.insert_token(id, token);
        }
    }

    pub(super) fn fire_join(
        &mut self,
        id: InstanceId,
        new: TokenId,
        node: &str,
        writes: &Map<String, Value>,
        taken: Option<(TransitionIndex, u32)>,
        rest_continues: bool,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let (parent, lineage) = (instance.parent.clone(), Arc::clone(&instance.taken));
        if let Some(deadline) = instance.deadline.take() {
            self.timers.remove(&(deadline, Timer::Join(id)));
        }
        if rest_continues && !instance.is_drained() {
            instance.fired = true;
            instance.arrived.values_mut().for_each(|value| *value = None);
            instance.arrived_bytes = 0;
            if let Some(branch) = parent.branch {
                self.add_parts(branch, 1);
            }
        } else {
            self.remove_instance(id);
        }
        let vars = if parent.branch.is_some() { parent.vars } else { Vars::default() };
        let counts = match taken {
            Some((transition, count)) => took(&lineage, transition, Some(count)),
            None => lineage,
        };
        self.insert_token(
            new,
            Token {
                branch: parent.branch,
                vars,
                item: parent.item,
                taken: counts,
                ..Token::at(node)
            },
        );
        self.write(new, writes);
    }

    /// Takes an instance away, and everything inside it.
    pub(super) fn remove_instance(&mut self, id: InstanceId) -> Option<Instance> {
        let gone = self.instances.remove(&id)?;
        self.unmade -= gone.unmade();
        if let Some(deadline) = gone.deadline {
            self.timers.remove(&(deadline, Timer::Join(id)));
        }
        if !gone.is_drained() {
            self.remove_inside(|branch| branch.instance == id);
        }
        Some(gone)
    }

    fn remove_inside(&mut self, is_inside: impl Fn(Branch) -> bool) {
        let tokens: Vec<_> = self
            .tokens
            .iter()
            .filter(|(_, token)| token.branch.is_some_and(&is_inside))
            .map(|(id, _)| *id)
            .collect();
        for id in tokens {
            self.remove_token(id);
        }
        let nested: Vec<_> = self
            .instances
            .iter()
            .filter(|(_, instance)| instance.parent.branch.is_some_and(&is_inside))
            .map(|(id, _)| *id)
            .collect();
        for id in nested {
            self.remove_instance(id);
        }
    }

    pub(super) fn add_parts(&mut self, branch: Branch, parts: usize) {
        if let Some(instance) = self.instances.get_mut(&branch.instance).filter(|_| parts > 0) {
            let parts = u32::try_from(parts).unwrap_or(u32::MAX);
            *instance.extra_parts.entry(branch.index).or_default() += parts;
        }
    }

    /// One part of a branch is gone without arriving; the branch ends with its last part.
    pub(super) fn end_part(&mut self, branch: Branch) {
        let Some(instance) = self.instances.get_mut(&branch.instance) else { return };
        if let Some(extra) = instance.extra_parts.get_mut(&branch.index) {
            *extra -= 1;
            if *extra == 0 {
                instance.extra_parts.remove(&branch.index);
            }
        } else if !instance.is_through(branch.index) {
            instance.ended.insert(branch.index);
        }
    }

    /// A branch failed as a whole; what else of it is alive goes with it.
    pub(super) fn fail_branch(&mut self, branch: Branch, error: &RunError) {
        let Some(instance) = self.instances.get_mut(&branch.instance) else { return };
        let had_more = instance.extra_parts.remove(&branch.index).is_some();
        if !instance.is_through(branch.index) {
            instance.failed.insert(branch.index);
            if instance.first_error.is_none() {
                instance.first_error = Some(Box::new(error.clone()));
            }
        }
        if had_more {
            self.remove_inside(|inside| inside == branch);
        }
    }
}
