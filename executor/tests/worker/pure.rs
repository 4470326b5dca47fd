//! `transform` and `mock`, results against schemas, time-outs.

use domain::definition::ActionKind::{Mcp, Mock, Transform};
use protocol::task::{FailureKind, WorkBody};
use serde_json::json;

use crate::support::{action, executor, failure, success, task, task_of, work};

#[tokio::test]
async fn a_transform_answers_its_value_over_input_and_run() {
    let with = json!({"value": {"sum": "${input.a + input.b}", "by": "run ${run.id}", "n": 1}});
    let done = success(&executor(), &task(Transform, with, json!({"a": 2, "b": 3}))).await;
    assert_eq!(done.result, json!({"sum": 5, "by": "run run_x", "n": 1}));
}

#[tokio::test]
async fn a_mock_fails_by_attempt_and_then_answers() {
    let executor = executor();
    let with = json!({
        "result": {"echo": "${input.x}"},
        "fail": {"times": 2, "kind": "transient", "code": "flaky", "message": "not yet"},
    });
    let mut task = task(Mock, with, json!({"x": 1}));
    for attempt in 1..=2 {
        task.attempt = attempt;
        let failed = failure(&executor, &task).await;
        assert_eq!((failed.kind, failed.code.as_str()), (FailureKind::Transient, "flaky"));
    }
    task.attempt = 3;
    assert_eq!(success(&executor, &task).await.result, json!({"echo": 1}));
}

#[tokio::test]
async fn an_attempt_ends_at_its_time_out() {
    let mut task = task(Mock, json!({"delay": "1h"}), json!({}));
    task.timeout = Some("5ms".parse().expect("a span"));
    let failed = failure(&executor(), &task).await;
    assert_eq!((failed.kind, failed.code.as_str()), (FailureKind::Timeout, "attempt_timeout"));
}

#[tokio::test]
async fn a_configuration_that_makes_no_sense_is_told_with_its_place() {
    for (kind, with, place) in [
        (Transform, json!({"valeu": 1}), "with.valeu"),
        (Transform, json!({}), "with.value"),
        (Transform, json!({"value": "${1 +}"}), "with.value"),
        (Mock, json!({"delay": "soon"}), "with.delay"),
        (Mock, json!({"fail": {"kind": "transient"}}), "with.fail"),
    ] {
        let failed = failure(&executor(), &task(kind, with, json!({}))).await;
        assert_eq!((failed.kind, failed.code.as_str()), (FailureKind::Permanent, "invalid_action"));
        assert!(failed.message.contains(place), "{}", failed.message);
    }
    let failed = failure(&executor(), &task(Mcp, json!({}), json!({}))).await;
    assert_eq!(failed.code, "unsupported_action");
}

#[tokio::test]
async fn an_expression_without_a_value_is_a_permanent_failure() {
    let failed =
        failure(&executor(), &task(Transform, json!({"value": "${input.none.x}"}), json!({})))
            .await;
    assert_eq!(failed.kind, FailureKind::Permanent);
    assert!(failed.message.starts_with("with.value"), "{}", failed.message);
}

#[tokio::test]
async fn a_result_is_checked_against_the_output_schema_and_the_depth_limit() {
    let mut checked = action(Mock, json!({"result": {"n": "one"}}));
    checked.output_schema =
        Some(json!({"type": "object", "properties": {"n": {"type": "integer"}}}));
    let failed = failure(&executor(), &task_of(work(WorkBody::Action(checked)), json!({}))).await;
    assert_eq!(failed.code, "output_schema_mismatch");
    assert!(failed.detail["errors"][0].as_str().expect("an error").starts_with("/n"));

    let deep = (0..80).fold(json!(1), |inner, _| json!([inner]));
    let failed =
        failure(&executor(), &task(Transform, json!({"value": "${input.x}"}), json!({"x": deep})))
            .await;
    assert_eq!(failed.kind, FailureKind::Permanent);
}
