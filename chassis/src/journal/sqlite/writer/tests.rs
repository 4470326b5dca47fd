//! What a failed transaction leaves behind, where the batches are exactly known.

use bytes::Bytes;
use chrono::Utc;
use uuid::Uuid;

use super::*;
use crate::journal::sqlite::{SqliteOptions, open};
use crate::journal::{InboxEntry, NewEvent};

fn append(id: &str, expected_sequence: u64) -> Append {
    Append {
        aggregate_type: "thing".into(),
        aggregate_id: id.into(),
        expected_sequence,
        workspace_id: "ws".into(),
        metadata: Bytes::from_static(b"{}"),
        recorded_at: Utc::now(),
        events: vec![NewEvent {
            id: Uuid::now_v7(),
            event_type: "thing.changed".into(),
            event_version: 1,
            payload: Bytes::from_static(b"{}"),
            recorded_at: None,
        }],
        inbox: vec![InboxEntry {
            key: format!("{id}/{expected_sequence}"),
            fingerprint: String::new(),
            answer: Bytes::new(),
        }],
        open: Some(true),
        ..Append::default()
    }
}

async fn writer(dir: &tempfile::TempDir) -> Writer {
    let path = dir.path().join("journal.db");
    let opened = open::open(&path, &SqliteOptions::default()).await;
    opened.expect("the journal can be opened").writer
}

#[tokio::test]
async fn a_failed_batch_is_forgotten_whole() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut writer = writer(&dir).await;
    writer.commit([append("a", 0)].iter()).expect("the batch is right");
    let trigger = "create trigger poison before insert on events \
         when new.aggregate_id = 'poison' begin select raise(abort, 'no'); end";
    writer.connection.execute_batch(trigger).expect("the trigger can be made");
    let batch = [append("a", 1), append("b", 0), append("poison", 0), append("c", 0)];
    assert!(writer.commit(batch.iter()).is_err());
    assert!(writer.connection.is_autocommit(), "the transaction is still open");
    assert_eq!(writer.head(), 1);

    writer.connection.execute_batch("drop trigger poison").expect("the trigger can be dropped");
    let done = writer.commit(batch.iter()).expect("the batch is right now");
    let positions: Vec<u64> = done.events.iter().map(|event| event.position).collect();
    assert_eq!(positions, [2, 3, 4, 5]);
    assert!(done.verdicts.iter().all(Result::is_ok), "{:?}", done.verdicts);
}

/// A commit may have reached the disk though it was reported as failed.
#[tokio::test]
async fn after_a_failure_the_head_is_read_again() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut writer = writer(&dir).await;
    writer.commit([append("a", 0), append("b", 0)].iter()).expect("the batch is right");
    (writer.head, writer.stale) = (1, true);
    writer.heads.clear();
    let batch = [append("a", 0), append("a", 1), append("c", 0)];
    let done = writer.commit(batch.iter()).expect("the batch is right");
    assert!(matches!(done.verdicts[0], Err(AppendError::Duplicate(_))));
    let positions: Vec<u64> = done.events.iter().map(|event| event.position).collect();
    assert_eq!(positions, [3, 4]);
}
