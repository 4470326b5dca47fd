//! The offline check of a journal: reads every event once, and says what can't be as it stands.
//!
//! Positions and sequences have no gap, every event decodes and fits the state that those before
//! it led to, an ended run has nothing after its end, and the list of open runs is the runs that
//! are open. Parents and children say the same of each other, and of the runs with a key no
//! more go on at once, and begin in a period, than may. With a log of what clients were told, each acknowledged command
//! stands in the journal once, where it was said to stand.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chassis::journal::{Journal, ReadError, RecordedEvent, open_ids};
use domain::access;
use domain::codec::{self, DecodeError};
use domain::ids::RunId;
use domain::rate::Book;
use domain::resource::{self, Resource};
use domain::run::{self, Run, RunStatus};
use domain::{experiment, hold, retention, trigger};
use futures::TryStreamExt;
use protocol::Rejection;
use serde_json::Value;

pub(crate) mod chain;
pub(crate) mod claims;
mod families;
mod fit;
mod queues;
mod report;
mod retained;
#[cfg(test)]
mod tests;

use chain::{ChainCheck, Evidence};
use claims::Claims;
use families::Families;
use queues::Queues;
pub(crate) use report::Report;
use report::Subject;
use retained::Retained;

/// Events that are read at once.
const PAGE: usize = 1_000;

/// What is known of a run; its state only while it goes on.
#[derive(Debug, Default)]
struct Known {
    state: Run,
    end: Option<End>,
}

#[derive(Debug)]
struct End {
    status: RunStatus,
    /// Kept only of runs whose end was claimed.
    output: Option<Arc<Value>>,
}

/// A check under way.
#[derive(Debug)]
struct Auditor<'a> {
    claims: &'a Claims,
    report: Report,
    /// The last sequence of each aggregate, by type and id.
    sequences: HashMap<(Arc<str>, Arc<str>), u64>,
    runs: HashMap<Arc<str>, Known>,
    families: Families,
    /// What triggers are done with: the trigger, and the key of what happened.
    fired: HashSet<(Arc<str>, String)>,
    queues: Queues,
    rates: Book,
    retained: Retained,
    resources: HashMap<Arc<str>, Resource>,
    workspaces: BTreeSet<Arc<str>>,
    /// The aggregates that stand at claimed positions.
    at: HashMap<u64, Arc<str>>,
    /// The runs that have claimed labels.
    labelled: HashMap<BTreeMap<String, String>, Vec<Arc<str>>>,
}

/// Why a check came to no end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error(transparent)]
    Journal(#[from] ReadError),
    #[error("the seals can't be read: {0}")]
    Seals(#[from] Rejection),
}

/// Checks a journal that nobody writes to, against what clients were told and what was sealed.
/// `progress` is told the position that was reached and the last one.
pub(crate) async fn verify(
    journal: &dyn Journal,
    claims: &Claims,
    evidence: &Evidence,
    progress: impl Fn(u64, u64),
) -> Result<Report, CheckError> {
    let head = journal.head().await?;
    let mut auditor = Auditor::new(claims);
    let mut chain = ChainCheck::new(evidence, journal.epoch(), &mut auditor.report);
    let (mut position, mut limit) = (0, PAGE);
    while position < head {
        let page = match journal.read(position, limit).await {
            Ok(page) => page,
            // One by one, to the event that it is about.
            Err(ReadError::Damaged(_)) if limit > 1 => {
                limit = 1;
                continue;
            }
            Err(ReadError::Damaged(problem)) => {
                auditor.report.find(Subject::position(position + 1), problem.to_string());
                return Ok(auditor.cut_off(position));
            }
            Err(unavailable) => return Err(unavailable.into()),
        };
        if page.is_empty() {
            let problem = format!("the journal says its head is {head}, and has no event here");
            auditor.report.find(Subject::position(position + 1), problem);
            return Ok(auditor.cut_off(position));
        }
        let values = values(journal, &page).await?;
        for event in page.iter().take_while(|event| event.position <= head) {
            auditor.event(event, position + 1, &values);
            position = event.position;
        }
        chain.follow(&page, &mut auditor.report).await?;
        progress(position, head);
    }
    chain.finish(&mut auditor.report).await?;
    let retained = std::mem::take(&mut auditor.retained);
    retained.check(journal, &mut auditor.report).await?;
    auditor.open_runs(journal).await?;
    auditor.claimed(journal).await?;
    Ok(auditor.finished(position))
}

/// The large values that a page refers to; one that is missing is left out.
async fn values(
    journal: &dyn Journal,
    page: &[RecordedEvent],
) -> Result<HashMap<Arc<str>, Vec<u8>>, ReadError> {
    let refs = page.iter().flat_map(|event| codec::refs(&event.payload)).map(Arc::from);
    let mut found = HashMap::new();
    for hash in refs.collect::<BTreeSet<Arc<str>>>() {
        match journal.payloads(std::slice::from_ref(&hash)).await {
            Ok(payloads) => {
                found.extend(payloads.into_iter().map(|one| (one.hash, one.bytes.to_vec())));
            }
            Err(ReadError::Damaged(_)) => {}
            Err(unavailable) => return Err(unavailable),
        }
    }
    Ok(found)
}

fn decode<E: codec::Stored>(
    event: &RecordedEvent,
    values: &HashMap<Arc<str>, Vec<u8>>,
) -> Result<E, DecodeError> {
    let value = |hash: &str| values.get(hash).cloned();
    codec::decode(&event.event_type, event.event_version, &event.payload, &value)
}

impl<'a> Auditor<'a> {
    fn new(claims: &'a Claims) -> Self {
        Self {
            claims,
            report: Report::default(),
            sequences: HashMap::new(),
            runs: HashMap::new(),
            families: Families::default(),
            fired: HashSet::new(),
            queues: Queues::default(),
            rates: Book::default(),
            retained: Retained::default(),
            resources: HashMap::new(),
            workspaces: BTreeSet::new(),
            at: HashMap::new(),
            labelled: HashMap::new(),
        }
    }

    fn event(&mut self, event: &RecordedEvent, due: u64, values: &HashMap<Arc<str>, Vec<u8>>) {
        let subject = Subject::event(event);
        if event.position != due {
            self.report.find(subject.clone(), format!("position {due} was due here"));
        }
        let stream = (Arc::clone(&event.aggregate_type), Arc::clone(&event.aggregate_id));
        let last = self.sequences.entry(stream).or_default();
        if event.sequence != *last + 1 {
            let (due, came) = (*last + 1, event.sequence);
            self.report.find(subject.clone(), format!("sequence {due} was due and {came} came"));
        }
        *last = event.sequence;
        self.report.events += 1;
        if !self.workspaces.contains(&event.workspace_id) {
            self.workspaces.insert(Arc::clone(&event.workspace_id));
        }
        if self.claims.is_claimed(event.position) {
            self.at.insert(event.position, Arc::clone(&event.aggregate_id));
        }
        let problem = match &*event.aggregate_type {
            "run" => {
                self.retained.run_event(event);
                self.run_event(event, values)
            }
            retention::AGGREGATE => self.retained.record(event),
            access::AGGREGATE => {
                decode::<access::Event>(event, values).map(drop).map_err(|error| error.to_string())
            }
            experiment::AGGREGATE => decode::<experiment::Event>(event, values)
                .map(drop)
                .map_err(|error| error.to_string()),
            hold::AGGREGATE => {
                decode::<hold::Event>(event, values).map(drop).map_err(|error| error.to_string())
            }
            trigger::AGGREGATE => self.trigger_event(event, values),
            _ => self.resource_event(event, values),
        };
        if let Err(problem) = problem {
            self.report.find(subject, problem);
        }
    }

    fn run_event(
        &mut self,
        recorded: &RecordedEvent,
        values: &HashMap<Arc<str>, Vec<u8>>,
    ) -> Result<(), String> {
        let id = &recorded.aggregate_id;
        let event: run::Event = decode(recorded, values).map_err(|error| error.to_string())?;
        let of_family = self.families.check(&event, |run_id| {
            self.runs.get(&*run_id.to_string())?.end.as_ref().map(|end| end.status)
        });
        let known = self.runs.entry(Arc::clone(id)).or_default();
        if let Some(end) = &known.end {
            return Err(format!(
                "{} stands after the run's end as {}",
                event.event_type(),
                end.status.as_str()
            ));
        }
        let fits = fit::check(&known.state, &event, id);
        let of_queue = self.queues.check(known.state.live(), &event);
        let of_rate = self.rates.enter(&known.state, &event, recorded.recorded_at);
        known.state.evolve(&event, recorded.recorded_at);
        if let (run::Event::RunForked(_), Some(live)) = (&event, known.state.live()) {
            self.families.forked(live);
        }
        // A child has the labels of its parent.
        if let run::Event::RunStarted(started) = &event
            && started.parent.is_none()
            && self.claims.is_labelled(&started.labels)
        {
            self.labelled.entry(started.labels.clone()).or_default().push(Arc::clone(id));
        }
        if let Run::Closed(closed) = &known.state {
            let output = closed.output.clone().filter(|_| self.claims.is_ended(id));
            known.end = Some(End { status: closed.status, output });
            known.state = Run::NotStarted;
        }
        fits.and(of_family).and(of_queue).and(of_rate)
    }

    /// Whatever a trigger is done with has its one run, and nothing is done twice.
    fn trigger_event(
        &mut self,
        recorded: &RecordedEvent,
        values: &HashMap<Arc<str>, Vec<u8>>,
    ) -> Result<(), String> {
        let event: trigger::Event = decode(recorded, values).map_err(|error| error.to_string())?;
        let trigger::Event::TriggerFired { key, run_id, .. } = event else { return Ok(()) };
        if !self.runs.contains_key(&*run_id.to_string()) {
            return Err(format!("the trigger is done with {key}, and {run_id} has not started"));
        }
        match self.fired.insert((Arc::clone(&recorded.aggregate_id), key.clone())) {
            true => Ok(()),
            false => Err(format!("the trigger says twice that it is done with {key}")),
        }
    }

    fn resource_event(
        &mut self,
        recorded: &RecordedEvent,
        values: &HashMap<Arc<str>, Vec<u8>>,
    ) -> Result<(), String> {
        let event: resource::Event = decode(recorded, values).map_err(|error| error.to_string())?;
        let known = self.resources.entry(Arc::clone(&recorded.aggregate_id)).or_default();
        let fits = fit::check_resource(known, &event);
        known.evolve(&event);
        fits
    }

    /// The journal's list of runs that owe work against the runs that have no end.
    async fn open_runs(&mut self, journal: &dyn Journal) -> Result<(), ReadError> {
        let mut listed: HashMap<Arc<str>, u16> = HashMap::new();
        for shard in 0..protocol::SHARDS {
            let mut open = open_ids(journal, "run", shard);
            while let Some(id) = open.try_next().await? {
                listed.insert(id, shard);
            }
        }
        for (id, known) in &self.runs {
            let shard = id.parse::<RunId>().ok().map(protocol::shard_of);
            let problem = match (known.end.is_some(), listed.remove(id)) {
                (true, Some(_)) => "the run has ended, and is listed as open".to_owned(),
                (false, None) => "the run goes on, and isn't listed as open".to_owned(),
                // Lists from before there were shards stand under shard 0.
                (false, Some(listed)) if listed != 0 && Some(listed) != shard => {
                    format!("the run is listed as open under shard {listed}, which isn't its own")
                }
                (true, None) | (false, Some(_)) => continue,
            };
            self.report.find(Subject::aggregate(id), problem);
        }
        for id in listed.into_keys() {
            self.report.find(Subject::aggregate(&id), "it is listed as open, and has no event");
        }
        Ok(())
    }

    fn finished(mut self, head: u64) -> Report {
        self.report.head = head;
        self.report.aggregates = self.sequences.len() as u64;
        self.report.count_claims(self.claims);
        for known in self.runs.values() {
            self.report.runs.count(known.end.as_ref().map(|end| end.status));
        }
        self.report
    }

    /// The rest can't be read, so nothing can be said about what should stand there.
    fn cut_off(self, position: u64) -> Report {
        let mut report = self.finished(position);
        report.complete = false;
        report
    }
}
