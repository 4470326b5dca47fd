//! The client against a server that answers what a test tells it to.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::exit::Exit;

/// Answers one connection after the other with these bytes; gives back the requests' heads.
async fn server(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let task = tokio::spawn(async move {
        let mut heads = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a client comes");
            let mut head = Vec::new();
            while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                assert!(stream.read_buf(&mut head).await.expect("a request comes") > 0);
            }
            heads.push(String::from_utf8_lossy(&head).to_ascii_lowercase());
            stream.write_all(answer.as_bytes()).await.expect("it is written");
        }
        heads
    });
    (url, task)
}

fn answer(status: &str, media: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {media}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}

fn message(position: u64, event_type: &str) -> String {
    let event = json!({
        "id": "evt_1", "position": position, "cursor": format!("00000001:{position}"),
        "aggregate_type": "run", "aggregate_id": "run_1", "sequence": position,
        "event_type": event_type, "event_version": 1, "workspace_id": "ws_1", "payload": {},
        "metadata": {}, "recorded_at": "2026-01-01T00:00:00Z"
    });
    format!("id: 00000001:{position}\nevent: {event_type}\ndata: {event}\n\n")
}

#[tokio::test]
async fn a_cut_stream_goes_on_at_its_cursor() {
    // No length: the body lasts until the connection ends, which may be anywhere.
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let delta = json!({"ephemeral": true, "event_type": "llm_delta", "event_version": 1,
        "position": 4, "cursor": "00000001:4", "aggregate_type": "run", "aggregate_id": "run_1",
        "workspace_id": "ws_1", "recorded_at": "2026-01-01T00:00:00Z",
        "payload": {"node": "ask", "token": 1, "attempt": 1, "answer": 1, "index": 0, "text": "Hi"}});
    let first = format!(
        "{head}retry: 2000\n\n{}event: ephemeral\ndata: {delta}\n\ndata: {{\"cut",
        message(4, "run_started")
    );
    let second = format!("{head}{}event: end\ndata: {{}}\n\n", message(5, "run_completed"));
    let (url, task) = server(vec![first, second]).await;
    let mut events = Client::to(&url).expect("a URL").follow("/runs/run_1/events", vec![], None);
    let mut seen = Vec::new();
    while let Some((told, _)) = events.next().await.expect("it goes on") {
        seen.push(match told {
            Told::Event(event) => event.event_type,
            Told::Ephemeral(message) => message.payload.text,
        });
    }
    assert_eq!(seen, ["run_started", "Hi", "run_completed"]);
    let heads = task.await.expect("the server ends");
    assert!(heads[0].contains("accept: text/event-stream"), "{}", heads[0]);
    assert!(!heads[0].contains("last-event-id"), "{}", heads[0]);
    assert!(heads[1].contains("last-event-id: 00000001:4"), "{}", heads[1]);
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_place() {
    let body = r#"{"detail":"no such run","code":"not_found","pointer":"/id"}"#;
    let (url, task) = server(vec![answer("404 Not Found", "application/problem+json", body)]).await;
    let args = ClientArgs { server: format!("{url}/"), api_key: Some("k1".to_owned()) };
    let client = Client::new(&args).expect("a URL");
    let failure = client.get("/runs/run_1", &[]).await.expect_err("it is refused");
    assert_eq!(failure.exit(), Exit::Refused);
    let Failure::Api(problem) = failure else { panic!("another failure") };
    assert_eq!((problem.status, problem.code.as_str()), (404, "not_found"));
    let heads = task.await.expect("the server ends");
    assert!(heads[0].starts_with("get /api/v1/runs/run_1 "), "{}", heads[0]);
    assert!(heads[0].contains("authorization: bearer k1"), "{}", heads[0]);
}

#[tokio::test]
async fn a_read_model_that_is_behind_is_asked_again_for_a_while() {
    let body = r#"{"detail":"position 7 isn't there, try again","code":"position_not_reached"}"#;
    let behind = answer("503 Service Unavailable\r\nretry-after: 0", "application/json", body);
    let there = answer("200 OK", "application/json", r#"{"id":"x"}"#);
    let (url, task) = server(vec![behind.clone(), behind.clone(), there, behind]).await;
    let mut client = Client::to(&url).expect("a URL");
    let query = [("min_position", "7".to_owned())];
    let told = client.post("/experiments", &query, &json!({"name": "a"})).await.expect("it waits");
    assert_eq!(told.text, r#"{"id":"x"}"#);

    client.patience = Duration::ZERO;
    let failure = client.get("/experiments/a", &query).await.expect_err("it gives up");
    assert_eq!(failure.exit(), Exit::Failed);
    let Failure::Api(problem) = failure else { panic!("another failure") };
    let detail =
        format!("position 7 isn't there, try again; it was asked for 0 s: look at {url}/readyz");
    assert_eq!((problem.status, problem.detail), (503, detail));
    let heads = task.await.expect("the server ends");
    assert_eq!(heads.len(), 4);
    assert!(heads[..3].iter().all(|head| head.starts_with("post /api/v1/experiments?min_p")));
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", free.local_addr().expect("it is bound"));
    drop(free);
    let client = Client::to(&url).expect("a URL");
    let failure = client.get("/runs", &[]).await.expect_err("nobody is there");
    assert_eq!(failure.exit(), Exit::Unreachable);
    let mut events = client.follow("/events", vec![], None);
    assert_eq!(events.next().await.err().map(|failure| failure.exit()), Some(Exit::Unreachable));
    assert!(Client::to("ftp://h").is_err() && Client::to("127.0.0.1:7420").is_err());
}
