//! What compensation has to keep: each completion that can be undone is undone once, newest first,
//! or recorded as failed; nothing else goes on; the run ends with what made it do so.

use serde_json::json;

use super::super::fixture::Fixture;
use crate::run::command::Command;
use crate::run::event::{Cause, Event};
use crate::run::state::Live;
use crate::run::{Run, RunStatus};

/// A cancel, now and then; in the middle of a compensation one that ends it.
pub(super) fn cancel(live: &Live, choice: u32, more: u32) -> Option<Command> {
    let compensate = live.compensation.is_none() && !more.is_multiple_of(5);
    let cancel = Command::Cancel { reason: Some("enough".to_owned()), compensate };
    choice.is_multiple_of(61).then_some(cancel)
}

/// What the events say of what was completed and undone.
#[derive(Default)]
pub(super) struct Undone {
    /// Tokens that completed a node that can be undone.
    completed: Vec<u64>,
    cause: Option<Cause>,
    /// The token of the undo that is under way.
    under_way: Option<u64>,
    undone: u64,
    failed: u64,
    has_ended: bool,
    /// It was cancelled without compensation.
    cut_short: bool,
}

impl Undone {
    pub(super) fn count(&mut self, event: &Event) {
        if self.cause.is_some() {
            self.nothing_new(event);
        }
        match event {
            Event::TaskSucceeded { token, undo: Some(undo), result, .. } => {
                assert_eq!(undo["gave"], *result);
                self.completed.push(*token);
            }
            Event::ChildEnded(ended) if ended.undo.is_some() => {
                assert_eq!(ended.status, RunStatus::Completed);
                self.completed.push(ended.token);
            }
            Event::CompensationStarted(started) => {
                assert_eq!(started.total, self.completed.len() as u64);
                assert!(self.cause.replace(started.cause.clone()).is_none(), "it starts once");
            }
            Event::UndoStarted { token, undoes, .. } => {
                assert_eq!(self.completed.pop(), Some(*undoes), "the newest is undone first");
                assert_eq!(self.under_way.replace(*token), None, "one after another");
            }
            Event::UndoSucceeded { token, .. } => {
                assert_eq!(self.under_way.take(), Some(*token));
                self.undone += 1;
            }
            Event::UndoFailed { token, retry_at, .. } => {
                assert_eq!(self.under_way, Some(*token));
                if retry_at.is_none() {
                    self.under_way = None;
                    self.failed += 1;
                }
            }
            Event::CompensationEnded(record) => {
                assert_eq!((record.undone, record.failed), (self.undone, self.failed));
                assert_eq!(record.failures.len() as u64, self.failed.min(20));
                self.has_ended = true;
            }
            _ => {}
        }
    }

    /// After it has begun to undo its work, a run does nothing else.
    fn nothing_new(&self, event: &Event) {
        let fits = match event {
            Event::UndoStarted { .. }
            | Event::UndoSucceeded { .. }
            | Event::UndoFailed { .. }
            | Event::RetryStarted { .. }
            | Event::SignalReceived(_)
            | Event::RunPaused { .. }
            | Event::RunResumed {}
            | Event::CompensationEnded(_) => !self.has_ended,
            end => self.has_ended && self.cause.clone().map(Event::from).as_ref() == Some(end),
        };
        assert!(fits, "{event:?} while the run undoes its work");
    }

    /// Looks at the run after a command.
    pub(super) fn check(&mut self, run: &Fixture, command: &Command) {
        self.cut_short |= matches!(command, Command::Cancel { compensate: false, .. });
        match &run.run {
            Run::Live(live) => {
                let kept: Vec<_> = live.completions.iter().map(|one| one.token).collect();
                assert_eq!(kept, self.completed);
                let sizes =
                    live.completions.iter().map(|one| crate::run::vars::size_of(&one.input));
                assert_eq!(sizes.sum::<usize>(), live.completions_bytes);
                assert_eq!(live.compensation.is_some(), self.cause.is_some());
                assert!(live.compensation.is_none() || live.tokens.len() == 1, "an undo is owed");
            }
            Run::Closed(closed) if closed.status == RunStatus::Completed => {
                assert!(self.cause.is_none());
            }
            Run::Closed(closed) => {
                let is_done = self.completed.is_empty() && self.under_way.is_none();
                assert!(is_done || self.cut_short, "all is undone before the end");
                let record = closed.compensation.as_deref();
                assert_eq!(record.is_some(), self.cause.is_some());
                assert_eq!(record.map(|one| json!(one.total)).is_some(), self.has_ended);
            }
            Run::NotStarted => {}
        }
    }
}
