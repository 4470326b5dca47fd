//! The OpenAPI 3.1 document: paths from the table of routes, schemas from the types.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::route::{Body, Permission, Route};
use crate::schema;
use crate::table::routes;

#[derive(OpenApi)]
#[openapi(components(schemas(
    protocol::RunView,
    protocol::ForkPlan,
    protocol::RunState,
    protocol::RunArchived,
    protocol::RunHeld,
    protocol::ArchiveView,
    protocol::RunDropped,
    protocol::RunError,
    protocol::view::DefinitionRef,
    protocol::TimelineEntry,
    protocol::Verification,
    protocol::Comparison,
    protocol::DefinitionChange,
    protocol::RehearsalView,
    protocol::PartedRun,
    protocol::NotRehearsed,
    protocol::view::HistoryDifference,
    protocol::Explanation,
    protocol::Fact,
    protocol::TokenExplanation,
    protocol::Came,
    protocol::Left,
    protocol::Looked,
    protocol::LedTo,
    protocol::JoinExplanation,
    protocol::Way,
    protocol::RunDiff,
    protocol::ExperimentReport,
    protocol::ExperimentTotals,
    protocol::ExperimentRun,
    protocol::ExperimentEnd,
    protocol::ExperimentParting,
    protocol::ExperimentCalls,
    protocol::ExperimentUsage,
    protocol::ExperimentProgress,
    protocol::ExperimentFork,
    protocol::ExperimentRefusal,
    protocol::ExperimentPlan,
    protocol::PlannedFork,
    protocol::DiffSide,
    protocol::Divergence,
    protocol::NodeDiff,
    protocol::NodeCounts,
    protocol::Waiting,
    protocol::view::CompensationView,
    protocol::view::UndoFailureView,
    protocol::view::WaitingPause,
    protocol::view::WaitingItem,
    protocol::view::WaitingGate,
    protocol::view::WaitingMutex,
    protocol::view::WaitingBranches,
    protocol::GateView,
    protocol::GateAnswerView,
    protocol::MetricAnswer,
    protocol::MetricSeries,
    protocol::MetricPoint,
    protocol::MetricValues,
    protocol::MetricList,
    protocol::MetricInfo,
    protocol::EventEnvelope,
    protocol::EphemeralEnvelope,
    protocol::LlmDelta,
    protocol::AuditEntry,
    protocol::LogRecord,
    protocol::Origin,
    protocol::AuditHeads,
    protocol::AuditHead,
    protocol::RunTrigger,
    protocol::TriggerView,
    protocol::TriggerError,
    protocol::MissedTimes,
    crate::health::Readiness,
    crate::health::Dependency,
    crate::definitions::Published,
)))]
struct Types;

/// The document of this version of the API.
pub fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(build);
    &DOCUMENT
}

fn build() -> Value {
    let types = serde_json::to_value(Types::openapi()).unwrap_or_default();
    let derived = types.pointer("/components/schemas").and_then(Value::as_object);
    let mut schemas = derived.cloned().unwrap_or_default();
    schemas.extend(schema::written());
    if let Some(status) =
        schemas.get_mut("RunView").and_then(|run| run.pointer_mut("/properties/status"))
    {
        status["description"] = LISTED_STATUS.into();
    }
    schemas.sort_keys();
    let mut paths = Map::new();
    for route in routes() {
        let place = paths.entry(route.path).or_insert_with(|| json!({}));
        place[route.verb.method().as_str().to_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Wonder",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": ABOUT,
        },
        "servers": [{"url": "/"}],
        "security": [{"api_key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"api_key": {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key, `wonder_…`. In dev mode on loopback none is needed.",
            }},
        },
    })
}

const LISTED_STATUS: &str = "`queued`, `running`, `waiting` (nothing of it is on a worker) or \
    `paused` until the run has ended, then `completed`, `failed`, `cancelled` or `timed_out`.";

const ABOUT: &str = "Runs AI workflows as event-sourced aggregates. Times are RFC 3339 in UTC, \
    durations texts like `90s`, ids a prefix and 26 characters. JSON is refused where it is \
    nested deeper than 64, holds `\\u0000`, half a surrogate pair, a key twice, or an integer \
    beyond ±9007199254740991, or where a body is no object. Errors are problem+json (RFC 9457); `type` leads to a page.";

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "tags": [tag(route)],
        "summary": route.summary,
        "description": described(route),
        "parameters": parameters(route),
        "responses": responses(route),
    });
    if let Some(body) = request_body(route) {
        operation["requestBody"] = body;
    }
    if route.permission == Permission::Public {
        operation["security"] = json!([]);
    }
    operation
}

fn described(route: &Route) -> String {
    match route.permission.scope() {
        Some(scope) => {
            format!("{} Needs the scope `{}`.", route.about, scope.as_str())
        }
        None => route.about.to_owned(),
    }
}

fn tag(route: &Route) -> &str {
    let rest = route.path.strip_prefix("/api/v1/");
    match rest {
        Some(_) if route.path.ends_with("/runs") => "runs",
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => "operations",
    }
}

fn operation_id(route: &Route) -> String {
    let short = route.path.strip_prefix("/api/v1").unwrap_or(route.path);
    // What is there without the prefix too is called in full.
    let is_other = |other: &Route| other.path == short && other.path != route.path;
    let path = if routes().any(is_other) { route.path } else { short };
    let words = path.split(['/', '-', '.']).filter(|word| !word.is_empty());
    let words = words.map(|word| match word.strip_prefix('{') {
        Some(name) => format!("by_{}", name.trim_end_matches('}')),
        None => word.to_owned(),
    });
    let verb = route.verb.method().as_str().to_lowercase();
    std::iter::once(verb).chain(words).collect::<Vec<_>>().join("_")
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut parameters = Vec::new();
    for segment in route.path.split('/') {
        if let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            parameters.push(json!({
                "name": name, "in": "path", "required": true, "schema": {"type": "string"},
            }));
        }
    }
    for param in route.params() {
        let schema = match param.kind {
            "date-time" => json!({"type": "string", "format": "date-time"}),
            kind => json!({"type": kind}),
        };
        parameters.push(json!({
            "name": param.name, "in": "query", "description": param.about, "schema": schema,
        }));
    }
    for (name, about) in request_headers(route) {
        parameters.push(json!({
            "name": name, "in": "header", "description": about, "schema": {"type": "string"},
        }));
    }
    parameters
}

fn request_headers(route: &Route) -> Vec<(&'static str, &'static str)> {
    use crate::route::Verb;
    let mut headers = Vec::new();
    let writes =
        matches!(route.permission, Permission::Run | Permission::Write | Permission::Admin)
            && route.verb != Verb::Get;
    if writes && route.answer != "NewApiKeySecret" {
        headers.push((
            "Idempotency-Key",
            "1 to 255 visible characters: the same key gives the same answer for 24 hours, with \
             another request 422.",
        ));
    }
    if writes && matches!(route.verb, Verb::Patch | Verb::Delete) {
        headers.push(("If-Match", "The `ETag` that was read, like `\"17\"`; 412 if it is old."));
    }
    if route.waits {
        headers.push(("Prefer", "`wait=N`: wait for the run's end, 1 to 60 seconds."));
    }
    if route.streams {
        headers.push(("Last-Event-ID", "The cursor of the last event that a stream gave."));
    }
    if route.socket {
        headers.push((
            "Sec-WebSocket-Protocol",
            "`wonder.v1`, and where the key can't come as `Authorization`, `bearer.<key>`.",
        ));
    }
    headers
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn request_body(route: &Route) -> Option<Value> {
    let limit = format!("At most {} bytes.", route.body.limit());
    let (required, content) = match route.body {
        Body::None => return None,
        Body::Json { schema, .. } => (true, json_content(schema)),
        Body::Optional { schema, .. } => (false, json_content(schema)),
        Body::Signed { .. } => {
            let headers = "JSON, signed byte for byte.";
            (true, json!({"application/json": {"schema": {"description": headers}}}))
        }
        Body::Definition { .. } => {
            let text = json!({"schema": {"type": "string"}});
            let json = json!({"schema": reference("Document")});
            let content = json!({
                "application/yaml": text, "text/yaml": text, "application/json": json,
            });
            (true, content)
        }
    };
    Some(json!({"required": required, "description": limit, "content": content}))
}

fn json_content(schema: &str) -> Value {
    let media = match schema {
        "MergePatch" => "application/merge-patch+json",
        _ => "application/json",
    };
    let mut content = json!({media: {"schema": reference(schema)}});
    if let Some(example) = schema::example(schema) {
        content[media]["example"] = example;
    }
    content
}

fn responses(route: &Route) -> Value {
    let mut answer = json!({"description": route.summary});
    match (route.answer, route.path) {
        _ if route.socket => {}
        ("", "/docs" | "/docs/errors/{code}") => answer["content"] = json!({"text/html": {}}),
        ("", "/metrics") => answer["content"] = json!({"text/plain": {}}),
        ("", _) => answer["content"] = json!({"application/json": {}}),
        (schema, _) => {
            answer["content"] = json!({"application/json": {"schema": reference(schema)}});
        }
    }
    if let Some(media_type) = route.download {
        answer["content"] = json!({media_type: {"schema": {"type": "string"}}});
    }
    if route.streams {
        answer["content"]["text/event-stream"] = json!({"schema": {"type": "string"}});
    }
    let problem = |about: &str| {
        json!({
            "description": about,
            "content": {"application/problem+json": {"schema": reference("Problem")}},
        })
    };
    let mut responses = json!({});
    responses[route.status.to_string()] = answer;
    if route.status == 201 && route.answer != "RunStarted" {
        responses["200"] =
            json!({"description": "It was there already, or the answer is repeated."});
    }
    if route.socket {
        responses["400"] = problem("A parameter or header that is no good.");
        responses["404"] = problem("No such run, or not for this caller.");
        responses["426"] = problem("Not a WebSocket's first request.");
    }
    if route.path.contains('{') {
        responses["404"] = problem("No such thing, or not for this caller.");
    }
    if route.body != Body::None {
        responses["400"] = problem("Malformed: not JSON, or over a limit of its shape.");
        responses["413"] = problem("Larger than the limit.");
        responses["415"] = problem("Another content type than those that are taken.");
        responses["422"] = problem("Well-formed, but not acceptable; `pointer` says where.");
    }
    if route.permission != Permission::Public {
        responses["401"] = problem("Not signed in.");
        responses["403"] = problem("Signed in, but without the permission.");
        responses["429"] = problem("Too much at once; try again after `Retry-After` seconds.");
        responses["503"] = problem("A dependency is away; try again after `Retry-After` seconds.");
    }
    responses
}
