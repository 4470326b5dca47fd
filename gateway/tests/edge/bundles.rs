//! Bundles: streamed in parts, whole only with their end.

use axum::body::Body;
use axum::http::Request;
use domain::bundle::Reader;
use futures::StreamExt as _;
use tower::ServiceExt as _;

use crate::fakes::{Client, home, run_id};

fn path() -> String {
    format!("/api/v1/runs/{}/bundle", run_id())
}

#[tokio::test]
async fn a_bundle_is_one_file_that_says_that_it_is_whole() {
    let client = Client::dev();
    let answer = client.call("GET", &path(), &[], "").await;
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let name = format!("attachment; filename=\"{}.wonder\"", run_id());
    assert_eq!(answer.header("content-disposition"), name);
    let mut reader = Reader::default();
    for line in answer.text.lines() {
        reader.take(line.as_bytes()).expect("a line of a bundle");
    }
    let manifest = reader.end().expect("a whole bundle");
    assert_eq!((manifest.run_id, manifest.workspace_id), (run_id(), home()));
}

#[tokio::test]
async fn a_bundle_that_breaks_off_has_no_end() {
    let client = Client::dev();
    *client.world.lag.lock().expect("lock") = true;
    let refused = client.call("GET", &path(), &[], "").await;
    assert_eq!(refused.code(), "journal_unavailable", "all of it is looked through before");
    let path = format!("{}?secrets=allow", path());
    let request = Request::get(path).header("host", "localhost:8080");
    let request = request.body(Body::empty()).expect("a request");
    let response = client.router.clone().oneshot(request).await.expect("an answer");
    let chunks: Vec<_> = response.into_body().into_data_stream().collect().await;
    assert!(matches!(chunks.as_slice(), [Ok(_), Err(_)]), "{chunks:?}");
}

#[tokio::test]
async fn keys_in_a_bundle_are_refused_masked_or_allowed() {
    let client = Client::dev();
    let key = format!("ghp_{}", "a1".repeat(18));
    *client.world.typed_in.lock().expect("lock") = (key.clone(), 0);
    for query in ["", "?secrets=refuse"] {
        let refused = client.call("GET", &format!("{}{query}", path()), &[], "").await;
        assert_eq!((refused.status.as_u16(), &*refused.code()), (422, "bundle_has_keys"));
        let place = format!("github_token at /note of {} event 1 (run_started)", run_id());
        assert!(refused.text.contains(&place), "{}", refused.text);
        assert!(!refused.text.contains(&key), "the key itself isn't told");
    }
    for (secrets, has_key) in [("mask", false), ("allow", true)] {
        let answer = client.call("GET", &format!("{}?secrets={secrets}", path()), &[], "").await;
        let mut reader = Reader::default();
        for line in answer.text.lines() {
            reader.take(line.as_bytes()).expect("a line of a bundle");
        }
        let manifest = reader.end().expect("a whole bundle");
        assert_eq!((manifest.is_masked, answer.text.contains(&key)), (!has_key, has_key));
        assert_eq!(answer.text.contains("[masked github_token]"), !has_key);
    }
    let unknown = client.call("GET", &format!("{}?secrets=hide", path()), &[], "").await;
    assert_eq!(unknown.code(), "invalid_parameter");
}

#[tokio::test]
async fn a_key_far_behind_breaks_the_answer_off() {
    let client = Client::dev();
    let key = format!("ghp_{}", "a1".repeat(18));
    *client.world.typed_in.lock().expect("lock") = (key, 17 * 1024 * 1024);
    let request = Request::get(path()).header("host", "localhost:8080");
    let request = request.body(Body::empty()).expect("a request");
    let response = client.router.clone().oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let chunks: Vec<_> = response.into_body().into_data_stream().collect().await;
    assert!(matches!(chunks.as_slice(), [Ok(_), Err(_)]), "it is sent up to the key");
}

#[tokio::test]
async fn a_run_that_is_not_there_is_refused_before_the_first_byte() {
    let client = Client::dev();
    let other = domain::ids::RunId::new(uuid::Uuid::from_u128(99));
    let answer = client.call("GET", &format!("/api/v1/runs/{other}/bundle"), &[], "").await;
    assert_eq!(answer.code(), "not_found");
}
