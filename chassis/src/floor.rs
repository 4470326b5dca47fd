//! The machine's floors: what its disk and SQLite can do without anything of ours above them.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

/// Bytes of one append in [`fsync_per_second`].
const BLOCK: usize = 512;
/// Rounds that one measurement may take at most.
const ROUNDS: usize = 20_000;
/// Rows that one commit may hold at most.
const ROWS: usize = 10_000;
const TABLES: &str = include_str!("../../migrations/sqlite/journal/0001_journal.sql");
const INSERT: &str = "insert into events (position, event_id, aggregate_type, aggregate_id, \
     sequence, event_type, event_version, workspace_id, recorded_at, metadata, payload) \
     values (?1, ?2, 'run', ?3, 1, 'floor', 1, 'workspace', 0, ?4, ?5)";

/// Why a floor can't be measured.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    #[error("the disk can't be measured: {0}")]
    Io(#[from] io::Error),
    #[error("SQLite can't be measured: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// Median of one round: an append and its sync, or a commit.
    pub median_us: f64,
    /// Syncs, or events, in a second, over all rounds.
    pub per_second: f64,
}

/// Appends 512 bytes and syncs them, `n` times (at most 20,000), in a file of its own in `dir`.
/// Blocks.
pub fn fsync_per_second(dir: &Path, n: usize) -> Result<Floor, FloorError> {
    let scratch = Scratch::new(dir)?;
    let mut file = File::create_new(scratch.0.join("appended"))?;
    let block = [0x5a; BLOCK];
    measure(n, 1, |_| {
        file.write_all(&block)?;
        Ok(file.sync_data()?)
    })
}

/// Commits `batch` rows (at most 10,000) of the journal's shape with full durability, `n` times
/// (at most 20,000), to a database of its own in `dir`. Blocks.
pub fn group_commit(dir: &Path, batch: usize, n: usize) -> Result<Floor, FloorError> {
    let scratch = Scratch::new(dir)?;
    let connection = Connection::open(scratch.0.join("committed.db"))?;
    connection.execute_batch("pragma journal_mode = wal; pragma synchronous = full;")?;
    connection.execute_batch(TABLES)?;
    let batch = batch.clamp(1, ROWS);
    let (metadata, payload) = ([b'm'; 64], [b'p'; 100]);
    measure(n, batch, |round| {
        connection.prepare_cached("begin immediate")?.execute([])?;
        let mut insert = connection.prepare_cached(INSERT)?;
        for row in 0..batch {
            let position = round * batch + row + 1;
            let (id, aggregate) = (position.to_be_bytes(), format!("run_{position:026}"));
            insert.execute(params![position, id, aggregate, metadata, payload])?;
        }
        connection.prepare_cached("commit")?.execute([])?;
        Ok(())
    })
}

fn measure(
    n: usize,
    units: usize,
    mut round: impl FnMut(usize) -> Result<(), FloorError>,
) -> Result<Floor, FloorError> {
    let n = n.clamp(1, ROUNDS);
    let mut took = Vec::with_capacity(n);
    for i in 0..n {
        let begun = Instant::now();
        round(i)?;
        took.push(begun.elapsed());
    }
    let seconds = took.iter().sum::<Duration>().as_secs_f64();
    took.sort_unstable();
    let median_us = took[n / 2].as_secs_f64() * 1e6;
    Ok(Floor { median_us, per_second: (n * units) as f64 / seconds })
}

/// A folder that goes away with it.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!("floor-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a measurement's files are left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_measured_and_leave_nothing() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let sync = fsync_per_second(dir.path(), 3).expect("the disk can be measured");
        let commit = group_commit(dir.path(), 5, 3).expect("SQLite can be measured");
        assert!(sync.per_second > 0.0 && sync.median_us > 0.0);
        assert!(commit.per_second > 0.0 && commit.median_us > 0.0);
        assert_eq!(std::fs::read_dir(dir.path()).expect("the folder is there").count(), 0);
    }
}
