//! Whether this process can do its part: one dependency after the other.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::Nats;
use chassis::journal::Journal;
use chassis::shards::Ownership;
use gateway::{Dependency, Health, Readiness};
use projections::Projections;
use protocol::remote::{COMMANDS, CommandCall, QUERIES, QueryCall};
use serde::Serialize;

use super::{ReadSide, Store, WriteSide};
use crate::config::{Config, Role};

/// How long another service may take to answer that it is there.
const WITHIN: Duration = Duration::from_millis(800);

/// How long the storage may take: who asks won't wait longer than a few seconds.
const STORAGE_WITHIN: Duration = Duration::from_millis(1_500);

/// What this process depends on, by its roles.
pub(super) struct Readinesses {
    journal: Option<Arc<dyn Journal>>,
    views: Option<Arc<Projections>>,
    ownership: Option<Ownership>,
    nats: Option<Nats>,
    /// The edge asks the services over NATS.
    asks: bool,
}

impl Readinesses {
    pub(super) fn of(
        config: &Config,
        store: &Store,
        write_side: Option<&WriteSide>,
        read_side: Option<&ReadSide>,
    ) -> Self {
        Self {
            journal: store.journal(),
            views: read_side.map(|side| Arc::clone(&side.projections)),
            ownership: write_side.map(|side| side.ownership.clone()),
            nats: store.nats().cloned(),
            asks: config.has(Role::Gateway) && store.nats().is_some(),
        }
    }

    async fn journal(&self) -> Option<Dependency> {
        let journal = self.journal.as_ref()?;
        let unread = match tokio::time::timeout(STORAGE_WITHIN, journal.head()).await {
            Ok(head) => head.err().map(|error| error.to_string()),
            Err(_) => Some("its storage doesn't answer".to_owned()),
        };
        let wrong = unread.or_else(|| journal.fault().map(|fault| fault.to_string()));
        Some(dependency("journal", wrong))
    }

    async fn views(&self) -> Vec<Dependency> {
        let Some(views) = &self.views else { return Vec::new() };
        // What they can't say in time, the journal's own line says.
        let standings = tokio::time::timeout(STORAGE_WITHIN, views.standings()).await;
        let standings = standings.ok().and_then(Result::ok).into_iter().flatten();
        let each = standings.map(|standing| Dependency {
            name: format!("projection {}", standing.projection),
            ready: standing.stopped.is_none(),
            detail: standing.stopped.map(|reason| reason.to_string()),
            lag: Some(standing.lag_events),
        });
        each.collect()
    }

    async fn nats(&self) -> Option<Dependency> {
        let nats = self.nats.as_ref()?;
        let wrong = nats.ping(WITHIN).await.err().map(|error| error.to_string());
        Some(dependency("nats", wrong))
    }

    async fn asked(&self) -> Vec<Dependency> {
        let Some(nats) = self.nats.as_ref().filter(|_| self.asks) else { return Vec::new() };
        let (commands, queries) = tokio::join!(
            answers(nats, COMMANDS, &CommandCall::Ping),
            answers(nats, QUERIES, &QueryCall::EventHead),
        );
        vec![dependency("commands", commands), dependency("queries", queries)]
    }

    /// Not a reason to be unready: a coordinator among many may have to wait for its share.
    fn shards(&self) -> Option<Dependency> {
        let owned = self.ownership.as_ref()?.borrow().epochs.len();
        let detail = Some(format!("{owned} owned"));
        Some(Dependency { name: "shards".to_owned(), ready: true, detail, lag: None })
    }
}

#[async_trait]
impl Health for Readinesses {
    async fn readiness(&self) -> Readiness {
        let (journal, views, nats, asked) =
            tokio::join!(self.journal(), self.views(), self.nats(), self.asked());
        let all = journal.into_iter().chain(views).chain(nats).chain(asked).chain(self.shards());
        Readiness::of(all.collect())
    }
}

/// Why a service doesn't answer, if it doesn't.
async fn answers(nats: &Nats, subject: &str, call: &impl Serialize) -> Option<String> {
    let body = serde_json::to_vec(call).map(Bytes::from).unwrap_or_default();
    nats.request(subject, body, WITHIN).await.err().map(|error| error.to_string())
}

fn dependency(name: &str, wrong: Option<String>) -> Dependency {
    Dependency { name: name.to_owned(), ready: wrong.is_none(), detail: wrong, lag: None }
}
