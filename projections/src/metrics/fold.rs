//! The fold of metrics: what the events of a batch come to, by series and minute.
//!
//! A value belongs to the minute in which its event was recorded, and all that is kept of values is
//! added up. So neither the order of events nor the batches they come in matter.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use chassis::journal::Journal;
use domain::run::event::Pin;

use super::catalog::{self, is_distribution};
use super::kinds::{Kinds, KnownKinds, undo_of};
use super::open::{Facts, Open, OpenRuns, Place};
use super::told::{Attempted, Definition, Emitted, Told, What, of_actions};
use super::value::{self, ONE, Values};
use crate::projection::FoldError;

const MINUTE_MICROS: i64 = 60_000_000;

/// A metric with a value for each dimension; empty where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Series {
    pub(super) workspace_id: Arc<str>,
    pub(super) metric: Cow<'static, str>,
    pub(super) project_id: Arc<str>,
    pub(super) workflow_id: Arc<str>,
    pub(super) definition: Arc<str>,
    /// Absent where versions are not told apart any more.
    pub(super) version: Option<u64>,
    pub(super) node: Arc<str>,
    pub(super) kind: &'static str,
    pub(super) model: String,
    pub(super) status: &'static str,
    /// A JSON object.
    pub(super) dimensions: Cow<'static, str>,
}

impl Series {
    /// The one that further series of a metric become where it has too many.
    pub(super) fn other(&self) -> Self {
        let other: Arc<str> = Arc::from(OTHER);
        Self {
            workspace_id: Arc::clone(&self.workspace_id),
            metric: self.metric.clone(),
            project_id: Arc::clone(&other),
            workflow_id: Arc::clone(&other),
            definition: Arc::clone(&other),
            version: None,
            node: other,
            kind: OTHER,
            model: OTHER.to_owned(),
            status: self.status,
            dimensions: NO_DIMENSIONS.into(),
        }
    }

    /// The version as it is stored.
    pub(super) fn version(&self) -> Cow<'static, str> {
        self.version.map_or(OTHER.into(), |version| version.to_string().into())
    }

    /// The one that counts values of metrics of which there are too many.
    pub(super) fn dropped(&self) -> Self {
        let (metric, dimensions) = (catalog::DROPPED.into(), NO_DIMENSIONS.into());
        Self { metric, dimensions, ..self.clone() }
    }
}

/// What stands for values of dimensions that are not told apart any more.
pub(super) const OTHER: &str = "(other)";
const NO_DIMENSIONS: &str = "{}";

/// What a batch comes to, in the order in which it first came up.
#[derive(Default)]
pub(super) struct Points {
    places: HashMap<(Series, i64), usize>,
    values: Vec<Values>,
}

impl Points {
    fn add(&mut self, series: Series, at_micros: i64, value: i64) {
        let is_distribution = is_distribution(&series.metric);
        let minute = at_micros.div_euclid(MINUTE_MICROS) * 60;
        let place = *self.places.entry((series, minute)).or_insert(self.values.len());
        if place == self.values.len() {
            self.values.push(Values::default());
        }
        self.values[place].add(value, is_distribution);
    }

    /// Each series, the second at which its minute begins, and its values.
    pub(super) fn into_order(self) -> Vec<(Series, i64, Values)> {
        let mut keys: Vec<_> = self.places.into_iter().collect();
        keys.sort_unstable_by_key(|(_, place)| *place);
        let with = keys.into_iter().zip(self.values);
        with.map(|(((series, minute), _), values)| (series, minute, values)).collect()
    }
}

/// A fold under way.
pub(super) struct Fold<'a> {
    known: &'a KnownKinds,
    journal: &'a dyn Journal,
    points: Points,
}

/// The run of an event, and when it happened.
struct At<'r> {
    run: &'r mut Open,
    kinds: Arc<Kinds>,
    workspace_id: &'r Arc<str>,
    micros: i64,
    is_counted: bool,
}

/// What a series is about, beside its run.
#[derive(Default)]
struct About<'a> {
    node: Option<&'a Arc<str>>,
    kind: &'static str,
    model: Option<String>,
    status: &'static str,
    dimensions: Option<String>,
}

impl<'a> Fold<'a> {
    pub(super) fn new(known: &'a KnownKinds, journal: &'a dyn Journal) -> Self {
        Self { known, journal, points: Points::default() }
    }

    /// Takes the events in order.
    pub(super) async fn take<'e>(
        mut self,
        events: Vec<Told<'e>>,
        open: &mut OpenRuns<'e>,
    ) -> Result<Points, FoldError> {
        for Told { run_id, workspace_id, at, is_shared, what, .. } in events {
            if let What::Started { facts, .. } = &what {
                open.begin(run_id, Facts::clone(facts));
            }
            let Some(run) = open.get(run_id) else { continue };
            if let What::Forked { definition, pins } = &what {
                become_fork(run, definition.as_ref(), pins);
            }
            let kinds = match &run.kinds {
                Some(kinds) => Arc::clone(kinds),
                None => self.known.of(self.journal, &run.facts).await?,
            };
            run.kinds = Some(Arc::clone(&kinds));
            let is_counted = !is_shared;
            self.one(At { run, kinds, workspace_id, micros: at, is_counted }, what);
        }
        Ok(self.points)
    }

    fn one(&mut self, mut at: At<'_>, what: What<'_>) {
        match what {
            What::Started { start, .. } => {
                self.count(&at, catalog::RUNS_STARTED, About::default());
                let may_begin = !at.run.facts.waits_for_admission;
                self.enter(&mut at, 1, &start, may_begin);
            }
            What::Forked { .. } => self.count(&at, catalog::RUNS_STARTED, About::default()),
            // A fork stands where it stood.
            What::Admitted if at.run.facts.is_forked => {}
            What::Admitted => {
                let node = at.run.place(1).map(|place| place.node);
                if let Some(node) = node {
                    let waited = at.run.facts.waits_for_admission;
                    self.enter(&mut at, 1, &node, waited);
                }
            }
            What::Attempted(attempted) => self.attempted(&mut at, &attempted),
            What::RetryStarted { token } | What::MutexTaken { token } => self.due(&at, token),
            What::Ended { token, failed } => at.run.ended_at(token, failed),
            What::Routed(routed) => {
                if let Some(place) = at.run.leave(routed.token) {
                    self.left(&at, &place);
                }
                for (token, node) in routed.moved() {
                    self.enter(&mut at, token, node, true);
                }
                for (instance, branches) in routed.opened() {
                    at.run.open_group(instance, branches);
                }
                for (instance, node, count) in routed.extended() {
                    at.run.extend_group(instance, node, count);
                }
            }
            What::Spawned { instance, index, token, count } => {
                let nodes = at.run.nodes_of(instance, index, count);
                at.run.spawn(token, &nodes, at.micros);
                for (token, node) in (token..).zip(&nodes) {
                    self.begin(&at, token, node);
                }
            }
            What::Joined { instance, token, node, rest_continues } => {
                if !rest_continues {
                    at.run.close_group(instance);
                }
                self.enter(&mut at, token, &node, true);
            }
            What::GroupGone { instance } => at.run.close_group(instance),
            What::UndoStarted { token, node } => {
                self.enter(&mut at, token, &Arc::from(undo_of(&node)), true);
            }
            What::Emitted(emitted) => self.emitted(&mut at, &emitted),
            What::RunEnded { status } => {
                let took = value::of_micros(at.micros - at.run.facts.began_micros);
                self.add(&at, catalog::RUNS.into(), About { status, ..About::default() }, took);
                at.run.end();
            }
        }
    }

    /// A token comes to a node.
    fn enter(&mut self, at: &mut At<'_>, token: u64, node: &Arc<str>, may_begin: bool) {
        at.run.enter(token, node, at.micros);
        if may_begin {
            self.begin(at, token, node);
        }
    }

    /// What is to be done at a node may begin, where it needs no turn at a mutex.
    fn begin(&mut self, at: &At<'_>, token: u64, node: &Arc<str>) {
        if at.kinds.of(node).is_some_and(|kind| !kind.has_mutex) {
            self.due(at, token);
        }
    }

    /// An attempt may be handed to a worker, where the node is one for workers.
    fn due(&mut self, at: &At<'_>, token: u64) {
        let Some(Place { node, .. }) = at.run.place(token) else { return };
        if let Some(kind) = at.kinds.of(&node).filter(|kind| kind.is_task) {
            let about = About { node: Some(&node), kind: kind.kind, ..About::default() };
            self.count(at, catalog::ATTEMPTS_STARTED, about);
        }
    }

    fn attempted(&mut self, at: &mut At<'_>, attempted: &Attempted<'_>) {
        let Some(place) = at.run.place(attempted.token) else { return };
        if !attempted.is_adopted() {
            let (node, status) = (place.node, attempted.status);
            let kind = at.kinds.of(&node).map_or("", |kind| kind.kind);
            let model = if kind == "llm" { attempted.model() } else { None };
            let about = || About {
                node: Some(&node),
                kind,
                model: model.clone(),
                status,
                ..About::default()
            };
            let took = value::of_whole(attempted.duration_ms);
            self.add(at, catalog::ATTEMPTS.into(), about(), took);
            let usage = &attempted.usage;
            for (metric, used) in [
                (catalog::INPUT_TOKENS, usage.input_tokens),
                (catalog::OUTPUT_TOKENS, usage.output_tokens),
                (catalog::COST, usage.cost_micros),
            ] {
                if used > 0 {
                    self.add(at, metric.into(), about(), value::of_whole(used));
                }
            }
        }
        match (attempted.status, attempted.is_undo) {
            ("retried", _) => {}
            (_, true) => drop(at.run.leave(attempted.token)),
            (status, false) => at.run.ended_at(attempted.token, status == "failed"),
        }
    }

    /// A token has left its node.
    fn left(&mut self, at: &At<'_>, place: &Place) {
        let status = if place.failed == Some(true) { "failed" } else { "succeeded" };
        let kind = at.kinds.of(&place.node).map_or("", |kind| kind.kind);
        let since = place.since_micros.max(at.run.facts.began_micros);
        let about = About { node: Some(&place.node), kind, status, ..About::default() };
        self.add(at, catalog::NODES.into(), about, value::of_micros(at.micros - since));
    }

    fn emitted(&mut self, at: &mut At<'_>, emitted: &Emitted) {
        at.run.ended_at(emitted.token, false);
        let node = at.run.place(emitted.token).map(|place| place.node);
        let dimensions = serde_json::to_string(&emitted.dimensions).ok();
        let about = About { node: node.as_ref(), dimensions, ..About::default() };
        let name = emitted.name.to_string().into();
        self.add(at, name, about, value::of_number(emitted.value));
    }

    fn count(&mut self, at: &At<'_>, metric: &'static str, about: About<'_>) {
        self.add(at, metric.into(), about, ONE);
    }

    fn add(&mut self, at: &At<'_>, metric: Cow<'static, str>, about: About<'_>, value: i64) {
        if !at.is_counted {
            return;
        }
        let facts = &at.run.facts;
        let series = Series {
            workspace_id: Arc::clone(at.workspace_id),
            metric,
            project_id: Arc::clone(&facts.project_id),
            workflow_id: facts.workflow_id.clone().unwrap_or_default(),
            definition: Arc::clone(&facts.definition),
            version: Some(facts.version),
            node: about.node.cloned().unwrap_or_default(),
            kind: about.kind,
            model: about.model.unwrap_or_default(),
            status: about.status,
            dimensions: about.dimensions.map_or(NO_DIMENSIONS.into(), Cow::Owned),
        };
        self.points.add(series, at.micros, value);
    }
}

/// From here on a fork is a run of its own, and perhaps of another definition.
fn become_fork(run: &mut Open, definition: Option<&Definition>, pins: &[Pin]) {
    let Some(definition) = definition else {
        return run.become_of(Facts { is_forked: true, ..Facts::clone(&run.facts) });
    };
    let facts = Facts {
        is_forked: true,
        definition_id: definition.id.clone(),
        definition: Arc::clone(&definition.name),
        version: definition.version,
        pins: of_actions(pins.to_vec()),
        ..Facts::clone(&run.facts)
    };
    run.become_of(facts);
}
