//! Promise 14: what is over a limit is refused before anything is written, and blocks nobody else.
//!
//! It fails where a limit isn't checked at the edge (the head moves, or the platform breaks on it),
//! where a body is read whole before it is measured, and where one client's refused requests hold
//! up another's runs.

use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use domain::definition::ProblemCode;
use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Client, Setting, workflows};

system_tests::in_both_settings!(
    refused_bodies_and_definitions_leave_the_journal_as_it_was,
    what_is_at_a_limit_is_taken_and_what_is_one_beyond_is_refused,
    a_cursor_that_nobody_was_given_is_refused,
    ordinary_runs_go_on_beside_it,
    runs_that_go_over_a_limit_fail_visibly_and_alone,
    a_definition_whose_reference_leads_nowhere_is_not_published,
);

mod abuse;
mod edges;

/// What an ordinary run may take while others send what is refused.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes above which a body is over every route's limit.
const FAR_OVER_BYTES: usize = 8 * 1024 * 1024;
/// Rounds of abuse beside ordinary runs.
const ROUNDS: usize = 2;

/// Sends every refused body, and checks its answer.
async fn refused_bodies(client: &Client) {
    for (what, path, media, body, expected) in abuse::bodies() {
        let size = body.len();
        let far_over = size > FAR_OVER_BYTES;
        if far_over {
            // It is refused by its announced length. A client that sends on all the same may find
            // the connection closed before it reads the answer.
            let line = client.announce(path, media, size).await;
            assert!(line.starts_with("HTTP/1.1 413 "), "{what} ({size} bytes) to {path}: {line}");
        }
        let answer = match client.try_post_bytes(path, media, body).await {
            Ok(answer) => answer,
            Err(_) if far_over => continue,
            Err(error) => panic!("{what} to {path}: {error}"),
        };
        let found = (answer.status, answer.code());
        assert_eq!(found, expected, "{what} ({size} bytes) to {path}: {}", answer.text);
    }
}

/// Sends every bad definition, to be checked and to be published.
async fn refused_definitions(client: &Client) {
    for (code, source) in abuse::definitions() {
        let code = json!(code);
        let source = source.into_bytes();
        let path = "/workflow-definitions/validate";
        let answer = client.post_bytes(path, "application/yaml", source.clone()).await.ok();
        assert_eq!(answer["valid"], false, "{code}");
        assert!(holds(&answer["problems"], &code), "{code}: {answer}");
        refused_definition(client, &code, source).await;
    }
}

async fn refused_definition(client: &Client, code: &Value, source: Vec<u8>) {
    let answer = client.post_bytes("/workflow-definitions", "application/yaml", source).await;
    assert_eq!(answer.status, 422, "{code}: {}", answer.text);
    assert!(holds(&answer.body["errors"], code), "{code}: {}", answer.text);
}

fn holds(problems: &Value, code: &Value) -> bool {
    problems.as_array().is_some_and(|all| all.iter().any(|one| one["code"] == *code))
}

async fn refused_bodies_and_definitions_leave_the_journal_as_it_was(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p14", 1)).await.ok();
    let head = client.written().await;
    refused_bodies(&client).await;
    assert_eq!(client.written().await, head, "a refused body wrote something");
    refused_definitions(&client).await;
    assert_eq!(client.written().await, head, "a refused definition wrote something");
    client.run_to_end(&json!("p14"), json!({"n": 1})).await;
}

async fn what_is_at_a_limit_is_taken_and_what_is_one_beyond_is_refused(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.publish(edges::DEFINITION).await;
    for edges::Edge { what, path, media, at, beyond, refusal } in edges::edges() {
        let head = client.written().await;
        let answer = client.post_bytes(path, media, beyond).await;
        assert_eq!((answer.status, answer.code()), refusal, "{what}: {}", answer.text);
        assert_eq!(client.written().await, head, "{what}: a refusal wrote something");
        let answer = client.post_bytes(path, media, at).await;
        assert!((200..300).contains(&answer.status), "{what}: {}", answer.text);
        client.all_ended().await;
    }
}

async fn a_cursor_that_nobody_was_given_is_refused(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.publish(edges::DEFINITION).await;
    for n in 0..2 {
        client.run_to_end(&json!("p14-edge"), json!({"n": n})).await;
    }
    let page = client.get("/runs?limit=1").await;
    let cursor = page["next_cursor"].as_str().expect("there is another run");
    let next = client.get(&format!("/runs?limit=1&cursor={cursor}")).await;
    assert_eq!(next["items"].as_array().map(Vec::len), Some(1), "{next}");
    let plain = BASE64URL_NOPAD.decode(cursor.as_bytes()).expect("it is base64");
    let plain = String::from_utf8(plain).expect("it is text");
    for odd in [format!("{plain}\0"), plain.replacen(':', ":+", 1), format!("{plain}'")] {
        let cursor = BASE64URL_NOPAD.encode(odd.as_bytes());
        let request = client.request(Method::GET, &format!("/runs?limit=1&cursor={cursor}"));
        let answer = client.send(request).await.expect("it is answered");
        assert_eq!((answer.status, answer.code()), (400, "invalid_cursor"), "{odd:?}");
    }
}

async fn ordinary_runs_go_on_beside_it(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p14", 3)).await.ok();
    let abusing = client.clone();
    let abuse = tokio::spawn(async move {
        for _ in 0..ROUNDS {
            refused_bodies(&abusing).await;
            refused_definitions(&abusing).await;
        }
    });
    let mut runs = 0;
    while !abuse.is_finished() || runs < 5 {
        let started = Instant::now();
        let view = client.run_to_end(&json!("p14"), json!({"n": runs})).await;
        assert_eq!(view["output"]["n"], runs + 3, "{view}");
        let took = started.elapsed();
        assert!(took < PATIENCE, "an ordinary run took {took:?}");
        runs += 1;
    }
    abuse.await.expect("every refusal is as it should be");
}

async fn runs_that_go_over_a_limit_fail_visibly_and_alone(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let client = platform.client();
    let mut over = Vec::new();
    for (definition, input, codes) in abuse::runs() {
        over.push((client.start(&definition, input).await, codes));
    }
    let ordinary = client.run_to_end(&workflows::sequence("p14", 3), json!({"n": 1})).await;
    assert_eq!(ordinary["status"], "completed");
    for (run_id, codes) in over {
        let view = client.end_of(&run_id).await;
        assert_eq!(view["status"], "failed", "{}", view["definition"]["name"]);
        let code = view["error"]["code"].as_str().unwrap_or_default();
        assert!(codes.contains(&code), "{}: {}", view["definition"]["name"], view["error"]);
        assert!(view["sequence"].as_u64() < Some(200), "{run_id} wrote what is over the limit");
    }
}

async fn a_definition_whose_reference_leads_nowhere_is_not_published(setting: Setting) {
    let platform = crate::platform_in(setting).await;
    let client = platform.client();
    let head = client.written().await;
    let code = ProblemCode::UnknownReference;
    refused_definition(&client, &json!(code), abuse::definition(code).into_bytes()).await;
    assert_eq!(client.written().await, head, "it was published");
}
