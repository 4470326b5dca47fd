//! What the write side knows of resources without asking the journal each time.
//!
//! Heads (the newest state of a resource) are kept coherent by two rules: every write of this
//! process goes through [`Heads::writing`], and what other processes have written is forgotten by
//! [`Heads::catch_up`] before a command is looked at. A reader keeps what it loaded only if nothing
//! was written meanwhile. Versions never change and are kept as they are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chassis::journal::Journal;
use domain::resource::{DefinitionSpec, Event, Kind, Resource, Spec};
use domain::trigger;
use domain::{access, experiment, hold, retention};
use protocol::Rejection;

use crate::resources::refusal;
use crate::store::{Fault, payload};

/// Heads that are kept; beyond, all are forgotten and loaded again when they are needed.
const HEADS: usize = 20_000;
/// Versions that are kept, likewise.
const VERSIONS: usize = 2_000;

/// The newest state of a resource.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    pub(crate) workspace_id: Arc<str>,
    pub(crate) resource: Resource,
}

/// One version's content.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Definition(Arc<DefinitionSpec>),
    Other(Arc<Spec>),
}

/// See the module.
pub(crate) struct Heads {
    journal: Arc<dyn Journal>,
    known: Mutex<Known>,
    /// Calls of [`Heads::catch_up`] so far.
    asked: AtomicU64,
    caught_up: tokio::sync::Mutex<CaughtUp>,
    versions: Mutex<HashMap<(String, u64), Body>>,
}

#[derive(Default)]
struct Known {
    heads: HashMap<String, Arc<Head>>,
    /// Writes that have begun or ended so far.
    writes: u64,
    /// Writes under way, by resource.
    under_way: HashMap<String, usize>,
}

/// How far the writes of others are known.
#[derive(Default)]
struct CaughtUp {
    /// The position of the last one that was seen; `None` before the first look.
    position: Option<u64>,
    /// The last look began after this many calls.
    asked: u64,
}

impl Heads {
    pub(crate) fn new(journal: Arc<dyn Journal>) -> Self {
        let (known, versions) = (Mutex::default(), Mutex::default());
        let (asked, caught_up) = (AtomicU64::new(0), tokio::sync::Mutex::default());
        Self { journal, known, asked, caught_up, versions }
    }

    /// Forgets the heads of what others have written up to now. Calls at the same time share one
    /// look at the journal.
    pub(crate) async fn catch_up(&self) -> Result<(), Rejection> {
        let call = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut caught_up = self.caught_up.lock().await;
        if caught_up.asked >= call {
            return Ok(());
        }
        // Everybody who has called by now waits for the lock, or for this look.
        let asked = self.asked.load(Ordering::Acquire);
        let failed = |error| refusal::of(Fault::Read(error), Kind::Workspace, "the journal");
        let Some(mut position) = caught_up.position else {
            let head = self.journal.head().await.map_err(failed)?;
            self.forget_all();
            *caught_up = CaughtUp { position: Some(head), asked };
            return Ok(());
        };
        loop {
            let written = self.journal.written_elsewhere(position, "run").await.map_err(failed)?;
            let Some(last) = written.last() else { break };
            position = last.position;
            let mut known = self.known();
            // What happens to triggers and experiments changes no resource, and neither do reads and
            // archiving.
            let others = [
                trigger::AGGREGATE,
                access::AGGREGATE,
                retention::AGGREGATE,
                hold::AGGREGATE,
                experiment::AGGREGATE,
            ];
            let changes = written.iter().any(|one| !others.contains(&&*one.aggregate_type));
            known.writes += u64::from(changes);
            for one in &written {
                known.heads.remove(&*one.aggregate_id);
            }
            drop(known);
            caught_up.position = Some(position);
        }
        caught_up.asked = asked;
        Ok(())
    }

    fn forget_all(&self) {
        let mut known = self.known();
        known.writes += 1;
        known.heads.clear();
    }

    /// The newest state of a resource; `None` where nothing was ever created under the id.
    pub(crate) async fn head(&self, kind: Kind, id: &str) -> Result<Option<Arc<Head>>, Rejection> {
        let writes = {
            let known = self.known();
            if let Some(head) = known.heads.get(id) {
                return Ok(Some(Arc::clone(head)));
            }
            known.writes
        };
        let history = payload::history(&*self.journal, kind.as_str(), id, 0)
            .await
            .map_err(|fault| refusal::of(fault, kind, id))?;
        let Some((first, _)) = history.first() else {
            return Ok(None);
        };
        let workspace_id = Arc::clone(&first.workspace_id);
        let mut resource = Resource::default();
        for (_, event) in &history {
            resource.evolve(event);
        }
        let head = Arc::new(Head { workspace_id, resource });
        let mut known = self.known();
        if known.writes == writes && !known.under_way.contains_key(id) {
            known.keep(id, Arc::clone(&head));
        }
        Ok(Some(head))
    }

    /// A number that grows with every write of any resource: what was found between two equal
    /// numbers is as it was found.
    pub(crate) fn writes(&self) -> u64 {
        self.known().writes
    }

    /// Announces a write of a resource: until the guard is gone its head isn't kept.
    pub(crate) fn writing<'a>(&'a self, id: &'a str) -> Writing<'a> {
        let mut known = self.known();
        known.writes += 1;
        known.heads.remove(id);
        *known.under_way.entry(id.to_owned()).or_default() += 1;
        Writing { heads: self, id, after: None }
    }

    /// One version of a resource.
    pub(crate) async fn version(
        &self,
        kind: Kind,
        id: &str,
        version: u64,
    ) -> Result<Option<Body>, Rejection> {
        let key = (id.to_owned(), version);
        if let Some(body) = self.versions().get(&key) {
            return Ok(Some(body.clone()));
        }
        // Revisions are numbered as the events that bring them; only archiving brings none.
        let event = payload::event(&*self.journal, kind.as_str(), id, version)
            .await
            .map_err(|fault| refusal::of(fault, kind, id))?;
        let spec = match event {
            Some(Event::Created { spec, .. } | Event::Revised { spec, .. }) => *spec,
            Some(Event::Archived) | None => return Ok(None),
        };
        let body = match spec {
            Spec::WorkflowDefinition(spec) => Body::Definition(Arc::new(spec)),
            spec => Body::Other(Arc::new(spec)),
        };
        let mut versions = self.versions();
        if versions.len() >= VERSIONS {
            versions.clear();
        }
        versions.insert(key, body.clone());
        Ok(Some(body))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn versions(&self) -> MutexGuard<'_, HashMap<(String, u64), Body>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn keep(&mut self, id: &str, head: Arc<Head>) {
        if self.heads.len() >= HEADS {
            self.heads.clear();
        }
        self.heads.insert(id.to_owned(), head);
    }
}

/// A write under way. Dropped without [`Writing::wrote`], the head is loaded again when needed.
pub(crate) struct Writing<'a> {
    heads: &'a Heads,
    id: &'a str,
    after: Option<Head>,
}

impl Writing<'_> {
    /// The write came to this state.
    pub(crate) fn wrote(mut self, head: Head) {
        self.after = Some(head);
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut known = self.heads.known();
        known.writes += 1;
        let others = known.under_way.get(self.id).map_or(0, |count| count - 1);
        if others > 0 {
            known.under_way.insert(self.id.to_owned(), others);
            return;
        }
        known.under_way.remove(self.id);
        if let Some(head) = self.after.take() {
            known.keep(self.id, Arc::new(head));
        }
    }
}
