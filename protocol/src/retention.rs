//! Archiving: what is asked for, and what came of it.

use chrono::{DateTime, Utc};
use domain::hold::Hold;
use domain::ids::RunId;
use domain::retention::{Archive, Keep};
use serde::{Deserialize, Serialize};

/// See [`crate::Command::ArchiveRun`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchiveRun {
    pub run_id: RunId,
    /// What stays.
    pub keep: Keep,
    /// Where all of it was written to before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Only say what would be dropped.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was dropped of a run, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunDropped {
    /// `run_…`.
    pub run_id: String,
    /// What stays: `results` or `header`; `full` where nothing was asked to go.
    #[schema(value_type = String)]
    pub keep: Keep,
    /// The run's events.
    pub events: u64,
    /// Those whose content is dropped; 0 where no more was kept before.
    pub dropped: u64,
    /// Bytes by which their payloads are smaller.
    pub bytes: u64,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// The journal position of the record; 0 where nothing was dropped.
    #[serde(default)]
    pub position: u64,
}

/// What a run has kept, where content of it was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunArchived {
    /// `results` or `header`.
    #[schema(value_type = String)]
    pub keep: Keep,
    pub at: DateTime<Utc>,
    /// Bytes by which its events are smaller.
    pub bytes: u64,
    /// Where all of it was written to before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveView>,
}

/// A hold on a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunHeld {
    pub reason: String,
    /// Who holds it, as in the audit log.
    pub by: String,
    pub at: DateTime<Utc>,
}

impl From<Hold> for RunHeld {
    fn from(hold: Hold) -> Self {
        let Hold { reason, by, at } = hold;
        Self { reason, by, at }
    }
}

/// A file with all of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ArchiveView {
    /// A file's name or an address, as whoever wrote it calls it.
    pub location: String,
    /// SHA-256 of its bytes, 64 hexadecimal digits.
    pub sha256: String,
}

impl From<Archive> for ArchiveView {
    fn from(archive: Archive) -> Self {
        Self { location: archive.location, sha256: archive.sha256 }
    }
}
