//! Gates: one row per gate, as lists and reads show it.
//!
//! They are written with the rows of their runs, in one projection, since a run's end closes them
//! and its pause moves their deadlines.

use async_trait::async_trait;
use domain::ids::WorkspaceId;
use protocol::{
    GateAnswerView, GateFilter, GateId, GateQueries, GateStatus, GateView, Page, PageRequest,
    Rejection,
};
use serde_json::Value;
use sqlx::FromRow;

use crate::cursor::{After, Asked, Listed};
use crate::payload::Blobs;
use crate::runs::time;
use crate::store::sql::sql;
use crate::{Projections, refusal};

pub(crate) mod fold;

/// Bytes of a row beside its values.
const ROW_BYTES: usize = 2_048;

#[derive(FromRow)]
struct Row {
    id: String,
    workspace_id: String,
    run_id: String,
    token: i64,
    node: String,
    project_id: String,
    workflow_id: Option<String>,
    definition_name: String,
    title: String,
    status: String,
    outcome: Option<String>,
    form: Option<String>,
    assignees: String,
    roles: String,
    approvals: i64,
    rejections: i64,
    not_by: Option<String>,
    deadline_micros: Option<i64>,
    answers: String,
    opened_micros: i64,
    closed_micros: Option<i64>,
}

const COLUMNS: &str = "id, workspace_id, run_id, token, node, project_id, workflow_id, \
    definition_name, title, status, outcome, form, assignees, roles, approvals, rejections, \
    not_by, deadline_micros, answers, opened_micros, closed_micros";

#[async_trait]
impl GateQueries for Projections {
    async fn list(
        &self,
        workspace_id: WorkspaceId,
        filter: GateFilter,
        page: PageRequest,
    ) -> Result<Page<GateView>, Rejection> {
        let asked = Asked::read(&page, &workspace_id.to_string(), &filter)?;
        let seen = self.wait_for(&self.runs, page.min_position).await?;
        let query = sql(format!(
            "select {COLUMNS} from gates where workspace_id = $1 \
             and ($2 is null or status = $2) \
             and ($3 is null or exists (select 1 from gate_people where gate_id = gates.id \
                and kind = 'assignee' and name = $3)) \
             and ($4 is null or exists (select 1 from gate_people where gate_id = gates.id \
                and kind = 'role' and name = $4)) \
             and ($5 is null or workflow_id = $5) \
             and ($6 is null or run_id = $6) \
             and ($7 is null or (opened_micros, id) < ($7, $8)) \
             order by opened_micros desc, id desc limit $9"
        ))
        .bind(workspace_id.to_string())
        .bind(filter.status.map(|status| status.as_str().to_owned()))
        .bind(filter.assignee)
        .bind(filter.role)
        .bind(filter.workflow_id)
        .bind(filter.run_id)
        .bind(asked.micros())
        .bind(asked.id())
        .bind(asked.rows());
        asked.page(seen.rows(query).await?, |row: Row| row.view(None))
    }

    async fn get(
        &self,
        workspace_id: WorkspaceId,
        gate: GateId,
        min_position: Option<u64>,
    ) -> Result<GateView, Rejection> {
        let seen = self.wait_for(&self.runs, min_position).await?;
        let query = sql(format!("select {COLUMNS} from gates where id = $1 and workspace_id = $2"))
            .bind(gate.to_string())
            .bind(workspace_id.to_string());
        let row: Option<Row> = seen.row(query).await?;
        let row = row.ok_or_else(|| refusal::not_found("gate", &gate.to_string()))?;
        let blobs =
            Blobs::fetch(self.journal.as_ref(), row.values()).await.map_err(refusal::journal)?;
        row.view(Some(&blobs))
    }
}

impl Listed for Row {
    fn place(&self) -> After {
        After { micros: self.opened_micros, id: self.id.clone() }
    }

    fn bytes(&self) -> usize {
        let people = self.assignees.len() + self.roles.len();
        self.values().map(<[u8]>::len).sum::<usize>() + people + ROW_BYTES
    }
}

impl Row {
    fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.form.iter().chain(std::iter::once(&self.answers)).map(String::as_bytes)
    }

    /// The view; without stored values at hand, what refers to one is `null`.
    fn view(self, blobs: Option<&Blobs>) -> Result<GateView, Rejection> {
        let id = self.id.clone();
        let unreadable =
            |reason: &dyn std::fmt::Display| refusal::damaged(&format!("the row of {id}"), reason);
        let value = |stored: &str| Blobs::value(blobs, stored).map_err(|e| unreadable(&e));
        let names = |stored: &str| {
            serde_json::from_str::<Vec<String>>(stored).map_err(|error| unreadable(&error))
        };
        let answers: Vec<fold::Answer<'_>> =
            serde_json::from_str(&self.answers).map_err(|error| unreadable(&error))?;
        let answers = answers.into_iter().map(|answer| {
            let value = answer.value.map(|stored| value(stored.get())).transpose()?;
            let fold::Answer { actor, decision, comment, at, .. } = answer;
            Ok(GateAnswerView { actor, decision, value: value.unwrap_or_default(), comment, at })
        });
        let answers = answers.collect::<Result<_, Rejection>>()?;
        let status: GateStatus =
            serde_json::from_value(Value::String(self.status)).map_err(|e| unreadable(&e))?;
        Ok(GateView {
            form: self.form.as_deref().map(value).transpose()?,
            assignees: names(&self.assignees)?,
            roles: names(&self.roles)?,
            answers,
            status,
            id: self.id,
            workspace_id: self.workspace_id,
            run_id: self.run_id,
            token: self.token.unsigned_abs(),
            node: self.node,
            project_id: self.project_id,
            workflow_id: self.workflow_id,
            definition: self.definition_name,
            title: self.title,
            outcome: self.outcome,
            approvals: u32::try_from(self.approvals).unwrap_or_default(),
            rejections: u32::try_from(self.rejections).unwrap_or_default(),
            not_by: self.not_by,
            deadline: self.deadline_micros.map(time),
            opened_at: time(self.opened_micros),
            closed_at: self.closed_micros.map(time),
        })
    }
}
