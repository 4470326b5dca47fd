//! The machine's floors, measured in the same sitting as the workloads.

use std::path::Path;

use chassis::floor;
use serde_json::{Value, json};

use super::report::round;
use crate::exit::Failure;

/// Syncs of one measurement.
const SYNCS: usize = 500;
/// Events in one commit: what a committer under load collects.
const BATCH: usize = 100;

/// fsyncs a second, and `n` events in group-committed batches.
pub(super) async fn measure(dir: &Path, n: u64) -> Result<Vec<Value>, Failure> {
    let dir = dir.to_owned();
    let commits = usize::try_from(n).unwrap_or(usize::MAX).div_ceil(BATCH);
    let measured = tokio::task::spawn_blocking(move || {
        let sync = floor::fsync_per_second(&dir, SYNCS)?;
        Ok::<_, floor::FloorError>((sync, floor::group_commit(&dir, BATCH, commits)?))
    });
    let (sync, commit) =
        measured.await.map_err(anyhow::Error::from)?.map_err(anyhow::Error::from)?;
    Ok(vec![
        json!({
            "workload": "floor_fsync", "engine": "disk", "durability": "fsync", "n": SYNCS,
            "fsyncs_per_s": round(sync.per_second), "p50_ms": round(sync.median_us / 1e3),
        }),
        json!({
            "workload": "floor_group_commit", "engine": "sqlite", "durability": "fsync",
            "n": commits * BATCH, "batch": BATCH,
            "events_per_s": round(commit.per_second), "p50_ms": round(commit.median_us / 1e3),
        }),
    ])
}
