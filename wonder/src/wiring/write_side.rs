//! The write side of a process: the coordinator and what carries its work.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chassis::shards::{Ownership, Shards, ShardsOptions, sole_owner};
use chassis::shutdown::Stage;
use commands::{CommandService, CoordinatorConfig, Foundation, Queues, Writes};
use gateway::Remote;
use protocol::SHARDS;
use tokio_util::sync::CancellationToken;

use super::archives::Folder;
use super::hints;
use super::store::{Data, Store};
use crate::config::Config;

/// How long a lease lasts without being renewed: a coordinator that died is made up for after it.
const LEASE: Duration = Duration::from_secs(6);
const RENEW: Duration = Duration::from_secs(2);
/// How long tasks that were handed out may take to reach the queue at the end.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// A running write side.
pub(super) struct WriteSide {
    pub(super) service: Arc<CommandService>,
    pub(super) ownership: Ownership,
    /// In the order in which they stop.
    pub(super) stages: Vec<Stage>,
}

impl WriteSide {
    pub(super) async fn start(config: &Config, store: &Store) -> anyhow::Result<Self> {
        let journal = store.journal().context("the write side needs a journal")?;
        let archives = match &config.archive_dir {
            Some(folder) => Some(Folder::open(Arc::clone(&journal), folder)? as _),
            None => None,
        };
        let queues = match store.nats() {
            Some(nats) => Some(Arc::new(Queues::open(nats).await?)),
            None => None,
        };
        let (writes, shards) = match &store.data {
            Data::Database(shared) => {
                let options = ShardsOptions {
                    count: SHARDS,
                    ttl: LEASE,
                    renew: RENEW,
                    name: format!("wonder {}", std::process::id()),
                };
                let shards = Shards::join(&shared.database, options).await?;
                (Writes::Postgres(Arc::clone(&shared.journal)), Some(Arc::new(shards)))
            }
            Data::Folder(_) | Data::Elsewhere => (Writes::Journal, None),
        };
        let ownership = shards.as_ref().map_or_else(|| sole_owner(SHARDS), |shards| shards.owned());
        let coordinator = Stage::new("coordinator");
        let foundation = Foundation {
            journal,
            clock: store.clock(),
            writes,
            ownership: ownership.clone(),
            shards: shards.clone(),
            queues: queues.clone(),
            everywhere: store.nats().map(|nats| Arc::new(Remote::new(nats.clone())) as _),
            archives,
        };
        let config = CoordinatorConfig::default();
        let service = CommandService::start_over(
            foundation,
            &config,
            coordinator.token(),
            coordinator.tasks(),
        )
        .await?;
        let mut stages = Vec::new();
        let calls = Stage::new("calls");
        let carriers = Stage::new("carriers");
        if let (Some(nats), Some(queues)) = (store.nats(), queues) {
            let serving = commands::remote::serve(
                nats.clone(),
                Arc::clone(&service),
                Arc::clone(&queues),
                ownership.clone(),
                calls.token(),
            )
            .await?;
            calls.spawn(serving);
            let (relaying, stop) = (Arc::clone(&service), CancellationToken::new());
            let last = stop.clone();
            let at_end = carriers.token();
            carriers.spawn(async move {
                // The queue is closed by then: what is in it still goes out.
                at_end.cancelled().await;
                tokio::time::sleep(LAST_TASKS).await;
                last.cancel();
            });
            carriers.spawn(commands::remote::relay(relaying, queues, stop));
        }
        if let Some(shards) = shards {
            let leave = Stage::new("shards");
            let (at_end, nats) = (leave.token(), store.nats().cloned());
            if let Some(nats) = &nats {
                leave.spawn(hints::of_shards(nats.clone(), Arc::clone(&shards), leave.token()));
                leave.spawn(hints::tell_of_shards(
                    nats.clone(),
                    Arc::clone(&shards),
                    leave.token(),
                ));
            }
            leave.spawn(async move {
                at_end.cancelled().await;
                shards.leave().await;
                if let Some(nats) = nats {
                    hints::tell_released(&nats).await;
                }
            });
            stages.extend([calls, coordinator, leave, carriers]);
        } else {
            stages.extend([calls, coordinator, carriers]);
        }
        if let (Data::Database(shared), Some(nats), Some(last)) =
            (&store.data, store.nats(), stages.last())
        {
            let committed = shared.journal.committed();
            last.spawn(hints::tell_head(nats.clone(), committed, last.token()));
        }
        Ok(Self { service, ownership, stages })
    }
}
