//! Promise 15: a fan-out of 100,000 completes, while other runs go on.
//!
//! The short form has fewer branches; `WONDER_TEST_BRANCHES=100000` in a release build is the whole
//! of it. It fails where a fan-out is expanded in one piece (other runs wait for it), where a run
//! may have all places of the workers, and where what is left after a kill isn't taken up again.

use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::{Client, Setting, wait_for, wait_within, workflows};

system_tests::in_both_settings!(a_large_fan_out_completes_while_other_runs_go_on);

/// Branches where nothing else is asked for.
const BRANCHES: u64 = 6_000;
/// The branches that fail: one in so many.
const FAILS: u64 = 100;
/// Other runs that are measured alone, and at least beside the fan-out.
const OTHERS: usize = 30;
/// How long the fan-out may take, for each 1,000 branches.
const PATIENCE_PER_1000: Duration = Duration::from_secs(15);

/// What 95 of 100 other runs may take beside the fan-out. Twice as much as alone is for a release
/// build on a machine of its own; on one that other tests keep busy only a stall shows.
fn bound(alone: Duration) -> Duration {
    if cfg!(debug_assertions) {
        alone * 2 + Duration::from_secs(3)
    } else {
        alone * 2 + Duration::from_millis(50)
    }
}

fn branches() -> u64 {
    let asked = std::env::var("WONDER_TEST_BRANCHES").ok();
    asked.map_or(BRANCHES, |asked| asked.parse().expect("WONDER_TEST_BRANCHES is a number"))
}

async fn other(client: &Client) -> Duration {
    let begun = Instant::now();
    let view = client.run_to_end(&json!("p15-other"), json!({"n": 1})).await;
    assert_eq!(view["status"], "completed", "{view}");
    begun.elapsed()
}

/// The time that 95 of 100 stay below.
fn p95(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 95 / 100]
}

async fn a_large_fan_out_completes_while_other_runs_go_on(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let branches = branches();
    client.post("/workflow-definitions", &workflows::sequence("p15-other", 3)).await.ok();
    client.post("/workflow-definitions", &workflows::wide("p15", branches)).await.ok();
    let mut alone = Vec::new();
    for _ in 0..OTHERS {
        alone.push(other(&client).await);
    }

    let run_id = client.start(&json!("p15"), json!({"fails": FAILS})).await;
    let path = format!("/runs/{run_id}");
    let mut beside = Vec::new();
    let half = wait_within(Duration::from_secs(600), "half of the branches", || async {
        let took = other(&client).await;
        let view = client.get(&path).await;
        Some((took, view["sequence"].as_u64()? > branches))
    });
    let (took, mut is_half) = half.await;
    beside.push(took);
    while !is_half || beside.len() < OTHERS {
        beside.push(other(&client).await);
        let view = client.get(&path).await;
        is_half = view["sequence"].as_u64() > Some(branches) || view["ended_at"].is_string();
    }
    let (alone, beside) = (p95(alone), p95(beside));
    eprintln!("95 of 100 other runs took {alone:?} alone, {beside:?} beside it");
    assert!(beside < bound(alone), "{alone:?} alone, {beside:?} beside the fan-out");

    // Its coordinator and workers vanish in the middle.
    platform.kill_9().await;
    platform.restart().await;
    let patience = PATIENCE_PER_1000 * u32::try_from(branches.div_ceil(1_000)).expect("a count");
    let view = wait_within(patience, "the fan-out to end", || async {
        let view = client.get(&path).await;
        view["ended_at"].is_string().then_some(view)
    })
    .await;
    assert_eq!((&view["status"], &view["output"]), (&json!("completed"), &json!({"done": true})));
    wait_for("the others to be through", || async {
        let open = client.get("/runs?status=running,waiting&limit=1").await;
        open["items"].as_array()?.is_empty().then_some(())
    })
    .await;
    platform.stop().await;

    let records = platform.records().await;
    records.check();
    let counts = records.count(&run_id);
    assert_eq!(counts["task_failed"] as u64, branches.div_ceil(FAILS), "{counts:?}");
    assert_eq!(counts["task_succeeded"] as u64, branches - branches.div_ceil(FAILS), "{counts:?}");
}
