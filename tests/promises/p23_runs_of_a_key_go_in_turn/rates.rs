//! No more runs of a key begin in a period than may, whoever is killed: where what a key has used up
//! is kept in memory only, or only with runs that go on, the windows of the journal's own times show
//! it.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use system_tests::{Records, Setting};

use super::{checked, ended, has_status, waits_for};

const RUNS: usize = 16;
/// In a second.
const LIMIT: usize = 5;

fn limited(name: &str, rate: Value) -> Value {
    json!({
        "name": name, "start": "work",
        "rate_limit": rate,
        "nodes": {"work": {"action": {"kind": "mock", "with": {"result": 1}}}},
    })
}

/// When each run of a key began, in order.
fn begun(records: &Records, runs: &[String]) -> Vec<DateTime<Utc>> {
    let times = runs.iter().flat_map(|run_id| records.of_run(run_id));
    let admitted = times.filter(|event| &*event.event_type == "run_admitted");
    let mut times: Vec<_> = admitted.map(|event| event.recorded_at).collect();
    times.sort_unstable();
    times
}

pub(super) async fn runs_begin_no_faster_than_may_through_kills(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let once = limited("once", json!({"limit": 1, "period": "1h", "then": "drop"}));
    let first = client.run_to_end(&once, json!({})).await;
    assert_eq!(first["status"], "completed", "{first}");
    let seldom = limited("seldom", json!({"limit": 1, "period": "1h"}));
    client.run_to_end(&seldom, json!({})).await;
    let waiting = client.start(&seldom, json!({})).await;
    has_status(&client, &waiting, "queued").await;
    let item = waits_for(&client, &waiting).await;
    let queue = &item["queue"];
    let told = (&queue["reason"], &queue["period"], &queue["ahead"]);
    assert_eq!(told, (&json!("rate_limit"), &json!("1h"), &json!(0)), "{item}");
    assert!(queue["not_before"].is_string(), "{item}");
    let rate = json!({"key": "${input.user}", "limit": LIMIT, "period": "1s", "burst": 2});
    let spread = limited("spread", rate);
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(client.start(&spread, json!({"user": "ann"})).await);
    }
    for least in [RUNS / 3, 2 * RUNS / 3] {
        ended(&client, least).await;
        platform.kill_9().await;
        platform.restart().await;
    }
    for run_id in &runs {
        assert_eq!(client.end_of(run_id).await["status"], "completed");
    }
    has_status(&client, &waiting, "queued").await;
    // All runs of its key have ended long ago, in a process that was killed twice since.
    let dropped = client.run_to_end(&once, json!({})).await;
    assert_eq!(dropped["status"], "cancelled", "{dropped}");
    assert_eq!(dropped["error"]["code"], "rate_limit_dropped", "{dropped}");
    checked(&mut platform).await;
    let times = begun(&platform.records().await, &runs);
    assert_eq!(times.len(), RUNS, "each run begins once");
    for (first, from) in times.iter().enumerate() {
        let within = |time: &&DateTime<Utc>| **time - *from < TimeDelta::seconds(1);
        let count = times[first..].iter().take_while(within).count();
        assert!(count <= LIMIT + 1, "{count} begin within a second of {from}");
    }
}
