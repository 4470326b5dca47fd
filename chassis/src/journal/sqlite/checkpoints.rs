//! Moves the write-ahead log into the database beside the commits, so that no commit has to wait
//! for it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

/// Bytes of appends between two checkpoints. With indexes and heads two to three times as much is
/// written.
const EVERY: usize = 2 * 1024 * 1024;

/// The thread, and what has been written since it was last told. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Checkpoints {
    tell: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    written: usize,
}

impl Checkpoints {
    /// Starts the thread, over a connection of its own.
    pub(super) fn start(connection: Connection) -> io::Result<Self> {
        let (tell, told) = sync_channel(1);
        let thread = std::thread::Builder::new().name("checkpoints".into());
        let thread = thread.spawn(move || run(&connection, &told))?;
        Ok(Self { tell: Some(tell), thread: Some(thread), written: 0 })
    }

    /// Appends of so many bytes were committed.
    pub(super) fn committed(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written >= EVERY
            && let Some(tell) = &self.tell
        {
            self.written = 0;
            // A full channel: it is at it already, or will be.
            tell.try_send(()).ok();
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.tell = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the checkpoints panicked");
        }
    }
}

fn run(connection: &Connection, told: &Receiver<()>) {
    while told.recv().is_ok() {
        // It does what it can beside readers and the writer, and waits for nobody. What fails here
        // fails in the next commit too, which says so.
        let done = connection.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::warn!(%error, "the journal's log can't be moved into its database yet");
        }
    }
}
