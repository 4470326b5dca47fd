//! What a workflow's triggers must satisfy beyond their types.

use super::{CompiledTrigger, EventSpec, MessageSpec, Source, Triggers, WebhookSpec};
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
            Some(Source::Message(message)) => check_message(message).map_err(at)?,
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
    check_headers("/webhook/headers", &webhook.headers)
}

/// Headers that a run's input may use.
fn check_headers(pointer: &str, headers: &[String]) -> Result<(), (String, String)> {
    if headers.len() > limits::WEBHOOK_HEADERS {
        let message = format!("at most {} headers", limits::WEBHOOK_HEADERS);
        return Err((pointer.to_owned(), message));
    }
    let is_plain = |name: &String| {
        (1..=128).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if let Some(index) = headers.iter().position(|name| !is_plain(name)) {
        let message = "must be a header's name in lower case (a-z 0-9 -)";
        return Err((format!("{pointer}/{index}"), message.to_owned()));
    }
    const SECRET: [&str; 4] =
        ["authorization", "proxy-authorization", "cookie", "webhook-signature"];
    if let Some(index) = headers.iter().position(|name| SECRET.contains(&name.as_str())) {
        let message = "this header holds a secret, which must not stand in a run's events";
        return Err((format!("{pointer}/{index}"), message.to_owned()));
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

fn check_message(spec: &MessageSpec) -> Result<(), (String, String)> {
    // What a name of a stream may be, says the server: no separator, wildcard, space or slash.
    let is_name = (1..=limits::STREAM_NAME_BYTES).contains(&spec.stream.len())
        && spec.stream.bytes().all(|b| b.is_ascii_graphic() && !b".*>/\\".contains(&b));
    if !is_name {
        let message = format!(
            "must be the name of a stream: at most {} visible ASCII characters without . * > / \\",
            limits::STREAM_NAME_BYTES
        );
        return Err(("/message/stream".to_owned(), message));
    }
    if let Some(subject) = &spec.subject
        && !is_pattern(subject)
    {
        let message = format!(
            "must be a subject, as orders.created, orders.* or orders.>, of at most {} bytes",
            limits::SUBJECT_BYTES
        );
        return Err(("/message/subject".to_owned(), message));
    }
    check_headers("/message/headers", &spec.headers)
}

/// Whether a text is a subject, or a pattern of some: tokens apart by dots, of which `*` stands for
/// one and `>`, at the end, for the rest.
fn is_pattern(text: &str) -> bool {
    let tokens: Vec<&str> = text.split('.').collect();
    let last = tokens.len() - 1;
    let is_token = |(index, token): (usize, &&str)| match *token {
        "*" => true,
        ">" => index == last,
        token => {
            !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && !b"*>".contains(&b))
        }
    };
    text.len() <= limits::SUBJECT_BYTES && tokens.iter().enumerate().all(is_token)
}
