//! What two moments of a run differ in, or two runs.

use std::collections::BTreeMap;

use chassis::journal::RecordedEvent;
use chrono::{DateTime, Utc};
use domain::definition::differences;
use domain::ids::{RunId, WorkspaceId};
use domain::run::event::RunStarted;
use domain::run::rehearsal::{PartingKind, compared, node_of};
use domain::run::state::Closed;
use domain::run::{Event, Run, RunStatus};
use protocol::{
    DefinitionChange, DiffSide, DiffTo, Divergence, NodeCounts, NodeDiff, Rejection, RunDiff,
    RunError, StateAt,
};
use serde_json::{Value, json};

use crate::compare::{brief, shortened, view_of_change};
use crate::histories::Histories;
use crate::refusal;
use crate::time_travel::{Folded, PAGE_EVENTS};
use crate::timeline::Timeline;

#[cfg(test)]
pub(crate) mod whole;

/// Nodes that an answer lists.
const NODES: usize = 1_000;

impl Histories<'_> {
    /// Compares a run with itself at another moment, or with another run.
    ///
    /// # Errors
    /// Where the run isn't there or hasn't what is asked for, and where events can't be read.
    pub async fn differing(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        to: DiffTo,
    ) -> Result<RunDiff, Rejection> {
        let id = run_id.to_string();
        let started = self.run_started(workspace_id, &id).await?;
        match to {
            DiffTo::Moments { from, to } => {
                let (mut left, mut right) = (Side::new(&id, &started), Side::new(&id, &started));
                left.stand(self.reached(&id, from, started.started_at).await?);
                right.stand(self.reached(&id, to, started.started_at).await?);
                let events = self.count_between(&mut left, &mut right).await?;
                Ok(RunDiff { events, ..between(&left, &right)? })
            }
            DiffTo::Run(other) => {
                let other = other.to_string();
                let others = self.run_started(workspace_id, &other).await?;
                runs_differing(
                    (*self, Side::new(&id, &started)),
                    (*self, Side::new(&other, &others)),
                )
                .await
            }
        }
    }

    /// Compares a run with one whose history is kept elsewhere.
    ///
    /// # Errors
    /// Where one of them isn't there, and where events can't be read.
    pub async fn differing_from(
        &self,
        (workspace_id, run_id): (WorkspaceId, RunId),
        others: Histories<'_>,
        (their_workspace, other): (WorkspaceId, RunId),
    ) -> Result<RunDiff, Rejection> {
        let (id, other) = (run_id.to_string(), other.to_string());
        let started = self.run_started(workspace_id, &id).await?;
        let theirs = others.run_started(their_workspace, &other).await?;
        runs_differing((*self, Side::new(&id, &started)), (others, Side::new(&other, &theirs)))
            .await
    }

    /// Counts by node what a run did up to two moments, and its events between them by type.
    async fn count_between(
        &self,
        left: &mut Side,
        right: &mut Side,
    ) -> Result<BTreeMap<String, u64>, Rejection> {
        let (mut timeline, mut events) = (Timeline::default(), BTreeMap::new());
        let (first, last) = (left.sequence, right.sequence);
        let mut sequence = 0;
        while sequence < first.max(last) {
            let page = self.run_events(&left.id, sequence, PAGE_EVENTS).await?;
            let Some(end) = page.last() else { break };
            sequence = end.sequence;
            for recorded in &page {
                let event = self.outlined(recorded).await?;
                timeline.take(&event, recorded.sequence, recorded.recorded_at);
                for side in [&mut *left, &mut *right] {
                    if side.sequence == recorded.sequence {
                        side.nodes = counts(&timeline);
                    }
                }
                if (first + 1..=last).contains(&recorded.sequence) {
                    *events.entry(event.event_type().to_owned()).or_default() += 1;
                }
            }
        }
        Ok(events)
    }

    /// The first place at which two runs differ, with what stands there.
    async fn divergence(
        &self,
        before: &Side,
        (left, right): (Option<&Event>, Option<&Event>),
    ) -> Result<Divergence, Rejection> {
        let shown = |event: Option<&Event>| {
            let shown = event.map(|event| brief(event).map(|(shown, _)| shown));
            shown.transpose().map_err(|error| refusal::damaged(&before.id, &error))
        };
        let run = match before.sequence {
            0 => Run::default(),
            last => self.reached(&before.id, StateAt::Sequence(last), before.at).await?.run,
        };
        Ok(Divergence {
            sequence: before.sequence + 1,
            node: left.or(right).and_then(|event| node_of(event, &run)),
            left: shown(left)?,
            right: shown(right)?,
        })
    }
}

/// Reads two runs beside each other, and finds where they part. What both have alike is read once,
/// and nothing is folded but what they have come to.
async fn runs_differing(
    (own, mut left): (Histories<'_>, Side),
    (others, mut right): (Histories<'_>, Side),
) -> Result<RunDiff, Rejection> {
    let (mut parts, mut values) = (None, None);
    let (mut did, mut other_did) = (Timeline::default(), None);
    loop {
        let ours = own.run_events(&left.id, left.sequence, PAGE_EVENTS).await?;
        let theirs = others.run_events(&right.id, right.sequence, PAGE_EVENTS).await?;
        own.have_content(&ours).await?;
        others.have_content(&theirs).await?;
        let is_last = ours.len() < PAGE_EVENTS && theirs.len() < PAGE_EVENTS;
        for index in 0..ours.len().max(theirs.len()) {
            let (one, other) = (ours.get(index), theirs.get(index));
            let is_same = one.zip(other).is_some_and(|(one, other)| reads_alike(one, other));
            let (mut first, mut second) = (None, None);
            if parts.is_none() && !is_same {
                first = whole(own, one).await?;
                second = whole(others, other).await?;
                let pair = (first.as_ref(), second.as_ref());
                match kind_of(pair) {
                    None => {}
                    Some(PartingKind::Values) if values.is_some() => {}
                    Some(PartingKind::Values) => values = Some(own.divergence(&left, pair).await?),
                    Some(_) => parts = Some(own.divergence(&left, pair).await?),
                }
            }
            // The other one's is of its own from the first event on that both don't have.
            let is_alike = is_same || start_alike(first.as_ref(), second.as_ref());
            if !is_alike || other_did.is_some() {
                let theirs = other_did.get_or_insert_with(|| did.clone());
                take(others, theirs, other, second).await?;
            }
            take(own, &mut did, one, first).await?;
            for (side, one) in [(&mut left, one), (&mut right, other)] {
                if let Some(one) = one {
                    (side.sequence, side.at) = (one.sequence, one.recorded_at);
                }
            }
        }
        if is_last {
            break;
        }
    }
    (left.nodes, right.nodes) = (counts(&did), counts(other_did.as_ref().unwrap_or(&did)));
    for (histories, side) in [(own, &mut left), (others, &mut right)] {
        let last = StateAt::Sequence(side.sequence);
        side.stand(histories.reached(&side.id, last, side.at).await?);
    }
    Ok(RunDiff { parts, values, ..between(&left, &right)? })
}

/// Whether two events say the same, as they are stored.
fn reads_alike(one: &RecordedEvent, other: &RecordedEvent) -> bool {
    let version = |event: &RecordedEvent| event.event_version;
    (&one.event_type, version(one), &one.payload)
        == (&other.event_type, version(other), &other.payload)
}

/// Whether two runs start at the same node: a fork's first event says whose fork it is.
fn start_alike(one: Option<&Event>, other: Option<&Event>) -> bool {
    match (one, other) {
        (Some(Event::RunStarted(one)), Some(Event::RunStarted(other))) => one.start == other.start,
        _ => false,
    }
}

/// Takes a run's next event, where there is one; `event` where it was read already.
async fn take(
    histories: Histories<'_>,
    timeline: &mut Timeline,
    recorded: Option<&RecordedEvent>,
    event: Option<Event>,
) -> Result<(), Rejection> {
    let Some(recorded) = recorded else { return Ok(()) };
    let event = match event {
        Some(event) => event,
        None => histories.outlined(recorded).await?,
    };
    timeline.take(&event, recorded.sequence, recorded.recorded_at);
    Ok(())
}

/// An event with its values.
async fn whole(
    histories: Histories<'_>,
    recorded: Option<&RecordedEvent>,
) -> Result<Option<Event>, Rejection> {
    match recorded {
        Some(recorded) => histories.decoded_one(recorded).await.map(Some),
        None => Ok(None),
    }
}

/// A run, up to where it was read.
struct Side {
    id: String,
    definition: String,
    run: Run,
    /// What it did by then, by node.
    nodes: BTreeMap<String, NodeCounts>,
    sequence: u64,
    at: DateTime<Utc>,
}

impl Side {
    fn new(id: &str, started: &RunStarted) -> Self {
        Self {
            id: id.to_owned(),
            definition: format!("{}@{}", started.definition.name, started.definition.version),
            run: Run::default(),
            nodes: BTreeMap::new(),
            sequence: 0,
            at: started.started_at,
        }
    }

    fn stand(&mut self, folded: Folded) {
        (self.run, self.sequence, self.at) = (folded.run, folded.sequence, folded.at);
    }

    fn view(&self) -> DiffSide {
        let failure = self.run.closed().and_then(Closed::failure);
        DiffSide {
            run_id: self.id.clone(),
            sequence: self.sequence,
            at: self.at,
            status: self.run.status().unwrap_or(RunStatus::Running),
            definition: self.definition.clone(),
            error: failure.as_ref().map(RunError::from),
            usage: self.run.usage(),
        }
    }

    /// What is compared by value.
    fn values(&self) -> Value {
        let (state, output) = match &self.run {
            Run::NotStarted => (None, None),
            Run::Live(live) => (Some(json!(live.root)), None),
            Run::Closed(closed) => (Some(json!(closed.root)), closed.output.as_deref()),
        };
        let input = self.run.header().map(|header| &*header.input);
        let labels = self.run.header().map(|header| &header.labels);
        let mut values = json!({"input": input, "labels": labels, "state": state});
        if let (Some(output), Value::Object(values)) = (output, &mut values) {
            values.insert("output".to_owned(), output.clone());
        }
        values
    }
}

/// What a run did, by node.
fn counts(timeline: &Timeline) -> BTreeMap<String, NodeCounts> {
    let mut nodes: BTreeMap<String, NodeCounts> = BTreeMap::new();
    for entry in &timeline.entries {
        if !nodes.contains_key(&entry.node) {
            nodes.insert(entry.node.clone(), NodeCounts::default());
        }
        let Some(counts) = nodes.get_mut(&entry.node) else { continue };
        counts.tokens += 1;
        counts.attempts += u64::from(entry.attempts);
        counts.usage.add(&entry.usage);
        match &*entry.status {
            "succeeded" => counts.succeeded += 1,
            "failed" => counts.failed += 1,
            "cancelled" => counts.cancelled += 1,
            _ => {}
        }
    }
    nodes
}

/// What two sides differ in, but for where they part.
fn between(left: &Side, right: &Side) -> Result<RunDiff, Rejection> {
    let (ours, theirs) = (&left.nodes, &right.nodes);
    let mut nodes: Vec<&str> = ours.keys().chain(theirs.keys()).map(String::as_str).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let counts =
        |of: &BTreeMap<String, NodeCounts>, node: &str| of.get(node).copied().unwrap_or_default();
    let nodes = nodes.into_iter().filter_map(|node| {
        let (left, right) = (counts(ours, node), counts(theirs, node));
        (left != right).then(|| NodeDiff { node: node.to_owned(), left, right })
    });
    let (changes, changes_left_out) = differences(&left.values(), &right.values());
    let short = |value: Option<Value>| value.map(shortened);
    let changes = changes.into_iter().map(|change| {
        let change = view_of_change(change);
        let (before, after) = (short(change.before), short(change.after));
        DefinitionChange { before, after, ..change }
    });
    Ok(RunDiff {
        left: left.view(),
        right: right.view(),
        parts: None,
        values: None,
        nodes: nodes.take(NODES).collect(),
        changes: changes.collect(),
        changes_left_out,
        events: BTreeMap::new(),
    })
}

/// How two events that stand at the same place differ.
fn kind_of(pair: (Option<&Event>, Option<&Event>)) -> Option<PartingKind> {
    match pair {
        (Some(left), Some(right)) => compared(left, right),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => Some(PartingKind::Path),
    }
}
