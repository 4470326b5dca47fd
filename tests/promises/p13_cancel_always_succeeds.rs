//! Promise 13: cancel always succeeds, however large the run is, and at once.
//!
//! It fails where the cancellation is decided or written in proportion to what the run holds (an
//! event for each token, or one that lists them), and where it waits behind what the run has
//! queued; and where what is cancelled still keeps its workers busy.

use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::{Platform, Setting, Shape, wait_for, workflows};

system_tests::in_both_settings!(
    a_run_with_thousands_of_open_tokens_is_cancelled_at_once,
    a_run_that_is_being_expanded_is_cancelled_at_once,
    what_has_ended_stays_as_it_was,
    what_is_cancelled_gives_its_workers_back,
);

/// Branches, each with a task that doesn't end by itself.
const BRANCHES: u64 = 10_000;
/// Bytes that the event of a cancellation may have.
const EVENT_BYTES: usize = 200;

/// What a cancellation may take. Debug builds decide some ten times slower.
fn patience() -> Duration {
    if cfg!(debug_assertions) { Duration::from_secs(4) } else { Duration::from_secs(1) }
}

async fn a_run_with_thousands_of_open_tokens_is_cancelled_at_once(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let definition = workflows::wide_and_slow("p13", BRANCHES, "10m");
    let run_id = client.start(&definition, json!({})).await;
    wait_for("all branches to be made", || async {
        let spawned = client.get("/events?type=branches_spawned&limit=1000").await;
        let counts = spawned["items"].as_array()?.iter();
        let made: u64 = counts.filter_map(|event| event["payload"]["count"].as_u64()).sum();
        (made == BRANCHES).then_some(())
    })
    .await;

    let begun = Instant::now();
    let path = format!("/runs/{run_id}/cancel");
    client.post(&path, &json!({"reason": "it is too large"})).await.ok();
    let view = client.end_of(&run_id).await;
    let took = begun.elapsed();
    assert_eq!(view["status"], "cancelled", "{view}");
    assert!(took < patience(), "cancelling took {took:?}");
    platform.kill_9().await;

    let records = platform.records().await;
    records.check();
    let last = *records.of_run(&run_id).last().expect("a run has events");
    assert_eq!(&*last.event_type, "run_cancelled");
    assert!(last.payload.len() < EVENT_BYTES, "{} bytes", last.payload.len());
}

async fn a_run_that_is_being_expanded_is_cancelled_at_once(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let definition = workflows::wide_and_slow("p13", BRANCHES, "10m");
    let run_id = client.start(&definition, json!({})).await;
    let begun = Instant::now();
    client.post(&format!("/runs/{run_id}/cancel"), &json!({})).await.ok();
    let view = client.end_of(&run_id).await;
    let took = begun.elapsed();
    assert_eq!(view["status"], "cancelled", "{view}");
    assert!(took < patience(), "cancelling took {took:?}");
    platform.kill_9().await;
    platform.records().await.check();
}

async fn what_has_ended_stays_as_it_was(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let client = platform.client();
    let ended = client.run_to_end(&workflows::sequence("p13", 1), json!({"n": 1})).await;
    let run_id = ended["id"].as_str().expect("a run's id").to_owned();
    let refused = client.post(&format!("/runs/{run_id}/cancel"), &json!({})).await;
    assert_eq!((refused.status, refused.code()), (409, "run_ended"));
    assert_eq!(client.end_of(&run_id).await, ended);
}

async fn what_is_cancelled_gives_its_workers_back(setting: Setting) {
    let shape = Shape::from(setting).with(&["--executor-concurrency", "4"]);
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await;
    let client = platform.client();
    let run_id = client.start(&workflows::wide_and_slow("p13", 20, "10m"), json!({})).await;
    let workers: &str = if platform.is_running("platform") { "platform" } else { "executor-1" };
    wait_for("all workers to be busy", || async {
        (platform.metric(workers, "wonder_tasks_in_flight").await == 4.0).then_some(())
    })
    .await;
    client.post(&format!("/runs/{run_id}/cancel"), &json!({})).await.ok();
    // Those who work on what was cancelled are needed for this.
    let view = client.run_to_end(&workflows::slow("p13-next", "20ms"), json!({})).await;
    assert_eq!(view["output"], json!({"n": 1}), "{view}");

    // The branches that a join doesn't wait for, too.
    let view = client.run_to_end(&workflows::race("p13-race", "20ms", "10m", 3), json!({})).await;
    assert_eq!(view["status"], "completed", "{view}");
    let view = client.run_to_end(&workflows::slow("p13-next", "20ms"), json!({})).await;
    assert_eq!(view["status"], "completed", "{view}");
    wait_for("no worker to be busy", || async {
        (platform.metric(workers, "wonder_tasks_in_flight").await == 0.0).then_some(())
    })
    .await;
    // Nothing holds up an orderly stop.
    platform.stop().await;
    platform.records().await.check();
}
