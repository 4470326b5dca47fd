//! Promise 28: what runs did and waited for can be seen as of any moment, is explained from what
//! was recorded, and stays so when processes die.
//!
//! It fails where a list of a time past says what is so now, where what a run waited for isn't what
//! its tokens did, and where an explanation or a comparison says what no event records.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use system_tests::{Client, Setting, wait_for};

system_tests::in_both_settings!(what_was_stays_visible);

/// Goes past a gate or a timer by its input, and comes together again.
fn definition() -> Value {
    json!({
        "name": "seen", "start": "sort",
        "nodes": {
            "sort": {"compute": {"state.large": "${input.amount > 100}"}},
            "ask": {"gate": {"title": "May it go?"}},
            "rest": {"wait": {"for": "10m"}},
            "pay": {"action": {"kind": "mock", "with": {"result": {"paid": "${input.amount}"}}},
                    "input": {"amount": "${input.amount}"}, "output": {"state.paid": "${result.paid}"}}
        },
        "transitions": [
            {"from": "sort", "to": "ask", "when": "state.large"},
            {"from": "sort", "to": "rest", "when": "input.amount > 10", "priority": 1},
            {"from": "sort", "to": "pay", "priority": 2},
            {"from": "ask", "to": "pay"},
            {"from": "rest", "to": "pay"}
        ],
        "output": {"paid": "${state.paid}"}
    })
}

/// The runs that a list answers, and their statuses.
async fn listed(client: &Client, query: &str) -> Vec<(String, String)> {
    let runs = client.get(&format!("/runs?limit=10{query}")).await;
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let items = runs["items"].as_array().expect("a list").iter();
    items.map(|run| (text(&run["id"]), text(&run["status"]))).collect()
}

/// When a run's last event was recorded.
async fn last_moment(client: &Client, run_id: &str) -> DateTime<Utc> {
    let state = client.get(&format!("/runs/{run_id}/state")).await;
    state["at"].as_str().expect("a time").parse().expect("a time")
}

async fn what_was_stays_visible(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let client = platform.client();
    let asks = client.start(&definition(), json!({"amount": 500})).await;
    let rests = client.start(&definition(), json!({"amount": 50})).await;
    let pays = client.start(&definition(), json!({"amount": 5})).await;
    client.end_of(&pays).await;
    let waiting = |id: &String| (id.clone(), "waiting".to_owned());
    wait_for("both to wait", || async {
        let found = listed(&client, "&waiting_on=gate,timer").await;
        (found == [waiting(&rests), waiting(&asks)]).then_some(())
    })
    .await;
    assert_eq!(listed(&client, "&waiting_on=gate").await, [waiting(&asks)]);
    assert_eq!(listed(&client, "&status=waiting&waiting_on=timer").await, [waiting(&rests)]);
    let then = last_moment(&client, &asks).await.max(last_moment(&client, &rests).await);
    let then = then.max(last_moment(&client, &pays).await).format("%Y-%m-%dT%H:%M:%S%.6fZ");
    let then = then.to_string();

    platform.kill_9().await;
    platform.restart().await;
    let answers = format!("/gates/{asks}.2/answers");
    client.post(&answers, &json!({"decision": "approve"})).await.ok();
    client.end_of(&asks).await;
    wait_for("the gate to be gone from the list", || async {
        listed(&client, "&waiting_on=gate").await.is_empty().then_some(())
    })
    .await;
    let was = listed(&client, &format!("&as_of={then}")).await;
    assert_eq!(was, [(pays.clone(), "completed".to_owned()), waiting(&rests), waiting(&asks)]);
    let was = listed(&client, &format!("&as_of={then}&waiting_on=gate")).await;
    assert_eq!(was, [waiting(&asks)]);

    // Why it waits there, and not at the gate.
    let why = client.get(&format!("/runs/{rests}/explain?token=1")).await;
    let looked = why["tokens"][0]["left"]["transitions"].as_array().expect("a list");
    let text = |one: &Value, key: &str| one[key].as_str().expect("a text").to_owned();
    let verdicts: Vec<_> =
        looked.iter().map(|one| (text(one, "to"), text(one, "verdict"))).collect();
    let wanted = [("ask", "not_held"), ("rest", "fired"), ("pay", "earlier_tier")];
    assert_eq!(verdicts, wanted.map(|(to, verdict)| (to.to_owned(), verdict.to_owned())), "{why}");
    assert_eq!(looked[1]["read"], json!({"input.amount": 50}));
    let why = client.get(&format!("/runs/{rests}/explain?node=rest")).await;
    assert_eq!(why["tokens"][0]["waits_for"]["for"], "timer", "{why}");

    let diff = client.get(&format!("/runs/{rests}/diff?other={asks}")).await;
    assert_eq!(
        (&diff["parts"]["node"], &diff["right"]["status"]),
        (&json!("sort"), &json!("completed"))
    );
    let diff = client.get(&format!("/runs/{asks}/diff?from={then}")).await;
    assert_eq!(diff["left"]["status"], "waiting", "{diff}");
    assert_eq!(diff["events"]["gate_answered"], 1, "{diff}");
    // The newest state by way of each address of a moment.
    let last = client.events(&asks).await.len();
    let newest = client.get(&format!("/runs/{asks}/state")).await;
    for at in [last.to_string(), "2100-01-01T00:00:00Z".to_owned()] {
        assert_eq!(client.get(&format!("/runs/{asks}/state?at={at}")).await, newest);
    }
    client.post(&format!("/runs/{rests}/cancel"), &json!({})).await.ok();
    client.end_of(&rests).await;
    platform.stop().await;
    platform.records().await.check();
}
