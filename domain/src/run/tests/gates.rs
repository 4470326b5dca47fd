//! Gates: who may answer, what their answers come to, and time-outs.

use serde_json::{Value, json};

use super::fixture::{Fixture, task};
use crate::run::command::GateAnswer;
use crate::run::event::Decision::{Approve, Reject};
use crate::run::event::{Decision, FailureKind, GateOutcome};
use crate::run::{Command, Event, Refusal, RunStatus};

/// A gate, followed by a node for each way out of it.
fn gated(gate: Value) -> Value {
    let mut asked = json!({"title": "Pay ${input.sum}?"});
    for (key, value) in gate.as_object().expect("an object") {
        asked[key] = value.clone();
    }
    json!({"name": "d", "start": "gate",
        "nodes": {"gate": {"gate": asked, "output": {"state.got": "${result}"}},
                  "yes": task(), "no": task()},
        "transitions": [{"from": "gate", "to": "yes"},
                        {"from": "gate", "to": "no", "on": "rejected"}]})
}

fn opened(gate: Value) -> Fixture {
    Fixture::started(gated(gate), json!({"sum": 5}))
}

fn answer(actor: &str, decision: Decision, value: Value) -> GateAnswer {
    let (actor, roles) = (actor.to_owned(), Vec::new());
    GateAnswer { token: 1, actor, roles, decision, value, comment: None }
}

fn answers(run: &mut Fixture, actor: &str, decision: Decision) -> Result<(), Refusal> {
    give(run, answer(actor, decision, Value::Null))
}

fn give(run: &mut Fixture, answer: GateAnswer) -> Result<(), Refusal> {
    let before = (run.run.clone(), run.events.len());
    let decided = run.when(&Command::Answer(Box::new(answer))).map(drop);
    if decided.is_err() {
        assert_eq!((&run.run, run.events.len()), (&before.0, before.1), "nothing is written");
    }
    decided
}

#[test]
fn one_approval_opens_the_way() {
    let mut run = opened(json!({}));
    assert_eq!(run.types(), ["run_started", "gate_opened"]);
    assert_eq!(run.run.status(), Some(RunStatus::Waiting));
    let Event::GateOpened(event) = &run.events[1].0 else { panic!("{:?}", run.types()) };
    assert_eq!((event.title.as_str(), event.node.as_str()), ("Pay 5?", "gate"));
    assert_eq!((event.approvals, event.rejections), (1, 1));
    let comment = Some("fine".to_owned());
    let given = GateAnswer { comment, ..answer("bob", Approve, json!({"n": 1})) };
    give(&mut run, given).expect("it is answered");
    assert_eq!(run.types()[2..], ["gate_answered", "gate_closed", "token_routed"]);
    assert_eq!(run.at("yes").1, 1);
    let got = run.run.live().and_then(|live| live.root.get("got").cloned()).expect("mapped");
    assert_eq!(
        *got,
        json!({"decision": "approved", "value": {"n": 1}, "answers": [{"actor": "bob",
            "decision": "approve", "value": {"n": 1}, "comment": "fine", "at": run.now}]})
    );
    assert_eq!(answers(&mut run, "carol", Approve), Err(Refusal::GateNotOpen { token: 1 }));
}

#[test]
fn one_rejection_rejects_where_nobody_is_assigned() {
    let mut run = opened(json!({}));
    answers(&mut run, "bob", Reject).expect("it is answered");
    assert_eq!(run.at("no").1, 1);
    let mut definition = gated(json!({}));
    definition["transitions"].as_array_mut().expect("a list").pop();
    definition["nodes"].as_object_mut().expect("an object").remove("no");
    let mut run = Fixture::started(definition, json!({"sum": 5}));
    answers(&mut run, "bob", Reject).expect("it is answered");
    assert_eq!(run.failure(), "gate_rejected");
    let error = run.closed().error.as_deref().expect("it failed");
    assert_eq!(error.kind, FailureKind::Policy);
    assert_eq!(error.detail["answers"][0]["actor"], "bob");
}

#[test]
fn two_of_three_decide() {
    let three = json!({"assignees": ["ann", "bob", "carol"], "approvals": 2});
    let mut run = opened(three.clone());
    answers(&mut run, "ann", Reject).expect("one rejection leaves two");
    answers(&mut run, "bob", Approve).expect("one approval isn't enough");
    assert_eq!(run.run.status(), Some(RunStatus::Waiting));
    answers(&mut run, "carol", Approve).expect("the second is");
    assert_eq!(run.at("yes").1, 1);
    let mut run = opened(three);
    answers(&mut run, "ann", Reject).expect("one rejection leaves two");
    answers(&mut run, "carol", Reject).expect("the second makes it impossible");
    assert_eq!(run.at("no").1, 1);
}

#[test]
fn who_may_not_answer_is_refused() {
    let mut run = opened(json!({"assignees": ["bob", "carol", "bob"], "approvals": 2}));
    let stranger = Refusal::NotAssigned { actor: "dave".to_owned() };
    assert_eq!(answers(&mut run, "dave", Approve), Err(stranger));
    answers(&mut run, "bob", Approve).expect("assigned");
    let again = Refusal::AlreadyAnswered { actor: "bob".to_owned() };
    assert_eq!(answers(&mut run, "bob", Approve), Err(again));

    let mut run = opened(json!({"self_approval": false}));
    assert_eq!(answers(&mut run, "ann", Approve), Err(Refusal::SelfApproval));
    answers(&mut run, "bob", Approve).expect("somebody else");

    let mut run = opened(json!({"roles": ["editor"]}));
    assert!(matches!(answers(&mut run, "bob", Approve), Err(Refusal::NotAssigned { .. })));
    let roles = vec!["writer".to_owned(), "editor".to_owned()];
    give(&mut run, GateAnswer { roles, ..answer("bob", Approve, json!(1)) }).expect("has the role");
    assert_eq!(run.at("yes").1, 1);
}

#[test]
fn a_gate_that_nobody_could_approve_fails_at_once() {
    let nobody = json!({"assignees": "${input.who}"});
    for (gate, who) in [
        (nobody.clone(), json!([])),
        (json!({"assignees": "${input.who}", "self_approval": false}), json!(["ann"])),
        (json!({"assignees": "${input.who}", "approvals": 3}), json!(["ann", "bob"])),
    ] {
        let run = Fixture::started(gated(gate), json!({"sum": 5, "who": who}));
        assert_eq!(run.failure(), "gate_unsatisfiable");
    }
    for who in [json!("ann"), json!([1]), json!([""])] {
        let run = Fixture::started(gated(nobody.clone()), json!({"sum": 5, "who": who}));
        assert_eq!(run.failure(), "type_mismatch");
    }
}

#[test]
fn a_value_must_fit_the_form() {
    let form = json!({"type": "object", "required": ["n"],
        "properties": {"n": {"type": "integer"}}});
    let mut run = opened(json!({"form": form}));
    for wrong in [json!({"n": "1"}), json!(null)] {
        let refused = give(&mut run, answer("bob", Approve, wrong.clone()));
        let Err(Refusal::InvalidAnswer { problems }) = refused else { panic!("{refused:?}") };
        let pointer = if wrong.is_null() { "" } else { "/n" };
        assert_eq!(problems[0].pointer, pointer);
    }
    // A rejection needs no value, but one that it brings must fit.
    assert!(give(&mut run, answer("bob", Reject, json!(7))).is_err());
    answers(&mut run, "bob", Reject).expect("without a value");
    assert_eq!(run.at("no").1, 1);
}

#[test]
fn answers_have_limits() {
    let mut run = opened(json!({}));
    let large = json!("x".repeat(crate::limits::ANSWER_BYTES));
    let refused = give(&mut run, answer("bob", Approve, large));
    assert!(matches!(refused, Err(Refusal::AnswerTooLarge { .. })), "{refused:?}");
    let comment = Some("x".repeat(crate::limits::COMMENT_BYTES + 1));
    let long = GateAnswer { comment, ..answer("bob", Approve, json!(1)) };
    assert!(matches!(give(&mut run, long), Err(Refusal::CommentTooLong { .. })));
}

#[test]
fn a_time_out_fails_rejects_or_goes_on() {
    let timed = |more: Value| {
        let mut gate = json!({"timeout": "1h"});
        for (key, value) in more.as_object().into_iter().flatten() {
            gate[key] = value.clone();
        }
        let mut run = opened(gate);
        run.advance_clock(3_600_000);
        run
    };
    let run = timed(json!({}));
    assert_eq!(run.failure(), "gate_timeout");
    assert_eq!(run.closed().error.as_ref().map(|error| error.kind), Some(FailureKind::Timeout));
    let run = timed(json!({"on_timeout": "reject"}));
    assert_eq!(run.at("no").1, 1);
    let run = timed(json!({"on_timeout": "proceed"}));
    assert_eq!(run.at("yes").1, 1);
    let got = run.run.live().and_then(|live| live.root.get("got").cloned()).expect("mapped");
    assert_eq!(*got, json!({"decision": "timed_out", "value": null, "answers": []}));

    let mut definition = gated(json!({"timeout": "1h"}));
    definition["transitions"][1]["on"] = json!("timeout");
    let mut run = Fixture::started(definition, json!({"sum": 5}));
    run.advance_clock(3_600_000);
    assert_eq!(run.at("no").1, 1);
}

#[test]
fn a_gate_that_is_given_up_is_closed_by_an_event_of_its_own() {
    let definition = json!({"name": "d", "start": "split",
        "nodes": {"split": {"compute": {}}, "quick": task(), "gate": {"gate": {"title": "?"}},
                  "end": task()},
        "transitions": [
            {"from": "split", "to": "quick", "group": "g"},
            {"from": "split", "to": "gate", "group": "g"},
            {"from": "quick", "to": "end", "join": {"group": "g", "wait": "any"}},
            {"from": "gate", "to": "end", "join": {"group": "g", "wait": "any"}}]});
    let mut run = Fixture::started(definition.clone(), json!({}));
    let decision = run.succeed("quick", json!(null));
    let closed = decision.events.iter().find_map(|event| match event {
        Event::GateClosed(closed) => Some((closed.token, closed.outcome)),
        _ => None,
    });
    assert_eq!(closed, Some((3, GateOutcome::Cancelled)));
    assert!(run.run.live().is_some_and(|live| live.gates.is_empty()));

    let mut run = Fixture::started(definition, json!({}));
    run.when(&Command::Cancel { reason: None, compensate: true }).expect("it is cancelled");
    assert_eq!(run.types().last(), Some(&"run_cancelled"));
}
