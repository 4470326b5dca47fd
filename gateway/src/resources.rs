//! Resources: create, list, read, revise, archive, and their history.

use axum::http::StatusCode;
use axum::response::Response;
use domain::ids::WorkspaceId;
use domain::resource::{Kind, Spec};
use protocol::{Command, CommandEnvelope, EventFilter, Receipt, ResourceFilter, ResourceView};
use serde_json::Value;

use crate::call::{Call, answer, done, located, tagged};
use crate::headers;
use crate::json;
use crate::problem::Problem;
use crate::runs::Nothing;

/// The kind that the route is for.
fn kind_of(call: &Call) -> Result<Kind, Problem> {
    call.route.kind.ok_or_else(Problem::internal)
}

/// Whose resources are seen: everybody's workspaces only by the platform's own people.
fn scope_of(call: &Call, kind: Kind) -> Result<Option<WorkspaceId>, Problem> {
    let caller = call.caller()?;
    Ok((kind != Kind::Workspace || !caller.platform).then_some(caller.workspace_id))
}

/// Refuses other workspaces as if they weren't there.
fn own_workspace(call: &Call, kind: Kind) -> Result<(), Problem> {
    let caller = call.caller()?;
    if kind != Kind::Workspace || caller.platform {
        return Ok(());
    }
    let id: WorkspaceId = call.id()?;
    if id == caller.workspace_id {
        return Ok(());
    }
    Err(Problem::not_found(format!("there is no workspace {id}")))
}

/// The command's surroundings; a change of a workspace happens in that workspace.
fn envelope(call: &Call, kind: Kind, command: Command) -> Result<CommandEnvelope, Problem> {
    let mut envelope = call.envelope(command)?;
    if kind == Kind::Workspace && !call.segment("id").is_empty() {
        envelope.workspace_id = call.id()?;
    }
    Ok(envelope)
}

async fn execute(call: &Call, kind: Kind, command: Command) -> Result<Receipt, Problem> {
    let envelope = envelope(call, kind, command)?;
    Ok(call.edge.gateway.commands.execute(envelope).await?)
}

fn spec(call: &Call, kind: Kind) -> Result<Spec, Problem> {
    Ok(match kind {
        Kind::Workspace => Spec::Workspace(call.json()?),
        Kind::Project => Spec::Project(call.json()?),
        Kind::Workflow => Spec::Workflow(call.json()?),
        Kind::Action => Spec::Action(call.json()?),
        Kind::PromptSpec => Spec::PromptSpec(call.json()?),
        Kind::ModelProfile => Spec::ModelProfile(call.json()?),
        Kind::WorkflowDefinition | Kind::ApiKey => return Err(Problem::internal()),
    })
}

/// `POST` of the kinds whose body is their spec.
pub(crate) async fn create(call: Call) -> Result<Response, Problem> {
    let kind = kind_of(&call)?;
    if kind == Kind::Workspace && !call.caller()?.platform {
        let detail = "api keys belong to one workspace and can't make others";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    let command = Command::Create(Box::new(spec(&call, kind)?));
    let receipt = execute(&call, kind, command).await?;
    written(&call, &receipt)
}

/// The receipt of a write: 201 with its place where something new was made.
pub(crate) fn written(call: &Call, receipt: &Receipt) -> Result<Response, Problem> {
    let status = if receipt.created { StatusCode::CREATED } else { StatusCode::OK };
    let response = tagged(answer(status, &receipt)?, receipt.version);
    if !receipt.created {
        return Ok(response);
    }
    Ok(located(response, &format!("{}/{}", call.route.path, receipt.id)))
}

/// `GET` of the list.
pub(crate) async fn list(call: Call) -> Result<Response, Problem> {
    let kind = kind_of(&call)?;
    let filter = ResourceFilter {
        kind,
        project_id: call.asked("project_id").map(str::to_owned),
        name: call.asked("name").map(str::to_owned),
        archived: call.asked_as("archived")?.unwrap_or(false),
    };
    let workspace = scope_of(&call, kind)?;
    let mut page = call.edge.gateway.resources.list(workspace, filter, call.page()?).await?;
    page.items.iter_mut().for_each(conceal);
    answer(StatusCode::OK, &page)
}

/// `GET` of one.
pub(crate) async fn get(call: Call) -> Result<Response, Problem> {
    let kind = kind_of(&call)?;
    own_workspace(&call, kind)?;
    let id = call.resource_id(kind)?;
    let position = call.min_position()?;
    let workspace = scope_of(&call, kind)?;
    let mut view = call.edge.gateway.resources.get(workspace, kind, id, position).await?;
    conceal(&mut view);
    Ok(tagged(answer(StatusCode::OK, &view)?, view.version))
}

/// A key's hash is of no use to anybody but the sign-in.
fn conceal(view: &mut ResourceView) {
    if let (Kind::ApiKey, Value::Object(spec)) = (view.kind, &mut view.spec) {
        spec.shift_remove("secret_hash");
    }
}

/// `PATCH`: a JSON merge patch over the spec.
pub(crate) async fn revise(call: Call) -> Result<Response, Problem> {
    let kind = kind_of(&call)?;
    own_workspace(&call, kind)?;
    let id = call.resource_id(kind)?.to_owned();
    let media = ["application/merge-patch+json", "application/json"];
    headers::expect_media(&call.parts.headers, &media)?;
    let patch: serde_json::Map<String, Value> = json::decode(&call.body)?;
    let fixed: &[&str] = match kind {
        Kind::ApiKey => &["secret_hash", "workspace_id"],
        _ => &[],
    };
    if let Some(key) = fixed.iter().find(|key| patch.contains_key(**key)) {
        let detail = format!("{key} can't be changed; make a new api key");
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(Problem::new(status, "invalid_body", detail).at(format!("/{key}")));
    }
    let command = Command::Revise { kind, id, patch: Value::Object(patch) };
    let receipt = execute(&call, kind, command).await?;
    done(&receipt)
}

/// `DELETE`: archives.
pub(crate) async fn archive(call: Call) -> Result<Response, Problem> {
    let kind = kind_of(&call)?;
    own_workspace(&call, kind)?;
    let id = call.resource_id(kind)?.to_owned();
    let receipt = execute(&call, kind, Command::Archive { kind, id }).await?;
    done(&receipt)
}

/// `POST /workflows/{id}/pause`.
pub(crate) async fn pause_workflow(call: Call) -> Result<Response, Problem> {
    set_paused(call, true).await
}

/// `POST /workflows/{id}/resume`.
pub(crate) async fn resume_workflow(call: Call) -> Result<Response, Problem> {
    set_paused(call, false).await
}

async fn set_paused(call: Call, paused: bool) -> Result<Response, Problem> {
    let kind = kind_of(&call)?;
    own_workspace(&call, kind)?;
    let id = call.resource_id(kind)?.to_owned();
    let Nothing {} = call.optional()?;
    let patch = serde_json::json!({"paused": paused});
    let receipt = execute(&call, kind, Command::Revise { kind, id, patch }).await?;
    done(&receipt)
}

/// `GET` of the history: the aggregate's events, from the first one.
pub(crate) async fn history(call: Call) -> Result<Response, Problem> {
    let kind = kind_of(&call)?;
    own_workspace(&call, kind)?;
    let id = call.resource_id(kind)?;
    let filter = EventFilter {
        workspace_id: scope_of(&call, kind)?.map(|workspace| workspace.to_string()),
        aggregate_type: Some(kind.as_str().to_owned()),
        aggregate_id: Some(id.to_owned()),
        ..EventFilter::default()
    };
    let after = call.asked_as("after")?;
    let limit = call.limit(100, 1_000)?;
    let page = call.edge.gateway.events.page(filter, after, limit).await?;
    if page.items.is_empty() && after.is_none() {
        return Err(Problem::not_found(format!("there is no {} {id}", kind.as_str())));
    }
    answer(StatusCode::OK, &page)
}
