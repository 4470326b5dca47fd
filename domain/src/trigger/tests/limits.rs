//! Triggers at their limits and one beyond them.

use serde_json::{Value, json};

use super::cron;
use crate::limits;
use crate::trigger::validate::check;
use crate::trigger::webhook::is_id;
use crate::trigger::{TriggerSpec, Triggers};

fn refused(triggers: &Value) -> Option<String> {
    let triggers: Triggers = serde_json::from_value(triggers.clone()).expect("triggers");
    check(&triggers).err().map(|(pointer, _)| pointer)
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

#[test]
fn a_workflow_has_at_most_32_triggers() {
    let triggers = |count: usize| {
        let spec: TriggerSpec =
            serde_json::from_value(json!({"schedule": {"every": "1m"}})).expect("a trigger");
        json!(
            names("t", count)
                .into_iter()
                .map(|name| (name, spec.clone()))
                .collect::<std::collections::BTreeMap<_, _>>()
        )
    };
    assert_eq!(refused(&triggers(limits::TRIGGERS)), None);
    assert_eq!(refused(&triggers(limits::TRIGGERS + 1)).as_deref(), Some("/triggers"));
}

#[test]
fn a_webhook_has_at_most_5_secrets_and_20_headers() {
    let webhook = |secrets: usize, headers: usize| {
        json!({"t": {"webhook": {"secret_envs": names("A", secrets),
            "headers": names("x-", headers)}}})
    };
    let (secrets, headers) = (limits::WEBHOOK_SECRETS, limits::WEBHOOK_HEADERS);
    assert_eq!(refused(&webhook(secrets, headers)), None);
    let place = refused(&webhook(secrets + 1, headers));
    assert_eq!(place.as_deref(), Some("/triggers/t/webhook/secret_envs"));
    let place = refused(&webhook(secrets, headers + 1));
    assert_eq!(place.as_deref(), Some("/triggers/t/webhook/headers"));
    assert!(is_id(&"x".repeat(limits::WEBHOOK_ID_BYTES)));
    assert!(!is_id(&"x".repeat(limits::WEBHOOK_ID_BYTES + 1)));
}

#[test]
fn a_stream_has_a_name_of_at_most_255_bytes_and_a_subject_of_256() {
    let message = |stream: usize, subject: usize| json!({"t": {"message": {"stream": "S".repeat(stream), "subject": "s".repeat(subject)}}});
    let (stream, subject) = (limits::STREAM_NAME_BYTES, limits::SUBJECT_BYTES);
    assert_eq!(refused(&message(stream, subject)), None);
    let place = refused(&message(stream + 1, subject));
    assert_eq!(place.as_deref(), Some("/triggers/t/message/stream"));
    let place = refused(&message(stream, subject + 1));
    assert_eq!(place.as_deref(), Some("/triggers/t/message/subject"));
}

#[test]
fn a_pattern_has_at_most_256_bytes() {
    let pattern = |bytes: usize| {
        let end = " * * * *";
        let minutes = "5,".repeat((bytes - end.len()) / 2);
        let all = format!("{}{end}", &minutes[..minutes.len() - 1]);
        format!("{}{all}", " ".repeat(bytes - all.len()))
    };
    assert!(cron(&pattern(limits::CRON_BYTES), "UTC").is_ok());
    let refused = cron(&pattern(limits::CRON_BYTES + 1), "UTC").expect_err("it is too long");
    assert!(refused.message.contains("256 bytes"), "{}", refused.message);
}
