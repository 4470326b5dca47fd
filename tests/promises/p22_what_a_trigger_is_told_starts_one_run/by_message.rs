//! Runs of the messages of a stream that somebody else fills.

use super::*;

/// Messages that are to start a run each.
const MESSAGES: usize = 60;

/// It fails where a message is acknowledged before its run is there, where a second delivery starts
/// a second run, where a consumer is made anew by each owner, or left behind.
#[tokio::test]
async fn a_message_starts_one_run_over_kills() {
    let mut platform = platform(Setting::Distributed).await;
    let client = platform.client();
    let stream = platform.nats().stream("ORDERS", "orders.>").await;
    let publish = |subject: &'static str, body: Value| {
        stream.publish(subject, ("X-Shop", "north"), body.to_string())
    };
    publish("orders.new", json!({"n": 1_000})).await;
    // Who begins to follow a stream does so from a whole second on.
    let second = Utc::now().timestamp();
    wait_for("the next second", || async { (Utc::now().timestamp() > second).then_some(()) }).await;
    let triggers = json!({
        "order": {
            "message": {"stream": "ORDERS", "subject": "orders.*", "headers": ["x-shop"],
                "where": "${message.body.n % 2 == 0}"},
            "input": {"n": "${trigger.message.body.n}",
                "shop": "${trigger.message.headers['x-shop']}"},
        },
        // One that can't be followed holds up no other.
        "nothing": {"message": {"stream": "NOT_THERE"}},
        "own": {"message": {"stream": "WONDER_TASKS"}},
    });
    let id = workflow(&client, "orders", &echo("orders"), triggers).await;
    for n in 0..2 * MESSAGES {
        publish("orders.new", json!({"n": n})).await;
        if n % 40 == 20 {
            kill_a_coordinator(&mut platform, Setting::Distributed, n / 40).await;
        }
    }
    publish("orders.of.others", json!({"n": 2_000})).await;
    publish("orders.broken", json!("no number")).await;
    let shown = wait_for("each message to have its run", || async {
        let mut list = client.get(&format!("/workflows/{id}/triggers")).await;
        let shown = list["items"][1].take();
        assert_eq!(shown["name"], "order");
        let is_done = shown["runs"].as_u64()? >= MESSAGES as u64 && shown["failures"] == 1;
        is_done.then_some(shown)
    })
    .await;
    assert_eq!(shown["last_error"]["code"], "trigger_condition", "{shown}");
    client.all_ended().await;
    assert_eq!(stream.consumers().await, 1);
    change(&client, &id, &json!({"enabled": false})).await;
    wait_for("the consumer to be deleted", || async {
        (stream.consumers().await == 0).then_some(())
    })
    .await;
    platform.stop().await;
    let records = platform.records().await;
    let started = check(&records);
    let mut numbers = BTreeSet::new();
    for (run_id, by) in &started {
        let steps = records.fold(run_id);
        let Event::RunStarted(first) = &steps[0].event else { panic!("{run_id}") };
        assert_eq!(first.input["shop"], "north");
        assert_eq!((by.kind.as_str(), by.depth), ("message", 0));
        assert!(by.key.starts_with("ORDERS/"), "{}", by.key);
        assert!(numbers.insert(first.input["n"].as_u64().expect("a number") as usize));
    }
    assert_eq!(numbers, (0..2 * MESSAGES).filter(|n| n % 2 == 0).collect());
}
