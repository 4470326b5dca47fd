//! The read side of a process: the projections, and the queries over them.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chassis::shutdown::Stage;
use domain::audit::AuditKey;
use futures::future::join_all;
use projections::{LogsConfig, Projections, Views};

use super::hints;
use super::store::{Data, Store};
use crate::config::Config;

/// Queries of other processes that are answered at the same time.
const QUERIES: usize = 1_024;

/// The least time between two transactions of a projection in a database that others write to: it
/// is theirs to a third where it is 4 ms.
const SHARED_PACE: Duration = Duration::from_millis(20);

/// The audit key of a data folder; made where there is none.
fn own_key(config: &Config) -> anyhow::Result<AuditKey> {
    if let Some(key) = config.audit_key()? {
        return Ok(key);
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the system gives no random bytes")?;
    let key = AuditKey::from_seed(&seed);
    let path = config.audit_key_path();
    keep_key(&path, &key).with_context(|| format!("can't write {}", path.display()))?;
    tracing::info!(key_id = key.public().id(), path = %path.display(), "made an audit key");
    Ok(key)
}

/// A file that is there is whole.
fn keep_key(path: &Path, key: &AuditKey) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = chassis::private::file(&new)?;
    file.set_len(0)?;
    file.write_all(key.to_pem().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, path)
}

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
            logs: LogsConfig {
                max_age: Duration::from_hours(24 * u64::from(config.logs_max_days)),
                max_records: config.logs_max_records,
                archive: config.logs_archive.clone(),
                ..LogsConfig::default()
            },
            ..projections::Config::default()
        };
        settings.audit_key = match &store.data {
            Data::Database(_) => {
                settings.pace = SHARED_PACE;
                // Not one from the folder: the processes of a database share their key.
                config.audit_key.as_ref().and(config.audit_key()?)
            }
            Data::Folder(_) | Data::Elsewhere => Some(own_key(config)?),
        };
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
