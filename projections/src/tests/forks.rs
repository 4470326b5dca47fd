//! Forks: their rows and their gates, in whatever batches their events come.

use protocol::{ForkedFrom, GateId, GateQueries, RunQueries};

use super::*;

on_both_storages!(a_fork_has_a_row_of_its_own);

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
