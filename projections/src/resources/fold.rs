//! The fold of resources: a batch becomes one change per resource, and the changes two statements.

use std::collections::HashMap;

use chassis::journal::RecordedEvent;
use domain::codec;
use domain::resource::{Event, Spec};
use serde::Serialize;

use crate::payload::Blobs;
use crate::projection::FoldError;
use crate::store::dialect::Dialect;
use crate::store::sql::{Session, sql};

/// What a batch changes.
#[derive(Default)]
pub(super) struct Changes<'a> {
    resources: Vec<Change<'a>>,
    by_id: HashMap<(&'a str, &'a str), usize>,
}

/// What a batch changes of one resource; the names are those of the statements below.
#[derive(Serialize)]
struct Change<'a> {
    kind: &'a str,
    id: &'a str,
    workspace_id: &'a str,
    /// What its newest revision in the batch says, if there is one.
    #[serde(flatten)]
    revised: Option<Revised>,
    version: u64,
    archived: u8,
    /// When it was made, should it be new.
    created_micros: i64,
    updated_micros: i64,
    #[serde(skip)]
    position: u64,
}

#[derive(Serialize)]
struct Revised {
    project_id: Option<String>,
    name: String,
    spec: String,
}

pub(super) fn fold<'a>(
    events: &[&'a RecordedEvent],
    blobs: &Blobs,
) -> Result<Changes<'a>, FoldError> {
    let mut changes = Changes::default();
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
        let revised = event.revision().map(|(_, spec)| Revised::of(spec)).transpose();
        changes.take(recorded, revised.map_err(|error| unfit(&error))?);
    }
    Ok(changes)
}

impl<'a> Changes<'a> {
    fn take(&mut self, recorded: &'a RecordedEvent, revised: Option<Revised>) {
        let key: (&'a str, &'a str) = (&recorded.aggregate_type, &recorded.aggregate_id);
        let micros = recorded.recorded_at.timestamp_micros();
        let at = *self.by_id.entry(key).or_insert_with(|| {
            self.resources.push(Change {
                kind: key.0,
                id: key.1,
                workspace_id: &recorded.workspace_id,
                revised: None,
                version: 0,
                archived: 0,
                created_micros: micros,
                updated_micros: micros,
                position: 0,
            });
            self.resources.len() - 1
        });
        let change = &mut self.resources[at];
        change.version = recorded.sequence;
        change.position = recorded.position;
        change.updated_micros = micros;
        change.archived = u8::from(revised.is_none());
        if revised.is_some() {
            change.revised = revised;
        }
    }

    /// Writes the changes. The caller owns the transaction.
    pub(super) async fn write(self, session: &mut Session<'_>) -> Result<(), FoldError> {
        let position = self.resources.iter().map(|change| change.position).max().unwrap_or(0);
        let (revised, archived): (Vec<_>, Vec<_>) =
            self.resources.into_iter().partition(|change| change.revised.is_some());
        for (changes, statement) in
            [(revised, upsert(session.dialect())), (archived, archive(session.dialect()))]
        {
            if changes.is_empty() {
                continue;
            }
            let json = serde_json::to_string(&changes)
                .map_err(|error| FoldError::Event { position, reason: error.to_string() })?;
            session.execute(sql(statement).bind(json)).await?;
        }
        Ok(())
    }
}

impl Revised {
    fn of(spec: &Spec) -> Result<Self, serde_json::Error> {
        let (name, project_id) = name_and_project(spec);
        Ok(Self { project_id, name, spec: bare(spec)? })
    }
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

fn upsert(dialect: Dialect) -> String {
    // Without a condition, SQLite would take the conflict's `on` for a join's.
    format!(
        "insert into resources (kind, id, workspace_id, project_id, name, version, archived, \
            created_micros, updated_micros, spec) \
        select change.value ->> 'kind', change.value ->> 'id', change.value ->> 'workspace_id', \
            change.value ->> 'project_id', change.value ->> 'name', \
            cast(change.value ->> 'version' as bigint), \
            cast(change.value ->> 'archived' as bigint), \
            cast(change.value ->> 'created_micros' as bigint), \
            cast(change.value ->> 'updated_micros' as bigint), change.value ->> 'spec' \
        from {} as change where true \
        on conflict (kind, id) do update set project_id = excluded.project_id, \
            name = excluded.name, version = excluded.version, archived = excluded.archived, \
            updated_micros = excluded.updated_micros, spec = excluded.spec",
        dialect.each("$1")
    )
}

fn archive(dialect: Dialect) -> String {
    format!(
        "update resources set archived = 1, \
            version = cast(change.value ->> 'version' as bigint), \
            updated_micros = cast(change.value ->> 'updated_micros' as bigint) \
        from {} as change \
        where resources.kind = change.value ->> 'kind' \
            and resources.id = change.value ->> 'id'",
        dialect.each("$1")
    )
}
