//! Promise 29: a failed run is retried where it failed, without repeating what it had done, and any
//! run is done again with its input; both over kills, and neither touches the run that has ended.
//!
//! It fails where a retry takes over the failure, where a repeated request makes a second run, and
//! where the read model loses what a run was made of.

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Platform, Setting, wait_for};

system_tests::in_both_settings!(a_run_that_has_ended_is_retried_and_done_again);

/// A step that is done, and one that nobody can do.
fn errand() -> Value {
    json!({
        "name": "errand", "start": "ask",
        "nodes": {
            "ask": {"action": {"kind": "mock", "with": {"result": {"said": "${input.word}"}}},
                "input": {"word": "${input.word}"}, "output": {"state.said": "${result.said}"}},
            "pay": {"action": {"kind": "mock", "with": {"result": 1,
                "fail": {"times": 9, "kind": "permanent", "code": "no_money"}}}}},
        "transitions": [{"from": "ask", "to": "pay"}]
    })
}

fn count(events: &[Value], event_type: &str) -> usize {
    events.iter().filter(|one| one["event_type"] == event_type).count()
}

/// The command line, at the gateway.
async fn told(platform: &Platform, arguments: &[&str]) -> Value {
    let server = ["-o", "json", "--server", platform.gateway()];
    let (_, told, talk) = platform.wonder(&[arguments, &server].concat()).await;
    serde_json::from_str(&told).unwrap_or_else(|_| panic!("{arguments:?}: {told}{talk}"))
}

async fn a_run_that_has_ended_is_retried_and_done_again(setting: Setting) {
    let mut platform: Platform = crate::platform_in(setting).await;
    let client = platform.client();
    let failed = client.start(&errand(), json!({"word": "a"})).await;
    assert_eq!(client.end_of(&failed).await["status"], "failed");
    let before = client.events(&failed).await;
    let plan = told(&platform, &["runs", "retry", &failed, "--dry-run"]).await;
    assert_eq!(
        (&plan["adopted"]["count"], &plan["calls"]["count"], &plan["calls"]["items"][0]["node"]),
        (&json!(0), &json!(1), &json!("pay")),
        "{plan}"
    );

    for (what, from) in [("retry", "/forked_from/run_id"), ("rerun", "/rerun_of")] {
        // It dies while the run is made: the request is repeated, and there is one.
        let path = format!("/runs/{failed}/{what}");
        let ask = || client.request(Method::POST, &path).header("idempotency-key", what);
        let (first, ()) = tokio::join!(client.send(ask()), platform.kill_9());
        platform.restart().await;
        let answer = client.send(ask()).await.expect("it is back").ok();
        let again = answer["id"].as_str().expect("a run").to_owned();
        if let Some(first) = first.ok().filter(|answer| answer.is_success()) {
            assert_eq!(first.body["id"], again.as_str());
        }
        let end = client.end_of(&again).await;
        assert_eq!((&end["status"], &end["error"]["code"]), (&json!("failed"), &json!("no_money")));
        assert_eq!(end.pointer(from), Some(&json!(failed)), "{end}");
        assert_eq!(end["input"], json!({"word": "a"}));
        let events = client.events(&again).await;
        assert_eq!((count(&events, "task_succeeded"), count(&events, "task_failed")), (1, 1));
        // What a retry has of its run is older than the retry.
        let done = events.iter().find(|one| one["event_type"] == "task_succeeded");
        let original = before.iter().find(|one| one["event_type"] == "task_succeeded");
        let is_shared =
            done.expect("it is")["recorded_at"] == original.expect("it is")["recorded_at"];
        assert_eq!(is_shared, what == "retry");
        assert_eq!(client.events(&failed).await, before, "{failed} was touched");
    }

    let again = told(&platform, &["runs", "rerun", &failed, "--latest"]).await;
    let again = again["id"].as_str().expect("a run").to_owned();
    client.end_of(&again).await;
    let shown = wait_for("the rerun to be shown", || async {
        let shown = told(&platform, &["runs", "show", &again]).await;
        shown["rerun_of"].is_string().then_some(shown)
    })
    .await;
    assert_eq!(shown["rerun_of"], failed.as_str());
    // A child that failed is started anew, by the retry.
    client.publish(&errand().to_string()).await;
    let ask = json!({"workflow": {"definition": "errand", "input": {"word": "b"}}});
    let parent = json!({"name": "parent", "start": "ask", "nodes": {"ask": ask}});
    let parent = client.start(&parent, json!({})).await;
    client.end_of(&parent).await;
    let again = client.post(&format!("/runs/{parent}/retry"), &json!({})).await.ok();
    let again = again["id"].as_str().expect("a run").to_owned();
    assert_eq!(client.end_of(&again).await["error"]["code"], "child_failed");
    let timeline = client.get(&format!("/runs/{again}/timeline")).await;
    let child = timeline["items"][0]["child_run_id"].as_str().expect("a child").to_owned();
    assert_eq!(client.end_of(&child).await["parent_run_id"], again.as_str());

    let fine = json!({"name": "fine", "start": "a", "nodes": {"a": {"compute": {"state.a": 1}}}});
    let fine = client.start(&fine, json!({})).await;
    client.end_of(&fine).await;
    let refused = client.post(&format!("/runs/{fine}/retry"), &json!({})).await;
    assert_eq!((refused.status, refused.code()), (409, "not_failed"));
    platform.stop().await;
    platform.records().await.check();
}
