//! `http` against a server on loopback.

use axum::body::{Body, Bytes};
use axum::response::Redirect;
use domain::definition::ActionKind::Http;
use executor::{Executor, ExecutorConfig, HttpLimits};
use protocol::task::FailureKind;
use serde_json::json;

use crate::support::{Server, config, executor, failure, success, task};

#[tokio::test]
async fn a_request_is_made_as_told_and_its_answer_parsed() {
    let server = Server::start().await;
    server.then_json(201, json!({"ok": true}));
    let with = json!({
        "method": "post",
        "url": server.url("/{{ path }}?a=1"),
        "headers": {"x-one": "${input.path}", "x-none": null},
        "query": {"q": "a b&c", "n": [1, 2]},
        "json": {"value": "${input.list}"},
        "expect": [201],
    });
    let task = task(Http, with, json!({"path": "things", "list": [1, "x"]}));
    let done = success(&executor(), &task).await;
    assert_eq!(done.result["status"], 201);
    assert_eq!(done.result["body"], json!({"ok": true}));
    assert_eq!(done.result["headers"]["content-type"], "application/json");
    let seen = server.seen().remove(0);
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.uri.to_string(), "/things?a=1&q=a+b%26c&n=1&n=2");
    assert_eq!(seen.header("x-one"), Some("things"));
    assert_eq!(seen.header("x-none"), None);
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("idempotency-key"), Some(task.idempotency_key().as_str()));
    assert_eq!(seen.json(), json!({"value": [1, "x"]}));
}

#[tokio::test]
async fn a_url_may_be_a_binding_and_texts_and_bytes_are_told_apart() {
    let server = Server::start().await;
    server.then("grüße").then(([("content-type", "image/png")], vec![0x89_u8, 0x50, 0xff]));
    let task = task(Http, json!({"url": "${input.url}"}), json!({"url": server.url("/t")}));
    let executor = executor();
    assert_eq!(success(&executor, &task).await.result["body"], "grüße");
    let done = success(&executor, &task).await;
    assert_eq!(
        (&done.result["body"], &done.result["encoding"]),
        (&json!("iVD/"), &json!("base64"))
    );
    assert_eq!(server.seen()[0].header("idempotency-key"), None);
}

#[tokio::test]
async fn statuses_are_classified() {
    for (status, kind) in [
        (404, FailureKind::Permanent),
        (400, FailureKind::Permanent),
        (408, FailureKind::Transient),
        (429, FailureKind::Transient),
        (500, FailureKind::Transient),
        (503, FailureKind::Transient),
    ] {
        let server = Server::start().await;
        let status_code = axum::http::StatusCode::from_u16(status).expect("a status");
        server.then((status_code, [("retry-after", "7")], "x".repeat(5_000)));
        let failed =
            failure(&executor(), &task(Http, json!({"url": server.url("/")}), json!({}))).await;
        assert_eq!((failed.kind, failed.code.as_str()), (kind, "http_status"), "{status}");
        assert_eq!(failed.detail["status"], status);
        assert_eq!(failed.detail["body"].as_str().map(str::len), Some(2_048));
        assert_eq!(failed.retry_after, Some("7s".parse().expect("a span")));
    }
}

#[tokio::test]
async fn expected_statuses_are_answers() {
    let server = Server::start().await;
    server.then_json(404, json!({"none": 1})).then(Redirect::to("/elsewhere"));
    let with = json!({"url": server.url("/"), "expect": ["2xx", 303, 404]});
    let task = task(Http, with, json!({}));
    let executor = executor();
    assert_eq!(success(&executor, &task).await.result["status"], 404);
    assert_eq!(success(&executor, &task).await.result["status"], 303);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn redirects_are_followed_and_lose_credentials_at_another_origin() {
    let (first, second) = (Server::start().await, Server::start().await);
    first.then(Redirect::temporary("/same")).then(Redirect::to(&second.url("/other")));
    second.then_json(200, json!("there"));
    let with = json!({
        "method": "POST", "url": first.url("/"), "body": "text",
        "headers": {"authorization": "Bearer s", "x-api-key": "s", "accept": "application/json"},
    });
    let done = success(&executor(), &task(Http, with, json!({}))).await;
    assert_eq!(done.result["body"], "there");
    let same = &first.seen()[1];
    assert_eq!((same.method.as_str(), &same.body[..]), ("POST", &b"text"[..]));
    assert_eq!(same.header("authorization"), Some("Bearer s"));
    let other = &second.seen()[0];
    assert_eq!((other.method.as_str(), other.body.len()), ("GET", 0));
    for gone in ["authorization", "x-api-key", "idempotency-key", "content-type"] {
        assert_eq!(other.header(gone), None, "{gone}");
    }
    assert_eq!(other.header("accept"), Some("application/json"));
}

#[tokio::test]
async fn a_redirect_to_a_refused_address_is_a_policy_failure() {
    let server = Server::start().await;
    let only_here = server.address.to_string().parse().expect("a host");
    let config = ExecutorConfig { allow_private_hosts: vec![only_here], ..config() };
    let executor = Executor::new(config).expect("an executor");
    for target in [
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:1/",
        "http://0x7f000001/",
        "file:///etc/passwd",
    ] {
        server.then(Redirect::to(target));
        let failed =
            failure(&executor, &task(Http, json!({"url": server.url("/")}), json!({}))).await;
        assert_eq!((failed.kind, failed.code.as_str()), (FailureKind::Policy, "address_refused"));
    }
}

#[tokio::test]
async fn loopback_is_refused_unless_allowed() {
    let server = Server::start().await;
    let executor = Executor::new(ExecutorConfig::default()).expect("an executor");
    let port = server.address.port();
    for host in ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{port}/");
        let failed = failure(&executor, &task(Http, json!({"url": url}), json!({}))).await;
        assert_eq!(failed.code, "address_refused", "{host}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn endless_redirects_end() {
    let server = Server::start().await;
    for _ in 0..6 {
        server.then(Redirect::to("/again"));
    }
    let failed =
        failure(&executor(), &task(Http, json!({"url": server.url("/")}), json!({}))).await;
    assert_eq!(failed.code, "too_many_redirects");
    assert_eq!(server.seen().len(), 6);
}

fn small(limits: HttpLimits) -> Executor {
    Executor::new(ExecutorConfig { http: limits, ..config() }).expect("an executor")
}

#[tokio::test]
async fn what_is_larger_than_the_limit_is_refused_compressed_or_not() {
    let bomb = bomb();
    let server = Server::start().await;
    server.then(([("content-encoding", "gzip")], bomb)).then(vec![b'x'; 100_000]).then(
        Body::from_stream(futures::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1_024]))
        })),
    );
    let executor = small(HttpLimits { response_bytes: 64 * 1024, ..HttpLimits::default() });
    for _ in 0..3 {
        let failed =
            failure(&executor, &task(Http, json!({"url": server.url("/")}), json!({}))).await;
        assert_eq!(
            (failed.kind, failed.code.as_str()),
            (FailureKind::Permanent, "response_too_large")
        );
    }
}

/// A gzip stream of 1 MiB of zeros: fixed-Huffman matches of 258 bytes at distance 1.
fn bomb() -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    let mut put = |value: u32, count: u32, high_first: bool| {
        for at in 0..count {
            let shift = if high_first { count - 1 - at } else { at };
            bits.push(value >> shift & 1 == 1);
        }
    };
    put(1, 1, false);
    put(1, 2, false);
    put(0x30, 8, true);
    for _ in 0..4_064 {
        put(0b1100_0101, 8, true);
        put(0, 5, true);
    }
    put(0, 7, true);
    let mut stream = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    stream.extend(bits.chunks(8).map(|byte| {
        byte.iter().enumerate().fold(0_u8, |sum, (at, bit)| sum | u8::from(*bit) << at)
    }));
    stream
}

#[tokio::test]
async fn a_server_that_drips_for_ever_meets_the_time_limit() {
    let server = Server::start().await;
    let drip = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"x")) });
    let drip = futures::StreamExt::chain(drip, futures::stream::pending());
    server.then(Body::from_stream(drip));
    let executor = small(HttpLimits {
        total_timeout: std::time::Duration::from_millis(100),
        ..HttpLimits::default()
    });
    let failed = failure(&executor, &task(Http, json!({"url": server.url("/")}), json!({}))).await;
    assert_eq!((failed.kind, failed.code.as_str()), (FailureKind::Transient, "timeout"));
}

#[tokio::test]
async fn nobody_listening_is_transient_and_broken_json_is_permanent() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/?secret=1", closed.local_addr().expect("an address"));
    drop(closed);
    let failed = failure(&executor(), &task(Http, json!({"url": url}), json!({}))).await;
    assert_eq!((failed.kind, failed.code.as_str()), (FailureKind::Transient, "connect"));
    assert!(!failed.message.contains("secret"));

    let server = Server::start().await;
    server.then(([("content-type", "application/json")], "{not json"));
    let failed =
        failure(&executor(), &task(Http, json!({"url": server.url("/")}), json!({}))).await;
    assert_eq!((failed.kind, failed.code.as_str()), (FailureKind::Permanent, "malformed_json"));
}

#[tokio::test]
async fn what_cannot_be_asked_is_told() {
    for with in [
        json!({"url": "not a url"}),
        json!({}),
        json!({"url": "http://127.0.0.1/", "method": "BREW"}),
        json!({"url": "http://127.0.0.1/", "body": "a", "json": 1}),
        json!({"url": "http://127.0.0.1/", "headers": {"bad name": "x"}}),
        json!({"url": "http://127.0.0.1/", "headers": {"x": "a\r\nb: c"}}),
        json!({"url": "http://127.0.0.1/", "headers": {"host": "other"}}),
        json!({"url": "http://127.0.0.1/", "expect": "6xx"}),
    ] {
        let failed = failure(&executor(), &task(Http, with.clone(), json!({}))).await;
        assert_eq!(failed.code, "invalid_action", "{with}");
    }
}
