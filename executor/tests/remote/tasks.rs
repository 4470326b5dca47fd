//! Tasks that are performed: each has its outcome, small or large, and leaves the queue.

use std::collections::HashSet;
use std::time::Duration;

use protocol::Tasks as _;
use protocol::remote::CommandCall;
use protocol::task::{Outcome, OutcomeResult, Success};
use protocol::view::Usage;
use serde_json::{Value, json};

use crate::place::{
    ACK_WAIT, Place, failure, fetch, not_owner, ok, raw, run_id, subject, task, tokens,
};

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_thousand_tasks_have_an_outcome_each() {
    let mut place = Place::new().await;
    let executor = place.executor(GRACE).await;
    let with = |token| match token % 2 {
        0 => json!({"result": token}),
        _ => json!({"result": token, "delay": "1ms"}),
    };
    let tasks: Vec<_> = (0..1_000).map(|token| task(token, with(token))).collect();
    for batch in tasks.chunks(250) {
        place.give(batch).await;
    }
    let outcomes = place.outcomes(1_000).await;
    assert_eq!(tokens(&outcomes), (0..1_000).collect::<Vec<_>>());
    for outcome in &outcomes {
        let OutcomeResult::Success(success) = &outcome.result else { panic!("{outcome:?}") };
        assert_eq!(success.result, json!(outcome.token));
    }
    for task in &tasks[990..] {
        place.is_done(&subject(task)).await;
    }
    executor.stop().await;
}

fn outcome(token: u64) -> Outcome {
    let result = OutcomeResult::Success(Success { result: json!(1), usage: Usage::default() });
    Outcome { run_id: run_id(), token, attempt: 1, result, duration_ms: 2, secrets: Vec::new() }
}

#[tokio::test]
async fn a_task_is_kept_alive_until_it_has_its_outcome() {
    let mut place = Place::new().await;
    let worker = place.worker(8).await;
    let long = task(1, json!({}));
    place.give(std::slice::from_ref(&long)).await;
    assert_eq!(worker.pull(1).await, std::slice::from_ref(&long));
    let mut others = place.pool().await;
    let again = tokio::time::timeout(ACK_WAIT * 5 / 2, others.pull(1)).await;
    assert!(again.is_err(), "it was delivered to another worker: {again:?}");
    others.close().await;
    worker.report(vec![outcome(1)]).await;
    assert_eq!(place.outcomes(1).await, [outcome(1)]);
    place.is_done(&subject(&long)).await;
    worker.close().await;
}

#[tokio::test]
async fn a_task_that_comes_twice_is_performed_once_and_leaves_the_queue() {
    let mut place = Place::new().await;
    let worker = place.worker(8).await;
    let twice = task(1, json!({}));
    place.give(&[twice.clone(), twice.clone(), task(2, json!({}))]).await;
    let mut pulled = Vec::new();
    while pulled.len() < 2 {
        pulled.extend(worker.pull(8).await);
    }
    assert_eq!(pulled.iter().map(|task| task.token).collect::<Vec<_>>(), [1, 2]);
    worker.report(vec![outcome(1)]).await;
    assert_eq!(place.outcomes(1).await, [outcome(1)]);
    place.is_done(&subject(&twice)).await;
    worker.close().await;
}

#[tokio::test]
async fn outcomes_go_to_the_owner_and_what_it_does_not_take_into_the_queue() {
    let mut place = Place::new().await;
    let executor = place.executor(GRACE).await;
    let (owner, served) = place.owner(vec![ok(()), not_owner()]).await;
    let (taken, refused) = (task(1, json!({})), task(2, json!({})));
    place.give(std::slice::from_ref(&taken)).await;
    place.is_done(&subject(&taken)).await;
    place.give(std::slice::from_ref(&refused)).await;
    place.is_done(&subject(&refused)).await;
    assert_eq!(tokens(&place.outcomes(1).await), [2], "only what wasn't taken is in the queue");
    let reported = owner.asked().into_iter().map(|call| match call {
        CommandCall::Report(outcomes) => tokens(&outcomes),
        other => panic!("{other:?}"),
    });
    assert_eq!(reported.collect::<Vec<_>>(), [[1], [2]]);
    served.stop().await;
    executor.stop().await;
}

#[tokio::test]
async fn a_large_outcome_goes_to_the_owner_until_it_is_taken() {
    let mut place = Place::new().await;
    let executor = place.executor(GRACE).await;
    let large = task(1, json!({"result": "x".repeat(600 * 1024)}));
    place.give(&[large.clone(), task(2, json!({}))]).await;
    // Nobody is there yet, which holds up no other outcome.
    assert_eq!(tokens(&place.outcomes(1).await), [2]);
    assert!(place.tasks.holds(&subject(&large)).await.expect("nats runs"));
    let (owner, served) = place.owner(vec![not_owner(), ok(())]).await;
    place.is_done(&subject(&large)).await;
    let asked = owner.asked();
    assert_eq!(asked.len(), 2);
    let CommandCall::Report(outcomes) = &asked[1] else { panic!("it isn't a report") };
    let OutcomeResult::Success(success) = &outcomes[0].result else { panic!("it failed") };
    assert_eq!(success.result.as_str().map(str::len), Some(600 * 1024));
    served.stop().await;
    executor.stop().await;
}

#[tokio::test]
async fn a_task_that_is_too_large_for_a_message_is_fetched() {
    let mut place = Place::new().await;
    let executor = place.executor(GRACE).await;
    let whole = task(1, json!({"result": "fetched"}));
    let gone = task(2, json!({}));
    place.publish(vec![fetch(&whole)]).await;
    let huge = ok("x".repeat(17 * 1024 * 1024));
    let script = vec![not_owner(), ok(Some(&whole)), not_owner(), ok(None::<Value>), huge];
    let (owner, served) = place.owner(script).await;
    let outcomes = place.outcomes(1).await;
    let OutcomeResult::Success(success) = &outcomes[0].result else { panic!("it failed") };
    assert_eq!(success.result, "fetched");
    // The second one isn't owed any more.
    place.publish(vec![fetch(&gone)]).await;
    place.is_done(&subject(&gone)).await;
    // The third one is more than the bus carries.
    place.publish(vec![fetch(&task(3, json!({})))]).await;
    assert_eq!(failure(&place.outcomes(1).await[0]).code, "task_too_large");
    let call = |token| CommandCall::Task { run_id: run_id(), token, attempt: 1 };
    let fetched = owner.asked().into_iter().filter(|call| !matches!(call, CommandCall::Report(_)));
    assert_eq!(fetched.collect::<Vec<_>>(), [call(1), call(1), call(2), call(3)]);
    served.stop().await;
    executor.stop().await;
}

#[tokio::test]
async fn what_is_no_task_is_answered_by_its_subject_or_dropped() {
    let mut place = Place::new().await;
    let executor = place.executor(GRACE).await;
    let unreadable = task(1, json!({}));
    let nameless = "tasks.default.nameless".to_owned();
    place.publish(vec![raw(subject(&unreadable), "{"), raw(nameless.clone(), "{")]).await;
    let outcomes = place.outcomes(1).await;
    assert_eq!(failure(&outcomes[0]).code, "task_unreadable");
    assert_eq!(tokens(&outcomes), [1]);
    place.is_done(&subject(&unreadable)).await;
    place.is_done(&nameless).await;
    executor.stop().await;
}

#[tokio::test]
async fn the_ids_of_outcomes_differ_for_each_performance() {
    let mut place = Place::new().await;
    let executor = place.executor(GRACE).await;
    // The same attempt three times: JetStream would drop outcomes with the same id.
    for _ in 0..3 {
        place.give(&[task(1, json!({}))]).await;
        place.is_done(&subject(&task(1, json!({})))).await;
    }
    let outcomes = place.outcomes(3).await;
    assert_eq!(outcomes.iter().map(|outcome| outcome.token).collect::<HashSet<_>>().len(), 1);
    executor.stop().await;
}
