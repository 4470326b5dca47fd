//! Forks: their rows and their gates, in whatever batches their events come.

use protocol::{ForkedFrom, GateId, GateQueries, RunQueries};

use super::*;

on_both_storages!(
    a_fork_has_a_row_of_its_own,
    a_fork_with_a_long_past_is_there_once_it_is_whole,
    a_fork_that_waits_for_its_turn_stands_in_its_own_queue,
);

fn of_fork(parent: RunId) -> Event {
    let Event::RunStarted(mut first) = started(parent, json!({"n": 1}), &[]) else {
        unreachable!("it is a start")
    };
    let from = json!({"run_id": parent, "sequence": 2, "at": moment(50)});
    first.forked_from = Some(serde_json::from_value(from).expect("a fork"));
    Event::RunStarted(first)
}

async fn a_fork_has_a_row_of_its_own(storage: Storage) {
    let world = World::new(storage).await;
    let parent = run_id(1);
    let gate = event(json!({"type": "gate_opened", "token": 1, "node": "ask", "title": "Pay?",
        "approvals": 1, "rejections": 1, "deadline": moment(60)}));
    let paused = Event::RunPaused { reason: None, by_parent: false, by_workflow: false };
    let other = json!({"id": DefinitionId::new(Uuid::nil()), "name": "other", "version": 7,
        "hash": "0".repeat(64)});
    for (number, is_split) in [(2, false), (3, true)] {
        let fork = run_id(number);
        let forked = event(json!({"type": "run_forked", "run_id": fork, "from": parent,
            "sequence": 3, "until": 9, "adopt": "all", "since": moment(0), "input": {"n": 2},
            "definition": other}));
        let shared = [of_fork(parent), gate.clone(), paused.clone()];
        let position = if is_split {
            world.run(fork, 0, &shared).await;
            world.caught_up().await;
            world.run(fork, 3, &[forked]).await
        } else {
            let [first, second, third] = shared;
            world.run(fork, 0, &[first, second, third, forked]).await
        };
        let view =
            RunQueries::get(&*world.views, ours(), fork, Some(position)).await.expect("there");
        let from = ForkedFrom { run_id: parent.to_string(), sequence: 2 };
        assert_eq!(view.forked_from, Some(from));
        assert_eq!((view.started_at, view.input), (moment(50), json!({"n": 2})));
        assert_eq!((view.definition.name.as_str(), view.definition.version), ("other", 7));
        assert_eq!((view.status.as_str(), view.sequence), ("running", 4));
        let gate = GateId { run_id: fork, token: 1 };
        let gate = GateQueries::get(&*world.views, ours(), gate, Some(position)).await.expect("it");
        let late = if is_split { 3 } else { 0 };
        assert_eq!(gate.deadline, Some(moment(60 + late)), "later by the time since then");
    }
    let compared = world.views.compare("runs", |_| {}).await.expect("it compares");
    assert_eq!(compared.difference, None, "in whatever batches the events come");
}

async fn append(world: &World, run: RunId, after: u64, events: &[Event], metadata: &str) -> u64 {
    let encoded = events.iter().map(|event| NewEvent {
        id: Uuid::now_v7(),
        event_type: event.event_type().into(),
        event_version: 1,
        payload: codec::encode(event, ours()).expect("it encodes").payload.into(),
        recorded_at: None,
    });
    let (stream, encoded) = (run.to_string(), encoded.collect());
    world.append_encoded(("run", &stream), ours(), after, encoded, Vec::new(), metadata).await
}

async fn a_fork_with_a_long_past_is_there_once_it_is_whole(storage: Storage) {
    let world = World::new(storage).await;
    let (parent, fork) = (run_id(1), run_id(2));
    let gate = event(json!({"type": "gate_opened", "token": 1, "node": "ask", "title": "Pay?",
        "approvals": 1, "rejections": 1}));
    let paused = Event::RunPaused { reason: None, by_parent: false, by_workflow: false };
    let forked = event(json!({"type": "run_forked", "run_id": fork, "from": parent,
        "sequence": 3, "until": 9, "adopt": "all", "since": moment(0)}));
    let part = r#"{"actor":"ann","shared":3,"part":true}"#;
    append(&world, fork, 0, &[of_fork(parent), gate], part).await;
    let other = world.run(run_id(3), 0, &[started(run_id(3), json!({}), &[])]).await;
    let position = append(&world, fork, 2, &[paused], part).await;
    let read = |position| RunQueries::get(&*world.views, ours(), fork, Some(position));
    assert_eq!(&*read(position).await.expect_err("there is none yet").code, "not_found");
    let gate = GateId { run_id: fork, token: 1 };
    GateQueries::get(&*world.views, ours(), gate, Some(position)).await.expect_err("nor its gate");
    let whole = r#"{"actor":"ann","shared":3,"whole":true}"#;
    let position = append(&world, fork, 3, &[forked], whole).await;
    let view = read(position).await.expect("it is there");
    assert_eq!((view.status.as_str(), view.sequence, view.input), ("running", 4, json!({"n": 1})));
    let gate = GateQueries::get(&*world.views, ours(), gate, Some(position)).await.expect("it");
    assert_eq!(gate.title, "Pay?");
    assert!(other < position);
    world.caught_up().await;
    for projection in ["runs", "metrics"] {
        let compared = world.views.compare(projection, |_| {}).await.expect("it compares");
        assert_eq!(compared.difference, None, "{projection}, in whatever batches they come");
    }
}

async fn a_fork_that_waits_for_its_turn_stands_in_its_own_queue(storage: Storage) {
    let world = World::new(storage).await;
    let parent = run_id(1);
    let admission = |key: &str| json!({"key": key, "limit": 1, "rank": moment(50)});
    let gate = event(json!({"type": "gate_opened", "token": 1, "node": "ask", "title": "Pay?",
        "approvals": 1, "rejections": 1, "deadline": moment(60)}));
    let Event::RunStarted(mut first) = of_fork(parent) else { unreachable!("it is a start") };
    first.admission = Some(serde_json::from_value(admission("ann")).expect("an admission"));
    let first = Event::RunStarted(first);
    let admitted = event(json!({"type": "run_admitted"}));
    let queued = event(json!({"type": "run_queued", "reason": "concurrency", "key": "bob",
        "limit": 1, "ahead": 2}));
    for (number, is_split) in [(2, false), (3, true)] {
        let fork = run_id(number);
        let forked = event(json!({"type": "run_forked", "run_id": fork, "from": parent,
            "sequence": 3, "until": 9, "adopt": "all", "since": moment(3),
            "admission": admission("bob")}));
        let shared = [first.clone(), admitted.clone(), gate.clone()];
        let metadata = r#"{"actor":"ann","shared":3}"#;
        if is_split {
            append(&world, fork, 0, &shared, metadata).await;
            world.caught_up().await;
            append(&world, fork, 3, &[forked, queued.clone()], metadata).await;
            world.caught_up().await;
        } else {
            let [one, two, three] = shared;
            append(&world, fork, 0, &[one, two, three, forked, queued.clone()], metadata).await;
        }
        let position = world.run(fork, 5, std::slice::from_ref(&admitted)).await;
        let view = RunQueries::get(&*world.views, ours(), fork, Some(position)).await;
        assert_eq!(view.expect("there").status.as_str(), "running");
        let gate = GateId { run_id: fork, token: 1 };
        GateQueries::get(&*world.views, ours(), gate, Some(position)).await.expect("it is open");
    }
    let compared = world.views.compare("runs", |_| {}).await.expect("it compares");
    assert_eq!(compared.difference, None, "in whatever batches the events come");
}
