//! Child runs, as their parent sees them.

use serde_json::{Value, json};

use super::fixture::{Fixture, task};
use crate::run::command::ChildReport;
use crate::run::event::{Event, FailureKind, ParentRun, RunError};
use crate::run::{Command, Decision, Refusal, Run, RunStatus};

/// A `workflow` node and what follows on each outcome.
fn definition(workflow: Value, rest: Value) -> Value {
    let mut ask = json!({"workflow": workflow, "output": {"state.got": "${result}"}});
    ask.as_object_mut().expect("an object").extend(rest.as_object().cloned().unwrap_or_default());
    let mut nodes = json!({"ask": ask, "rescue": {"compute": {"state.rescued": "${error.code}"}}});
    let mut transitions = json!([{"from": "ask", "to": "rescue", "on": "failure", "priority": 1}]);
    // A node that catches doesn't time out.
    if ask["workflow"]["on_failure"] != "catch" {
        nodes["late"] = json!({"compute": {"state.late": "${error.code}"}});
        let late = json!({"from": "ask", "to": "late", "on": "timeout"});
        transitions.as_array_mut().expect("a list").push(late);
    }
    json!({"name": "parent", "start": "ask", "nodes": nodes, "transitions": transitions})
}

fn report(run: &Run, token: u64, status: RunStatus) -> Command {
    let failed = status != RunStatus::Completed;
    let error = failed.then(|| RunError {
        code: "boom".to_owned(),
        message: "it broke".to_owned(),
        kind: FailureKind::Permanent,
        node: None,
        attempt: None,
        detail: Value::Null,
    });
    let run_id = run.awaited_child(token).expect("it waits");
    let output = (!failed).then(|| json!({"answer": 42}));
    Command::ReportChild(Box::new(ChildReport {
        token,
        run_id,
        status,
        output,
        error,
        adopted: None,
    }))
}

fn ended(fixture: &mut Fixture, status: RunStatus) -> Decision {
    let report = report(&fixture.run, 1, status);
    fixture.when(&report).expect("it is awaited")
}

#[test]
fn a_node_starts_its_child_and_goes_on_with_its_output() {
    let workflow = json!({"definition": "${input.which}@2", "input": {"q": "${input.q}"}});
    let mut fixture = Fixture::new(definition(workflow, json!({})));
    let started = fixture.start(json!({"which": "helper", "q": "why?"})).expect("it starts");
    let run_id = fixture.run.header().expect("it runs").run_id;
    assert_eq!(started.children, [(1, run_id.child(1))]);
    assert_eq!(fixture.run.owed(&fixture.plan).children, [(1, run_id.child(1))]);
    assert_eq!(fixture.run.status(), Some(RunStatus::Waiting));
    let with = fixture.run.child_start(&fixture.plan, 1).expect("it waits");
    assert_eq!((&*with.definition, with.input), ("helper@2", json!({"q": "why?"})));
    ended(&mut fixture, RunStatus::Completed);
    assert_eq!(fixture.output(), json!({"got": {"answer": 42}}));
    assert_eq!(
        fixture.types(),
        ["run_started", "child_started", "child_ended", "token_routed", "run_completed"]
    );
}

#[test]
fn a_child_has_labels_of_its_own_over_those_of_its_parent() {
    let labels = json!({"team": null, "part": "${input.part}", "kind": "part"});
    let workflow = json!({"definition": "helper", "labels": labels});
    for (part, expected) in [
        (json!("a"), Ok(json!({"kind": "part", "owner": "ann", "part": "a"}))),
        (Value::Null, Ok(json!({"kind": "part", "owner": "ann"}))),
        (json!(7), Err("invalid_value")),
        (json!("x".repeat(257)), Err("invalid_value")),
    ] {
        let mut fixture = Fixture::new(definition(workflow.clone(), json!({})));
        fixture.labels = [("team", "red"), ("owner", "ann")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        fixture.start(json!({"part": part})).expect("it starts");
        match expected {
            Ok(labels) => {
                let with = fixture.run.child_start(&fixture.plan, 1).expect("it waits");
                assert_eq!(json!(with.labels), labels);
            }
            Err(code) => assert_eq!(fixture.output(), json!({"rescued": code})),
        }
    }
}

#[test]
fn the_end_of_a_child_that_did_not_complete_fails_the_node() {
    for (status, expected) in [
        (RunStatus::Failed, json!({"rescued": "child_failed"})),
        (RunStatus::Cancelled, json!({"rescued": "child_failed"})),
        (RunStatus::TimedOut, json!({"late": "child_failed"})),
    ] {
        let workflow = json!({"definition": "helper"});
        let mut fixture = Fixture::started(definition(workflow, json!({})), json!({}));
        let decision = ended(&mut fixture, status);
        let Event::ChildEnded(event) = &decision.events[0] else { panic!("{decision:?}") };
        let error = event.error.as_ref().expect("the node failed");
        assert_eq!(error.node.as_deref(), Some("ask"));
        assert_eq!(error.detail["status"], json!(status));
        assert_eq!(error.detail["error"]["code"], "boom");
        assert_eq!(fixture.output(), expected);
    }
}

#[test]
fn a_node_that_catches_succeeds_however_its_child_ends() {
    for status in [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled] {
        let workflow = json!({"definition": "helper", "on_failure": "catch"});
        let node = json!({"timeout": "1h"});
        let mut fixture = Fixture::started(definition(workflow, node), json!({}));
        ended(&mut fixture, status);
        let got = &fixture.output()["got"];
        assert_eq!(got["status"], json!(status));
        let completed = status == RunStatus::Completed;
        assert_eq!(got["output"], if completed { json!({"answer": 42}) } else { Value::Null });
        assert_eq!(got["error"].is_null(), completed);
    }
}

#[test]
fn a_child_that_takes_too_long_is_given_up() {
    let workflow = json!({"definition": "helper"});
    let mut fixture = Fixture::started(definition(workflow, json!({"timeout": "10m"})), json!({}));
    let late = report(&fixture.run, 1, RunStatus::Completed);
    let child = fixture.run.awaited_child(1).expect("it waits");
    assert!(fixture.advance_clock(599_999).events.is_empty());
    let decision = fixture.advance_clock(1);
    assert_eq!(decision.given_up, [child]);
    assert_eq!(fixture.output(), json!({"late": "child_timeout"}));
    assert!(matches!(fixture.when(&late), Err(Refusal::Ended { .. })));
}

#[test]
fn a_node_that_catches_succeeds_where_its_child_takes_too_long() {
    let workflow = json!({"definition": "helper", "on_failure": "catch"});
    let mut fixture = Fixture::started(definition(workflow, json!({"timeout": "10m"})), json!({}));
    let child = fixture.run.awaited_child(1).expect("it waits");
    let late = report(&fixture.run, 1, RunStatus::Completed);
    let decision = fixture.advance_clock(600_000);
    assert_eq!(decision.given_up, [child]);
    let got = &fixture.output()["got"];
    assert_eq!((&got["status"], &got["output"]), (&json!("timed_out"), &Value::Null));
    assert_eq!(
        (&got["error"]["code"], &got["error"]["kind"]),
        (&json!("child_timeout"), &json!("timeout"))
    );
    assert!(matches!(fixture.when(&late), Err(Refusal::Ended { .. })));
}

#[test]
fn whoever_ends_gives_its_children_up() {
    let mut fixture =
        Fixture::started(definition(json!({"definition": "helper"}), json!({})), json!({}));
    let child = fixture.run.awaited_child(1).expect("it waits");
    let decision = fixture
        .when(&Command::Cancel { reason: None, compensate: true })
        .expect("it always succeeds");
    assert_eq!(decision.given_up, [child]);
}

#[test]
fn a_join_gives_up_the_children_of_branches_that_it_needs_no_more() {
    let mut fixture = Fixture::started(
        json!({
            "name": "race", "start": "begin",
            "nodes": {"begin": {"compute": {"state.begun": true}},
                "ask": {"workflow": {"definition": "helper", "input": {"n": "${index}"}}},
                "after": task()},
            "transitions": [
                {"from": "begin", "to": "ask", "spawn": 3, "group": "all"},
                {"from": "ask", "to": "after", "join": {"group": "all", "wait": "any"}},
            ],
        }),
        json!({}),
    );
    let children: Vec<_> = fixture.run.owed(&fixture.plan).children;
    assert_eq!(children.len(), 3);
    let (token, _) = children[1];
    let stale = report(&fixture.run, children[0].0, RunStatus::Completed);
    let first = report(&fixture.run, token, RunStatus::Completed);
    let decision = fixture.when(&first).expect("it is awaited");
    assert_eq!(decision.given_up, [children[0].1, children[2].1]);
    assert!(fixture.run.owed(&fixture.plan).children.is_empty());
    let refused = fixture.when(&stale);
    assert!(matches!(refused, Err(Refusal::StaleChild { .. })), "{refused:?}");
}

#[test]
fn a_transition_that_cancels_a_node_gives_up_its_child() {
    let mut fixture = Fixture::started(
        json!({
            "name": "beside", "start": "begin",
            "nodes": {"begin": {"compute": {}},
                "ask": {"workflow": {"definition": "helper", "input": {}}},
                "stop": task(), "done": task()},
            "transitions": [
                {"from": "begin", "to": "ask"},
                {"from": "begin", "to": "stop"},
                {"from": "stop", "to": "done", "cancel": {"nodes": ["ask"]}},
            ],
        }),
        json!({}),
    );
    let owed = fixture.run.owed(&fixture.plan);
    let [(_, child)] = owed.children[..] else { panic!("one child: {owed:?}") };
    let decision = fixture.succeed("stop", json!(1));
    assert_eq!(decision.given_up, [child]);
    assert!(fixture.run.owed(&fixture.plan).children.is_empty());
}

#[test]
fn a_definition_that_is_none_fails_the_node_at_once() {
    for (given, code) in [
        (json!(7), "type_mismatch"),
        (json!("not a name"), "type_mismatch"),
        (json!("helper@0"), "type_mismatch"),
    ] {
        let workflow = json!({"definition": "${input.which}"});
        let fixture = Fixture::started(definition(workflow, json!({})), json!({"which": given}));
        assert_eq!(fixture.output(), json!({"rescued": code}));
    }
}

#[test]
fn children_are_nested_ten_deep_and_no_deeper() {
    let nested = |depth| {
        let mut fixture = Fixture::new(definition(json!({"definition": "d"}), json!({})));
        let run_id = crate::ids::RunId::derived("", "above");
        fixture.parent = Some(ParentRun { run_id, token: 1, root_run_id: run_id, depth });
        fixture.start(json!({})).expect("it starts");
        fixture
    };
    let above = nested(9);
    assert_eq!(above.run.owed(&above.plan).children.len(), 1);
    let header = above.run.header().expect("it runs");
    assert_eq!(header.parent_of_child(3).depth, 10);
    assert_eq!(header.parent_of_child(3).root_run_id, crate::ids::RunId::derived("", "above"));
    assert_eq!(nested(10).output(), json!({"rescued": "child_depth"}));
}

#[test]
fn a_child_is_paused_with_its_parent_and_not_resumed_where_it_was_paused_for_itself() {
    let mut fixture =
        Fixture::started(json!({"name": "child", "start": "a", "nodes": {"a": task()}}), json!({}));
    let follow = |is_paused| Command::FollowParent { is_paused };
    let events = |decision: Result<Decision, Refusal>| decision.expect("never refused").events;
    assert!(events(fixture.when(&follow(false))).is_empty());
    events(fixture.when(&follow(true)));
    assert!(fixture.run.is_paused());
    assert!(events(fixture.when(&follow(true))).is_empty());
    events(fixture.when(&follow(false)));
    assert!(!fixture.run.is_paused());
    events(fixture.when(&Command::Pause { reason: None }));
    assert!(events(fixture.when(&follow(false))).is_empty());
    assert!(fixture.run.is_paused());
}

#[test]
fn a_paused_run_starts_no_child_before_it_is_resumed() {
    let mut fixture = Fixture::started(
        json!({"name": "p", "start": "a",
            "nodes": {"a": task(), "ask": {"workflow": {"definition": "helper"}}},
            "transitions": [{"from": "a", "to": "ask"}]}),
        json!({}),
    );
    fixture.when(&Command::Pause { reason: None }).expect("it runs");
    assert!(fixture.succeed("a", json!(1)).children.is_empty());
    let resumed = fixture.when(&Command::Resume).expect("it is paused");
    assert_eq!(resumed.children.len(), 1);
}
