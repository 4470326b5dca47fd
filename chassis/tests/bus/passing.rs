//! Queues that pass from one owner to the next, who both pull for a while, with deliveries that
//! the former one has taken and never acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chassis::bus::{Consumer, ConsumerOptions, Message, Nats, WorkQueue};
use chassis::scratch::nats::nats_options;
use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::queue::{OPTIONS, Setting};
use crate::wait::until;

const PARTS: usize = 16;
const PASSES: usize = 8;
/// Deliveries that an owner acknowledges before it leaves, and forgets while it does.
const TAKEN: usize = 100;
const FORGOTTEN: usize = 10;

/// What became of deliveries.
#[derive(Default)]
struct Counts {
    acknowledged: AtomicUsize,
    forgotten: AtomicUsize,
}

async fn more(counter: &AtomicUsize, count: usize) {
    let wanted = counter.load(Ordering::Acquire) + count;
    until("more deliveries", async || counter.load(Ordering::Acquire) >= wanted).await;
}

/// Who pulls from all parts.
struct Owner {
    leaving: CancellationToken,
    gone: CancellationToken,
    parts: Vec<JoinHandle<()>>,
}

impl Owner {
    async fn start(nats: &Nats, counts: &Arc<Counts>) -> Self {
        let queue = WorkQueue::open(nats, OPTIONS).await.expect("it opens");
        let (leaving, gone) = (CancellationToken::new(), CancellationToken::new());
        let mut parts = Vec::new();
        for part in 0..PARTS {
            let options = ConsumerOptions {
                durable: format!("part-{part}"),
                filter: format!("tasks.{part}"),
                ack_wait: Duration::from_secs(1),
                max_ack_pending: 4_096,
            };
            let consumer = queue.consumer(options).await.expect("it opens");
            parts.push(tokio::spawn(take(
                consumer,
                Arc::clone(counts),
                leaving.clone(),
                gone.clone(),
            )));
        }
        Self { leaving, gone, parts }
    }

    async fn leave(self, counts: &Counts) {
        self.leaving.cancel();
        more(&counts.forgotten, FORGOTTEN).await;
        self.end().await;
    }

    async fn end(self) {
        self.gone.cancel();
        for ended in join_all(self.parts).await {
            ended.expect("it ends in peace");
        }
    }
}

/// Acknowledges what comes; what comes while it is leaving is forgotten.
async fn take(
    mut consumer: Consumer,
    counts: Arc<Counts>,
    leaving: CancellationToken,
    gone: CancellationToken,
) {
    loop {
        tokio::select! {
            () = gone.cancelled() => break,
            deliveries = consumer.pull(512) => {
                for delivery in deliveries {
                    if leaving.is_cancelled() {
                        counts.forgotten.fetch_add(1, Ordering::AcqRel);
                    } else {
                        delivery.ack().await;
                        counts.acknowledged.fetch_add(1, Ordering::AcqRel);
                    }
                }
            }
        }
    }
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_behind_where_owners_come_and_go() {
    let options = nats_options();
    let setting = Setting::with(&options).await;
    let clients = [
        Nats::connect(&options).await.expect("it is there"),
        Nats::connect(&options).await.expect("it is there"),
    ];
    let publish = async {
        for n in 0_usize.. {
            let messages = (0..4).map(|k| Message {
                subject: format!("tasks.{}", (n * 7 + k) % PARTS),
                id: format!("{n}-{k}"),
                body: Bytes::from_static(b"x"),
            });
            for result in setting.queue.publish(messages.collect()).await {
                assert_eq!(result, Ok(()));
            }
        }
    };
    let counts = Arc::new(Counts::default());
    let pass_on = async {
        let mut owner = Owner::start(&clients[0], &counts).await;
        for pass in 1..=PASSES {
            more(&counts.acknowledged, TAKEN).await;
            let next = Owner::start(&clients[pass % 2], &counts);
            let (next, ()) = tokio::join!(next, owner.leave(&counts));
            owner = next;
        }
        owner
    };
    let last = tokio::select! {
        last = pass_on => last,
        () = publish => unreachable!("it publishes for ever"),
    };
    until("it is empty", async || setting.depth().await == 0).await;
    last.end().await;
}
