//! Promise 20: a parent goes on with the end of each of its child runs, and no child outlives its
//! parent, whatever dies between.
//!
//! Real processes are killed while children are started, and right after a cancellation. It fails
//! where a start, an end or a cancellation is passed on in memory only, where a start that is
//! repeated makes a second child, and where a cancellation waits for the children.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{Client, Platform, Setting, wait_for};

system_tests::in_both_settings!(
    a_family_goes_on_through_kills,
    a_cancelled_parent_takes_its_children_with_it,
);

/// Children of one parent; all fit on a page.
const CHILDREN: usize = 150;

/// A definition that works for a while and answers with its input.
fn helper(delay: &str) -> String {
    json!({"name": "helper", "start": "work",
        "nodes": {"work": {"action": {"kind": "mock", "with": {"delay": delay,
                               "result": "${input.n}"}},
                           "input": {"n": "${input.n}"}, "output": {"state.n": "${result}"}}},
        "output": {"n": "${state.n}"}})
    .to_string()
}

/// A definition that has it run for each of its branches, in two levels: half of the branches go
/// through a child of their own.
fn parent() -> Value {
    json!({"name": "parent", "start": "begin",
        "nodes": {"begin": {"compute": {"state.begun": true}},
            "ask": {"workflow": {"definition": "${index % 2 == 0 ? 'helper' : 'between'}",
                                 "input": {"n": "${index}"}}},
            "end": {"compute": {"state.ended": true}}},
        "transitions": [
            {"from": "begin", "to": "ask", "spawn": CHILDREN, "group": "all"},
            {"from": "ask", "to": "end", "join": {"group": "all",
                "merge": {"strategy": "collect", "from": "${result.n}", "into": "state.got"}}}],
        "output": {"got": "${state.got}"}})
}

fn between() -> String {
    json!({"name": "between", "start": "ask",
        "nodes": {"ask": {"workflow": {"definition": "helper@1", "input": {"n": "${input.n}"}},
                          "output": {"state.n": "${result.n}"}}},
        "output": {"n": "${state.n}"}})
    .to_string()
}

async fn published(client: &Client, delay: &str) {
    client.publish(&helper(delay)).await;
    client.publish(&between()).await;
}

/// How many children of a run have a status.
async fn children(client: &Client, run_id: &str, status: &str) -> usize {
    let path = format!("/runs?parent={run_id}&status={status}&limit=200");
    client.get(&path).await["items"].as_array().map_or(0, Vec::len)
}

async fn at_least(client: &Client, run_id: &str, status: &str, count: usize) {
    wait_for(&format!("{count} children that are {status}"), || async {
        (children(client, run_id, status).await >= count).then_some(())
    })
    .await;
}

async fn killed(platform: &mut Platform) {
    platform.kill_9().await;
    platform.restart().await;
}

async fn a_family_goes_on_through_kills(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    published(&client, "300ms").await;
    let run_id = client.start(&parent(), json!({})).await;
    // Among the starts of its children, among their ends, and once more.
    at_least(&client, &run_id, "running,waiting,completed", 1).await;
    killed(&mut platform).await;
    at_least(&client, &run_id, "completed", 1).await;
    killed(&mut platform).await;
    at_least(&client, &run_id, "completed", CHILDREN / 2).await;
    killed(&mut platform).await;
    let view = client.end_of(&run_id).await;
    assert_eq!(view["status"], "completed", "{}", view["error"]);
    let expected: Vec<_> = (0..CHILDREN).collect();
    assert_eq!(view["output"]["got"], json!(expected));
    at_least(&client, &run_id, "completed", CHILDREN).await;
    platform.stop().await;
    let records = platform.records().await;
    records.check();
    let counts = records.count(&run_id);
    assert_eq!(counts.get("child_started"), Some(&CHILDREN), "{counts:?}");
    assert_eq!(counts.get("child_ended"), Some(&CHILDREN), "{counts:?}");
}

async fn a_cancelled_parent_takes_its_children_with_it(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    published(&client, "10m").await;
    let run_id = client.start(&parent(), json!({})).await;
    at_least(&client, &run_id, "running,waiting", CHILDREN).await;
    let begun = Instant::now();
    client.post(&format!("/runs/{run_id}/cancel"), &json!({})).await.ok();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "cancelling took {took:?}");
    killed(&mut platform).await;
    at_least(&client, &run_id, "cancelled", CHILDREN).await;
    wait_for("all runs to end", || async {
        let open = client.get("/runs?status=running,waiting,paused").await;
        open["items"].as_array()?.is_empty().then_some(())
    })
    .await;
    platform.stop().await;
    platform.records().await.check();
}
