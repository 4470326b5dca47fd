//! Runs of a trigger that take turns, wherever their queue is.

use super::*;

system_tests::in_both_settings!(runs_of_a_schedule_and_of_webhooks_take_turns);

/// A run of a few seconds, one at a time for each key.
fn slow() -> Value {
    json!({
        "name": "slow", "start": "rest",
        "concurrency": {"key": "${input.key}", "limit": 1},
        "nodes": {"rest": {"wait": {"for": "1500ms"}}},
        "transitions": [],
        "output": {"key": "${input.key}"},
    })
}

async fn runs_of_a_schedule_and_of_webhooks_take_turns(setting: Setting) {
    let mut platform = platform(setting).await;
    let client = platform.client();
    let triggers = json!({
        "order": {"webhook": {"secret_envs": ["SHOP_HOOK"]}, "input": {"key": "${trigger.body.key}"}},
        "tick": {"schedule": {"every": "1s"}, "input": {"key": "ticks"}},
    });
    let id = workflow(&client, "slow", &slow(), triggers).await;
    // Told twice and by two that are equal but for their ids, they are two runs.
    let (one, other) = (r#"{"key": "shop"}"#, r#"{"key": "shop"}"#);
    let first = Delivery::of("msg_1", one).run_id(&client, &id).await;
    let second = Delivery::of("msg_2", other).run_id(&client, &id).await;
    assert_eq!(Delivery::of("msg_1", one).run_id(&client, &id).await, first);
    assert_ne!(first, second);
    wait_for("a run of the schedule to wait for its turn", || async {
        let queued = client.get("/runs?status=queued&definition=slow&limit=200").await;
        let items = queued["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().find(|run| run["trigger"]["kind"] == "schedule")
    })
    .await;
    kill_a_coordinator(&mut platform, setting, 0).await;
    change(&client, &id, &json!({"triggers": {"tick": {"enabled": false}}})).await;
    for run_id in [&first, &second] {
        let view = client.end_of(run_id).await;
        assert_eq!(
            (&view["status"], &view["output"]["key"]),
            (&json!("completed"), &json!("shop"))
        );
        assert_eq!(view["trigger"]["kind"], "webhook", "{view}");
    }
    // Those that had waited come to their turns as well.
    client.all_ended().await;
    platform.stop().await;
    let records = platform.records().await;
    assert!(check(&records).len() > 3, "the schedule has started runs, too");
    // That no two of a key went on at once is looked for position by position.
    platform.audit(&system_tests::Book::default()).await;
}
