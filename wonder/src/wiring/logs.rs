//! From what this process tells to the log store: directly where the store is in this process, else
//! over the bus. What can't be kept is dropped and counted; nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use chassis::bus::{
    ConsumerOptions, Message, Nats, PublishError, Receiver, WorkQueue, WorkQueueOptions,
};
use chassis::shutdown::Stage;
use chassis::telemetry::{self, Record, Telemetry};
use projections::{LOG_BATCH, LogStoreError, Projections};
use protocol::remote::{LOGS, LOGS_AGE, LOGS_BYTES, logs_queue};
use protocol::{LogLevel, LogRecord};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{ReadSide, Store, store};
use crate::config::{Config, Role};

/// Records of a message: as a rule below 200 KiB.
const MESSAGE_RECORDS: usize = 16;
/// Messages that are taken at a time, and delivered ahead.
const MESSAGES: usize = 16;
/// How long the records of a message may take to be kept.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Between two attempts to keep or to send what could not be.
const RETRY: Duration = Duration::from_secs(1);
/// How long what was told before the end may take.
const AT_THE_END: Duration = Duration::from_secs(2);

/// Takes records to the store until the stage ends. It begins at once, whatever is away.
pub(super) fn start(
    config: &Config,
    telemetry: &Telemetry,
    store: &Store,
    read_side: Option<&ReadSide>,
) -> Stage {
    let stage = Stage::new("logs");
    let (records, teller, stop) = (telemetry.records(), Teller::of(config), stage.token());
    let views = read_side.map(|side| Arc::clone(&side.projections));
    match (store.nats().cloned(), views) {
        (None, None) => {}
        (None, Some(views)) => {
            let keep = move |batch: Vec<LogRecord>| {
                let views = Arc::clone(&views);
                async move { Ok(keep(&views, &batch).await?) }
            };
            spawn(&stage, hand_on(records, teller, LOG_BATCH, stop, keep));
        }
        (Some(nats), views) => {
            if let Some(views) = views {
                spawn(&stage, take_in(nats.clone(), views, stop.clone()));
            }
            spawn(&stage, send(nats, records, teller, stop));
        }
    }
    stage
}

fn spawn(stage: &Stage, work: impl Future<Output = ()> + Send + 'static) {
    stage.spawn(work.instrument(telemetry::unrecorded()));
}

/// The queue between processes, once it can be opened.
async fn queue(nats: &Nats, stop: &CancellationToken) -> Option<WorkQueue> {
    let mut options = WorkQueueOptions::of(logs_queue(), LOGS_BYTES);
    options.max_age = LOGS_AGE;
    let mut is_troubled = false;
    loop {
        match WorkQueue::open(nats, options.clone()).await {
            Ok(queue) => return Some(queue),
            Err(error) if !std::mem::replace(&mut is_troubled, true) => {
                tracing::warn!(%error, "the queue of log records can't be opened yet");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Sends what this process tells to those who keep it.
async fn send(nats: Nats, records: Receiver<Record>, teller: Teller, stop: CancellationToken) {
    let Some(queue) = queue(&nats, &stop).await else { return };
    let publish = move |batch: Vec<LogRecord>| {
        let queue = queue.clone();
        async move {
            // The same id at each attempt, so that a message is in the queue once.
            let id = batch.first().map(|record| record.id.clone()).unwrap_or_default();
            let body = serde_json::to_vec(&batch)?.into();
            let message = Message { subject: LOGS.to_owned(), id, body };
            match queue.publish(vec![message]).await.pop() {
                Some(Err(PublishError::TooLarge { .. })) => {
                    telemetry::dropped("too_large", batch.len());
                    Ok(())
                }
                published => Ok(published.transpose().map(drop)?),
            }
        }
    };
    hand_on(records, teller, MESSAGE_RECORDS, stop, publish).await;
}

/// Hands records on in batches, each until it has been taken. Those that come meanwhile wait, as
/// many as there is room for.
async fn hand_on<F>(
    records: Receiver<Record>,
    teller: Teller,
    limit: usize,
    stop: CancellationToken,
    take: impl Fn(Vec<LogRecord>) -> F,
) where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut is_troubled = false;
    loop {
        let mut told = Vec::new();
        tokio::select! {
            biased;
            count = records.recv_many(&mut told, limit) => {
                if count == 0 {
                    return;
                }
            }
            () = stop.cancelled() => return,
        }
        let batch: Vec<LogRecord> = told.into_iter().map(|record| teller.record(record)).collect();
        let count = batch.len();
        let handed = async {
            while let Err(error) = take(batch.clone()).await {
                if !std::mem::replace(&mut is_troubled, true) {
                    tracing::warn!(%error, "log records can't be handed on, trying again");
                }
                tokio::time::sleep(RETRY).await;
            }
            is_troubled = false;
        };
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(AT_THE_END).await;
        };
        tokio::select! {
            biased;
            () = handed => {}
            () = overdue => {
                telemetry::dropped("end", count);
                return;
            }
        }
    }
}

/// Keeps what all processes hand on.
async fn take_in(nats: Nats, views: Arc<Projections>, stop: CancellationToken) {
    let Some(queue) = queue(&nats, &stop).await else { return };
    let options = ConsumerOptions {
        durable: LOGS.to_owned(),
        filter: LOGS.to_owned(),
        ack_wait: ACK_WAIT,
        max_ack_pending: 64,
    };
    let mut consumer = loop {
        match queue.consumer(options.clone()).await {
            Ok(consumer) => break consumer,
            Err(error) => tracing::warn!(%error, "log records can't be taken in yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    loop {
        let messages = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            messages = consumer.pull(MESSAGES) => messages,
        };
        for message in messages {
            let records = serde_json::from_slice::<Vec<LogRecord>>(&message.body);
            let records = records.unwrap_or_else(|error| {
                tracing::error!(%error, "log records can't be read, and are dropped");
                telemetry::dropped("unreadable", 1);
                Vec::new()
            });
            match keep(&views, &records).await {
                Ok(()) => message.ack().await,
                Err(error) => {
                    tracing::warn!(%error, "log records can't be kept, trying again");
                    message.nak_after(RETRY).await;
                }
            }
        }
    }
    consumer.close().await;
}

/// Keeps records, but for those that the store never takes.
async fn keep(views: &Projections, records: &[LogRecord]) -> Result<(), LogStoreError> {
    for batch in records.chunks(LOG_BATCH) {
        match views.keep_logs(batch).await {
            Err(error @ LogStoreError::Refused(_)) => {
                tracing::error!(%error, "log records are dropped");
                telemetry::dropped("refused", batch.len());
            }
            kept => kept?,
        }
    }
    Ok(())
}

/// This process, as its records name it.
struct Teller {
    instance: String,
    roles: String,
}

impl Teller {
    fn of(config: &Config) -> Self {
        let roles: Vec<_> = config.roles.iter().map(|role| role.as_str()).collect();
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        let instance = format!("{} on {host}", store::name(config));
        Self { instance, roles: roles.join("+") }
    }

    fn record(&self, told: Record) -> LogRecord {
        let Record { id, at, level, target, message, mut fields } = told;
        let crate_name = target.split("::").next().unwrap_or_default();
        let role = Role::ALL.into_iter().map(Role::as_str).find(|role| *role == crate_name);
        LogRecord {
            id: id.simple().to_string(),
            at,
            level: match level {
                tracing::Level::ERROR => LogLevel::Error,
                tracing::Level::WARN => LogLevel::Warn,
                tracing::Level::INFO => LogLevel::Info,
                tracing::Level::DEBUG => LogLevel::Debug,
                tracing::Level::TRACE => LogLevel::Trace,
            },
            role: role.unwrap_or(&self.roles).to_owned(),
            instance: self.instance.clone(),
            target,
            message,
            workspace_id: text(&mut fields, "workspace_id"),
            run_id: text(&mut fields, "run_id"),
            trace_id: text(&mut fields, "trace_id"),
            fields,
        }
    }
}

/// Takes a field out that is a text.
fn text(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    match fields.shift_remove(name)? {
        Value::String(text) => Some(text),
        other => {
            fields.insert(name.to_owned(), other);
            None
        }
    }
}
