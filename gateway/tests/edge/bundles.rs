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
    let request = Request::get(path()).header("host", "localhost:8080");
    let request = request.body(Body::empty()).expect("a request");
    let response = client.router.clone().oneshot(request).await.expect("an answer");
    let chunks: Vec<_> = response.into_body().into_data_stream().collect().await;
    assert!(matches!(chunks.as_slice(), [Ok(_), Err(_)]), "{chunks:?}");
}

#[tokio::test]
async fn a_run_that_is_not_there_is_refused_before_the_first_byte() {
    let client = Client::dev();
    let other = domain::ids::RunId::new(uuid::Uuid::from_u128(99));
    let answer = client.call("GET", &format!("/api/v1/runs/{other}/bundle"), &[], "").await;
    assert_eq!(answer.code(), "not_found");
}
