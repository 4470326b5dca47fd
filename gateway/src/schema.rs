//! Schemas of the API's documents that have no type of their own here, and examples of bodies.
//!
//! The specs belong to the domain, which knows nothing of OpenAPI; a test holds schemas and
//! examples against the types.

use serde_json::{Map, Value, json};

/// `(name, schema)` of what isn't derived from a type.
pub(crate) fn written() -> Map<String, Value> {
    let schemas = [specs(), requests(), answers()];
    schemas
        .into_iter()
        .flat_map(|group| match group {
            Value::Object(group) => group,
            _ => Map::new(),
        })
        .collect()
}

fn text() -> Value {
    json!({"type": "string"})
}

fn whole() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn name() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"})
}

fn strict(required: &[&str], properties: Value) -> Value {
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    })
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn specs() -> Value {
    let providers = json!({"type": "string", "enum": ["openai", "anthropic", "mock"]});
    json!({
        "WorkspaceSpec": strict(&["name"], json!({
            "name": name(), "description": text(),
            "allowed_providers": {"type": "array", "items": providers,
                "description": "Providers that runs may call; empty allows all."},
        })),
        "ProjectSpec": strict(&["name"], json!({
            "name": name(), "description": text(), "default_model": name(),
            "limits": strict(&[], json!({"tasks_in_flight_per_run":
                {"type": "integer", "minimum": 1, "maximum": 5000, "default": 500}})),
            "retention": {
                "type": ["object", "null"], "required": ["keep", "after"],
                "additionalProperties": false,
                "description": "What is kept of a run once it has ended for so long: `results` \
                    (its input, and its output or error) or `header` (neither); what happened, when \
                    and by whom stays. Without it, all is kept.",
                "properties": {
                    "keep": {"type": "string", "enum": ["results", "header", "full"]},
                    "after": {"type": "string", "description": "As in 30d, 12h."},
                    "archive": {"type": "boolean", "default": false,
                        "description": "Write all of a run to the server's --archive-dir first; \
                            where that fails, the run is left as it is."},
                },
            },
        })),
        "WorkflowSpec": strict(&["project_id", "name", "definition_id"], json!({
            "project_id": text(), "name": name(), "description": text(),
            "definition_id": text(),
            "definition_version": {"type": "integer", "minimum": 1,
                "description": "The pinned version; absent means the latest at each start."},
            "enabled": {"type": "boolean", "default": true},
            "paused": {"type": "boolean", "default": false},
            "triggers": {"type": "object", "additionalProperties": reference("TriggerSpec"),
                "maxProperties": 32, "description": "What starts runs by itself, by name."},
        })),
        "TriggerSpec": strict(&[], json!({
            "enabled": {"type": "boolean", "default": true},
            "webhook": strict(&["secret_envs"], json!({
                "secret_envs": {"type": "array", "items": text(), "minItems": 1, "maxItems": 5,
                    "description": "Variables of the command service that hold `whsec_…`."},
                "headers": {"type": "array", "items": text(), "maxItems": 20,
                    "description": "Headers that the input may use, in lower case."},
            })),
            "schedule": strict(&[], json!({
                "cron": {"type": "string", "description": "As `0 9 * * mon-fri`."},
                "every": {"type": "string", "description": "A duration, as `15m`."},
                "time_zone": {"type": "string", "default": "UTC"},
                "missed": {"type": "string", "enum": ["skip", "one", "all"], "default": "one"},
            })),
            "event": strict(&["type"], json!({
                "type": text(), "name": text(), "workflow": name(),
                "where": {"type": "string", "description": "An expression over `event`."},
            })),
            "message": strict(&["stream"], json!({
                "stream": {"type": "string", "description": "A JetStream stream, as `ORDERS`."},
                "subject": {"type": "string", "description": "As `orders.*.created`; default all."},
                "headers": {"type": "array", "items": text(), "maxItems": 20,
                    "description": "Headers that the input may use, in lower case."},
                "where": {"type": "string", "description": "An expression over `message`."},
            })),
            "input": {"description": "The run's input, with `${…}` over `trigger`; default `{}`."},
            "labels": {"type": "object", "additionalProperties": text()},
        })),
        "ActionSpec": strict(&["project_id", "name", "action"], json!({
            "project_id": text(), "name": name(), "description": text(),
            "action": {"type": "string", "enum": ["llm", "http", "transform", "mock"]},
            "with": {"type": "object"}, "input_schema": {"type": "object"},
            "output_schema": {"type": "object"}, "retry": {"type": "object"},
            "timeout": {"type": "string", "description": "A duration, as `90s`."},
            "repeatable": {"type": "boolean", "description": "Whether an attempt may be made again \
                where a worker vanished with it; default true."},
        })),
        "PromptSpecSpec": strict(&["project_id", "name", "template"], json!({
            "project_id": text(), "name": name(), "description": text(), "system": text(),
            "template": {"type": "string", "description": "Jinja over the action's input."},
            "variables_schema": {"type": "object"}, "output_schema": {"type": "object"},
        })),
        "ModelProfileSpec": strict(&["project_id", "name", "provider", "model"], json!({
            "project_id": text(), "name": name(), "description": text(),
            "provider": providers, "model": text(), "base_url": text(),
            "api_key_env": {"type": "string",
                "description": "The worker's environment variable with the key."},
            "temperature": {"type": "number"}, "max_tokens": whole(),
            "prices": strict(&[], json!({"input_micros": whole(), "output_micros": whole()})),
            "fallback": {"type": "array", "items": name()},
        })),
    })
}

fn requests() -> Value {
    let labels = json!({
        "type": "object", "maxProperties": 32,
        "propertyNames": {"pattern": "^[A-Za-z0-9._/-]{1,64}$"},
        "additionalProperties": {"type": "string", "maxLength": 256},
    });
    let payload = json!({"description": "Any JSON, at most 1048576 bytes; default null."});
    let transient = json!({"type": "boolean", "default": false,
        "description": "Not kept where nothing waits for it now."});
    let input = json!({"description": "Default `{}`; at most 4194304 bytes."});
    json!({
        "NewApiKey": strict(&["name", "scopes"], json!({
            "name": name(),
            "scopes": {"type": "array", "minItems": 1,
                "items": {"type": "string", "enum": ["read", "run", "write", "admin"]}},
            "expires_at": {"type": "string", "format": "date-time"},
        })),
        "StartWorkflow": strict(&[], json!({"input": input, "labels": labels})),
        "StartDefinition": strict(&["definition"], json!({
            "definition": {"oneOf": [
                {"type": "string", "description": "`name` or `name@version`."},
                reference("Document"),
            ]},
            "project_id": text(), "input": input, "labels": labels,
        })),
        "CancelRun": strict(&[], json!({
            "reason": {"type": "string", "maxLength": 1000},
            "compensate": {"type": "boolean", "default": true, "description": "Whether the run undoes its work before it ends, where its definition says so. With false it ends at once, also in the middle of that."}})),
        "ForkRun": strict(&["at"], json!({
            "at": {"description": "A sequence of the run, or an RFC 3339 time: the last event \
                that is shared.", "oneOf": [whole(), text()]},
            "adopt": {"type": "string", "enum": ["all", "outside", "successes", "none"],
                "default": "all",
                "description": "Which later outcomes are adopted where the same is asked for."},
            "input": {"description": "Another input; at most 4194304 bytes."},
            "state": {"type": "object",
                "description": "A JSON merge patch over `state` on the run's own level."},
            "branches": {"type": "object", "additionalProperties": {"type": "object"},
                "description": "The same over what branches see, by a token of each."},
            "outcomes": {"type": "object", "additionalProperties": strict(&[], json!({
                "result": {}, "error": strict(&["code"], json!({
                    "code": text(), "message": text(),
                    "kind": {"type": "string", "default": "permanent",
                        "enum": ["transient", "permanent", "timeout", "policy", "cancelled"]},
                })),
            })), "description": "Outcomes of attempts that are under way there, by token."},
            "definition": {"oneOf": [
                {"type": "string",
                    "description": "Another one of the project: `name` or `name@version`."},
                reference("Document"),
            ]},
            "labels": labels,
            "dry_run": {"type": "boolean", "default": false,
                "description": "Answer what would happen, and do nothing."},
        })),
        "RunExperiment": strict(&["name"], json!({
            "name": name(),
            "runs": {"type": "array", "maxItems": 200, "items": {"type": "string"},
                "description": "The runs (`run_…`); either these, or `where`."},
            "where": strict(&["limit"], json!({
                "definition": text(), "project_id": text(), "workflow_id": text(),
                "status": {"type": "array", "items": {"type": "string"},
                    "description": "Default: `completed` and `failed`."},
                "labels": labels,
                "started_after": {"type": "string", "format": "date-time"},
                "started_before": {"type": "string", "format": "date-time"},
                "limit": {"type": "integer", "minimum": 1, "maximum": 200,
                    "description": "How many, the newest."},
            })),
            "change": strict(&[], json!({
                "definition": {"oneOf": [
                    {"type": "string", "description": "Another one: `name` or `name@version`."},
                    reference("Document"),
                ]},
                "with": {"type": "object",
                    "description": "What lies over `with` of every `llm` action."},
                "nodes": {"type": "object", "additionalProperties": {"type": "object"},
                    "description": "The same of the action of a node, by its name."},
                "conditions": {"type": "array", "items": strict(&["from", "to"], json!({
                    "from": text(), "to": text(), "when": text(),
                })), "description": "Other conditions of transitions."},
            })),
            "allow": {"type": "array", "description": "Effects that are had all the same.",
                "items": {"type": "string",
                    "enum": ["http", "workflow", "emit", "gate", "signal"]}},
            "max_cost_micros": {"type": "integer", "minimum": 0,
                "description": "What all forks together may cost."},
            "at_once": {"type": "integer", "minimum": 1, "maximum": 32, "default": 4},
            "dry_run": {"type": "boolean", "default": false},
        })),
        "RerunRun": strict(&[], json!({
            "version": {"type": "string", "enum": ["pinned", "latest"], "default": "pinned",
                "description": "The version that the run followed, or the one that a start would \
                    follow now: the workflow's, or else the newest."},
        })),
        "RetryRun": strict(&[], json!({
            "dry_run": {"type": "boolean", "default": false,
                "description": "Answer what would happen, and do nothing."},
        })),
        "ArchiveRun": strict(&["keep"], json!({
            "keep": {"type": "string", "enum": ["results", "header"],
                "description": "What stays: the run's input and its output or error, or neither."},
            "archive": strict(&["location", "sha256"], json!({
                "location": {"type": "string", "maxLength": 1024},
                "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            })),
            "dry_run": {"type": "boolean", "default": false,
                "description": "Answer what would be dropped, and do nothing."},
        })),
        "HoldRun": strict(&["reason"],
            json!({"reason": {"type": "string", "minLength": 1, "maxLength": 1000}})),
        "ReleaseRun": strict(&[], json!({"reason": {"type": "string", "maxLength": 1000}})),
        "PauseRun": strict(&[], json!({"reason": {"type": "string", "maxLength": 1000}})),
        "ResumeRun": strict(&[], json!({})),
        "StopExperiment": strict(&[], json!({})),
        "VerifyRun": strict(&[], json!({})),
        "SignalRun": strict(&[], json!({"payload": payload, "transient": transient})),
        "SignalRuns": strict(&["labels", "name"], json!({
            "labels": labels, "name": name(), "payload": payload, "transient": transient,
        })),
        "AnswerGate": strict(&["decision"], json!({
            "decision": {"type": "string", "enum": ["approve", "reject"]},
            "value": {"description": "Fits the gate's form; at most 65536 bytes."},
            "comment": {"type": "string", "maxLength": 4000},
        })),
        "MergePatch": {"type": "object", "description": "Keys to set; null takes a key away."},
        "Document": {"type": "object",
            "description": "See `/api/v1/workflow-definitions/schema`."},
    })
}

fn page(items: &str) -> Value {
    json!({
        "type": "object", "required": ["items"],
        "properties": {
            "items": {"type": "array", "items": reference(items)},
            "next_cursor": {"type": "string", "description": "Absent on the last page."},
        },
    })
}

fn answers() -> Value {
    let time = json!({"type": "string", "format": "date-time"});
    let position = json!({"type": "integer",
        "description": "The journal position; pass it on as `min_position`."});
    let problem = json!({
        "type": "object", "required": ["code", "pointer", "message"],
        "properties": {"code": text(), "pointer": text(), "line": whole(), "message": text(),
            "suggestion": text()},
    });
    json!({
        "Alive": {"type": "object", "properties": {"alive": {"type": "boolean"}}},
        "Receipt": {"type": "object", "properties": {
            "id": text(), "version": whole(), "position": position,
            "created": {"type": "boolean"}, "at": time,
        }},
        "NewApiKeySecret": {"type": "object", "properties": {
            "id": text(), "version": whole(), "position": position, "at": time,
            "secret": {"type": "string", "description": "Shown now and never again."},
        }},
        "RunStarted": {"type": "object", "properties": {
            "id": text(), "status": text(), "version": whole(), "position": position, "at": time,
            "output": {}, "error": reference("RunError"), "usage": {"type": "object"},
            "ended_at": time,
        }},
        "Resource": {"type": "object", "properties": {
            "id": text(), "kind": text(), "workspace_id": text(), "project_id": text(),
            "name": text(), "version": whole(), "archived": {"type": "boolean"},
            "created_at": time, "updated_at": time, "spec": {"type": "object"},
        }},
        "ResourcePage": page("Resource"),
        "RunPage": page("RunView"),
        "TriggerList": strict(&["items"], json!({
            "items": {"type": "array", "items": reference("TriggerView")},
        })),
        "WebhookTaken": strict(&["run_id", "position"], json!({
            "run_id": text(), "position": whole(),
        })),
        "GatePage": page("GateView"),
        "AuditPage": page("AuditEntry"),
        "LogPage": page("LogRecord"),
        "Signalled": {"type": "object", "properties": {
            "run_ids": {"type": "array", "items": text()},
            "refused": {"type": "array", "items": {"type": "object", "properties": {
                "run_id": text(), "code": text(), "detail": text(),
            }}},
            "position": position,
        }},
        "EventPage": {"type": "object", "properties": {
            "items": {"type": "array", "items": reference("EventEnvelope")},
            "cursor": {"type": "string", "description": "Where to go on."},
            "more": {"type": "boolean"},
        }},
        "Timeline": {"type": "object", "properties": {
            "items": {"type": "array", "items": reference("TimelineEntry")},
        }},
        "Validation": {"type": "object", "properties": {
            "valid": {"type": "boolean"}, "problems": {"type": "array", "items": problem},
        }},
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "code", "trace_id"],
            "properties": {
                "type": {"type": "string", "description": "The page about the code."},
                "title": text(), "status": whole(), "detail": text(), "code": text(),
                "pointer": {"type": "string", "description": "JSON Pointer into the body."},
                "errors": {"type": "array", "items": problem}, "trace_id": text(),
            },
        },
    })
}

/// An example of a request's body.
pub(crate) fn example(schema: &str) -> Option<Value> {
    let project = "prj_06lhdo6aqbvl27osl2t1hd37gs";
    Some(match schema {
        "WorkspaceSpec" => json!({"name": "research"}),
        "ProjectSpec" => json!({"name": "papers", "default_model": "small"}),
        "WorkflowSpec" => json!({"project_id": project, "name": "summaries",
            "definition_id": "wfd_06lhdo6aqbvl27osl2t1hd37gs", "definition_version": 3,
            "triggers": {"nightly": {"schedule": {"cron": "0 3 * * *", "time_zone": "Europe/Berlin"},
                "input": {"day": "${trigger.scheduled_at}"}}}}),
        "ActionSpec" => json!({"project_id": project, "name": "fetch", "action": "http",
            "with": {"method": "GET", "url": "{{ url }}"}, "timeout": "20s"}),
        "PromptSpecSpec" => json!({"project_id": project, "name": "summary",
            "template": "Summarise in one sentence: {{ text }}"}),
        "ModelProfileSpec" => json!({"project_id": project, "name": "small",
            "provider": "openai", "model": "small-1", "api_key_env": "MODEL_KEY",
            "prices": {"input_micros": 150_000, "output_micros": 600_000}}),
        "NewApiKey" => json!({"name": "ci", "scopes": ["read", "run"]}),
        "StartWorkflow" => json!({"input": {"topic": "rivers"}, "labels": {"team": "docs"}}),
        "StartDefinition" => json!({"definition": "summaries@3", "input": {"topic": "rivers"}}),
        "CancelRun" => json!({"reason": "no longer needed"}),
        "ForkRun" => json!({"at": 12, "state": {"draft": "other words"}, "dry_run": true}),
        "RerunRun" => json!({"version": "latest"}),
        "RetryRun" => json!({"dry_run": true}),
        "ArchiveRun" => json!({"keep": "results", "dry_run": true}),
        "HoldRun" => json!({"reason": "case 4711"}),
        "ReleaseRun" => json!({"reason": "case 4711 is settled"}),
        "PauseRun" => json!({"reason": "the supplier is down"}),
        "ResumeRun" | "StopExperiment" => json!({}),
        "VerifyRun" => json!({}),
        "SignalRun" => json!({"payload": {"order": 7}}),
        "SignalRuns" => json!({"labels": {"order": "7"}, "name": "paid", "payload": {"sum": 5}}),
        "AnswerGate" => json!({"decision": "approve", "value": {"limit": 500}, "comment": "fine"}),
        "MergePatch" => json!({"description": "new words"}),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use domain::resource::Spec;
    use serde_json::json;

    use super::{example, written};

    #[test]
    fn examples_of_specs_are_specs_and_unknown_keys_are_not() {
        for (kind, schema) in [
            ("workspace", "WorkspaceSpec"),
            ("project", "ProjectSpec"),
            ("workflow", "WorkflowSpec"),
            ("action", "ActionSpec"),
            ("prompt_spec", "PromptSpecSpec"),
            ("model_profile", "ModelProfileSpec"),
        ] {
            let body = example(schema).expect("each spec has an example");
            let spec = json!({"kind": kind, "spec": body});
            serde_json::from_value::<Spec>(spec).expect(schema);
            let mut unknown = body.clone();
            unknown["no_such_key"] = json!(1);
            let error = serde_json::from_value::<Spec>(json!({"kind": kind, "spec": unknown}))
                .expect_err("unknown keys are refused")
                .to_string();
            let declared = written()[schema]["properties"].clone();
            for property in declared.as_object().expect("properties").keys() {
                assert!(error.contains(&format!("`{property}`")), "{schema}: {property}");
            }
            let known = error.split("expected one of").nth(1).expect("a list").split(',').count();
            assert_eq!(known, declared.as_object().map_or(0, |all| all.len()), "{schema}");
        }
    }
}
