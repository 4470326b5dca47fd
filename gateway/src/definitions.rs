//! Workflow definitions: publish, check, and the schema of the document.

use axum::http::StatusCode;
use axum::response::Response;
use domain::definition::content_hash;
use domain::definition::schema::definition_schema;
use domain::definition::{Definition, parse};
use domain::ids::ProjectId;
use domain::resource::{DefinitionSpec, Spec};
use protocol::comparison::REHEARSED_RUNS;
use protocol::{Command, Compare, ComparedTo};
use serde::Serialize;
use serde_json::json;

use crate::call::{Call, answer, located, tagged};
use crate::headers;
use crate::json;
use crate::problem::Problem;

const MEDIA: [&str; 4] =
    ["application/json", "application/yaml", "text/yaml", "application/x-yaml"];

/// What publishing answers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Published {
    /// `wfd_…`.
    id: String,
    name: String,
    /// The version with this content: a new one, or the one that there was.
    version: u64,
    /// SHA-256 of the canonical definition, hexadecimal.
    hash: String,
    /// The journal position; pass it on as `min_position`.
    position: u64,
    /// Whether this call made the version.
    created: bool,
}

/// The source in the body: YAML, of which JSON is a part.
fn source(call: &Call) -> Result<&[u8], Problem> {
    let media = headers::expect_media(&call.parts.headers, &MEDIA)?;
    if media == MEDIA[0] {
        json::check(&call.body)?;
    }
    let text = std::str::from_utf8(&call.body).map_err(|error| {
        let detail = format!("the definition is not utf-8 at byte {}", error.valid_up_to());
        Problem::new(StatusCode::BAD_REQUEST, "invalid_body", detail)
    })?;
    if let Some(at) = text.find('\0') {
        let detail = format!("the definition holds the character \\u0000 at byte {at}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "nul_character", detail));
    }
    Ok(text.as_bytes())
}

/// The project that a request names, or the workspace's usual one.
pub(crate) fn project(call: &Call, named: Option<ProjectId>) -> Result<ProjectId, Problem> {
    let workspace = call.caller()?.workspace_id;
    Ok(named.unwrap_or_else(|| (call.edge.gateway.config.default_project)(workspace)))
}

/// `POST`: publishes a version, or answers the one with the same content.
pub(crate) async fn publish(call: Call) -> Result<Response, Problem> {
    let project_id = project(&call, call.asked_as("project_id")?)?;
    let definition = parse::read(source(&call)?).map_err(|found| Problem::definition(found, ""))?;
    check_texts(&definition)?;
    let hash = hash_of(&definition)?;
    let name = definition.name.to_string();
    let spec = DefinitionSpec { project_id, definition, hash: hash.clone() };
    let command = Command::Create(Box::new(Spec::WorkflowDefinition(spec)));
    let receipt = call.execute(command).await?;
    let body = Published {
        id: receipt.id,
        name,
        version: receipt.version,
        hash,
        position: receipt.position,
        created: receipt.created,
    };
    let status = if receipt.created { StatusCode::CREATED } else { StatusCode::OK };
    let response = tagged(answer(status, &body)?, body.version);
    Ok(located(response, &format!("{}/{}", call.route.path, body.id)))
}

/// YAML can write as an escape what JSON from outside is refused for.
fn check_texts(definition: &Definition) -> Result<(), Problem> {
    match serde_json::to_vec(definition) {
        Ok(text) => json::check(&text),
        Err(error) => {
            tracing::error!(%error, "definition could not be written");
            Err(Problem::internal())
        }
    }
}

fn hash_of(definition: &Definition) -> Result<String, Problem> {
    content_hash(definition).map_err(|error| {
        tracing::error!(%error, "definition could not be hashed");
        Problem::internal()
    })
}

/// `POST /validate`: 200 with all problems, whether there are any or not.
pub(crate) async fn validate(call: Call) -> Result<Response, Problem> {
    let problems = match parse::read(source(&call)?) {
        Ok(definition) => {
            check_texts(&definition)?;
            Vec::new()
        }
        Err(problems) => problems,
    };
    answer(StatusCode::OK, &json!({"valid": problems.is_empty(), "problems": problems}))
}

/// `GET /{id}/compare`.
pub(crate) async fn compare(call: Call) -> Result<Response, Problem> {
    let to = ComparedTo::Version(version(&call, "to")?);
    compared(&call, to).await
}

/// `POST /{id}/compare`: with a definition that isn't published.
pub(crate) async fn compare_unpublished(call: Call) -> Result<Response, Problem> {
    let definition = parse::read(source(&call)?).map_err(|found| Problem::definition(found, ""))?;
    check_texts(&definition)?;
    compared(&call, ComparedTo::Definition(Box::new(definition))).await
}

async fn compared(call: &Call, to: ComparedTo) -> Result<Response, Problem> {
    let from = version(call, "from")?;
    let runs = call.asked_as("runs")?.unwrap_or(50);
    if runs > REHEARSED_RUNS {
        return Err(Problem::parameter("runs", format_args!("use 0 to {REHEARSED_RUNS}")));
    }
    let min_position = call.min_position()?;
    let asked = Compare { definition_id: call.id()?, from, to, runs, min_position };
    let workspace = call.caller()?.workspace_id;
    let comparison = call.edge.gateway.runs.compare(workspace, asked).await?;
    answer(StatusCode::OK, &comparison)
}

/// A version of a definition, which has to be named.
fn version(call: &Call, name: &str) -> Result<u64, Problem> {
    let version = call.asked_as(name)?.filter(|version| *version > 0);
    version.ok_or_else(|| Problem::parameter(name, "name a version, counted from 1"))
}

/// `GET /schema`: the JSON Schema of the document.
pub(crate) async fn schema(_: Call) -> Result<Response, Problem> {
    answer(StatusCode::OK, definition_schema())
}
