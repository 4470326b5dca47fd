//! When two events of different versions are the same: what leads somewhere, and what is a value.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::PartingKind;
use crate::ids::{DefinitionId, ProjectId, RunId};
use crate::run::Usage;
use crate::run::event::{Carried, Cause, Event, Fired, OpenedBranches, Region, RunError};

/// Whether both lead the same way.
pub(super) fn is_same_course(recorded: &Event, decided: &Event) -> bool {
    if recorded == decided {
        return true;
    }
    if recorded.event_type() != decided.event_type() {
        return false;
    }
    let course = |event: &Event| {
        let mut event = event.clone();
        strip_marks(&mut event);
        strip_values(&mut event);
        event
    };
    course(recorded) == course(decided)
}

/// Whether both have the same values, too.
pub(super) fn is_same_value(recorded: &Event, decided: &Event) -> bool {
    let value = |event: &Event| {
        let mut event = event.clone();
        strip_marks(&mut event);
        event
    };
    recorded == decided || value(recorded) == value(decided)
}

/// How two events differ that stand at the same place in two runs: in the way, or in values only;
/// `None` where they say the same. Ids, times, durations and what was used up are a run's own.
pub fn compared(left: &Event, right: &Event) -> Option<PartingKind> {
    if left.event_type() != right.event_type() {
        return Some(PartingKind::Path);
    }
    let (mut left, mut right) = (left.clone(), right.clone());
    for event in [&mut left, &mut right] {
        strip_own(event);
        strip_marks(event);
    }
    if left == right {
        return None;
    }
    for event in [&mut left, &mut right] {
        strip_values(event);
        strip_outside(event);
    }
    Some(if left == right { PartingKind::Values } else { PartingKind::Path })
}

/// Takes out what belongs to one run alone.
fn strip_own(event: &mut Event) {
    match event {
        Event::RunStarted(started) => {
            started.run_id = RunId::new(Uuid::nil());
            started.started_at = DateTime::UNIX_EPOCH;
            (started.workflow_id, started.started_by) = (None, None);
            (started.parent, started.trigger, started.admission) = (None, None, None);
            (started.forked_from, started.rerun_of) = (None, None);
        }
        Event::TaskSucceeded { usage, duration_ms, adopted, .. }
        | Event::TaskFailed { usage, duration_ms, adopted, .. } => {
            (*usage, *duration_ms, *adopted) = (Usage::default(), 0, None);
        }
        Event::UndoSucceeded { usage, duration_ms, .. }
        | Event::UndoFailed { usage, duration_ms, .. } => {
            (*usage, *duration_ms) = (Usage::default(), 0);
        }
        Event::WaitStarted { until, .. } => *until = until.map(|_| DateTime::UNIX_EPOCH),
        Event::ChildStarted(child) => child.run_id = RunId::new(Uuid::nil()),
        Event::ChildEnded(child) => child.adopted = None,
        _ => {}
    }
}

/// Takes out the values that came from outside.
fn strip_outside(event: &mut Event) {
    match event {
        Event::RunStarted(started) => {
            started.definition.name.clear();
            started.definition.hash.clear();
            (started.definition.id, started.definition.version) =
                (DefinitionId::new(Uuid::nil()), 0);
            started.project_id = ProjectId::new(Uuid::nil());
            started.input = Value::Null;
            started.labels.clear();
            started.pins.clear();
        }
        Event::GateAnswered(answer) => {
            answer.actor.clear();
            (answer.value, answer.comment) = (Value::Null, None);
        }
        Event::SignalReceived(signal) => signal.payload = Value::Null,
        Event::RunPaused { reason, .. } | Event::RunCancelled { reason, .. } => *reason = None,
        _ => {}
    }
}

/// Takes out what differs between versions and means nothing by itself: places of transitions in
/// the document, what was looked at, names of groups and mutexes, and times.
fn strip_marks(event: &mut Event) {
    match event {
        Event::RunStarted(started) => started.deadline = None,
        Event::RunAdmitted { deadline, until } => (*deadline, *until) = (None, None),
        Event::TaskFailed { retry_at, .. } | Event::UndoFailed { retry_at, .. } => {
            *retry_at = retry_at.map(|_| DateTime::<Utc>::UNIX_EPOCH);
        }
        Event::TokenRouted { considered, fired, opened, extended, .. } => {
            considered.clear();
            for one in fired {
                match one {
                    Fired::Moved { transition, iteration, .. } => {
                        (*transition, *iteration) = (0, None);
                    }
                    Fired::Arrived { transition, .. } => *transition = 0,
                }
            }
            for one in opened {
                (one.group, one.deadline) = (None, None);
                one.branches.iter_mut().for_each(strip_branches);
            }
            extended.iter_mut().for_each(|one| strip_branches(&mut one.branches));
        }
        Event::JoinFired { iteration, .. } => *iteration = None,
        Event::TokensCancelled(cancelled) => {
            cancelled.transition = 0;
            if let Region::Group(name) = &mut cancelled.region {
                name.clear();
            }
        }
        Event::MutexAwaited { mutex, .. } | Event::MutexTaken { mutex, .. } => mutex.clear(),
        Event::SignalReceived(signal) => signal.sent_at = DateTime::UNIX_EPOCH,
        Event::GateOpened(gate) => gate.deadline = None,
        Event::GateAnswered(answer) => answer.at = DateTime::UNIX_EPOCH,
        Event::ChildStarted(child) => child.deadline = None,
        Event::RunQueued(_)
        | Event::TaskSucceeded { .. }
        | Event::TaskHandedOut { .. }
        | Event::RetryStarted { .. }
        | Event::NodeComputed { .. }
        | Event::NodeFailed { .. }
        | Event::BranchesSpawned { .. }
        | Event::JoinFailed { .. }
        | Event::GroupEnded { .. }
        | Event::WaitStarted { .. }
        | Event::WaitEnded { .. }
        | Event::GateClosed(_)
        | Event::EventEmitted { .. }
        | Event::MetricEmitted { .. }
        | Event::ChildEnded(_)
        | Event::RunPaused { .. }
        | Event::RunResumed {}
        | Event::RunForked(_)
        | Event::CompensationStarted(_)
        | Event::UndoStarted { .. }
        | Event::UndoSucceeded { .. }
        | Event::CompensationEnded(_)
        | Event::RunCompleted { .. }
        | Event::RunFailed { .. }
        | Event::RunCancelled { .. }
        | Event::RunTimedOut { .. } => {}
    }
}

fn strip_branches(branches: &mut OpenedBranches) {
    (branches.transition, branches.iteration) = (0, None);
}

/// Takes out the values.
fn strip_values(event: &mut Event) {
    match event {
        Event::TaskSucceeded { result, writes, undo, .. } => {
            (*result, *undo) = (Value::Null, None);
            writes.clear();
        }
        Event::NodeComputed { writes, .. } | Event::JoinFired { writes, .. } => writes.clear(),
        Event::WaitEnded { result, writes, .. } => {
            *result = Value::Null;
            writes.clear();
        }
        Event::GateOpened(gate) => {
            (gate.approvals, gate.rejections) = (0, 0);
            (gate.form, gate.not_by) = (None, None);
            gate.title.clear();
            gate.assignees.clear();
            gate.roles.clear();
        }
        Event::GateClosed(gate) => {
            gate.result = Value::Null;
            gate.writes.clear();
            gate.error.iter_mut().for_each(strip_error);
        }
        Event::EventEmitted { name, data, .. } => {
            name.clear();
            *data = Value::Null;
        }
        Event::MetricEmitted { name, value, dimensions, .. } => {
            name.clear();
            *value = 0.0;
            dimensions.clear();
        }
        Event::ChildStarted(child) => child.definition.clear(),
        Event::ChildEnded(child) => {
            (child.result, child.undo) = (Value::Null, None);
            child.writes.clear();
            child.error.iter_mut().for_each(strip_error);
        }
        Event::TokenRouted { fired, extended, .. } => {
            for one in fired {
                if let Fired::Arrived { value, .. } = one {
                    *value = Carried::Result;
                }
            }
            extended.iter_mut().for_each(|one| one.items.clear());
        }
        Event::BranchesSpawned { items, .. } => items.clear(),
        Event::WaitStarted { until, .. } => *until = None,
        Event::UndoSucceeded { result, .. } => *result = Value::Null,
        Event::RunCompleted { output } => *output = Value::Null,
        Event::TaskFailed { error, .. }
        | Event::UndoFailed { error, .. }
        | Event::NodeFailed { error, .. }
        | Event::JoinFailed { error, .. }
        | Event::RunFailed { error }
        | Event::RunTimedOut { error } => strip_error(error),
        Event::CompensationStarted(started) => match &mut started.cause {
            Cause::Failed { error } | Cause::TimedOut { error } => strip_error(error),
            Cause::Cancelled { .. } => {}
        },
        Event::CompensationEnded(ended) => {
            ended.failures.iter_mut().for_each(|failure| failure.message.clear());
        }
        Event::RunStarted(_)
        | Event::RunQueued(_)
        | Event::RunAdmitted { .. }
        | Event::TaskHandedOut { .. }
        | Event::RetryStarted { .. }
        | Event::TokensCancelled(_)
        | Event::GroupEnded { .. }
        | Event::MutexAwaited { .. }
        | Event::MutexTaken { .. }
        | Event::SignalReceived(_)
        | Event::GateAnswered(_)
        | Event::RunPaused { .. }
        | Event::RunResumed {}
        | Event::RunForked(_)
        | Event::UndoStarted { .. }
        | Event::RunCancelled { .. } => {}
    }
}

fn strip_error(error: &mut RunError) {
    error.message.clear();
    error.detail = Value::Null;
}
