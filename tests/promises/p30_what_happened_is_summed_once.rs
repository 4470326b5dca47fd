//! Promise 30: metrics over runs sum up what happened, once, with what definitions emit themselves,
//! also over a kill.
//!
//! It fails where a run, an attempt or an emitted value is counted twice or not at all, where a value
//! lands in another series than its own, and where the several processes don't ask for it as one does.

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Platform, Setting};

system_tests::in_both_settings!(runs_attempts_and_values_are_counted);

/// An attempt that fails once, and a value of its own.
fn sale() -> Value {
    json!({
        "name": "sale", "start": "pay",
        "nodes": {
            "pay": {"action": {"kind": "mock", "with": {"result": {"sum": "${input.sum}"},
                    "fail": {"times": 1, "kind": "transient", "code": "busy"}}},
                "input": {"sum": "${input.sum}"}, "output": {"state.sum": "${result.sum}"},
                "retry": {"initial": "1ms", "jitter": false}},
            "measure": {"emit": {"metric": "order-value", "value": "${state.sum}",
                "dimensions": {"region": "${input.region}"}}}},
        "transitions": [{"from": "pay", "to": "measure"}]
    })
}

/// The command line, at the gateway.
async fn told(platform: &Platform, arguments: &[&str]) -> Value {
    let server = ["-o", "json", "--server", platform.gateway()];
    let (_, told, talk) = platform.wonder(&[&["metrics"], arguments, &server].concat()).await;
    serde_json::from_str(&told).unwrap_or_else(|_| panic!("{arguments:?}: {told}{talk}"))
}

/// The count of each group of the last day, by the one value that it has.
async fn counts(
    platform: &Platform,
    metric: &str,
    group: &str,
    position: u64,
) -> Vec<(String, u64)> {
    let path =
        format!("/metrics/query?metric={metric}&group_by={group}&step=1d&min_position={position}");
    let answer = platform.client().get(&path).await;
    let series = answer["series"].as_array().expect("series").iter();
    let mut counts: Vec<_> = series
        .map(|one| {
            let name = one["group"][group].as_str().expect("a value").to_owned();
            (name, one["total"]["count"].as_u64().expect("a count"))
        })
        .collect();
    counts.sort();
    counts
}

async fn runs_attempts_and_values_are_counted(setting: Setting) {
    let mut platform: Platform = crate::platform_in(setting).await;
    let client = platform.client();
    let mut position = 0;
    for number in 0..6 {
        if number == 3 {
            platform.kill_9().await;
            platform.restart().await;
        }
        let region = if number < 4 { "eu" } else { "us" };
        let input = json!({"sum": f64::from(number) + 0.1, "region": region});
        let run = client.start(&sale(), input).await;
        let end = client.end_of(&run).await;
        assert_eq!(end["status"], "completed", "{end}");
        position = end["position"].as_u64().expect("a position");
    }
    let named = |names: &[(&str, u64)]| -> Vec<_> {
        names.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    let expected = [
        ("runs.completed", "definition", named(&[("sale", 6)])),
        ("attempts.duration", "status", named(&[("retried", 6), ("succeeded", 6)])),
        ("attempts.started", "node", named(&[("pay", 12)])),
        ("nodes.succeeded", "kind", named(&[("emit", 6), ("mock", 6)])),
        ("order-value", "dimensions.region", named(&[("eu", 4), ("us", 2)])),
    ];
    for (metric, group, counted) in &expected {
        assert_eq!(&counts(&platform, metric, group, position).await, counted, "{metric}");
    }
    let narrowed = ["query", "order-value", "--where", "dimensions.region=eu", "--step", "1d"];
    let eu = told(&platform, &narrowed).await;
    let total = &eu["series"][0]["total"];
    assert_eq!(
        (&total["sum"], &total["min"], &total["max"]),
        (&json!(6.4), &json!(0.1), &json!(3.1)),
        "{eu}"
    );
    let list = told(&platform, &["list"]).await;
    let own =
        list["items"].as_array().expect("items").iter().find(|one| one["name"] == "order-value");
    assert!(own.expect("it is listed")["dimensions"].to_string().contains("dimensions.region"));
    let request = client.request(Method::GET, "/metrics/query?metric=runs.done");
    let refused = client.send(request).await.expect("it answers");
    assert_eq!((refused.status, &refused.body["code"]), (400, &json!("unknown_metric")));
}
