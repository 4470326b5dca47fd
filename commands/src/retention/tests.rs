//! Archiving over a journal that the tests write by hand.

use std::path::Path;

use chassis::clock::SystemClock;
use chassis::journal::{Payload, SqliteJournal, SqliteOptions};
use chassis::shards::sole_owner;
use chrono::Utc;
use domain::run::event::SignalReceived;
use protocol::SHARDS;
use serde_json::{Value, json};

use super::*;

fn workspace() -> WorkspaceId {
    WorkspaceId::derived("test", "one")
}

async fn archivist(folder: &Path) -> Archivist {
    let path = folder.join("journal.db");
    let journal = SqliteJournal::open(&path, SqliteOptions::default()).await.expect("a journal");
    Archivist {
        journal,
        clock: Arc::new(SystemClock::new()),
        ownership: sole_owner(SHARDS),
        workspace_id: workspace(),
    }
}

/// A run that was told so many things, and was cancelled then.
async fn told(archivist: &Archivist, number: u64, signals: u64, payload: &Value) -> Ended {
    let run_id = RunId::derived("test", &number.to_string());
    let started = json!({
        "type": "run_started", "run_id": run_id,
        "project_id": "prj_00000000000000000000000000",
        "definition": {
            "id": "wfd_00000000000000000000000000", "name": "t", "version": 1, "hash": "00"
        },
        "start": "a", "input": payload, "started_at": "2026-01-01T00:00:00Z"
    });
    let mut events = vec![serde_json::from_value(started).expect("an event")];
    events.extend((1..=signals).map(|number| {
        let (name, sent_at, payload) = ("s".to_owned(), Utc::now(), payload.clone());
        let dropped = true;
        let signal = SignalReceived { number, name, payload, sent_at, dropped };
        run::Event::SignalReceived(Box::new(signal))
    }));
    events.push(run::Event::RunCancelled { reason: None, code: None });
    let encoded = events.iter().map(|event| codec::encode(event, workspace()).expect("stored"));
    let (mut payloads, mut new) = (Vec::new(), Vec::new());
    for (event, encoded) in events.iter().zip(encoded) {
        payloads.extend(encoded.blobs.into_iter().map(|(hash, bytes)| {
            let (hash, bytes) = (hash.into(), bytes.into());
            Payload { hash, bytes }
        }));
        new.push(NewEvent {
            id: archivist.clock.uuid_v7(),
            event_type: event.event_type().into(),
            event_version: 1,
            payload: encoded.payload.into(),
            recorded_at: None,
        });
    }
    let append = Append {
        aggregate_type: RUN.into(),
        aggregate_id: run_id.to_string().into(),
        expected_sequence: 0,
        workspace_id: workspace().to_string().into(),
        metadata: Bytes::from_static(b"{}"),
        recorded_at: Utc::now(),
        events: new,
        payloads,
        shard: shard_of(run_id),
        ..Append::default()
    };
    let appended = archivist.journal.append(append).await.expect("it is appended");
    Ended { run_id, workspace_id: workspace(), sequence: appended.last_sequence }
}

fn asked(keep: Keep) -> Asked {
    let (archive, dry_run, remembered) = (None, false, None);
    Asked { keep, archive, dry_run, metadata: Bytes::from_static(b"{}"), remembered }
}

async fn dropped(archivist: &Archivist, ended: &Ended, keep: Keep) -> RunDropped {
    let receipt = archivist.archive(ended, asked(keep)).await.expect("it is archived");
    *receipt.dropped.expect("what was dropped")
}

/// Sequences of the events of which content was dropped.
async fn thinned(archivist: &Archivist, ended: &Ended) -> Vec<u64> {
    let id = ended.run_id.to_string();
    let events = archivist.journal.load(RUN, &id, 0, usize::MAX).await.expect("it is read");
    let thinned = events.iter().filter(|event| event.redacted.is_some());
    thinned.map(|event| event.sequence).collect()
}

#[tokio::test]
async fn a_long_run_is_archived_in_parts_and_gone_on_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let archivist = archivist(folder.path()).await;
    let ended = told(&archivist, 1, 2 * SLICE + 10, &json!({"a": 1})).await;
    let id: Arc<str> = ended.run_id.to_string().into();
    let planned = {
        let receipt = archivist.archive(&ended, Asked { dry_run: true, ..asked(Keep::Results) });
        receipt.await.expect("a plan").dropped.expect("what would be dropped")
    };
    assert_eq!(thinned(&archivist, &ended).await, [0; 0]);

    // A process dies after the first part.
    let part = archivist.part(&ended, &id, Keep::Results, 0, None).await.expect("a part");
    let place = (0, shard_of(ended.run_id), 0);
    let append = archivist.append(&ended, &id, place, part, false, &asked(Keep::Results));
    archivist.journal.append(append.expect("an append")).await.expect("it is appended");
    assert_eq!(thinned(&archivist, &ended).await, (2..=SLICE).collect::<Vec<_>>());

    // Less is asked for now, and what was begun is finished first.
    let owned = Arc::clone(&archivist.ownership.borrow());
    archivist.finish(&owned).await.expect("it is finished");
    let (retained, version) = archivist.retained(&id).await.expect("it is read");
    assert_eq!((retained.keep, retained.upto, version), (Some(Keep::Results), 0, 3));
    let all: Vec<u64> = (2..=2 * SLICE + 11).collect();
    assert_eq!(thinned(&archivist, &ended).await, all);
    assert_eq!(planned.dropped, all.len() as u64);
    let open = archivist.journal.open_aggregates(AGGREGATE, shard_of(ended.run_id), "", 9).await;
    assert_eq!(open, Ok(vec![]));

    assert_eq!(dropped(&archivist, &ended, Keep::Results).await.dropped, 0);
    let more = dropped(&archivist, &ended, Keep::Header).await;
    assert_eq!((more.dropped, more.keep), (1, Keep::Header), "the input");
}

#[tokio::test]
async fn a_value_goes_with_the_last_run_that_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let archivist = archivist(folder.path()).await;
    let large = json!({"text": "x".repeat(100_000)});
    let first = told(&archivist, 1, 2, &large).await;
    let second = told(&archivist, 2, 2, &large).await;
    let id = first.run_id.to_string();
    let events = archivist.journal.load(RUN, &id, 0, 1).await.expect("it is read");
    let hash: Arc<str> = codec::refs(&events[0].payload).pop().expect("a value apart").into();
    let is_there = async || archivist.journal.payloads(std::slice::from_ref(&hash)).await.is_ok();

    assert_eq!(archivist.drop_values(Utc::now()).await, Ok(0));
    dropped(&archivist, &first, Keep::Header).await;
    assert_eq!(archivist.drop_values(Utc::now()).await, Ok(0), "the other run has it");
    assert!(is_there().await);
    // With its results it keeps the input, and so the value.
    dropped(&archivist, &second, Keep::Results).await;
    assert_eq!(archivist.drop_values(Utc::now()).await, Ok(0));
    dropped(&archivist, &second, Keep::Header).await;
    let before = Utc::now() - chrono::TimeDelta::hours(1);
    assert_eq!(archivist.drop_values(before).await, Ok(0), "somebody may be reading it");
    assert_eq!(archivist.drop_values(Utc::now()).await, Ok(1));
    assert!(!is_there().await);
}
