//! Which events an explanation is made of: found in what is stored, of which little is parsed. What
//! is kept meanwhile are a few words of each group, and of each token that stands at a node from
//! which a transition leads to the one that is asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use chassis::journal::RecordedEvent;
use domain::codec;
use domain::run::Event;
use domain::run::event::{Fired, InstanceId, Opened, OpenedBranches, TokenId, TransitionIndex};
use protocol::explanation::EXPLAINED_TOKENS;
use protocol::{Explain, Rejection};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::told::telling;
use super::trace::{FACTS, LED, push};
use crate::refusal;

/// See the head of the file.
#[derive(Default)]
pub(super) struct Search {
    token: Option<TokenId>,
    node: Option<String>,
    /// The newest tokens that are asked for.
    pub(super) tokens: BTreeMap<TokenId, Found>,
    /// How many older ones there are.
    pub(super) left_out: u64,
    /// How many tokens have left the nodes from which a transition leads to the one that is asked
    /// for, and how many took each transition.
    pub(super) left: HashMap<String, (u64, HashMap<TransitionIndex, u64>)>,
    /// The last one of each that has left.
    last: HashMap<String, u64>,
    /// Where the tokens are that stand at such a node, or in a branch.
    places: HashMap<TokenId, Place>,
    groups: HashMap<InstanceId, Group>,
    /// The run's waits for its turn.
    turns: Vec<u64>,
    led: VecDeque<u64>,
}

/// Where the events of a token are.
#[derive(Default)]
pub(super) struct Found {
    came: u64,
    did: VecDeque<u64>,
    left: Option<u64>,
    /// The group that it is a branch of, and the one that it came out of.
    groups: [Option<InstanceId>; 2],
}

struct Place {
    source: Option<String>,
    instance: Option<InstanceId>,
}

#[derive(Default)]
struct Group {
    /// The group that it was opened in.
    parent: Option<InstanceId>,
    branches: Vec<OpenedBranches>,
    /// The events that tell of it.
    sequences: Vec<u64>,
}

/// What is parsed of an event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    token: TokenId,
    start: String,
    node: String,
    instance: InstanceId,
    index: u64,
    count: u64,
    fired: Vec<Fired>,
    opened: Vec<Opened>,
    extended: Vec<Added>,
    error: Option<IgnoredAny>,
    retry_at: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Added {
    instance: InstanceId,
    branches: OpenedBranches,
}

impl Search {
    /// `sources` are the nodes from which a transition leads to the node that is asked for.
    pub(super) fn of(asked: &Explain, sources: &[String]) -> Self {
        Self {
            token: asked.token,
            node: asked.node.clone(),
            left: sources.iter().map(|node| (node.clone(), Default::default())).collect(),
            ..Self::default()
        }
    }

    /// The sequences of what was found.
    pub(super) fn found(&self) -> BTreeSet<u64> {
        let mut found: BTreeSet<u64> = self.led.iter().chain(self.last.values()).copied().collect();
        if !self.tokens.is_empty() {
            found.extend(&self.turns);
        }
        for token in self.tokens.values() {
            found.insert(token.came);
            found.extend(token.did.iter().chain(&token.left));
            let groups = token.groups.iter().flatten().filter_map(|id| self.groups.get(id));
            found.extend(groups.flat_map(|group| &group.sequences));
        }
        found
    }

    /// Takes the next event; `decoded` where it can't be read as it is stored.
    pub(super) fn take(
        &mut self,
        recorded: &RecordedEvent,
        decoded: Option<&Event>,
    ) -> Result<(), Rejection> {
        let damaged = |error: serde_json::Error| {
            refusal::damaged(&format!("the event at {}", recorded.position), &error)
        };
        let told = || -> Result<Told, Rejection> {
            match decoded {
                None => serde_json::from_slice(&recorded.payload).map_err(damaged),
                Some(event) => {
                    serde_json::to_value(event).and_then(serde_json::from_value).map_err(damaged)
                }
            }
        };
        let (kind, sequence) = (&*recorded.event_type, recorded.sequence);
        let telling = telling(kind);
        if telling.of_end {
            let is_led = match kind {
                "task_failed" | "undo_failed" => told()?.retry_at.is_none(),
                "child_ended" | "gate_closed" => told()?.error.is_some(),
                _ => true,
            };
            if is_led {
                push(&mut self.led, sequence, LED);
            }
        }
        let asks_for_tokens = self.token.is_some() || self.node.is_some();
        if !asks_for_tokens {
            return Ok(());
        }
        if telling.of_token && self.may_be_asked_for(&recorded.payload) {
            let token = told()?.token;
            if let Some(found) = self.tokens.get_mut(&token) {
                push(&mut found.did, sequence, FACTS);
            }
        }
        if telling.of_places && (self.node.is_some() || self.may_lead_there(&recorded.payload)) {
            self.follow(kind, sequence, told()?);
        }
        if telling.of_turn {
            self.turns.push(sequence);
        }
        Ok(())
    }

    /// Whether a stored text names a token that is asked for.
    fn may_be_asked_for(&self, payload: &[u8]) -> bool {
        !self.tokens.is_empty()
            && codec::numbers(payload, "\"token\":").any(|id| self.tokens.contains_key(&id))
    }

    /// Whether an event of a token's way may be one of the token that is asked for, or of a group.
    /// Where no node is asked for, the ways of others lead nowhere.
    fn may_lead_there(&self, payload: &[u8]) -> bool {
        codec::mentions(payload, "\"instance\":")
            || codec::mentions(payload, "\"start\":")
            || codec::numbers(payload, "\"token\":").any(|id| self.token == Some(id))
    }

    /// Where a token was found that is asked for by itself, in which group it is isn't known by
    /// its way: it is told here.
    pub(super) fn is_in(&mut self, token: TokenId, instance: Option<InstanceId>) {
        if let Some(found) = self.tokens.get_mut(&token) {
            found.groups[0] = instance;
        }
    }

    /// The events with which the tokens that are asked for came.
    pub(super) fn came(&self) -> BTreeSet<u64> {
        self.tokens.values().map(|found| found.came).collect()
    }

    /// Follows tokens from node to node, and groups.
    fn follow(&mut self, kind: &str, sequence: u64, told: Told) {
        let Told { token, instance, .. } = told;
        match kind {
            "run_started" => self.enter(1, &told.start, [None, None], sequence),
            "undo_started" => self.enter(token, &told.node, [None, None], sequence),
            "token_routed" => self.route(sequence, told),
            "branches_spawned" => {
                let Some(group) = self.groups.get_mut(&instance) else { return };
                let branches = std::mem::take(&mut group.branches);
                let mut end = 0;
                let mut ends = branches.iter().map(|of| {
                    end += of.count;
                    (end, &*of.node)
                });
                let mut of = ends.next();
                for index in told.index..told.index + told.count {
                    while of.is_some_and(|(end, _)| end <= index) {
                        of = ends.next();
                    }
                    let Some((_, node)) = of else { break };
                    let token = token + (index - told.index);
                    self.enter(token, node, [Some(instance), None], sequence);
                }
                if let Some(group) = self.groups.get_mut(&instance) {
                    group.branches = branches;
                }
            }
            "join_fired" => {
                self.tell_of(instance, sequence);
                let parent = self.groups.get(&instance).and_then(|group| group.parent);
                self.enter(token, &told.node, [parent, Some(instance)], sequence);
            }
            _ => self.tell_of(instance, sequence),
        }
    }

    fn tell_of(&mut self, instance: InstanceId, sequence: u64) {
        if let Some(group) = self.groups.get_mut(&instance) {
            group.sequences.push(sequence);
        }
    }

    fn enter(
        &mut self,
        token: TokenId,
        node: &str,
        groups: [Option<InstanceId>; 2],
        sequence: u64,
    ) {
        let source = self.left.contains_key(node).then(|| node.to_owned());
        let [instance, _] = groups;
        if source.is_some() || instance.is_some() {
            self.places.insert(token, Place { source, instance });
        }
        if self.token == Some(token) || self.node.as_deref() == Some(node) {
            self.tokens.insert(token, Found { came: sequence, groups, ..Found::default() });
            if self.tokens.len() > EXPLAINED_TOKENS {
                self.tokens.pop_first();
                self.left_out += 1;
            }
        }
    }

    fn route(&mut self, sequence: u64, told: Told) {
        let Told { token, fired, opened, extended, .. } = told;
        let place = self.places.remove(&token);
        let parent = place.as_ref().and_then(|place| place.instance);
        let taken = fired.iter().map(|fired| match fired {
            Fired::Moved { transition, .. } | Fired::Arrived { transition, .. } => *transition,
        });
        let made = opened.iter().flat_map(|one| &one.branches);
        let made = made.chain(extended.iter().map(|one| &one.branches));
        let taken = taken.chain(made.map(|branches| branches.transition));
        if let Some(source) = place.and_then(|place| place.source)
            && let Some((left, counts)) = self.left.get_mut(&source)
        {
            *left += 1;
            taken.for_each(|index| *counts.entry(index).or_default() += 1);
            self.last.insert(source, sequence);
        }
        for Opened { instance, branches, .. } in opened {
            let group = Group { parent, branches, sequences: vec![sequence] };
            self.groups.insert(instance, group);
        }
        for Added { instance, branches } in extended {
            if let Some(group) = self.groups.get_mut(&instance) {
                group.branches.push(branches);
                group.sequences.push(sequence);
            }
        }
        for fired in fired {
            if let Fired::Moved { token, node, .. } = fired {
                self.enter(token, &node, [parent, None], sequence);
            }
        }
        if let Some(found) = self.tokens.get_mut(&token) {
            found.left = Some(sequence);
        }
    }
}
