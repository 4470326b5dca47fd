//! Cases about readers that follow the journal.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::join_all;

use super::{Storage, append, must};
use crate::journal::{Journal, Tail, TailError};

async fn write(journal: Arc<dyn Journal>, id: String, appends: u64) {
    for n in 0..appends {
        must(&*journal, append(&id, n * 3, 3)).await;
    }
}

/// Reads to a position in steps of at most `limit`.
async fn follow(mut tail: Tail, to: u64, limit: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while tail.position() < to {
        let events = tail.next(limit).await.expect("the tail goes on");
        assert!((1..=limit).contains(&events.len()));
        seen.extend(events.iter().map(|event| event.position));
        assert_eq!(seen.last(), Some(&tail.position()));
    }
    seen
}

/// From the start, from the middle and from the head, fast and slow, while writers write.
pub async fn tails_see_each_position_once(storage: &impl Storage) {
    let journal = storage.open().await;
    write(Arc::clone(&journal), "before".into(), 40).await;
    let (head, end) = (120, 120 + 8 * 20 * 3);
    let tails = [(0, 1), (0, 1_000), (1, 7), (59, 64), (head, 1), (head, 500)];
    let readers = tails.map(|(after, limit)| {
        tokio::spawn(follow(journal.tail(after), end, limit)).map(move |seen| (after, seen))
    });
    let writers = (0..8)
        .map(|n| tokio::spawn(write(Arc::clone(&journal), format!("writer{n}"), 20)))
        .collect::<Vec<_>>();
    for writer in join_all(writers).await {
        writer.expect("the writer ran");
    }
    for (after, seen) in join_all(readers).await {
        let seen = seen.expect("the reader ran");
        assert_eq!(seen, (after + 1..=end).collect::<Vec<_>>());
    }
}

/// A reopened journal has nothing in memory: old events come from storage, new ones from memory.
pub async fn a_tail_from_storage_joins_the_newest(storage: &impl Storage) {
    let journal = storage.open().await;
    write(Arc::clone(&journal), "before".into(), 30).await;
    drop(journal);
    let journal = storage.open().await;
    let writer = tokio::spawn(write(Arc::clone(&journal), "after".into(), 30));
    let readers = [0, 45, 89].map(|after| {
        tokio::spawn(follow(journal.tail(after), 180, 8)).map(move |seen| (after, seen))
    });
    for (after, seen) in join_all(readers).await {
        assert_eq!(seen.expect("the reader ran"), (after + 1..=180).collect::<Vec<_>>());
    }
    writer.await.expect("the writer ran");
}

/// `next` that is dropped while it waits, and `try_next` that finds nothing, move nothing.
pub async fn a_dropped_wait_loses_nothing(storage: &impl Storage) {
    let journal = storage.open().await;
    let mut tail = journal.tail(0);
    assert_eq!(tail.try_next(10).await, Ok(Vec::new()));
    assert!(tail.next(10).now_or_never().is_none(), "an empty journal has nothing to tell");
    must(&*journal, append("a", 0, 2)).await;
    let first = tail.next(1).await.expect("there is an event");
    assert_eq!((first.len(), first[0].position, tail.position()), (1, 1, 1));
    let rest = tail.try_next(10).await.expect("there is another");
    assert_eq!((rest.len(), tail.position()), (1, 2));
    assert!(tail.next(10).now_or_never().is_none());
    must(&*journal, append("a", 2, 1)).await;
    assert_eq!(tail.next(10).await.expect("there is a third")[0].position, 3);
}

/// A cursor from elsewhere doesn't get events that it claims to have seen.
pub async fn a_tail_ahead_of_the_head_waits_for_its_position(storage: &impl Storage) {
    let journal = storage.open().await;
    let mut tail = journal.tail(2);
    must(&*journal, append("a", 0, 2)).await;
    assert_eq!(tail.try_next(10).await, Ok(Vec::new()));
    assert!(tail.next(10).now_or_never().is_none());
    must(&*journal, append("a", 2, 2)).await;
    let events = tail.next(10).await.expect("its events are there");
    assert_eq!(events.iter().map(|event| event.position).collect::<Vec<_>>(), [3, 4]);
}

/// What waits is told, and what was written before is still read where it is in memory.
pub async fn a_tail_ends_when_the_journal_closes(storage: &impl Storage) {
    let journal = storage.open().await;
    must(&*journal, append("a", 0, 2)).await;
    let mut tail = journal.tail(0);
    let mut waiting = journal.tail(2);
    let waiting = tokio::spawn(async move { waiting.next(1).await });
    storage.close().await;
    assert_eq!(waiting.await.expect("the reader ran"), Err(TailError::Closed));
    assert_eq!(tail.next(10).await.map(|events| events.len()), Ok(2));
    assert_eq!(tail.next(10).await, Err(TailError::Closed));
    assert!(journal.append(append("a", 2, 1)).await.is_err());
}
