//! Promise 12: a poison task ends visible.
//!
//! It fails where attempts are counted anywhere but in events (a restart would start over), where
//! the last failure isn't the run's, and where an attempt whose worker vanished isn't owed any
//! more.

use serde_json::{Value, json};
use system_tests::{Setting, Writer, within, workflows};

system_tests::in_both_settings!(
    a_task_that_always_fails_ends_failed_with_its_attempts_counted,
    attempts_stay_counted_through_kills,
);

/// Attempts that a poison task gets.
const ATTEMPTS: u32 = 3;

async fn a_task_that_always_fails_ends_failed_with_its_attempts_counted(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let mut late = workflows::flaky("p12-late", 0, ATTEMPTS);
    late["nodes"]["try"]["action"]["with"] = json!({"result": 1, "delay": "10m"});
    late["nodes"]["try"]["timeout"] = json!("30ms");
    let fails = workflows::flaky("p12-fails", 100, ATTEMPTS);
    for (definition, code) in [(fails, "flaky"), (late, "attempt_timeout")] {
        let view = client.run_to_end(&definition, json!({})).await;
        let run_id = view["id"].as_str().expect("a run's id").to_owned();
        assert_eq!(view["status"], "failed", "{view}");
        assert_eq!(view["error"]["code"], code, "{view}");
        assert_eq!(view["error"]["node"], "try");
        assert_eq!(view["error"]["attempt"], ATTEMPTS);
        let timeline = client.get(&format!("/runs/{run_id}/timeline")).await;
        assert_eq!(timeline["items"][0]["attempts"], ATTEMPTS, "{timeline}");
        let failed = client.events(&run_id).await;
        let failed = failed.iter().filter(|event| event["event_type"] == "task_failed");
        assert_eq!(failed.count(), ATTEMPTS as usize);
    }
    let failed = client.get("/runs?status=failed").await;
    assert_eq!(failed["items"].as_array().map(Vec::len), Some(2));
    platform.stop().await;
    platform.records().await.check();
}

async fn attempts_stay_counted_through_kills(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let mut definition = workflows::flaky("p12", 100, 6);
    definition["nodes"]["try"]["retry"]["initial"] = json!("600ms");
    let run_id = client.start(&definition, json!({})).await;
    let mut seen = 0;
    for kill in 0..3 {
        // Where the machine is slow it may go on to its end meanwhile.
        let events = system_tests::wait_for("another attempt", || async {
            let events = client.events(&run_id).await;
            let has_ended = events.last().is_some_and(|last| last["event_type"] == "run_failed");
            (events.len() > seen + 1 || has_ended).then_some((events.len(), has_ended))
        });
        let (events, has_ended) = events.await;
        assert!(kill > 0 || !has_ended, "it is killed at least once");
        seen = events;
        platform.kill_9().await;
        platform.restart().await;
    }
    let view = client.end_of(&run_id).await;
    assert_eq!((&view["status"], &view["error"]["attempt"]), (&json!("failed"), &json!(6)));
    let failed = client.events(&run_id).await;
    let attempts: Vec<&Value> = failed
        .iter()
        .filter(|event| event["event_type"] == "task_failed")
        .map(|event| &event["payload"]["attempt"])
        .collect();
    assert_eq!(json!(attempts), json!([1, 2, 3, 4, 5, 6]), "each attempt stands once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_worker_vanished_is_handed_out_again() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut writer = Writer::start(folder.path()).await;
    let definition = workflows::flaky("p12", 0, ATTEMPTS);
    let run_id = writer.start_run(&definition, json!({})).await;
    for _ in 0..4 {
        let tasks = within("the task", writer.tasks.pull(10)).await;
        let tasks: Vec<_> =
            tasks.iter().map(|task| (task.run_id, task.token, task.attempt)).collect();
        assert_eq!(tasks, [(run_id, 1, 1)]);
        // It took the task, and the process with it.
        writer.stop().await;
        writer = Writer::start(folder.path()).await;
    }
    let worker = writer.answer_everything();
    let outcome = writer.end_of(run_id).await;
    assert_eq!(outcome.status.as_str(), "completed");
    writer.stop().await;
    within("the worker", worker).await.expect("the worker must not panic");
}
