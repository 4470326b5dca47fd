//! Promise 09: a task that is owed is dispatched in the end, whatever NATS does.
//!
//! It fails where what is owed is known to the queue alone, where a connection or a consumer that
//! is gone isn't made anew, and where a task that was lost is published under its old message id
//! (the server would drop it).

use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::{Pace, Platform, Setting, Shape, Traffic, workflows};

system_tests::in_distributed!(
    runs_go_on_after_nats_was_killed,
    runs_go_on_after_nats_was_wiped,
    runs_go_on_after_their_consumers_were_deleted,
    tasks_wait_where_no_worker_is,
);

/// Clients, each with a run under way.
const CLIENTS: u64 = 6;
/// After which everything has to go on, once NATS is there.
const RECOVERY: Duration = Duration::from_secs(60);

async fn start() -> (Platform, Traffic) {
    let platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), Shape::whole()).await;
    let traffic = Traffic::start(&platform.client(), CLIENTS).await;
    traffic.progress(10).await;
    (platform, traffic)
}

/// More runs end than there are clients: those too that the fault met.
async fn recovered(what: &str, traffic: &Traffic) {
    let begun = Instant::now();
    traffic.progress(2 * CLIENTS as usize + 2).await;
    let took = begun.elapsed();
    eprintln!("{what}: all goes on after {took:?}");
    assert!(took < RECOVERY, "{what}: it took {took:?}");
}

async fn finish(mut platform: Platform, traffic: Traffic) {
    let book = traffic.stop().await;
    platform.client().all_ended().await;
    platform.kill_9().await;
    let report = platform.audit(&book).await;
    assert_eq!(report["runs"]["open"], 0, "{report}");
}

async fn runs_go_on_after_nats_was_killed(_: Setting) {
    let (mut platform, traffic) = start().await;
    let mut pace = Pace::new(9);
    for down_ms in [1, 3_000, 10_000] {
        platform.nats().kill_9().await;
        pace.pause_exactly(down_ms).await;
        platform.nats().start_again().await;
        recovered(&format!("NATS away for {down_ms} ms"), &traffic).await;
    }
    finish(platform, traffic).await;
}

async fn runs_go_on_after_nats_was_wiped(_: Setting) {
    let (mut platform, traffic) = start().await;
    for _ in 0..2 {
        platform.nats().wipe().await;
        recovered("NATS wiped", &traffic).await;
    }
    finish(platform, traffic).await;
}

async fn runs_go_on_after_their_consumers_were_deleted(_: Setting) {
    let (mut platform, traffic) = start().await;
    for _ in 0..2 {
        let deleted = platform.nats().delete_consumers().await;
        assert!(deleted > 0, "there was no consumer to delete");
        recovered(&format!("{deleted} consumers deleted"), &traffic).await;
    }
    finish(platform, traffic).await;
}

async fn tasks_wait_where_no_worker_is(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p09", 3)).await.ok();
    platform.kill_one("executor-1").await;
    let mut runs = Vec::new();
    for n in 0..50 {
        runs.push(client.start(&json!("p09"), json!({"n": n})).await);
    }
    // Neither the queue nor who has filled it is there any more when the worker comes.
    platform.nats().wipe().await;
    platform.kill_one("coordinator-1").await;
    platform.start_one("executor-1").await;
    let begun = Instant::now();
    for (n, run_id) in runs.iter().enumerate() {
        assert_eq!(client.end_of(run_id).await["output"]["n"], n + 3);
    }
    let took = begun.elapsed();
    assert!(took < RECOVERY, "it took {took:?}");
    platform.kill_9().await;
    platform.records().await.check();
}
