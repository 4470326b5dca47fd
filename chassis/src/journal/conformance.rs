//! What every journal has to do, as tests that a storage's own tests run.
//!
//! A storage implements [`Storage`] and calls `chassis::journal_conformance!(Mine::new().await)`
//! in a test file. The cases panic where the journal is wrong.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use uuid::Uuid;

use super::{Append, Appended, InboxEntry, Journal, NewEvent, RecordedEvent};

mod appending;
mod keeping;
mod tailing;

pub use appending::*;
pub use keeping::*;
pub use tailing::*;

/// One store, empty at first.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Opens the store. Called again it closes what was open and opens the same store anew.
    async fn open(&self) -> Arc<dyn Journal>;

    /// Closes what is open.
    async fn close(&self);
}

/// Makes a test of each case. The expression makes an empty [`Storage`] and may await.
#[macro_export]
macro_rules! journal_conformance {
    (@cases $storage:expr; $($case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let storage = $storage;
            $crate::journal::conformance::$case(&storage).await;
            $crate::journal::conformance::Storage::close(&storage).await;
        }
    )*};
    ($storage:expr) => {
        $crate::journal_conformance!(@cases $storage;
            positions_are_contiguous_under_concurrent_writers
            appends_of_one_aggregate_share_a_batch
            a_conflict_is_refused_alone
            a_repeated_key_gets_the_stored_answer_and_writes_nothing
            a_key_of_the_same_batch_is_a_duplicate
            a_refused_append_leaves_nothing
            what_is_over_a_limit_is_refused
            a_reopened_journal_keeps_everything
            bytes_are_kept_as_they_are
            pages_follow_each_other
            payloads_are_found_by_their_hash
            the_newest_snapshot_is_kept
            some_older_snapshots_are_kept
            some_events_of_an_aggregate_are_found_by_what_they_tell
            open_aggregates_are_listed_in_order
            what_leans_on_another_is_found_while_it_is_open
            marks_are_kept_until_their_time
            payloads_are_replaced_and_their_hashes_are_kept
            events_are_found_by_their_type_and_without_namesakes
            a_value_is_dropped_once_nothing_refers_to_it
            aggregates_are_listed_by_type
            tails_see_each_position_once
            a_tail_from_storage_joins_the_newest
            a_dropped_wait_loses_nothing
            a_tail_ahead_of_the_head_waits_for_its_position
            a_tail_ends_when_the_journal_closes
        );
    };
}

/// A deterministic source of choices, so that a failure comes again.
struct Choices(u64);

impl Choices {
    /// Below `end`, by xorshift64 (Marsaglia 2003).
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// An append of `events` events to `thing/<id>`.
fn append(id: &str, expected_sequence: u64, events: usize) -> Append {
    Append {
        aggregate_type: "thing".into(),
        aggregate_id: id.into(),
        expected_sequence,
        workspace_id: "ws_one".into(),
        metadata: Bytes::from_static(br#"{"actor":"tests"}"#),
        // Finer than any storage keeps.
        recorded_at: DateTime::from_timestamp(1_800_000_000, 123_456_789).unwrap_or_default(),
        events: (0..events).map(|n| event(&format!(r#"{{"n":{n}}}"#))).collect(),
        ..Append::default()
    }
}

fn event(payload: &str) -> NewEvent {
    NewEvent {
        id: Uuid::now_v7(),
        event_type: "thing.changed".into(),
        event_version: 3,
        payload: Bytes::from(payload.to_owned()),
        recorded_at: None,
    }
}

fn answer(key: &str, fingerprint: &str, answer: &'static str) -> InboxEntry {
    let (key, fingerprint) = (key.into(), fingerprint.into());
    InboxEntry { key, fingerprint, answer: Bytes::from_static(answer.as_bytes()) }
}

async fn must(journal: &dyn Journal, append: Append) -> Appended {
    let id = Arc::clone(&append.aggregate_id);
    match journal.append(append).await {
        Ok(appended) => appended,
        Err(error) => panic!("the append to {id} was refused: {error}"),
    }
}

async fn everything(journal: &dyn Journal) -> Vec<RecordedEvent> {
    journal.read(0, usize::MAX).await.expect("the journal can be read")
}
