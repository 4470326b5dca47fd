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
}

/// A token at its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) node: Arc<str>,
    pub(super) since_micros: i64,
    /// How its node ended, once it has.
    pub(super) failed: Option<bool>,
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
    tokens: Table<Place>,
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

    pub(super) fn place(&self, token: u64) -> Option<&Place> {
        self.tokens.get(token)
    }

    pub(super) fn ended_at(&mut self, token: u64, failed: bool) {
        self.tokens.change(token, |place| place.failed = Some(failed));
    }

    pub(super) fn leave(&mut self, token: u64) -> Option<Place> {
        self.tokens.remove(token)
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
            rows(session, read_runs, wanted.runs.iter().map(|id| [id]).collect()).await?;
        for row in found {
            let facts = serde_json::from_str(&row.facts).map_err(damaged)?;
            if let Some(&id) = wanted.runs.get(row.run_id.as_str()) {
                let run = Open { is_stored: true, is_changed: false, ..Open::new(facts) };
                open.0.insert(id, run);
            }
        }
        let found: Vec<TokenRow> =
            rows(session, read_tokens, wanted.tokens.into_iter().collect()).await?;
        for row in found {
            let Some(run) = open.0.get_mut(row.run_id.as_str()) else { continue };
            let failed = (!row.outcome.is_empty()).then_some(row.outcome == FAILED);
            let (node, since_micros) = (row.node.into(), row.since_micros);
            run.tokens.found(row.token.unsigned_abs(), Place { node, since_micros, failed });
        }
        let found: Vec<GroupRow> =
            rows(session, read_groups, wanted.groups.into_iter().collect()).await?;
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
        let (mut tokens, mut no_tokens) = (Vec::new(), Vec::new());
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
            no_tokens.extend(run.tokens.gone().map(|token| (id, token)));
            for (instance, branches) in run.groups.written() {
                groups.push(json!([id, instance, json!(branches).to_string()]));
            }
            no_groups.extend(run.groups.gone().map(|instance| (id, instance)));
        }
        for (text, rows) in [
            (insert_runs(dialect), json!(runs)),
            (insert_tokens(dialect), json!(tokens)),
            (insert_groups(dialect), json!(groups)),
            (delete_numbered(dialect, "metric_tokens", "token"), json!(no_tokens)),
            (delete_numbered(dialect, "metric_groups", "instance"), json!(no_groups)),
            (delete_run(dialect, "metric_runs"), json!(ended)),
            (delete_run(dialect, "metric_tokens"), json!(ended)),
            (delete_run(dialect, "metric_groups"), json!(ended)),
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

fn read_runs(dialect: Dialect) -> String {
    let each = dialect.each("$1");
    format!(
        "select found.run_id, found.facts from {each} as wanted \
         cross join metric_runs as found where found.run_id = wanted.value ->> 0"
    )
}

fn read_tokens(dialect: Dialect) -> String {
    numbered(dialect, "metric_tokens", "token")
}

fn read_groups(dialect: Dialect) -> String {
    numbered(dialect, "metric_groups", "instance")
}

fn numbered(dialect: Dialect, table: &str, number: &str) -> String {
    let each = dialect.each("$1");
    format!(
        "select found.* from {each} as wanted cross join {table} as found \
         where found.run_id = wanted.value ->> 0 \
            and found.{number} = cast(wanted.value ->> 1 as bigint)"
    )
}

fn insert_runs(dialect: Dialect) -> String {
    format!(
        "insert into metric_runs (run_id, facts) \
         select change.value ->> 0, change.value ->> 1 from {} as change where true \
         on conflict (run_id) do update set facts = excluded.facts",
        dialect.each("$1")
    )
}

fn insert_tokens(dialect: Dialect) -> String {
    format!(
        "insert into metric_tokens (run_id, token, node, since_micros, outcome) \
         select change.value ->> 0, cast(change.value ->> 1 as bigint), change.value ->> 2, \
            cast(change.value ->> 3 as bigint), change.value ->> 4 from {} as change where true \
         on conflict (run_id, token) do update set node = excluded.node, \
            since_micros = excluded.since_micros, outcome = excluded.outcome",
        dialect.each("$1")
    )
}

fn insert_groups(dialect: Dialect) -> String {
    format!(
        "insert into metric_groups (run_id, instance, branches) \
         select change.value ->> 0, cast(change.value ->> 1 as bigint), change.value ->> 2 \
         from {} as change where true \
         on conflict (run_id, instance) do update set branches = excluded.branches",
        dialect.each("$1")
    )
}

fn delete_numbered(dialect: Dialect, table: &str, number: &str) -> String {
    // With both casts SQLite looks for each row by both columns of the key.
    format!(
        "delete from {table} where (run_id, {number}) in \
            (select cast(gone.value ->> 0 as text), cast(gone.value ->> 1 as bigint) \
             from {} as gone)",
        dialect.each("$1")
    )
}

fn delete_run(dialect: Dialect, table: &str) -> String {
    format!(
        "delete from {table} where run_id in (select gone.value ->> 0 from {} as gone)",
        dialect.each("$1")
    )
}
