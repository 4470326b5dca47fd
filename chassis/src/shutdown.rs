//! Graceful shutdown: one token that says stop, one that says now, and who is still at work.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a process takes to stop at most.
pub const DEADLINE: Duration = Duration::from_secs(25);

/// How the work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All tasks have ended.
    Clean,
    /// The deadline passed, or a second signal came, with so many tasks left.
    Abandoned { tasks: usize },
}

/// Shared by everything that has to stop. Clones are the same shutdown.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    now: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// One that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to finish; asked again, [`Shutdown::drain`] waits no longer.
    pub fn request(&self) {
        if self.requested.is_cancelled() {
            self.now.cancel();
        }
        self.requested.cancel();
    }

    /// Whether it has been asked for.
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Waits until it is asked for. Cancel-safe.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// A token of one part of the process: cancelled with the whole, and it can be on its own.
    pub fn token(&self) -> CancellationToken {
        self.requested.child_token()
    }

    /// Runs a task that [`Shutdown::drain`] waits for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Makes SIGTERM and SIGINT ask for it; the second signal means now.
    pub fn listen(&self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        // Not tracked: it waits for signals as long as the process lives.
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    Some(()) = terminate.recv() => "SIGTERM",
                    Some(()) = interrupt.recv() => "SIGINT",
                    else => return,
                };
                tracing::info!(signal = name, again = shutdown.is_requested(), "stopping");
                shutdown.request();
            }
        });
        Ok(())
    }

    /// Waits until it is asked for and all tasks have ended, then at most `deadline`.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.requested.cancelled().await;
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.tasks.wait() => Drained::Clean,
            () = self.now.cancelled() => self.abandoned(),
            () = tokio::time::sleep(deadline) => self.abandoned(),
        }
    }

    fn abandoned(&self) -> Drained {
        let tasks = self.tasks.len();
        tracing::warn!(tasks, "stopped with tasks at work");
        Drained::Abandoned { tasks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_tasks_that_finish() {
        let shutdown = Shutdown::new();
        let task = shutdown.clone();
        let worker = shutdown.spawn(async move {
            task.requested().await;
            "finished"
        });
        assert!(!shutdown.is_requested());
        shutdown.request();
        assert_eq!(shutdown.drain(DEADLINE).await, Drained::Clean);
        assert_eq!(worker.await.expect("the task ran"), "finished");
    }

    #[tokio::test]
    async fn a_second_request_ends_the_wait() {
        let shutdown = Shutdown::new();
        let _stuck = shutdown.spawn(std::future::pending::<()>());
        shutdown.request();
        shutdown.request();
        assert_eq!(shutdown.drain(DEADLINE).await, Drained::Abandoned { tasks: 1 });
    }

    #[tokio::test]
    async fn the_deadline_ends_the_wait() {
        let shutdown = Shutdown::new();
        let _stuck = shutdown.spawn(std::future::pending::<()>());
        shutdown.request();
        let drained = shutdown.drain(Duration::ZERO).await;
        assert_eq!(drained, Drained::Abandoned { tasks: 1 });
    }

    #[tokio::test]
    async fn a_part_can_stop_alone() {
        let shutdown = Shutdown::new();
        shutdown.token().cancel();
        assert!(!shutdown.is_requested());
        let part = shutdown.token();
        shutdown.request();
        assert!(part.is_cancelled());
    }
}
