//! A run at its limits and one beyond them.

use serde_json::{Value, json};

use super::fixture::{Fixture, error, task, task_into};
use crate::limits;
use crate::run::command::AttemptError;
use crate::run::{Command, Decision, Event, FailureKind, Refusal, Run, RunStatus};

fn chain(nodes: &[(&str, Value)]) -> Value {
    let steps: Vec<_> =
        nodes.windows(2).map(|pair| json!({"from": pair[0].0, "to": pair[1].0})).collect();
    let nodes: serde_json::Map<_, _> =
        nodes.iter().map(|(name, node)| ((*name).to_owned(), node.clone())).collect();
    let start = nodes.keys().next().expect("a node");
    json!({"name": "d", "start": start, "nodes": nodes, "transitions": steps})
}

/// The run, as if it had come to so many events.
fn aged(definition: Value, events: u64) -> Fixture {
    let mut run = Fixture::started(definition, json!({}));
    let Run::Live(live) = &mut run.run else { panic!("it goes on") };
    live.events = events;
    run
}

fn events(run: &Fixture) -> u64 {
    run.run.live().expect("it goes on").events
}

fn nothing(decision: Result<Decision, Refusal>) {
    let decision = decision.expect("it isn't refused");
    assert!(decision.events.is_empty() && decision.dispatch.is_empty() && !decision.advance);
}

fn is_refused_resumption(run: &mut Fixture) {
    let limit = limits::EVENTS_PER_RUN;
    assert_eq!(run.when(&Command::Resume), Err(Refusal::TooManyEvents { limit }));
    nothing(run.when(&Command::FollowParent { is_paused: false }));
    nothing(run.when(&Command::FollowParent { is_paused: true }));
    nothing(run.when(&Command::Advance));
    nothing(run.when(&Command::Wake));
    assert_eq!(run.run.status(), Some(RunStatus::Paused));
}

#[test]
fn a_run_with_as_many_events_as_it_may_have_is_suspended_and_not_ended() {
    let steps = || chain(&[("a", task()), ("b", task()), ("c", task())]);
    // An outcome and a step: one event below the limit, and at it.
    let mut run = aged(steps(), limits::EVENTS_PER_RUN - 3);
    run.succeed("a", json!(1));
    assert_eq!(events(&run), limits::EVENTS_PER_RUN - 1);
    assert_eq!(run.run.status(), Some(RunStatus::Running));

    let mut run = aged(steps(), limits::EVENTS_PER_RUN - 2);
    let decision = run.succeed("a", json!(1));
    let Some(Event::RunPaused { reason: Some(reason), .. }) = decision.events.last() else {
        panic!("it is suspended: {:?}", decision.events);
    };
    assert!(reason.contains("1000000 events"), "{reason}");
    assert_eq!(decision.dispatch.len(), 1, "what had begun goes on");
    is_refused_resumption(&mut run);
    // Its outcome is taken, and nothing follows.
    assert!(run.succeed("b", json!(2)).dispatch.is_empty());
    is_refused_resumption(&mut run);
    run.when(&Command::Cancel { reason: None, compensate: true }).expect("it can be cancelled");
    assert_eq!(run.run.status(), Some(RunStatus::Cancelled));
}

#[test]
fn work_of_the_engine_stops_at_the_limit_as_well() {
    let mut definition = chain(&[("a", task()), ("b", json!({"compute": {"state.n": 1}}))]);
    let again = json!({"from": "b", "to": "b", "max_iterations": 1_000});
    definition["transitions"].as_array_mut().expect("a list").push(again);
    let mut run = aged(definition, limits::EVENTS_PER_RUN - 500);
    let decision = run.succeed("a", json!(1));
    assert_eq!(run.run.status(), Some(RunStatus::Paused));
    assert!(!decision.advance && !run.run.owed(&run.plan).advance);
    assert!(events(&run) <= limits::EVENTS_PER_RUN + 2, "{}", events(&run));
    is_refused_resumption(&mut run);
    run.when(&Command::Cancel { reason: None, compensate: false }).expect("it can be cancelled");
    assert_eq!(run.run.status(), Some(RunStatus::Cancelled));
}

#[test]
fn timers_of_a_suspended_run_end_nothing() {
    let mut definition = chain(&[("a", task()), ("b", json!({"wait": {"for": "10m"}}))]);
    definition["timeout"] = json!("1h");
    let mut run = aged(definition, limits::EVENTS_PER_RUN - 3);
    run.succeed("a", json!(1));
    assert_eq!(run.run.status(), Some(RunStatus::Paused));
    assert!(run.advance_clock(86_400_000).events.is_empty());
    is_refused_resumption(&mut run);
}

#[test]
fn a_suspended_run_that_is_cancelled_undoes_its_work() {
    let mut undone = task();
    undone["undo"] = json!({"action": {"kind": "mock"}});
    let mut definition = chain(&[("a", undone), ("b", task()), ("c", task())]);
    definition["compensate"] = json!(true);
    let mut run = aged(definition, limits::EVENTS_PER_RUN - 2);
    run.succeed("a", json!(1));
    is_refused_resumption(&mut run);
    let decision = run.when(&Command::Cancel { reason: None, compensate: true });
    let decision = decision.expect("it can be cancelled");
    let [(undo, attempt)] = decision.dispatch[..] else { panic!("{decision:?}") };
    run.report(undo, attempt, Ok(json!(null))).expect("it is owed");
    assert_eq!(run.types().iter().filter(|event| **event == "undo_succeeded").count(), 1);
    assert_eq!(run.run.status(), Some(RunStatus::Cancelled));
}

#[test]
fn an_input_is_at_most_4_mib_and_64_deep() {
    let start = |input: Value| {
        let mut run = Fixture::new(chain(&[("a", task())]));
        let started = run.start(input).map(drop);
        assert_eq!(run.run.status().is_some(), started.is_ok(), "a refusal changes nothing");
        started
    };
    // A text takes two bytes more than it has.
    let text = |bytes: usize| json!("x".repeat(bytes - 2));
    assert_eq!(start(text(limits::INPUT_BYTES)), Ok(()));
    let (bytes, limit) = (limits::INPUT_BYTES + 1, limits::INPUT_BYTES);
    assert_eq!(start(text(bytes)), Err(Refusal::InputTooLarge { bytes, limit }));
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(start(nested(limits::JSON_DEPTH)), Ok(()));
    let limit = limits::JSON_DEPTH;
    assert_eq!(start(nested(limit + 1)), Err(Refusal::InputTooDeep { limit }));
}

/// How a run ends: its failure's code, or `completed`.
fn end_of(run: &Fixture) -> &str {
    match run.closed().status {
        RunStatus::Completed => "completed",
        _ => run.failure(),
    }
}

#[test]
fn a_result_has_at_most_8_mib() {
    let end = |bytes: usize| {
        let mut run = Fixture::started(chain(&[("a", task())]), json!({}));
        run.succeed("a", json!("x".repeat(bytes - 2)));
        end_of(&run).to_owned()
    };
    assert_eq!(end(limits::CONTEXT_BYTES), "completed");
    assert_eq!(end(limits::CONTEXT_BYTES + 1), "result_too_large");
}

#[test]
fn the_state_has_at_most_8_mib_whoever_wrote_it() {
    const PART: usize = 3 * 1024 * 1024;
    let end = |last: usize| {
        let names = ["a", "b", "c"];
        let nodes = names.map(|name| (name, task_into(&format!("state.{name}"))));
        let mut definition = chain(&nodes);
        definition["output"] = json!({});
        let mut run = Fixture::started(definition, json!({}));
        for (node, bytes) in names.into_iter().zip([PART, PART, last]) {
            run.succeed(node, json!("x".repeat(bytes - 2)));
        }
        end_of(&run).to_owned()
    };
    assert_eq!(end(limits::CONTEXT_BYTES - 2 * PART), "completed");
    assert_eq!(end(limits::CONTEXT_BYTES - 2 * PART + 1), "context_too_large");
}

#[test]
fn an_append_makes_at_most_250_tokens() {
    let most = |count: usize| {
        let definition = json!({"name": "many", "start": "a",
            "nodes": {"a": task(), "b": task()},
            "transitions": [{"from": "a", "to": "b", "spawn": "${input.n}"}]});
        let mut run = Fixture::started(definition, json!({"n": count}));
        let (token, attempt) = run.at("a");
        let report = crate::run::command::Report {
            token,
            attempt,
            result: Ok(json!(1)),
            usage: Default::default(),
            duration_ms: 1,
            adopted: None,
        };
        let first = run
            .run
            .execute(&run.plan, &Command::Report(Box::new(report)), run.now)
            .expect("it is owed");
        (first.dispatch.len(), first.advance)
    };
    assert_eq!(most(limits::TOKENS_PER_APPEND), (250, false));
    assert_eq!(most(limits::TOKENS_PER_APPEND + 1), (250, true));
}

/// A fan-out over so many branches, of which the first that is through is enough.
fn wide(branches: u64) -> Fixture {
    let definition = json!({"name": "wide", "start": "a",
        "nodes": {"a": compute(), "b": compute(), "c": compute()},
        "transitions": [{"from": "a", "to": "b", "spawn": "${input.n}", "group": "g"},
            {"from": "b", "to": "c", "join": {"group": "g", "wait": "any"}}]});
    Fixture::started(definition, json!({"n": branches}))
}

#[test]
fn a_fan_out_of_100_000_branches_completes_and_a_larger_one_makes_none() {
    let run = wide(limits::TOKENS_PER_RUN);
    assert_eq!(end_of(&run), "completed");
    let run = wide(limits::TOKENS_PER_RUN + 1);
    assert_eq!(end_of(&run), "token_limit");
    assert!(!run.types().contains(&"branches_spawned"));
}

fn compute() -> Value {
    json!({"compute": {"state.n": 1}})
}

fn wait() -> Value {
    json!({"wait": {"for": "1h"}})
}

#[test]
fn tokens_are_counted_while_they_are_there_and_before_they_are_made() {
    let definition = json!({"name": "nested", "start": "a",
        "nodes": {"a": compute(), "b": compute(), "c": wait(), "d": compute(), "e": compute()},
        "transitions": [
            {"from": "a", "to": "b", "spawn": "${input.outer}", "group": "outer"},
            {"from": "b", "to": "c", "spawn": "${input.inner}", "group": "inner"},
            {"from": "c", "to": "d", "join": {"group": "inner"}},
            {"from": "d", "to": "e", "join": {"group": "outer"}}]});
    let run = |outer: u64, inner: u64| {
        Fixture::started(definition.clone(), json!({"outer": outer, "inner": inner}))
    };
    assert_eq!(run(10, 10_000).run.live().map(|live| live.tokens.len()), Some(100_000));
    assert_eq!(run(10, 10_001).failure(), "token_limit");
    // It is no matter how many there were before.
    let mut nested = run(2, 3);
    let Run::Live(live) = &mut nested.run else { panic!("it goes on") };
    live.next_token = 10 * limits::TOKENS_PER_RUN;
    nested.advance_clock(3_600_000);
    assert_eq!(end_of(&nested), "completed");
}

#[test]
fn a_group_that_is_added_to_has_at_most_100_000_branches() {
    let run = |more: u64| {
        let definition = json!({"name": "grown", "start": "a",
            "nodes": {"a": compute(), "b": compute(), "c": wait(), "d": compute()},
            "transitions": [{"from": "a", "to": "b", "group": "g", "spawn": 1},
                {"from": "b", "to": "c", "extend": "g", "spawn": "${input.n}"},
                {"from": "c", "to": "d", "join": {"group": "g", "failed": "ignore"}}]});
        Fixture::started(definition, json!({"n": more}))
    };
    assert_eq!(run(99_999).run.live().map(|live| live.tokens.len()), Some(99_999));
    assert_eq!(run(100_000).failure(), "token_limit");
}

#[test]
fn a_run_has_at_most_32_labels() {
    let start = |count: usize| {
        let mut run = Fixture::new(chain(&[("a", task())]));
        run.labels = (0..count).map(|number| (format!("l{number}"), String::new())).collect();
        run.start(json!({})).map(drop)
    };
    assert_eq!(start(limits::LABELS), Ok(()));
    let (count, limit) = (limits::LABELS + 1, limits::LABELS);
    assert_eq!(start(count), Err(Refusal::TooManyLabels { count, limit }));
}

#[test]
fn names_at_a_gate_have_at_most_256_bytes_and_titles_are_cut() {
    let open = |name: usize, title: usize| {
        let gate = json!({"title": "${input.title}", "assignees": "${[input.name]}"});
        let input = json!({"name": "x".repeat(name), "title": "x".repeat(title)});
        Fixture::started(chain(&[("a", json!({"gate": gate}))]), input)
    };
    let run = open(limits::ASSIGNEE_BYTES, limits::TITLE_BYTES + 1);
    let Event::GateOpened(opened) = &run.events[1].0 else { panic!("{:?}", run.types()) };
    assert_eq!(opened.assignees, ["x".repeat(limits::ASSIGNEE_BYTES)]);
    assert!(opened.title.len() <= limits::TITLE_BYTES && opened.title.ends_with('…'));
    assert_eq!(open(limits::ASSIGNEE_BYTES + 1, 1).failure(), "type_mismatch");
}

#[test]
fn of_undos_that_fail_20_are_named_and_all_are_counted() {
    let ends = |count: usize| {
        let mut step = task();
        step["undo"] = json!({"action": {"kind": "mock"}});
        let definition = json!({"name": "many", "start": "a", "compensate": true,
            "nodes": {"a": step},
            "transitions": [{"from": "a", "to": "a", "max_iterations": count}]});
        let mut run = Fixture::started(definition, json!({}));
        for _ in 0..count {
            run.succeed("a", json!(1));
        }
        run.when(&Command::Cancel { reason: None, compensate: true }).expect("it is cancelled");
        while let Some((token, attempt)) = run.owed.first().copied() {
            let message = "x".repeat(limits::UNDO_MESSAGE_CHARS + 1);
            let failed = AttemptError { message, ..error(FailureKind::Permanent) };
            run.report(token, attempt, Err(failed)).expect("it is owed");
        }
        run.closed().compensation.as_deref().cloned().expect("it was undone")
    };
    let most = ends(limits::UNDO_FAILURES);
    assert_eq!((most.failed, most.failures.len()), (20, 20));
    assert_eq!(most.failures[0].message.chars().count(), limits::UNDO_MESSAGE_CHARS);
    let more = ends(limits::UNDO_FAILURES + 1);
    assert_eq!((more.failed, more.failures.len()), (21, 20));
}
