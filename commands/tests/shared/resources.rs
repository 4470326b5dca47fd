//! Resources that several processes write: written by postgres-es, known everywhere at once.

use chassis::journal::Journal;
use chassis::scratch::ScratchDatabase;
use domain::resource::Kind;
use protocol::command::StartRun;
use protocol::{Command, RunTarget};
use serde_json::json;

use crate::coordinators::{Side, sequence};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_writes_another_knows_with_its_next_command() {
    let scratch = ScratchDatabase::create().await;
    let (one, other) = (Side::of_resources(&scratch).await, Side::of_resources(&scratch).await);
    let project_id = one.service.defaults().project_id;
    for version in 1..=20_usize {
        // Each version has one step more, so that the newest can be told.
        let definition = sequence("grown", version);
        let publish = one.creating(
            "workflow_definition",
            json!({
                "definition": definition, "hash": "",
            }),
        );
        let published = one.execute(publish).await.expect("a version");
        assert_eq!(published.version, version as u64);
        let start = Command::StartRun(Box::new(StartRun {
            target: RunTarget::Named { project_id, reference: "grown".to_owned() },
            input: json!({}),
            labels: Default::default(),
            home: None,
            trigger: None,
        }));
        let started = other.execute(start).await.expect("a run of the newest version");
        let events = other.journal.load("run", &started.id, 0, 1).await.expect("its events");
        let first: serde_json::Value =
            serde_json::from_slice(&events[0].payload).expect("a payload");
        assert_eq!(first["definition"]["version"], json!(version));
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_name_is_created_once_and_one_key_answers_once_whoever_is_asked() {
    let scratch = ScratchDatabase::create().await;
    let (one, other) = (Side::of_resources(&scratch).await, Side::of_resources(&scratch).await);
    let spec = json!({"name": "greet", "template": "hello {{ who }}"});
    let mut envelope = one.envelope(one.creating("prompt_spec", spec.clone()));
    envelope.idempotency_key = Some("once".to_owned());
    envelope.fingerprint = Some("same".to_owned());
    let asked = (0..16).map(|number| {
        let side = if number % 2 == 0 { &one } else { &other };
        side.send(&envelope)
    });
    let answers = futures::future::join_all(asked).await;
    let first = answers[0].clone().expect("it is created");
    for answer in answers {
        assert_eq!(answer.expect("the same answer"), first);
    }
    let refused = other.execute(other.creating("prompt_spec", spec)).await;
    assert_eq!(refused.expect_err("the name is taken").code, "already_exists");
    let events = one.journal.load("prompt_spec", &first.id, 0, 10).await.expect("its events");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].position, first.position);
    assert_eq!(&*events[0].workspace_id, one.service.defaults().workspace_id.to_string());
    let metadata: serde_json::Value =
        serde_json::from_slice(&events[0].metadata).expect("metadata");
    assert_eq!(metadata["actor"], json!("test"));
    assert!(metadata.get("inbox_key").is_none() && metadata.get("event_id").is_none());
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_one_resource_lose_no_change() {
    let scratch = ScratchDatabase::create().await;
    let (one, other) = (Side::of_resources(&scratch).await, Side::of_resources(&scratch).await);
    let spec = json!({"name": "large", "template": "x".repeat(100_000)});
    let created = one.execute(one.creating("prompt_spec", spec)).await.expect("it is created");
    let revise = |text: String| Command::Revise {
        kind: Kind::PromptSpec,
        id: created.id.clone(),
        patch: json!({"description": text}),
    };
    let mut written = 0;
    for round in 0..5 {
        let (left, right) = tokio::join!(
            one.execute(revise(format!("one {round}"))),
            other.execute(revise(format!("other {round}")))
        );
        for answer in [left, right] {
            written += u64::from(answer.expect("both are taken, one after the other").version > 1);
        }
    }
    assert_eq!(written, 10);
    let events = one.journal.load("prompt_spec", &created.id, 0, 100).await.expect("its events");
    assert_eq!(events.last().map(|event| event.sequence), Some(11));
    one.stop().await;
    other.stop().await;
}
