//! The timeline: what each token did at its node, folded from a run's events on request.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use domain::ids::{RunId, WorkspaceId};
use domain::run::event::{
    Extent, Fired, GateOutcome, InstanceId, Opened, OpenedBranches, TokenId, TokensCancelled,
};
use domain::run::state::Branch;
use domain::run::{self, Event, Usage};
use protocol::{Rejection, RunError, TimelineEntry};

use crate::histories::Histories;

impl Histories<'_> {
    /// What each token of a run did.
    ///
    /// # Errors
    /// Where the run isn't there or hasn't what is asked for, and where events can't be read.
    pub async fn run_timeline(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
    ) -> Result<Vec<TimelineEntry>, Rejection> {
        let id = run_id.to_string();
        self.first_event(workspace_id, &id).await?;
        let mut timeline = Timeline::default();
        let histories = self.with_remains();
        let read = histories.each_event(&id, 0, |recorded, event| {
            timeline.take(&event, recorded.sequence, recorded.recorded_at);
            ControlFlow::<()>::Continue(())
        });
        read.await?;
        Ok(timeline.entries)
    }
}

#[derive(Clone, Default)]
pub(crate) struct Timeline {
    pub(crate) entries: Vec<TimelineEntry>,
    by_token: HashMap<TokenId, usize>,
    /// Tokens whose work hasn't ended.
    open: BTreeSet<TokenId>,
    /// The branch that each token belongs to.
    branches: HashMap<TokenId, Branch>,
    instances: HashMap<InstanceId, Instance>,
}

#[derive(Clone)]
struct Instance {
    group: Option<String>,
    branches: Vec<OpenedBranches>,
    /// The branch that opened it.
    parent: Option<Branch>,
}

/// When an event happened.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) sequence: u64,
    pub(crate) at: DateTime<Utc>,
}

impl Timeline {
    /// What a token did.
    pub(crate) fn entry_of(&self, token: TokenId) -> Option<&TimelineEntry> {
        self.entries.get(*self.by_token.get(&token)?)
    }

    /// The group instance that a token is a branch of.
    pub(crate) fn instance_of(&self, token: TokenId) -> Option<InstanceId> {
        self.branches.get(&token).map(|branch| branch.instance)
    }

    /// A token of which the beginning wasn't read came to a node.
    pub(crate) fn stands(
        &mut self,
        token: TokenId,
        node: &str,
        (branch, group): (Option<Branch>, Option<String>),
        moment: Moment,
    ) {
        self.enter(token, node, branch, moment);
        if let Some(entry) = self.entries.last_mut() {
            entry.group = group;
        }
    }

    /// The same where not all events were read: what is open and isn't there any more was cancelled.
    pub(crate) fn cancel_but(&mut self, is_there: impl Fn(TokenId) -> bool, moment: Moment) {
        let gone: Vec<TokenId> = self.open.iter().copied().filter(|id| !is_there(*id)).collect();
        self.cancel(gone, moment);
    }

    pub(crate) fn take(&mut self, event: &Event, sequence: u64, at: DateTime<Utc>) {
        let moment = Moment { sequence, at };
        match event {
            Event::RunStarted(started) => self.enter(1, &started.start, None, moment),
            Event::RunQueued(_) => self.turn("working", "queued", moment),
            Event::RunAdmitted { .. } => self.turn("queued", "working", moment),
            Event::TaskSucceeded { token, attempt, usage, duration_ms, .. }
            | Event::UndoSucceeded { token, attempt, usage, duration_ms, .. } => {
                self.attempt(*token, *attempt, usage, *duration_ms, moment);
                self.end(*token, "succeeded", moment);
            }
            Event::TaskFailed { token, attempt, error, retry_at, usage, duration_ms, .. }
            | Event::UndoFailed { token, attempt, error, retry_at, usage, duration_ms } => {
                self.attempt(*token, *attempt, usage, *duration_ms, moment);
                self.fail(*token, error, retry_at.is_some(), moment);
            }
            Event::RetryStarted { token, attempt } | Event::TaskHandedOut { token, attempt } => {
                if let Some(entry) = self.entry(*token, moment) {
                    entry.attempts = *attempt;
                    "working".clone_into(&mut entry.status);
                }
            }
            Event::NodeComputed { token, .. } => self.end(*token, "succeeded", moment),
            Event::NodeFailed { token, error } => self.fail(*token, error, false, moment),
            Event::TokenRouted { token, fired, opened, extended, .. } => {
                for added in extended {
                    if let Some(instance) = self.instances.get_mut(&added.instance) {
                        instance.branches.push(added.branches.clone());
                    }
                }
                self.route(*token, fired, opened, moment);
            }
            Event::BranchesSpawned { instance, index, token, count, .. } => {
                self.spawn(*instance, *index, *token, *count, moment);
            }
            Event::JoinFired { instance, token, node, rest_continues, .. } => {
                if !rest_continues {
                    self.cancel_inside(*instance, moment);
                }
                let parent = self.instances.get(instance).and_then(|opened| opened.parent);
                self.enter(*token, node, parent, moment);
            }
            Event::JoinFailed { instance, .. } => self.cancel_inside(*instance, moment),
            Event::TokensCancelled(cancelled) => self.cancel_region(cancelled, moment),
            Event::MutexAwaited { token, .. } => self.stand(*token, "blocked", moment),
            Event::MutexTaken { token, .. } => self.stand(*token, "working", moment),
            Event::WaitStarted { token, .. } => self.stand(*token, "waiting", moment),
            Event::GateOpened(opened) => self.stand(opened.token, "gated", moment),
            Event::ChildStarted(started) => {
                self.stand(started.token, "awaiting_child", moment);
                if let Some(entry) = self.entry(started.token, moment) {
                    entry.child_run_id = Some(started.run_id.to_string());
                }
            }
            Event::ChildEnded(ended) => match &ended.error {
                Some(error) => self.fail(ended.token, error, false, moment),
                None => self.end(ended.token, "succeeded", moment),
            },
            Event::WaitEnded { token, .. }
            | Event::EventEmitted { token, .. }
            | Event::MetricEmitted { token, .. } => {
                self.end(*token, "succeeded", moment);
            }
            Event::GateAnswered(answered) => {
                self.entry(answered.token, moment);
            }
            Event::GateClosed(closed) => match (closed.outcome, &closed.error) {
                // Its branch was given up, which has ended the entry.
                (GateOutcome::Cancelled, _) => {}
                (_, Some(error)) => self.fail(closed.token, error, false, moment),
                (_, None) => self.end(closed.token, "succeeded", moment),
            },
            Event::GroupEnded { .. }
            | Event::SignalReceived(_)
            | Event::RunPaused { .. }
            | Event::RunResumed {}
            | Event::CompensationEnded(_) => {}
            Event::RunForked(forked) => self.forked(forked.run_id),
            Event::UndoStarted { token, undoes, node } => {
                self.enter(*token, node, None, moment);
                if let Some(entry) = self.entry(*token, moment) {
                    entry.undoes = Some(*undoes);
                }
            }
            Event::CompensationStarted(_)
            | Event::RunCompleted { .. }
            | Event::RunFailed { .. }
            | Event::RunCancelled { .. }
            | Event::RunTimedOut { .. } => self.cancel_all(moment),
        }
    }

    fn enter(&mut self, token: TokenId, node: &str, branch: Option<Branch>, moment: Moment) {
        let instance = branch.and_then(|branch| self.instances.get(&branch.instance));
        self.by_token.insert(token, self.entries.len());
        self.entries.push(TimelineEntry {
            token,
            node: node.to_owned(),
            group: instance.and_then(|instance| instance.group.clone()),
            index: branch.map(|branch| branch.index),
            status: "working".to_owned(),
            attempts: 1,
            started_at: moment.at,
            ended_at: None,
            duration_ms: None,
            error: None,
            undoes: None,
            child_run_id: None,
            usage: Usage::default(),
            first_sequence: moment.sequence,
            last_sequence: moment.sequence,
        });
        self.open.insert(token);
        if let Some(branch) = branch {
            self.branches.insert(token, branch);
        }
    }

    fn entry(&mut self, token: TokenId, moment: Moment) -> Option<&mut TimelineEntry> {
        let entry = self.entries.get_mut(*self.by_token.get(&token)?)?;
        entry.last_sequence = moment.sequence;
        Some(entry)
    }

    /// Children that are waited for are the fork's own from there on.
    fn forked(&mut self, run_id: RunId) {
        for token in &self.open {
            let entry = self.by_token.get(token).and_then(|index| self.entries.get_mut(*index));
            if let Some(child) = entry.and_then(|entry| entry.child_run_id.as_mut()) {
                *child = run_id.child(*token).to_string();
            }
        }
    }

    fn attempt(
        &mut self,
        token: TokenId,
        attempt: u32,
        usage: &Usage,
        duration_ms: u64,
        moment: Moment,
    ) {
        if let Some(entry) = self.entry(token, moment) {
            entry.attempts = attempt;
            entry.usage.add(usage);
            entry.duration_ms = Some(duration_ms);
            entry.error = None;
        }
    }

    fn end(&mut self, token: TokenId, status: &str, moment: Moment) {
        self.open.remove(&token);
        if let Some(entry) = self.entry(token, moment) {
            status.clone_into(&mut entry.status);
            entry.ended_at = Some(moment.at);
        }
    }

    fn stand(&mut self, token: TokenId, status: &str, moment: Moment) {
        if let Some(entry) = self.entry(token, moment) {
            status.clone_into(&mut entry.status);
        }
    }

    /// What is worked at waits for the run's turn, or begins with it: of a run that hasn't begun
    /// that is its first token.
    fn turn(&mut self, from: &str, to: &str, moment: Moment) {
        let is_there =
            |token: &&TokenId| self.entry_of(**token).is_some_and(|entry| entry.status == from);
        let turned: Vec<TokenId> = self.open.iter().filter(is_there).copied().collect();
        for token in turned {
            if let Some(entry) = self.entry(token, moment) {
                to.clone_into(&mut entry.status);
                entry.started_at = moment.at;
            }
        }
    }

    fn fail(&mut self, token: TokenId, error: &run::RunError, retries: bool, moment: Moment) {
        if retries {
            if let Some(entry) = self.entry(token, moment) {
                "backing_off".clone_into(&mut entry.status);
            }
        } else {
            self.end(token, "failed", moment);
        }
        if let Some(entry) = self.entry(token, moment) {
            entry.error = Some(RunError::from(error));
        }
    }

    fn route(&mut self, token: TokenId, fired: &[Fired], opened: &[Opened], moment: Moment) {
        if self.open.contains(&token) {
            self.end(token, "succeeded", moment);
        }
        self.entry(token, moment);
        let branch = self.branches.get(&token).copied();
        for fired in fired {
            if let Fired::Moved { token, node, .. } = fired {
                self.enter(*token, node, branch, moment);
            }
        }
        for opened in opened {
            let instance = Instance {
                group: opened.group.clone(),
                branches: opened.branches.clone(),
                parent: branch,
            };
            self.instances.insert(opened.instance, instance);
        }
    }

    fn spawn(
        &mut self,
        instance: InstanceId,
        first: u64,
        token: TokenId,
        count: u64,
        moment: Moment,
    ) {
        let Some(opened) = self.instances.get(&instance) else { return };
        let mut ends = Vec::new();
        let mut end = 0;
        for branches in &opened.branches {
            end += branches.count;
            ends.push((end, branches.node.clone()));
        }
        for offset in 0..count {
            let index = first + offset;
            let node = ends.iter().find(|(end, _)| index < *end).map(|(_, node)| node);
            if let Some(node) = node {
                self.enter(token + offset, node, Some(Branch { instance, index }), moment);
            }
        }
    }

    fn cancel_inside(&mut self, instance: InstanceId, moment: Moment) {
        let inside = |token: &TokenId| {
            let branch = self.branches.get(token).copied();
            self.around(branch).any(|around| around.instance == instance)
        };
        let inside: Vec<TokenId> = self.open.iter().copied().filter(inside).collect();
        self.cancel(inside, moment);
    }

    /// The branches around one, innermost first.
    fn around(&self, branch: Option<Branch>) -> impl Iterator<Item = Branch> {
        std::iter::successors(branch, |branch| self.instances.get(&branch.instance)?.parent)
    }

    /// What the engine's fold takes away.
    fn cancel_region(&mut self, cancelled: &TokensCancelled, moment: Moment) {
        let TokensCancelled { by, within, region, .. } = cancelled;
        let branch_of = |token: &TokenId| self.branches.get(token).copied();
        let extent = Extent::new(*by, *within, region, self.around(branch_of(by)));
        let instances = self.instances.iter().filter(|(id, instance)| {
            extent.takes_instance(**id, instance.group.as_deref(), self.around(instance.parent))
        });
        let instances: Vec<InstanceId> = instances.map(|(id, _)| *id).collect();
        let is_taken = |token: &TokenId| {
            let entry = self.by_token.get(token).and_then(|at| self.entries.get(*at));
            entry.is_some_and(|entry| {
                extent.takes_token(*token, &entry.node, self.around(branch_of(token)))
            })
        };
        let tokens: Vec<TokenId> = self.open.iter().copied().filter(is_taken).collect();
        self.cancel(tokens, moment);
        for instance in instances {
            self.cancel_inside(instance, moment);
        }
    }

    fn cancel_all(&mut self, moment: Moment) {
        let open = std::mem::take(&mut self.open);
        self.cancel(open, moment);
    }

    fn cancel(&mut self, tokens: impl IntoIterator<Item = TokenId>, moment: Moment) {
        for token in tokens {
            self.end(token, "cancelled", moment);
        }
    }
}
