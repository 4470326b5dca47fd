//! Replay at a pace. Time is tokio's, which goes on by itself where everybody waits.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::StreamExt as _;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::fakes::{Answer, Client, home, run_id};

const STREAM: (&str, &str) = ("accept", "text/event-stream");

fn path(query: &str) -> String {
    format!("/api/v1/runs/{}/events{query}", run_id())
}

/// A run with events at 0 s, 4 s and 200 s.
fn ended_run() -> Client {
    let client = Client::dev();
    for (event, seconds) in [("run_started", 0), ("task_succeeded", 4), ("run_completed", 200)] {
        client.world.record_after(home(), event, seconds);
    }
    client
}

/// The answer, and how long it took.
async fn timed(client: &Client, query: &str, headers: &[(&str, &str)]) -> (Answer, Duration) {
    let begun = Instant::now();
    let answer = client.call("GET", &path(query), headers, "").await;
    (answer, begun.elapsed())
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.text.lines().filter_map(|line| line.strip_prefix("event: ")).collect()
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs()
}

#[tokio::test(start_paused = true)]
async fn events_are_spaced_as_they_were_recorded_and_long_gaps_are_cut() {
    let client = ended_run();
    let all = ["run_started", "task_succeeded", "run_completed", "end"];
    // 4 s and 196 s, divided by the speed; no wait is longer than 10 s.
    for (speed, wanted) in [("1", 4 + 10), ("2", 2 + 10), ("0.5", 8 + 10), ("49", 4), ("10000", 0)]
    {
        let (answer, took) = timed(&client, &format!("?speed={speed}"), &[STREAM]).await;
        assert_eq!((names(&answer), seconds(took)), (all.to_vec(), wanted), "at {speed}");
    }
    let (answer, took) = timed(&client, "", &[STREAM]).await;
    assert_eq!((names(&answer), seconds(took)), (all.to_vec(), 0), "without a speed");
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_on_where_its_reader_stopped() {
    let client = ended_run();
    let seen = |cursor| [STREAM, ("last-event-id", cursor)];
    let (answer, took) = timed(&client, "?speed=1", &seen("00000007:1")).await;
    assert_eq!((names(&answer).len(), seconds(took)), (3, 10), "the first one comes at once");
    let (answer, took) = timed(&client, "?speed=1", &seen("00000007:3")).await;
    assert_eq!((names(&answer), seconds(took)), (vec!["end"], 0));
    let (answer, _) = timed(&client, "?speed=1", &seen("00000007:9")).await;
    assert_eq!(answer.code(), "invalid_cursor");
    let (answer, took) = timed(&client, "?speed=1&type=run_completed", &[STREAM]).await;
    assert_eq!((names(&answer), seconds(took)), (vec!["run_completed", "end"], 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_goes_on_is_followed_live_after_its_history() {
    let client = Client::dev();
    client.world.record_after(home(), "run_started", 0);
    client.world.record_after(home(), "task_succeeded", 4);
    let request = Request::get(path("?speed=2")).header("host", "localhost");
    let request = request.header(STREAM.0, STREAM.1).body(Body::empty()).expect("a request");
    let response = client.router.clone().oneshot(request).await.expect("an answer");
    let mut body = response.into_body().into_data_stream();
    let (begun, mut text) = (Instant::now(), String::new());
    while !text.contains("event: run_started") {
        let chunk = body.next().await.expect("more").expect("bytes");
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
    }
    assert_eq!(seconds(begun.elapsed()), 0);
    // It ends while its history is replayed.
    client.world.record_after(home(), "run_completed", 10);
    while let Some(chunk) = body.next().await {
        text.push_str(std::str::from_utf8(&chunk.expect("bytes")).expect("text"));
    }
    assert!(text.contains("event: run_completed") && text.contains("event: end"), "{text}");
    assert_eq!(seconds(begun.elapsed()), 2 + 3);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_replay() {
    let client = ended_run();
    client.shutdown.cancel();
    let (answer, took) = timed(&client, "?speed=0.01", &[STREAM]).await;
    assert_eq!((answer.status.as_u16(), seconds(took)), (200, 0));
}

#[tokio::test]
async fn a_speed_that_makes_no_sense_is_refused() {
    let client = ended_run();
    for bad in ["0", "-1", "nan", "fast", "10001", ""] {
        let answer = client.call("GET", &path(&format!("?speed={bad}")), &[STREAM], "").await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (400, "invalid_parameter"), "{bad}");
    }
    assert_eq!(client.get(&path("?speed=2")).await.code(), "invalid_parameter", "a page");
    let all = client.call("GET", "/api/v1/events?speed=2", &[STREAM], "").await;
    assert_eq!(all.code(), "unknown_parameter", "not of a whole workspace");
}
