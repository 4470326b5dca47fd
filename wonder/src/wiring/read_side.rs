//! The read side of a process: the projections, and the queries over them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chassis::shutdown::Stage;
use futures::future::join_all;
use projections::{Projections, Views};

use super::hints;
use super::store::{Data, Store};
use crate::config::Config;

/// Queries of other processes that are answered at the same time.
const QUERIES: usize = 1_024;

/// The least time between two transactions of a projection in a database that others write to: it
/// is theirs to a third where it is 4 ms.
const SHARED_PACE: Duration = Duration::from_millis(20);

/// A running read side.
pub(super) struct ReadSide {
    pub(super) projections: Arc<Projections>,
    pub(super) stage: Stage,
}

impl ReadSide {
    pub(super) async fn start(config: &Config, store: &Store) -> anyhow::Result<Self> {
        let journal = store.journal().context("the read side needs a journal")?;
        let stage = Stage::new("projections");
        let views = match &store.data {
            Data::Database(shared) => {
                if let Some(nats) = store.nats() {
                    let journal = Arc::clone(&shared.journal);
                    stage.spawn(hints::hear_head(nats.clone(), journal, stage.token()));
                }
                Views::Database(shared.database.clone())
            }
            Data::Folder(_) | Data::Elsewhere => Views::File(config.views_path()),
        };
        let mut settings = projections::Config {
            outside_max_bytes: config.nats_events_bytes.cast_signed(),
            ..projections::Config::default()
        };
        if let Data::Database(_) = &store.data {
            settings.pace = SHARED_PACE;
        }
        let projections = Projections::open(Arc::clone(&journal), views, settings).await?;
        stage.spawn(join_all(projections.start(store.nats(), &stage.token())));
        if let Some(nats) = store.nats() {
            let served =
                projections::remote::serve(nats, Arc::clone(&projections), QUERIES).await?;
            let stop = stage.token();
            stage.spawn(async move {
                stop.cancelled().await;
                join_all(served.into_iter().map(chassis::bus::Served::stop)).await;
            });
        } else {
            projections.caught_up(journal.head().await?).await;
        }
        Ok(Self { projections, stage })
    }
}
