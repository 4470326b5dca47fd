//! Exports: what they give out is proven by the chain, and tells nobody else's events.

use domain::audit::bundle::{Verified, Verifier};
use domain::audit::{AuditKey, SignedHead};
use domain::resource::{Event as ResourceEvent, Spec};
use futures::TryStreamExt;
use protocol::{AuditQueries, ExportAudit, Rejection, RejectionKind};

use super::*;
use crate::AuditTrail;

fn key() -> AuditKey {
    AuditKey::from_seed(&[1; 32])
}

fn signing() -> Config {
    let audit_every = Duration::from_millis(10);
    Config { audit_key: Some(key()), audit_every, ..config() }
}

fn asked(from: Option<u64>, to: Option<u64>) -> ExportAudit {
    let (workspace_id, at, by) = (Some(ours()), moment(0), "key_ann".to_owned());
    ExportAudit { workspace_id, from, to, at, by }
}

async fn bundle(world: &World, asked: ExportAudit) -> Result<String, Rejection> {
    world.views.export(asked).await?.try_collect().await
}

fn verified(bundle: &str, kept: Vec<SignedHead>) -> Verified {
    let mut verifier = Verifier::new(Some(key().public()), kept);
    bundle.lines().for_each(|line| verifier.line(line.as_bytes()));
    verifier.finish()
}

/// Waits until all events are signed; answers the head.
async fn signed(world: &World) -> SignedHead {
    let end = world.journal.head().await.expect("a head");
    let trail = AuditTrail::open(world.other_views().await, world.journal.epoch()).await;
    let trail = trail.expect("it opens").expect("tables");
    until("a signed head", async || {
        trail.heads(end - 1, 1).await.is_ok_and(|heads| !heads.is_empty())
    })
    .await;
    trail.heads(end - 1, 1).await.expect("heads").remove(0)
}

/// Several blocks of history, with heads in between.
async fn history(storage: Storage) -> (World, Vec<SignedHead>) {
    let mut world = World::idle(storage, signing()).await;
    world.start();
    let key: Box<Spec> = Box::new(
        serde_json::from_value(json!({"kind": "api_key", "spec": {"workspace_id": ours(),
            "name": "ci", "secret_hash": "5ec4e7", "scopes": ["read"]}}))
        .expect("a spec"),
    );
    let created = ResourceEvent::Created { spec: key, revision: 1 };
    world.append(("api_key", "key_1"), ours(), 0, &[created]).await;
    let mut heads = vec![signed(&world).await];
    for number in 0..40 {
        world.whole_run(number, 5, true).await;
    }
    heads.push(signed(&world).await);
    let theirs_begins = started(run_id(900), json!({"whose": "only theirs"}), &[]);
    world.append(("run", "run_theirs"), theirs(), 0, &[theirs_begins]).await;
    world.whole_run(100, 5, true).await;
    heads.push(signed(&world).await);
    (world, heads)
}

async fn a_bundle_proves_what_it_tells_and_tells_nothing_else(storage: Storage) {
    let (world, heads) = history(storage).await;
    let head = world.journal.head().await.expect("a head");
    let whole = bundle(&world, asked(None, None)).await.expect("a bundle");
    let report = verified(&whole, heads.clone());
    assert_eq!(report.findings, []);
    assert_eq!((report.first, report.last, report.signed), (1, head, head));
    assert_eq!((report.events, report.leaves, report.kept_heads), (head - 1, 1, 3));
    assert!(!whole.contains("only theirs") && !whole.contains("5ec4e7"));
    let all = ExportAudit { workspace_id: None, ..asked(None, None) };
    let all = bundle(&world, all).await.expect("a bundle");
    assert!(verified(&all, Vec::new()).ok && all.contains("only theirs"));

    // From the head before the first position to the one at or after the last.
    let (first, second) = (heads[0].position, heads[1].position);
    let part = asked(Some(first + 20), Some(second - 3));
    let part = bundle(&world, part).await.expect("a bundle");
    let report = verified(&part, heads.clone());
    assert_eq!(report.findings, []);
    assert!(report.first > first && report.first <= first + 20);
    assert!(report.last >= second - 3 && report.last <= second);

    let refused = bundle(&world, asked(None, Some(head + 1))).await.expect_err("not there yet");
    assert_eq!((refused.kind, &*refused.code), (RejectionKind::Unavailable, "position_not_signed"));
    let refused = bundle(&world, asked(Some(9), Some(8))).await.expect_err("no range");
    assert_eq!((refused.kind, &*refused.code), (RejectionKind::Malformed, "invalid_parameter"));
}

async fn a_bundle_of_altered_history_names_the_event(storage: Storage) {
    let (world, heads) = history(storage).await;
    let altered = heads[0].position + 7;
    let sql = format!("update events set aggregate_id = 'run_x' where position = {altered}");
    world.sql_on_journal(&sql).await;
    let bundle = bundle(&world, asked(None, None)).await.expect("a bundle");
    let report = verified(&bundle, heads);
    assert_eq!(report.findings[0].position, Some(altered));
    assert!(report.findings[0].problem.contains("isn't the event that was sealed"));
    assert!(report.signed < altered, "the head after it disagrees");
}

async fn what_is_not_signed_is_not_exported(storage: Storage) {
    let world = World::new(storage).await;
    world.whole_run(1, 2, true).await;
    world.caught_up().await;
    let refused = bundle(&world, asked(None, None)).await.expect_err("there is no key");
    assert_eq!((refused.kind, &*refused.code), (RejectionKind::Conflict, "audit_not_signed"));
}

on_both_storages!(
    a_bundle_proves_what_it_tells_and_tells_nothing_else,
    a_bundle_of_altered_history_names_the_event,
    what_is_not_signed_is_not_exported,
);
