//! Archiving, as it is asked for.

use domain::retention::{Archive, Keep};
use protocol::{ArchiveRun, Command};
use serde_json::json;

use crate::fakes::{Client, run_id};

#[tokio::test]
async fn what_stays_is_said_and_where_the_rest_is_is_checked() {
    let client = Client::dev();
    let path = format!("/api/v1/runs/{}/archive", run_id());
    let sha256 = "5f".repeat(32);
    for (body, pointer) in [
        (json!({"keep": "full"}), "/keep"),
        (json!({"keep": "nothing"}), "/keep"),
        (
            json!({"keep": "header", "archive": {"location": "", "sha256": sha256}}),
            "/archive/location",
        ),
        (
            json!({"keep": "header", "archive": {"location": "a", "sha256": "5F"}}),
            "/archive/sha256",
        ),
    ] {
        let answer = client.post(&path, body.to_string()).await;
        let found = answer.json()["pointer"].as_str().unwrap_or_default().to_owned();
        assert_eq!((answer.status.as_u16(), &*found), (422, pointer), "{body}");
    }
    assert!(client.world.commands.lock().expect("lock").is_empty());

    let body = json!({"keep": "results", "archive": {"location": "a/b", "sha256": sha256}});
    let answer = client.post(&path, body.to_string()).await;
    assert_eq!(answer.status, 200);
    let told = answer.json();
    assert_eq!((&told["keep"], &told["position"]), (&json!("results"), &json!(17)), "{told}");
    let archive = Some(Archive { location: "a/b".to_owned(), sha256 });
    let (run_id, keep, dry_run) = (run_id(), Keep::Results, false);
    let wanted = ArchiveRun { run_id, keep, archive, dry_run };
    assert_eq!(client.last_command().command, Command::ArchiveRun(Box::new(wanted)));
}

#[tokio::test]
async fn a_hold_says_why_and_a_release_may() {
    let client = Client::dev();
    let path = |verb: &str| format!("/api/v1/runs/{}/{verb}", run_id());
    for body in ["{}", r#"{"why": "x"}"#, r#"{"reason": 1}"#] {
        assert_eq!(client.post(&path("hold"), body).await.status, 422, "{body}");
    }
    assert!(client.world.commands.lock().expect("lock").is_empty());
    let (run_id, reason) = (run_id(), "case 4711".to_owned());
    let answer = client.post(&path("hold"), json!({"reason": reason}).to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.json()["position"].as_u64()), (200, Some(17)));
    assert_eq!(client.last_command().command, Command::HoldRun { run_id, reason });
    assert_eq!(client.call("POST", &path("release"), &[], "").await.status, 200);
    assert_eq!(client.last_command().command, Command::ReleaseRun { run_id, reason: None });
}
