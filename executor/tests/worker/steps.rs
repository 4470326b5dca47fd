//! A task of steps: mapping, conditions, and what a failure leads to.

use protocol::task::FailureKind;
use serde_json::{Value, json};

use crate::support::{executor, failure, steps, success};

fn mock(name: &str, result: Value) -> Value {
    json!({"name": name, "action": {"kind": "mock", "with": {"result": result}}})
}

fn failing(name: &str, kind: &str, on_failure: &str) -> Value {
    json!({"name": name, "on_failure": on_failure, "action": {"kind": "mock", "with": {
        "fail": {"times": 9, "kind": kind, "code": "broken", "message": "no"}}}})
}

#[tokio::test]
async fn steps_see_earlier_results_and_their_own_mapped_input() {
    let mut second = mock("b", json!("${input.y} ${steps.a.n}"));
    second["input"] = json!({"y": "${input.x + 1}"});
    let task = steps(json!([mock("a", json!({"n": "${input.x}"})), second]), json!({"x": 1}));
    let done = success(&executor(), &task).await;
    assert_eq!(done.result, json!({"a": {"n": 1}, "b": "2 1", "last": "2 1"}));
}

#[tokio::test]
async fn conditions_skip_succeed_and_fail() {
    for (condition, then, otherwise, expected) in [
        ("input.x == 1", None, None, Some(json!({"a": 1, "b": 2, "last": 2}))),
        ("${input.x == 2}", None, None, Some(json!({"a": 1, "b": null, "last": 1}))),
        ("steps.a == 1", Some("succeed"), None, Some(json!({"a": 1, "last": 1}))),
        ("steps.a == 2", None, Some("succeed"), Some(json!({"a": 1, "last": 1}))),
        ("input.x == 1", Some("fail"), None, None),
        (
            "input.x == 1",
            Some("skip"),
            Some("continue"),
            Some(json!({"a": 1, "b": null, "last": 1})),
        ),
    ] {
        let mut second = mock("b", json!(2));
        second["if"] = json!(condition);
        for (key, word) in [("then", then), ("else", otherwise)] {
            if let Some(word) = word {
                second[key] = json!(word);
            }
        }
        let task = steps(json!([mock("a", json!(1)), second]), json!({"x": 1}));
        match expected {
            Some(result) => assert_eq!(success(&executor(), &task).await.result, result),
            None => assert_eq!(failure(&executor(), &task).await.code, "step_failed"),
        }
    }
}

#[tokio::test]
async fn a_failed_step_aborts_retries_or_lets_the_task_go_on() {
    for (kind, policy, expected) in [
        ("transient", "abort", FailureKind::Permanent),
        ("permanent", "retry", FailureKind::Transient),
        ("policy", "retry", FailureKind::Policy),
    ] {
        let task = steps(json!([failing("a", kind, policy)]), json!({}));
        let failed = failure(&executor(), &task).await;
        assert_eq!((failed.kind, failed.code.as_str()), (expected, "broken"), "{kind} {policy}");
        assert_eq!(failed.detail["step"], "a");
    }
    let next = mock("b", json!("${steps.a.error.code}"));
    let task = steps(json!([failing("a", "permanent", "continue"), next]), json!({}));
    assert_eq!(success(&executor(), &task).await.result["b"], "broken");
}

#[tokio::test]
async fn a_step_named_last_is_refused() {
    let task = steps(json!([mock("last", json!(1))]), json!({}));
    assert_eq!(failure(&executor(), &task).await.code, "invalid_action");
}
