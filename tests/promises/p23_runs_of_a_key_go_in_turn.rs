//! Promise 23: of the runs with a key no more go on, and begin in a period, than may, each of them
//! goes on in the end, and whoever waits is seen with the reason.
//!
//! Real processes are killed between the end of a run and the admission of the next. It fails where
//! an admission is kept in memory only, where a place that has become free is lost, and where
//! whoever takes over lets runs in before all are known: the journal is counted position by
//! position.

use rates::runs_begin_no_faster_than_may_through_kills;
use serde_json::{Value, json};
use system_tests::{Book, Client, Platform, Setting, wait_for};

mod rates;

system_tests::in_distributed!(a_queue_goes_on_with_whoever_takes_over);

system_tests::in_both_settings!(
    a_queue_empties_through_kills_and_never_over_its_limit,
    who_waits_is_seen_and_answers_to_commands,
    what_is_over_the_limit_is_dropped_or_displaces,
    runs_begin_no_faster_than_may_through_kills,
    forks_take_their_turn_through_kills,
);

const RUNS: usize = 40;
const LIMIT: usize = 3;

fn bounded(limit: usize, then: &str, delay: &str) -> Value {
    json!({
        "name": "bounded", "start": "work",
        "concurrency": {"key": "${input.user}", "limit": limit, "then": then},
        "nodes": {"work": {"action": {"kind": "mock", "with": {"delay": delay, "result": 1}}}},
    })
}

async fn count(client: &Client, status: &str) -> usize {
    let runs = client.get(&format!("/runs?status={status}&limit=200")).await;
    runs["items"].as_array().map_or(0, Vec::len)
}

async fn ended(client: &Client, least: usize) {
    wait_for(&format!("{least} runs that have completed"), || async {
        (count(client, "completed").await >= least).then_some(())
    })
    .await;
}

async fn waits_for(client: &Client, run_id: &str) -> Value {
    let path = format!("/runs/{run_id}/waiting");
    client.get(&path).await["items"][0].clone()
}

async fn has_status(client: &Client, run_id: &str, status: &str) {
    wait_for(&format!("{run_id} to be {status}"), || async {
        // Lists follow the journal: a run that has just started may not stand there yet.
        let runs = client.get(&format!("/runs?q={run_id}")).await;
        (runs["items"][0]["status"] == status).then_some(())
    })
    .await;
}

async fn checked(platform: &mut Platform) {
    // Stopping it would wait for what is at work.
    platform.kill_9().await;
    platform.records().await.check();
    platform.audit(&Book::default()).await;
}

async fn a_queue_empties_through_kills_and_never_over_its_limit(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let definition = bounded(LIMIT, "queue", "50ms");
    let mut runs = Vec::new();
    for number in 0..RUNS {
        // Two keys: most of one, so that others go on beside it.
        let user = if number % 8 == 0 { "bob" } else { "ann" };
        runs.push(client.start(&definition, json!({"user": user})).await);
    }
    for least in [1, RUNS / 4, RUNS / 2, RUNS * 3 / 4] {
        ended(&client, least).await;
        platform.kill_9().await;
        platform.restart().await;
    }
    for run_id in &runs {
        assert_eq!(client.end_of(run_id).await["status"], "completed");
    }
    checked(&mut platform).await;
    let records = platform.records().await;
    let admitted: usize =
        runs.iter().filter_map(|run_id| records.count(run_id).get("run_admitted").copied()).sum();
    assert_eq!(admitted, RUNS, "each run is admitted once");
}

async fn a_queue_goes_on_with_whoever_takes_over(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let definition = bounded(LIMIT, "queue", "100ms");
    let mut runs = Vec::new();
    for number in 0..RUNS {
        // Of both coordinators.
        let input = json!({"user": format!("user-{}", number % 5)});
        runs.push(client.start(&definition, input).await);
    }
    for (name, least) in [("coordinator-1", 1), ("coordinator-2", RUNS / 2)] {
        ended(&client, least).await;
        platform.kill_one(name).await;
        let (late, user) = (RUNS / 10, json!({"user": "user-1"}));
        for _ in 0..late {
            runs.push(client.start(&definition, user.clone()).await);
        }
        ended(&client, least + RUNS / 4).await;
        platform.start_one(name).await;
    }
    for run_id in &runs {
        assert_eq!(client.end_of(run_id).await["status"], "completed");
    }
    checked(&mut platform).await;
}

async fn who_waits_is_seen_and_answers_to_commands(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let definition = bounded(1, "queue", "10m");
    let ann = || json!({"user": "ann"});
    let first = client.start(&definition, ann()).await;
    has_status(&client, &first, "running").await;
    let second = client.start(&definition, ann()).await;
    let third = client.start(&definition, ann()).await;
    has_status(&client, &second, "queued").await;
    has_status(&client, &third, "queued").await;
    assert_eq!(count(&client, "queued").await, 2);
    let item = waits_for(&client, &third).await;
    assert_eq!((&item["for"], &item["queue"]["ahead"]), (&json!("queue"), &json!(1)), "{item}");
    assert_eq!((&item["queue"]["key"], &item["queue"]["limit"]), (&json!("ann"), &json!(1)));
    let timeline = client.get(&format!("/runs/{third}/timeline")).await;
    assert_eq!(timeline["items"][0]["status"], "queued", "{timeline}");
    client.post(&format!("/runs/{second}/cancel"), &json!({})).await.ok();
    has_status(&client, &second, "cancelled").await;
    wait_for("the place of the cancelled run", || async {
        (waits_for(&client, &third).await["queue"]["ahead"] == 0).then_some(())
    })
    .await;
    client.post(&format!("/runs/{third}/pause"), &json!({})).await.ok();
    has_status(&client, &third, "paused").await;
    client.post(&format!("/runs/{third}/resume"), &json!({})).await.ok();
    has_status(&client, &third, "queued").await;
    client.post(&format!("/runs/{first}/cancel"), &json!({})).await.ok();
    has_status(&client, &third, "running").await;
    checked(&mut platform).await;
}

async fn what_is_over_the_limit_is_dropped_or_displaces(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let ann = || json!({"user": "ann"});
    let mut dropping = bounded(1, "drop", "10m");
    dropping["name"] = json!("dropping");
    let first = client.start(&dropping, ann()).await;
    let dropped = client.end_of(&client.start(&dropping, ann()).await).await;
    assert_eq!(dropped["status"], "cancelled");
    assert_eq!(dropped["error"]["code"], "concurrency_dropped", "{dropped}");
    has_status(&client, &first, "running").await;

    let displacing = bounded(1, "cancel_oldest", "10m");
    let oldest = client.start(&displacing, ann()).await;
    let newest = client.start(&displacing, ann()).await;
    let gone = client.end_of(&oldest).await;
    assert_eq!(gone["error"]["code"], "concurrency_replaced", "{gone}");
    has_status(&client, &newest, "running").await;
    checked(&mut platform).await;
}

async fn forks_take_their_turn_through_kills(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let first = client.start(&bounded(1, "queue", "10m"), json!({"user": "ann"})).await;
    let path = format!("/runs/{first}/fork");
    let forked = |body: Value| {
        let (client, path) = (client.clone(), path.clone());
        async move { client.post(&path, &body).await.ok() }
    };
    let same = forked(json!({"at": 2})).await;
    assert_eq!(same["status"], "queued", "{same}");
    let same = same["id"].as_str().expect("a run").to_owned();
    let item = waits_for(&client, &same).await;
    assert_eq!((&item["for"], &item["queue"]["key"]), (&json!("queue"), &json!("ann")), "{item}");
    // Under other keys there is a place each, wherever they live.
    let others = ["bob", "eve", "joe"];
    for user in others {
        let other = forked(json!({"at": 2, "input": {"user": user}})).await;
        has_status(&client, other["id"].as_str().expect("a run"), "running").await;
    }
    let next = client.start(&bounded(1, "queue", "10m"), json!({"user": "bob"})).await;
    has_status(&client, &next, "queued").await;
    platform.kill_9().await;
    platform.restart().await;
    has_status(&client, &same, "queued").await;
    client.post(&format!("/runs/{first}/cancel"), &json!({})).await.ok();
    has_status(&client, &same, "running").await;
    let drops = client.start(&bounded(1, "drop", "10m"), json!({"user": "zoe"})).await;
    let refused = client.post(&format!("/runs/{drops}/fork"), &json!({"at": 1})).await;
    assert_eq!(refused.body["code"], "concurrency_dropped", "{refused:?}");
    checked(&mut platform).await;
}
