//! The work queues between coordinators and workers in other processes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::{Message, Nats, NatsError, PublishError, WorkQueue, WorkQueueOptions};
use futures::StreamExt;
use futures::stream::{self, FuturesUnordered};
use protocol::remote::{
    DEFAULT_POOL, QUEUE_BYTES, outcomes_queue, shard_outcomes, task_subject, tasks_abandoned,
    tasks_held, tasks_queue,
};
use protocol::{Abandoned, Task, Tasks, shard_of};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::coordinator::{Attempt, Look, TaskQueue};

/// Bytes of a task's message; a larger task is fetched by its worker.
const TASK_BYTES: usize = 64 * 1024;
/// Tasks that are published together.
const BATCH: usize = 256;
/// Batches whose publication may be under way at the same time.
const BATCHES: usize = 8;
/// Words of abandoned work in a message: a run's may name as many tokens as it may have on workers.
const ABANDONED: usize = 16;
/// Questions to the queue that may be under way at the same time.
const QUESTIONS: usize = 64;
/// Attempts that workers are asked about in one question: some 60 KiB.
const ASKED: usize = 1_024;
/// How long workers may take to say what they hold.
const SAY_WITHIN: Duration = Duration::from_millis(500);
/// Pauses between attempts to publish.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Tasks on their way out, outcomes on their way in.
pub struct Queues {
    nats: Nats,
    tasks: WorkQueue,
    pub(crate) outcomes: WorkQueue,
    /// Makes the ids of this process's messages its own.
    source: Uuid,
    published: AtomicU64,
}

impl Queues {
    /// Opens both, and makes them where they are missing.
    ///
    /// # Errors
    /// Where NATS is away, or has them otherwise than asked for.
    pub async fn open(nats: &Nats) -> Result<Self, NatsError> {
        let tasks = WorkQueueOptions::of_tasks(nats, tasks_queue(DEFAULT_POOL), QUEUE_BYTES);
        let outcomes = WorkQueueOptions::of(outcomes_queue(), QUEUE_BYTES);
        Ok(Self {
            nats: nats.clone(),
            tasks: WorkQueue::open(nats, tasks).await?,
            outcomes: WorkQueue::open(nats, outcomes).await?,
            source: Uuid::new_v4(),
            published: AtomicU64::new(0),
        })
    }

    /// What they are on.
    pub(crate) const fn nats(&self) -> &Nats {
        &self.nats
    }

    /// Publishes what the coordinator hands out, until its queue is closed and empty, or nobody
    /// waits any longer (`stop`). What isn't published is owed, and handed out again later.
    pub(crate) async fn relay(self: Arc<Self>, tasks: Arc<dyn Tasks>, stop: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !under_way.is_empty() {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = under_way.next() => {}
                words = tasks.abandoned() => self.tell_abandoned(&words).await,
                batch = tasks.pull(BATCH), if is_open && under_way.len() < BATCHES => {
                    is_open = !batch.is_empty();
                    let messages: Vec<Message> =
                        batch.iter().filter_map(|task| self.message(task)).collect();
                    under_way.push(self.publish(messages));
                }
            }
        }
    }

    /// Tells whoever listens now.
    async fn tell_abandoned(&self, words: &[Abandoned]) {
        for words in words.chunks(ABANDONED) {
            let body = serde_json::to_vec(words).map(Bytes::from).unwrap_or_default();
            if let Err(error) = self.nats.tell(&tasks_abandoned(DEFAULT_POOL), body).await {
                tracing::debug!(%error, "workers aren't told of abandoned work");
            }
        }
    }

    /// Which of some attempts workers say that they hold: where a server has lost its tasks, the work
    /// on them goes on.
    async fn held(&self, attempts: &[Attempt]) -> HashSet<Attempt> {
        let asked: FuturesUnordered<_> =
            attempts.chunks(ASKED).map(|asked| self.held_among(asked)).collect();
        asked.collect::<Vec<_>>().await.into_iter().flatten().collect()
    }

    async fn held_among(&self, asked: &[Attempt]) -> Vec<Attempt> {
        let (mut held, subject) = (Vec::new(), tasks_held(DEFAULT_POOL));
        let question = serde_json::to_vec(asked).map(Bytes::from).unwrap_or_default();
        let take = |answer: Bytes| {
            held.extend(serde_json::from_slice::<Vec<Attempt>>(&answer).unwrap_or_default());
            held.len() >= asked.len()
        };
        if let Err(error) = self.nats.survey(&subject, question, SAY_WITHIN, take).await {
            tracing::debug!(%error, "workers aren't asked what they hold");
        }
        held
    }

    /// Publishes until the server has all of them.
    async fn publish(&self, mut messages: Vec<Message>) {
        let mut pause = FIRST_PAUSE;
        while !messages.is_empty() {
            let results = self.tasks.publish(messages.clone()).await;
            let mut kept = Vec::new();
            let mut reason = None;
            for (message, result) in messages.into_iter().zip(results) {
                match result {
                    Ok(()) => {}
                    Err(PublishError::TooLarge { bytes }) => {
                        tracing::error!(subject = message.subject, bytes, "a task is too large");
                    }
                    Err(error) => {
                        reason = Some(error);
                        kept.push(message);
                    }
                }
            }
            messages = kept;
            if let Some(error) = reason {
                let tasks = messages.len();
                tracing::warn!(%error, tasks, "tasks could not be published, trying again");
                metrics::counter!("wonder_task_publish_failures_total").increment(tasks as u64);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// A message of its own for each time that an attempt is handed out: JetStream drops a
    /// repeated id.
    fn message(&self, task: &Task) -> Option<Message> {
        let subject = task_subject(DEFAULT_POOL, task.run_id, task.token, task.attempt);
        let number = self.published.fetch_add(1, Ordering::Relaxed);
        let encoded = serde_json::to_vec(&Outgoing::Task(task));
        let body = match encoded {
            // A queue may deliver twice: what must not be made twice is given to one worker, by us.
            Ok(body) if body.len() <= TASK_BYTES && task.work.repeatable => body,
            Ok(_) => {
                let Task { run_id, token, attempt, .. } = task;
                serde_json::to_vec(&Outgoing::Fetch {
                    run_id: run_id.to_string(),
                    token: *token,
                    attempt: *attempt,
                })
                .ok()?
            }
            Err(error) => {
                tracing::error!(run_id = %task.run_id, %error, "a task has no json form");
                return None;
            }
        };
        Some(Message { subject, id: format!("{}-{number}", self.source), body: Bytes::from(body) })
    }
}

/// [`protocol::remote::TaskMessage`], borrowed.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Outgoing<'a> {
    Task(&'a Task),
    Fetch { run_id: String, token: u64, attempt: u32 },
}

#[async_trait]
impl TaskQueue for Queues {
    async fn look(&self, attempts: &[Attempt]) -> Vec<(Attempt, Look)> {
        let answers = stream::iter(attempts.iter().copied()).map(|attempt| async move {
            let (run_id, token, number) = attempt;
            let subject = task_subject(DEFAULT_POOL, run_id, token, number);
            Some((attempt, self.tasks.holds(&subject).await.ok()?))
        });
        let answers: Vec<_> = answers.buffer_unordered(QUESTIONS).collect().await;
        let (mut looked, mut gone) = (Vec::with_capacity(attempts.len()), Vec::new());
        for (attempt, is_queued) in answers.into_iter().flatten() {
            match is_queued {
                true => looked.push((attempt, Look::Found)),
                false => gone.push(attempt),
            }
        }
        let held = self.held(&gone).await;
        // An outcome that waits may be the one: it is taken in a moment, and then it is known.
        let mut waiting: HashMap<u16, Option<bool>> = HashMap::new();
        for attempt in gone {
            if held.contains(&attempt) {
                looked.push((attempt, Look::Found));
                continue;
            }
            let shard = shard_of(attempt.0);
            let waits = match waiting.get(&shard) {
                Some(known) => *known,
                None => {
                    let waits = self.outcomes.holds(&shard_outcomes(shard)).await.ok();
                    *waiting.entry(shard).or_insert(waits)
                }
            };
            match waits {
                Some(true) => looked.push((attempt, Look::Doubtful)),
                Some(false) => looked.push((attempt, Look::Missing)),
                None => {}
            }
        }
        looked
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::RunId;
    use protocol::remote::TaskMessage;

    use super::*;

    #[test]
    fn a_message_that_tells_to_fetch_is_read_as_one() {
        let run_id = RunId::new(Uuid::from_u128(7));
        let written = Outgoing::Fetch { run_id: run_id.to_string(), token: 3, attempt: 2 };
        let bytes = serde_json::to_vec(&written).expect("it has a json form");
        let read: TaskMessage = serde_json::from_slice(&bytes).expect("it can be read");
        assert_eq!(read, TaskMessage::Fetch { run_id, token: 3, attempt: 2 });
    }
}
