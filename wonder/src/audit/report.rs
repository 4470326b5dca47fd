//! What a check found.

use std::sync::Arc;

use chassis::journal::RecordedEvent;
use domain::run::RunStatus;
use serde::Serialize;

use super::chain::Sealed;
use super::claims::{Claim, Claims};
use super::retained::Counted;

/// Findings that are listed; more are only counted.
const LISTED: usize = 100;

/// The outcome of a check.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether there is no finding.
    pub(crate) ok: bool,
    /// Whether everything could be read. If not, neither the list of open runs nor the log were
    /// looked at.
    pub(crate) complete: bool,
    /// The last position that was read.
    pub(crate) head: u64,
    pub(crate) events: u64,
    pub(crate) aggregates: u64,
    pub(crate) runs: Runs,
    pub(crate) claims: Checked,
    pub(crate) sealed: Sealed,
    pub(crate) dropped: Counted,
    pub(crate) finding_count: u64,
    /// The first hundred.
    pub(crate) findings: Vec<Finding>,
}

/// Runs by how they ended.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Runs {
    pub(crate) open: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) timed_out: u64,
}

/// Lines of the log that were compared, by kind.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Checked {
    pub(crate) start: u64,
    pub(crate) cancel: u64,
    pub(crate) refused: u64,
    pub(crate) ended: u64,
}

/// Something that can't be as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    #[serde(flatten)]
    pub(crate) subject: Subject,
    pub(crate) problem: String,
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Subject {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aggregate_id: Option<Arc<str>>,
    /// The line of the log, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            ok: true,
            complete: true,
            head: 0,
            events: 0,
            aggregates: 0,
            runs: Runs::default(),
            claims: Checked::default(),
            sealed: Sealed::default(),
            dropped: Counted::default(),
            finding_count: 0,
            findings: Vec::new(),
        }
    }
}

impl Report {
    pub(super) fn find(&mut self, subject: Subject, problem: impl Into<String>) {
        self.ok = false;
        self.finding_count += 1;
        if self.findings.len() < LISTED {
            self.findings.push(Finding { subject, problem: problem.into() });
        }
    }

    pub(super) fn count_claims(&mut self, claims: &Claims) {
        for (_, claim) in claims.lines() {
            match claim {
                Claim::Start(_) => self.claims.start += 1,
                Claim::Cancel(_) => self.claims.cancel += 1,
                Claim::Refused(_) => self.claims.refused += 1,
                Claim::Ended(_) => self.claims.ended += 1,
            }
        }
    }
}

impl Runs {
    pub(super) fn count(&mut self, end: Option<RunStatus>) {
        match end {
            Some(RunStatus::Completed) => self.completed += 1,
            Some(RunStatus::Failed) => self.failed += 1,
            Some(RunStatus::Cancelled) => self.cancelled += 1,
            Some(RunStatus::TimedOut) => self.timed_out += 1,
            Some(
                RunStatus::Queued | RunStatus::Running | RunStatus::Waiting | RunStatus::Paused,
            )
            | None => self.open += 1,
        }
    }
}

impl Finding {
    /// One line for people.
    pub(crate) fn text(&self) -> String {
        let Subject { position, aggregate_id, line } = &self.subject;
        let position = position.map(|position| format!("position {position}"));
        let aggregate = aggregate_id.as_deref().map(str::to_owned);
        let line = line.map(|line| format!("line {line} of the log"));
        let about: Vec<String> = [position, line, aggregate].into_iter().flatten().collect();
        format!("{}: {}", about.join(", "), self.problem)
    }
}

impl Subject {
    pub(super) fn event(event: &RecordedEvent) -> Self {
        let aggregate_id = Some(Arc::clone(&event.aggregate_id));
        Self { position: Some(event.position), aggregate_id, line: None }
    }

    pub(super) const fn position(position: u64) -> Self {
        Self { position: Some(position), aggregate_id: None, line: None }
    }

    pub(super) fn aggregate(id: &Arc<str>) -> Self {
        Self { position: None, aggregate_id: Some(Arc::clone(id)), line: None }
    }

    pub(super) fn line(line: usize, id: Option<&str>) -> Self {
        Self { position: None, aggregate_id: id.map(Arc::from), line: Some(line) }
    }
}
