//! The log store: what the processes of a platform told at a level and above, found by run and by
//! trace.
//!
//! Its table stands beside the read tables, and is no fold: nothing rebuilds it. Any process with
//! the tables writes to it; the one that folds removes what is old (`trim.rs`), and hands that to
//! an archive before where there is one (`archive.rs`).

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ids::WorkspaceId;
use protocol::{LogFilter, LogLevel, LogQueries, LogRecord, Page, PageRequest, Rejection};
use serde::Serialize;
use sqlx::FromRow;

use crate::cursor::{After, Asked, Listed};
use crate::runs::{containing, time};
use crate::store::conditions::Conditions;
use crate::store::dialect::Dialect;
use crate::store::sql::sql;
use crate::{Projections, refusal};

pub(crate) mod archive;
pub(crate) mod trim;

/// Records that are kept in one statement.
pub const LOG_BATCH: usize = 256;
/// Bytes of a row beside its message and fields.
const ROW_BYTES: usize = 512;

/// Why records aren't kept.
#[derive(Debug, thiserror::Error)]
pub enum LogStoreError {
    /// Not at the moment.
    #[error("the log store can't be written to: {0}")]
    Unavailable(sqlx::Error),
    /// Never: trying again won't help.
    #[error("the log store doesn't take a record: {0}")]
    Refused(sqlx::Error),
}

impl From<sqlx::Error> for LogStoreError {
    fn from(error: sqlx::Error) -> Self {
        // SQLSTATE class 22: what is wrong is the data.
        let code = error.as_database_error().and_then(|error| error.code());
        match code.is_some_and(|code| code.starts_with("22")) {
            true => Self::Refused(error),
            false => Self::Unavailable(error),
        }
    }
}

/// A row, as it is written and read; the names are those of the columns.
#[derive(Debug, Clone, FromRow, Serialize)]
struct Row {
    id: String,
    at_micros: i64,
    level: i64,
    role: String,
    instance: String,
    target: String,
    message: String,
    workspace_id: Option<String>,
    run_id: Option<String>,
    trace_id: Option<String>,
    fields: Option<String>,
}

const TEXTS: [&str; 9] =
    ["id", "role", "instance", "target", "message", "workspace_id", "run_id", "trace_id", "fields"];
const NUMBERS: [&str; 2] = ["at_micros", "level"];

/// What a record is about beside what it says: a run is a workspace's, and has the trace of the
/// request that started it, or the run at the top of its tree.
const WORKSPACE: &str = "coalesce(l.workspace_id, r.workspace_id)";
const SELECT: &str = "select l.id, l.at_micros, l.level, l.role, l.instance, l.target, l.message, \
     l.run_id, l.fields, coalesce(l.workspace_id, r.workspace_id) as workspace_id, \
     coalesce(l.trace_id, (select a.trace_id from audit_log a \
         where a.run_id = coalesce(r.root_run_id, l.run_id) and a.trace_id is not null order by a.at_micros, a.id limit 1)) as trace_id \
     from logs l left join runs r on r.id = l.run_id";
const OF_TRACE: &str = "(l.trace_id = $_ or coalesce(r.root_run_id, l.run_id) in \
     (select a.run_id from audit_log a where a.trace_id = $_))";
/// About a run, the run at the top of its tree, or another one below that.
const OF_TREE: &str = "coalesce(r.root_run_id, l.run_id) = \
     (select coalesce(t.root_run_id, t.id) from runs t where t.id = $_)";

impl Projections {
    /// Keeps records, at most [`LOG_BATCH`] at a time. What is there already stays as it is, so that
    /// they may be given again.
    pub async fn keep_logs(&self, records: &[LogRecord]) -> Result<(), LogStoreError> {
        let rows: Vec<Row> = records.iter().map(Row::of).collect();
        // Texts and numbers always have a JSON form.
        let rows = serde_json::to_string(&rows).unwrap_or_default();
        let dialect = self.store.readers().dialect();
        self.store.execute(sql(insert(dialect)).bind(rows)).await?;
        Ok(())
    }
}

fn insert(dialect: Dialect) -> String {
    let texts = TEXTS.map(|column| format!("change.value ->> '{column}'"));
    let numbers = NUMBERS.map(|column| format!("cast(change.value ->> '{column}' as bigint)"));
    format!(
        "insert into logs ({}, {}) select {}, {} from {} as change where true \
         on conflict (id) do nothing",
        TEXTS.join(", "),
        NUMBERS.join(", "),
        texts.join(", "),
        numbers.join(", "),
        dialect.each("$1")
    )
}

fn number(level: LogLevel) -> i64 {
    level as i64
}

impl Row {
    fn of(record: &LogRecord) -> Self {
        let fields = Some(&record.fields).filter(|fields| !fields.is_empty());
        Self {
            id: record.id.clone(),
            at_micros: record.at.timestamp_micros(),
            level: number(record.level),
            role: record.role.clone(),
            instance: record.instance.clone(),
            target: record.target.clone(),
            message: record.message.clone(),
            workspace_id: record.workspace_id.clone(),
            run_id: record.run_id.clone(),
            trace_id: record.trace_id.clone(),
            fields: fields.and_then(|fields| serde_json::to_string(fields).ok()),
        }
    }

    fn view(self) -> Result<LogRecord, Rejection> {
        let unreadable = |reason: &dyn std::fmt::Display| {
            refusal::damaged(&format!("the log record {}", self.id), reason)
        };
        let fields = self.fields.as_deref().map(serde_json::from_str).transpose();
        let level = LogLevel::ALL.into_iter().find(|level| number(*level) == self.level);
        Ok(LogRecord {
            fields: fields.map_err(|error| unreadable(&error))?.unwrap_or_default(),
            level: level.ok_or_else(|| unreadable(&"its level is unknown"))?,
            at: time(self.at_micros),
            id: self.id,
            role: self.role,
            instance: self.instance,
            target: self.target,
            message: self.message,
            workspace_id: self.workspace_id,
            run_id: self.run_id,
            trace_id: self.trace_id,
        })
    }
}

impl Listed for Row {
    fn place(&self) -> After {
        After { micros: self.at_micros, id: self.id.clone() }
    }

    fn bytes(&self) -> usize {
        self.message.len() + self.fields.as_ref().map_or(0, String::len) + ROW_BYTES
    }
}

#[async_trait]
impl LogQueries for Projections {
    async fn list(
        &self,
        workspace_id: Option<WorkspaceId>,
        filter: LogFilter,
        page: PageRequest,
    ) -> Result<Page<LogRecord>, Rejection> {
        let scope = workspace_id.map(|id| id.to_string());
        let asked = Asked::read(&page, scope.as_deref().unwrap_or_default(), &filter)?;
        let micros = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_micros());
        let mut only = Conditions::default();
        only.and(&format!("{WORKSPACE} = $_"), scope);
        only.and("l.level >= $_", filter.level.map(number));
        only.and("l.role = $_", filter.role);
        only.and(if filter.tree { OF_TREE } else { "l.run_id = $_" }, filter.run_id);
        only.and(OF_TRACE, filter.trace_id);
        only.and("l.at_micros >= $_", micros(filter.from));
        only.and("l.at_micros < $_", micros(filter.to));
        let part = filter.q.as_deref().filter(|q| !q.is_empty()).map(containing);
        only.and(
            "(lower(l.message) like $_ escape '\\' or lower(l.fields) like $_ escape '\\')",
            part,
        );
        let query = only.page(SELECT, "l.", &asked);
        let rows = self.store.readers().rows(query).await.map_err(refusal::storage)?;
        asked.page(rows, Row::view)
    }
}
