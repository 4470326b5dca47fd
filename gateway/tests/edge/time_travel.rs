//! What is asked about the past reaches the read side as it was asked, or is refused.

use crate::fakes::{Client, run_id};

#[tokio::test]
async fn explanations_and_comparisons_are_asked_for_as_they_were_asked() {
    let client = Client::dev();
    let run = format!("/api/v1/runs/{}", run_id());
    let other = run_id();
    for (query, asked) in [
        ("explain", "Explain { token: None, node: None, at: Latest }"),
        ("explain?token=7&at=3", "Explain { token: Some(7), node: None, at: Sequence(3) }"),
        ("explain?node=ask", "Explain { token: None, node: Some(\"ask\"), at: Latest }"),
    ] {
        let answer = client.get(&format!("{run}/{query}")).await;
        assert_eq!(answer.json()["why"], asked, "{query}");
    }
    for (query, asked) in [
        ("diff?from=2", "Moments { from: Sequence(2), to: Latest }".to_owned()),
        (
            "diff?from=2&to=2026-01-31T12:00:00Z",
            "Moments { from: Sequence(2), to: Time(2026-01-31T12:00:00Z) }".to_owned(),
        ),
        (format!("diff?other={other}").as_str(), format!("{:?}", protocol::DiffTo::Run(other))),
    ] {
        let answer = client.get(&format!("{run}/{query}")).await;
        assert_eq!(answer.json()["left"]["definition"], asked, "{query}");
    }
    for query in [
        "explain?token=x",
        "explain?token=1&node=ask",
        "explain?at=soon",
        "diff",
        "diff?to=2",
        "diff?other=wf_1",
        &format!("diff?other={other}&from=1"),
        "state?at=soon",
    ] {
        let answer = client.get(&format!("{run}/{query}")).await;
        let found = (answer.status.as_u16(), answer.code());
        assert_eq!(found, (400, "invalid_parameter".to_owned()), "{query}");
    }
}
