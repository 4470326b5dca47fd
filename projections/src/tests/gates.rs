//! Gates: rows, answers, filters, deadlines; and what a run waits for.

use protocol::{
    GateFilter, GateId, GateQueries, GateStatus, GateView, PageRequest, RejectionKind, RunQueries,
};

use super::*;

fn opened(token: u64, more: Value) -> Event {
    let mut gate = json!({"type": "gate_opened", "token": token, "node": "ask", "title": "Pay?",
        "approvals": 1, "rejections": 1});
    for (key, value) in more.as_object().expect("an object") {
        gate[key] = value.clone();
    }
    event(gate)
}

fn answered(token: u64, actor: &str, value: Value) -> Event {
    event(json!({"type": "gate_answered", "token": token, "actor": actor, "decision": "approve",
        "value": value, "comment": "fine", "at": moment(9)}))
}

fn closed(token: u64, outcome: &str) -> Event {
    event(json!({"type": "gate_closed", "token": token, "outcome": outcome}))
}

fn gate(run: RunId, token: u64) -> GateId {
    GateId { run_id: run, token }
}

async fn read(world: &World, gate: GateId, position: u64) -> GateView {
    GateQueries::get(&*world.views, ours(), gate, Some(position)).await.expect("it is there")
}

async fn ids(world: &World, filter: GateFilter) -> Vec<String> {
    world.caught_up().await;
    let page = PageRequest { limit: 200, ..PageRequest::default() };
    let page = GateQueries::list(&*world.views, ours(), filter, page).await.expect("a page");
    page.items.into_iter().map(|gate| gate.id).collect()
}

async fn a_gate_shows_what_its_events_say(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(8);
    let form = json!({"type": "object", "title": "f".repeat(70_000)});
    let who = json!({"form": form, "assignees": ["ann", "bob"], "roles": ["editor"],
        "not_by": "carol", "deadline": moment(60)});
    let position = world.run(run, 0, &[started(run, json!({}), &[]), opened(1, who)]).await;
    let view = read(&world, gate(run, 1), position).await;
    assert_eq!((view.status, view.outcome.as_deref()), (GateStatus::Open, None));
    assert_eq!((view.node.as_str(), view.title.as_str()), ("ask", "Pay?"));
    assert_eq!(view.form, Some(form));
    assert_eq!((view.assignees.len(), view.roles.len()), (2, 1));
    assert_eq!(view.not_by.as_deref(), Some("carol"));
    assert_eq!((view.definition.as_str(), view.deadline), ("flow-2", Some(moment(60))));
    assert_eq!(view.opened_at, moment(0));

    world.run(run, 2, &[answered(1, "ann", json!({"$ref": "mine"}))]).await;
    let position = world.run(run, 3, &[answered(1, "bob", json!(2)), closed(1, "approved")]).await;
    let view = read(&world, gate(run, 1), position).await;
    assert_eq!((view.status, view.outcome.as_deref()), (GateStatus::Closed, Some("approved")));
    assert_eq!(view.closed_at, Some(moment(3)));
    let answers: Vec<_> = view.answers.iter().map(|one| (&*one.actor, &one.value)).collect();
    assert_eq!(answers, [("ann", &json!({"$ref": "mine"})), ("bob", &json!(2))]);
    assert_eq!(view.answers[0].comment.as_deref(), Some("fine"));

    let hidden = GateQueries::get(&*world.views, theirs(), gate(run, 1), None).await;
    assert_eq!(hidden.expect_err("not theirs").kind, RejectionKind::NotFound);
}

async fn gates_are_listed_by_people_runs_and_status(storage: Storage) {
    let world = World::new(storage).await;
    let [a, b] = [run_id(10), run_id(11)];
    let ann = json!({"assignees": ["ann"]});
    let editors = json!({"roles": ["editor", "ann"]});
    world.run(a, 0, &[started(a, json!(1), &[]), opened(1, ann), opened(2, editors)]).await;
    world
        .run(b, 0, &[started(b, json!(1), &[]), opened(1, json!({})), closed(1, "rejected")])
        .await;
    let id = |run: RunId, token| gate(run, token).to_string();
    let all = GateFilter::default();
    let mut found = ids(&world, all.clone()).await;
    found.sort();
    assert_eq!(found, [id(a, 1), id(a, 2), id(b, 1)]);
    let cases = [
        (GateFilter { status: Some(GateStatus::Closed), ..all.clone() }, vec![id(b, 1)]),
        (GateFilter { assignee: Some("ann".into()), ..all.clone() }, vec![id(a, 1)]),
        (GateFilter { role: Some("editor".into()), ..all.clone() }, vec![id(a, 2)]),
        (GateFilter { run_id: Some(b.to_string()), ..all.clone() }, vec![id(b, 1)]),
        (GateFilter { workflow_id: Some("wf_x".into()), ..all.clone() }, vec![]),
    ];
    for (filter, expected) in cases {
        assert_eq!(ids(&world, filter.clone()).await, expected, "{filter:?}");
    }
    let page = |cursor| PageRequest { limit: 2, cursor, min_position: None };
    let first = GateQueries::list(&*world.views, ours(), all.clone(), page(None)).await;
    let first = first.expect("a page");
    assert_eq!(first.items.len(), 2);
    let rest = GateQueries::list(&*world.views, ours(), all, page(first.next_cursor)).await;
    let rest = rest.expect("a page");
    assert_eq!((rest.items.len(), rest.next_cursor), (1, None));
}

async fn the_end_of_a_run_closes_its_gates(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    let begun = [started(run, json!(1), &[]), opened(1, json!({})), opened(2, json!({}))];
    world.run(run, 0, &begun).await;
    world.caught_up().await;
    let ended = [closed(1, "approved"), Event::RunCancelled { reason: None, code: None }];
    let position = world.run(run, 3, &ended).await;
    let outcome = async |token| read(&world, gate(run, token), position).await.outcome;
    assert_eq!(outcome(1).await.as_deref(), Some("approved"));
    assert_eq!(outcome(2).await.as_deref(), Some("cancelled"));
}

async fn a_pause_is_shown_and_moves_deadlines(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    let timed = json!({"deadline": moment(100)});
    world.run(run, 0, &[started(run, json!(1), &[]), opened(1, timed.clone())]).await;
    let paused =
        Event::RunPaused { reason: Some("night".into()), by_parent: false, by_workflow: false };
    let position = world.run(run, 2, &[paused]).await;
    let view = RunQueries::get(&*world.views, ours(), run, Some(position)).await.expect("there");
    assert_eq!(view.status.as_str(), "paused");
    let position = world.run(run, 3, &[opened(2, timed)]).await;
    assert_eq!(read(&world, gate(run, 2), position).await.deadline, Some(moment(100)));
    // Paused at 2 s, resumed at 4 s; and once more within a batch.
    let again = [
        Event::RunResumed {},
        Event::RunPaused { reason: None, by_parent: true, by_workflow: false },
        Event::RunResumed {},
    ];
    let position = world.run(run, 4, &again).await;
    for token in [1, 2] {
        assert_eq!(read(&world, gate(run, token), position).await.deadline, Some(moment(102)));
    }
    let view = RunQueries::get(&*world.views, ours(), run, Some(position)).await.expect("there");
    assert_eq!(view.status.as_str(), "running");
    let compared = world.views.compare("runs", |_| {}).await.expect("it compares");
    assert_eq!(compared.difference, None, "in whatever batches the events come");
}

async fn what_a_run_waits_for_is_said(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    let split = json!({"type": "token_routed", "token": 1, "opened": [{"instance": 1, "group": "g",
        "branches": [{"transition": 0, "node": "ask", "count": 4}], "deadline": moment(500)}]});
    let spawn = json!({"type": "branches_spawned", "instance": 1, "index": 0, "token": 2,
        "count": 4});
    let timer = json!({"type": "wait_started", "token": 3, "until": moment(50)});
    let signal = json!({"type": "wait_started", "token": 4, "signal": "paid"});
    world
        .run(
            run,
            0,
            &[
                started(run, json!(1), &[]),
                event(json!({"type": "node_computed", "token": 1})),
                event(split),
                event(spawn),
                opened(2, json!({"assignees": ["ann", "bob"], "approvals": 2})),
                event(timer),
                event(signal),
            ],
        )
        .await;
    world.run(run, 7, &[answered(2, "ann", json!(1))]).await;
    let waiting = RunQueries::waiting(&*world.views, ours(), run).await.expect("a run");
    assert_eq!((waiting.status.as_str(), waiting.left_out), ("running", 0));
    let what: Vec<_> = waiting.items.iter().map(|item| (item.token, &*item.what)).collect();
    let tokens = [(Some(2), "gate"), (Some(3), "timer"), (Some(4), "signal"), (Some(5), "task")];
    assert_eq!(what[..4], tokens);
    assert_eq!(what[4], (None, "branches"));
    let asked = waiting.items[0].gate.as_ref().expect("a gate");
    assert_eq!((asked.approved, asked.approvals), (1, 2));
    assert!(waiting.items[0].by.starts_with("bob: "), "{}", waiting.items[0].by);
    assert_eq!(waiting.items[0].since, Some(moment(0)));
    assert_eq!(waiting.items[1].until, Some(moment(50)));
    assert_eq!(waiting.items[2].signal.as_deref(), Some("paid"));
    let group = &waiting.items[4];
    assert_eq!((group.group.as_deref(), group.until), (Some("g"), Some(moment(500))));
    assert_eq!(group.branches.map(|branches| branches.outstanding), Some(4));
    assert_eq!(group.branches.and_then(|branches| branches.needed), None, "no definition is there");

    let join = json!({"group": "g", "wait": 3});
    let definition = json!({"name": "flow", "start": "first",
        "nodes": {"first": {"compute": {}}, "ask": {"wait": {"for": "1s"}}, "end": {"compute": {}}},
        "transitions": [{"from": "first", "to": "ask", "spawn": 4, "group": "g"},
                        {"from": "ask", "to": "end", "join": join}]});
    let created = json!({"type": "created", "revision": 1, "spec": {"kind": "workflow_definition",
        "spec": {"project_id": project_id(0), "definition": definition, "hash": "ab"}}});
    let created: domain::resource::Event = serde_json::from_value(created).expect("an event");
    let id = DefinitionId::new(Uuid::nil()).to_string();
    world.append(("workflow_definition", &id), ours(), 0, &[created]).await;
    let waiting = RunQueries::waiting(&*world.views, ours(), run).await.expect("a run");
    let group = &waiting.items[4];
    assert_eq!((group.node.as_deref(), group.until), (Some("end"), Some(moment(500))));
    assert_eq!(group.branches.and_then(|branches| branches.needed), Some(3));
    assert_eq!(waiting.items[3].what, "coordinator", "nothing of a wait is on a worker");
    let hidden = RunQueries::waiting(&*world.views, theirs(), run).await;
    assert_eq!(hidden.expect_err("not theirs").kind, RejectionKind::NotFound);
}

on_both_storages!(
    a_gate_shows_what_its_events_say,
    gates_are_listed_by_people_runs_and_status,
    the_end_of_a_run_closes_its_gates,
    a_pause_is_shown_and_moves_deadlines,
    what_a_run_waits_for_is_said,
);
