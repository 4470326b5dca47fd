//! Processes of each role are killed again and again while clients start runs.
//!
//! It fails where an answer goes out before its commit, where a run whose coordinator died isn't
//! taken over, where a task dies with its worker, and where a client's repetition is done twice.

use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::{Pace, Shape, Traffic, workflows};

/// How often a process is killed.
const KILLS: usize = 2;
/// Clients at the same time.
const CLIENTS: u64 = 4;
/// Runs that must end between two kills.
const PROGRESS: usize = 6;
/// How long a killed process may be missed, beside what the runs themselves take.
const MADE_UP_FOR: Duration = Duration::from_secs(15);

async fn killed_again_and_again(kind: &str, seed: u64) {
    let mut platform = crate::platform(Shape::whole()).await;
    let traffic = Traffic::start(&platform.client(), CLIENTS).await;
    let names: Vec<String> =
        platform.names().into_iter().filter(|name| name.starts_with(kind)).collect();
    let mut pace = Pace::new(seed);
    for kill in 0..KILLS {
        let name = &names[kill % names.len()];
        traffic.progress(PROGRESS).await;
        pace.pause(300).await;
        platform.kill_one(name).await;
        // Sometimes it is back before anybody has missed it, sometimes long after.
        pace.pause(if kill % 2 == 0 { 50 } else { 7_000 }).await;
        platform.start_one(name).await;
    }
    traffic.progress(PROGRESS).await;
    crate::finish(&mut platform, traffic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinators() {
    killed_again_and_again("coordinator", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn executors() {
    killed_again_and_again("executor", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn projectors() {
    killed_again_and_again("projector", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways() {
    killed_again_and_again("gateway", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_had_is_made_up_for_in_time() {
    let mut platform = crate::platform(Shape::whole()).await;
    let client = platform.client();
    let definition = workflows::fan_out("kills", "500ms");
    client.post("/workflow-definitions", &definition).await.ok();
    for name in ["coordinator-1", "executor-1"] {
        let mut runs = Vec::new();
        for number in 0..20 {
            let input = json!({"items": [number, 1, 2]});
            runs.push(client.start(&json!("kills"), input).await);
        }
        platform.kill_one(name).await;
        let killed = Instant::now();
        for run_id in &runs {
            let view = client.end_of(run_id).await;
            assert_eq!(view["status"], "completed", "{view}");
        }
        let took = killed.elapsed();
        eprintln!("{name} was made up for after {took:?}");
        assert!(took < MADE_UP_FOR, "{name} was missed for {took:?}");
        platform.start_one(name).await;
    }
}
