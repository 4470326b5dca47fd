//! Histories of random runs in memory, with the states that a writer would keep: of any graph, by
//! any schedule, with children, gates, signals, retries, pauses, cancels and forks.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use bytes::Bytes;
use chassis::journal::{ReadError, RecordedEvent, Sieve, Until};
use domain::definition::{Definition, Plan, Resolved};
use domain::resource::{Event as ResourceEvent, Spec};
use domain::run::command::{AttemptError, ChildReport, GateAnswer, Report};
use domain::run::event::{Decision as Said, RunForked, Usage};
use domain::run::state::{Live, Phase};
use domain::run::{Command, FailureKind, Run, RunStatus};

use super::*;
use crate::histories::Past;

/// Commands after which a run isn't driven on.
const STEPS: usize = 4_000;

/// Where histories are kept.
#[derive(Default)]
pub(super) struct Kept {
    streams: HashMap<(String, String), Vec<RecordedEvent>>,
    payloads: HashMap<Arc<str>, Bytes>,
    /// States of runs, by the run and the sequence.
    states: HashMap<String, BTreeMap<u64, Bytes>>,
    position: u64,
}

/// The same without the states.
pub(super) struct Whole<'a>(pub(super) &'a Kept);

#[async_trait]
impl Past for Kept {
    async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let stream = self.streams.get(&(aggregate_type.to_owned(), aggregate_id.to_owned()));
        let after = usize::try_from(after_sequence).expect("it fits");
        Ok(stream.map_or(&[][..], Vec::as_slice).iter().skip(after).take(limit).cloned().collect())
    }

    async fn load_some(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
        sieve: Sieve<'_>,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let mut events =
            self.load(aggregate_type, aggregate_id, after_sequence, usize::MAX).await?;
        events.retain(|event| sieve.takes(event));
        events.truncate(limit);
        Ok(events)
    }

    async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError> {
        let found = hashes
            .iter()
            .map(|hash| Payload { hash: Arc::clone(hash), bytes: self.payloads[hash].clone() });
        Ok(found.collect())
    }

    async fn snapshot(
        &self,
        _: &str,
        aggregate_id: &str,
        _: u32,
        until: Option<Until>,
    ) -> Result<Option<Snapshot>, ReadError> {
        let is_early = |sequence: u64| match until {
            None => true,
            Some(Until::Sequence(last)) => sequence <= last,
            Some(Until::Time(last)) => {
                let stream = &self.streams[&("run".to_owned(), aggregate_id.to_owned())];
                stream[usize::try_from(sequence).expect("it fits") - 1].recorded_at <= last
            }
        };
        let states = self.states.get(aggregate_id).into_iter().flatten();
        let last = states.filter(|(sequence, _)| is_early(**sequence)).last();
        Ok(last.map(|(sequence, state)| snapshot(*sequence, state.to_vec())))
    }
}

#[async_trait]
impl Past for Whole<'_> {
    async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.0.load(aggregate_type, aggregate_id, after_sequence, limit).await
    }

    async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError> {
        self.0.payloads(hashes).await
    }
}

impl Kept {
    fn append<E: Stored + Serialize>(
        &mut self,
        (kind, id): (&str, &str),
        event: &E,
        at: DateTime<Utc>,
    ) {
        let tagged = serde_json::to_value(event).expect("JSON");
        let encoded = codec::encode(event, ours()).expect("it encodes");
        for (hash, bytes) in encoded.blobs {
            self.payloads.insert(hash.into(), bytes.into());
        }
        self.position += 1;
        let stream = self.streams.entry((kind.to_owned(), id.to_owned())).or_default();
        stream.push(RecordedEvent {
            position: self.position,
            id: Uuid::now_v7(),
            aggregate_type: kind.into(),
            aggregate_id: id.into(),
            sequence: stream.len() as u64 + 1,
            event_type: tagged["type"].as_str().expect("a tag").into(),
            event_version: 1,
            workspace_id: ours().to_string().into(),
            payload: encoded.payload.into(),
            metadata: Bytes::from_static(b"{}"),
            recorded_at: at,
            redacted: None,
        });
    }

    pub(super) fn events(&self, run: RunId) -> &[RecordedEvent] {
        &self.streams[&("run".to_owned(), run.to_string())]
    }
}

/// Numbers that follow from a seed.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) const fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// One below a bound.
    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % bound
    }
}

/// A definition whose runs are driven, and where their histories are kept.
pub(super) struct Random {
    pub(super) kept: Kept,
    pub(super) nodes: Vec<String>,
    plan: Plan,
    /// One state is kept of so many decisions.
    every: u64,
}

impl Random {
    pub(super) fn of(definition: &Value, every: u64) -> Self {
        let definition: Definition =
            serde_json::from_value(definition.clone()).expect("a definition");
        let plan = Plan::compile(&definition, &Resolved::default()).expect("it compiles");
        let nodes = definition.nodes.keys().map(ToString::to_string).collect();
        let mut kept = Kept::default();
        let spec = json!({"kind": "workflow_definition", "spec": {"project_id": project_id(0),
            "definition": definition, "hash": "ab"}});
        let spec: Box<Spec> = Box::new(serde_json::from_value(spec).expect("a spec"));
        let id = DefinitionId::new(Uuid::nil()).to_string();
        let created = ResourceEvent::Created { spec, revision: 1 };
        kept.append(("workflow_definition", &id), &created, moment(0));
        Self { kept, nodes, plan, every }
    }

    /// Starts a run and drives it to its end, or for as long as it is worth it.
    pub(super) fn run(&mut self, number: u128, input: Value, draw: &mut Draw) -> RunId {
        let id = run_id(number);
        let Event::RunStarted(started) = started(id, input, &[]) else { unreachable!("a start") };
        let start = RunStarted { start: String::new(), started_at: moment(0), ..*started };
        let mut run = Run::default();
        self.when(id, &mut run, &Command::Start(Box::new(start)), moment(0), draw);
        self.drive(id, run, moment(0), draw);
        id
    }

    /// Forks a run after one of its events, and drives the fork.
    pub(super) fn fork(&mut self, from: RunId, number: u128, draw: &mut Draw) -> RunId {
        let id = run_id(number);
        let events = self.kept.events(from).to_vec();
        let shared = 1 + draw.below(events.len() as u64);
        let mut run = Run::default();
        let mut now = moment(0);
        for recorded in events.iter().take(usize::try_from(shared).expect("it fits")) {
            let decoded = codec::decode(&recorded.event_type, 1, &recorded.payload, &|hash| {
                self.kept.payloads.get(hash).map(|bytes| bytes.to_vec())
            });
            let mut event: Event = decoded.expect("it decodes");
            if let Event::RunStarted(started) = &mut event {
                let of = json!({"run_id": from, "sequence": shared, "at": recorded.recorded_at});
                started.forked_from = Some(serde_json::from_value(of).expect("a place"));
            }
            now = recorded.recorded_at;
            run.evolve(&event, now);
            self.kept.append(("run", &id.to_string()), &event, now);
        }
        let forked = json!({"run_id": id, "from": from, "sequence": shared,
            "until": events.len(), "adopt": "none", "since": now});
        let forked: RunForked = serde_json::from_value(forked).expect("a fork");
        now += TimeDelta::seconds(30);
        if run.live().is_some() {
            let forked = Event::RunForked(Box::new(forked));
            run.evolve(&forked, now);
            self.kept.append(("run", &id.to_string()), &forked, now);
        }
        self.drive(id, run, now, draw);
        id
    }

    fn when(
        &mut self,
        id: RunId,
        run: &mut Run,
        command: &Command,
        now: DateTime<Utc>,
        draw: &mut Draw,
    ) {
        let mut command = command.clone();
        loop {
            let mut after = run.clone();
            let Ok(decision) = after.execute(&self.plan, &command, now) else { return };
            *run = after;
            for event in &decision.events {
                self.kept.append(("run", &id.to_string()), event, now);
            }
            if run.live().is_some() && draw.below(self.every) == 0 {
                let last = self.kept.events(id).len() as u64;
                let state = serde_json::to_vec(&*run).expect("JSON");
                self.kept.states.entry(id.to_string()).or_default().insert(last, state.into());
            }
            if !decision.advance {
                return;
            }
            command = Command::Advance;
        }
    }

    fn drive(&mut self, id: RunId, mut run: Run, mut now: DateTime<Utc>, draw: &mut Draw) {
        for _ in 0..STEPS {
            let Some(live) = run.live() else { return };
            now += TimeDelta::milliseconds(250);
            let command = next(live, draw);
            if let (Command::Wake, Some(due)) = (&command, run.next_due()) {
                now = now.max(due);
            }
            self.when(id, &mut run, &command, now, draw);
        }
    }
}

/// What comes next from outside.
fn next(live: &Live, draw: &mut Draw) -> Command {
    match draw.below(400) {
        0 if draw.below(10) == 0 => {
            return Command::Cancel { reason: Some("enough".to_owned()), compensate: true };
        }
        1..=8 => return Command::Pause { reason: None },
        9..=12 => {
            let name = graphs::SIGNALS[usize::from(draw.below(2) == 0)].parse().expect("a name");
            return Command::Signal { name, payload: json!({"ok": true}), transient: false };
        }
        _ if live.pause.is_some() => return Command::Resume,
        _ => {}
    }
    let from = draw.below(live.tokens.len().max(1) as u64);
    let tokens = live.tokens.iter().cycle().skip(usize::try_from(from).expect("it fits"));
    let mut outside = tokens.take(live.tokens.len()).filter_map(|(id, token)| {
        Some(match &token.phase {
            Phase::Working { attempt } => report(*id, *attempt, draw),
            Phase::Gated { gate } => Command::Answer(Box::new(GateAnswer {
                token: *id,
                actor: graphs::PEOPLE[gate.answers.len() % graphs::PEOPLE.len()].to_owned(),
                roles: Vec::new(),
                decision: if draw.below(3) == 0 { Said::Reject } else { Said::Approve },
                value: json!({"n": 1}),
                comment: None,
            })),
            Phase::Waiting { signal: Some(name), .. } => Command::Signal {
                name: name.parse().expect("a name"),
                payload: json!({"ok": true}),
                transient: false,
            },
            Phase::AwaitingChild { run_id, .. } => Command::ReportChild(Box::new(ChildReport {
                token: *id,
                run_id: *run_id,
                status: RunStatus::Completed,
                output: Some(json!({"token": 1, "error": {"retry_at": 2}})),
                error: None,
                adopted: None,
            })),
            _ => return None,
        })
    });
    match outside.next() {
        Some(command) if live.next_due().is_none() || draw.below(4) > 0 => command,
        _ => Command::Wake,
    }
}

/// An attempt succeeds mostly. What it gives looks like what is searched for.
fn report(token: u64, attempt: u32, draw: &mut Draw) -> Command {
    let failure = match draw.below(12) {
        0 => Some(FailureKind::Permanent),
        1 | 2 => Some(FailureKind::Transient),
        _ => None,
    };
    let result = match failure {
        None if draw.below(8) == 0 => Ok(json!({"token": token + 1, "$ref": token})),
        None => Ok(json!({"token": draw.below(20), "opened": [], "retry_at": "never"})),
        Some(kind) => Err(AttemptError {
            code: "broken".to_owned(),
            message: "it broke: \"retry_at\":1".to_owned(),
            kind,
            detail: json!({"retry_at": 1, "token": 1}),
            retry_after: None,
        }),
    };
    let usage = Usage { input_tokens: draw.below(9), ..Usage::default() };
    let duration_ms = draw.below(50);
    Command::Report(Box::new(Report { token, attempt, result, usage, duration_ms, adopted: None }))
}
