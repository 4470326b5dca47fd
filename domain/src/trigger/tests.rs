//! Schedules over changes of the clock, signatures, and parsers that take any text.

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use serde_json::json;

use super::validate::check;
use super::webhook::{Secret, Signed, signatures};
use super::*;

mod hostile;
mod limits;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).expect("a time").to_utc()
}

fn cron(pattern: &str, zone: &str) -> Result<Schedule, InvalidSchedule> {
    let spec = json!({"cron": pattern, "time_zone": zone});
    Schedule::compile(&serde_json::from_value(spec).expect("a schedule"))
}

fn every(text: &str) -> Schedule {
    Schedule::compile(&serde_json::from_value(json!({"every": text})).expect("a schedule"))
        .expect("sound")
}

/// The next times after one, in the offset of the zone.
#[track_caller]
fn fires(pattern: &str, zone: &str, after: &str, expected: &[&str]) {
    let schedule = cron(pattern, zone).expect("sound");
    let mut time = at(after);
    for expected in expected {
        time = schedule.next_after(time).expect("there is a next one");
        let expected_at = DateTime::parse_from_rfc3339(expected).expect("a time");
        assert_eq!(time.with_timezone(expected_at.offset()), expected_at, "{pattern} in {zone}");
    }
}

#[test]
fn a_time_of_the_day_stays_where_clocks_change() {
    let days = ["2026-03-27T09:00:00+01:00", "2026-03-30T09:00:00+02:00"];
    fires("0 9 * * mon-fri", "Europe/Berlin", "2026-03-26T12:00:00Z", &days);
    let days = ["2026-10-23T09:00:00+02:00", "2026-10-26T09:00:00+01:00"];
    fires("0 9 * * mon-fri", "Europe/Berlin", "2026-10-22T12:00:00Z", &days);
}

#[test]
fn a_fixed_time_that_does_not_exist_fires_once_right_after_the_gap() {
    let days =
        ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"];
    fires("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", &days);
    let days = ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"];
    fires("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", &days);
    // A gap of half an hour, and one at midnight.
    let days = ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"];
    fires("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", &days);
    let days = ["2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00"];
    fires("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00:00Z", &days);
    // The times of the gap and the one at its end are one.
    let days = ["2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"];
    fires("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:59:00Z", &days);
}

#[test]
fn a_fixed_time_that_exists_twice_fires_at_the_first() {
    let days = ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"];
    fires("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", &days);
    // Asked within the second pass, too.
    fires("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", &days[1..]);
    fires("1 3 * * *", "Europe/Berlin", "2026-10-25T01:50:00Z", &["2026-10-25T03:01:00+01:00"]);
    let days = ["2026-11-01T01:15:00-04:00", "2026-11-02T01:15:00-05:00"];
    fires("15 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", &days);
}

#[test]
fn a_pattern_with_steps_goes_by_what_the_clock_shows() {
    let spring =
        ["2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"];
    fires("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", &spring);
    let autumn = [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ];
    fires("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15:00Z", &autumn);
    // Of one hour of one day: its second pass isn't forgotten for the next year's.
    let autumn = ["2026-10-25T02:45:00+02:00", "2026-10-25T02:00:00+01:00"];
    fires("*/15 2 25 10 *", "Europe/Berlin", "2026-10-25T00:31:00Z", &autumn);
}

#[test]
fn leap_days_seconds_and_names_are_known() {
    let days = ["2028-02-29T12:00:00+00:00", "2032-02-29T12:00:00+00:00"];
    fires("0 12 29 2 *", "UTC", "2026-01-01T00:00:00Z", &days);
    fires("*/10 * * * * *", "UTC", "2026-01-01T00:00:01Z", &["2026-01-01T00:00:10+00:00"]);
    fires("0 6 l * *", "Asia/Kathmandu", "2026-02-01T00:00:00Z", &["2026-02-28T06:00:00+05:45"]);
}

#[test]
fn times_are_whole_seconds_whatever_they_are_asked_from() {
    let schedule = cron("* * * * * *", "UTC").expect("sound");
    let next = schedule.next_after(at("2026-01-01T00:00:00.300Z"));
    assert_eq!(next, Some(at("2026-01-01T00:00:01Z")));
    let next = every("1s").next_after(at("2026-01-01T00:00:00.300Z"));
    assert_eq!(next, Some(at("2026-01-01T00:00:01Z")));
}

#[test]
fn distances_are_counted_from_the_epoch() {
    let quarter = every("15m");
    assert_eq!(quarter.next_after(at("2026-01-01T00:07:00Z")), Some(at("2026-01-01T00:15:00Z")));
    assert_eq!(quarter.next_after(at("2026-01-01T00:15:00Z")), Some(at("2026-01-01T00:30:00Z")));
}

#[test]
fn what_is_no_schedule_is_refused_at_its_place() {
    let refused = |spec: serde_json::Value| {
        Schedule::compile(&serde_json::from_value(spec).expect("a spec"))
            .expect_err("refused")
            .member
    };
    assert_eq!(refused(json!({"cron": "61 * * * *"})), "cron");
    assert_eq!(refused(json!({"cron": "0 0 30 2 *"})), "cron");
    assert_eq!(refused(json!({"cron": "0 9 * *"})), "cron");
    assert_eq!(refused(json!({"cron": "0 9 * * *", "time_zone": "Mars/Base"})), "time_zone");
    assert_eq!(refused(json!({"every": "1s", "time_zone": "UTC"})), "time_zone");
    assert_eq!(refused(json!({"every": "1500ms"})), "every");
    assert_eq!(refused(json!({"every": "0s"})), "every");
    assert_eq!(refused(json!({"cron": "0 9 * * *", "every": "1s"})), "every");
    assert_eq!(refused(json!({})), "cron");
}

#[test]
fn missed_times_are_skipped_or_made_up_for() {
    let hourly = every("1h");
    let due = |missed, now| due(&hourly, missed, at("2026-01-01T00:00:00Z"), at(now));
    let hour = |hour| at(&format!("2026-01-01T{hour:02}:00:00Z"));
    let now = "2026-01-01T04:30:00Z";
    let none = Due { start: vec![], missed: Some((hour(1), hour(4))) };
    assert_eq!(due(Missed::Skip, now), none);
    let one = Due { start: vec![hour(4)], missed: Some((hour(1), hour(3))) };
    assert_eq!(due(Missed::One, now), one);
    let all = Due { start: (1..=4).map(hour).collect(), missed: None };
    assert_eq!(due(Missed::All, now), all);
    // The one that is due now isn't missed.
    let now = "2026-01-01T03:00:30Z";
    let skip = Due { start: vec![hour(3)], missed: Some((hour(1), hour(2))) };
    assert_eq!(due(Missed::Skip, now), skip);
    let one = Due { start: vec![hour(2), hour(3)], missed: Some((hour(1), hour(1))) };
    assert_eq!(due(Missed::One, now), one);
    assert_eq!(due(Missed::Skip, "2026-01-01T00:59:59Z"), Due::default());
    let exact = Due { start: vec![hour(1)], missed: None };
    assert_eq!(due(Missed::Skip, "2026-01-01T01:00:00Z"), exact);
}

#[test]
fn what_is_made_up_for_is_bounded() {
    let (done, now) = (at("2026-01-01T00:00:00Z"), at("2026-02-01T00:00:00Z"));
    let due = due(&every("1s"), Missed::All, done, now);
    assert_eq!(due.start.len(), crate::limits::MISSED + 60);
    assert_eq!(due.start.last(), Some(&now));
    let (first, last) = due.missed.expect("the older ones");
    assert_eq!(first, at("2026-01-01T00:00:01Z"));
    assert_eq!(last + chrono::TimeDelta::seconds(1), due.start[0]);
}

/// The example of the Standard Webhooks specification.
#[test]
fn the_example_of_the_standard_holds() {
    let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
    let signed = Signed {
        id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp: "1614265330",
        signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    };
    let body = br#"{"test": 2432232314}"#;
    let now = DateTime::from_timestamp(1_614_265_330, 0).expect("a time");
    assert!(signed.holds(std::slice::from_ref(&secret), body, now));
    assert_eq!(secret.sign(signed.id, 1_614_265_330, body), signed.signature);
    let both = format!("v1a,xyz v1,AAAA {}", signed.signature);
    let other = Secret::parse("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").expect("a secret");
    let secrets = [other.clone(), secret.clone()];
    assert!(Signed { signature: &both, ..signed }.holds(&secrets, body, now));
    // Each part alone makes it fail.
    let tolerance = chrono::TimeDelta::seconds(webhook::TOLERANCE_S);
    let second = chrono::TimeDelta::seconds(1);
    assert!(signed.holds(&secrets, body, now + tolerance));
    assert!(!signed.holds(&secrets, body, now + tolerance + second));
    assert!(signed.holds(&secrets, body, now - tolerance));
    assert!(!signed.holds(&secrets, body, now - tolerance - second));
    assert!(!signed.holds(&secrets, br#"{"test":2432232314}"#, now));
    assert!(!signed.holds(&[other], body, now));
    assert!(!signed.holds(&[], body, now));
    assert!(!Signed { id: "msg_other", ..signed }.holds(&secrets, body, now));
    assert!(!Signed { timestamp: "1614265331", ..signed }.holds(&secrets, body, now));
    assert!(!Signed { timestamp: "x", ..signed }.holds(&secrets, body, now));
    assert!(!Signed { signature: "", ..signed }.holds(&secrets, body, now));
}

#[test]
fn a_trigger_is_refused_at_its_place() {
    let refused = |trigger: serde_json::Value| {
        let triggers = serde_json::from_value(json!({"t": trigger})).expect("triggers");
        check(&triggers).expect_err("refused").0
    };
    let envs = json!(["HOOK_SECRET"]);
    assert_eq!(refused(json!({})), "/triggers/t");
    assert_eq!(
        refused(json!({"webhook": {"secret_envs": envs}, "schedule": {"every": "1s"}})),
        "/triggers/t"
    );
    assert_eq!(refused(json!({"webhook": {"secret_envs": []}})), "/triggers/t/webhook/secret_envs");
    assert_eq!(
        refused(json!({"webhook": {"secret_envs": ["whsec_AAAA="]}})),
        "/triggers/t/webhook/secret_envs/0"
    );
    assert_eq!(
        refused(json!({"webhook": {"secret_envs": envs, "headers": ["cookie"]}})),
        "/triggers/t/webhook/headers/0"
    );
    assert_eq!(refused(json!({"schedule": {"cron": "x"}})), "/triggers/t/schedule/cron");
    assert_eq!(
        refused(json!({"schedule": {"every": "1s"}, "input": {"a": "${state.x}"}})),
        "/triggers/t/input/a"
    );
    assert_eq!(
        refused(json!({"schedule": {"every": "1s"}, "labels": {"a b": "c"}})),
        "/triggers/t/labels/a b"
    );
    assert_eq!(refused(json!({"event": {"type": "nothing"}})), "/triggers/t/event/type");
    assert_eq!(
        refused(json!({"event": {"type": "run_failed", "name": "x"}})),
        "/triggers/t/event/name"
    );
    assert_eq!(
        refused(json!({"event": {"type": "run_failed", "where": "${trigger.x}"}})),
        "/triggers/t/event/where"
    );
    assert_eq!(refused(json!({"message": {"stream": "A.B"}})), "/triggers/t/message/stream");
    for subject in ["", "a..b", "a.>.b", "a b", "a.b*", ".a"] {
        let message = json!({"message": {"stream": "A", "subject": subject}});
        assert_eq!(refused(message), "/triggers/t/message/subject", "{subject:?}");
    }
    assert_eq!(
        refused(json!({"message": {"stream": "A", "headers": ["cookie"]}})),
        "/triggers/t/message/headers/0"
    );
    assert_eq!(
        refused(json!({"message": {"stream": "A", "where": "${event.x}"}})),
        "/triggers/t/message/where"
    );
    let taken = json!({"t": {"message": {"stream": "A", "subject": "a.*.>",
        "where": "${message.body.n > 1}"}, "input": {"n": "${trigger.message.body.n}"}}});
    let taken: Triggers = serde_json::from_value(taken).expect("triggers");
    assert_eq!(check(&taken), Ok(()));
    let compiled = CompiledTrigger::compile(&taken.values().next().expect("one")).expect("sound");
    assert_eq!(compiled.wants(&json!({"body": {"n": 2}})), Ok(true));
    assert_eq!(compiled.wants(&json!({"body": {"n": 1}})), Ok(false));
}

/// A stored first event of a run keeps which trigger started it.
#[test]
fn what_started_a_run_stands_in_its_first_event() {
    let stored = json!({"workflow_id": "wf_0000000000000000000000000c", "name": "nightly",
        "kind": "schedule", "at": "2026-01-02T03:00:00Z", "key": "2026-01-02T03:00:00Z"});
    let by: crate::run::event::TriggeredBy =
        serde_json::from_value(stored.clone()).expect("it can be read");
    assert_eq!((by.kind, by.depth), (TriggerKind::Schedule, 0));
    assert_eq!(serde_json::to_value(&by).expect("json"), stored);
    let deep = crate::run::event::TriggeredBy { depth: 3, ..by };
    assert_eq!(serde_json::to_value(&deep).expect("json")["depth"], 3);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_breaks_the_parser_of_patterns(text in "[ -~]{0,40}", zone in "[A-Za-z/_]{0,20}") {
        let _ = cron(&text, "UTC");
        let _ = cron("0 0 * * *", &zone);
    }

    #[test]
    fn patterns_give_times_that_grow(
        minute in "(\\*|\\*/[1-9]|[0-5]?[0-9]|[0-2]?[0-9]-[3-5][0-9])",
        hour in "(\\*|\\*/[1-9]|1?[0-9]|2[0-3])",
        day in "(\\*|[1-9]|1[0-9]|2[0-8]|L)",
        month in "(\\*|[1-9]|1[0-2]|jan|dec)",
        weekday in "(\\*|[0-7]|mon-fri|sun)",
        zone in prop::sample::select(vec![
            "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu",
            "Africa/Casablanca", "Pacific/Apia", "America/Sao_Paulo",
        ]),
        from in 0_i64..4_000_000_000, nanos in 0_u32..1_000_000_000,
    ) {
        let pattern = format!("{minute} {hour} {day} {month} {weekday}");
        let schedule = cron(&pattern, zone).expect("sound");
        let mut time = DateTime::from_timestamp(from, nanos).expect("a time");
        for _ in 0..5 {
            let next = schedule.next_after(time).expect("there is a next one");
            prop_assert!(next > time);
            prop_assert_eq!(next.timestamp_subsec_nanos(), 0);
            // Nothing lies between: asked from a second before, it is the same.
            let before = next - chrono::TimeDelta::seconds(1);
            prop_assert_eq!(schedule.next_after(before), Some(next));
            time = next;
        }
    }

    #[test]
    fn no_header_breaks_the_check_of_signatures(
        id in any::<String>(), timestamp in any::<String>(), signature in any::<String>(),
        body in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signed = Signed { id: &id, timestamp: &timestamp, signature: &signature };
        prop_assert!(!signed.holds(&[secret], &body, DateTime::UNIX_EPOCH));
        prop_assert!(signatures(&signature).count() <= crate::limits::SIGNATURES);
    }

    #[test]
    fn what_is_signed_holds_among_others(
        id in "[!-~]{1,64}", body in prop::collection::vec(any::<u8>(), 0..100),
        key in prop::collection::vec(any::<u8>(), 24..=64), others in "(v1,[A-Za-z0-9=]{0,9} ){0,5}",
    ) {
        let text = format!("whsec_{}", data_encoding::BASE64.encode(&key));
        let secret = Secret::parse(&text).expect("a secret");
        let signature = format!("{others}{}", secret.sign(&id, 1_000, &body));
        let signed = Signed { id: &id, timestamp: "1000", signature: &signature };
        let now = DateTime::from_timestamp(1_000, 0).expect("a time");
        prop_assert!(signed.holds(std::slice::from_ref(&secret), &body, now));
        let mut altered = body.clone();
        altered.push(0);
        prop_assert!(!signed.holds(&[secret], &altered, now));
    }
}
