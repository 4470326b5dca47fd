//! From a run's events to an append of the journal, and from its failure to a refusal.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use chassis::clock::Clock;
use chassis::journal::{Append, InboxEntry, Mark, NewEvent, Snapshot};
use chrono::{DateTime, Utc};
use domain::codec::{self, EncodeError};
use domain::ids::WorkspaceId;
use domain::run::state::{Fork, Live, WaitKinds};
use domain::run::{Event, Run, STATE_VERSION};
use protocol::Receipt;

use super::{admissions, outcome};
use crate::store::inbox::{self, Remembered};
use crate::store::{metadata, payload};

/// What made a run's events happen: their metadata, and the answer to keep for a retried command.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub workspace_id: WorkspaceId,
    pub metadata: Bytes,
    pub remembered: Option<Remembered>,
}

/// Events after which a run's state is kept as a snapshot, at least.
pub(super) const SNAPSHOT_EVERY: u64 = 500;
/// Bytes of a snapshot for which one more event is waited until the next: so the snapshots of a run
/// together stay in proportion to its events, however large its state is.
const SNAPSHOT_BYTES_AN_EVENT: usize = 256;
/// Bytes above which a snapshot isn't worth its place.
const SNAPSHOT_BYTES: usize = 4 * 1024 * 1024;
/// Tokens with which a state isn't kept either: at some 190 bytes each, writing it out holds up the
/// runs beside it for 10 ms and more.
const SNAPSHOT_TOKENS: usize = 10_000;

/// The run that an append belongs to.
pub(super) struct Stream<'a> {
    pub id: &'a Arc<str>,
    pub workspace: &'a Arc<str>,
    pub workspace_id: WorkspaceId,
    /// The sequence before the events.
    pub sequence: u64,
    /// The sequence from which on its state is to be kept again.
    pub snapshot_due: u64,
    /// What it waited for before the events.
    pub waited_on: WaitKinds,
    pub shard: u16,
    /// See [`Append::epoch`].
    pub epoch: Option<u64>,
}

/// Encodes a run's events. `run` is the run after them; `shared` are events of another run that
/// come first, with the times at which they happened to it. Says when its state is to be kept again.
pub(super) fn append(
    stream: &Stream<'_>,
    run: &Run,
    shared: &[(Event, DateTime<Utc>)],
    events: &[Event],
    cause: &Cause,
    at: DateTime<Utc>,
    clock: &dyn Clock,
) -> Result<(Append, u64), EncodeError> {
    let mut payloads = Vec::new();
    let mut new_events = Vec::with_capacity(shared.len() + events.len());
    let shared = shared.iter().map(|(event, at)| (event, Some(*at)));
    for (event, recorded_at) in shared.chain(events.iter().map(|event| (event, None))) {
        let encoded = codec::encode(event, stream.workspace_id)?;
        let (name, version) = (super::actor::event_type(event), event.event_version());
        let (new, values) = payload::new_event(clock, name, version, encoded);
        payloads.extend(values);
        new_events.push(NewEvent { recorded_at, ..new });
    }
    let last = stream.sequence + new_events.len() as u64;
    let started = is_start(stream, run);
    let ended = matches!(run, Run::Closed(_));
    let (snapshot, snapshot_due) = snapshot(stream, run, last);
    let append = Append {
        aggregate_type: super::actor::run_type(),
        aggregate_id: Arc::clone(stream.id),
        expected_sequence: stream.sequence,
        workspace_id: Arc::clone(stream.workspace),
        metadata: match run.live().map(Live::waiting_on).filter(|now| *now != stream.waited_on) {
            Some(waits) => metadata::waiting_on(&cause.metadata, waits),
            None => cause.metadata.clone(),
        },
        recorded_at: at,
        events: new_events,
        inbox: answer(stream, run, last, at, cause).into_iter().collect(),
        payloads,
        open: match (started, ended) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            // What it shares was written before it began, and put it on the list.
            (true, true) => (stream.sequence > 0).then_some(false),
            (false, false) => None,
        },
        leans_on: run.live().and_then(|live| live.header.fork).filter(|_| started).map(leans_on),
        snapshot,
        mark: mark(run, events),
        redaction: None,
        shard: stream.shard,
        epoch: stream.epoch,
    };
    Ok((append, snapshot_due))
}

/// The answer that a repetition of the command gets: the same as the first one's.
fn answer(
    stream: &Stream<'_>,
    run: &Run,
    version: u64,
    at: DateTime<Utc>,
    cause: &Cause,
) -> Option<InboxEntry> {
    let remembered = cause.remembered.as_ref()?;
    let receipt = Receipt {
        id: stream.id.to_string(),
        version,
        position: 0,
        created: is_start(stream, run),
        at,
        queued: is_start(stream, run) && run.is_in_queue(),
        outcome: outcome::of(run, version, 0).filter(outcome::is_small),
        ..Receipt::default()
    };
    Some(InboxEntry {
        key: remembered.key.clone(),
        fingerprint: remembered.fingerprint.clone(),
        answer: inbox::encode(&receipt),
    })
}

/// Whether the run begins with what comes after these events.
fn is_start(stream: &Stream<'_>, run: &Run) -> bool {
    let shares = run.header().and_then(|header| header.shares);
    stream.sequence == 0 || shares == Some(stream.sequence)
}

/// A fork needs the other run's history for as long as it goes on.
fn leans_on(fork: Fork) -> Arc<str> {
    fork.run_id.to_string().into()
}

/// Until when the run counts for its rate, where that is said now.
fn mark(run: &Run, events: &[Event]) -> Option<Mark> {
    let until = events.iter().find_map(Event::slot_until)?;
    Some(admissions::mark(run.header()?.run_id.home(), until))
}

/// The run's state where it is to be kept, and when the next time is. One that is too large isn't
/// written out to its end.
fn snapshot(stream: &Stream<'_>, run: &Run, last: u64) -> (Option<Snapshot>, u64) {
    let Some(live) = run.live().filter(|_| last >= stream.snapshot_due) else {
        return (None, stream.snapshot_due);
    };
    let mut state = Bounded(Vec::new());
    let fits =
        live.tokens.len() <= SNAPSHOT_TOKENS && serde_json::to_writer(&mut state, run).is_ok();
    let size = if fits { state.0.len() } else { SNAPSHOT_BYTES };
    let next = last + SNAPSHOT_EVERY.max((size / SNAPSHOT_BYTES_AN_EVENT) as u64);
    let (version, state) = (STATE_VERSION, Bytes::from(state.0));
    (fits.then_some(Snapshot { sequence: last, version, state }), next)
}

/// Bytes of a snapshot; refuses more than it may have.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > SNAPSHOT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
