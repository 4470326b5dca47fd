//! Ephemeral messages: heard from workers by run or by workspace, with word that somebody listens.

use bytes::Bytes;
use chassis::bus::Nats;
use domain::ids::{ProjectId, RunId, WorkspaceId};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use protocol::remote::{LISTENING, ephemeral_subject};
use protocol::{Ephemeral, EphemeralFilter, EphemeralSource as _, LlmDelta};

use crate::far::{BOUND, Place};

fn home() -> WorkspaceId {
    WorkspaceId::derived("", "default")
}

fn run(name: &str) -> RunId {
    RunId::derived("", name)
}

fn project(name: &str) -> ProjectId {
    ProjectId::derived("", name)
}

fn message(run_id: RunId, project_id: ProjectId, index: u64) -> Ephemeral {
    let (node, step, text) = ("ask".into(), None, "x".repeat(1_000));
    let delta = LlmDelta { node, step, token: 1, attempt: 1, answer: 1, index, text };
    let told_at = chrono::DateTime::UNIX_EPOCH;
    let (workspace_id, project_id, workflow_id) = (home(), Some(project_id), None);
    Ephemeral { workspace_id, project_id, workflow_id, run_id, told_at, delta }
}

fn all_of_home() -> EphemeralFilter {
    let (project_id, workflow_id, run_id) = (None, None, None);
    EphemeralFilter { workspace_id: home(), project_id, workflow_id, run_id }
}

/// A worker tells something.
async fn tell(nats: &Nats, message: &Ephemeral) {
    let subject = ephemeral_subject(message.workspace_id, Some(message.run_id));
    let body = serde_json::to_vec(message).expect("json");
    nats.tell(&subject, body.into()).await.expect("it is told");
}

async fn next<T>(heard: &mut BoxStream<'static, T>) -> T {
    tokio::time::timeout(BOUND, heard.next()).await.expect("it comes in time").expect("an item")
}

#[tokio::test]
async fn what_workers_tell_is_heard_by_who_asked_for_it() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let mut words = nats.listen(LISTENING).await.expect("it listens");
    let filter = all_of_home();
    let of_run = EphemeralFilter { run_id: Some(run("a")), ..filter };
    let of_project = EphemeralFilter { project_id: Some(project("q")), ..filter };
    let mut all = remote.listen(filter).await.expect("it listens");
    let mut one = remote.listen(of_run).await.expect("it listens");
    let mut some = remote.listen(of_project).await.expect("it listens");
    for _ in 0..3 {
        next(&mut words).await;
    }
    let (first, second) = (message(run("a"), project("p"), 0), message(run("b"), project("q"), 7));
    let subject = ephemeral_subject(home(), Some(run("a")));
    nats.tell(&subject, Bytes::from_static(b"from another release")).await.expect("it is told");
    let elsewhere = Ephemeral { workspace_id: WorkspaceId::derived("", "else"), ..first.clone() };
    for told in [&elsewhere, &second, &first] {
        tell(&nats, told).await;
    }
    assert_eq!((next(&mut all).await, next(&mut all).await), (second.clone(), first.clone()));
    assert_eq!((next(&mut one).await, next(&mut some).await), (first, second));
}

#[tokio::test]
async fn a_slow_reader_loses_messages_and_holds_nobody_up() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let filter = all_of_home();
    let mut slow = remote.listen(filter).await.expect("it listens");
    let mut quick = remote.listen(filter).await.expect("it listens");
    for index in 0..2_000 {
        tell(&nats, &message(run("a"), project("p"), index)).await;
        assert_eq!(next(&mut quick).await.delta.index, index);
    }
    let mut heard = Vec::new();
    tell(&nats, &message(run("b"), project("p"), 0)).await;
    next(&mut quick).await;
    while let Some(Some(message)) = tokio::task::unconstrained(slow.next()).now_or_never() {
        heard.push(message.delta.index);
    }
    assert_eq!(heard, (0..256).collect::<Vec<_>>(), "it has what came first");
}
