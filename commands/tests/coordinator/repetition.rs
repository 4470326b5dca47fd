//! The same command sent more than once.

use std::sync::Arc;

use futures::future::join_all;
use protocol::{Command, Commands};
use serde_json::json;

use crate::platform::{Platform, folder, sequence};

#[tokio::test]
async fn one_key_starts_one_run_however_many_ask_at_once() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let mut envelope = platform.envelope(platform.starting(&sequence(1), json!({})));
    envelope.idempotency_key = Some("once".to_owned());
    envelope.fingerprint = Some("same".to_owned());
    let asked = (0..16).map(|_| {
        let (service, mut envelope) = (Arc::clone(&platform.service), envelope.clone());
        envelope.id = domain::ids::CommandId::new(uuid::Uuid::now_v7());
        tokio::spawn(async move { service.execute(envelope).await })
    });
    let answers: Vec<_> = join_all(asked).await;
    let ids: std::collections::BTreeSet<_> = answers
        .into_iter()
        .map(|answer| answer.expect("no panic").expect("the same answer").id)
        .collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(platform.journal.appends(), [1]);

    envelope.fingerprint = Some("other".to_owned());
    let refused = platform.service.execute(envelope).await.expect_err("another request");
    assert_eq!(refused.code, "idempotency_key_reused");
    platform.stop().await;
}

#[tokio::test]
async fn a_repeated_start_gets_the_whole_first_answer() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let at_once = json!({"name": "at-once", "start": "a",
        "nodes": {"a": {"compute": {"state.x": 1}}}});
    let mut envelope = platform.envelope(platform.starting(&at_once, json!({})));
    envelope.idempotency_key = Some("once".to_owned());
    let first = platform.service.execute(envelope.clone()).await.expect("it starts");
    let outcome = first.outcome.as_ref().expect("it ended in its first append");
    assert_eq!(outcome.output, Some(json!({"x": 1})));
    let again = platform.service.execute(envelope).await.expect("the same answer");
    assert_eq!(again, first);
    platform.stop().await;
}

#[tokio::test]
async fn an_outcome_counts_once() {
    let folder = folder();
    let platform = Platform::start(folder.path()).await;
    let run_id = platform.run(&sequence(2)).await;
    let task = platform.pull_one().await;
    for result in [1, 2, 3] {
        platform.succeed(&task, json!(result)).await;
    }
    let second = platform.pull_one().await;
    platform.succeed(&task, json!(4)).await;
    platform.succeed(&second, json!(1)).await;
    assert_eq!(platform.end_of(run_id).await.sequence, 6);
    let again =
        platform.execute(Command::CancelRun { run_id, reason: None, compensate: true }).await;
    assert_eq!(again.expect_err("it has ended").code, "run_ended");
    platform.stop().await;
}
