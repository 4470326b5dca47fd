//! Which events are somebody's acts, and what they say of them.

use chassis::journal::{Journal, RecordedEvent};
use domain::codec;
use domain::definition::changes::differences;
use domain::ids::{EventId, RunId};
use domain::resource::Kind;
use domain::{access, experiment, hold, retention, trigger};
use protocol::event::{SecretsUsed, is_shared, tells_of_secrets};
use protocol::{AuditResult, DefinitionChange, Origin};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Row;
use crate::compare::{shortened, view_of_change};
use crate::projection::FoldError;
use crate::resources;
use crate::runs::AGGREGATE;

/// Changes that a row names; the others are counted.
const CHANGES: usize = 50;
/// The actor of what a run's coordinator does by itself.
const ENGINE: &str = "coordinator";

/// What an attempt comes to.
const OUTCOMES: [&str; 4] = ["task_succeeded", "task_failed", "undo_succeeded", "undo_failed"];

/// What stands beside an event, as far as it counts here.
#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    actor: Option<String>,
    #[serde(default)]
    command_id: Option<String>,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(default)]
    origin: Option<Origin>,
    /// The fork was asked for as a retry.
    #[serde(default)]
    retry: bool,
    #[serde(default)]
    secrets: Vec<SecretsUsed>,
}

/// What somebody did.
struct Act {
    /// A verb, or a kind of thing, a dot, and a verb.
    action: String,
    result: AuditResult,
    resource_type: &'static str,
    resource_id: String,
    details: Map<String, Value>,
    changes: Vec<DefinitionChange>,
    changes_left_out: u64,
}

impl Act {
    fn new(resource_type: &'static str, resource_id: &str, verb: &str) -> Self {
        Self {
            action: format!("{resource_type}.{verb}"),
            result: AuditResult::Done,
            resource_type,
            resource_id: resource_id.to_owned(),
            details: Map::new(),
            changes: Vec::new(),
            changes_left_out: 0,
        }
    }

    /// Says more, where there is something.
    fn with(mut self, name: &str, value: &Value) -> Self {
        if !value.is_null() {
            self.details.insert(name.to_owned(), shortened(value.clone()));
        }
        self
    }

    /// Says more, as it stands in the payload.
    fn with_each(self, payload: &Value, names: &[&str]) -> Self {
        names.iter().fold(self, |act, name| act.with(name, &payload[*name]))
    }
}

/// Whether an event may record somebody's act.
pub(super) fn may_be(event: &RecordedEvent) -> bool {
    match &*event.aggregate_type {
        AGGREGATE => {
            matches!(
                &*event.event_type,
                "run_started"
                    | "run_forked"
                    | "run_paused"
                    | "run_resumed"
                    | "run_cancelled"
                    | "compensation_started"
                    | "signal_received"
                    | "gate_answered"
            ) || OUTCOMES.contains(&&*event.event_type) && tells_of_secrets(&event.metadata)
        }
        trigger::AGGREGATE => &*event.event_type == "trigger_failed",
        access::AGGREGATE | hold::AGGREGATE => true,
        experiment::AGGREGATE => matches!(
            &*event.event_type,
            "experiment_started" | "experiment_changed" | "experiment_stopped"
        ),
        retention::AGGREGATE => &*event.event_type == "run_archived",
        other => resources::kind(other).is_some(),
    }
}

/// The row of an event, where it records somebody's act.
pub(super) async fn row(
    journal: &dyn Journal,
    event: &RecordedEvent,
) -> Result<Option<Row>, FoldError> {
    let metadata: Metadata = serde_json::from_slice(&event.metadata).unwrap_or_default();
    let is_outcome = OUTCOMES.contains(&&*event.event_type);
    let is_engines = metadata.actor.as_deref() == Some(ENGINE) && !is_outcome;
    if is_engines || is_shared(&event.metadata, event.sequence) {
        return Ok(None);
    }
    let payload = shown(event)?;
    let act = match &*event.aggregate_type {
        AGGREGATE => of_run(event, &payload, &metadata),
        trigger::AGGREGATE => Some(of_trigger(event, &payload)),
        access::AGGREGATE => Some(of_access(event, &payload)),
        retention::AGGREGATE => Some(of_retention(event, &payload)),
        hold::AGGREGATE => Some(of_hold(event, &payload)),
        experiment::AGGREGATE => Some(of_experiment(event, &payload)),
        other => match resources::kind(other) {
            Some(kind) => Some(of_resource(journal, event, kind, &payload).await?),
            None => None,
        },
    };
    let Some(act) = act else { return Ok(None) };
    let text = |value: Value| Some(value.to_string());
    let is_runs =
        [AGGREGATE, retention::AGGREGATE, hold::AGGREGATE].contains(&&*event.aggregate_type);
    let run_id = is_runs.then(|| event.aggregate_id.to_string()).or_else(|| run_named(&act));
    Ok(Some(Row {
        id: format!("{:019}", event.position),
        workspace_id: event.workspace_id.to_string(),
        at_micros: event.recorded_at.timestamp_micros(),
        event_id: EventId::new(event.id).to_string(),
        actor: metadata.actor.unwrap_or_else(|| "unknown".to_owned()),
        action: act.action,
        result: act.result.as_str().to_owned(),
        resource_type: act.resource_type.to_owned(),
        resource_id: act.resource_id,
        run_id,
        origin: metadata.origin.and_then(|origin| text(json!(origin))),
        command_id: metadata.command_id,
        trace_id: metadata.traceparent.and_then(|trace| Some(trace.split('-').nth(1)?.to_owned())),
        changes: if act.changes.is_empty() { None } else { text(json!(act.changes)) },
        changes_left_out: act.changes_left_out.cast_signed(),
        details: if act.details.is_empty() { None } else { text(json!(act.details)) },
    }))
}

/// The run that a refusal was about: one of those that are, or a gate of one.
fn run_named(act: &Act) -> Option<String> {
    let id = act.resource_id.split('.').next()?;
    let is_run = act.result == AuditResult::Refused && id.parse::<RunId>().is_ok();
    is_run.then(|| id.to_owned())
}

/// A payload with its references as they are stored: what is large isn't needed here.
fn shown(event: &RecordedEvent) -> Result<Value, FoldError> {
    codec::shown(&event.payload, &|_| None)
        .map_err(|error| FoldError::Event { position: event.position, reason: error.to_string() })
}

fn of_run(event: &RecordedEvent, payload: &Value, metadata: &Metadata) -> Option<Act> {
    let run = |verb| Act::new("run", &event.aggregate_id, verb);
    let is_set = |name: &str| !payload[name].is_null();
    match &*event.event_type {
        "run_started" if is_set("parent") => None,
        "run_started" => {
            let verb = if is_set("rerun_of") { "rerun" } else { "started" };
            let definition = &payload["definition"];
            let name = definition["name"].as_str().unwrap_or_default();
            let named = json!(format!("{name}@{}", definition["version"]));
            let more = ["project_id", "workflow_id", "rerun_of", "trigger"];
            Some(run(verb).with("definition", &named).with_each(payload, &more))
        }
        "run_forked" => {
            let verb = if metadata.retry { "retried" } else { "forked" };
            Some(run(verb).with_each(payload, &["from", "sequence", "adopt"]))
        }
        "run_paused" if is_set("by_parent") || is_set("by_workflow") => None,
        "run_paused" => Some(run("paused").with_each(payload, &["reason"])),
        "run_resumed" => Some(run("resumed")),
        "run_cancelled" if is_set("code") => None,
        "run_cancelled" => Some(run("cancelled").with_each(payload, &["reason"])),
        "compensation_started" if payload["status"] == "cancelled" => {
            let undoing = &payload["total"];
            Some(run("cancelled").with_each(payload, &["reason"]).with("undoing", undoing))
        }
        "signal_received" => {
            Some(run("signalled").with_each(payload, &["name", "number", "dropped"]))
        }
        of_attempt if OUTCOMES.contains(&of_attempt) => {
            let [token, attempt] = ["token", "attempt"].map(|name| payload[name].as_u64());
            let is_its = |used: &&SecretsUsed| {
                (Some(used.token), Some(u64::from(used.attempt))) == (token, attempt)
            };
            let used = metadata.secrets.iter().find(is_its)?;
            let act = Act::new("secret", &used.names.join(","), "used");
            Some(act.with("names", &json!(used.names)).with_each(payload, &["token", "attempt"]))
        }
        "gate_answered" => {
            let gate = format!("{}.{}", event.aggregate_id, payload["token"]);
            let act = Act::new("gate", &gate, "answered");
            Some(act.with_each(payload, &["decision", "comment"]))
        }
        _ => None,
    }
}

fn of_trigger(event: &RecordedEvent, payload: &Value) -> Act {
    let act = Act::new("trigger", &event.aggregate_id, "fired");
    let more = ["workflow_id", "name", "key", "at", "code", "message"];
    Act { result: AuditResult::Failed, ..act.with_each(payload, &more) }
}

fn of_access(event: &RecordedEvent, payload: &Value) -> Act {
    const TIMES: [&str; 3] = ["count", "first_at", "last_at"];
    let text = |name: &str| payload[name].as_str().unwrap_or_default();
    match &*event.event_type {
        "access_refused" => {
            let about = payload["target"].as_str().unwrap_or_else(|| text("route"));
            let act = Act::new("request", about, "refused");
            let act = act.with_each(payload, &["code", "reason", "method", "route", "key"]);
            Act { result: AuditResult::Refused, ..act.with_each(payload, &TIMES) }
        }
        "webhook_secrets_used" => {
            let names = payload["names"].as_array().into_iter().flatten();
            let names: Vec<_> = names.filter_map(Value::as_str).collect();
            let act = Act::new("secret", &names.join(","), "used");
            act.with_each(payload, &["names", "workflow_id", "trigger"]).with_each(payload, &TIMES)
        }
        "accesses_left_out" => {
            let is_secrets = text("of") == "webhook_secrets";
            let (of, verb, result) = match is_secrets {
                true => ("secret", "used", AuditResult::Done),
                false => ("request", "refused", AuditResult::Refused),
            };
            let act = Act::new(of, "others", verb).with("left_out", &payload["of"]);
            Act { result, ..act.with_each(payload, &TIMES) }
        }
        of_audit => {
            let verb = of_audit.strip_prefix("audit_").unwrap_or(of_audit);
            let act = Act::new("audit", &event.workspace_id, verb);
            act.with_each(payload, &["filter", "from", "to", "all_workspaces"])
        }
    }
}

fn of_retention(event: &RecordedEvent, payload: &Value) -> Act {
    let act = Act::new("run", &event.aggregate_id, "archived");
    act.with_each(payload, &["keep", "events", "bytes", "archive"])
}

fn of_hold(event: &RecordedEvent, payload: &Value) -> Act {
    let verb = event.event_type.strip_prefix("run_").unwrap_or(&event.event_type);
    Act::new("run", &event.aggregate_id, verb).with_each(payload, &["reason"])
}

fn of_experiment(event: &RecordedEvent, payload: &Value) -> Act {
    let verb = event.event_type.strip_prefix("experiment_").unwrap_or(&event.event_type);
    let terms = payload.get("terms").unwrap_or(payload);
    let act = Act::new("experiment", &event.aggregate_id, verb);
    let act = act.with_each(payload, &["name", "allow"]).with_each(terms, &["max_cost_micros"]);
    match terms["runs"].as_array() {
        Some(runs) => act.with("runs", &json!(runs.len())),
        None => act,
    }
}

async fn of_resource(
    journal: &dyn Journal,
    event: &RecordedEvent,
    kind: Kind,
    payload: &Value,
) -> Result<Act, FoldError> {
    let spec = spec_of(kind, payload);
    let before = match event.sequence {
        0 | 1 => json!({}),
        sequence => spec_before(journal, event, kind, sequence).await?,
    };
    let (mut changes, mut left_out) = match &*event.event_type {
        "archived" => (Vec::new(), 0),
        _ => differences(&before, &spec),
    };
    left_out += changes.len().saturating_sub(CHANGES) as u64;
    changes.truncate(CHANGES);
    let verb = match (kind, &*changes) {
        (Kind::Workflow, [only]) if event.sequence > 1 => match (&*only.pointer, &spec) {
            ("/paused", spec) if spec["paused"] == true => "paused",
            ("/paused", _) => "resumed",
            ("/enabled", spec) if spec["enabled"] == false => "disabled",
            ("/enabled", _) => "enabled",
            _ => "revised",
        },
        _ => &*event.event_type,
    };
    let name = match &*event.event_type {
        "archived" => name_of(kind, &before),
        _ => name_of(kind, &spec),
    };
    let short = |value: Option<Value>| value.map(shortened);
    let changes = changes.into_iter().map(|change| {
        let change = view_of_change(change);
        let (before, after) = (short(change.before), short(change.after));
        DefinitionChange { before, after, ..change }
    });
    let act = Act::new(kind.as_str(), &event.aggregate_id, verb).with("name", &name);
    let act = act.with("revision", &payload["revision"]);
    Ok(Act { changes: changes.collect(), changes_left_out: left_out, ..act })
}

/// The spec that a resource had before an event.
async fn spec_before(
    journal: &dyn Journal,
    event: &RecordedEvent,
    kind: Kind,
    sequence: u64,
) -> Result<Value, FoldError> {
    let (of_type, id) = (&event.aggregate_type, &event.aggregate_id);
    let before = journal.load(of_type, id, sequence - 2, 1).await?;
    let before = before.first().map(shown).transpose()?;
    Ok(before.map_or_else(|| json!({}), |payload| spec_of(kind, &payload)))
}

/// The spec of an event without what nobody may read.
fn spec_of(kind: Kind, payload: &Value) -> Value {
    let mut spec = payload.pointer("/spec/spec").cloned().unwrap_or_else(|| json!({}));
    resources::hide_secrets(kind, &mut spec);
    spec
}

fn name_of(kind: Kind, spec: &Value) -> Value {
    match kind {
        Kind::WorkflowDefinition => spec["definition"]["name"].clone(),
        _ => spec["name"].clone(),
    }
}
