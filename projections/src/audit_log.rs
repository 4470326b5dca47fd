//! The audit log: who did what, one row for each event that records an act of somebody.
//!
//! What the engine does by itself isn't in it. The rows are folded from the events alone, so the
//! chain of [`crate::audit`] proves what they are made of.

use async_trait::async_trait;
use chassis::journal::{Journal, RecordedEvent};
use chrono::{DateTime, Utc};
use domain::ids::WorkspaceId;
use futures::stream::BoxStream;
use protocol::{
    AuditEntry, AuditFilter, AuditHeads, AuditQueries, AuditResult, ExportAudit, Page, PageRequest,
    Rejection,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::cursor::{After, Asked, Listed};
use crate::projection::{FoldError, Projection};
use crate::runs::time;
use crate::store::conditions::Conditions;
use crate::store::dialect::Dialect;
use crate::store::sql::{Session, sql};
use crate::{Projections, refusal};

mod act;

pub(crate) const NAME: &str = "audit_log";
/// Bytes of a row beside its JSON.
const ROW_BYTES: usize = 1_024;

pub(crate) struct AuditLog;

/// A row, as it is written and read; the names are those of the columns.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, Deserialize)]
struct Row {
    id: String,
    workspace_id: String,
    at_micros: i64,
    event_id: String,
    actor: String,
    action: String,
    result: String,
    resource_type: String,
    resource_id: String,
    run_id: Option<String>,
    origin: Option<String>,
    command_id: Option<String>,
    trace_id: Option<String>,
    changes: Option<String>,
    changes_left_out: i64,
    details: Option<String>,
}

const TEXTS: [&str; 14] = [
    "id",
    "workspace_id",
    "event_id",
    "actor",
    "action",
    "result",
    "resource_type",
    "resource_id",
    "run_id",
    "origin",
    "command_id",
    "trace_id",
    "changes",
    "details",
];
const NUMBERS: [&str; 2] = ["at_micros", "changes_left_out"];

#[async_trait]
impl Projection for AuditLog {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i64 {
        2
    }

    fn tables(&self) -> &'static [(&'static str, &'static str)] {
        &[(NAME, "id")]
    }

    fn concerns(&self, event: &RecordedEvent) -> bool {
        act::may_be(event)
    }

    fn may_lag(&self) -> bool {
        true
    }

    async fn apply(
        &self,
        session: &mut Session<'_>,
        journal: &dyn Journal,
        events: &[&RecordedEvent],
    ) -> Result<(), FoldError> {
        let mut rows = Vec::new();
        for event in events {
            rows.extend(act::row(journal, event).await?);
        }
        if rows.is_empty() {
            return Ok(());
        }
        // Texts and numbers always have a JSON form.
        let rows = serde_json::to_string(&rows).unwrap_or_default();
        session.execute(sql(insert(session.dialect())).bind(rows)).await?;
        Ok(())
    }
}

fn insert(dialect: Dialect) -> String {
    let texts = TEXTS.map(|column| format!("change.value ->> '{column}'"));
    let numbers = NUMBERS.map(|column| format!("cast(change.value ->> '{column}' as bigint)"));
    format!(
        "insert into audit_log ({}, {}) select {}, {} from {} as change",
        TEXTS.join(", "),
        NUMBERS.join(", "),
        texts.join(", "),
        numbers.join(", "),
        dialect.each("$1")
    )
}

impl Listed for Row {
    fn place(&self) -> After {
        After { micros: self.at_micros, id: self.id.clone() }
    }

    fn bytes(&self) -> usize {
        let json = [&self.origin, &self.changes, &self.details];
        json.into_iter().flatten().map(String::len).sum::<usize>() + ROW_BYTES
    }
}

impl Row {
    fn view(self) -> Result<AuditEntry, Rejection> {
        let unreadable = |reason: &dyn std::fmt::Display| {
            refusal::damaged(&format!("the row of event {}", self.event_id), reason)
        };
        fn read<T: DeserializeOwned>(stored: Option<&String>) -> serde_json::Result<Option<T>> {
            stored.map(|text| serde_json::from_str(text)).transpose()
        }
        let origin = read(self.origin.as_ref()).map_err(|error| unreadable(&error))?;
        let changes = read(self.changes.as_ref()).map_err(|error| unreadable(&error))?;
        let details = read(self.details.as_ref()).map_err(|error| unreadable(&error))?;
        let result: AuditResult = serde_json::from_value(self.result.clone().into())
            .map_err(|error| unreadable(&error))?;
        Ok(AuditEntry {
            position: self.id.parse().map_err(|error| unreadable(&error))?,
            id: self.event_id,
            at: time(self.at_micros),
            actor: self.actor,
            action: self.action,
            result,
            resource_type: self.resource_type,
            resource_id: self.resource_id,
            run_id: self.run_id,
            workspace_id: self.workspace_id,
            origin,
            command_id: self.command_id,
            trace_id: self.trace_id,
            changes: changes.unwrap_or_default(),
            changes_left_out: self.changes_left_out.unsigned_abs(),
            details: details.unwrap_or_default(),
        })
    }
}

#[async_trait]
impl AuditQueries for Projections {
    async fn list(
        &self,
        workspace_id: WorkspaceId,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, Rejection> {
        let asked = Asked::read(&page, &workspace_id.to_string(), &filter)?;
        let seen = self.wait_for(&self.audit_log, page.min_position).await?;
        let micros = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_micros());
        let mut only = Conditions::default();
        only.and("workspace_id = $_", Some(workspace_id.to_string()));
        only.and("actor = $_", filter.actor);
        only.and("action = $_", filter.action);
        only.and("resource_type = $_", filter.resource_type);
        only.and("resource_id = $_", filter.resource_id);
        only.and("run_id = $_", filter.run_id);
        only.and("result = $_", filter.result.map(AuditResult::as_str));
        only.and("at_micros >= $_", micros(filter.after));
        only.and("at_micros < $_", micros(filter.before));
        let select = format!("select {}, {} from audit_log", TEXTS.join(", "), NUMBERS.join(", "));
        let query = only.page(&select, "", &asked);
        asked.page(seen.rows(query).await?, Row::view)
    }

    async fn heads(&self, after: u64, limit: u32) -> Result<AuditHeads, Rejection> {
        self.heads_after(after, limit).await
    }

    async fn export(
        &self,
        asked: ExportAudit,
    ) -> Result<BoxStream<'static, Result<String, Rejection>>, Rejection> {
        self.exported(asked).await
    }
}
