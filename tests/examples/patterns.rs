//! The workflow patterns (docs/patterns.md) on the whole platform: each example gives the same
//! output there, with the same nodes in an order that fits, as the engine alone does
//! (`domain/tests/patterns.rs`, which also rewrites their `expected.json`).

#[path = "../patterns/schedule.rs"]
mod schedule;
#[path = "../patterns/trace.rs"]
mod trace;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use system_tests::{Client, Platform, Setting, wait_for};

use schedule::{Expected, Pattern, Step, patterns};
use trace::Trace;

system_tests::in_both_settings!(every_pattern_does_the_same_on_the_platform);

async fn every_pattern_does_the_same_on_the_platform(setting: Setting) {
    let platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), setting).await;
    let client = platform.client();
    for pattern in patterns() {
        check(&client, &pattern).await;
    }
}

async fn check(client: &Client, pattern: &Pattern) {
    let name = &pattern.name;
    let expected = pattern.expected();
    client.publish(&pattern.source).await;
    let run_id = client.start(&json!(name), pattern.input.clone()).await;
    let mut reached = expected.trace[0].clone();
    came_to(client, name, &run_id, &reached).await;
    let blocked = nodes_after("block ", &reached);
    assert_eq!(waiting_for_mutexes(client, &run_id).await, blocked, "{name}");
    for (step, brought) in pattern.schedule.iter().zip(&expected.trace[1..]) {
        take(client, &run_id, step).await;
        reached.extend(brought.iter().cloned());
        came_to(client, name, &run_id, &reached).await;
    }
    let view = client.end_of(&run_id).await;
    compare(client, name, &run_id, &expected, &view).await;
}

/// Does what comes from outside in a step. What workers and the clock do comes by itself.
async fn take(client: &Client, run_id: &str, step: &Step) {
    if let Some(signal) = &step.signal {
        let body = json!({"payload": step.payload, "transient": step.transient});
        client.post(&format!("/runs/{run_id}/signals/{signal}"), &body).await.ok();
    } else if let Some(node) = &step.answer {
        let gate = wait_for(&format!("a gate at {node}"), || async {
            let waiting = client.get(&format!("/runs/{run_id}/waiting")).await;
            let items = waiting["items"].as_array()?;
            let item = items.iter().find(|item| item["node"] == **node && item["for"] == "gate")?;
            item["gate"]["id"].as_str().map(str::to_owned)
        })
        .await;
        let body = json!({"decision": step.decision, "value": step.value});
        client.post(&format!("/gates/{gate}/answers"), &body).await.ok();
    } else if let Some(reason) = &step.cancel {
        let body = json!({"reason": reason});
        client.post(&format!("/runs/{run_id}/cancel"), &body).await.ok();
    }
}

/// Waits until a run has done at least what the engine alone had done by then.
async fn came_to(client: &Client, name: &str, run_id: &str, lines: &[String]) {
    let wanted = counted(lines);
    wait_for(&format!("{name} to come to {lines:?}"), || async {
        let found = counted(&lines_of(client, run_id).await);
        let is_there = |(line, count)| found.get(line).is_some_and(|found| found >= count);
        wanted.iter().all(is_there).then_some(())
    })
    .await;
}

async fn compare(client: &Client, name: &str, run_id: &str, expected: &Expected, view: &Value) {
    assert_eq!(view["status"], *expected.status, "{name}: {}", view["error"]);
    assert_eq!(view["output"], expected.output, "{name}");
    if let Some(code) = &expected.error {
        assert_eq!(view["error"]["code"], **code, "{name}");
    }
    let lines = lines_of(client, run_id).await;
    assert_eq!(counted(&lines), counted(&expected.trace.concat()), "{name}: {lines:?}");
    expected.check_order(name, &lines);
    let timeline = client.get(&format!("/runs/{run_id}/timeline")).await;
    let entries = timeline["items"].as_array().expect("a list").iter();
    let cancelled = entries.filter(|entry| entry["status"] == "cancelled");
    assert_eq!(sorted_nodes(cancelled), nodes_after("withdraw ", &lines), "{name}: its timeline");
}

/// The nodes of the lines that begin so, sorted.
fn nodes_after(start: &str, lines: &[String]) -> Vec<String> {
    let nodes = lines.iter().filter_map(|line| line.strip_prefix(start));
    let mut nodes: Vec<String> = nodes.map(str::to_owned).collect();
    nodes.sort();
    nodes
}

fn sorted_nodes<'v>(items: impl Iterator<Item = &'v Value>) -> Vec<String> {
    let mut nodes: Vec<String> =
        items.map(|item| item["node"].as_str().expect("a node").to_owned()).collect();
    nodes.sort();
    nodes
}

/// Where tokens wait for a mutex that another one has.
async fn waiting_for_mutexes(client: &Client, run_id: &str) -> Vec<String> {
    let waiting = client.get(&format!("/runs/{run_id}/waiting")).await;
    let items = waiting["items"].as_array().expect("a list");
    let blocked: Vec<&Value> = items.iter().filter(|item| item["for"] == "mutex").collect();
    assert!(blocked.iter().all(|item| item["mutex"]["held_by"].is_u64()), "{waiting}");
    sorted_nodes(blocked.into_iter())
}

fn counted(lines: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line.clone()).or_default() += 1;
    }
    counts
}

/// What a run did so far, from its events.
async fn lines_of(client: &Client, run_id: &str) -> Vec<String> {
    let mut trace = Trace::default();
    for event in client.events(run_id).await {
        let mut payload = event["payload"].clone();
        payload["type"] = event["event_type"].clone();
        let decoded = serde_json::from_value(payload).expect("an event of a run");
        let at = event["recorded_at"].as_str().expect("a time").parse().expect("a time");
        trace.take(&decoded, at);
    }
    trace.lines
}
