//! A run in a queue: nothing of it begins before it is admitted, and all that may be asked of a run
//! may be asked of it.

use serde_json::json;

use super::fixture::{Fixture, task};
use super::replays::difference;
use crate::definition::Overflow;
use crate::run::event::{Admission, Dropped, QueueReason};
use crate::run::{Command, Event, RunStatus};

pub(super) const ADMIT: Command = Command::Admit { until: None };

pub(super) fn reason(ahead: u64) -> QueueReason {
    QueueReason::Concurrency { key: Some("ann".to_owned()), limit: 1, ahead }
}

pub(super) fn admission(fixture: &Fixture) -> Admission {
    Admission {
        key: Some("ann".to_owned()),
        limit: Some(1),
        then: Overflow::Queue,
        rate: None,
        priority: 0,
        rank: fixture.now,
    }
}

fn queued() -> Fixture {
    let mut fixture = Fixture::new(json!({
        "name": "queued",
        "start": "work",
        "timeout": "10s",
        "concurrency": {"key": "${input.user}", "limit": 1},
        "nodes": {"work": task()}
    }));
    fixture.admission = Some(admission(&fixture));
    let started = Box::new(fixture.started_event(json!({"user": "ann"})));
    fixture.when(&Command::StartInQueue { started, reason: reason(0) }).expect("it starts");
    fixture
}

#[test]
fn nothing_is_owed_before_it_is_admitted_and_its_clock_starts_then() {
    let mut fixture = queued();
    assert_eq!(fixture.run.status(), Some(RunStatus::Queued));
    assert_eq!(fixture.run.owed(&fixture.plan), Default::default());
    assert!(fixture.report(1, 1, Ok(json!(1))).is_err());
    fixture.advance_clock(60_000);
    fixture.when(&Command::Advance).expect("it is harmless");
    assert_eq!(fixture.types(), ["run_started", "run_queued"]);
    let decision = fixture.when(&ADMIT).expect("it may begin");
    assert_eq!(decision.dispatch, [(1, 1)]);
    assert_eq!(fixture.run.status(), Some(RunStatus::Running));
    assert!(fixture.when(&ADMIT).expect("it goes on").events.is_empty());
    fixture.advance_clock(9_999);
    assert_eq!(fixture.run.status(), Some(RunStatus::Running));
    fixture.advance_clock(1);
    assert_eq!(fixture.closed().status, RunStatus::TimedOut);
}

#[test]
fn its_history_is_decided_again_though_its_clock_starts_later() {
    let mut fixture = queued();
    fixture.advance_clock(60_000);
    fixture.when(&ADMIT).expect("it may begin");
    fixture.succeed("work", json!(1));
    assert_eq!(difference(&fixture, &fixture.plan), None);
}

#[test]
fn the_reason_is_recorded_again_where_it_changes() {
    let mut fixture = queued();
    fixture.when(&Command::StayInQueue(reason(0))).expect("it waits");
    fixture.when(&Command::StayInQueue(reason(7))).expect("it waits");
    assert_eq!(fixture.types(), ["run_started", "run_queued", "run_queued"]);
}

#[test]
fn a_paused_one_may_be_admitted_and_begins_when_it_is_resumed() {
    let mut fixture = queued();
    fixture.when(&Command::Pause { reason: None }).expect("it may be paused");
    assert_eq!(fixture.run.status(), Some(RunStatus::Paused));
    assert!(fixture.when(&ADMIT).expect("it may").dispatch.is_empty());
    fixture.advance_clock(60_000);
    let decision = fixture.when(&Command::Resume).expect("it was paused");
    assert_eq!(decision.dispatch, [(1, 1)]);
    fixture.advance_clock(9_999);
    assert_eq!(fixture.run.status(), Some(RunStatus::Running));
}

#[test]
fn one_that_is_resumed_waits_on() {
    let mut fixture = queued();
    fixture.when(&Command::Pause { reason: None }).expect("it may be paused");
    assert!(fixture.when(&Command::Resume).expect("it was paused").dispatch.is_empty());
    assert_eq!(fixture.run.status(), Some(RunStatus::Queued));
}

#[test]
fn it_is_cancelled_and_takes_signals_as_others_do() {
    let mut fixture = queued();
    let name = "go".parse().expect("a name");
    fixture.when(&Command::Signal { name, payload: json!(1), transient: false }).expect("kept");
    fixture.when(&Command::Cancel { reason: None, compensate: true }).expect("it may be cancelled");
    assert_eq!(fixture.closed().status, RunStatus::Cancelled);
}

#[test]
fn a_dropped_start_and_a_displaced_run_say_why() {
    let mut fixture = queued();
    let started = Box::new(fixture.started_event(json!({"user": "ann"})));
    let by = crate::ids::RunId::new(uuid::Uuid::from_u128(7));
    fixture.when(&Command::Displace { by }).expect("it goes on");
    assert_eq!(fixture.closed().code.as_deref(), Some("concurrency_replaced"));
    assert!(fixture.closed().reason.as_deref().is_some_and(|why| why.contains(&by.to_string())));
    fixture.run = Default::default();
    fixture
        .when(&Command::StartDropped { started, over: Dropped::Concurrency })
        .expect("it is recorded");
    assert_eq!(fixture.closed().code.as_deref(), Some("concurrency_dropped"));
}

fn limited() -> Fixture {
    let mut fixture = queued();
    let rate = serde_json::from_value(json!({"limit": 5, "period": "1m"})).expect("a rate");
    let admission = fixture.admission.take().expect("it has one");
    fixture.admission = Some(Admission { limit: None, rate: Some(rate), ..admission });
    (fixture.run, fixture.events) = Default::default();
    fixture
}

#[test]
fn one_that_waits_for_its_rate_records_its_slot_and_is_decided_again() {
    let mut fixture = limited();
    let started = Box::new(fixture.started_event(json!({"user": "ann"})));
    let admission = started.admission.clone().expect("it has one");
    let reason = admission.reason(2, true, Some(fixture.now));
    assert!(matches!(&reason, QueueReason::RateLimit { limit: 5, ahead: 2, .. }), "{reason:?}");
    fixture.when(&Command::StartInQueue { started, reason }).expect("it starts");
    assert_eq!(follow(&mut fixture, true), ["run_queued"]);
    assert_eq!(follow(&mut fixture, false), ["run_queued"]);
    fixture.advance_clock(12_000);
    let until = Some(fixture.now);
    let decision = fixture.when(&Command::Admit { until }).expect("it may begin");
    assert!(matches!(&decision.events[0], Event::RunAdmitted { until: at, .. } if *at == until));
    fixture.succeed("work", json!(1));
    assert_eq!(difference(&fixture, &fixture.plan), None);
}

#[test]
fn one_that_is_dropped_over_its_rate_says_so_and_is_decided_again() {
    let mut fixture = limited();
    let started = Box::new(fixture.started_event(json!({"user": "ann"})));
    let dropped = Command::StartDropped { started, over: Dropped::RateLimit };
    fixture.when(&dropped).expect("it is recorded");
    assert_eq!(fixture.closed().code.as_deref(), Some("rate_limit_dropped"));
    assert!(fixture.closed().reason.as_deref().is_some_and(|why| why.ends_with("5 in 1m")));
    assert_eq!(difference(&fixture, &fixture.plan), None);
}

#[test]
fn one_that_need_not_wait_says_that_it_was_admitted() {
    let mut fixture = queued();
    let started = Box::new(fixture.started_event(json!({"user": "ann"})));
    fixture.run = Default::default();
    let decision = fixture.when(&Command::Start(started)).expect("it starts");
    assert_eq!(decision.events[1], Event::RunAdmitted { deadline: None, until: None });
    assert_eq!(decision.dispatch, [(1, 1)]);
}

fn workflow() -> crate::ids::WorkflowId {
    crate::ids::WorkflowId::derived("", "w")
}

fn follow(fixture: &mut Fixture, is_paused: bool) -> Vec<&'static str> {
    let command = Command::FollowWorkflow { workflow_id: workflow(), is_paused, ahead: 4 };
    let decision = fixture.when(&command).expect("it follows");
    decision.events.iter().map(Event::event_type).collect()
}

#[test]
fn one_in_a_queue_waits_for_its_workflow_and_then_for_its_turn() {
    let mut fixture = queued();
    assert_eq!(follow(&mut fixture, true), ["run_queued"]);
    assert!(follow(&mut fixture, true).is_empty());
    assert_eq!(follow(&mut fixture, false), ["run_queued"]);
    assert!(follow(&mut fixture, false).is_empty());
    let reason = fixture.run.live().and_then(|live| live.in_queue.as_ref()).map(|one| &one.reason);
    assert!(matches!(reason, Some(QueueReason::Concurrency { ahead: 4, .. })), "{reason:?}");
}

#[test]
fn one_that_waits_for_its_workflow_alone_begins_with_it() {
    let mut fixture = queued();
    fixture.run = Default::default();
    fixture.admission = None;
    let started = Box::new(fixture.started_event(json!({"user": "ann"})));
    let reason = QueueReason::WorkflowPaused { workflow_id: workflow() };
    fixture.when(&Command::StartInQueue { started, reason }).expect("it starts");
    assert!(follow(&mut fixture, true).is_empty());
    assert_eq!(follow(&mut fixture, false), ["run_admitted"]);
    assert_eq!(fixture.run.status(), Some(RunStatus::Running));
}

#[test]
fn a_run_is_paused_with_its_workflow_and_a_pause_of_its_own_stays() {
    let mut fixture =
        Fixture::started(json!({"name": "d", "start": "one", "nodes": {"one": task()}}), json!({}));
    assert_eq!(follow(&mut fixture, true), ["run_paused"]);
    assert!(fixture.when(&Command::Resume).is_err());
    assert_eq!(follow(&mut fixture, false), ["run_resumed"]);
    fixture.when(&Command::Pause { reason: None }).expect("it may be paused");
    assert!(follow(&mut fixture, true).is_empty() && follow(&mut fixture, false).is_empty());
    assert_eq!(fixture.run.status(), Some(RunStatus::Paused));
    fixture.when(&Command::Resume).expect("it is its own pause");
}
