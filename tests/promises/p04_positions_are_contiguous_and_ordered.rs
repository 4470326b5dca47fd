//! Promise 04: positions are contiguous and in the order of commits; a tailing reader sees each.
//!
//! The storage's own part (aborts between statements) is tested at the journal. Here writers come
//! and go over HTTP while readers follow. It fails where positions come from a plain counter, where
//! the feed publishes before the commit or out of order, and where a stream's hand-over from
//! history to live events loses or repeats one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use system_tests::{Client, Pace, Sent, Setting, within, workflows};
use tokio::task::JoinSet;

system_tests::in_both_settings!(readers_see_every_position_once_while_many_write,);

/// Writers at the same time.
const WRITERS: u64 = 16;
/// Runs that each of them starts.
const RUNS: u64 = 12;

/// Starts runs, and hangs up on every third before it is answered.
async fn writer(client: Client, number: u64) {
    let mut pace = Pace::new(number);
    for run in 0..RUNS {
        let body = json!({"definition": "p04", "input": {"items": [1, 2, 3]}});
        let asked = client.try_post("/runs", &body);
        if run % 3 == 2 {
            let patience = Duration::from_millis(pace.below(6));
            drop(tokio::time::timeout(patience, asked).await);
        } else {
            asked.await.expect("the platform answers").ok();
        }
    }
}

fn position(sent: &Sent) -> u64 {
    assert_ne!(sent.name, "error", "the stream failed: {}", sent.data);
    sent.data["position"].as_u64().expect("an event has a position")
}

/// Reads up to the position that is the last one, once that is known; reconnects after so many
/// events.
async fn reader(client: Client, events_per_connection: u64, last: Arc<AtomicU64>) {
    let (mut read, mut cursor): (u64, Option<String>) = (0, None);
    while read < last.load(Ordering::Acquire) {
        let mut follower = client.follow("/events", cursor.as_deref()).await;
        for _ in 0..events_per_connection {
            let Some(sent) = follower.next().await else { break };
            let position = position(&sent);
            assert_eq!(position, read + 1, "a reader saw a gap or a repetition");
            assert!(sent.id.ends_with(&format!(":{position}")), "{} at {position}", sent.id);
            (read, cursor) = (position, Some(sent.id));
            if read >= last.load(Ordering::Acquire) {
                break;
            }
        }
    }
}

async fn readers_see_every_position_once_while_many_write(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::fan_out("p04", "1ms")).await.ok();
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let readers: Vec<_> = [u64::MAX, 37]
        .map(|each| tokio::spawn(reader(client.clone(), each, Arc::clone(&last))))
        .into();
    let writers: JoinSet<()> = (0..WRITERS).map(|number| writer(client.clone(), number)).collect();
    within("the writers", writers.join_all()).await;
    client.all_ended().await;
    // One more event, for readers that have read all the others and wait.
    let head = client.head().await + 1;
    last.store(head, Ordering::Release);
    client.post("/projects", &json!({"name": "p04-done"})).await.ok();
    for reader in readers {
        within("a reader", reader).await.expect("a reader must not panic");
    }
    platform.stop().await;
    let records = platform.records().await;
    records.check();
    assert_eq!(records.events.len() as u64, head, "readers saw what the journal holds");
    assert!(records.run_ids().len() as u64 >= WRITERS * RUNS * 2 / 3);
}
