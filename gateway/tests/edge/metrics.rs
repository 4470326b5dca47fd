//! Metrics over runs: what is asked of the read side, and what isn't.

use chrono::DateTime;
use protocol::MetricStep;

use super::fakes::*;

#[tokio::test]
async fn a_query_is_passed_on_as_it_was_asked() {
    let client = Client::dev();
    let path = "/api/v1/metrics/query?metric=score&from=2026-01-31T12:00:00Z&step=1h\
                &group_by=definition,node&group_by=dimensions.region&kind=llm\
                &dimension=region=eu=1&dimension=tier=&min_position=7";
    let answer = client.get(path).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "unknown_metric"));
    let asked = client.world.metric_queries.lock().expect("lock").pop().expect("a query");
    let from = DateTime::parse_from_rfc3339("2026-01-31T12:00:00Z").expect("a time");
    assert_eq!((asked.metric.as_str(), asked.from, asked.to), ("score", Some(from.to_utc()), None));
    assert_eq!((asked.step, asked.min_position), (Some(MetricStep::Hour), Some(7)));
    assert_eq!(asked.group_by, ["definition", "node", "dimensions.region"]);
    let filters = [("kind", "llm"), ("dimensions.region", "eu=1"), ("dimensions.tier", "")];
    assert_eq!(asked.filters, filters.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let client = Client::dev();
    for query in [
        "",
        "metric=a&step=5m",
        "metric=a&from=yesterday",
        "metric=a&dimension=region",
        "metric=a&metric=b",
        "metric=a&min_position=x",
        "metric=a&who=me",
    ] {
        let answer = client.get(&format!("/api/v1/metrics/query?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_ne!(answer.code(), "unknown_metric", "{query}");
    }
    assert_eq!(client.get("/api/v1/metrics").await.json()["items"], serde_json::json!([]));
}
