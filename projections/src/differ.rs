//! What two moments of a run differ in, or two runs.

use std::collections::BTreeMap;

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
use crate::time_travel::PAGE_EVENTS;
use crate::timeline::Timeline;

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
                let mut events = BTreeMap::new();
                let left = self.side(&id, &started, from, |_, _| ()).await?;
                let first = left.sequence;
                let right = self.side(&id, &started, to, |sequence, event| {
                    if sequence > first {
                        *events.entry(event.event_type().to_owned()).or_default() += 1;
                    }
                });
                let right = right.await?;
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

    /// A run up to a moment.
    async fn side(
        &self,
        id: &str,
        started: &RunStarted,
        at: StateAt,
        mut also: impl FnMut(u64, &Event) + Send,
    ) -> Result<Side, Rejection> {
        let mut side = Side::new(id, started);
        self.walk(id, at, started.started_at, |sequence, time, event| {
            also(sequence, event);
            side.take(sequence, time, event);
        })
        .await?;
        Ok(side)
    }
}

/// Reads two runs beside each other, and finds where they part.
async fn runs_differing(
    (own, mut left): (Histories<'_>, Side),
    (others, mut right): (Histories<'_>, Side),
) -> Result<RunDiff, Rejection> {
    let (mut parts, mut values) = (None, None);
    loop {
        let ours = own.run_events(&left.id, left.sequence, PAGE_EVENTS).await?;
        let theirs = others.run_events(&right.id, right.sequence, PAGE_EVENTS).await?;
        let is_last = ours.len() < PAGE_EVENTS && theirs.len() < PAGE_EVENTS;
        let mut ours = own.decoded(&ours).await?.into_iter();
        let mut theirs = others.decoded(&theirs).await?.into_iter();
        loop {
            let (one, other) = (ours.next(), theirs.next());
            if one.is_none() && other.is_none() {
                break;
            }
            let pair = (one.as_ref().map(|(_, one)| one), other.as_ref().map(|(_, one)| one));
            if parts.is_none() {
                match kind_of(pair) {
                    None => {}
                    Some(PartingKind::Values) if values.is_some() => {}
                    Some(PartingKind::Values) => values = Some(divergence(&left, pair)?),
                    Some(_) => parts = Some(divergence(&left, pair)?),
                }
            }
            for (side, one) in [(&mut left, one), (&mut right, other)] {
                if let Some((recorded, event)) = one {
                    side.take(recorded.sequence, recorded.recorded_at, &event);
                }
            }
        }
        if is_last {
            return Ok(RunDiff { parts, values, ..between(&left, &right)? });
        }
    }
}

/// A run, up to where it was read.
struct Side {
    id: String,
    definition: String,
    run: Run,
    timeline: Timeline,
    sequence: u64,
    at: DateTime<Utc>,
}

impl Side {
    fn new(id: &str, started: &RunStarted) -> Self {
        Self {
            id: id.to_owned(),
            definition: format!("{}@{}", started.definition.name, started.definition.version),
            run: Run::default(),
            timeline: Timeline::default(),
            sequence: 0,
            at: started.started_at,
        }
    }

    fn take(&mut self, sequence: u64, at: DateTime<Utc>, event: &Event) {
        self.timeline.take(event, sequence, at);
        self.run.evolve(event, at);
        (self.sequence, self.at) = (sequence, at);
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

    fn nodes(&self) -> BTreeMap<&str, NodeCounts> {
        let mut nodes: BTreeMap<&str, NodeCounts> = BTreeMap::new();
        for entry in &self.timeline.entries {
            let counts = nodes.entry(&entry.node).or_default();
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
}

/// What two sides differ in, but for where they part.
fn between(left: &Side, right: &Side) -> Result<RunDiff, Rejection> {
    let (ours, theirs) = (left.nodes(), right.nodes());
    let mut nodes: Vec<&str> = ours.keys().chain(theirs.keys()).copied().collect();
    nodes.sort_unstable();
    nodes.dedup();
    let counts = |of: &BTreeMap<&str, NodeCounts>, node| of.get(node).copied().unwrap_or_default();
    let nodes = nodes.into_iter().filter_map(|node| {
        let (left, right) = (counts(&ours, node), counts(&theirs, node));
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

fn divergence(
    before: &Side,
    (left, right): (Option<&Event>, Option<&Event>),
) -> Result<Divergence, Rejection> {
    let shown = |event: Option<&Event>| {
        let shown = event.map(|event| brief(event).map(|(shown, _)| shown));
        shown.transpose().map_err(|error| refusal::damaged(&before.id, &error))
    };
    Ok(Divergence {
        sequence: before.sequence + 1,
        node: left.or(right).and_then(|event| node_of(event, &before.run)),
        left: shown(left)?,
        right: shown(right)?,
    })
}
