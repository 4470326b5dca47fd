//! Retention: what stays of runs that have ended, and the record of what was dropped.
//!
//! An event stays where it is, with its header, its metadata and the SHA-256 of its payload as it
//! was written, so that positions, sequences and the audit chain are what they were. What the
//! payload told of the work (inputs, results, state, messages, what people were asked) is dropped;
//! what the run did stays, and everything that counts or lists runs goes on from that: see
//! [`remains`].
//!
//! What was dropped is recorded in an aggregate of its own, which has the run's id. An event of it
//! says of at most [`SLICE`] events what stands there now, by a hash; the last one of a run says
//! that all is done.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{Home, RunId};
use crate::run::event::RunStarted;
use crate::span::Span;

mod remains;

pub use remains::{Unreadable, remains};

/// The aggregate type in the journal; ids are those of runs.
pub const AGGREGATE: &str = "retention";
/// The id of the aggregate that is about no run.
pub const VALUES: &str = "values";
/// Events of a run that one event is about, at most: those from 1 on, from 1,001 on, and so on.
pub const SLICE: u64 = 1_000;

/// What stays of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Nothing but what happened, when, where, how often and by whom, and the proof of the rest.
    Header,
    /// The same, with the run's input, and its output or error.
    Results,
    /// All of it.
    Full,
}

impl Keep {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Results => "results",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a project keeps of its runs, and from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub keep: Keep,
    /// How long all of a run is kept after its end.
    pub after: Span,
    /// All of a run is written elsewhere before anything of it is dropped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archive: bool,
}

impl Policy {
    /// The last moment at which a run must have ended for it to go now.
    pub fn until(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let after = TimeDelta::from_std(self.after.as_duration()).unwrap_or(TimeDelta::MAX);
        now.checked_sub_signed(after).unwrap_or(DateTime::<Utc>::MIN_UTC)
    }
}

/// Where all of a run was written to before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// A file's name or an address, as whoever wrote it calls it.
    pub location: String,
    /// SHA-256 of its bytes, 64 hexadecimal digits.
    pub sha256: String,
}

/// What happened to a run's history. `type` is the journal's event type; the rest is its payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// Content of the next events was dropped; there are more to come.
    RunThinned(Box<Dropped>),
    /// The same of the last ones: the run is archived.
    RunArchived(Box<Dropped>),
    /// Values that stood apart from events went, since no event refers to them any more. Of no run:
    /// the aggregate is [`VALUES`].
    ValuesDropped { values: u64 },
}

/// What was dropped of a part of a run's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub run_id: RunId,
    pub keep: Keep,
    /// The first and the last event that it is about.
    pub first: u64,
    pub last: u64,
    /// How many of them have another payload now than they had before.
    pub events: u64,
    /// Bytes by which their payloads are smaller.
    pub bytes: u64,
    /// SHA-256 over the SHA-256 of the payloads that stand there now, one after the other; 64
    /// hexadecimal digits.
    pub sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
}

impl Event {
    /// Every event type.
    pub const TYPES: [&'static str; 3] = ["run_thinned", "run_archived", "values_dropped"];

    /// The journal's event type.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::RunThinned(_) => "run_thinned",
            Self::RunArchived(_) => "run_archived",
            Self::ValuesDropped { .. } => "values_dropped",
        }
    }

    /// The version of the event's payload.
    pub const fn event_version(&self) -> u32 {
        1
    }

    /// What it says of a run, and whether all is done with it.
    pub fn dropped(&self) -> Option<(&Dropped, bool)> {
        match self {
            Self::RunThinned(dropped) => Some((dropped, false)),
            Self::RunArchived(dropped) => Some((dropped, true)),
            Self::ValuesDropped { .. } => None,
        }
    }
}

/// What becomes [`Dropped::sha256`].
#[derive(Debug, Default)]
pub struct Proof(Sha256);

impl Proof {
    /// The payload that stands in the next event.
    pub fn take(&mut self, payload: &[u8]) {
        self.0.update(Sha256::digest(payload));
    }

    /// The whole, as 64 hexadecimal digits.
    pub fn finish(self) -> String {
        data_encoding::HEXLOWER.encode(&self.0.finalize())
    }
}

/// What a run's history has come to, by the events of its retention.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retained {
    /// What stays, where something was dropped.
    pub keep: Option<Keep>,
    /// The event after which the next part begins; 0 before the first and after the last.
    pub upto: u64,
    /// Where all of it is, if it was written anywhere before.
    pub archive: Option<Archive>,
}

impl Retained {
    /// Folds an event.
    pub fn evolve(&mut self, event: &Event) {
        let Some((dropped, is_done)) = event.dropped() else { return };
        self.keep = Some(dropped.keep);
        self.archive = dropped.archive.clone().or_else(|| self.archive.take());
        self.upto = if is_done { 0 } else { dropped.last };
    }

    /// What is kept once less is asked for, or `None` where nothing is to be done: a part that was
    /// begun is finished as it was begun.
    pub fn next(&self, asked: Keep) -> Option<Keep> {
        match self.keep {
            Some(begun) if self.upto > 0 => Some(begun),
            Some(kept) => (asked < kept).then_some(asked),
            None => (asked < Keep::Full).then_some(asked),
        }
    }
}

/// The runs by which others are found that may need the history of one that has ended: those of
/// the same family (the same run at the top), forks of it and of what is above it, the run that it
/// is a fork of, and other forks of that. A child waits to be asked for its end; a fork takes over
/// outcomes, and forks children that go on, and those theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kin {
    pub run_id: RunId,
    /// With the run itself.
    ids: BTreeSet<RunId>,
}

impl Kin {
    /// Of a run by its id and its first event, which of a fork has the id of the other run.
    pub fn of(run_id: RunId, run: &RunStarted) -> Self {
        let parent = run.parent.iter().flat_map(|parent| [parent.run_id, parent.root_run_id]);
        let from = run.forked_from.map(|from| from.run_id);
        Self { run_id, ids: parent.chain(from).chain([run_id]).collect() }
    }

    /// Also what is above its parent, and below the top.
    pub fn add(&mut self, above: RunId) {
        self.ids.insert(above);
    }

    /// Whether a run is one of those that may need it. It is given as the first one is.
    pub fn has(&self, run_id: RunId, run: &RunStarted) -> bool {
        let top = run.parent.map(|parent| parent.root_run_id);
        let from = run.forked_from.map(|from| from.run_id);
        [Some(run_id), top, from].into_iter().flatten().any(|id| self.ids.contains(&id))
    }

    /// Forks of these may need it.
    pub fn ids(&self) -> impl Iterator<Item = RunId> + '_ {
        self.ids.iter().copied()
    }

    /// Where those are that may need it and are no forks of these: a family has one home.
    pub fn homes(&self) -> BTreeSet<Home> {
        self.ids.iter().map(|id| id.home()).collect()
    }
}

#[cfg(test)]
mod tests;
