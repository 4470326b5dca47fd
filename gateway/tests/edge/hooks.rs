//! Webhooks: what came reaches the write side as it came, without a key; nothing is judged here.

use gateway::AuthConfig;
use protocol::{Command, Rejection, RejectionKind, run_of};
use serde_json::json;

use crate::fakes::Client;

const WORKFLOW: &str = "wf_0000000000000000000000000c";

fn keys() -> Client {
    Client::new(AuthConfig::Keys { administrator: None })
}

#[tokio::test]
async fn a_webhook_reaches_the_write_side_byte_for_byte_without_a_key() {
    let client = keys();
    let body = "{ \"order\" : 7.0,\n\"name\": \"\\u0041\", \"name\": 2 }";
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,AAAA v1,BBBB"),
        ("X-Shop", "north"),
    ];
    let path = format!("/api/v1/hooks/{WORKFLOW}/order");
    let answer = client.call("POST", &path, &headers, body).await;
    assert_eq!(answer.status, 202);
    assert!(answer.json()["run_id"].is_string() && answer.json()["position"] == 17);
    let sent = client.last_command();
    let Command::DeliverWebhook(webhook) = &sent.command else { panic!("{sent:?}") };
    assert_eq!(webhook.body, body);
    assert_eq!((&*webhook.id, &*webhook.timestamp), ("msg_1", "1614265330"));
    assert_eq!(webhook.signature, "v1,AAAA v1,BBBB");
    assert_eq!(webhook.headers["x-shop"], "north");
    // A repetition goes where the first delivery went.
    assert_eq!(run_of(sent.id), webhook.run_id());
    client.call("POST", &path, &headers, "{}").await;
    assert_eq!(client.last_command().id, sent.id);
}

#[tokio::test]
async fn what_cannot_be_a_webhook_is_refused_before() {
    let client = keys();
    let path = format!("/api/v1/hooks/{WORKFLOW}/order");
    let answer = client.call("POST", &path, &[], vec![b'"', 0xff, b'"']).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (400, "invalid_json"));
    let large = "x".repeat(domain::limits::WEBHOOK_BYTES + 1);
    assert_eq!(client.call("POST", &path, &[], large).await.status, 413);
    for path in ["/api/v1/hooks/wf_1/order", "/api/v1/hooks/wf_0000000000000000000000000c/a.b"] {
        assert_eq!(client.call("POST", path, &[], "{}").await.status, 404, "{path}");
    }
    assert!(client.world.commands.lock().expect("lock").is_empty());
    let refused = RejectionKind::Unauthenticated;
    let refused = Rejection::new(refused, "invalid_signature", "sign it");
    *client.world.refuse.lock().expect("lock") = Some(refused);
    let answer = client.call("POST", &path, &[], "{}").await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (401, "invalid_signature"));
}

#[tokio::test]
async fn triggers_are_listed_for_readers() {
    let path = format!("/api/v1/workflows/{WORKFLOW}/triggers");
    assert_eq!(keys().get(&path).await.status, 401);
    assert_eq!(Client::dev().get(&path).await.json(), json!({"items": []}));
}
