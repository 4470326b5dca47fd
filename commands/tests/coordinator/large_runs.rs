//! Runs of very many tokens, and those beside them.

use std::time::{Duration, Instant};

use chassis::telemetry::Telemetry;
use domain::run::RunStatus;
use serde_json::json;

use crate::platform::{Platform, fan_out, folder, metrics, sequence};

const BRANCHES: usize = 1_300;
const PATIENCE: Duration = Duration::from_secs(60);

fn rests(metrics: &Telemetry) -> u64 {
    let rendered = metrics.render();
    let line = rendered.lines().find_map(|line| line.strip_prefix("wonder_run_rests_total "));
    line.map_or(0, |count| count.parse().expect("a count"))
}

#[tokio::test]
async fn a_very_large_run_rests_beside_others_and_not_alone() {
    let metrics = metrics();
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let large = platform.run(&fan_out(BRANCHES)).await;
    let mut tasks = platform.pull_many(100).await;
    for task in tasks.drain(..50) {
        platform.succeed(&task, json!(1)).await;
    }
    let mut left = BRANCHES - 50;
    assert_eq!(rests(&metrics), 0, "it rested though it was alone");

    // A small run goes on, and then an outcome of the large one; the machine may be slow.
    let begun = Instant::now();
    while rests(&metrics) == 0 {
        assert!(begun.elapsed() < PATIENCE, "it never rested");
        let small = platform.run(&sequence(1)).await;
        if tasks.is_empty() {
            tasks = platform.pull().await;
        }
        if let Some(at) = tasks.iter().position(|task| task.run_id == large) {
            left -= 1;
            platform.succeed(&tasks.remove(at), json!(1)).await;
        }
        loop {
            if let Some(at) = tasks.iter().position(|task| task.run_id == small) {
                platform.succeed(&tasks.remove(at), json!(1)).await;
                break;
            }
            tasks.extend(platform.pull().await);
        }
        assert_eq!(platform.end_of(small).await.status, RunStatus::Completed);
    }

    // Whatever came while it rested is taken up after it.
    loop {
        left -= tasks.len();
        for task in tasks.drain(..) {
            platform.succeed(&task, json!(1)).await;
        }
        if left == 0 {
            break;
        }
        tasks = platform.pull().await;
    }
    let end = platform.end_of(large).await;
    assert_eq!(end.output, Some(json!({"results": vec![1; BRANCHES]})));
    platform.stop().await;
}
