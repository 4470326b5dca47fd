//! What a workflow's triggers must satisfy beyond their types.

use super::{CompiledTrigger, EventSpec, Source, Triggers, WebhookSpec};
use crate::codec;
use crate::labels;
use crate::limits;
use crate::resource::is_variable_name;

/// The first thing that is wrong: a JSON Pointer into the workflow's spec, and why.
///
/// # Errors
/// Where something is.
pub fn check(triggers: &Triggers) -> Result<(), (String, String)> {
    if triggers.len() > limits::TRIGGERS {
        let message = format!("a workflow has at most {} triggers", limits::TRIGGERS);
        return Err(("/triggers".to_owned(), message));
    }
    for (name, spec) in triggers {
        let at = |(below, message)| (format!("/triggers/{name}{below}"), message);
        CompiledTrigger::compile(spec).map_err(at)?;
        match spec.source() {
            Some(Source::Webhook(webhook)) => check_webhook(webhook).map_err(at)?,
            Some(Source::Event(event)) => check_event(event).map_err(at)?,
            Some(Source::Schedule(_)) | None => {}
        }
        labels::check(&spec.labels)
            .map_err(|(below, message)| at((format!("/labels{below}"), message)))?;
    }
    Ok(())
}

fn check_webhook(webhook: &WebhookSpec) -> Result<(), (String, String)> {
    if !(1..=limits::WEBHOOK_SECRETS).contains(&webhook.secret_envs.len()) {
        let message = format!(
            "name 1 to {} variables: a webhook without a signature is not taken",
            limits::WEBHOOK_SECRETS
        );
        return Err(("/webhook/secret_envs".to_owned(), message));
    }
    let wrong = webhook.secret_envs.iter().position(|name| !is_variable_name(name));
    if let Some(index) = wrong {
        let message =
            "must be the name of an environment variable (A-Z 0-9 _), never the secret itself";
        return Err((format!("/webhook/secret_envs/{index}"), message.to_owned()));
    }
    if webhook.headers.len() > limits::WEBHOOK_HEADERS {
        let message = format!("at most {} headers", limits::WEBHOOK_HEADERS);
        return Err(("/webhook/headers".to_owned(), message));
    }
    let is_plain = |name: &String| {
        (1..=128).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if let Some(index) = webhook.headers.iter().position(|name| !is_plain(name)) {
        let message = "must be a header's name in lower case (a-z 0-9 -)";
        return Err((format!("/webhook/headers/{index}"), message.to_owned()));
    }
    const SECRET: [&str; 4] =
        ["authorization", "proxy-authorization", "cookie", "webhook-signature"];
    if let Some(index) = webhook.headers.iter().position(|name| SECRET.contains(&name.as_str())) {
        let message = "this header holds a secret, which must not stand in a run's events";
        return Err((format!("/webhook/headers/{index}"), message.to_owned()));
    }
    Ok(())
}

fn check_event(event: &EventSpec) -> Result<(), (String, String)> {
    if !codec::is_run_event(&event.event_type) {
        let message = "no event of a run is called so; use run_completed, run_failed, event_emitted \
                       or another one of docs/api.md";
        return Err(("/event/type".to_owned(), message.to_owned()));
    }
    if event.name.is_some() && event.event_type != "event_emitted" {
        let message = "only event_emitted has a name";
        return Err(("/event/name".to_owned(), message.to_owned()));
    }
    Ok(())
}
