//! Waits for times and signals, and business events.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::fixture::{Fixture, task};
use crate::limits;
use crate::run::{Command, Decision, Event, Refusal, RunStatus};

/// A wait that is followed by a task, and what its result was in `state.got`.
fn waits(wait: Value) -> Value {
    json!({"name": "d", "start": "wait",
        "nodes": {"wait": {"wait": wait, "output": {"state.got": "${result}"}}, "then": task()},
        "transitions": [{"from": "wait", "to": "then"}]})
}

fn got(run: &Fixture) -> Value {
    let got = run.run.live().and_then(|live| live.root.get("got").cloned());
    got.as_deref().cloned().unwrap_or_default()
}

fn signal(run: &mut Fixture, name: &str, payload: Value) -> Result<Decision, Refusal> {
    send(run, name, payload, false)
}

fn send(
    run: &mut Fixture,
    name: &str,
    payload: Value,
    transient: bool,
) -> Result<Decision, Refusal> {
    let name = name.parse().expect("a name");
    run.when(&Command::Signal { name, payload, transient })
}

#[test]
fn a_span_passes() {
    let mut run = Fixture::started(waits(json!({"for": "${input.span}"})), json!({"span": "10m"}));
    assert_eq!(run.types(), ["run_started", "wait_started"]);
    assert_eq!(run.run.status(), Some(RunStatus::Waiting));
    let due = run.now + TimeDelta::minutes(10);
    assert_eq!(run.run.next_due(), Some(due));
    run.advance_clock(599_999);
    assert_eq!(run.types().len(), 2);
    run.advance_clock(1);
    assert_eq!(run.types()[2..], ["wait_ended", "token_routed"]);
    assert_eq!(got(&run), json!({"due": due}));
    assert_eq!(run.run.status(), Some(RunStatus::Running));
    assert_eq!(run.at("then"), (2, 1));
    assert_eq!(run.run.next_due(), None);
}

#[test]
fn a_time_that_is_past_ends_the_wait_at_once() {
    let run = Fixture::started(waits(json!({"until": "2001-01-01T00:00:00+01:00"})), json!({}));
    assert_eq!(run.types(), ["run_started", "wait_ended", "token_routed"]);
    assert_eq!(got(&run), json!({"due": "2000-12-31T23:00:00Z"}));
    let run = Fixture::started(waits(json!({"for": "0ms"})), json!({}));
    assert_eq!(run.types(), ["run_started", "wait_ended", "token_routed"]);
}

#[test]
fn what_is_no_time_fails_the_node() {
    for (wait, value, code) in [
        (json!({"for": "${input.x}"}), json!(5), "type_mismatch"),
        (json!({"for": "${input.x}"}), json!("soon"), "invalid_argument"),
        (json!({"until": "${input.x}"}), json!("tomorrow"), "invalid_argument"),
    ] {
        let run = Fixture::started(waits(wait), json!({"x": value}));
        assert_eq!(run.failure(), code);
        let error = run.closed().error.as_ref().expect("it failed");
        assert_eq!(error.node.as_deref(), Some("wait"));
    }
}

#[test]
fn a_signal_wakes_the_wait_and_is_its_result() {
    let mut run = Fixture::started(waits(json!({"signal": "paid"})), json!({}));
    signal(&mut run, "shipped", json!(null)).expect("other signals are kept");
    assert_eq!(run.types()[2..], ["signal_received"]);
    signal(&mut run, "paid", json!({"sum": 5})).expect("it is taken");
    assert_eq!(run.types()[3..], ["signal_received", "wait_ended", "token_routed"]);
    assert_eq!(got(&run), json!({"name": "paid", "payload": {"sum": 5}, "sent_at": run.now}));
    let live = run.run.live().expect("it goes on");
    assert_eq!((live.signals.received, live.signals.kept.len()), (2, 1));
}

#[test]
fn a_signal_is_kept_for_a_wait_that_is_reached_later_and_wakes_one_only() {
    let mut definition = waits(json!({"signal": "go"}));
    definition["start"] = json!("before");
    definition["nodes"]["before"] = task();
    definition["nodes"]["again"] = json!({"wait": {"signal": "go"}});
    definition["transitions"] = json!([{"from": "before", "to": "wait"},
        {"from": "wait", "to": "again"}, {"from": "again", "to": "then"}]);
    let mut run = Fixture::started(definition, json!({}));
    signal(&mut run, "go", json!(1)).expect("kept");
    run.succeed("before", json!(null));
    assert_eq!(got(&run)["payload"], 1);
    let live = run.run.live().expect("it goes on");
    assert!(live.signals.kept.is_empty());
    assert_eq!(live.signals.bytes, 0);
    assert_eq!(run.run.status(), Some(RunStatus::Waiting));
    signal(&mut run, "go", json!(2)).expect("taken by the second wait");
    assert_eq!(run.at("then").1, 1);
}

#[test]
fn a_transient_signal_that_nobody_waits_for_is_dropped_and_recorded() {
    let mut definition = waits(json!({"signal": "go"}));
    definition["start"] = json!("before");
    definition["nodes"]["before"] = task();
    definition["transitions"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"from": "before", "to": "wait"}));
    let mut run = Fixture::started(definition, json!({}));
    send(&mut run, "go", json!(1), true).expect("dropped");
    let Some((Event::SignalReceived(dropped), _)) = run.events.last() else {
        panic!("{:?}", run.types())
    };
    assert!(dropped.dropped);
    run.succeed("before", json!(null));
    assert_eq!(run.run.status(), Some(RunStatus::Waiting));
    send(&mut run, "go", json!(2), true).expect("taken");
    assert_eq!(got(&run)["payload"], 2);
}

#[test]
fn a_condition_chooses_among_signals_and_the_oldest_wait_is_first() {
    let definition = json!({"name": "d", "start": "split",
        "nodes": {"split": {"compute": {}}, "then": task(),
            "wait": {"wait": {"signal": "paid", "when": "signal.payload.order == item"},
                     "output": {"state.got": "${result.payload.order}"}},
            "any": {"wait": {"signal": "paid"}, "output": {"state.got": "any"}}},
        "transitions": [
            {"from": "split", "to": "wait", "foreach": "${input.orders}", "group": "g"},
            {"from": "split", "to": "any", "group": "g"},
            {"from": "wait", "to": "then", "join": {"group": "g", "merge":
                {"strategy": "collect", "from": "${state.got}", "into": "state.all"}}},
            {"from": "any", "to": "then", "join": {"group": "g", "merge":
                {"strategy": "collect", "from": "${state.got}", "into": "state.all"}}}]});
    let mut run = Fixture::started(definition, json!({"orders": [1, 2]}));
    assert_eq!(run.run.live().map(|live| live.waits.total()), Some(3));
    let ended = |decision: Result<Decision, Refusal>| {
        decision.expect("it is taken").events.into_iter().find_map(|event| match event {
            Event::WaitEnded { token, .. } => Some(token),
            _ => None,
        })
    };
    assert_eq!(ended(signal(&mut run, "paid", json!({"order": 2}))), Some(3));
    // No condition fits a payload that it can't read; the wait without one takes it.
    assert_eq!(ended(signal(&mut run, "paid", json!("odd"))), Some(4));
    assert_eq!(ended(signal(&mut run, "paid", json!({"order": 3}))), None);
    assert_eq!(ended(signal(&mut run, "paid", json!({"order": 1}))), Some(2));
    assert_eq!(run.input_at("then"), json!({}));
    let all = run.run.live().and_then(|live| live.root.get("all").cloned());
    assert_eq!(all.as_deref(), Some(&json!([1, 2, "any"])));
}

#[test]
fn a_signal_that_never_comes_times_the_wait_out() {
    let mut definition = waits(json!({"signal": "paid", "timeout": "1h"}));
    definition["nodes"]["late"] = task();
    definition["transitions"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"from": "wait", "to": "late", "on": "timeout"}));
    let mut run = Fixture::started(definition, json!({}));
    run.advance_clock(3_600_000);
    assert_eq!(run.types()[2..], ["node_failed", "token_routed"]);
    assert_eq!(run.at("late").1, 1);
    let mut run = Fixture::started(waits(json!({"signal": "paid", "timeout": "1h"})), json!({}));
    run.advance_clock(3_600_000);
    assert_eq!(run.failure(), "wait_timeout");
}

#[test]
fn a_mapping_that_fails_over_a_signal_fails_the_node_and_the_signal_is_gone() {
    let mut definition = waits(json!({"signal": "paid"}));
    definition["nodes"]["wait"]["output"] = json!({"state.sum": "${result.payload.sum + 1}"});
    definition["transitions"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"from": "wait", "to": "then", "on": "failure"}));
    let mut run = Fixture::started(definition, json!({}));
    signal(&mut run, "paid", json!("nothing")).expect("it is taken");
    assert_eq!(run.types()[3..], ["wait_ended", "node_failed", "token_routed"]);
    assert!(run.run.live().is_some_and(|live| live.signals.kept.is_empty()));
}

#[test]
fn signals_have_limits_and_a_refused_one_changes_nothing() {
    let mut definition = waits(json!({"signal": "go"}));
    definition["start"] = json!("then");
    definition["transitions"] = json!([{"from": "then", "to": "wait"}]);
    let mut run = Fixture::started(definition, json!({}));
    let large = json!("x".repeat(limits::SIGNAL_BYTES));
    assert!(matches!(signal(&mut run, "go", large), Err(Refusal::SignalTooLarge { .. })));
    for number in 0..limits::SIGNALS {
        signal(&mut run, "go", json!(number)).expect("there is room");
    }
    let before = run.run.clone();
    let kept = limits::SIGNALS;
    let refused = signal(&mut run, "other", json!(0));
    assert_eq!(refused, Err(Refusal::TooManySignals { kept }));
    assert_eq!(run.run, before);
    send(&mut run, "other", json!(0), true).expect("a transient one isn't kept");
    let mut run = Fixture::started(waits(json!({"for": "1h"})), json!({}));
    let mib = json!("x".repeat(limits::SIGNAL_BYTES - 2));
    for _ in 0..limits::CONTEXT_BYTES / limits::SIGNAL_BYTES {
        signal(&mut run, "go", mib.clone()).expect("there is room");
    }
    assert_eq!(signal(&mut run, "go", mib), Err(Refusal::TooManySignals { kept: 8 }));
}

#[test]
fn a_wait_that_is_given_up_leaves_no_timer() {
    let definition = json!({"name": "d", "start": "split",
        "nodes": {"split": {"compute": {}}, "quick": task(), "slow": {"wait": {"for": "1h"}},
                  "end": task()},
        "transitions": [
            {"from": "split", "to": "quick", "group": "g"},
            {"from": "split", "to": "slow", "group": "g"},
            {"from": "quick", "to": "end", "join": {"group": "g", "wait": "any"}},
            {"from": "slow", "to": "end", "join": {"group": "g", "wait": "any"}}]});
    let mut run = Fixture::started(definition, json!({}));
    assert!(run.run.next_due().is_some());
    run.succeed("quick", json!(null));
    let live = run.run.live().expect("it goes on");
    assert_eq!((live.waits.total(), live.timers.len(), live.tokens.len()), (0, 0, 1));
}

#[test]
fn an_emit_node_is_one_event_and_goes_on() {
    let definition = json!({"name": "d", "start": "tell",
        "nodes": {"tell": {"emit": {"event": "order-approved", "data": {"id": "${input.id}"}}}}});
    let run = Fixture::started(definition, json!({"id": 7}));
    assert_eq!(run.types(), ["run_started", "event_emitted", "token_routed", "run_completed"]);
    let told =
        Event::EventEmitted { token: 1, name: "order-approved".to_owned(), data: json!({"id": 7}) };
    assert_eq!(run.events[1].0, told);
}

#[test]
fn an_emit_node_gives_a_metric_a_value_or_fails() {
    let definition = json!({"name": "m", "start": "measure",
        "nodes": {"measure": {"emit": {"metric": "score", "value": "${input.n}",
            "dimensions": {"region": "${input.r}", "fixed": 7, "none": "${input.none}"}}}}});
    let run = Fixture::started(definition.clone(), json!({"n": 1.5, "r": "eu", "none": null}));
    assert_eq!(run.types(), ["run_started", "metric_emitted", "token_routed", "run_completed"]);
    let dimensions = [("region", "eu"), ("fixed", "7")];
    let dimensions = dimensions.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    let emitted =
        Event::MetricEmitted { token: 1, name: "score".to_owned(), value: 1.5, dimensions };
    assert_eq!(run.events[1].0, emitted);
    for (input, place) in [
        (json!({"n": "many", "r": "eu", "none": null}), "emit.value"),
        (json!({"n": 1e13, "r": "eu", "none": null}), "emit.value"),
        (json!({"n": 1, "r": ["eu"], "none": null}), "emit.dimensions.region"),
        (json!({"n": 1, "r": "a\nb", "none": null}), "emit.dimensions.region"),
    ] {
        let run = Fixture::started(definition.clone(), input);
        let Some((Event::RunFailed { error }, _)) = run.events.last() else { panic!("it failed") };
        assert_eq!(
            (error.code.as_str(), error.node.as_deref()),
            ("invalid_metric", Some("measure"))
        );
        assert!(error.message.starts_with(place), "{}", error.message);
    }
}
