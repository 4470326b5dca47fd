//! cqrs-es: lends the resource aggregate to it, and runs its framework over our journal.
//!
//! Only this module names cqrs-es. Of version 0.5.0 only the plain event store is used: its
//! snapshot and aggregate stores apply events twice when they reload. Nothing is dispatched to
//! its queries either; views are folded from the journal's tail.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use chassis::journal::{AppendError, ReadError, Recalled};
use chrono::{DateTime, Utc};
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::PersistedEventStore;
use cqrs_es::{AggregateError, CqrsFramework, DomainEvent};
use domain::resource::{self, Command, Event, Kind, Resource};
use serde::{Deserialize, Serialize};

pub(crate) mod inbox;
pub(crate) mod metadata;
pub(crate) mod payload;
mod postgres;
mod repository;

#[cfg(test)]
mod tests;

pub use postgres::Writes;
pub(crate) use repository::Repository;

/// What a command came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Done {
    /// See [`resource::Decision::version`].
    pub(crate) version: u64,
    /// Where the event of that version stands.
    pub(crate) position: u64,
    /// When that event was decided.
    pub(crate) at: DateTime<Utc>,
    /// Whether the command made the resource, or the version of a definition.
    pub(crate) created: bool,
    /// Whether an event was written; not where there was nothing to change.
    pub(crate) written: bool,
    /// The resource after the command.
    pub(crate) resource: Resource,
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Refused(resource::Error),
    /// Another writer was faster.
    #[error("another writer was faster")]
    Conflict,
    /// The same command was done before.
    #[error("the command was done before")]
    Duplicate(Recalled),
    #[error(transparent)]
    Append(AppendError),
    #[error(transparent)]
    Read(ReadError),
    /// An event that can't be what was written.
    #[error("an event can't be read: {0}")]
    Damaged(String),
}

/// Executes a command on the resource of a kind and id, in one append or none.
pub(crate) async fn execute(
    repository: Repository,
    kind: Kind,
    id: &str,
    command: Command,
) -> Result<Done, Fault> {
    match kind {
        Kind::Workspace => run::<Workspace>(repository, id, command).await,
        Kind::Project => run::<Project>(repository, id, command).await,
        Kind::WorkflowDefinition => run::<WorkflowDefinition>(repository, id, command).await,
        Kind::Workflow => run::<Workflow>(repository, id, command).await,
        Kind::Action => run::<Action>(repository, id, command).await,
        Kind::PromptSpec => run::<PromptSpec>(repository, id, command).await,
        Kind::ModelProfile => run::<ModelProfile>(repository, id, command).await,
        Kind::ApiKey => run::<ApiKey>(repository, id, command).await,
    }
}

async fn run<K: OfKind>(repository: Repository, id: &str, command: Command) -> Result<Done, Fault> {
    let trace = repository.trace();
    let at = command.at;
    let store = PersistedEventStore::<Repository, Lent<K>>::new_event_store(repository);
    let framework = CqrsFramework::new(store, Vec::new(), Arc::clone(&trace));
    framework.execute(id, command).await.map_err(|error| fault(error, &trace))?;
    trace.done(at).ok_or_else(|| Fault::Damaged(format!("{id} has no event of its version")))
}

fn fault(error: AggregateError<resource::Error>, trace: &Trace) -> Fault {
    match error {
        AggregateError::UserError(refusal) => Fault::Refused(refusal),
        AggregateError::AggregateConflict => match trace.duplicate.get() {
            Some(recalled) => Fault::Duplicate(recalled.clone()),
            None => Fault::Conflict,
        },
        AggregateError::DatabaseConnectionError(error)
        | AggregateError::DeserializationError(error)
        | AggregateError::UnexpectedError(error) => match error.downcast::<Fault>() {
            Ok(fault) => *fault,
            Err(other) => Fault::Damaged(other.to_string()),
        },
    }
}

/// What one execution leaves behind beside its events. The framework answers only success, so
/// the aggregate and the repository note here what the receipt needs.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    decided: OnceLock<Decided>,
    seen: OnceLock<Vec<Seen>>,
    appended: OnceLock<u64>,
    duplicate: OnceLock<Recalled>,
}

/// What was decided.
#[derive(Debug)]
struct Decided {
    version: u64,
    created: bool,
    resource: Resource,
}

/// Where an event that was there before stands.
#[derive(Debug, Clone, Copy)]
struct Seen {
    position: u64,
    at: DateTime<Utc>,
}

impl Trace {
    fn done(&self, now: DateTime<Utc>) -> Option<Done> {
        let Decided { version, created, resource } = self.decided.get()?;
        let (position, at, written) = match self.appended.get() {
            Some(position) => (*position, now, true),
            None => {
                let index = usize::try_from(version.checked_sub(1)?).ok()?;
                let seen = self.seen.get()?.get(index)?;
                (seen.position, seen.at, false)
            }
        };
        let (version, created, resource) = (*version, *created, resource.clone());
        Some(Done { version, position, at, created, written, resource })
    }
}

/// A kind of resource, as a type: cqrs-es wants a constant name per aggregate type.
trait OfKind: Send + Sync + 'static {
    const KIND: Kind;
}

macro_rules! kinds {
    ($($kind:ident)*) => {$(
        struct $kind;
        impl OfKind for $kind {
            const KIND: Kind = Kind::$kind;
        }
    )*};
}

kinds! {
    Workspace Project WorkflowDefinition Workflow Action PromptSpec ModelProfile ApiKey
}

/// The resource aggregate, lent to cqrs-es as one of a kind.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
struct Lent<K> {
    resource: Resource,
    #[serde(skip)]
    kind: PhantomData<fn() -> K>,
}

impl<K> Default for Lent<K> {
    fn default() -> Self {
        Self { resource: Resource::default(), kind: PhantomData }
    }
}

impl<K: OfKind> cqrs_es::Aggregate for Lent<K> {
    const TYPE: &'static str = K::KIND.as_str();
    type Command = Command;
    type Event = Stored;
    type Error = resource::Error;
    type Services = Arc<Trace>;

    async fn handle(
        &mut self,
        command: Command,
        trace: &Arc<Trace>,
        sink: &EventSink<Self>,
    ) -> Result<(), resource::Error> {
        let decision = resource::decide(&self.resource, &command)?;
        let created = decision.events.iter().any(|event| match event {
            Event::Created { .. } => true,
            Event::Revised { .. } => K::KIND == Kind::WorkflowDefinition,
            Event::Archived => false,
        });
        for event in decision.events {
            sink.write(Stored(event), self).await;
        }
        let resource = self.resource.clone();
        // A second decision of one execution doesn't happen: each has a trace of its own.
        let _ = trace.decided.set(Decided { version: decision.version, created, resource });
        Ok(())
    }

    fn apply(&mut self, event: Stored) {
        self.resource.evolve(&event.0);
    }
}

/// A resource's event as cqrs-es handles it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Stored(Event);

impl DomainEvent for Stored {
    fn event_type(&self) -> String {
        self.0.event_type().to_owned()
    }

    fn event_version(&self) -> String {
        self.0.event_version().to_string()
    }
}
