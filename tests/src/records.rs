//! The journal's file, read while no process has it open: what really stands there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use chassis::journal::{Journal, RecordedEvent, Snapshot, SqliteJournal, SqliteOptions, Until};
use domain::codec;
use domain::definition::{Plan, Resolved};
use domain::resource::{self, Kind, Spec};
use domain::run::event::DefinitionRef;
use domain::run::replay::Replay;
use domain::run::state::WaitKinds;
use domain::run::{Event, Run, STATE_VERSION};
use serde_json::{Value, json};

/// Events that are read at once.
const PAGE: usize = 2_000;

/// Every event of a journal.
#[derive(Debug)]
pub struct Records {
    pub events: Vec<RecordedEvent>,
    blobs: HashMap<Arc<str>, Vec<u8>>,
    /// Places in `events`, by aggregate.
    places: HashMap<Arc<str>, Vec<usize>>,
    /// The snapshots that are kept of each run; none of a journal of an earlier build.
    snapshots: Option<HashMap<String, Vec<Snapshot>>>,
}

/// A run after one of its events.
#[derive(Debug, Clone)]
pub struct Step {
    pub position: u64,
    pub sequence: u64,
    pub event: Event,
    pub run: Run,
}

impl Records {
    /// Reads the journal of a data folder whose platform is stopped or killed.
    pub async fn read(data_dir: &Path) -> Self {
        let path = data_dir.join("journal.db");
        let journal = SqliteJournal::open(&path, SqliteOptions::default()).await;
        let journal = journal.expect("the journal can be opened: no process has it open");
        let records = Self::of(&*journal).await;
        journal.close().await;
        records
    }

    /// Reads all of a journal.
    pub async fn of(journal: &dyn Journal) -> Self {
        let mut events: Vec<RecordedEvent> = Vec::new();
        let mut blobs = HashMap::new();
        loop {
            let after = events.last().map_or(0, |event| event.position);
            let page = journal.read(after, PAGE).await.expect("the journal can be read");
            if page.is_empty() {
                break;
            }
            let refs = page.iter().flat_map(|event| codec::refs(&event.payload)).map(Arc::from);
            let hashes: HashSet<Arc<str>> = refs.collect();
            let hashes: Vec<Arc<str>> = hashes.into_iter().collect();
            let payloads = journal.payloads(&hashes).await.expect("every reference has its value");
            blobs.extend(payloads.into_iter().map(|one| (one.hash, one.bytes.to_vec())));
            events.extend(page);
        }
        let mut records = Self::from_parts(events, blobs);
        let mut snapshots = HashMap::new();
        for run_id in records.run_ids() {
            let mut kept: Vec<Snapshot> = Vec::new();
            loop {
                let until = kept.last().map_or(u64::MAX, |oldest| oldest.sequence - 1);
                let until = Until::Sequence(until);
                let found = journal.snapshot_until("run", &run_id, STATE_VERSION, until).await;
                match found.expect("snapshots can be read") {
                    Some(snapshot) => kept.push(snapshot),
                    None => break,
                }
            }
            snapshots.insert(run_id, kept);
        }
        records.snapshots = Some(snapshots);
        records
    }

    fn from_parts(events: Vec<RecordedEvent>, blobs: HashMap<Arc<str>, Vec<u8>>) -> Self {
        let mut places: HashMap<_, Vec<_>> = HashMap::new();
        for (place, event) in events.iter().enumerate() {
            places.entry(Arc::clone(&event.aggregate_id)).or_default().push(place);
        }
        Self { events, blobs, places, snapshots: None }
    }

    /// All of it as JSON lines: stored values first, then events. Payloads are texts, so that
    /// their bytes stay as they are.
    pub fn export(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut blobs: Vec<_> = self.blobs.iter().collect();
        blobs.sort();
        let blobs = blobs.iter().map(|(hash, bytes)| json!({"hash": hash, "value": text(bytes)}));
        let events = self.events.iter().map(|event| {
            json!({
                "position": event.position, "id": event.id.to_string(),
                "aggregate_type": event.aggregate_type, "aggregate_id": event.aggregate_id,
                "sequence": event.sequence, "event_type": event.event_type,
                "event_version": event.event_version, "workspace_id": event.workspace_id,
                "payload": text(&event.payload), "metadata": text(&event.metadata),
                "recorded_at": event.recorded_at,
            })
        });
        blobs.chain(events).map(|line| format!("{line}\n")).collect()
    }

    /// What [`Records::export`] wrote.
    pub fn import(lines: &str) -> Self {
        let (mut events, mut blobs) = (Vec::new(), HashMap::new());
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).expect("a line is JSON");
            let text = |key: &str| line[key].as_str().expect("a text").to_owned();
            let number = |key: &str| line[key].as_u64().expect("a number");
            if line["hash"].is_string() {
                blobs.insert(Arc::from(text("hash")), text("value").into_bytes());
                continue;
            }
            events.push(RecordedEvent {
                position: number("position"),
                id: text("id").parse().expect("an event's id"),
                aggregate_type: Arc::from(text("aggregate_type")),
                aggregate_id: Arc::from(text("aggregate_id")),
                sequence: number("sequence"),
                event_type: Arc::from(text("event_type")),
                event_version: u32::try_from(number("event_version")).expect("a version"),
                workspace_id: Arc::from(text("workspace_id")),
                payload: text("payload").into_bytes().into(),
                metadata: text("metadata").into_bytes().into(),
                recorded_at: text("recorded_at").parse().expect("a time"),
                redacted: None,
            });
        }
        Self::from_parts(events, blobs)
    }

    /// Checks what holds for every journal: positions 1, 2, 3 … without a gap, each aggregate's
    /// sequences 1, 2, 3 … without a gap, every event id once, every event readable, every run
    /// decided again as it was, every snapshot the fold byte for byte, and what a run is said to
    /// wait for what it waits for.
    ///
    /// # Panics
    /// With the first event that breaks it.
    pub fn check(&self) {
        let mut sequences: HashMap<(&str, &str), u64> = HashMap::new();
        let mut ids = HashSet::new();
        for (index, event) in self.events.iter().enumerate() {
            let (position, id) = (event.position, &event.aggregate_id);
            assert_eq!(position, index as u64 + 1, "positions have a gap or a repetition");
            let last = sequences.entry((&event.aggregate_type, id)).or_default();
            assert_eq!(event.sequence, *last + 1, "{id} isn't dense at position {position}");
            *last = event.sequence;
            assert!(ids.insert(event.id), "event {} stands twice", event.id);
            let decoded = match &*event.aggregate_type {
                "run" => continue,
                "trigger" => self.decode::<domain::trigger::Event>(event).map(drop),
                "access" => self.decode::<domain::access::Event>(event).map(drop),
                "experiment" => self.decode::<domain::experiment::Event>(event).map(drop),
                "hold" => self.decode::<domain::hold::Event>(event).map(drop),
                "retention" => self.decode::<domain::retention::Event>(event).map(drop),
                _ => self.decode::<domain::resource::Event>(event).map(drop),
            };
            decoded.unwrap_or_else(|error| panic!("position {position}: {error}"));
        }
        for run_id in self.run_ids() {
            let steps = self.fold(&run_id);
            self.decide_again(&run_id, &steps);
            if let Some(snapshots) = &self.snapshots {
                self.check_kept(&run_id, &steps, &snapshots[&run_id]);
            }
        }
    }

    /// What is kept of a run beside its events: states that the coordinator had in memory, and what
    /// the run waited for.
    fn check_kept(&self, run_id: &str, steps: &[Step], snapshots: &[Snapshot]) {
        for Snapshot { sequence, state, .. } in snapshots {
            let step = &steps[usize::try_from(*sequence).expect("a small number") - 1];
            let fold = serde_json::to_vec(&step.run).expect("a run is JSON");
            assert!(fold == *state, "the snapshot of {run_id} at {sequence} isn't its fold");
        }
        let events = self.of_run(run_id);
        for (place, (step, said)) in steps.iter().zip(self.said_waits(run_id)).enumerate() {
            // Within an append all metadata is the same, so another one tells that it was the last.
            let own = &events[place].metadata;
            let is_last = events.get(place + 1).is_none_or(|next| next.metadata != *own);
            if let Some(live) = step.run.live().filter(|_| is_last) {
                assert_eq!(live.waiting_on(), said, "{run_id} after {}", step.sequence);
            }
        }
    }

    /// What a run is said to wait for, after each of its events: by what stands beside them, which
    /// is right after the last one of an append.
    pub fn said_waits(&self, run_id: &str) -> Vec<WaitKinds> {
        let mut said = WaitKinds::TASK;
        let events = self.of_run(run_id).into_iter();
        let said = events.map(|event| {
            let metadata: Value = serde_json::from_slice(&event.metadata).unwrap_or_default();
            if metadata["waits"].is_array() {
                said = serde_json::from_value(metadata["waits"].clone()).expect("kinds");
            }
            said
        });
        said.collect()
    }

    /// Decides a run again from what came from outside, and compares.
    fn decide_again(&self, run_id: &str, steps: &[Step]) {
        let Some(Event::RunStarted(started)) = steps.first().map(|step| &step.event) else {
            panic!("{run_id} doesn't begin with its start");
        };
        let pinned = started.pins.iter().map(|pin| self.spec(pin.kind, &pin.id, pin.version));
        let resolved = Resolved::pinned(&started.pins, pinned.collect());
        let DefinitionRef { id, version, .. } = &started.definition;
        let spec = self.spec(Kind::WorkflowDefinition, &id.to_string(), *version);
        let Spec::WorkflowDefinition(spec) = spec else { panic!("{id} is no definition") };
        let plan = Plan::compile(&spec.definition, &resolved).expect("it compiles, as it did");
        let mut replay = Replay::new(&plan);
        let mut places = steps.iter().zip(self.of_run(run_id));
        let taken = places
            .try_for_each(|(step, event)| replay.take(&step.event, event.recorded_at).map(drop));
        if let Err(difference) = taken.and_then(|()| replay.end()) {
            panic!("{run_id} isn't decided again as it was: {difference:#?}");
        }
    }

    /// A version of a resource.
    fn spec(&self, kind: Kind, id: &str, version: u64) -> Spec {
        let of_version = |event: &&RecordedEvent| {
            &*event.aggregate_type == kind.as_str() && event.sequence == version
        };
        let event = self.of_run(id).into_iter().find(of_version);
        let event = event.unwrap_or_else(|| panic!("there is no {id}@{version}"));
        let event: resource::Event = self.decode(event).expect("it can be read");
        event.revision().expect("it brings a version").1.clone()
    }

    /// The ids of all runs, each once, in the order of their first events.
    pub fn run_ids(&self) -> Vec<String> {
        let started = self.events.iter().filter(|event| &*event.event_type == "run_started");
        started.map(|event| event.aggregate_id.to_string()).collect()
    }

    /// The events of a run, in order.
    pub fn of_run(&self, run_id: &str) -> Vec<&RecordedEvent> {
        let places = self.places.get(run_id).map(Vec::as_slice).unwrap_or_default();
        places.iter().map(|place| &self.events[*place]).collect()
    }

    /// How often each event type stands in a run.
    pub fn count(&self, run_id: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for event in self.of_run(run_id) {
            *counts.entry(event.event_type.to_string()).or_default() += 1;
        }
        counts
    }

    /// Folds a run with the engine's own `evolve`; answers the run after each of its events.
    pub fn fold(&self, run_id: &str) -> Vec<Step> {
        let mut run = Run::default();
        let mut steps = Vec::new();
        for recorded in self.of_run(run_id) {
            let event: Event = self.decode(recorded).unwrap_or_else(|error| {
                panic!("{run_id} can't be read at {}: {error}", recorded.position)
            });
            run.evolve(&event, recorded.recorded_at);
            let (position, sequence) = (recorded.position, recorded.sequence);
            steps.push(Step { position, sequence, event, run: run.clone() });
        }
        steps
    }

    /// Decodes an event of a family.
    pub fn decode<E: codec::Stored>(&self, event: &RecordedEvent) -> Result<E, codec::DecodeError> {
        codec::decode(&event.event_type, event.event_version, &event.payload, &|hash| {
            self.blobs.get(hash).cloned()
        })
    }
}
