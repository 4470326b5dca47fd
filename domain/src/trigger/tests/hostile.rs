//! Hostile triggers, cron patterns, and secrets and signatures of webhooks.

use chrono::DateTime;
use graphs::{holds, hostile, hostile_text};
use serde_json::json;

use super::super::*;
use crate::trigger::webhook::{Secret, is_id, signatures};

const TRIGGERS: [&str; 3] = [
    r#"{"t": {"webhook": {"secret_envs": ["A_B"], "headers": ["x-a"]},
        "input": {"b": "${trigger.body}"}, "labels": {"k": "v"}}}"#,
    r#"{"n": {"enabled": false, "schedule": {"cron": "0 0 9 * * mon-fri",
        "time_zone": "Europe/Berlin", "missed": "all"}},
        "e": {"schedule": {"every": "90s"}}}"#,
    r#"{"after": {"event": {"type": "event_emitted", "name": "x", "workflow": "w",
        "where": "${event.payload.n > 1}"}, "input": ["${trigger.event}"]}}"#,
];

const CRON: [&str; 8] = [
    "* * * * *",
    "0 9 * * mon-fri",
    "*/15 0-6,22-23 1,15 jan-jun *",
    "30 59 23 L * *",
    "0 0 29 2 *",
    "0 12 * * 5#3",
    "@daily",
    "0 0 1W * ?",
];

#[test]
fn hostile_triggers_are_compiled_or_refused_with_their_place() {
    holds(500, hostile(&TRIGGERS), |bytes| {
        let Ok(triggers) = serde_json::from_slice::<Triggers>(&bytes) else { return };
        let printed = serde_json::to_value(&triggers).expect("triggers are JSON");
        let again: Triggers = serde_json::from_value(printed.clone()).expect("they are read back");
        assert_eq!(again, triggers);
        match validate::check(&triggers) {
            Ok(()) => {
                for spec in triggers.values() {
                    CompiledTrigger::compile(spec).expect("what was checked compiles");
                }
            }
            Err((pointer, message)) => {
                assert!(!message.is_empty());
                let spec = json!({"triggers": printed});
                let parent = pointer.rfind('/').map_or("", |end| &pointer[..end]);
                assert!(spec.pointer(parent).is_some(), "{pointer} in {spec}");
            }
        }
    });
}

#[test]
fn a_hostile_pattern_gives_times_that_grow_or_is_refused() {
    let accepted = std::cell::Cell::new(0);
    holds(400, hostile_text(&CRON), |pattern| {
        let cron = Some(pattern);
        let spec = ScheduleSpec { cron, every: None, time_zone: None, missed: Missed::One };
        match Schedule::compile(&spec) {
            Err(invalid) => assert_eq!(invalid.member, "cron"),
            Ok(schedule) => {
                accepted.set(accepted.get() + 1);
                let mut time = DateTime::from_timestamp(1_700_000_000, 5).expect("in range");
                for _ in 0..3 {
                    let Some(next) = schedule.next_after(time) else { break };
                    assert!(next > time);
                    time = next;
                }
            }
        }
    });
    assert!(accepted.get() > 0, "some mutations leave a pattern valid");
}

#[test]
fn hostile_secrets_signatures_and_ids_are_taken_or_passed_over() {
    let valid = [
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= v1a,x v1,AAAA",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
    ];
    holds(1_000, hostile_text(&valid), |text| {
        if let Some(secret) = Secret::parse(&text) {
            // Another text for the same bytes would be a second key of the same lock.
            let signed = secret.sign("id", 1, b"body");
            let again = Secret::parse(text.trim()).expect("the same secret");
            assert_eq!(again.sign("id", 1, b"body"), signed);
            assert_eq!(format!("{secret:?}"), "Secret", "it isn't shown");
        }
        assert!(signatures(&text).count() <= crate::limits::SIGNATURES);
        assert!(!is_id(&text) || !text.contains(|c: char| c.is_control() || c == ' '));
    });
}
