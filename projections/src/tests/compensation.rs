//! Compensation: its numbers in a run's row, its entries in the timeline, and the gates it closes.

use protocol::{GateId, GateQueries, GateStatus, RunQueries};

use super::*;

fn completed(token: u64) -> Event {
    event(json!({"type": "task_succeeded", "token": token, "attempt": 1, "result": 1,
        "undo": {"id": token}}))
}

fn undo(token: u64, undoes: u64) -> Event {
    event(json!({"type": "undo_started", "token": token, "undoes": undoes, "node": "n"}))
}

fn failed(token: u64, attempt: u32, more: Value) -> Event {
    let mut failed = json!({"type": "undo_failed", "token": token, "attempt": attempt,
        "error": {"code": "gone", "message": "it is gone", "kind": "permanent"},
        "usage": {"input_tokens": 1, "output_tokens": 2, "cost_micros": 3}});
    for (key, value) in more.as_object().expect("an object") {
        failed[key] = value.clone();
    }
    event(failed)
}

/// What happens until the run has ended; `detail` is the one of its error.
fn history(run: RunId, detail: &str) -> Vec<Event> {
    let error = json!({"code": "no_money", "message": "no", "kind": "permanent", "node": "n",
        "detail": detail});
    let gate = json!({"type": "gate_opened", "token": 3, "node": "ask", "title": "Pay?",
        "approvals": 1, "rejections": 1});
    vec![
        started(run, json!(1), &[]),
        completed(1),
        moved(1, 2),
        completed(2),
        moved(2, 3),
        event(gate),
        event(json!({"type": "compensation_started", "status": "failed", "error": error,
            "total": 2})),
        undo(4, 2),
        failed(4, 1, json!({"retry_at": moment(9)})),
        event(json!({"type": "retry_started", "token": 4, "attempt": 2})),
        failed(4, 2, json!({})),
        undo(5, 1),
        event(json!({"type": "undo_succeeded", "token": 5, "attempt": 1, "result": 1})),
        event(json!({"type": "compensation_ended", "total": 2, "undone": 1, "failed": 1,
            "failures": [{"node": "n", "undoes": 2, "token": 4, "code": "gone",
                "message": "it is gone"}]})),
        event(json!({"type": "run_failed", "error": error})),
    ]
}

async fn a_row_counts_what_is_undone_and_names_what_could_not_be(storage: Storage) {
    let world = World::new(storage).await;
    // An error that stands apart from its event doesn't stop the fold.
    let large = "x".repeat(100_000);
    for (number, detail) in [(1, "small"), (2, large.as_str())] {
        let run = run_id(number);
        let events = history(run, detail);
        let read = async |position| {
            RunQueries::get(&*world.views, ours(), run, Some(position)).await.expect("there")
        };
        let numbers = |view: &protocol::RunView| {
            let one = view.compensation.as_ref()?;
            Some((one.total, one.undone, one.failed, one.remaining, one.failures.len()))
        };
        let position = world.run(run, 0, &events[..6]).await;
        assert_eq!(read(position).await.compensation, None);
        let position = world.run(run, 6, &events[6..9]).await;
        let view = read(position).await;
        assert_eq!((view.status.as_str(), numbers(&view)), ("running", Some((2, 0, 0, 2, 0))));
        let position = world.run(run, 9, &events[9..12]).await;
        assert_eq!(numbers(&read(position).await), Some((2, 0, 1, 1, 0)));
        let position = world.run(run, 12, &events[12..]).await;
        let view = read(position).await;
        assert_eq!((view.status.as_str(), numbers(&view)), ("failed", Some((2, 1, 1, 0, 1))));
        let compensation = view.compensation.expect("it is there");
        assert_eq!(compensation.cause, "failed");
        let failure = &compensation.failures[0];
        assert_eq!((&*failure.node, failure.undoes, &*failure.code), ("n", 2, "gone"));
        assert_eq!(view.usage.input_tokens, 2, "each attempt counts");
    }
    let compared = world.views.compare("runs", |_| {}).await.expect("it compares");
    assert_eq!(compared.difference, None, "in whatever batches the events come");
}

async fn it_closes_gates_and_its_undos_stand_in_the_timeline(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    let events = history(run, "small");
    let position = world.run(run, 0, &events[..9]).await;
    let gate = GateId { run_id: run, token: 3 };
    let gate = GateQueries::get(&*world.views, ours(), gate, Some(position)).await.expect("there");
    assert_eq!((gate.status, gate.outcome.as_deref()), (GateStatus::Closed, Some("cancelled")));
    let waiting = RunQueries::waiting(&*world.views, ours(), run).await.expect("there");
    let compensation = waiting.compensation.expect("it is at it");
    assert_eq!((compensation.cause.as_str(), compensation.remaining), ("failed", 2));
    let item = &waiting.items[0];
    assert_eq!((item.what.as_str(), item.undoes, item.attempt), ("retry", Some(2), Some(2)));
    world.run(run, 9, &events[9..]).await;
    let timeline = RunQueries::timeline(&*world.views, ours(), run).await.expect("there");
    let entries: Vec<_> = timeline
        .iter()
        .map(|entry| (entry.token, entry.undoes, entry.status.as_str(), entry.attempts))
        .collect();
    assert_eq!(
        entries,
        [
            (1, None, "succeeded", 1),
            (2, None, "succeeded", 1),
            (3, None, "cancelled", 1),
            (4, Some(2), "failed", 2),
            (5, Some(1), "succeeded", 1),
        ]
    );
}

on_both_storages!(
    a_row_counts_what_is_undone_and_names_what_could_not_be,
    it_closes_gates_and_its_undos_stand_in_the_timeline,
);
