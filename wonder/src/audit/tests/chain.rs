//! The audit chain: whatever is altered in a sealed journal is found.

use chrono::Utc;
use domain::audit::{AuditKey, SignedHead};
use projections::{AuditTrail, Config, Projections, Views};
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use super::*;

/// Folds what is in the journal, and signs it at the end where there is a key.
async fn seal(store: &Store, audit_key: Option<AuditKey>) {
    let journal = Arc::clone(&store.journal) as Arc<dyn Journal>;
    let head = journal.head().await.expect("a head");
    let config = Config { audit_key, ..Config::default() };
    let views = Projections::open(journal, views(store), config).await.expect("it opens");
    let shutdown = CancellationToken::new();
    let tasks = views.start(None, &shutdown);
    views.caught_up(head).await;
    shutdown.cancel();
    for task in tasks {
        task.await.expect("it ends");
    }
}

fn views(store: &Store) -> Views {
    Views::File(store.folder.path().join("views.db"))
}

/// Three runs, interleaved, and sealed: 12 events.
async fn sealed(key: &AuditKey) -> Store {
    let store = Store::new().await;
    for half in [0, 2] {
        for number in [1, 2, 3] {
            let events = &whole(number)[half..half + 2];
            store.append(number, half as u64, events, Some(half == 0)).await;
        }
    }
    seal(&store, Some(key.clone())).await;
    store
}

/// Alters a file of the store behind its back.
async fn alter(store: &mut Store, file: &str, text: &str) {
    store.journal.close().await;
    let connection = Connection::open(store.folder.path().join(file)).expect("it opens");
    connection.execute_batch(text).expect("it is altered");
    connection.close().expect("it closes");
    store.journal = open(store.folder.path()).await;
}

async fn evidence(store: &Store, key: &AuditKey) -> Evidence {
    let trail = AuditTrail::open(views(store), store.journal.epoch()).await.expect("it opens");
    Evidence { trail, kept: Vec::new(), key: Some(key.public()) }
}

async fn checked(store: &Store, evidence: &Evidence) -> Report {
    let claims = Claims::default();
    verify(&*store.journal, &claims, evidence, |_, _| {}).await.expect("it can be read")
}

/// The position and the text of each finding that is about the chain.
fn of_chain(report: &Report) -> Vec<(u64, &str)> {
    let findings = report.findings.iter().filter(|finding| {
        ["sealed", "signed", "key"].iter().any(|word| finding.problem.contains(word))
    });
    findings.map(|one| (one.subject.position.unwrap_or(0), &*one.problem)).collect()
}

#[tokio::test]
async fn a_journal_that_nobody_altered_is_as_it_was_sealed() {
    let key = AuditKey::from_seed(&[1; 32]);
    let store = sealed(&key).await;
    // What comes later isn't sealed yet, and what is there is sealed once.
    store.append(4, 0, &whole(4), None).await;
    let report = checked(&store, &evidence(&store, &key).await).await;
    assert_eq!(report.findings, []);
    let sealed = &report.sealed;
    assert_eq!((sealed.position, sealed.heads, sealed.signed_position), (12, 1, 12));
    assert!(sealed.signatures_checked);
    seal(&store, Some(key.clone())).await;
    let report = checked(&store, &evidence(&store, &key).await).await;
    let sealed = &report.sealed;
    assert_eq!((sealed.position, sealed.heads, sealed.signed_position), (16, 2, 16));
    let report = checked(&store, &Evidence::default()).await;
    assert_eq!((report.ok, report.sealed.heads), (true, 0));
}

#[tokio::test]
async fn whatever_is_altered_is_found_at_its_first_position() {
    let key = AuditKey::from_seed(&[1; 32]);
    let renumber = "update events set position = -position where position > 5; \
         update events set position = -position - 1 where position < 0;";
    let swap = "update events set position = -4 where position = 4; \
         update events set position = 4 where position = 6; \
         update events set position = 6 where position = -4;";
    let cases = [
        (
            "update events set payload = cast('{\"attempt\":1,\"result\":2,\"token\":1}' as blob) \
              where position = 2;"
                .to_owned(),
            2,
            "isn't the event",
        ),
        (
            "update events set metadata = cast('{\"actor\":\"ann\"}' as blob) where position = 12;"
                .to_owned(),
            12,
            "isn't the event",
        ),
        (
            "update events set recorded_at = recorded_at + 1 where position = 7;".to_owned(),
            7,
            "isn't the event",
        ),
        (format!("delete from events where position = 5; {renumber}"), 5, "isn't the event"),
        (swap.to_owned(), 4, "isn't the event"),
        ("delete from events where position > 9;".to_owned(), 10, "are gone"),
    ];
    for (text, position, problem) in cases {
        let mut store = sealed(&key).await;
        alter(&mut store, "journal.db", &text).await;
        let report = checked(&store, &evidence(&store, &key).await).await;
        let found = of_chain(&report);
        assert!(!report.ok && !found.is_empty(), "{text}: {:?}", report.findings);
        assert_eq!(found[0].0, position, "{text}: {found:?}");
        assert!(found[0].1.contains(problem), "{text}: {found:?}");
        // The signed head says so as well, whatever the seals say.
        let signed = found.iter().any(|(_, problem)| problem.contains("signed at"));
        assert!(signed, "{text}: {found:?}");
    }
}

#[tokio::test]
async fn who_alters_history_and_seals_it_again_lacks_the_key() {
    let key = AuditKey::from_seed(&[1; 32]);
    let mut store = sealed(&key).await;
    let kept = evidence(&store, &key).await.trail.expect("a trail").heads(0, 9).await;
    let kept: Vec<SignedHead> = kept.expect("heads");
    let forge =
        "update events set metadata = cast('{\"actor\":\"bob\"}' as blob) where position = 3;";
    alter(&mut store, "journal.db", forge).await;
    let again = "delete from seals; delete from checkpoints where projection = 'audit';";
    alter(&mut store, "views.db", again).await;
    let theirs = AuditKey::from_seed(&[2; 32]);
    seal(&store, Some(theirs.clone())).await;
    let mut ours = evidence(&store, &key).await;
    let report = checked(&store, &ours).await;
    let found = of_chain(&report);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0 == 12 && found[0].1.contains("isn't what was signed"), "{found:?}");

    // Nor does it help to sign it again: neither to us, nor to who has kept a head.
    alter(&mut store, "views.db", "delete from signed_heads;").await;
    seal(&store, Some(theirs.clone())).await;
    ours.trail = evidence(&store, &key).await.trail;
    let found = checked(&store, &ours).await;
    assert!(of_chain(&found)[0].1.contains("did not sign"), "{:?}", found.findings);
    let to_them = evidence(&store, &theirs).await;
    assert!(checked(&store, &to_them).await.ok);
    let no_trail = Evidence { trail: None, kept, key: Some(key.public()) };
    let found = checked(&store, &no_trail).await;
    assert!(of_chain(&found)[0].1.contains("isn't what was signed"), "{:?}", found.findings);
}

#[tokio::test]
async fn a_kept_head_is_held_against_its_own_store() {
    let key = AuditKey::from_seed(&[1; 32]);
    let store = sealed(&key).await;
    let mut start = domain::audit::Chain::start(store.journal.epoch());
    start.position = 40;
    let beyond = key.sign(store.journal.epoch(), &start, Utc::now());
    let foreign = key.sign(store.journal.epoch().wrapping_add(1), &start, Utc::now());
    let mut with = evidence(&store, &key).await;
    with.kept = vec![beyond, foreign];
    let report = checked(&store, &with).await;
    let found: Vec<_> = report.findings.iter().map(|one| &*one.problem).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("isn't of this one") && found[1].contains("are gone"), "{found:?}");
}
