//! What each kind's spec must satisfy beyond its types. Every refusal points at a member.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::codec;
use crate::definition::problem::escaped;
use crate::definition::{ActionKind, Retry};
use crate::expression::Template;
use crate::limits;
use crate::resource::{
    ActionSpec, ApiKeySpec, Error, ModelProfileSpec, ProjectSpec, PromptSpecSpec, Spec,
    WorkflowSpec, WorkspaceSpec,
};
use crate::trigger;

/// Checks a whole spec; `at` is when it was asked for.
pub(crate) fn check(spec: &Spec, at: DateTime<Utc>) -> Result<(), Error> {
    match spec {
        Spec::Workspace(spec) => workspace(spec),
        Spec::Project(spec) => project(spec),
        Spec::WorkflowDefinition(spec) => check_hash("/hash", &spec.hash),
        Spec::Workflow(spec) => workflow(spec),
        Spec::Action(spec) => action(spec),
        Spec::PromptSpec(spec) => prompt_spec(spec),
        Spec::ModelProfile(spec) => model_profile(spec),
        Spec::ApiKey(spec) => api_key(spec, at),
    }
}

/// Whether a value nests at most so deep.
pub(crate) fn is_shallower(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|item| is_shallower(item, depth - 1)),
        Value::Object(members) => {
            depth > 0 && members.values().all(|member| is_shallower(member, depth - 1))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// Gives a spec the form in which it comes back from the journal, and checks its size.
pub(crate) fn normalised(spec: &Spec) -> Result<Spec, Error> {
    let unreadable = |error: serde_json::Error| Error::invalid("", error.to_string());
    let mut value = serde_json::to_value(spec).map_err(unreadable)?;
    // What is published nests as deep as what is read; the spec and its tag are around it. Around
    // other specs the tag and the event count.
    let depth = match spec {
        Spec::WorkflowDefinition(_) => limits::JSON_DEPTH + 2,
        _ => limits::JSON_DEPTH - 1,
    };
    if !is_shallower(&value, depth) {
        let message = format!("a spec nests at most {} deep", depth - 1);
        return Err(Error::invalid("", message));
    }
    codec::normalise_within(&mut value, depth)
        .map_err(|error| Error::invalid("", error.to_string()))?;
    let bytes = value.to_string().len();
    let limit = match spec {
        Spec::WorkflowDefinition(_) => 2 * limits::DEFINITION_BYTES,
        _ => limits::SPEC_BYTES,
    };
    if bytes > limit {
        return Err(Error::TooLarge { bytes, limit });
    }
    serde_json::from_value(value).map_err(unreadable)
}

fn workspace(spec: &WorkspaceSpec) -> Result<(), Error> {
    description(spec.description.as_ref())?;
    for (index, provider) in spec.allowed_providers.iter().enumerate() {
        if spec.allowed_providers[..index].contains(provider) {
            let pointer = format!("/allowed_providers/{index}");
            return Err(Error::invalid(pointer, "this provider is listed twice"));
        }
    }
    Ok(())
}

fn project(spec: &ProjectSpec) -> Result<(), Error> {
    description(spec.description.as_ref())?;
    match spec.limits.tasks_in_flight_per_run {
        Some(tasks) if !(1..=limits::TASKS_IN_FLIGHT).contains(&tasks) => Err(Error::invalid(
            "/limits/tasks_in_flight_per_run",
            format!("must be 1 to {}", limits::TASKS_IN_FLIGHT),
        )),
        _ => Ok(()),
    }
}

fn workflow(spec: &WorkflowSpec) -> Result<(), Error> {
    description(spec.description.as_ref())?;
    if spec.definition_version == Some(0) {
        return Err(Error::invalid("/definition_version", "versions count from 1"));
    }
    trigger::validate::check(&spec.triggers)
        .map_err(|(pointer, message)| Error::invalid(pointer, message))
}

fn action(spec: &ActionSpec) -> Result<(), Error> {
    description(spec.description.as_ref())?;
    let known: &[&str] = match spec.action {
        ActionKind::Llm => &[
            "model",
            "system",
            "prompt",
            "prompt_spec",
            "messages",
            "schema",
            "tools",
            "temperature",
            "max_tokens",
        ],
        ActionKind::Http => &["method", "url", "headers", "query", "body", "json", "expect"],
        ActionKind::Transform => &["value"],
        ActionKind::Mock => &["result", "delay", "fail"],
        ActionKind::Mcp | ActionKind::Metric | ActionKind::Artifact => {
            let message =
                "this version doesn't run this kind of action; use llm, http, transform or mock";
            return Err(Error::invalid("/action", message));
        }
    };
    if let Some(key) = spec.with.keys().find(|key| !known.contains(&key.as_str())) {
        let pointer = format!("/with/{}", escaped(key));
        return Err(Error::invalid(pointer, format!("unknown key; use {}", known.join(", "))));
    }
    schema("/input_schema", spec.input_schema.as_ref())?;
    schema("/output_schema", spec.output_schema.as_ref())?;
    if spec.timeout.is_some_and(|timeout| timeout.as_millis() == 0) {
        return Err(Error::invalid("/timeout", "must be longer than 0"));
    }
    spec.retry.as_ref().map_or(Ok(()), retry)
}

fn retry(retry: &Retry) -> Result<(), Error> {
    if !(1..=limits::ATTEMPTS).contains(&retry.max_attempts) {
        let message = format!("must be 1 to {}", limits::ATTEMPTS);
        return Err(Error::invalid("/retry/max_attempts", message));
    }
    if retry.initial > retry.max {
        return Err(Error::invalid("/retry/initial", "must not be longer than max"));
    }
    Ok(())
}

fn prompt_spec(spec: &PromptSpecSpec) -> Result<(), Error> {
    description(spec.description.as_ref())?;
    if let Some(system) = &spec.system {
        template("/system", system)?;
    }
    template("/template", &spec.template)?;
    schema("/variables_schema", spec.variables_schema.as_ref())?;
    schema("/output_schema", spec.output_schema.as_ref())
}

fn model_profile(spec: &ModelProfileSpec) -> Result<(), Error> {
    description(spec.description.as_ref())?;
    if spec.model.trim().is_empty() || spec.model.len() > 256 {
        return Err(Error::invalid(
            "/model",
            "must be the provider's name of a model, 1 to 256 bytes",
        ));
    }
    if let Some(url) = &spec.base_url {
        check_base_url(url).map_err(|message| Error::invalid("/base_url", message))?;
    }
    if spec.api_key_env.as_deref().is_some_and(|name| !is_variable_name(name)) {
        let message =
            "must be the name of an environment variable (A-Z 0-9 _), never the key itself";
        return Err(Error::invalid("/api_key_env", message));
    }
    if spec.temperature.is_some_and(|degree| !(0.0..=2.0).contains(&degree)) {
        return Err(Error::invalid("/temperature", "must be 0 to 2"));
    }
    if spec.max_tokens == Some(0) {
        return Err(Error::invalid("/max_tokens", "must be at least 1"));
    }
    if spec.fallback.len() > limits::FALLBACKS {
        let message = format!("at most {} profiles", limits::FALLBACKS);
        return Err(Error::invalid("/fallback", message));
    }
    for (index, fallback) in spec.fallback.iter().enumerate() {
        let pointer = format!("/fallback/{index}");
        if *fallback == spec.name {
            return Err(Error::invalid(pointer, "a profile can't fall back to itself"));
        }
        if spec.fallback[..index].contains(fallback) {
            return Err(Error::invalid(pointer, "this profile is listed twice"));
        }
    }
    Ok(())
}

fn api_key(spec: &ApiKeySpec, at: DateTime<Utc>) -> Result<(), Error> {
    check_hash("/secret_hash", &spec.secret_hash)?;
    if spec.scopes.is_empty() {
        return Err(Error::invalid("/scopes", "name at least one of read, run, write, admin"));
    }
    for (index, scope) in spec.scopes.iter().enumerate() {
        if spec.scopes[..index].contains(scope) {
            return Err(Error::invalid(format!("/scopes/{index}"), "this scope is listed twice"));
        }
    }
    if spec.expires_at.is_some_and(|expiry| expiry <= at) {
        return Err(Error::invalid("/expires_at", "must be in the future"));
    }
    Ok(())
}

fn description(text: Option<&String>) -> Result<(), Error> {
    if text.is_some_and(|text| text.len() > limits::DESCRIPTION_BYTES) {
        let message = format!("at most {} bytes", limits::DESCRIPTION_BYTES);
        return Err(Error::invalid("/description", message));
    }
    Ok(())
}

fn template(pointer: &str, source: &str) -> Result<(), Error> {
    Template::compile(source)
        .map(drop)
        .map_err(|error| Error::invalid(pointer, format!("not a template: {error}")))
}

fn schema(pointer: &str, schema: Option<&Value>) -> Result<(), Error> {
    let Some(schema) = schema else { return Ok(()) };
    jsonschema::draft202012::new(schema).map(drop).map_err(|error| {
        Error::invalid(
            format!("{pointer}{}", error.instance_path()),
            format!("not a JSON Schema (2020-12) that stands on its own: {error}"),
        )
    })
}

fn check_hash(pointer: &str, hash: &str) -> Result<(), Error> {
    let fits = hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if fits {
        Ok(())
    } else {
        Err(Error::invalid(pointer, "must be a SHA-256 as 64 hexadecimal digits in lower case"))
    }
}

fn check_base_url(url: &str) -> Result<(), &'static str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .ok_or("must start with https:// or http://")?;
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    if authority.contains('@') {
        return Err("must not hold credentials; name the key's variable in api_key_env");
    }
    if url.contains(['?', '#']) {
        return Err("must not hold a query or a fragment");
    }
    let printable = url.bytes().all(|b| b.is_ascii_graphic());
    if host.is_empty() || !printable || url.len() > 2_048 {
        return Err("must be a URL with a host, of at most 2,048 printable ASCII characters");
    }
    Ok(())
}

/// Whether a text can be the name of an environment variable.
pub(crate) fn is_variable_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
