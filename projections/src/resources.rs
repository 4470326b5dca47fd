//! Resources: one row per resource of any kind, with its newest spec.

use async_trait::async_trait;
use chassis::journal::{Journal, ReadError, RecordedEvent};
use chrono::{DateTime, Utc};
use domain::codec::{self, DecodeError};
use domain::ids::{WorkflowId, WorkspaceId};
use domain::resource::{self, Kind, Spec};
use protocol::{
    Page, PageRequest, Rejection, ResourceFilter, ResourceQueries, ResourceView, TriggerView,
};
use serde_json::Value;
use sqlx::FromRow;

use crate::cursor::{After, Asked, Listed};
use crate::histories::Past;
use crate::payload::Blobs;
use crate::projection::{FoldError, Projection};
use crate::runs::time;
use crate::store::sql::{Session, sql};
use crate::{Projections, refusal};

mod fold;

pub(crate) const NAME: &str = "resources";
/// Bytes of a row beside its spec.
const ROW_BYTES: usize = 512;

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

    fn concerns(&self, event: &RecordedEvent) -> bool {
        kind(&event.aggregate_type).is_some()
    }

    async fn apply(
        &self,
        session: &mut Session<'_>,
        journal: &dyn Journal,
        events: &[&RecordedEvent],
    ) -> Result<(), FoldError> {
        let stored = events.iter().map(|event| event.payload.as_ref());
        let blobs = Blobs::fetch(journal, stored).await?;
        fold::fold(events, &blobs)?.write(session).await
    }
}

pub(crate) fn kind(aggregate_type: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == aggregate_type)
}

#[derive(FromRow)]
struct Row {
    kind: String,
    id: String,
    workspace_id: String,
    project_id: Option<String>,
    name: String,
    version: i64,
    archived: i64,
    created_micros: i64,
    updated_micros: i64,
    spec: String,
}

const COLUMNS: &str = "kind, id, workspace_id, project_id, name, version, archived, \
    created_micros, updated_micros, spec";

impl Listed for Row {
    fn place(&self) -> After {
        After { micros: self.created_micros, id: self.id.clone() }
    }

    fn bytes(&self) -> usize {
        self.spec.len() + ROW_BYTES
    }
}

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
            archived: self.archived != 0,
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
        let workspace = workspace_id.map(|id| id.to_string());
        let asked = Asked::read(&page, workspace.as_deref().unwrap_or("all"), &filter)?;
        let seen = self.wait_for(&self.resources, page.min_position).await?;
        let query = sql(format!(
            "select {COLUMNS} from resources where kind = $1 \
             and ($2 is null or workspace_id = $2) and ($3 is null or project_id = $3) \
             and ($4 is null or name = $4) and archived <= $5 \
             and ($6 is null or (created_micros, id) < ($6, $7)) \
             order by created_micros desc, id desc limit $8"
        ))
        .bind(filter.kind.as_str())
        .bind(workspace)
        .bind(filter.project_id)
        .bind(filter.name)
        .bind(i64::from(filter.archived))
        .bind(asked.micros())
        .bind(asked.id())
        .bind(asked.rows());
        asked.page(seen.rows(query).await?, |row: Row| row.view(false))
    }

    async fn get(
        &self,
        workspace_id: Option<WorkspaceId>,
        kind: Kind,
        id: &str,
        min_position: Option<u64>,
    ) -> Result<ResourceView, Rejection> {
        let seen = self.wait_for(&self.resources, min_position).await?;
        let query = sql(format!(
            "select {COLUMNS} from resources where kind = $1 and id = $2 \
             and ($3 is null or workspace_id = $3)"
        ))
        .bind(kind.as_str())
        .bind(id)
        .bind(workspace_id.map(|id| id.to_string()));
        let row: Option<Row> = seen.row(query).await?;
        let row = row.ok_or_else(|| refusal::not_found(kind.as_str(), id))?;
        row.view(workspace_id.is_none())
    }

    async fn triggers(
        &self,
        workspace_id: WorkspaceId,
        workflow_id: WorkflowId,
        now: DateTime<Utc>,
        min_position: Option<u64>,
    ) -> Result<Vec<TriggerView>, Rejection> {
        self.triggers_of(workspace_id, workflow_id, now, min_position).await
    }
}

/// The event that brought a version of a resource; `None` where there is no such one.
pub(crate) async fn revision_at(
    past: &(impl Past + ?Sized),
    kind: Kind,
    id: &str,
    version: u64,
) -> Result<Option<RecordedEvent>, ReadError> {
    // Revisions are numbered as the events that bring them.
    let Some(before) = version.checked_sub(1) else { return Ok(None) };
    let found = past.load(kind.as_str(), id, before, 1).await?.pop();
    Ok(found.filter(|recorded| recorded.sequence == version))
}

/// A version of a resource as it was recorded; `None` where there is no such one.
pub(crate) async fn spec_at(
    past: &(impl Past + ?Sized),
    kind: Kind,
    id: &str,
    version: u64,
) -> Result<Option<Result<Spec, DecodeError>>, ReadError> {
    let Some(recorded) = revision_at(past, kind, id, version).await? else { return Ok(None) };
    let blobs = Blobs::fetch(past, [recorded.payload.as_ref()]).await?;
    let (name, version) = (&recorded.event_type, recorded.event_version);
    let event = codec::decode(name, version, &recorded.payload, &|hash| blobs.get(hash));
    Ok(match event {
        Ok(event) => resource::Event::revision(&event).map(|(_, spec)| Ok(spec.clone())),
        Err(error) => Some(Err(error)),
    })
}
