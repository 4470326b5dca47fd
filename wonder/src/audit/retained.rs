//! What was dropped of runs, against the record of it: an event without its content that nothing
//! records, or in which something else stands than was left, was altered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chassis::journal::{Journal, ReadError, RecordedEvent};
use domain::codec;
use domain::retention::{AGGREGATE, Dropped, Event, Proof};
use serde::Serialize;

use super::PAGE;
use super::report::{Report, Subject};

/// Runs and events whose content was dropped.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counted {
    pub(crate) runs: u64,
    pub(crate) events: u64,
}

/// Events of each run without their content, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Retained(HashMap<Arc<str>, u64>);

impl Retained {
    /// Notes an event of a run.
    pub(super) fn run_event(&mut self, event: &RecordedEvent) {
        if event.redacted.is_some() {
            *self.0.entry(Arc::clone(&event.aggregate_id)).or_default() += 1;
        }
    }

    /// Notes the record of what was dropped.
    pub(super) fn record(&mut self, event: &RecordedEvent) -> Result<(), String> {
        if decoded(event)?.dropped().is_some() {
            self.0.entry(Arc::clone(&event.aggregate_id)).or_default();
        }
        Ok(())
    }

    /// Holds what stands there now against what was recorded.
    pub(super) async fn check(
        self,
        journal: &dyn Journal,
        report: &mut Report,
    ) -> Result<(), ReadError> {
        for (id, count) in self.0 {
            report.dropped.runs += 1;
            report.dropped.events += count;
            let mut recorded = 0;
            for dropped in records(journal, &id).await?.into_values() {
                recorded += part(journal, &id, &dropped, report).await?;
            }
            if recorded != count {
                let problem = format!(
                    "{count} of its events have another content than was written, and {recorded} \
                     are recorded to"
                );
                report.find(Subject::aggregate(&id), problem);
            }
        }
        Ok(())
    }
}

fn decoded(event: &RecordedEvent) -> Result<Event, String> {
    let (name, version) = (&event.event_type, event.event_version);
    codec::decode(name, version, &event.payload, &|_| None).map_err(|error| error.to_string())
}

/// The newest record of each part of a run, by its first event.
async fn records(journal: &dyn Journal, id: &str) -> Result<BTreeMap<u64, Dropped>, ReadError> {
    let (mut records, mut after) = (BTreeMap::new(), 0);
    loop {
        let page = journal.load(AGGREGATE, id, after, PAGE).await?;
        // One that can't be read is a finding already.
        for event in page.iter().filter_map(|event| decoded(event).ok()) {
            if let Some((dropped, _)) = event.dropped() {
                records.insert(dropped.first, dropped.clone());
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = last.sequence,
            _ => return Ok(records),
        }
    }
}

/// Answers how many events of a part have lost their content.
async fn part(
    journal: &dyn Journal,
    id: &Arc<str>,
    dropped: &Dropped,
    report: &mut Report,
) -> Result<u64, ReadError> {
    let (mut proof, mut count, mut after) = (Proof::default(), 0, dropped.first.saturating_sub(1));
    while after < dropped.last {
        let limit = usize::try_from(dropped.last - after).unwrap_or(PAGE).min(PAGE);
        let page = journal.load("run", id, after, limit).await?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        for event in &page {
            proof.take(&event.payload);
            count += u64::from(event.redacted.is_some());
        }
    }
    if proof.finish() != dropped.sha256 {
        let (first, last) = (dropped.first, dropped.last);
        let problem = format!("its events {first} to {last} aren't what was left of them");
        report.find(Subject::aggregate(id), problem);
    }
    Ok(count)
}
