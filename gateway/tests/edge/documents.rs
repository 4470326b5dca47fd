//! The API's description, its pages, and operations.

use std::collections::BTreeSet;

use gateway::{EDGE_CODES, documented_codes, routes};
use serde_json::Value;

use crate::fakes::Client;

#[tokio::test]
async fn the_document_is_the_reviewed_one() {
    let text = Client::dev().get("/openapi.json").await.json();
    let text = format!("{text:#}\n");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/openapi.json");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(path, &text).expect("the snapshot can be written");
    }
    let reviewed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(reviewed == text, "the api changed: review it, then run with UPDATE_SNAPSHOTS=1");
}

#[test]
fn the_document_and_the_table_know_the_same_routes() {
    let paths = gateway::document()["paths"].as_object().expect("paths");
    let described: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, verbs)| {
            verbs.as_object().expect("verbs").keys().map(move |verb| (path.clone(), verb.clone()))
        })
        .collect();
    let known: BTreeSet<_> = routes()
        .map(|route| (route.path.to_owned(), route.verb.method().as_str().to_lowercase()))
        .collect();
    assert_eq!(described, known);
}

#[test]
fn every_operation_has_an_id_of_its_own() {
    let paths = gateway::document()["paths"].as_object().expect("paths");
    let operations = paths.values().flat_map(|verbs| verbs.as_object().expect("verbs").values());
    let mut seen = BTreeSet::new();
    for operation in operations {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(seen.insert(id), "{id}");
    }
}

#[test]
fn every_reference_leads_to_a_schema() {
    fn walk<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| walk(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let document = gateway::document();
    let mut found = Vec::new();
    walk(document, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn every_code_has_a_page_and_no_page_is_left_over() {
    let client = Client::dev();
    let documented: BTreeSet<_> = documented_codes().collect();
    for code in EDGE_CODES {
        assert!(documented.contains(code), "{code} has no page");
        let page = client.get(&format!("/docs/errors/{code}")).await;
        assert!(page.status == 200 && page.text.contains("<h1>"), "{code}");
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
    let files: BTreeSet<_> = std::fs::read_dir(folder)
        .expect("the folder of pages")
        .map(|file| file.expect("a file").file_name().to_string_lossy().replace(".md", ""))
        .collect();
    assert_eq!(files, documented.iter().map(|code| (*code).to_owned()).collect());
    assert_eq!(client.get("/docs/errors/no_such").await.code(), "not_found");
}

#[tokio::test]
async fn the_pages_load_nothing() {
    let client = Client::dev();
    for path in ["/docs", "/docs/errors/not_found"] {
        let page = client.get(path).await;
        assert_eq!(
            (page.status.as_u16(), page.header("content-type")),
            (200, "text/html; charset=utf-8")
        );
        for needle in ["http://", "https://", "<script", "<link", "<img", "url(", "@import", "src="]
        {
            assert!(!page.text.contains(needle), "{path} has {needle}");
        }
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    }
    assert!(client.get("/docs").await.text.contains("/api/v1/workflow-definitions/validate"));
}

#[tokio::test]
async fn health_and_metrics_answer() {
    let client = Client::dev();
    assert_eq!(client.get("/livez").await.status, 200);
    let ready = client.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["dependencies"][0]["lag"]), (200, &2.into()));
    *client.world.lag.lock().expect("lock") = true;
    assert_eq!(client.get("/readyz").await.status, 503);
    assert_eq!(client.get("/metrics").await.text, "up 1\n");
}

#[tokio::test]
async fn large_json_is_compressed_on_request_and_headers_are_safe() {
    let client = Client::dev();
    let plain = client.get("/openapi.json").await;
    assert_eq!(plain.header("x-content-type-options"), "nosniff");
    assert_eq!(plain.header("content-encoding"), "");
    let request = axum::http::Request::get("/openapi.json").header("host", "localhost");
    let request = request.header("accept-encoding", "gzip").body(axum::body::Body::empty());
    let gateway =
        crate::fakes::gateway(&client.world, gateway::AuthConfig::Keys { administrator: None });
    let router = gateway::router(gateway);
    let answer = tower::ServiceExt::oneshot(router, request.expect("a request")).await;
    assert_eq!(answer.expect("an answer").headers()["content-encoding"], "gzip");
}
