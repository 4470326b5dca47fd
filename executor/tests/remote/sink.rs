//! What a worker tells while it works: to whoever has said to listen.

use bytes::Bytes;
use domain::ids::ProjectId;
use executor::RemoteSink;
use futures::StreamExt as _;
use protocol::remote::{LISTENING, ephemeral_subject};
use protocol::{Ephemeral, EphemeralSink as _, LlmDelta};
use serde_json::json;

use crate::place::{BOUND, Place, task};

#[tokio::test]
async fn it_tells_once_somebody_has_said_to_listen() {
    let place = Place::new().await;
    let sink = RemoteSink::connect(place.nats.clone()).await.expect("nats runs");
    assert!(!sink.is_heard(), "nobody has said so");
    let task = task(3, json!({}));
    let subject = ephemeral_subject(task.workspace_id, None);
    let mut told = place.nats.listen(&subject).await.expect("it listens");
    place.nats.tell(LISTENING, Bytes::new()).await.expect("it is told");
    let heard = async {
        while !sink.is_heard() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, heard).await.expect("it hears of it");
    let (node, text) = ("ask".into(), "Hello".to_owned());
    let delta = LlmDelta { node, step: None, token: 3, attempt: 1, answer: 1, index: 0, text };
    let message = Ephemeral {
        workspace_id: task.workspace_id,
        project_id: Some(ProjectId::derived("", "p")),
        workflow_id: None,
        run_id: task.run_id,
        told_at: chrono::DateTime::UNIX_EPOCH,
        delta,
    };
    sink.tell(message.clone());
    let body = tokio::time::timeout(BOUND, told.next()).await.expect("in time").expect("a message");
    assert_eq!(serde_json::from_slice::<Ephemeral>(&body).expect("json"), message);
}
