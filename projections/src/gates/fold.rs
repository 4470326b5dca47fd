//! The fold of gates: the rows that a batch is about are read, changed in the order of events, and
//! written in a few statements.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chassis::journal::RecordedEvent;
use chrono::{DateTime, Utc};
use protocol::GateStatus;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::FromRow;

use crate::projection::FoldError;
use crate::store::dialect::Dialect;
use crate::store::sql::{Session, sql};

/// What a batch changes.
#[derive(Default)]
pub(crate) struct Changes {
    gates: BTreeMap<String, Gate>,
    /// The open ones among them, by run.
    open: HashMap<String, BTreeSet<String>>,
    /// Since when runs are paused, and wait for their turn.
    paused: HashMap<String, i64>,
    queued: HashMap<String, i64>,
    people: Vec<(String, &'static str, String)>,
    /// Runs that were forked, and may follow another definition since.
    forked: BTreeSet<String>,
}

/// A gate's row as it will be; the names are those of the statements below.
#[derive(Serialize)]
struct Gate {
    id: String,
    run_id: String,
    #[serde(flatten)]
    opened: Option<Opened>,
    status: GateStatus,
    outcome: Option<String>,
    deadline_micros: Option<i64>,
    /// A list, as JSON.
    answers: String,
    closed_micros: Option<i64>,
}

/// What stands in a row from its beginning.
#[derive(Serialize)]
struct Opened {
    workspace_id: String,
    token: u64,
    node: String,
    title: String,
    form: Option<String>,
    assignees: String,
    roles: String,
    approvals: u32,
    rejections: u32,
    not_by: Option<String>,
    opened_micros: i64,
}

#[derive(FromRow)]
struct Known {
    id: String,
    run_id: String,
    status: String,
    outcome: Option<String>,
    deadline_micros: Option<i64>,
    answers: String,
    closed_micros: Option<i64>,
}

#[derive(FromRow)]
struct Stands {
    id: String,
    paused_micros: Option<i64>,
    queued_micros: Option<i64>,
}

#[derive(Deserialize)]
struct OpenedPayload<'a> {
    token: u64,
    node: String,
    title: String,
    #[serde(borrow, default)]
    form: Option<&'a RawValue>,
    #[serde(default)]
    assignees: Vec<String>,
    #[serde(default)]
    roles: Vec<String>,
    approvals: u32,
    rejections: u32,
    #[serde(default)]
    not_by: Option<String>,
    #[serde(default)]
    deadline: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct OfToken {
    token: u64,
}

#[derive(Deserialize)]
struct ClosedPayload {
    token: u64,
    outcome: String,
}

/// An answer as it stands in the event and in the row.
#[derive(Serialize, Deserialize)]
pub(super) struct Answer<'a> {
    pub(super) actor: String,
    pub(super) decision: String,
    #[serde(borrow, default)]
    pub(super) value: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) comment: Option<String>,
    pub(super) at: DateTime<Utc>,
}

/// Since when the timers of a run stood still that is forked.
#[derive(Deserialize)]
struct Since {
    since: DateTime<Utc>,
}

/// What closes all gates of a run.
const ENDS: [&str; 5] =
    ["compensation_started", "run_completed", "run_failed", "run_cancelled", "run_timed_out"];

/// Folds a batch. Reads the rows that it is about, so it comes before the rows of runs change.
pub(crate) async fn fold(
    session: &mut Session<'_>,
    events: &[&RecordedEvent],
) -> Result<Changes, FoldError> {
    let mut changes = Changes::default();
    changes.load(session, events).await?;
    for event in events {
        changes.take(event).map_err(|error| FoldError::Event {
            position: event.position,
            reason: error.to_string(),
        })?;
    }
    Ok(changes)
}

impl Changes {
    async fn load(
        &mut self,
        session: &mut Session<'_>,
        events: &[&RecordedEvent],
    ) -> Result<(), FoldError> {
        let (mut gates, mut runs, mut stood) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for event in events {
            match &*event.event_type {
                "gate_answered" | "gate_closed" => {
                    let of: Result<OfToken, _> = serde_json::from_slice(&event.payload);
                    gates.extend(of.ok().map(|of| gate_id(event, of.token)));
                }
                "run_forked" => {
                    runs.insert(event.aggregate_id.to_string());
                }
                "run_resumed" | "run_admitted" => {
                    stood.insert(event.aggregate_id.to_string());
                    runs.insert(event.aggregate_id.to_string());
                }
                other if ENDS.contains(&other) => {
                    runs.insert(event.aggregate_id.to_string());
                }
                _ => {}
            }
        }
        const ROWS: &str = "select id, run_id, status, outcome, deadline_micros, answers, \
            closed_micros from gates where";
        let each = session.dialect().each("$1");
        let by_id = format!("{ROWS} id in (select one.value ->> 0 from {each} as one)");
        let by_run = format!(
            "{ROWS} status = 'open' and run_id in (select one.value ->> 0 from {each} as one)"
        );
        for (query, wanted) in [(by_id, &gates), (by_run, &runs)] {
            if !wanted.is_empty() {
                let rows: Vec<Known> = session.rows(sql(query).bind(listed(wanted))).await?;
                rows.into_iter().for_each(|row| self.know(row));
            }
        }
        if !stood.is_empty() {
            let query = format!(
                "select id, paused_micros, queued_micros from runs \
                 where id in (select one.value ->> 0 from {each} as one)"
            );
            let rows: Vec<Stands> = session.rows(sql(query).bind(listed(&stood))).await?;
            for Stands { id, paused_micros, queued_micros } in rows {
                self.paused.extend(paused_micros.map(|since| (id.clone(), since)));
                self.queued.extend(queued_micros.map(|since| (id, since)));
            }
        }
        Ok(())
    }

    fn know(&mut self, row: Known) {
        let is_open = row.status == GateStatus::Open.as_str();
        if is_open {
            self.open.entry(row.run_id.clone()).or_default().insert(row.id.clone());
        }
        let gate = Gate {
            id: row.id.clone(),
            run_id: row.run_id,
            opened: None,
            status: if is_open { GateStatus::Open } else { GateStatus::Closed },
            outcome: row.outcome,
            deadline_micros: row.deadline_micros,
            answers: row.answers,
            closed_micros: row.closed_micros,
        };
        self.gates.insert(row.id, gate);
    }

    fn take(&mut self, event: &RecordedEvent) -> Result<(), serde_json::Error> {
        let at = event.recorded_at.timestamp_micros();
        let run_id = &*event.aggregate_id;
        match &*event.event_type {
            "gate_opened" => self.open(event)?,
            "gate_answered" => {
                let OfToken { token } = serde_json::from_slice(&event.payload)?;
                let answer: Answer<'_> = serde_json::from_slice(&event.payload)?;
                if let Some(gate) = self.gates.get_mut(&gate_id(event, token)) {
                    let more = if gate.answers == "[]" { "" } else { "," };
                    let answer = serde_json::to_string(&answer)?;
                    gate.answers.insert_str(gate.answers.len() - 1, &format!("{more}{answer}"));
                }
            }
            "gate_closed" => {
                let ClosedPayload { token, outcome } = serde_json::from_slice(&event.payload)?;
                self.close(run_id, &gate_id(event, token), &outcome, at);
            }
            "run_paused" => {
                self.paused.insert(run_id.to_owned(), at);
            }
            "run_resumed" => {
                let length = self.paused.remove(run_id).map_or(0, |since| at - since);
                if !self.queued.contains_key(run_id) {
                    self.postpone(run_id, length);
                }
            }
            // A fork may have gates when it waits for its turn.
            "run_queued" => {
                self.queued.entry(run_id.to_owned()).or_insert(at);
            }
            "run_admitted" => {
                let until = self.paused.get(run_id).copied().unwrap_or(at);
                let length = self.queued.remove(run_id).map_or(0, |since| until - since);
                self.postpone(run_id, length);
            }
            "run_forked" => {
                let Since { since } = serde_json::from_slice(&event.payload)?;
                self.paused.remove(run_id);
                self.queued.remove(run_id);
                self.forked.insert(run_id.to_owned());
                self.postpone(run_id, at - since.timestamp_micros());
            }
            other if ENDS.contains(&other) => {
                for id in self.open.remove(run_id).unwrap_or_default() {
                    self.close(run_id, &id, "cancelled", at);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn postpone(&mut self, run_id: &str, micros: i64) {
        for id in self.open.get(run_id).into_iter().flatten() {
            let gate = self.gates.get_mut(id);
            if let Some(deadline) = gate.and_then(|gate| gate.deadline_micros.as_mut()) {
                *deadline += micros;
            }
        }
    }

    fn open(&mut self, event: &RecordedEvent) -> Result<(), serde_json::Error> {
        let payload: OpenedPayload<'_> = serde_json::from_slice(&event.payload)?;
        let id = gate_id(event, payload.token);
        let people = [("assignee", &payload.assignees), ("role", &payload.roles)];
        for (kind, names) in people {
            self.people.extend(names.iter().map(|name| (id.clone(), kind, name.clone())));
        }
        let run_id = event.aggregate_id.to_string();
        self.open.entry(run_id.clone()).or_default().insert(id.clone());
        let opened = Opened {
            workspace_id: event.workspace_id.to_string(),
            token: payload.token,
            node: payload.node,
            title: payload.title,
            form: payload.form.map(|form| form.get().to_owned()),
            assignees: serde_json::to_string(&payload.assignees)?,
            roles: serde_json::to_string(&payload.roles)?,
            approvals: payload.approvals,
            rejections: payload.rejections,
            not_by: payload.not_by,
            opened_micros: event.recorded_at.timestamp_micros(),
        };
        let gate = Gate {
            id: id.clone(),
            run_id,
            opened: Some(opened),
            status: GateStatus::Open,
            outcome: None,
            deadline_micros: payload.deadline.map(|deadline| deadline.timestamp_micros()),
            answers: "[]".to_owned(),
            closed_micros: None,
        };
        self.gates.insert(id, gate);
        Ok(())
    }

    fn close(&mut self, run_id: &str, id: &str, outcome: &str, at: i64) {
        if let Some(open) = self.open.get_mut(run_id) {
            open.remove(id);
        }
        if let Some(gate) = self.gates.get_mut(id) {
            gate.status = GateStatus::Closed;
            gate.outcome = Some(outcome.to_owned());
            gate.closed_micros = Some(at);
        }
    }

    /// Writes the changes, after those of the runs. The caller owns the transaction.
    pub(crate) async fn write(
        self,
        session: &mut Session<'_>,
        position: u64,
    ) -> Result<(), FoldError> {
        let dialect = session.dialect();
        let unfit = |reason: String| FoldError::Event { position, reason };
        let (new, known): (Vec<_>, Vec<_>) =
            self.gates.into_values().partition(|gate| gate.opened.is_some());
        if !new.is_empty() {
            let rows = json!(new).to_string();
            let made = session.execute(sql(insert(dialect)).bind(rows)).await?;
            if made != new.len() as u64 {
                return Err(unfit("a gate of this batch has no run".to_owned()));
            }
        }
        if !self.people.is_empty() {
            let rows = json!(self.people).to_string();
            session.execute(sql(insert_people(dialect)).bind(rows)).await?;
        }
        if !known.is_empty() {
            let rows = json!(known).to_string();
            session.execute(sql(update(dialect)).bind(rows)).await?;
        }
        if !self.forked.is_empty() {
            let renamed = sql(renamed(dialect)).bind(listed(&self.forked));
            session.execute(renamed).await?;
        }
        Ok(())
    }
}

fn gate_id(event: &RecordedEvent, token: u64) -> String {
    format!("{}.{token}", event.aggregate_id)
}

/// Ids as a parameter for [`Dialect::each`].
fn listed(ids: &BTreeSet<String>) -> String {
    json!(ids.iter().map(|id| [id]).collect::<Vec<_>>()).to_string()
}

fn insert(dialect: Dialect) -> String {
    format!(
        "insert into gates (id, workspace_id, run_id, token, node, project_id, workflow_id, \
            definition_name, title, status, outcome, form, assignees, roles, approvals, \
            rejections, not_by, deadline_micros, answers, opened_micros, closed_micros) \
        select change.value ->> 'id', change.value ->> 'workspace_id', \
            change.value ->> 'run_id', cast(change.value ->> 'token' as bigint), \
            change.value ->> 'node', runs.project_id, runs.workflow_id, runs.definition_name, \
            change.value ->> 'title', change.value ->> 'status', change.value ->> 'outcome', \
            change.value ->> 'form', change.value ->> 'assignees', change.value ->> 'roles', \
            cast(change.value ->> 'approvals' as bigint), \
            cast(change.value ->> 'rejections' as bigint), change.value ->> 'not_by', \
            cast(change.value ->> 'deadline_micros' as bigint), change.value ->> 'answers', \
            cast(change.value ->> 'opened_micros' as bigint), \
            cast(change.value ->> 'closed_micros' as bigint) \
        from {} as change join runs on runs.id = change.value ->> 'run_id'",
        dialect.each("$1")
    )
}

fn insert_people(dialect: Dialect) -> String {
    format!(
        "insert into gate_people (gate_id, kind, name) \
        select one.value ->> 0, one.value ->> 1, one.value ->> 2 from {} as one",
        dialect.each("$1")
    )
}

fn renamed(dialect: Dialect) -> String {
    format!(
        "update gates set definition_name = \
            (select runs.definition_name from runs where runs.id = gates.run_id) \
        where run_id in (select one.value ->> 0 from {} as one)",
        dialect.each("$1")
    )
}

fn update(dialect: Dialect) -> String {
    format!(
        "update gates set status = change.value ->> 'status', \
            outcome = change.value ->> 'outcome', \
            deadline_micros = cast(change.value ->> 'deadline_micros' as bigint), \
            answers = change.value ->> 'answers', \
            closed_micros = cast(change.value ->> 'closed_micros' as bigint) \
        from {} as change where gates.id = change.value ->> 'id'",
        dialect.each("$1")
    )
}
