//! Graceful shutdown: a signal says stop, a second one says now, and stages end one by one.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How the work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All tasks have ended.
    Clean,
    /// The deadline passed, or a second signal came, with so many tasks left.
    Abandoned { tasks: usize },
}

/// Tasks that stop together.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Stage {
    /// A stage without tasks.
    pub fn new(name: &'static str) -> Self {
        Self { name, stop: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// Cancelled when the stage's turn to stop has come.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Who knows the stage's tasks; what it spawns is waited for.
    pub const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Runs a task that is waited for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.tasks.spawn(task)
    }

    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Whether the process is to stop. Clones are the same shutdown.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    now: CancellationToken,
}

impl Shutdown {
    /// One that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for it; asked again, [`Shutdown::drain`] waits no longer.
    pub fn request(&self) {
        if self.requested.is_cancelled() {
            self.now.cancel();
        }
        self.requested.cancel();
    }

    /// Waits until it is asked for. Cancel-safe.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Makes SIGTERM and SIGINT ask for it; the second signal means now.
    pub fn listen(&self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        // Not awaited: it waits for signals as long as the process lives.
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    Some(()) = terminate.recv() => "SIGTERM",
                    Some(()) = interrupt.recv() => "SIGINT",
                    else => return,
                };
                let again = shutdown.requested.is_cancelled();
                tracing::info!(signal = name, again, "stopping");
                shutdown.request();
            }
        });
        Ok(())
    }

    /// Stops the stages one after the other, each when the one before has ended; all of them at
    /// the deadline or when it is asked for once more. Counts as asking for it.
    pub async fn drain(&self, stages: &[Stage], deadline: Duration) -> Drained {
        self.requested.cancel();
        let in_turn = async {
            for stage in stages {
                stage.end().await;
            }
        };
        tokio::select! {
            biased;
            () = in_turn => Drained::Clean,
            () = self.now.cancelled() => abandoned(stages),
            () = tokio::time::sleep(deadline) => abandoned(stages),
        }
    }
}

fn abandoned(stages: &[Stage]) -> Drained {
    let mut tasks = 0;
    for stage in stages {
        stage.stop.cancel();
        let left = stage.tasks.len();
        if left > 0 {
            tracing::warn!(stage = stage.name, tasks = left, "stopped with tasks at work");
        }
        tasks += left;
    }
    Drained::Abandoned { tasks }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const LONG: Duration = Duration::from_secs(25);

    #[tokio::test]
    async fn stages_end_one_after_the_other() {
        let shutdown = Shutdown::new();
        let stages = [Stage::new("first"), Stage::new("second")];
        let order = Arc::new(Mutex::new(Vec::new()));
        for stage in stages.iter().rev() {
            let (stop, name, order) = (stage.token(), stage.name, Arc::clone(&order));
            stage.spawn(async move {
                stop.cancelled().await;
                tokio::task::yield_now().await;
                order.lock().expect("nobody panicked").push(name);
            });
        }
        assert_eq!(shutdown.drain(&stages, LONG).await, Drained::Clean);
        assert_eq!(*order.lock().expect("nobody panicked"), ["first", "second"]);
    }

    #[tokio::test]
    async fn a_second_request_ends_the_wait_and_tells_everybody() {
        let shutdown = Shutdown::new();
        let stages = [Stage::new("stuck"), Stage::new("next")];
        stages[0].spawn(std::future::pending::<()>());
        shutdown.request();
        shutdown.request();
        assert_eq!(shutdown.drain(&stages, LONG).await, Drained::Abandoned { tasks: 1 });
        assert!(stages[1].token().is_cancelled());
    }

    #[tokio::test]
    async fn a_request_while_it_drains_ends_the_wait() {
        let shutdown = Shutdown::new();
        let stages = [Stage::new("stuck")];
        let again = shutdown.clone();
        stages[0].spawn(async move {
            again.requested().await;
            again.request();
            std::future::pending::<()>().await;
        });
        assert_eq!(shutdown.drain(&stages, LONG).await, Drained::Abandoned { tasks: 1 });
    }

    #[tokio::test]
    async fn the_deadline_ends_the_wait() {
        let stages = [Stage::new("stuck")];
        stages[0].spawn(std::future::pending::<()>());
        let drained = Shutdown::new().drain(&stages, Duration::ZERO).await;
        assert_eq!(drained, Drained::Abandoned { tasks: 1 });
    }
}
