//! Promise 16: a stream resumes without a gap or a duplicate; a slow reader costs the writer
//! nothing.
//!
//! Readers follow all events while the processes that serve them are killed and replaced. It fails
//! where a cursor isn't the journal's position, where the hand-over from history to live events
//! loses one, where a stream that broke off goes on elsewhere at the wrong place, and where what a
//! reader doesn't take is kept for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use system_tests::{Client, Pace, Setting, Traffic, workflows};
use tokio::io::AsyncReadExt;

system_tests::in_both_settings!(
    readers_resume_whoever_vanishes,
    a_reader_that_hardly_reads_costs_nothing,
);

/// Readers of all events at the same time.
const READERS: usize = 3;
/// Bytes of the result of each task of the heavy run.
const HEAVY_BYTES: usize = 40 * 1024;
/// Tasks that fill what is kept of recent events in any case.
const FILLING: usize = 600;
/// Tasks after that.
const TASKS: usize = 900;
/// Bytes that a process may grow by while events come that its slow reader doesn't take: a third of
/// what they are.
const GROWTH_BYTES: u64 = (TASKS * HEAVY_BYTES / 3) as u64;
/// What a process keeps of recent events in any case. The run that fills it is one coordinator's,
/// and the run after it may be another one's.
const KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// Reads up to a position that is told later, and reconnects with its cursor where a stream ends.
/// Answers how often it connected.
async fn reader(client: Client, last: Arc<AtomicU64>) -> u64 {
    let (mut read, mut cursor, mut connected) = (0, None::<String>, 0);
    while read < last.load(Ordering::Acquire) {
        let Some(mut follower) = client.try_follow("/events", cursor.as_deref()).await else {
            Pace::new(1).pause_exactly(50).await;
            continue;
        };
        connected += 1;
        // While everything is still, a stream says nothing: it is left when all is read.
        while read < last.load(Ordering::Acquire) {
            let Some(sent) = follower.next().await else { break };
            if sent.name == "error" {
                break;
            }
            let position = sent.data["position"].as_u64().expect("an event has a position");
            assert_eq!(position, read + 1, "a reader saw a gap or a repetition");
            (read, cursor) = (position, Some(sent.id));
        }
    }
    connected
}

async fn readers_resume_whoever_vanishes(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let traffic = Traffic::start(&client, 3).await;
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let readers: Vec<_> =
        (0..READERS).map(|_| tokio::spawn(reader(client.clone(), Arc::clone(&last)))).collect();
    let names = match setting {
        Setting::Distributed => vec!["gateway-1", "projector-1", "coordinator-1", "gateway-1"],
        Setting::Embedded | Setting::Database => vec!["platform"; 4],
    };
    let blows = names.len() as u64;
    for name in names {
        traffic.progress(8).await;
        platform.kill_one(name).await;
        platform.start_one(name).await;
    }
    traffic.progress(8).await;
    let book = traffic.stop().await;
    client.all_ended().await;
    let ended = client.run_to_end(&workflows::sequence("p16", 1), json!({"n": 1})).await;
    last.store(ended["position"].as_u64().expect("a position"), Ordering::Release);
    // One more, so that readers that wait for an event see that they have all.
    client.run_to_end(&workflows::sequence("p16", 1), json!({"n": 1})).await;
    let mut connected = 0;
    for reader in readers {
        connected += system_tests::within("a reader", reader).await.expect("no gap, no repetition");
    }
    let least = READERS as u64 * if setting == Setting::Distributed { 2 } else { blows };
    assert!(connected >= least, "the readers connected only {connected} times");
    platform.kill_9().await;
    platform.audit(&book).await;
}

/// One task that is done again and again, and whose result is only kept in events.
fn heavy() -> Value {
    json!({
        "name": "p16-heavy",
        "start": "zero",
        "nodes": {
            "zero": {"compute": {"state.n": 0}},
            "step": {
                "action": {"kind": "mock", "with": {"result": "x".repeat(HEAVY_BYTES)}},
                "output": {"state.n": "${state.n + 1}"}
            }
        },
        "transitions": [
            {"from": "zero", "to": "step"},
            {"from": "step", "to": "step", "when": "state.n < input.tasks", "max_iterations": TASKS}
        ],
        "output": {"n": "${state.n}"}
    })
}

/// Has so many tasks done; answers a position at their end.
async fn tasks(client: &Client, tasks: usize) -> u64 {
    let view = client.run_to_end(&json!("p16-heavy"), json!({"tasks": tasks})).await;
    assert_eq!(view["output"], json!({"n": tasks}), "{view}");
    view["position"].as_u64().expect("a run's view has a position")
}

async fn a_reader_that_hardly_reads_costs_nothing(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.post("/workflow-definitions", &heavy()).await.ok();
    let mut slow = client.open_unread("/events").await;
    let taking = tokio::spawn(async move {
        let mut pace = Pace::new(16);
        loop {
            pace.pause_exactly(100).await;
            slow.read_u8().await.expect("the stream is open");
        }
    });
    tasks(&client, FILLING).await;
    let names = platform.names();
    let before: Vec<u64> = names.iter().map(|name| platform.memory(name)).collect();
    let last = tasks(&client, TASKS).await;
    for (name, before) in names.iter().zip(before) {
        let grown = platform.memory(name).saturating_sub(before);
        eprintln!("{name} has grown by {} KiB", grown / 1024);
        let kept = if name.starts_with("coordinator") { KEPT_BYTES } else { 0 };
        assert!(grown < GROWTH_BYTES + kept, "{name} has grown by {grown} bytes");
    }
    assert!(!taking.is_finished(), "the slow reader was cut off");
    taking.abort();
    // And one that reads as it should gets all of it, from the first to the last.
    let mut follower = client.follow("/events", None).await;
    for due in 1..=last {
        let sent = follower.next().await.expect("the stream is open");
        assert_eq!(sent.data["position"], due);
    }
    platform.kill_9().await;
    platform.records().await.check();
}
