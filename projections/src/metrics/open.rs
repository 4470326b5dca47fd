//! Runs that haven't ended, as far as their metrics need them: what they are runs of, where their
//! tokens are, and which branches their groups have. Rows keep it from batch to batch; those of a
//! run go with its end.
//!
//! Tokens that are ended from outside (by a join, or a transition that cancels) keep their rows until
//! then: they are never asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use domain::run::event::Pin;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::FromRow;

use super::kinds::Kinds;
use super::told::{Told, What};
use crate::projection::FoldError;
use crate::store::dialect::Dialect;
use crate::store::sql::{Record, Session, sql};

mod statements;

/// The nodes of a group's branches, in order, with how many each has.
pub(super) type Branches = Vec<(Arc<str>, u64)>;

/// What a run is a run of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) project_id: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) workflow_id: Option<Arc<str>>,
    pub(super) definition_id: String,
    pub(super) definition: Arc<str>,
    pub(super) version: u64,
    /// Of actions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) pins: Vec<Pin>,
    /// When it began; of a fork, when it was forked.
    pub(super) began_micros: i64,
    /// Nothing of it is handed out before it is admitted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) waits_for_admission: bool,
    /// It has become a run of its own, after what it shares with another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_forked: bool,
}

/// A token at its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) node: Arc<str>,
    pub(super) since_micros: i64,
    /// How its node ended, once it has.
    pub(super) failed: Option<bool>,
}

/// Tokens of branches that were spawned together, all at the same node.
#[derive(Debug)]
struct Spawn {
    count: u64,
    node: Arc<str>,
    since_micros: i64,
    is_stored: bool,
}

/// A row, and whether it differs from what is stored.
#[derive(Debug)]
struct Kept<T> {
    /// Absent once it is gone.
    now: Option<T>,
    is_stored: bool,
    is_changed: bool,
}

/// A table of what runs have by number.
#[derive(Debug)]
struct Table<T>(BTreeMap<u64, Kept<T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Table<T> {
    fn found(&mut self, number: u64, row: T) {
        let kept = Kept { now: Some(row), is_stored: true, is_changed: false };
        self.0.insert(number, kept);
    }

    fn has(&self, number: u64) -> bool {
        self.0.contains_key(&number)
    }

    fn get(&self, number: u64) -> Option<&T> {
        self.0.get(&number)?.now.as_ref()
    }

    fn change(&mut self, number: u64, change: impl FnOnce(&mut T)) {
        if let Some(kept) = self.0.get_mut(&number)
            && let Some(row) = &mut kept.now
        {
            change(row);
            kept.is_changed = true;
        }
    }

    fn put(&mut self, number: u64, row: T) {
        let is_stored = self.0.get(&number).is_some_and(|kept| kept.is_stored);
        self.0.insert(number, Kept { now: Some(row), is_stored, is_changed: true });
    }

    fn remove(&mut self, number: u64) -> Option<T> {
        let kept = self.0.get_mut(&number)?;
        kept.is_changed = true;
        kept.now.take()
    }

    fn written(&self) -> impl Iterator<Item = (u64, &T)> {
        let changed = self.0.iter().filter(|(_, kept)| kept.is_changed);
        changed.filter_map(|(number, kept)| Some((*number, kept.now.as_ref()?)))
    }

    fn gone(&self) -> impl Iterator<Item = u64> {
        let gone = self.0.iter().filter(|(_, kept)| kept.is_stored && kept.now.is_none());
        gone.map(|(number, _)| *number)
    }
}

/// A run that hasn't ended.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) facts: Facts,
    /// The nodes of its definition, once they are known.
    pub(super) kinds: Option<Arc<Kinds>>,
    is_stored: bool,
    is_changed: bool,
    has_ended: bool,
    /// Tokens for which it doesn't stand in `spawns` where they are.
    tokens: Table<Place>,
    /// By the first of their tokens.
    spawns: BTreeMap<u64, Spawn>,
    groups: Table<Branches>,
}

impl Open {
    pub(super) fn new(facts: Facts) -> Self {
        Self {
            facts,
            kinds: None,
            is_stored: false,
            is_changed: true,
            has_ended: false,
            tokens: Table::default(),
            spawns: BTreeMap::new(),
            groups: Table::default(),
        }
    }

    pub(super) fn become_of(&mut self, facts: Facts) {
        self.facts = facts;
        self.kinds = None;
        self.is_changed = true;
    }

    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    pub(super) fn enter(&mut self, token: u64, node: &Arc<str>, since_micros: i64) {
        self.tokens.put(token, Place { node: Arc::clone(node), since_micros, failed: None });
    }

    /// Tokens in a row come to these nodes.
    pub(super) fn spawn(&mut self, token: u64, nodes: &[Arc<str>], since_micros: i64) {
        let mut first = token;
        for same in nodes.chunk_by(|node, next| node == next) {
            let (count, node) = (same.len() as u64, Arc::clone(&same[0]));
            self.spawns.insert(first, Spawn { count, node, since_micros, is_stored: false });
            first += count;
        }
    }

    pub(super) fn place(&self, token: u64) -> Option<Place> {
        if self.tokens.has(token) {
            return self.tokens.get(token).cloned();
        }
        let (first, spawn) = self.spawns.range(..=token).next_back()?;
        if token - first >= spawn.count {
            return None;
        }
        let (node, since_micros) = (Arc::clone(&spawn.node), spawn.since_micros);
        Some(Place { node, since_micros, failed: None })
    }

    pub(super) fn ended_at(&mut self, token: u64, failed: bool) {
        if self.tokens.has(token) {
            self.tokens.change(token, |place| place.failed = Some(failed));
        } else if let Some(place) = self.place(token) {
            self.tokens.put(token, Place { failed: Some(failed), ..place });
        }
    }

    /// A token leaves its node. Of one that was spawned nothing is kept of that: it is never asked
    /// for again.
    pub(super) fn leave(&mut self, token: u64) -> Option<Place> {
        match self.tokens.has(token) {
            true => self.tokens.remove(token),
            false => self.place(token),
        }
    }

    pub(super) fn open_group(&mut self, instance: u64, branches: Branches) {
        self.groups.put(instance, branches);
    }

    pub(super) fn extend_group(&mut self, instance: u64, node: &Arc<str>, count: u64) {
        self.groups.change(instance, |branches| branches.push((Arc::clone(node), count)));
    }

    pub(super) fn close_group(&mut self, instance: u64) {
        self.groups.remove(instance);
    }

    /// The nodes of some branches in a row.
    pub(super) fn nodes_of(&self, instance: u64, first: u64, count: u64) -> Vec<Arc<str>> {
        let (mut nodes, mut before) = (Vec::new(), 0_u64);
        for (node, of_node) in self.groups.get(instance).into_iter().flatten() {
            let end = before.saturating_add(*of_node);
            let wanted = first.max(before)..first.saturating_add(count).min(end);
            nodes.extend(wanted.map(|_| Arc::clone(node)));
            before = end;
        }
        nodes
    }
}

/// The open runs that a batch is about.
#[derive(Default)]
pub(super) struct OpenRuns<'a>(HashMap<&'a str, Open>);

#[derive(FromRow)]
struct RunRow {
    run_id: String,
    facts: String,
}

#[derive(FromRow)]
struct TokenRow {
    run_id: String,
    token: i64,
    node: String,
    since_micros: i64,
    outcome: String,
}

#[derive(FromRow)]
struct SpawnRow {
    run_id: String,
    first: i64,
    count: i64,
    node: String,
    since_micros: i64,
}

#[derive(FromRow)]
struct GroupRow {
    run_id: String,
    instance: i64,
    branches: String,
}

/// The tokens and group instances that an event asks for.
fn asked(what: &What<'_>) -> (Option<u64>, Vec<u64>) {
    match what {
        What::Attempted(attempted) => (Some(attempted.token), Vec::new()),
        What::RetryStarted { token } | What::Ended { token, .. } | What::MutexTaken { token } => {
            (Some(*token), Vec::new())
        }
        What::Emitted(emitted) => (Some(emitted.token), Vec::new()),
        What::Admitted => (Some(1), Vec::new()),
        What::Routed(routed) => {
            let extended = routed.extended().map(|(instance, ..)| instance).collect();
            (Some(routed.token), extended)
        }
        What::Spawned { instance, .. }
        | What::Joined { instance, .. }
        | What::GroupGone { instance } => (None, vec![*instance]),
        What::Started { .. }
        | What::Forked { .. }
        | What::UndoStarted { .. }
        | What::RunEnded { .. } => (None, Vec::new()),
    }
}

/// What a batch asks for of runs that were begun before it.
#[derive(Default)]
struct Wanted<'a> {
    runs: HashSet<&'a str>,
    tokens: HashSet<(&'a str, u64)>,
    groups: HashSet<(&'a str, u64)>,
}

impl<'a> Wanted<'a> {
    fn by(events: &[Told<'a>]) -> Self {
        let (mut wanted, mut begun) = (Self::default(), HashSet::new());
        for event in events {
            let id = event.run_id;
            if matches!(event.what, What::Started { .. }) {
                begun.insert(id);
            }
            if !begun.contains(id) {
                wanted.runs.insert(id);
                let (token, groups) = asked(&event.what);
                wanted.tokens.extend(token.map(|token| (id, token)));
                wanted.groups.extend(groups.into_iter().map(|group| (id, group)));
            }
        }
        wanted
    }
}

/// The rows that are wanted, where any are.
async fn rows<T: Record + 'static>(
    session: &mut Session<'_>,
    text: fn(Dialect) -> String,
    wanted: Vec<impl Serialize>,
) -> Result<Vec<T>, sqlx::Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let query = sql(text(session.dialect())).bind(json!(wanted).to_string());
    session.rows(query).await
}

impl<'a> OpenRuns<'a> {
    /// Reads what the rows have of those that a batch is about.
    pub(super) async fn read(
        session: &mut Session<'_>,
        events: &[Told<'a>],
    ) -> Result<Self, FoldError> {
        let wanted = Wanted::by(events);
        let damaged = |error: serde_json::Error| FoldError::Event {
            position: events.first().map_or(0, |event| event.position),
            reason: format!("the row of a run that is open is damaged: {error}"),
        };
        let mut open = Self::default();
        let found: Vec<RunRow> =
            rows(session, statements::read_runs, wanted.runs.iter().map(|id| [id]).collect())
                .await?;
        for row in found {
            let facts = serde_json::from_str(&row.facts).map_err(damaged)?;
            if let Some(&id) = wanted.runs.get(row.run_id.as_str()) {
                let run = Open { is_stored: true, is_changed: false, ..Open::new(facts) };
                open.0.insert(id, run);
            }
        }
        // Tokens that are asked for at the same time lie beside each other.
        let mut between: HashMap<&str, (u64, u64)> = HashMap::new();
        for (id, token) in &wanted.tokens {
            let (least, most) = between.entry(*id).or_insert((*token, *token));
            (*least, *most) = ((*least).min(*token), (*most).max(*token));
        }
        let between = between.into_iter().map(|(id, (least, most))| (id, least, most));
        let found: Vec<SpawnRow> =
            rows(session, statements::read_spawns, between.collect()).await?;
        for row in found {
            let Some(run) = open.0.get_mut(row.run_id.as_str()) else { continue };
            let (node, since_micros) = (row.node.into(), row.since_micros);
            let spawn =
                Spawn { count: row.count.unsigned_abs(), node, since_micros, is_stored: true };
            run.spawns.insert(row.first.unsigned_abs(), spawn);
        }
        let found: Vec<TokenRow> =
            rows(session, statements::read_tokens, wanted.tokens.into_iter().collect()).await?;
        for row in found {
            let Some(run) = open.0.get_mut(row.run_id.as_str()) else { continue };
            let failed = (!row.outcome.is_empty()).then_some(row.outcome == FAILED);
            let (node, since_micros) = (row.node.into(), row.since_micros);
            run.tokens.found(row.token.unsigned_abs(), Place { node, since_micros, failed });
        }
        let found: Vec<GroupRow> =
            rows(session, statements::read_groups, wanted.groups.into_iter().collect()).await?;
        for row in found {
            let Some(run) = open.0.get_mut(row.run_id.as_str()) else { continue };
            let branches = serde_json::from_str(&row.branches).map_err(damaged)?;
            run.groups.found(row.instance.unsigned_abs(), branches);
        }
        Ok(open)
    }

    pub(super) fn begin(&mut self, id: &'a str, facts: Facts) {
        self.0.insert(id, Open::new(facts));
    }

    /// One of them; none where it isn't known, as a run whose first event the fold never saw.
    pub(super) fn get(&mut self, id: &str) -> Option<&mut Open> {
        self.0.get_mut(id).filter(|run| !run.has_ended)
    }

    /// Writes what has become of them.
    pub(super) async fn write(self, session: &mut Session<'_>) -> Result<(), FoldError> {
        let dialect = session.dialect();
        let (mut ended, mut runs) = (Vec::new(), Vec::new());
        let (mut tokens, mut no_tokens, mut spawns) = (Vec::new(), Vec::new(), Vec::new());
        let (mut groups, mut no_groups) = (Vec::new(), Vec::new());
        for (id, run) in &self.0 {
            if run.has_ended {
                ended.extend(run.is_stored.then_some([id]));
                continue;
            }
            if run.is_changed {
                runs.push(json!([id, json!(run.facts).to_string()]));
            }
            for (token, place) in run.tokens.written() {
                let outcome =
                    place.failed.map_or("", |failed| if failed { FAILED } else { SUCCEEDED });
                tokens.push(json!([id, token, place.node, place.since_micros, outcome]));
            }
            for (first, Spawn { count, node, since_micros, is_stored }) in &run.spawns {
                if *is_stored {
                    continue;
                }
                spawns.push(json!([id, first, count, node, since_micros]));
            }
            no_tokens.extend(run.tokens.gone().map(|token| (id, token)));
            for (instance, branches) in run.groups.written() {
                groups.push(json!([id, instance, json!(branches).to_string()]));
            }
            no_groups.extend(run.groups.gone().map(|instance| (id, instance)));
        }
        for (text, rows) in [
            (statements::insert_runs(dialect), json!(runs)),
            (statements::insert_tokens(dialect), json!(tokens)),
            (statements::insert_spawns(dialect), json!(spawns)),
            (statements::insert_groups(dialect), json!(groups)),
            (statements::delete_numbered(dialect, "metric_tokens", "token"), json!(no_tokens)),
            (statements::delete_numbered(dialect, "metric_groups", "instance"), json!(no_groups)),
            (statements::delete_run(dialect, "metric_runs"), json!(ended)),
            (statements::delete_run(dialect, "metric_tokens"), json!(ended)),
            (statements::delete_run(dialect, "metric_spawns"), json!(ended)),
            (statements::delete_run(dialect, "metric_groups"), json!(ended)),
        ] {
            if rows.as_array().is_some_and(|rows| !rows.is_empty()) {
                session.execute(sql(text).bind(rows.to_string())).await?;
            }
        }
        Ok(())
    }
}

const SUCCEEDED: &str = "succeeded";
const FAILED: &str = "failed";
