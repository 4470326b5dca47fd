//! Histories of runs, wherever they are kept: in a journal, or in a file that was made of one.
//! State at a moment, timeline, explanations, comparisons and verification are folded from nothing
//! else.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::journal::{Journal, Payload, ReadError, RecordedEvent, Sieve, Snapshot, Until};

use crate::plans::Plans;

/// Where histories are kept.
#[async_trait]
pub trait Past: Send + Sync {
    /// An aggregate's events after a sequence, in order, at most `limit`.
    async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError>;

    /// The same of those that a sieve takes. Others may be among them.
    async fn load_some(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
        sieve: Sieve<'_>,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let _ = sieve;
        self.load(aggregate_type, aggregate_id, after_sequence, limit).await
    }

    /// Content-addressed values; a hash that isn't there is an error.
    async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError>;

    /// The newest state of an aggregate that is kept and isn't later than a moment; the newest of
    /// all without one. Where none is kept, states are folded from the first event.
    async fn snapshot(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
        until: Option<Until>,
    ) -> Result<Option<Snapshot>, ReadError> {
        let _ = (aggregate_type, aggregate_id, version, until);
        Ok(None)
    }
}

#[async_trait]
impl Past for dyn Journal {
    async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        Journal::load(self, aggregate_type, aggregate_id, after_sequence, limit).await
    }

    async fn load_some(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
        sieve: Sieve<'_>,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        Journal::load_some(self, aggregate_type, aggregate_id, after_sequence, limit, sieve).await
    }

    async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError> {
        Journal::payloads(self, hashes).await
    }

    async fn snapshot(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
        until: Option<Until>,
    ) -> Result<Option<Snapshot>, ReadError> {
        match until {
            None => Journal::snapshot(self, aggregate_type, aggregate_id, version).await,
            Some(until) => self.snapshot_until(aggregate_type, aggregate_id, version, until).await,
        }
    }
}

#[async_trait]
impl<P: Past + ?Sized> Past for Arc<P> {
    async fn load(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        (**self).load(aggregate_type, aggregate_id, after_sequence, limit).await
    }

    async fn load_some(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after_sequence: u64,
        limit: usize,
        sieve: Sieve<'_>,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        (**self).load_some(aggregate_type, aggregate_id, after_sequence, limit, sieve).await
    }

    async fn payloads(&self, hashes: &[Arc<str>]) -> Result<Vec<Payload>, ReadError> {
        (**self).payloads(hashes).await
    }

    async fn snapshot(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        version: u32,
        until: Option<Until>,
    ) -> Result<Option<Snapshot>, ReadError> {
        (**self).snapshot(aggregate_type, aggregate_id, version, until).await
    }
}

/// The histories that are kept somewhere. Answers are those of [`protocol::RunQueries`], with the
/// same refusals.
#[derive(Clone, Copy)]
pub struct Histories<'a> {
    pub(crate) past: &'a dyn Past,
    /// What is left of events whose content was dropped is enough.
    pub(crate) takes_remains: bool,
    plans: Option<&'a Plans>,
}

impl<'a> Histories<'a> {
    /// The histories that are kept there.
    pub const fn of(past: &'a dyn Past) -> Self {
        Self { past, takes_remains: false, plans: None }
    }

    /// The same, for what needs no content of events.
    pub(crate) const fn with_remains(self) -> Self {
        Self { takes_remains: true, ..self }
    }

    /// The same, with the plans that runs follow kept over questions.
    pub(crate) const fn keeping(past: &'a dyn Past, plans: &'a Plans) -> Self {
        Self { past, takes_remains: false, plans: Some(plans) }
    }

    pub(crate) const fn plans(&self) -> Option<&'a Plans> {
        self.plans
    }
}
