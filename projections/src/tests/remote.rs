//! Calls and streams over the bus.

use bytes::Bytes;
use chassis::bus::Nats;
use chassis::scratch::nats::nats_options;
use domain::resource::Kind;
use futures::StreamExt;
use protocol::remote::{Answer, FOLLOW, FollowCall, QUERIES, QueryCall};
use protocol::{
    Cursor, EventEnvelope, EventFilter, EventPage, Events, Page, PageRequest, RejectionKind,
    ResourceFilter, RunFilter, RunQueries, RunView, StateAt,
};

use super::*;
use crate::remote::serve;

async fn ask(nats: &Nats, call: &impl Serialize) -> Bytes {
    let body = serde_json::to_vec(call).expect("JSON").into();
    nats.request(QUERIES, body, Duration::from_secs(20)).await.expect("an answer")
}

async fn answer<T: serde::de::DeserializeOwned>(nats: &Nats, call: &QueryCall) -> Answer<T> {
    serde_json::from_slice(&ask(nats, call).await).expect("an answer of its type")
}

async fn follow(nats: &Nats, call: &impl Serialize) -> Vec<Answer<Vec<EventEnvelope>>> {
    let body = serde_json::to_vec(call).expect("JSON").into();
    let stream = nats.open_stream(FOLLOW, body).await.expect("a stream");
    let messages = stream.map(|message| {
        serde_json::from_slice(&message.expect("it goes on")).expect("a message of its type")
    });
    messages.collect().await
}

async fn every_call_is_answered_as_the_query_answers(storage: Storage) {
    let world = World::new(storage).await;
    let run = world.whole_run(1, 3, true).await;
    let head = world.journal.head().await.expect("it answers");
    world.caught_up().await;
    let nats = Nats::connect(&nats_options()).await.expect("it connects");
    let served = serve(&nats, Arc::clone(&world.views), 8).await.expect("it serves");

    let (workspace_id, min_position) = (ours(), Some(head));
    let call = QueryCall::GetRun { workspace_id, run_id: run, min_position };
    let view: Answer<RunView> = answer(&nats, &call).await;
    let queries: &dyn RunQueries = &*world.views;
    assert_eq!(view, queries.get(ours(), run, None).await);
    let call = QueryCall::GetRun { workspace_id: theirs(), run_id: run, min_position };
    let refused = answer::<RunView>(&nats, &call).await.expect_err("not theirs");
    assert_eq!(refused.kind, RejectionKind::NotFound);

    let (filter, page) = (RunFilter::default(), PageRequest::default());
    let call = QueryCall::ListRuns { workspace_id, filter: filter.clone(), page: page.clone() };
    let list: Answer<Page<RunView>> = answer(&nats, &call).await;
    assert_eq!(list, queries.list(ours(), filter, page.clone()).await);
    let call = QueryCall::RunState { workspace_id, run_id: run, at: StateAt::Sequence(2) };
    let state = answer(&nats, &call).await;
    assert_eq!(state, queries.state(ours(), run, StateAt::Sequence(2)).await);
    let call = QueryCall::RunTimeline { workspace_id, run_id: run };
    let timeline = answer(&nats, &call).await;
    assert_eq!(timeline, queries.timeline(ours(), run).await);

    let filter =
        ResourceFilter { kind: Kind::Project, project_id: None, name: None, archived: false };
    let call = QueryCall::ListResources { workspace_id: None, filter, page };
    let list: Answer<Page<Value>> = answer(&nats, &call).await;
    assert_eq!(list.expect("a page").items, Vec::<Value>::new());
    let (kind, id) = (Kind::Project, "prj_1".to_owned());
    let call = QueryCall::GetResource { workspace_id: None, kind, id, min_position: None };
    let refused = answer::<Value>(&nats, &call).await.expect_err("there is none");
    assert_eq!(refused.kind, RejectionKind::NotFound);

    let call = QueryCall::EventPage { filter: EventFilter::default(), after: None, limit: 1_000 };
    let events: Answer<EventPage> = answer(&nats, &call).await;
    assert_eq!(events, world.views.page(EventFilter::default(), None, 1_000).await);
    let cursor: Answer<Cursor> = answer(&nats, &QueryCall::EventHead).await;
    assert_eq!(cursor.expect("a cursor").position, head);
    for one in served {
        one.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let world = World::new(Storage::Sqlite).await;
    let nats = Nats::connect(&nats_options()).await.expect("it connects");
    let _served = serve(&nats, Arc::clone(&world.views), 8).await.expect("it serves");
    for call in [json!(null), json!({"unknown": {}}), json!({"get_run": {"run_id": "x"}})] {
        let refused: Answer<Value> =
            serde_json::from_slice(&ask(&nats, &call).await).expect("an answer");
        let refused = refused.expect_err("no call");
        assert_eq!((refused.kind, &*refused.code), (RejectionKind::Malformed, "invalid_body"));
        let mut messages = follow(&nats, &call).await;
        let refused = messages.pop().expect("one message").expect_err("no call");
        assert_eq!((refused.kind, messages.len()), (RejectionKind::Malformed, 0));
    }
    let after = Some(Cursor { epoch: !world.journal.epoch(), position: 0 });
    let call = FollowCall { filter: EventFilter::default(), after };
    let refused = follow(&nats, &call).await.pop().expect("one message").expect_err("another");
    assert_eq!(refused.code, "cursor_of_another_store");
}

async fn streams_hold_history_and_live_events_in_portions(storage: Storage) {
    let world = Arc::new(World::new(storage).await);
    for number in 1..=30 {
        world.whole_run(number, 5, true).await;
    }
    // Larger than a message of the bus, and larger than a portion.
    for number in 31..=34 {
        let input = json!("x".repeat(1_000_000));
        world.run(run_id(number), 0, &[started(run_id(number), input, &[])]).await;
    }
    let head = world.journal.head().await.expect("it answers");
    let nats = Nats::connect(&nats_options()).await.expect("it connects");
    let _served = serve(&nats, Arc::clone(&world.views), 8).await.expect("it serves");
    let call = FollowCall { filter: EventFilter::default(), after: None };
    let body = serde_json::to_vec(&call).expect("JSON").into();
    let mut stream = nats.open_stream(FOLLOW, body).await.expect("a stream");
    let opened = stream.next().await.expect("it goes on").expect("it is there");
    assert_eq!(&opened[..], b"{\"Ok\":[]}", "that it is open is said at once");
    let writer = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            for number in 100..120 {
                world.whole_run(number, 2, true).await;
            }
        })
    };
    let (mut seen, mut messages) = (Vec::new(), 0);
    while seen.len() < head as usize + 120 {
        let message = stream.next().await.expect("it goes on").expect("it is there");
        let events: Answer<Vec<EventEnvelope>> = serde_json::from_slice(&message).expect("events");
        let events = events.expect("no refusal");
        assert!((1..=64).contains(&events.len()));
        let large = events.iter().filter(|event| event.payload["input"].is_string()).count();
        assert!(large <= 1, "a portion ends after a large event");
        seen.extend(events.into_iter().map(|event| event.position));
        messages += 1;
    }
    writer.await.expect("the writer ends");
    assert_eq!(seen, (1..=head + 120).collect::<Vec<_>>());
    assert!(messages < 200, "{messages} messages for {} events", seen.len());
}

on_both_storages!(
    every_call_is_answered_as_the_query_answers,
    streams_hold_history_and_live_events_in_portions,
);
