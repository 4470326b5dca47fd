//! Promise 10: a vanished worker's task is made again, failed or in doubt by its policy, never
//! silently done.
//!
//! It fails where a task is acknowledged before its outcome is safe, where a hand-out that must not
//! be repeated isn't recorded before the worker has it, and where the outcome of a worker that was
//! given up counts beside the one of its successor.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Client, Platform, Setting, Shape, wait_for, workflows};

system_tests::in_both_settings!(
    what_must_not_be_repeated_ends_in_doubt,
    a_doubt_can_be_handled,
    a_task_that_takes_every_worker_down_is_given_up,
);
system_tests::in_distributed!(
    a_killed_workers_task_goes_to_another_one,
    a_frozen_workers_late_outcome_changes_nothing,
    what_is_under_way_is_made_once_whatever_nats_loses,
);

/// How long a task may stay with a worker that has vanished, and then to be done.
const PATIENCE: Duration = Duration::from_secs(30);

fn unrepeatable(name: &str, delay: &str) -> Value {
    let mut definition = workflows::slow(name, delay);
    definition["nodes"]["wait"]["repeatable"] = json!(false);
    // Retries are for failures that were seen.
    definition["nodes"]["wait"]["retry"] = json!({"max_attempts": 3, "initial": "10ms"});
    definition
}

/// Returns when a task of a run is with a worker.
async fn handed_out(client: &Client, run_id: &str) {
    let path = format!("/runs/{run_id}/events");
    wait_for("the task to be handed out", || async {
        let events = client.get(&path).await;
        let mut events = events["items"].as_array()?.iter();
        events.any(|event| event["event_type"] == "task_handed_out").then_some(())
    })
    .await;
}

/// Whether lists show that a run has ended.
async fn has_ended(client: &Client, run_id: &str) -> bool {
    let request = client.request(Method::GET, &format!("/runs/{run_id}"));
    let answer = client.send(request).await.expect("the platform answers");
    answer.body["ended_at"].is_string()
}

async fn in_flight(platform: &Platform, name: &str) -> bool {
    platform.metric(name, "wonder_tasks_in_flight").await > 0.0
}

/// The process that has the worker: alone where there are several.
fn worker_of(setting: Setting) -> &'static str {
    if setting == Setting::Distributed { "executor-1" } else { "platform" }
}

/// The worker vanishes.
async fn lose_worker(platform: &mut Platform, setting: Setting) {
    let name = worker_of(setting);
    let worker = &*platform;
    wait_for("a worker to have the task", || async { in_flight(worker, name).await.then_some(()) })
        .await;
    platform.kill_one(name).await;
    platform.start_one(name).await;
}

async fn what_must_not_be_repeated_ends_in_doubt(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let run_id = client.start(&unrepeatable("p10", "10m"), json!({})).await;
    handed_out(&client, &run_id).await;
    lose_worker(&mut platform, setting).await;
    let view = client.end_of(&run_id).await;
    assert_eq!(view["status"], "failed", "{view}");
    assert_eq!(view["error"]["code"], "in_doubt", "{view}");
    platform.kill_9().await;
    let records = platform.records().await;
    records.check();
    let counts = records.count(&run_id);
    assert_eq!((counts["task_handed_out"], counts["task_failed"]), (1, 1), "{counts:?}");
}

async fn a_doubt_can_be_handled(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let mut definition = unrepeatable("p10", "10m");
    definition["nodes"]["ask"] = json!({"compute": {"state.n": "${error.code}"}});
    definition["transitions"] = json!([{"from": "wait", "to": "ask", "on": "failure"}]);
    let run_id = client.start(&definition, json!({})).await;
    handed_out(&client, &run_id).await;
    lose_worker(&mut platform, setting).await;
    let view = client.end_of(&run_id).await;
    assert_eq!((&view["status"], &view["output"]["n"]), (&json!("completed"), &json!("in_doubt")));
}

/// Workers elsewhere keep the queue's message, which is given to the next one after a while.
async fn a_task_that_takes_every_worker_down_is_given_up(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let run_id = client.start(&workflows::slow("p10", "10m"), json!({})).await;
    let (name, mut losses) = (worker_of(setting), 0);
    while !has_ended(&client, &run_id).await {
        let worker = &platform;
        let took = wait_for("a worker to have the task, or the run to end", || async {
            let ended = has_ended(&client, &run_id).await;
            let has = in_flight(worker, name).await;
            (ended || has).then_some(has)
        });
        if took.await {
            platform.kill_one(name).await;
            platform.start_one(name).await;
            losses += 1;
            assert!(losses < 10, "the task is handed out for ever");
        }
    }
    let view = client.end_of(&run_id).await;
    assert_eq!(view["error"]["code"], "worker_lost", "{view}");
    let fewest = if setting == Setting::Distributed { 1 } else { 5 };
    assert!(losses >= fewest, "it was given up after {losses} workers");
}

async fn a_killed_workers_task_goes_to_another_one(_: Setting) {
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), Shape::whole()).await;
    let client = platform.client();
    for killed in ["executor-1", "executor-2"] {
        let run_id = client.start(&workflows::slow("p10", "2s"), json!({})).await;
        let with = &platform;
        let name = wait_for("a worker to have the task", || async {
            for name in ["executor-1", "executor-2"] {
                if in_flight(with, name).await {
                    return Some(name);
                }
            }
            None
        })
        .await;
        let begun = Instant::now();
        platform.kill_one(name).await;
        let view = client.end_of(&run_id).await;
        assert_eq!((&view["status"], &view["output"]["n"]), (&json!("completed"), &json!(1)));
        let took = begun.elapsed();
        eprintln!("{killed}: the task of {name} was done elsewhere after {took:?}");
        assert!(took < PATIENCE, "it took {took:?}");
        platform.start_one(name).await;
    }
    platform.kill_9().await;
    platform.records().await.check();
}

async fn a_frozen_workers_late_outcome_changes_nothing(_: Setting) {
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), Shape::whole()).await;
    let client = platform.client();
    // Longer than the tasks' own time, so that their outcomes are all there when it comes back.
    let definition = workflows::fan_out("p10", "1s");
    let items: Vec<u64> = (0..40).collect();
    let run_id = client.start(&definition, json!({"items": items})).await;
    let with = &platform;
    wait_for("both workers to have tasks", || async {
        let both = in_flight(with, "executor-1").await && in_flight(with, "executor-2").await;
        both.then_some(())
    })
    .await;
    platform.freeze("executor-1");
    let view = client.end_of(&run_id).await;
    assert_eq!(view["output"], json!({"count": 40, "items": items}));
    platform.thaw("executor-1");
    // What it had goes out now: it is refused, and the next tasks are done as ever.
    let view = client.run_to_end(&definition, json!({"items": items})).await;
    assert_eq!(view["output"], json!({"count": 40, "items": items}));
    platform.kill_9().await;
    let records = platform.records().await;
    records.check();
    assert_eq!(records.count(&run_id)["task_succeeded"], 40);
}

async fn what_is_under_way_is_made_once_whatever_nats_loses(_: Setting) {
    let mut platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), Shape::whole()).await;
    let client = platform.client();
    // Long enough to be looked for, found gone, and looked for again.
    let items: Vec<u64> = (0..40).collect();
    let definition = workflows::fan_out("p10", "25s");
    let run_id = client.start(&definition, json!({"items": items})).await;
    let workers = ["executor-1", "executor-2"];
    let with = &platform;
    wait_for("the workers to have all tasks", || async {
        let mut tasks = [0.0; 2];
        for (tasks, name) in tasks.iter_mut().zip(workers) {
            *tasks = with.metric(name, "wonder_tasks_in_flight").await;
        }
        (tasks.iter().sum::<f64>() >= 40.0 && tasks.iter().all(|tasks| *tasks > 0.0)).then_some(())
    })
    .await;
    platform.nats().wipe().await;
    platform.nats().kill_9().await;
    platform.nats().start_again().await;
    let view = client.end_of(&run_id).await;
    assert_eq!(view["output"], json!({"count": 40, "items": items}));
    let mut made = 0.0;
    for name in workers {
        made += platform.metric(name, "wonder_tasks_total").await;
    }
    assert_eq!(made, 40.0, "each task is made once");
    platform.kill_9().await;
    let records = platform.records().await;
    records.check();
    let counts = records.count(&run_id);
    assert_eq!(counts.get("task_handed_out"), None, "{counts:?}");
}
