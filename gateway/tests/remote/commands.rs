//! Commands: where they go, and which are asked again.

use std::time::Duration;

use domain::ids::DefinitionId;
use protocol::command::StartRun;
use protocol::remote::{COMMANDS, CommandCall, shard_commands};
use protocol::{
    Command, CommandEnvelope, Commands as _, RejectionKind, RunTarget, StartAnswer, StartHome,
    Webhook, run_of, shard_of,
};
use serde_json::json;

use crate::far::{Far, Place, Say, envelope, no, not_owner, ok, receipt, run_id};

fn archive() -> CommandEnvelope {
    envelope(Command::Archive { kind: domain::resource::Kind::Project, id: "prj_x".to_owned() })
}

fn cancel() -> CommandEnvelope {
    envelope(Command::CancelRun { run_id: run_id(), reason: None, compensate: true })
}

fn start() -> CommandEnvelope {
    let target = RunTarget::Workflow(domain::ids::WorkflowId::derived("", "w"));
    let (input, labels) = (json!({"n": 1}), Default::default());
    let start = StartRun { target, input, labels, home: None, trigger: None };
    envelope(Command::StartRun(Box::new(start)))
}

/// A delivery; the run that it starts is the one that its envelope names.
fn webhook() -> CommandEnvelope {
    let text = String::new;
    let webhook = Webhook {
        workflow_id: domain::ids::WorkflowId::derived("", "w"),
        trigger: "order".parse().expect("a name"),
        id: "msg_1".to_owned(),
        timestamp: text(),
        signature: text(),
        headers: Default::default(),
        body: text(),
    };
    let id = domain::ids::CommandId::new(webhook.run_id().bits());
    CommandEnvelope { id, ..envelope(Command::DeliverWebhook(Box::new(webhook))) }
}

fn calls_of(envelope: &CommandEnvelope, times: usize) -> Vec<CommandCall> {
    vec![CommandCall::Execute(Box::new(envelope.clone())); times]
}

#[tokio::test]
async fn a_command_about_a_run_goes_to_the_owner_of_its_shard_and_others_to_anybody() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let (cancel, archive) = (cancel(), archive());
    let of_cancel = shard_commands(shard_of(run_id()));
    let webhook = webhook();
    let of_webhook = shard_commands(shard_of(run_of(webhook.id)));
    for (envelope, subject) in
        [(webhook, of_webhook.as_str()), (cancel, &of_cancel), (archive, COMMANDS)]
    {
        let (far, served) = Far::<CommandCall>::at(&nats, subject, [ok(receipt(run_id()))]).await;
        let done = remote.execute(envelope.clone()).await.expect("it is done");
        assert_eq!(done, receipt(run_id()));
        assert_eq!(far.asked(), calls_of(&envelope, 1));
        served.stop().await;
    }
}

#[tokio::test]
async fn a_start_goes_to_the_shard_of_its_run_or_to_where_that_sends_it() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let start = start();
    let shard = shard_of(run_of(start.id));
    let done = || ok(StartAnswer::from(receipt(run_id())));
    let home = StartHome {
        shard: (shard + 1) % protocol::SHARDS,
        definition_id: DefinitionId::derived("", "d"),
        version: 7,
    };
    let script = [done(), Say::Nothing, ok(StartAnswer::Elsewhere(home))];
    let (first, _served) = Far::<CommandCall>::at(&nats, &shard_commands(shard), script).await;
    let script = [Say::Nothing, done()];
    let (second, _served) =
        Far::<CommandCall>::at(&nats, &shard_commands(home.shard), script).await;
    for _ in 0..2 {
        assert_eq!(remote.execute(start.clone()).await, Ok(receipt(run_id())));
    }
    let call = CommandCall::Start(Box::new(start.clone()));
    assert_eq!(first.asked(), [call.clone(), call.clone(), call]);
    let mut sent_on = start;
    let Command::StartRun(start) = &mut sent_on.command else { panic!("it is a start") };
    start.home = Some(home);
    let call = CommandCall::Start(Box::new(sent_on));
    assert_eq!(second.asked(), [call.clone(), call]);
}

#[tokio::test]
async fn a_command_that_nobody_takes_waits_for_somebody() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let archive = archive();
    let mut executed = std::pin::pin!(remote.execute(archive.clone()));
    let early = tokio::time::timeout(Duration::from_millis(150), executed.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    let (far, _served) = Far::<CommandCall>::at(&nats, COMMANDS, [ok(receipt("prj_x"))]).await;
    assert_eq!(executed.await, Ok(receipt("prj_x")));
    assert_eq!(far.asked(), calls_of(&archive, 1));
}

#[tokio::test]
async fn a_command_follows_a_run_that_has_moved() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let (cancel, subject) = (cancel(), shard_commands(shard_of(run_id())));
    let script = [not_owner(), not_owner(), ok(receipt(run_id()))];
    let (far, _served) = Far::<CommandCall>::at(&nats, &subject, script).await;
    assert_eq!(remote.execute(cancel.clone()).await, Ok(receipt(run_id())));
    assert_eq!(far.asked(), calls_of(&cancel, 3));
}

#[tokio::test]
async fn a_command_without_an_answer_is_asked_again_under_the_same_id() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let archive = archive();
    let (far, _served) =
        Far::<CommandCall>::at(&nats, COMMANDS, [Say::Nothing, ok(receipt("prj_x"))]).await;
    assert_eq!(remote.execute(archive.clone()).await, Ok(receipt("prj_x")));
    assert_eq!(far.asked(), calls_of(&archive, 2));
}

#[tokio::test]
async fn other_refusals_are_passed_on_at_once() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    for (kind, code) in [
        (RejectionKind::Conflict, "already_exists"),
        (RejectionKind::Unavailable, "journal_unavailable"),
        (RejectionKind::Overloaded, "overloaded"),
    ] {
        let (far, served) = Far::<CommandCall>::at(&nats, COMMANDS, [no(kind, code)]).await;
        let refused = remote.execute(archive()).await.expect_err("it is refused");
        assert_eq!((refused.kind, refused.code.as_str()), (kind, code));
        assert_eq!(far.asked().len(), 1);
        served.stop().await;
    }
}

#[tokio::test]
async fn who_gives_up_says_whether_it_may_have_been_done() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let remote = remote.with_patience(Duration::from_millis(1_500));
    let nobody = remote.execute(archive()).await.expect_err("nobody is there");
    assert_eq!((nobody.kind, nobody.code.as_str()), (RejectionKind::Unavailable, "unavailable"));
    let (far, _served) = Far::<CommandCall>::at(&nats, COMMANDS, []).await;
    let silence = remote.execute(archive()).await.expect_err("nobody answers");
    assert_eq!((silence.kind, silence.code.as_str()), (RejectionKind::Unavailable, "timeout"));
    assert!(far.asked().len() > 1, "it was asked again");
}
