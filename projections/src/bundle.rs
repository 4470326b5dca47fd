//! Runs as bundles: the lines of one, part by part, and the histories that are in one.
//!
//! A bundle is a cut through the journal: of a run and its children, the events up to one position.

use std::collections::HashSet;

use chassis::journal::RecordedEvent;
use chrono::{DateTime, Utc};
use domain::bundle::{FORMAT, Line, Manifest, StoredEvent, StoredPayload, on_one_line};
use domain::codec;
use domain::ids::{RunId, WorkspaceId};
use domain::limits::BUNDLE_RUNS;
use domain::resource::Kind;
use domain::retention;
use domain::run::Event;
use domain::run::event::{DefinitionRef, Pin};
use protocol::bundle::{BundleCursor, BundleFrom, BundlePart};
use protocol::{Cursor, Rejection};
use serde_json::value::RawValue;

use crate::histories::Histories;
use crate::payload::Blobs;
use crate::time_travel::PAGE_EVENTS;
use crate::{Projections, refusal, resources};

mod file;
mod fork;
mod summary;

pub use file::{Bundle, OpenBundleError};

/// Bytes of lines after which a part ends. With one more line, and what is around them, it stays
/// below the 16 MiB that a bus carries.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// What runs refer to. Nothing of these holds a secret: a profile names the variable that has it.
const REFERRED: [Kind; 5] =
    [Kind::WorkflowDefinition, Kind::Action, Kind::PromptSpec, Kind::ModelProfile, Kind::Project];

impl Projections {
    /// A part of a run's bundle.
    pub(crate) async fn bundled(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        from: BundleFrom,
    ) -> Result<BundlePart, Rejection> {
        let cursor = match from {
            BundleFrom::Next(cursor) => *cursor,
            BundleFrom::Start { at } => {
                let position = self.journal.head().await.map_err(refusal::journal)?;
                let up_to = Cursor { epoch: self.journal.epoch(), position };
                BundleCursor::new(manifest(workspace_id, run_id, up_to, at))
            }
        };
        if (cursor.manifest.workspace_id, cursor.manifest.run_id) != (workspace_id, run_id) {
            return Err(refusal::not_found("run", &run_id.to_string()));
        }
        self.histories().bundle(cursor).await
    }
}

/// What stands at the head of a bundle that is made now, of what a journal has up to a place.
pub fn manifest(
    workspace_id: WorkspaceId,
    run_id: RunId,
    up_to: Cursor,
    at: DateTime<Utc>,
) -> Manifest {
    Manifest {
        format: FORMAT,
        run_id,
        workspace_id,
        epoch: format!("{:08x}", up_to.epoch),
        position: up_to.position,
        exported_at: at,
        engine_version: env!("CARGO_PKG_VERSION").to_owned(),
        is_masked: false,
    }
}

impl Histories<'_> {
    /// The workspace of a run.
    ///
    /// # Errors
    /// Where there is no such run, and where events can't be read.
    pub async fn workspace_of(&self, run_id: RunId) -> Result<WorkspaceId, Rejection> {
        let id = run_id.to_string();
        let first = self.run_events(&id, 0, 1).await?.pop();
        let first = first.ok_or_else(|| refusal::not_found("run", &id))?;
        first.workspace_id.parse().map_err(|error| refusal::damaged(&id, &error))
    }

    /// The part of a bundle that a cursor stands before.
    ///
    /// # Errors
    /// Where there is no such run in the workspace, and where events can't be read.
    pub async fn bundle(&self, mut cursor: BundleCursor) -> Result<BundlePart, Rejection> {
        let Manifest { run_id, workspace_id, position, .. } = cursor.manifest;
        let mut part = Part::default();
        if !std::mem::replace(&mut cursor.is_begun, true) {
            self.first_event(workspace_id, &run_id.to_string()).await?;
            if self.is_archived(run_id).await? {
                return Err(self.archived(&run_id.to_string()).await);
            }
            let line = Line::WonderBundle(cursor.manifest.clone());
            part.add(None, line.to_raw().map_err(unwritten)?);
        }
        while let Some(run) = cursor.runs.front() {
            let id = run.to_string();
            let events = self.run_events(&id, cursor.sequence, PAGE_EVENTS).await?;
            let is_last = events.len() < PAGE_EVENTS;
            let known = events.iter().take_while(|event| event.position <= position);
            let mut is_over = is_last;
            for recorded in known {
                let with = self.lines_of(recorded, &cursor).await?;
                for (hash, line) in with.lines.into_iter().skip(cursor.skip) {
                    if part.is_full(&line) {
                        return Ok(BundlePart { lines: part.lines, next: Some(Box::new(cursor)) });
                    }
                    part.add(hash, line);
                    cursor.skip += 1;
                }
                (cursor.skip, cursor.sequence) = (0, recorded.sequence);
                cursor.referred.extend(with.referred);
                if let Some(child) = with.child.filter(|child| !cursor.runs.contains(child))
                    && cursor.taken < BUNDLE_RUNS
                    && !self.is_archived(child).await?
                {
                    cursor.taken += 1;
                    cursor.runs.push_back(child);
                }
            }
            is_over |= events.last().is_some_and(|event| event.position > position);
            if is_over {
                cursor.runs.pop_front();
                cursor.sequence = 0;
            }
        }
        Ok(BundlePart { lines: part.lines, next: None })
    }

    /// Whether content of a run was dropped.
    async fn is_archived(&self, run_id: RunId) -> Result<bool, Rejection> {
        let log = self.past.load(retention::AGGREGATE, &run_id.to_string(), 0, 1).await;
        Ok(!log.map_err(refusal::journal)?.is_empty())
    }

    /// An event's line, after those of what it refers to that weren't given yet.
    async fn lines_of(
        &self,
        recorded: &RecordedEvent,
        cursor: &BundleCursor,
    ) -> Result<With, Rejection> {
        let mut with = With::default();
        if matches!(&*recorded.event_type, "run_started" | "run_forked" | "child_started") {
            let decoded = self.decoded(std::slice::from_ref(recorded)).await?.pop();
            match decoded.map(|(_, event)| event) {
                Some(Event::RunStarted(started)) => {
                    self.refer(&started.definition, &started.pins, cursor, &mut with).await?;
                }
                Some(Event::RunForked(forked)) => {
                    if let Some(definition) = &forked.definition {
                        self.refer(definition, &forked.pins, cursor, &mut with).await?;
                    }
                }
                Some(Event::ChildStarted(child)) => with.child = Some(child.run_id),
                _ => {}
            }
        }
        self.append(recorded, &mut with.lines).await?;
        Ok(with)
    }

    /// Adds what a run follows.
    async fn refer(
        &self,
        definition: &DefinitionRef,
        pins: &[Pin],
        cursor: &BundleCursor,
        with: &mut With,
    ) -> Result<(), Rejection> {
        let id = definition.id.to_string();
        let followed = (Kind::WorkflowDefinition, &id, definition.version);
        let pinned = pins.iter().map(|pin| (pin.kind, &pin.id, pin.version));
        for (kind, id, version) in std::iter::once(followed).chain(pinned) {
            let key = format!("{}/{id}@{version}", kind.as_str());
            let is_new = !cursor.referred.contains(&key) && !with.referred.contains(&key);
            if is_new && REFERRED.contains(&kind) {
                let revision = resources::revision_at(self.past, kind, id, version).await;
                if let Some(revision) = revision.map_err(refusal::journal)? {
                    self.append(&revision, &mut with.lines).await?;
                }
                with.referred.push(key);
            }
        }
        Ok(())
    }

    /// Adds an event, after the values that stand apart from it.
    async fn append(
        &self,
        event: &RecordedEvent,
        lines: &mut Vec<Written>,
    ) -> Result<(), Rejection> {
        if event.redacted.is_some() {
            return Err(self.archived(&event.aggregate_id).await);
        }
        let blobs = Blobs::fetch(self.past, [event.payload.as_ref()]).await;
        let blobs = blobs.map_err(refusal::journal)?;
        for hash in codec::refs(&event.payload) {
            let bytes = blobs.get(&hash).unwrap_or_default();
            let value = on_one_line(&bytes).map_err(unwritten)?;
            let line = Line::Payload(StoredPayload { hash: hash.clone(), value });
            lines.push((Some(hash), line.to_raw().map_err(unwritten)?));
        }
        let metadata = Some(&event.metadata).filter(|metadata| !metadata.is_empty());
        let stored = StoredEvent {
            position: event.position,
            id: event.id,
            aggregate_type: event.aggregate_type.to_string(),
            aggregate_id: event.aggregate_id.to_string(),
            sequence: event.sequence,
            event_type: event.event_type.to_string(),
            event_version: event.event_version,
            recorded_at: event.recorded_at,
            metadata: metadata.map(|text| on_one_line(text)).transpose().map_err(unwritten)?,
            payload: on_one_line(&event.payload).map_err(unwritten)?,
        };
        lines.push((None, Line::Event(Box::new(stored)).to_raw().map_err(unwritten)?));
        Ok(())
    }
}

/// A line, with the hash of its value where that is what it is.
type Written = (Option<String>, Box<RawValue>);

/// What an event comes with.
#[derive(Default)]
struct With {
    lines: Vec<Written>,
    referred: Vec<String>,
    child: Option<RunId>,
}

/// A part that is being put together.
#[derive(Default)]
struct Part {
    lines: Vec<Box<RawValue>>,
    bytes: usize,
    /// Values that are in it: none stands there twice.
    values: HashSet<String>,
}

impl Part {
    fn is_full(&self, line: &RawValue) -> bool {
        self.bytes > 0 && self.bytes + line.get().len() > PART_BYTES
    }

    fn add(&mut self, hash: Option<String>, line: Box<RawValue>) {
        if hash.is_none_or(|hash| self.values.insert(hash)) {
            self.bytes += line.get().len();
            self.lines.push(line);
        }
    }
}

fn unwritten(error: serde_json::Error) -> Rejection {
    refusal::damaged("an event", &error)
}
