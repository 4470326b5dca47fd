//! A NATS server that goes away, with and without what it has stored.

use std::collections::BTreeSet;
use std::time::Duration;

use chassis::bus::PublishError;
use protocol::task::Outcome;
use serde_json::json;

use crate::place::{Place, message, task};

const GRACE: Duration = Duration::from_secs(10);

/// Outcomes until each of these tokens has one.
async fn outcomes_of(place: &mut Place, tokens: std::ops::Range<u64>) {
    let mut seen = BTreeSet::new();
    while seen.len() < tokens.clone().count() {
        seen.extend(place.outcomes(1).await.iter().map(|outcome: &Outcome| outcome.token));
    }
    assert_eq!(seen, tokens.collect());
}

#[tokio::test]
async fn outcomes_wait_for_a_server_that_is_away() {
    let mut place = Place::new().await;
    let executor = place.executor(GRACE).await;
    let tasks: Vec<_> = (0..20).map(|token| task(token, json!({"delay": "200ms"}))).collect();
    place.give(&tasks).await;
    executor.has_begun(20).await;
    place.server.kill().await;
    executor.reports().await;
    // What is published later fails later: the worker's first attempt has failed by then.
    let late = place.tasks.publish(vec![message(&task(20, json!({})))]).await;
    assert!(matches!(late[0], Err(PublishError::Unavailable(_))), "{late:?}");
    place.server.restart().await;
    outcomes_of(&mut place, 0..20).await;
    executor.stop().await;
}

#[tokio::test]
async fn a_server_that_lost_everything_gets_outcomes_and_new_tasks() {
    let mut place = Place::new().await;
    let executor = place.executor(GRACE).await;
    place.give(&[task(0, json!({"delay": "200ms"}))]).await;
    executor.has_begun(1).await;
    place.server.wipe().await;
    outcomes_of(&mut place, 0..1).await;
    let message = message(&task(1, json!({})));
    while place.tasks.publish(vec![message.clone()]).await[0].is_err() {}
    outcomes_of(&mut place, 1..2).await;
    executor.stop().await;
}
