//! What events say, in words.

use domain::run::Event;
use domain::run::event::{Cause, Decision, GateOutcome, QueueReason, Region, TokenId};
use domain::run::{RunError, RunStatus};

/// What an event tells that explanations are made of, by its type.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Telling {
    /// What one token does: see [`token_of`].
    pub(super) of_token: bool,
    /// Where tokens are, and groups.
    pub(super) of_places: bool,
    /// That the run waits for its turn, or no longer.
    pub(super) of_turn: bool,
    /// It may belong to what led to the end: see [`leads_to_the_end`].
    pub(super) of_end: bool,
}

/// The types of events that are about one token, lead to no end, and are most of a long run's.
pub(super) const OF_ONE_TOKEN: &[&str] = &[
    "task_succeeded",
    "task_handed_out",
    "retry_started",
    "node_computed",
    "mutex_awaited",
    "mutex_taken",
    "wait_started",
    "wait_ended",
    "event_emitted",
    "metric_emitted",
    "undo_succeeded",
    "gate_opened",
    "gate_answered",
    "child_started",
    "token_routed",
];

/// What events of a type tell.
pub(super) fn telling(event_type: &str) -> Telling {
    let none = Telling::default();
    match event_type {
        "task_succeeded" | "task_handed_out" | "retry_started" | "node_computed"
        | "mutex_awaited" | "mutex_taken" | "wait_started" | "wait_ended" | "event_emitted"
        | "metric_emitted" | "undo_succeeded" | "gate_opened" | "gate_answered"
        | "child_started" => Telling { of_token: true, ..none },
        "task_failed" | "node_failed" | "undo_failed" | "gate_closed" | "child_ended" => {
            Telling { of_token: true, of_end: true, ..none }
        }
        "run_started" | "token_routed" | "branches_spawned" | "join_fired" | "group_ended"
        | "undo_started" => Telling { of_places: true, ..none },
        "join_failed" => Telling { of_places: true, of_end: true, ..none },
        "run_queued" | "run_admitted" => Telling { of_turn: true, ..none },
        "compensation_started"
        | "compensation_ended"
        | "run_completed"
        | "run_failed"
        | "run_cancelled"
        | "run_timed_out" => Telling { of_end: true, ..none },
        _ => none,
    }
}

/// The token that an event is about, where it is about one at its node.
pub(super) fn token_of(event: &Event) -> Option<TokenId> {
    match event {
        Event::TaskSucceeded { token, .. }
        | Event::TaskFailed { token, .. }
        | Event::TaskHandedOut { token, .. }
        | Event::RetryStarted { token, .. }
        | Event::NodeComputed { token, .. }
        | Event::NodeFailed { token, .. }
        | Event::MutexAwaited { token, .. }
        | Event::MutexTaken { token, .. }
        | Event::WaitStarted { token, .. }
        | Event::WaitEnded { token, .. }
        | Event::EventEmitted { token, .. }
        | Event::MetricEmitted { token, .. }
        | Event::UndoSucceeded { token, .. }
        | Event::UndoFailed { token, .. } => Some(*token),
        Event::GateOpened(opened) => Some(opened.token),
        Event::GateAnswered(answered) => Some(answered.token),
        Event::GateClosed(closed) => Some(closed.token),
        Event::ChildStarted(child) => Some(child.token),
        Event::ChildEnded(child) => Some(child.token),
        // These make tokens, or end them, and are told there.
        Event::RunStarted(_)
        | Event::TokenRouted { .. }
        | Event::BranchesSpawned { .. }
        | Event::JoinFired { .. }
        | Event::UndoStarted { .. }
        | Event::TokensCancelled(_)
        | Event::RunQueued(_)
        | Event::RunAdmitted { .. }
        | Event::JoinFailed { .. }
        | Event::GroupEnded { .. }
        | Event::SignalReceived(_)
        | Event::RunPaused { .. }
        | Event::RunResumed {}
        | Event::RunForked(_)
        | Event::CompensationStarted(_)
        | Event::CompensationEnded(_)
        | Event::RunCompleted { .. }
        | Event::RunFailed { .. }
        | Event::RunCancelled { .. }
        | Event::RunTimedOut { .. } => None,
    }
}

/// Whether an event belongs to what led to a run's end: a failure that is final, or the end.
pub(super) fn leads_to_the_end(event: &Event) -> bool {
    match event {
        Event::TaskFailed { retry_at, .. } | Event::UndoFailed { retry_at, .. } => {
            retry_at.is_none()
        }
        Event::NodeFailed { .. }
        | Event::JoinFailed { .. }
        | Event::CompensationStarted(_)
        | Event::CompensationEnded(_)
        | Event::RunCompleted { .. }
        | Event::RunFailed { .. }
        | Event::RunCancelled { .. }
        | Event::RunTimedOut { .. } => true,
        Event::ChildEnded(child) => child.error.is_some(),
        Event::GateClosed(gate) => gate.error.is_some(),
        Event::RunStarted(_)
        | Event::RunQueued(_)
        | Event::RunForked(_)
        | Event::RunAdmitted { .. }
        | Event::TaskSucceeded { .. }
        | Event::TaskHandedOut { .. }
        | Event::RetryStarted { .. }
        | Event::NodeComputed { .. }
        | Event::TokenRouted { .. }
        | Event::BranchesSpawned { .. }
        | Event::JoinFired { .. }
        | Event::TokensCancelled(_)
        | Event::GroupEnded { .. }
        | Event::MutexAwaited { .. }
        | Event::MutexTaken { .. }
        | Event::WaitStarted { .. }
        | Event::WaitEnded { .. }
        | Event::SignalReceived(_)
        | Event::GateOpened(_)
        | Event::GateAnswered(_)
        | Event::EventEmitted { .. }
        | Event::MetricEmitted { .. }
        | Event::ChildStarted(_)
        | Event::RunPaused { .. }
        | Event::RunResumed {}
        | Event::UndoStarted { .. }
        | Event::UndoSucceeded { .. } => false,
    }
}

/// An event in words, without its token and node.
pub(super) fn told(event: &Event) -> String {
    match event {
        Event::RunStarted(started) => format!("the run started at {}", started.start),
        Event::RunQueued(QueueReason::Concurrency { limit, .. }) => {
            format!("the run waits for its turn: {limit} may go on at the same time")
        }
        Event::RunQueued(QueueReason::RateLimit { limit, period, .. }) => {
            format!("the run waits for its turn: {limit} may begin in {period}")
        }
        Event::RunQueued(QueueReason::WorkflowPaused { .. }) => {
            "the run waits for its turn: its workflow is paused".to_owned()
        }
        Event::RunAdmitted { .. } => "the run may begin".to_owned(),
        Event::RunForked(forked) => {
            let (from, sequence) = (forked.from, forked.sequence);
            format!("all before is shared with {from}, up to its event {sequence}")
        }
        Event::TaskSucceeded { attempt, .. } => format!("attempt {attempt} succeeded"),
        Event::TaskFailed { attempt, error, retry_at, .. } => {
            let then = retry_at.map_or_else(String::new, |at| {
                format!("; attempt {} is due at {}", attempt + 1, at.to_rfc3339())
            });
            format!("attempt {attempt} failed with {}{then}", short(error))
        }
        Event::TaskHandedOut { attempt, .. } => format!("attempt {attempt} was handed to a worker"),
        Event::RetryStarted { attempt, .. } => format!("attempt {attempt} started"),
        Event::NodeComputed { .. } => "it was computed".to_owned(),
        Event::NodeFailed { error, .. } => format!("the node failed with {}", short(error)),
        Event::TokenRouted { fired, opened, extended, failed, .. } => match failed {
            true => "the failure went up: no transition takes it".to_owned(),
            false if fired.is_empty() && opened.is_empty() && extended.is_empty() => {
                "it ended here: no transition fired".to_owned()
            }
            false => "it went on".to_owned(),
        },
        Event::BranchesSpawned { count, .. } => format!("{count} branches were made"),
        Event::JoinFired { arithmetic, timed_out, .. } => {
            let why = if *timed_out { ", as its time was up" } else { "" };
            let (arrived, needed) = (arithmetic.arrived, arithmetic.needed);
            format!("the join fired{why}: {arrived} arrived of {needed} that it needs")
        }
        Event::JoinFailed { error, arithmetic, .. } => {
            let (arrived, failed) = (arithmetic.arrived, arithmetic.failed);
            format!("the join failed with {}: {arrived} arrived, {failed} failed", short(error))
        }
        Event::TokensCancelled(cancelled) => {
            let of = match &cancelled.region {
                Region::Nodes(nodes) => format!("at {}", nodes.join(", ")),
                Region::Group(group) => format!("of the group {group}"),
                Region::All => "of all others".to_owned(),
            };
            let (count, by) = (cancelled.tokens, cancelled.by);
            format!("the transition that token {by} took ended {count} tokens {of}")
        }
        Event::GroupEnded { .. } => "the group ended without a join".to_owned(),
        Event::MutexAwaited { mutex, .. } => format!("it waits for the mutex {mutex}"),
        Event::MutexTaken { mutex, .. } => format!("it has the mutex {mutex}"),
        Event::WaitStarted { until, signal, .. } => {
            let until = until.map_or_else(String::new, |at| format!(" until {}", at.to_rfc3339()));
            let signal = signal.as_ref().map(|name| format!(" for the signal {name}"));
            format!("it waits{}{until}", signal.unwrap_or_default())
        }
        Event::WaitEnded { signal, .. } => match signal {
            Some(number) => format!("signal {number} of the run was taken"),
            None => "the time was there".to_owned(),
        },
        Event::SignalReceived(signal) => format!("the signal {} came", signal.name),
        Event::GateOpened(gate) => format!("the gate {:?} asks people", gate.title),
        Event::GateAnswered(answer) => {
            let said = match answer.decision {
                Decision::Approve => "approved",
                Decision::Reject => "rejected",
            };
            format!("{} {said}", answer.actor)
        }
        Event::GateClosed(gate) => {
            let came_to = match gate.outcome {
                GateOutcome::Cancelled => "was given up",
                _ if gate.error.is_some() => "closed with a failure",
                _ => "closed",
            };
            let error = gate.error.as_ref().map(|error| format!(": {}", short(error)));
            format!("the gate {came_to}{}", error.unwrap_or_default())
        }
        Event::EventEmitted { name, .. } => format!("the event {name} was published"),
        Event::MetricEmitted { name, value, .. } => format!("the metric {name} got {value}"),
        Event::ChildStarted(child) => {
            format!("the child run {} of {} was started", child.run_id, child.definition)
        }
        Event::ChildEnded(child) => match &child.error {
            Some(error) => format!("the child run didn't complete: {}", short(error)),
            None => "the child run completed".to_owned(),
        },
        Event::RunPaused { reason, .. } => {
            let reason = reason.as_ref().map(|reason| format!(": {reason}"));
            format!("the run was paused{}", reason.unwrap_or_default())
        }
        Event::RunResumed {} => "the run was resumed".to_owned(),
        Event::CompensationStarted(started) => {
            let why = match &started.cause {
                Cause::Failed { error } | Cause::TimedOut { error } => short(error),
                Cause::Cancelled { .. } => "a cancel".to_owned(),
            };
            format!("the run undoes {} completions, for {why}", started.total)
        }
        Event::UndoStarted { undoes, .. } => format!("what token {undoes} did is undone"),
        Event::UndoSucceeded { attempt, .. } => format!("attempt {attempt} undid it"),
        Event::UndoFailed { attempt, error, .. } => {
            format!("attempt {attempt} to undo it failed with {}", short(error))
        }
        Event::CompensationEnded(ended) => {
            format!("{} of {} completions were undone", ended.undone, ended.total)
        }
        Event::RunCompleted { .. } => "all tokens had ended: the run completed".to_owned(),
        Event::RunFailed { error } => format!("the run failed with {}", short(error)),
        Event::RunCancelled { reason, .. } => {
            let reason = reason.as_ref().map(|reason| format!(": {reason}"));
            format!("the run was cancelled{}", reason.unwrap_or_default())
        }
        Event::RunTimedOut { error } => format!("the run timed out: {}", short(error)),
    }
}

/// An error's code and the beginning of its message.
fn short(error: &RunError) -> String {
    const CHARACTERS: usize = 200;
    let mut message: String = error.message.chars().take(CHARACTERS).collect();
    if message.len() < error.message.len() {
        message.push('…');
    }
    format!("{} ({message})", error.code)
}

/// How a run that goes on stands.
pub(super) const fn standing(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Queued => "the run waits for its turn: nothing of it has begun",
        RunStatus::Running => "the run goes on",
        RunStatus::Waiting => "the run waits: nothing of it is on a worker",
        RunStatus::Paused => {
            "the run is paused: nothing is handed to workers, and timers stand still"
        }
        RunStatus::Completed => "the run completed",
        RunStatus::Failed => "the run failed",
        RunStatus::Cancelled => "the run was cancelled",
        RunStatus::TimedOut => "the run timed out",
    }
}
