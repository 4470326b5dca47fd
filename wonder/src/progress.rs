//! A run's progress, folded from its events for display only: counts for each node.

use std::collections::HashMap;

use domain::run::event::{
    Arithmetic, Fired, GateOutcome, InstanceId, Opened, OpenedBranches, TokenId,
};
use domain::run::state::Branch;
use domain::run::{Event, Usage};
use protocol::EventEnvelope;
use serde_json::Value;

mod cancelled;
mod deltas;
mod display;

pub(crate) use deltas::Deltas;
pub(crate) use display::Display;

/// How many tokens of a node are where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeCount {
    pub(crate) node: String,
    /// Tokens that came or will come, as far as declared: branches count when they are opened.
    pub(crate) total: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// Of those, the ones whose failure a transition took.
    pub(crate) handled: u64,
    /// Tokens that came or would have come, taken back because nobody waits for them any more.
    pub(crate) cancelled: u64,
    /// Tokens that stand at the node, back-offs included.
    pub(crate) running: u64,
    /// Of those, the ones that wait for their next attempt.
    pub(crate) backing_off: u64,
    /// Of those, the ones that wait for a time, a person or a signal.
    pub(crate) waiting: u64,
    /// The number of the event that changed the node last.
    pub(crate) changed: u64,
}

impl NodeCount {
    /// `12/40 · 2 failed`, or one word for a node with a single token.
    pub(crate) fn text(&self) -> String {
        if self.total == 1 {
            return match self {
                Self { done: 1, .. } => "done",
                Self { failed: 1, handled: 1, .. } => "failed (handled)",
                Self { failed: 1, .. } => "failed",
                Self { cancelled: 1, .. } => "cancelled",
                Self { backing_off: 1, .. } => "retrying",
                Self { waiting: 1, .. } => "waiting",
                _ => "running",
            }
            .to_owned();
        }
        let mut text = format!("{}/{}", self.done, self.total);
        let failed = match self.handled {
            0 => "failed".to_owned(),
            handled if handled == self.failed => "failed (handled)".to_owned(),
            handled => format!("failed ({handled} handled)"),
        };
        let counts = [
            (self.failed, failed.as_str()),
            (self.cancelled, "cancelled"),
            (self.backing_off, "retrying"),
            (self.waiting, "waiting"),
        ];
        for (count, word) in counts.iter().filter(|(count, _)| *count > 0) {
            text.push_str(&format!(" · {count} {word}"));
        }
        text
    }

    /// Tokens that are no longer out.
    pub(crate) fn ended(&self) -> u64 {
        self.done + self.failed + self.cancelled
    }
}

/// A token at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Working,
    BackingOff,
    Waiting,
    Succeeded,
    Failed,
}

impl Standing {
    fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A token that hasn't left its node.
#[derive(Debug, Clone, Copy)]
struct Token {
    node: usize,
    standing: Standing,
    /// The branch that it is of, innermost.
    branch: Option<Branch>,
}

/// A group instance that is open.
#[derive(Debug)]
struct Group {
    name: Option<String>,
    branches: Vec<OpenedBranches>,
    /// Branches that have become tokens.
    spawned: u64,
    parent: Option<Branch>,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// In the order in which the run reached them.
    pub(crate) nodes: Vec<NodeCount>,
    pub(crate) usage: Usage,
    /// `completed`, `failed`, `cancelled` or `timed_out`, once it has ended.
    pub(crate) status: Option<&'static str>,
    pub(crate) output: Value,
    pub(crate) error: Value,
    events: u64,
    tokens: HashMap<TokenId, Token>,
    groups: HashMap<InstanceId, Group>,
}

impl Progress {
    /// Takes an event of the journal; one that it doesn't know changes nothing.
    pub(crate) fn take(&mut self, envelope: &EventEnvelope) {
        let mut payload = envelope.payload.clone();
        if let Some(payload) = payload.as_object_mut() {
            payload.insert("type".to_owned(), envelope.event_type.clone().into());
        }
        if let Ok(event) = serde_json::from_value(payload) {
            self.fold(event);
        }
    }

    fn fold(&mut self, event: Event) {
        self.events += 1;
        match event {
            Event::RunStarted(started) => self.arrive(1, &started.start, None, true),
            Event::TaskSucceeded { token, usage, .. }
            | Event::UndoSucceeded { token, usage, .. } => {
                self.usage.add(&usage);
                self.end(token, Standing::Succeeded);
            }
            Event::TaskFailed { token, retry_at, usage, .. }
            | Event::UndoFailed { token, retry_at, usage, .. } => {
                self.usage.add(&usage);
                match retry_at {
                    Some(_) => self.stand(token, Standing::BackingOff),
                    None => self.end(token, Standing::Failed),
                }
            }
            Event::RetryStarted { token, .. } | Event::TaskHandedOut { token, .. } => {
                self.stand(token, Standing::Working)
            }
            Event::TokensCancelled(cancelled) => self.cancel(&cancelled),
            Event::MutexTaken { token, .. } => self.stand(token, Standing::Working),
            Event::WaitStarted { token, .. } | Event::MutexAwaited { token, .. } => {
                self.stand(token, Standing::Waiting);
            }
            Event::GateOpened(opened) => self.stand(opened.token, Standing::Waiting),
            Event::ChildStarted(started) => self.stand(started.token, Standing::Waiting),
            Event::ChildEnded(ended) => match ended.error {
                Some(_) => self.end(ended.token, Standing::Failed),
                None => self.end(ended.token, Standing::Succeeded),
            },
            Event::NodeComputed { token, .. }
            | Event::WaitEnded { token, .. }
            | Event::EventEmitted { token, .. }
            | Event::MetricEmitted { token, .. } => self.end(token, Standing::Succeeded),
            Event::GateClosed(closed) => match (closed.outcome, closed.error) {
                // Its branch was taken back already.
                (GateOutcome::Cancelled, _) => {}
                (_, Some(_)) => self.end(closed.token, Standing::Failed),
                (_, None) => self.end(closed.token, Standing::Succeeded),
            },
            Event::RunQueued(_) => self.stand(1, Standing::Waiting),
            Event::RunAdmitted { .. } => self.stand(1, Standing::Working),
            Event::SignalReceived(_)
            | Event::GateAnswered(_)
            | Event::RunPaused { .. }
            | Event::RunResumed {}
            | Event::CompensationEnded(_) => {}
            // What was used up before was the other run's.
            Event::RunForked(_) => self.usage = Usage::default(),
            Event::CompensationStarted(_) => self.give_all_up(),
            Event::UndoStarted { token, node, .. } => {
                self.arrive(token, &format!("undo {node}"), None, true);
            }
            Event::NodeFailed { token, .. } => self.end(token, Standing::Failed),
            Event::TokenRouted { token, fired, opened, extended, failed, .. } => {
                let branch = self.leave(token, failed);
                for fired in fired {
                    if let Fired::Moved { token, node, .. } = fired {
                        self.arrive(token, &node, branch, true);
                    }
                }
                for added in extended {
                    let at = self.node(&added.branches.node);
                    self.changed(at).total += added.branches.count;
                    if let Some(group) = self.groups.get_mut(&added.instance) {
                        group.branches.push(added.branches);
                    }
                }
                for opened in opened {
                    self.open(opened, branch);
                }
            }
            Event::BranchesSpawned { instance, index, token, count, .. } => {
                for offset in 0..count {
                    if let Some(node) = self.branch_node(instance, index + offset) {
                        let branch = Branch { instance, index: index + offset };
                        self.arrive(token + offset, &node, Some(branch), false);
                    }
                }
                if let Some(group) = self.groups.get_mut(&instance) {
                    group.spawned = index + count;
                }
            }
            Event::JoinFired { instance, token, node, arithmetic, rest_continues, .. } => {
                let parent = self.groups.get(&instance).and_then(|group| group.parent);
                if !rest_continues {
                    self.close(instance, &arithmetic);
                }
                self.arrive(token, &node, parent, true);
            }
            Event::JoinFailed { instance, arithmetic, .. } => self.close(instance, &arithmetic),
            Event::GroupEnded { instance } => {
                self.groups.remove(&instance);
            }
            Event::RunCompleted { output } => {
                self.output = output;
                self.finish("completed");
            }
            Event::RunFailed { error } => self.fail("failed", &error),
            Event::RunTimedOut { error } => self.fail("timed_out", &error),
            Event::RunCancelled { .. } => self.finish("cancelled"),
        }
    }

    fn fail(&mut self, status: &'static str, error: &domain::run::RunError) {
        self.error = serde_json::to_value(error).unwrap_or_default();
        self.finish(status);
    }

    fn finish(&mut self, status: &'static str) {
        self.status = Some(status);
        self.give_all_up();
    }

    /// What is still out is taken back.
    fn give_all_up(&mut self) {
        self.tokens.clear();
        self.groups.clear();
        for node in &mut self.nodes {
            node.cancelled = node.total.saturating_sub(node.done + node.failed);
            (node.running, node.backing_off, node.waiting) = (0, 0, 0);
        }
    }

    fn node(&mut self, name: &str) -> usize {
        if let Some(at) = self.nodes.iter().position(|node| node.node == name) {
            return at;
        }
        self.nodes.push(NodeCount { node: name.to_owned(), ..NodeCount::default() });
        self.nodes.len() - 1
    }

    fn changed(&mut self, at: usize) -> &mut NodeCount {
        let node = &mut self.nodes[at];
        node.changed = self.events;
        node
    }

    fn arrive(&mut self, token: TokenId, name: &str, branch: Option<Branch>, is_new: bool) {
        let at = self.node(name);
        let node = self.changed(at);
        node.total += u64::from(is_new);
        node.running += 1;
        self.tokens.insert(token, Token { node: at, standing: Standing::Working, branch });
    }

    fn open(&mut self, opened: Opened, parent: Option<Branch>) {
        for branches in &opened.branches {
            let at = self.node(&branches.node);
            self.changed(at).total += branches.count;
        }
        let (name, branches) = (opened.group, opened.branches);
        self.groups.insert(opened.instance, Group { name, branches, spawned: 0, parent });
    }

    /// A token leaves its node; answers the branch that it is of.
    fn leave(&mut self, token: TokenId, failed: bool) -> Option<Branch> {
        self.end(token, Standing::Succeeded);
        let left = self.tokens.remove(&token)?;
        if left.standing == Standing::Failed && !failed {
            self.changed(left.node).handled += 1;
        }
        left.branch
    }

    fn stand(&mut self, id: TokenId, now: Standing) {
        let Some(token) = self.tokens.get_mut(&id).filter(|token| !token.standing.has_ended())
        else {
            return;
        };
        let before = std::mem::replace(&mut token.standing, now);
        let at = token.node;
        let node = self.changed(at);
        match before {
            Standing::BackingOff => node.backing_off = node.backing_off.saturating_sub(1),
            Standing::Waiting => node.waiting = node.waiting.saturating_sub(1),
            Standing::Working | Standing::Succeeded | Standing::Failed => {}
        }
        match now {
            Standing::BackingOff => node.backing_off += 1,
            Standing::Waiting => node.waiting += 1,
            Standing::Working | Standing::Succeeded | Standing::Failed => {}
        }
    }

    fn end(&mut self, id: TokenId, how: Standing) {
        let Some(token) = self.tokens.get(&id).filter(|token| !token.standing.has_ended()) else {
            return;
        };
        let at = token.node;
        self.stand(id, how);
        let node = self.changed(at);
        node.running = node.running.saturating_sub(1);
        match how {
            Standing::Failed => node.failed += 1,
            _ => node.done += 1,
        }
    }

    /// A group is over: what is still out of it, and of the groups inside it, is taken back.
    fn close(&mut self, instance: InstanceId, arithmetic: &Arithmetic) {
        let Arithmetic { declared, arrived, failed, ended, .. } = *arithmetic;
        if arrived + failed + ended >= declared {
            self.groups.remove(&instance);
            return;
        }
        self.take_back_group(instance);
    }

    /// Takes back what is out of a group and of the groups inside it.
    fn take_back_group(&mut self, instance: InstanceId) {
        let inside: Vec<_> = self
            .groups
            .iter()
            .filter(|(id, group)| {
                **id == instance || self.around(group.parent).any(|one| one.instance == instance)
            })
            .map(|(id, _)| *id)
            .collect();
        let is_out =
            |token: &Token| token.branch.is_some_and(|branch| inside.contains(&branch.instance));
        let out: Vec<_> =
            self.tokens.iter().filter(|(_, token)| is_out(token)).map(|(id, _)| *id).collect();
        for id in out {
            self.take_back(id);
        }
        for id in inside {
            let Some(group) = self.groups.remove(&id) else { continue };
            let mut spawned = group.spawned;
            for branches in group.branches {
                let made = spawned.min(branches.count);
                spawned -= made;
                let at = self.node(&branches.node);
                if made < branches.count {
                    self.changed(at).cancelled += branches.count - made;
                }
            }
        }
    }

    /// A token is gone without an end of its own.
    fn take_back(&mut self, id: TokenId) {
        // So that a back-off or a wait is counted no more.
        self.stand(id, Standing::Working);
        if let Some(token) = self.tokens.remove(&id)
            && !token.standing.has_ended()
        {
            let node = self.changed(token.node);
            node.running = node.running.saturating_sub(1);
            node.cancelled += 1;
        }
    }

    /// The branches around one, innermost first.
    fn around(&self, branch: Option<Branch>) -> impl Iterator<Item = Branch> {
        std::iter::successors(branch, |branch| self.groups.get(&branch.instance)?.parent)
    }

    fn branch_node(&self, instance: u64, index: u64) -> Option<String> {
        let mut before = 0;
        for branches in &self.groups.get(&instance)?.branches {
            before += branches.count;
            if index < before {
                return Some(branches.node.clone());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
