//! Events for subscribers outside: each once and in order, whatever happens in between.

use chassis::bus::{Nats, NatsOptions};
use chassis::scratch::nats::{ScratchNats, nats_options};
use chassis::scratch::stream::{StoredMessage, stored};
use domain::resource::{Event as ResourceEvent, Spec};

use super::*;

async fn connect(options: &NatsOptions) -> Nats {
    Nats::connect(options).await.expect("it connects")
}

fn positions(messages: &[StoredMessage]) -> Vec<u64> {
    let position = |message: &StoredMessage| message.header("ce-position").parse();
    messages.iter().map(|message| position(message).expect("a number")).collect()
}

/// Waits until a position is published, and answers all that is.
async fn published(options: &NatsOptions, last: u64) -> Vec<StoredMessage> {
    let is_there = async || positions(&stored(options, "EVENTS").await).last() >= Some(&last);
    until("the last event", is_there).await;
    stored(options, "EVENTS").await
}

async fn every_event_is_published_as_a_cloud_event(storage: Storage) {
    let mut world = World::idle(storage, config()).await;
    let options = nats_options();
    world.tasks = world.views.start(Some(&connect(&options).await), &world.shutdown);
    let run = world.whole_run(1, 2, true).await;
    let text = "x".repeat(100_000);
    world.run(run_id(2), 0, &[started(run_id(2), json!(text), &[])]).await;
    world.run(run_id(3), 0, &[started(run_id(3), json!("y".repeat(950_000)), &[])]).await;
    let key: Box<Spec> = Box::new(
        serde_json::from_value(json!({"kind": "api_key", "spec": {"workspace_id": ours(),
            "name": "ci", "secret_hash": "5ec4e7", "scopes": ["read"]}}))
        .expect("a spec"),
    );
    let created = ResourceEvent::Created { spec: key, revision: 1 };
    let last = world.append(("api_key", "key_1"), ours(), 0, &[created]).await;
    let messages = published(&options, last).await;
    assert_eq!(positions(&messages), (1..=last).collect::<Vec<_>>());

    let first = &messages[0];
    let prefix = &options.prefix;
    assert_eq!(first.subject, format!("{prefix}.events.{}.run.{run}.run_started", ours()));
    assert_eq!(first.header("ce-type"), "wonder.run.run_started");
    assert_eq!(first.header("Nats-Msg-Id"), first.header("ce-id"));
    let source = format!("/wonder/{:08x}", world.journal.epoch());
    assert_eq!(
        (first.header("ce-source"), first.header("ce-subject")),
        (&*source, &*run.to_string())
    );
    let body: Value = serde_json::from_slice(&messages[6].body).expect("JSON");
    assert_eq!(body["input"], json!(text));
    let body: Value = serde_json::from_slice(&messages[7].body).expect("JSON");
    assert!(body["input"]["$ref"].is_string(), "too large for a message");
    let key = &messages[8];
    assert!(!String::from_utf8_lossy(&key.body).contains("5ec4e7"));
    assert_eq!(key.header("ce-workspace"), ours().to_string());
}

async fn killed_anywhere_it_publishes_each_event_once_and_in_order(storage: Storage) {
    let world = Arc::new(World::idle(storage, config()).await);
    let options = nats_options();
    let nats = connect(&options).await;
    let writer = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            for number in 1..=30 {
                world.whole_run(number, 4, true).await;
            }
        })
    };
    let mut kills = 0_usize;
    while !writer.is_finished() || kills < 5 {
        let views = world.reopen().await;
        let tasks = views.start(Some(&nats), &CancellationToken::new());
        let before = stored(&options, "EVENTS").await.len();
        let head = world.journal.head().await.expect("it answers");
        if (before as u64) < head {
            let moved = async || stored(&options, "EVENTS").await.len() > before;
            until("an event", moved).await;
        }
        for _ in 0..kills % 17 {
            tokio::task::spawn_blocking(|| {}).await.expect("a turn");
        }
        tasks.iter().for_each(JoinHandle::abort);
        for task in tasks {
            let _ = task.await;
        }
        kills += 1;
    }
    writer.await.expect("the writer ends");
    let views = world.reopen().await;
    let tasks = views.start(Some(&nats), &world.shutdown);
    let last = world.journal.head().await.expect("it answers");
    let messages = published(&options, last).await;
    assert_eq!(positions(&messages), (1..=last).collect::<Vec<_>>());
    world.end(tasks).await;
}

async fn while_nats_is_away_folds_go_on_and_nothing_is_lost(storage: Storage) {
    let mut nats = ScratchNats::start().await;
    let options = nats.options();
    let mut world = World::idle(storage, config()).await;
    world.tasks = world.views.start(Some(&connect(&options).await), &world.shutdown);
    world.whole_run(1, 4, true).await;
    published(&options, 10).await;
    nats.kill().await;
    world.whole_run(2, 4, true).await;
    world.caught_up().await;
    nats.restart().await;
    let messages = published(&options, 20).await;
    assert_eq!(positions(&messages), (1..=20).collect::<Vec<_>>());
    // What a wiped stream has lost, after it was known to be there, isn't published again; what
    // comes is.
    until("it is known", async || world.checkpoint("outside").await == 20).await;
    nats.wipe().await;
    world.whole_run(3, 4, true).await;
    let messages = published(&options, 30).await;
    assert_eq!(positions(&messages), (21..=30).collect::<Vec<_>>());
}

on_both_storages!(
    every_event_is_published_as_a_cloud_event,
    killed_anywhere_it_publishes_each_event_once_and_in_order,
    while_nats_is_away_folds_go_on_and_nothing_is_lost,
);
