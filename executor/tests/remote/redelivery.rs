//! Workers that vanish: their tasks go to others, but not for ever.

use std::time::Duration;

use domain::run::FailureKind;
use protocol::Tasks as _;
use protocol::task::OutcomeResult;
use serde_json::json;

use crate::place::{BOUND, Place, failure, subject, task, tokens, unrepeatable};

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_tasks_of_a_worker_that_vanished_are_performed_by_another() {
    let mut place = Place::new().await;
    let vanishing = place.worker(8).await;
    let tasks: Vec<_> = (0..8).map(|token| task(token, json!({}))).collect();
    place.give(&tasks).await;
    let mut pulled = Vec::new();
    while pulled.len() < 8 {
        pulled.extend(vanishing.pull(8 - pulled.len()).await);
    }
    drop(vanishing);
    let executor = place.executor(GRACE).await;
    assert_eq!(tokens(&place.outcomes(8).await), (0..8).collect::<Vec<_>>());
    executor.stop().await;
}

#[tokio::test]
async fn a_task_that_four_workers_vanished_with_fails_visibly() {
    let mut place = Place::new().await;
    let poison = task(1, json!({"result": "never"}));
    place.give(std::slice::from_ref(&poison)).await;
    let mut pool = place.pool().await;
    for delivery in 1..=4 {
        let pulled = tokio::time::timeout(BOUND, pool.pull(1)).await.expect("it is delivered");
        assert_eq!(pulled[0].deliveries, delivery);
        pulled[0].nak().await;
    }
    pool.close().await;
    let executor = place.executor(GRACE).await;
    let outcomes = place.outcomes(1).await;
    let failed = failure(&outcomes[0]);
    assert_eq!((failed.kind, failed.code.as_str()), (FailureKind::Permanent, "worker_lost"));
    assert!(failed.message.contains("4 workers"), "{}", failed.message);
    place.is_done(&subject(&poison)).await;
    executor.stop().await;
}

#[tokio::test]
async fn a_task_that_three_workers_vanished_with_is_tried_once_more() {
    let mut place = Place::new().await;
    place.give(&[task(1, json!({}))]).await;
    let mut pool = place.pool().await;
    for _ in 1..=3 {
        let pulled = tokio::time::timeout(BOUND, pool.pull(1)).await.expect("it is delivered");
        pulled[0].nak().await;
    }
    pool.close().await;
    let executor = place.executor(GRACE).await;
    let outcomes = place.outcomes(1).await;
    assert!(matches!(outcomes[0].result, OutcomeResult::Success(_)));
    executor.stop().await;
}

#[tokio::test]
async fn a_task_that_must_not_be_made_twice_is_in_doubt_when_it_comes_again() {
    let mut place = Place::new().await;
    let (once, twice) = (unrepeatable(1, json!({})), unrepeatable(2, json!({})));
    let executor = place.executor(GRACE).await;
    place.give(std::slice::from_ref(&once)).await;
    assert!(matches!(place.outcomes(1).await[0].result, OutcomeResult::Success(_)));
    executor.stop().await;
    place.give(std::slice::from_ref(&twice)).await;
    let mut pool = place.pool().await;
    let pulled = tokio::time::timeout(BOUND, pool.pull(1)).await.expect("it is delivered");
    pulled[0].nak().await;
    pool.close().await;
    let executor = place.executor(GRACE).await;
    assert_eq!(failure(&place.outcomes(1).await[0]).code, "in_doubt");
    place.is_done(&subject(&twice)).await;
    executor.stop().await;
}
