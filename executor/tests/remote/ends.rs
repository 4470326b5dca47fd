//! Workers that end in good order: what they have begun ends, the rest goes to others.

use std::time::Duration;

use chassis::bus::Delivery;
use protocol::Tasks as _;
use serde_json::json;

use crate::place::{BOUND, Place, failure, fetch, subject, task, tokens, unrepeatable};

/// The next delivery to a worker of the pool.
async fn next(place: &Place) -> Delivery {
    let mut pool = place.pool().await;
    let pulled = tokio::time::timeout(BOUND, pool.pull(1)).await.expect("it is delivered");
    pool.close().await;
    pulled.into_iter().next().expect("a delivery")
}

#[tokio::test]
async fn a_task_that_has_begun_ends_within_the_grace() {
    let mut place = Place::new().await;
    let executor = place.executor(Duration::from_secs(10)).await;
    let begun = task(1, json!({"delay": "300ms"}));
    place.give(std::slice::from_ref(&begun)).await;
    executor.has_begun(1).await;
    executor.stop().await;
    assert_eq!(tokens(&place.outcomes(1).await), [1]);
    place.is_done(&subject(&begun)).await;
}

#[tokio::test]
async fn a_task_that_outlasts_the_grace_is_given_back_as_a_new_one() {
    let place = Place::new().await;
    let executor = place.executor(Duration::from_millis(10)).await;
    let long = task(1, json!({"delay": "1h"}));
    place.give(std::slice::from_ref(&long)).await;
    executor.has_begun(1).await;
    executor.stop().await;
    let given_back = next(&place).await;
    // No worker has vanished with it.
    assert_eq!((given_back.subject.as_str(), given_back.deliveries), (&*subject(&long), 1));
}

#[tokio::test]
async fn one_that_must_not_be_made_twice_is_left_in_doubt() {
    let mut place = Place::new().await;
    let executor = place.executor(Duration::from_millis(10)).await;
    let long = unrepeatable(1, json!({"delay": "1h"}));
    place.give(std::slice::from_ref(&long)).await;
    executor.has_begun(1).await;
    executor.stop().await;
    assert_eq!(failure(&place.outcomes(1).await[0]).code, "in_doubt");
    place.is_done(&subject(&long)).await;
}

#[tokio::test]
async fn a_task_that_was_got_ahead_is_given_back() {
    let place = Place::new().await;
    let worker = place.worker(8).await;
    let ahead = task(1, json!({}));
    place.publish(vec![fetch(&ahead)]).await;
    let (owner, served) = place.owner(vec![]).await;
    tokio::select! {
        _ = worker.pull(1) => panic!("it can't be fetched"),
        () = owner.was_asked() => {}
    }
    worker.close().await;
    let given_back = next(&place).await;
    assert_eq!((given_back.subject.as_str(), given_back.deliveries), (&*subject(&ahead), 1));
    assert!(worker.pull(1).await.is_empty(), "it is closed");
    served.stop().await;
}
