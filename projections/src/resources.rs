//! Resources: one row per resource of any kind, with its newest spec.

use async_trait::async_trait;
use chassis::journal::{Journal, RecordedEvent};
use domain::codec;
use domain::ids::WorkspaceId;
use domain::resource::{Event, Kind, Spec};
use protocol::{Page, PageRequest, Rejection, ResourceFilter, ResourceQueries, ResourceView};
use serde_json::Value;
use sqlx::{FromRow, SqliteConnection};

use crate::cursor::{After, cut, fingerprint};
use crate::payload::Blobs;
use crate::projection::{FoldError, Projection};
use crate::runs::time;
use crate::{Projections, refusal};

pub(crate) const NAME: &str = "resources";
const PAGE_ROWS: u32 = 200;

pub(crate) struct Resources;

#[async_trait]
impl Projection for Resources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i64 {
        1
    }

    fn tables(&self) -> &'static [(&'static str, &'static str)] {
        &[("resources", "id")]
    }

    fn concerns(&self, aggregate_type: &str) -> bool {
        kind(aggregate_type).is_some()
    }

    async fn apply(
        &self,
        connection: &mut SqliteConnection,
        journal: &dyn Journal,
        events: &[&RecordedEvent],
    ) -> Result<(), FoldError> {
        let stored = events.iter().map(|event| event.payload.as_ref());
        let blobs = Blobs::fetch(journal, stored).await?;
        for recorded in events {
            let unfit = |error: &dyn std::fmt::Display| FoldError::Event {
                position: recorded.position,
                reason: error.to_string(),
            };
            let event: Event = codec::decode(
                &recorded.event_type,
                recorded.event_version,
                &recorded.payload,
                &|hash| blobs.get(hash),
            )
            .map_err(|error| unfit(&error))?;
            match event.revision() {
                Some((_, spec)) => {
                    let text = bare(spec).map_err(|error| unfit(&error))?;
                    upsert(connection, recorded, spec, text).await?;
                }
                None => archive(connection, recorded).await?,
            }
        }
        Ok(())
    }
}

async fn upsert(
    connection: &mut SqliteConnection,
    recorded: &RecordedEvent,
    spec: &Spec,
    text: String,
) -> Result<(), FoldError> {
    let (name, project_id) = name_and_project(spec);
    let sql = "insert into resources (kind, id, workspace_id, project_id, name, version, \
               archived, created_micros, updated_micros, spec) \
               values ($1, $2, $3, $4, $5, $6, 0, $7, $7, $8) \
               on conflict (kind, id) do update set project_id = excluded.project_id, \
               name = excluded.name, version = excluded.version, archived = 0, \
               updated_micros = excluded.updated_micros, spec = excluded.spec";
    sqlx::query(sql)
        .bind(&*recorded.aggregate_type)
        .bind(&*recorded.aggregate_id)
        .bind(&*recorded.workspace_id)
        .bind(project_id)
        .bind(name)
        .bind(recorded.sequence.cast_signed())
        .bind(recorded.recorded_at.timestamp_micros())
        .bind(text)
        .execute(connection)
        .await?;
    Ok(())
}

async fn archive(
    connection: &mut SqliteConnection,
    recorded: &RecordedEvent,
) -> Result<(), FoldError> {
    let sql = "update resources set archived = 1, version = $1, updated_micros = $2 \
               where kind = $3 and id = $4";
    sqlx::query(sql)
        .bind(recorded.sequence.cast_signed())
        .bind(recorded.recorded_at.timestamp_micros())
        .bind(&*recorded.aggregate_type)
        .bind(&*recorded.aggregate_id)
        .execute(connection)
        .await?;
    Ok(())
}

fn kind(aggregate_type: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == aggregate_type)
}

/// The spec without the tag of its kind, which has a column of its own.
fn bare(spec: &Spec) -> Result<String, serde_json::Error> {
    match spec {
        Spec::Workspace(spec) => serde_json::to_string(spec),
        Spec::Project(spec) => serde_json::to_string(spec),
        Spec::WorkflowDefinition(spec) => serde_json::to_string(spec),
        Spec::Workflow(spec) => serde_json::to_string(spec),
        Spec::Action(spec) => serde_json::to_string(spec),
        Spec::PromptSpec(spec) => serde_json::to_string(spec),
        Spec::ModelProfile(spec) => serde_json::to_string(spec),
        Spec::ApiKey(spec) => serde_json::to_string(spec),
    }
}

fn name_and_project(spec: &Spec) -> (String, Option<String>) {
    let (name, project) = match spec {
        Spec::Workspace(spec) => (spec.name.to_string(), None),
        Spec::Project(spec) => (spec.name.to_string(), None),
        Spec::WorkflowDefinition(spec) => (spec.definition.name.to_string(), Some(spec.project_id)),
        Spec::Workflow(spec) => (spec.name.to_string(), Some(spec.project_id)),
        Spec::Action(spec) => (spec.name.to_string(), Some(spec.project_id)),
        Spec::PromptSpec(spec) => (spec.name.to_string(), Some(spec.project_id)),
        Spec::ModelProfile(spec) => (spec.name.to_string(), Some(spec.project_id)),
        Spec::ApiKey(spec) => (spec.name.to_string(), None),
    };
    (name, project.map(|id| id.to_string()))
}

#[derive(FromRow)]
struct Row {
    kind: String,
    id: String,
    workspace_id: String,
    project_id: Option<String>,
    name: String,
    version: i64,
    archived: bool,
    created_micros: i64,
    updated_micros: i64,
    spec: String,
}

const COLUMNS: &str = "kind, id, workspace_id, project_id, name, version, archived, \
    created_micros, updated_micros, spec";

impl Row {
    fn view(self, with_secrets: bool) -> Result<ResourceView, Rejection> {
        let what = format!("the row of {}", self.id);
        let mut spec: Value =
            serde_json::from_str(&self.spec).map_err(|error| refusal::damaged(&what, &error))?;
        let kind =
            kind(&self.kind).ok_or_else(|| refusal::damaged(&what, &"it is of no known kind"))?;
        if !with_secrets {
            hide_secrets(kind, &mut spec);
        }
        Ok(ResourceView {
            id: self.id,
            kind,
            workspace_id: self.workspace_id,
            project_id: self.project_id,
            name: self.name,
            version: self.version.unsigned_abs(),
            archived: self.archived,
            created_at: time(self.created_micros),
            updated_at: time(self.updated_micros),
            spec,
        })
    }
}

/// Takes out of a spec what only sign-in may see.
pub(crate) fn hide_secrets(kind: Kind, spec: &mut Value) {
    if kind == Kind::ApiKey
        && let Some(members) = spec.as_object_mut()
    {
        members.shift_remove("secret_hash");
    }
}

#[async_trait]
impl ResourceQueries for Projections {
    async fn list(
        &self,
        workspace_id: Option<WorkspaceId>,
        filter: ResourceFilter,
        page: PageRequest,
    ) -> Result<Page<ResourceView>, Rejection> {
        if !(1..=PAGE_ROWS).contains(&page.limit) {
            return Err(refusal::limit(PAGE_ROWS));
        }
        let workspace = workspace_id.map(|id| id.to_string());
        let bound_to = fingerprint(workspace.as_deref().unwrap_or("all"), &filter);
        let after = page.cursor.as_deref().map(|text| After::read(text, &bound_to)).transpose()?;
        self.wait_for(&self.resources, page.min_position).await?;
        let sql = format!(
            "select {COLUMNS} from resources where kind = $1 \
             and ($2 is null or workspace_id = $2) and ($3 is null or project_id = $3) \
             and ($4 is null or name = $4) and (archived = 0 or $5) \
             and ($6 is null or (created_micros, id) < ($6, $7)) \
             order by created_micros desc, id desc limit $8"
        );
        let mut rows: Vec<Row> = sqlx::query_as(&sql)
            .bind(filter.kind.as_str())
            .bind(workspace)
            .bind(filter.project_id)
            .bind(filter.name)
            .bind(filter.archived)
            .bind(after.as_ref().map(|after| after.micros))
            .bind(after.map(|after| after.id))
            .bind(i64::from(page.limit) + 1)
            .fetch_all(self.store.readers())
            .await
            .map_err(refusal::storage)?;
        let next_cursor = cut(&mut rows, page.limit, &bound_to, |row| After {
            micros: row.created_micros,
            id: row.id.clone(),
        });
        let items = rows.into_iter().map(|row| row.view(false)).collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor })
    }

    async fn get(
        &self,
        workspace_id: Option<WorkspaceId>,
        kind: Kind,
        id: &str,
        min_position: Option<u64>,
    ) -> Result<ResourceView, Rejection> {
        self.wait_for(&self.resources, min_position).await?;
        let sql = format!(
            "select {COLUMNS} from resources where kind = $1 and id = $2 \
             and ($3 is null or workspace_id = $3)"
        );
        let row: Option<Row> = sqlx::query_as(&sql)
            .bind(kind.as_str())
            .bind(id)
            .bind(workspace_id.map(|id| id.to_string()))
            .fetch_optional(self.store.readers())
            .await
            .map_err(refusal::storage)?;
        let row = row.ok_or_else(|| refusal::not_found(kind.as_str(), id))?;
        row.view(workspace_id.is_none())
    }
}
