//! Promise 33: what goes on can be watched over a WebSocket, from history into live, without a gap or
//! a duplicate however often it is cut.
//!
//! It fails where the socket loses an event between history and live ones, tells one twice after a
//! cut, or tells anything else than server-sent events do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use system_tests::{Client, Pace, Sent, Setting, Traffic, workflows};

system_tests::in_both_settings!(sockets_go_on_from_history_into_live);

/// Readers of all events at the same time.
const READERS: u64 = 3;

/// Reads up to a position that is told later, and cuts its socket now and then. Answers what it was
/// told, and how often it connected.
async fn reader(client: Client, number: u64, last: Arc<AtomicU64>) -> (Vec<Sent>, u64) {
    let (mut pace, mut told, mut connected) = (Pace::new(number), Vec::<Sent>::new(), 0);
    let is_done = |told: &[Sent]| told.len() as u64 >= last.load(Ordering::Acquire);
    while !is_done(&told) {
        let after = told.last().map(|sent| sent.id.clone());
        let mut socket = client.follow_socket("", after.as_deref()).await;
        connected += 1;
        for _ in 0..=pace.below(60) {
            let Some(sent) = socket.next().await.filter(|sent| sent.name != "error") else { break };
            let due = told.len() as u64 + 1;
            assert_eq!(sent.data["position"], due, "a reader saw a gap or a repetition");
            told.push(sent);
            if is_done(&told) {
                break;
            }
        }
    }
    (told, connected)
}

async fn sockets_go_on_from_history_into_live(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let client = platform.client();
    let traffic = Traffic::start(&client, 3).await;
    let last = Arc::new(AtomicU64::new(u64::MAX));
    traffic.progress(3).await;
    let started = (1..=READERS).map(|number| reader(client.clone(), number, Arc::clone(&last)));
    let readers: Vec<_> = started.map(tokio::spawn).collect();
    traffic.progress(10).await;
    traffic.stop().await;
    client.all_ended().await;
    let sequence = workflows::sequence("p33", 1);
    let ended = client.run_to_end(&sequence, json!({"n": 1})).await;
    last.store(ended["position"].as_u64().expect("a position"), Ordering::Release);
    // One more, so that readers that wait for an event see that they have all.
    client.run_to_end(&sequence, json!({"n": 1})).await;
    let mut all = Vec::new();
    for reader in readers {
        let (told, connected) = system_tests::within("a reader", reader).await.expect("no gap");
        assert!(connected > 2, "it was cut only {connected} times");
        all.push(told);
    }
    // Server-sent events tell the same, and one run's socket ends with it.
    let mut follower = client.follow("/events", None).await;
    for told in &all[0] {
        assert_eq!(follower.next().await.as_ref(), Some(told));
    }
    let run = format!("run_id={}", ended["id"].as_str().expect("an id"));
    let mut socket = client.follow_socket(&run, None).await;
    let mut names = Vec::new();
    while let Some(sent) = socket.next().await {
        names.push(sent.name);
    }
    assert_eq!(names.first().map(String::as_str), Some("run_started"));
    assert_eq!(&names[names.len() - 2..], ["run_completed", "end"]);
}
