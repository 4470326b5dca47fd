//! Deliveries: which are performed, and what becomes of the others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chassis::bus::Delivery;
use protocol::remote::{CommandCall, TaskMessage};
use protocol::shard_of;
use protocol::task::{Failure, Task};
use tokio::time::Instant;

use super::carrier::{Carrier, in_doubt};
use super::held::Attempt;
use super::owner::{Unanswered, ask, pauses};
use crate::fault::{Fault, permanent};

/// The delivery from which on a task isn't performed any more: each one before was lost with its
/// worker.
const LOST_AT: u64 = 5;
/// How long one question for a task may go without an answer.
const FETCH: Duration = Duration::from_secs(5);
/// How long a task is asked for before it is left to be delivered again.
const FETCH_PATIENCE: Duration = Duration::from_secs(60);

impl Carrier {
    /// The task of a delivery, where it is to be performed now. What has to be asked for comes
    /// later; what can't be performed is answered.
    pub(super) fn receive(self: &Arc<Self>, delivery: Delivery) -> Option<Task> {
        let deliveries = delivery.deliveries;
        let message = serde_json::from_slice(&delivery.body);
        let attempt = match &message {
            Ok(TaskMessage::Task(task)) => Some(Attempt::from(&**task)),
            Ok(TaskMessage::Fetch { run_id, token, attempt }) => {
                Some(Attempt { run_id: *run_id, token: *token, attempt: *attempt })
            }
            Err(_) => Attempt::of_subject(&delivery.subject),
        };
        let Some(attempt) = attempt else {
            tracing::error!(subject = %delivery.subject, "a message is no task and is dropped");
            self.aside_with(async move { delivery.ack().await });
            return None;
        };
        if !self.held.keep(attempt, delivery) {
            // It is performed right now, only its signs of life came late.
            return None;
        }
        if deliveries >= LOST_AT {
            self.refuse(attempt, *lost(deliveries - 1));
            return None;
        }
        match message {
            Ok(TaskMessage::Task(task)) => self.unless_in_doubt(attempt, *task, deliveries),
            Ok(TaskMessage::Fetch { .. }) => {
                let carrier = Arc::clone(self);
                self.aside_until_taken(async move { carrier.fetch(attempt).await });
                None
            }
            Err(error) => {
                let message = format!("the worker can't read the task: {error}");
                self.refuse(attempt, *permanent("task_unreadable", message));
                None
            }
        }
    }

    /// The task, unless it must not be made twice and somebody may have made it.
    fn unless_in_doubt(
        self: &Arc<Self>,
        attempt: Attempt,
        task: Task,
        deliveries: u64,
    ) -> Option<Task> {
        if task.work.repeatable {
            return Some(task);
        }
        if deliveries > 1 {
            self.refuse(attempt, *in_doubt());
            return None;
        }
        self.held.once(attempt);
        Some(task)
    }

    /// Answers an attempt that isn't performed.
    fn refuse(self: &Arc<Self>, attempt: Attempt, failure: Failure) {
        let Attempt { run_id, token, attempt: number } = attempt;
        tracing::error!(%run_id, token, attempt = number, code = failure.code, "a task is refused");
        metrics::counter!("wonder_tasks_refused_total", "code" => failure.code.clone())
            .increment(1);
        let (carrier, outcome) = (Arc::clone(self), attempt.failed(failure));
        self.aside_with(async move { carrier.report(vec![outcome]).await });
    }

    /// Asks for a task and queues it; false where there is none to queue.
    async fn fetch(self: &Arc<Self>, attempt: Attempt) -> bool {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => {
                self.give_back(vec![attempt]).await;
                false
            }
            task = self.fetched_task(attempt) => match task {
                Some(task) => {
                    // Its owner gives such a task to one worker only, however often it comes.
                    if !task.work.repeatable {
                        self.held.once(attempt);
                    }
                    self.fetched.send(task).await.is_ok()
                }
                None => false,
            },
        }
    }

    async fn fetched_task(self: &Arc<Self>, attempt: Attempt) -> Option<Task> {
        let Attempt { run_id, token, attempt: number } = attempt;
        let call = serde_json::to_vec(&CommandCall::Task { run_id, token, attempt: number });
        let call = Bytes::from(call.ok()?);
        let until = Instant::now() + FETCH_PATIENCE;
        let mut pauses = pauses();
        loop {
            match ask(&self.nats, shard_of(run_id), call.clone(), FETCH).await {
                Ok(Some(task)) => return Some(task),
                Ok(None) => {
                    self.done(attempt).await;
                    return None;
                }
                Err(Unanswered::Away(_)) if Instant::now() < until => pauses.pause().await,
                Err(Unanswered::TooLarge(why)) => {
                    self.refuse(attempt, *permanent("task_too_large", why));
                    return None;
                }
                Err(error) => {
                    tracing::warn!(%run_id, token, %error, "a task can't be fetched for now");
                    // Not acknowledged, it comes again.
                    self.held.release(attempt);
                    return None;
                }
            }
        }
    }
}

fn lost(workers: u64) -> Fault {
    let message = format!(
        "{workers} workers vanished with this task, one after the other; it isn't tried again"
    );
    permanent("worker_lost", message)
}
