//! State at every moment, and the timeline.

use domain::run::Run;
use protocol::{EventFilter, Events, RejectionKind, RunQueries, StateAt};

use super::*;

fn fan_out(run: RunId) -> Vec<Event> {
    let failed = json!({"code": "flaky", "message": "no", "kind": "transient"});
    let arithmetic = json!({"declared": 3, "arrived": 1, "failed": 0, "ended": 0, "needed": 1});
    let opened = json!([{"instance": 1, "group": "judges",
        "branches": [{"transition": 0, "node": "judge", "count": 2, "foreach": true},
            {"transition": 1, "node": "check", "count": 1}]}]);
    vec![
        started(run, json!({"judges": ["a", "b"]}), &[]),
        event(json!({"type": "task_failed", "token": 1, "attempt": 1, "error": failed,
            "retry_at": moment(9)})),
        event(json!({"type": "retry_started", "token": 1, "attempt": 2})),
        event(json!({"type": "task_succeeded", "token": 1, "attempt": 2, "result": "x",
            "duration_ms": 12})),
        event(json!({"type": "token_routed", "token": 1, "opened": opened})),
        event(json!({"type": "branches_spawned", "instance": 1, "index": 0, "token": 2,
            "count": 3, "items": ["a", "b", null]})),
        succeeded(2, json!("yes")),
        event(json!({"type": "token_routed", "token": 2,
            "fired": [{"arrived": {"transition": 2, "instance": 1}}]})),
        event(json!({"type": "join_fired", "instance": 1, "token": 5, "node": "pick",
            "arithmetic": arithmetic})),
        event(json!({"type": "node_computed", "token": 5})),
        event(json!({"type": "token_routed", "token": 5})),
        Event::RunCompleted { output: json!("yes") },
    ]
}

async fn state_at_every_sequence_is_the_fold_up_to_it(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    let events = fan_out(run);
    let mut states = vec![Run::default()];
    for (number, event) in (0_u64..).zip(&events) {
        world.run(run, number, std::slice::from_ref(event)).await;
        let mut state = states[states.len() - 1].clone();
        state.evolve(event, moment(number));
        states.push(state);
    }
    let last = events.len() as u64;
    for sequence in 1..=last {
        let wanted = &states[usize::try_from(sequence).expect("small")];
        for at in [StateAt::Sequence(sequence), StateAt::Time(moment(sequence - 1))] {
            let state = world.views.state(ours(), run, at).await.expect("there");
            assert_eq!(state.state, serde_json::to_value(wanted).expect("JSON"));
            assert_eq!((state.sequence, state.at), (sequence, moment(sequence - 1)));
            assert_eq!(Some(state.status), wanted.status());
        }
    }
    let latest = world.views.state(ours(), run, StateAt::Latest).await.expect("there");
    assert_eq!(latest.sequence, last);
    let before = StateAt::Time(moment(0) - TimeDelta::days(1));
    for at in [StateAt::Sequence(0), StateAt::Sequence(last + 1), before] {
        let refused = world.views.state(ours(), run, at).await.expect_err("no such moment");
        assert_eq!((refused.kind, &*refused.code), (RejectionKind::Invalid, "no_such_moment"));
    }
    let hidden = world.views.state(theirs(), run, StateAt::Latest).await.expect_err("not theirs");
    assert_eq!(hidden.kind, RejectionKind::NotFound);
    assert!(world.views.timeline(theirs(), run).await.is_err());
}

async fn a_snapshot_is_used_for_later_moments_only(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    let events = fan_out(run);
    let mut state = Run::default();
    for (number, event) in (0..5).zip(&events) {
        state.evolve(event, moment(number));
    }
    world.run(run, 0, &events[..4]).await;
    // A mark that only this snapshot has shows whether it was used.
    let mut marked = serde_json::to_value(&state).expect("JSON");
    marked["live"]["header"]["labels"] = json!({"from": "snapshot"});
    serde_json::from_value::<Run>(marked.clone()).expect("a state reads back as it was written");
    let append = Append {
        aggregate_type: "run".into(),
        aggregate_id: run.to_string().into(),
        expected_sequence: 4,
        workspace_id: ours().to_string().into(),
        metadata: b"{}".as_slice().into(),
        recorded_at: moment(4),
        events: vec![NewEvent {
            id: Uuid::now_v7(),
            event_type: events[4].event_type().into(),
            event_version: 1,
            payload: codec::encode(&events[4], ours()).expect("it encodes").payload.into(),
            recorded_at: None,
        }],
        snapshot: Some(snapshot(5, marked.to_string().into_bytes())),
        ..Append::default()
    };
    world.journal.append(append).await.expect("it appends");
    world.run(run, 5, &events[5..6]).await;
    for (sequence, is_used) in [(4, false), (5, true), (6, true)] {
        let at = StateAt::Sequence(sequence);
        let found = world.views.state(ours(), run, at).await.expect("there");
        assert_eq!(found.sequence, sequence);
        let mark = found.state.pointer("/live/header/labels/from").is_some();
        assert_eq!(mark, is_used, "at {sequence}");
    }
}

async fn the_timeline_tells_what_each_token_did(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    let events = fan_out(run);
    world.run(run, 0, &events[..6]).await;
    world.run(run, 6, &events[6..]).await;
    let timeline = world.views.timeline(ours(), run).await.expect("there");
    let short: Vec<_> = timeline
        .iter()
        .map(|e| (e.token, &*e.node, e.group.as_deref(), e.index, &*e.status, e.attempts))
        .collect();
    assert_eq!(
        short,
        [
            (1, "first", None, None, "succeeded", 2),
            (2, "judge", Some("judges"), Some(0), "succeeded", 1),
            (3, "judge", Some("judges"), Some(1), "cancelled", 1),
            (4, "check", Some("judges"), Some(2), "cancelled", 1),
            (5, "pick", None, None, "succeeded", 1),
        ]
    );
    assert_eq!((timeline[0].first_sequence, timeline[0].last_sequence), (1, 5));
    assert_eq!(timeline[0].duration_ms, Some(12));
    assert_eq!(timeline[1].usage.input_tokens, 10);
    assert_eq!(timeline[2].ended_at, Some(moment(6)));
}

async fn what_is_stored_and_cannot_be_read_is_told_as_that(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    world.run(run, 0, &[started(run, json!("x".repeat(100_000)), &[])]).await;
    world.caught_up().await;
    world.sql_on_journal("delete from payloads").await;
    let views = &world.views;
    let of_run = || EventFilter { aggregate_id: Some(run.to_string()), ..EventFilter::default() };
    let refused = [
        views.get(ours(), run, None).await.expect_err("no input"),
        views.state(ours(), run, StateAt::Latest).await.expect_err("no input"),
        views.timeline(ours(), run).await.expect_err("no input"),
        views.page(of_run(), None, 1).await.expect_err("no input"),
    ];
    for rejection in refused {
        let found = (rejection.kind, &*rejection.code);
        assert_eq!(found, (RejectionKind::Internal, "stored_data_unreadable"));
    }
}

on_both_storages!(
    state_at_every_sequence_is_the_fold_up_to_it,
    a_snapshot_is_used_for_later_moments_only,
    the_timeline_tells_what_each_token_did,
    what_is_stored_and_cannot_be_read_is_told_as_that,
);
