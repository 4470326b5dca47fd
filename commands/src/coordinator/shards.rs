//! Follows the ownership of shards: tells the workers, and takes up the open runs of what is new.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chassis::journal::{Journal, Mark, ReadError, open_ids};
use chassis::shards::Ownership;
use futures::TryStreamExt;

use super::{Coordinator, Message, admissions};

/// Marks that are read at a time.
const PAGE: usize = 1_000;
/// How long it is waited before a failed look for open runs is repeated.
const AGAIN: Duration = Duration::from_millis(500);

/// Follows from where the workers were told what is owned (`known`). Ends only where ownership
/// never changes any more.
pub(super) async fn follow(
    coordinator: Coordinator,
    journal: Arc<dyn Journal>,
    mut ownership: Ownership,
    mut known: BTreeMap<u16, u64>,
) {
    // Shards whose open runs are still to be taken up.
    let mut due = known.clone();
    let mut runs = 0;
    loop {
        // One shard at a time, so that a change of ownership is seen in between.
        if let Some((shard, epoch)) = due.pop_first() {
            match take_up(&coordinator, &*journal, shard).await {
                Ok(count) => {
                    runs += count;
                    coordinator.tell_all(|| Message::Named { shard, epoch }).await;
                }
                Err(error) => {
                    tracing::warn!(shard, %error, "can't look for open runs, trying again");
                    due.insert(shard, epoch);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        if due.is_empty() {
            if runs > 0 {
                tracing::info!(runs, shards = known.len(), "took up open runs");
                runs = 0;
            }
            if ownership.changed().await.is_err() {
                return;
            }
        }
        let owned = Arc::clone(&ownership.borrow_and_update());
        for shard in known.keys().filter(|shard| !owned.epochs.contains_key(shard)) {
            due.remove(shard);
            coordinator.tell_all(|| Message::Lose { shard: *shard }).await;
        }
        for (shard, epoch) in &owned.epochs {
            if known.get(shard) != Some(epoch) {
                coordinator.tell_all(|| Message::Own { shard: *shard, epoch: *epoch }).await;
                due.insert(*shard, *epoch);
            }
        }
        known.clone_from(&owned.epochs);
    }
}

/// Tells what the runs of a shard count for that have ended, and has every run loaded that still owes
/// work; answers how many there are.
async fn take_up(
    coordinator: &Coordinator,
    journal: &dyn Journal,
    shard: u16,
) -> Result<u64, ReadError> {
    let mut after: Arc<str> = Arc::from("");
    loop {
        let marks = journal.marks(shard, &after, PAGE).await?;
        let Some(last) = marks.last() else { break };
        after = Arc::clone(&last.name);
        for Mark { name, until } in marks {
            match admissions::marked(&name) {
                Some(home) => {
                    coordinator.send(home.first_run(), Message::Counted { home, until }).await;
                }
                None => tracing::error!(name = &*name, "a mark has a name that can't be read"),
            }
        }
    }
    let mut count = 0_u64;
    let mut open = open_ids(journal, "run", shard);
    while let Some(id) = open.try_next().await? {
        match id.parse() {
            Ok(run_id) => coordinator.send(run_id, Message::Recover(run_id)).await,
            Err(_) => tracing::error!(id = &*id, "open run has an id that can't be read"),
        }
        count += 1;
    }
    Ok(count)
}
