//! Cases about what an append writes, and what it doesn't.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use super::{Choices, Storage, answer, append, event, everything, must};
use crate::journal::{
    AppendError, Appended, Journal, MAX_BYTES_PER_APPEND, MAX_EVENTS_PER_APPEND, Payload, Recalled,
    Snapshot,
};

/// 16 writers that often guess the sequence wrongly, and a reader that follows.
pub async fn positions_are_contiguous_under_concurrent_writers(storage: &impl Storage) {
    const WRITERS: u64 = 16;
    const APPENDS: u64 = 40;
    let journal = storage.open().await;
    let writers = (1..=WRITERS).map(|writer| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move { write_with_conflicts(&*journal, writer, APPENDS).await })
    });
    let mut tail = journal.tail(0);
    let writers: Vec<_> = writers.collect();
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            let events = tail.next(50).await.expect("the tail goes on");
            seen.extend(events.iter().map(|event| event.position));
            if events.iter().any(|event| &*event.aggregate_id == "last") {
                return seen;
            }
        }
    });
    let (mut written, mut conflicts) = (0, 0);
    for writer in join_all(writers).await {
        let (events, refused) = writer.expect("the writer ran");
        written += events;
        conflicts += refused;
    }
    assert!(conflicts > 0, "no writer met a conflict, so the case shows nothing");
    let last = must(&*journal, append("last", 0, 1)).await.last_position;
    let seen = reader.await.expect("the reader ran");
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    assert_eq!(last, written + 1, "what was refused has taken a position");
    assert_eq!(journal.head().await, Ok(last));
    sequences_are_dense(&*journal).await;
}

/// The events written and the appends refused.
async fn write_with_conflicts(journal: &dyn Journal, writer: u64, appends: u64) -> (u64, u64) {
    let mut choices = Choices(writer);
    let mut known: HashMap<String, u64> = HashMap::new();
    let (mut written, mut refused) = (0, 0);
    for _ in 0..appends {
        let id = format!("shared{}", choices.below(4));
        let expected = known.get(&id).copied().unwrap_or(0);
        let events = 1 + choices.below(5);
        match journal.append(append(&id, expected, events as usize)).await {
            Ok(Appended { first_position, last_position, last_sequence }) => {
                assert_eq!(last_position - first_position + 1, events);
                assert_eq!(last_sequence, expected + events);
                written += events;
                known.insert(id, last_sequence);
            }
            Err(AppendError::Conflict { .. }) => {
                refused += 1;
                let events = journal.load("thing", &id, 0, usize::MAX).await;
                let events = events.expect("the aggregate can be loaded");
                known.insert(id, events.last().map_or(0, |event| event.sequence));
            }
            Err(error) => panic!("writer {writer}: {error}"),
        }
    }
    (written, refused)
}

async fn sequences_are_dense(journal: &dyn Journal) {
    let mut sequences: HashMap<Arc<str>, u64> = HashMap::new();
    for event in everything(journal).await {
        let last = sequences.entry(Arc::clone(&event.aggregate_id)).or_default();
        assert_eq!(event.sequence, *last + 1, "in {}", event.aggregate_id);
        *last = event.sequence;
    }
}

/// An append sees what an earlier one of the same batch has written.
pub async fn appends_of_one_aggregate_share_a_batch(storage: &impl Storage) {
    let journal = storage.open().await;
    let appends = (0..50).map(|n| journal.append(append("one", n * 2, 2)));
    for (n, appended) in (0..).zip(join_all(appends).await) {
        let appended = appended.expect("the sequence is the right one");
        assert_eq!(appended.first_position, n * 2 + 1);
        assert_eq!(appended.last_sequence, n * 2 + 2);
    }
    sequences_are_dense(&*journal).await;
}

/// A wrong sequence, too high or too low, doesn't touch the neighbours.
pub async fn a_conflict_is_refused_alone(storage: &impl Storage) {
    let journal = storage.open().await;
    must(&*journal, append("old", 0, 3)).await;
    let appends = (0..30).map(|n| match n % 3 {
        0 => journal.append(append("old", 2, 1)),
        1 => journal.append(append(&format!("new{n}"), 0, 1)),
        _ => journal.append(append(&format!("ahead{n}"), 7, 1)),
    });
    for (n, verdict) in join_all(appends).await.into_iter().enumerate() {
        match (n % 3, verdict) {
            (0, Err(AppendError::Conflict { aggregate_id, expected: 2 })) => {
                assert_eq!(&*aggregate_id, "old");
            }
            (1, Ok(appended)) => assert_eq!(appended.last_sequence, 1),
            (2, Err(AppendError::Conflict { expected: 7, .. })) => {}
            (_, verdict) => panic!("append {n} ended as {verdict:?}"),
        }
    }
    assert_eq!(everything(&*journal).await.len(), 13);
    must(&*journal, append("old", 3, 1)).await;
}

/// Also where the sequence has moved on since.
pub async fn a_repeated_key_gets_the_stored_answer_and_writes_nothing(storage: &impl Storage) {
    let journal = storage.open().await;
    let mut first = append("a", 0, 2);
    first.inbox = vec![answer("ws/k1", "f1", "done"), answer("ws/k2", "f2", "too")];
    must(&*journal, first).await;
    let stored =
        Recalled { fingerprint: "f2".into(), answer: Bytes::from_static(b"too"), position: 2 };
    let mut again = append("a", 2, 1);
    again.inbox = vec![answer("ws/new", "f", "x"), answer("ws/k2", "other", "other")];
    again.payloads = vec![Payload { hash: "h".into(), bytes: Bytes::from_static(b"x") }];
    let refused = journal.append(again.clone()).await;
    assert_eq!(refused, Err(AppendError::Duplicate(stored.clone())));
    again.expected_sequence = 0;
    assert_eq!(journal.append(again).await, Err(AppendError::Duplicate(stored.clone())));
    assert_eq!(journal.recall("ws/k2").await, Ok(Some(stored)));
    assert_eq!(journal.recall("ws/new").await, Ok(None));
    assert!(journal.payloads(&["h".into()]).await.is_err());
    assert_eq!(journal.head().await, Ok(2));
}

/// The second of two appends that are queued together finds the first one's answer.
pub async fn a_key_of_the_same_batch_is_a_duplicate(storage: &impl Storage) {
    let journal = storage.open().await;
    let appends = (0..10).map(|n| {
        let mut append = append(&format!("a{n}"), 0, 1);
        append.inbox = vec![answer("ws/k", "f", "done")];
        journal.append(append)
    });
    let verdicts = join_all(appends).await;
    assert!(verdicts[0].is_ok());
    for verdict in &verdicts[1..] {
        let Err(AppendError::Duplicate(recalled)) = verdict else {
            panic!("a repeated command ended as {verdict:?}");
        };
        assert_eq!(recalled.position, 1);
    }
    assert_eq!(journal.head().await, Ok(1));
}

/// Not the events, nor what goes with them.
pub async fn a_refused_append_leaves_nothing(storage: &impl Storage) {
    let journal = storage.open().await;
    must(&*journal, append("a", 0, 1)).await;
    let mut refused = append("a", 0, 1);
    refused.inbox = vec![answer("ws/k", "f", "done")];
    refused.payloads = vec![Payload { hash: "h".into(), bytes: Bytes::from_static(b"x") }];
    refused.open = Some(true);
    refused.snapshot = Some(Snapshot { sequence: 1, version: 1, state: Bytes::new() });
    assert!(matches!(journal.append(refused).await, Err(AppendError::Conflict { .. })));
    assert_eq!(journal.recall("ws/k").await, Ok(None));
    assert!(journal.payloads(&["h".into()]).await.is_err());
    assert_eq!(journal.open_aggregates("thing", 0, "", 10).await, Ok(Vec::new()));
    assert_eq!(journal.snapshot("thing", "a", 1).await, Ok(None));
    assert_eq!(everything(&*journal).await.len(), 1);
}

/// And what is just within is written, beside neighbours that aren't.
pub async fn what_is_over_a_limit_is_refused(storage: &impl Storage) {
    let journal = storage.open().await;
    let mut heavy = append("heavy", 0, 0);
    heavy.events = vec![event(&format!("\"{}\"", "x".repeat(MAX_BYTES_PER_APPEND)))];
    let appends = [
        append("none", 0, 0),
        append("many", 0, MAX_EVENTS_PER_APPEND + 1),
        heavy.clone(),
        append("most", 0, MAX_EVENTS_PER_APPEND),
    ];
    let mut verdicts = join_all(appends.map(|append| journal.append(append))).await;
    let most = verdicts.pop().expect("four were appended").expect("the most is not too many");
    assert_eq!(verdicts, [const { Err(AppendError::TooLarge) }; 3]);
    assert_eq!(most.last_position, MAX_EVENTS_PER_APPEND as u64);
    heavy.events = vec![event(&format!("\"{}\"", "x".repeat(MAX_BYTES_PER_APPEND - 1_000)))];
    must(&*journal, heavy).await;
}
