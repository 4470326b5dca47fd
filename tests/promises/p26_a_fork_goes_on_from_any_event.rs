//! Promise 26: a fork has its run's past, calls again only what is different, and is there once and
//! whole, whatever dies while it is made; its run isn't touched.
//!
//! It fails where a fork is seen before its past is whole, where a repeated request makes a second
//! one, and where what was recorded can't be adopted any more after a restart.

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Book, Client, Platform, Setting, wait_for};

system_tests::in_both_settings!(
    a_fork_is_made_once_through_kills_and_calls_what_is_different,
    live_children_fork_with_their_parent_through_kills,
    a_long_past_is_there_as_a_whole_or_not_at_all,
);

/// Branches of the run, of which each makes a call.
const BRANCHES: u64 = 6;

/// A fan-out of calls, a gate over what came of them, and a last call.
fn review() -> Value {
    json!({
        "name": "review", "start": "begin",
        "nodes": {
            "begin": {"compute": {"state.words": "${input.words}"}},
            "rate": {"action": {"kind": "mock", "with": {"result": {"rated": "${input.word}"}}},
                "input": {"word": "${state.words}", "index": "${index}"}},
            "ask": {"gate": {"title": "Publish?", "timeout": "1h"}},
            "publish": {"action": {"kind": "mock", "with": {"result": {"all": "${input.all}"}}},
                "input": {"all": "${state.all}"}, "output": {"state.published": "${result.all}"}}},
        "transitions": [
            {"from": "begin", "to": "rate", "spawn": BRANCHES, "group": "g"},
            {"from": "rate", "to": "ask", "join": {"group": "g",
                "merge": {"strategy": "collect", "into": "state.all"}}},
            {"from": "ask", "to": "publish"}],
        "output": {"published": "${state.published}"}
    })
}

async fn gate_of(client: &Client, run_id: &str) -> String {
    wait_for("an open gate", || async {
        let gates = client.get(&format!("/gates?run_id={run_id}&status=open")).await;
        gates["items"][0]["id"].as_str().map(str::to_owned)
    })
    .await
}

async fn approve(client: &Client, run_id: &str) -> Value {
    let path = format!("/gates/{}/answers", gate_of(client, run_id).await);
    client.post(&path, &json!({"decision": "approve"})).await.ok();
    client.end_of(run_id).await
}

/// Events of a type, and how many of them were adopted.
fn counted(events: &[Value], event_type: &str) -> (usize, usize) {
    let of_type: Vec<_> = events.iter().filter(|one| one["event_type"] == event_type).collect();
    let adopted = of_type.iter().filter(|one| one["payload"]["adopted"].is_u64());
    (of_type.len(), adopted.count())
}

async fn a_fork_is_made_once_through_kills_and_calls_what_is_different(setting: Setting) {
    let mut platform: Platform = crate::platform_in(setting).await;
    let client = platform.client();
    let parent = client.start(&review(), json!({"words": "a"})).await;
    gate_of(&client, &parent).await;
    let before = client.events(&parent).await;
    let spawned = before.iter().find(|one| one["event_type"] == "branches_spawned");
    let at = spawned.expect("branches")["sequence"].clone();
    let path = format!("/runs/{parent}/fork");
    let plan = client.post(&path, &json!({"at": at, "dry_run": true})).await.ok();
    assert_eq!(
        (&plan["adopted"]["count"], &plan["calls"]["count"], &plan["gates"]),
        (&json!(BRANCHES), &json!(0), &json!(1)),
        "{plan}"
    );
    // It dies while the fork is made: the request is repeated, and there is one.
    let asked = json!({"at": at});
    let fork =
        |key: &'static str| client.request(Method::POST, &path).header("idempotency-key", key);
    let (first, ()) = tokio::join!(client.send(fork("f").json(&asked)), platform.kill_9());
    platform.restart().await;
    let answer = client.send(fork("f").json(&asked)).await.expect("it is back").ok();
    let forked = answer["id"].as_str().expect("a run").to_owned();
    if let Some(first) = first.ok().filter(|answer| answer.is_success()) {
        assert_eq!(first.body["id"], forked.as_str());
    }
    let runs = client.runs(answer["position"].as_u64().expect("a position")).await;
    assert_eq!(runs.len(), 2, "{runs:?}");
    let gate = gate_of(&client, &forked).await;
    assert!(gate.starts_with(&forked), "{gate}");
    let end = approve(&client, &forked).await;
    assert_eq!(end["status"], "completed", "{end}");
    assert_eq!(end["forked_from"]["run_id"], parent.as_str());
    let shared = end["forked_from"]["sequence"].as_u64().expect("a sequence") as usize;
    let events = client.events(&forked).await;
    for (own, other) in events[1..shared].iter().zip(&before[1..shared]) {
        for same in ["sequence", "event_type", "payload", "recorded_at"] {
            assert_eq!(own[same], other[same]);
        }
    }
    let rated = BRANCHES as usize;
    // The last call was never made before.
    assert_eq!(counted(&events, "task_succeeded"), (rated + 1, rated));
    // What is different reaches every branch.
    let server = platform.gateway();
    let named = ["runs", "fork", &parent, "--server", server, "--at", "1"];
    let (status, told, talk) =
        platform.wonder(&[&named[..], &["--input", r#"{"words": "b"}"#]].concat()).await;
    assert!(status.success(), "{told}{talk}");
    let other = wait_for("the other fork", || async {
        let runs = client.get("/runs?limit=1").await;
        let id = runs["items"][0]["id"].as_str().map(str::to_owned);
        id.filter(|id| *id != forked && *id != parent)
    })
    .await;
    let end = approve(&client, &other).await;
    let all: Vec<_> = (0..BRANCHES).map(|_| json!({"rated": "b"})).collect();
    assert_eq!(end["output"], json!({"published": all}), "{end}");
    assert_eq!(counted(&client.events(&other).await, "task_succeeded"), (rated + 1, 0));
    for run_id in [&forked, &other] {
        let verified = client.post(&format!("/runs/{run_id}/verify"), &json!({})).await.ok();
        assert_eq!(verified["verified"], true, "{verified}");
    }
    assert_eq!(client.events(&parent).await, before, "it is as it was");
    assert_eq!(approve(&client, &parent).await["status"], "completed");
    platform.stop().await;
    platform.records().await.check();
}

async fn live_children_fork_with_their_parent_through_kills(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.publish(&review().to_string()).await;
    let asks = json!({"name": "asks", "start": "call",
        "nodes": {"call": {"workflow": {"definition": "review", "input": {"words": "a"}},
            "output": {"state.got": "${result.published}"}}},
        "output": {"got": "${state.got}"}});
    let parent = client.start(&asks, json!({})).await;
    let child_of = |run_id: &str| {
        let path = format!("/runs?parent={run_id}");
        let client = client.clone();
        async move {
            wait_for("a child", || async {
                let runs = client.get(&path).await;
                runs["items"][0]["id"].as_str().map(str::to_owned)
            })
            .await
        }
    };
    let child = child_of(&parent).await;
    gate_of(&client, &child).await;
    let before = (client.events(&parent).await, client.events(&child).await);
    let path = format!("/runs/{parent}/fork");
    let at = before.0.len();
    let plan = client.post(&path, &json!({"at": at, "dry_run": true})).await.ok();
    let told = (&plan["children"], &plan["calls"]["count"], &plan["gates"]);
    assert_eq!(told, (&json!(1), &json!(0), &json!(1)), "{plan}");
    // Whoever is to start the child of the fork dies with what it knows.
    let answer = client.post(&path, &json!({"at": at})).await.ok();
    platform.kill_9().await;
    platform.restart().await;
    let forked = answer["id"].as_str().expect("a run").to_owned();
    let own = child_of(&forked).await;
    assert!(gate_of(&client, &own).await.starts_with(&own), "it has a gate of its own");
    assert_eq!(approve(&client, &own).await["forked_from"]["run_id"], child.as_str());
    let end = client.end_of(&forked).await;
    let all: Vec<_> = (0..BRANCHES).map(|_| json!({"rated": "a"})).collect();
    assert_eq!(end["output"], json!({"got": all}), "{end}");
    let rated = BRANCHES as usize;
    let events = client.events(&own).await;
    assert_eq!(counted(&events, "task_succeeded"), (rated + 1, 0), "what was done is shared");
    for run_id in [&forked, &own] {
        let verified = client.post(&format!("/runs/{run_id}/verify"), &json!({})).await.ok();
        assert_eq!(verified["verified"], true, "{verified}");
    }
    let after = (client.events(&parent).await, client.events(&child).await);
    assert_eq!(after, before, "they are as they were");
    assert_eq!(approve(&client, &child).await["status"], "completed");
    assert_eq!(client.end_of(&parent).await["status"], "completed");
    platform.stop().await;
    platform.records().await.check();
}

async fn a_long_past_is_there_as_a_whole_or_not_at_all(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let long = json!({
        "name": "long", "start": "begin",
        "nodes": {"begin": {"compute": {"state.word": "yes"}},
            "work": {"compute": {"state.own": "${index}"}},
            "ask": {"gate": {"title": "Publish?", "timeout": "1h"}}},
        "transitions": [
            {"from": "begin", "to": "work", "spawn": 2_600, "group": "g"},
            {"from": "work", "to": "ask", "join": {"group": "g"}}]});
    let parent = client.start(&long, json!({})).await;
    gate_of(&client, &parent).await;
    let length = client.get(&format!("/runs/{parent}")).await["sequence"].clone();
    assert!(length.as_u64().is_some_and(|events| events > 5_000), "{length}");
    // It dies while the past is copied: then there is no fork, or all of it.
    let path = format!("/runs/{parent}/fork");
    let fork = || {
        let asked = client.request(Method::POST, &path).header("idempotency-key", "long");
        client.send(asked.json(&json!({"at": length})))
    };
    let (_, ()) = tokio::join!(fork(), platform.kill_9());
    platform.restart().await;
    let answer = fork().await.expect("it is back").ok();
    let forked = answer["id"].as_str().expect("a run").to_owned();
    let position = answer["position"].as_u64().expect("a position");
    let runs = client.runs(position).await;
    assert_eq!(runs.len(), 2, "{runs:?}");
    let verified = client.post(&format!("/runs/{forked}/verify"), &json!({})).await.ok();
    assert_eq!(verified["verified"], true, "{verified}");
    assert_eq!(approve(&client, &forked).await["status"], "completed");
    assert_eq!(approve(&client, &parent).await["status"], "completed");
    // All events of a copy that broke off are in the journal as well, and fit.
    platform.kill_9().await;
    platform.audit(&Book::default()).await;
}
