//! A resource as its events made it.

use serde::{Deserialize, Serialize};

use crate::ids::{Name, ProjectId};
use crate::resource::{Kind, Spec};

/// A resource's state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Nothing has happened under this id.
    #[default]
    Absent,
    Live(Revisions),
    Archived(Revisions),
}

/// What the revisions of a resource came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revisions {
    /// The newest revision, counted from 1.
    pub latest: u64,
    pub content: Content,
}

/// What is kept of the revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// The newest spec.
    Spec(Box<Spec>),
    /// Of a workflow definition only the hashes, one per version; the bodies stay in the events.
    Definition { project_id: ProjectId, name: Name, hashes: Vec<String> },
}

impl Resource {
    /// The revisions, of a live or an archived resource.
    pub const fn revisions(&self) -> Option<&Revisions> {
        match self {
            Self::Absent => None,
            Self::Live(revisions) | Self::Archived(revisions) => Some(revisions),
        }
    }

    /// Whether it was taken out of use.
    pub const fn is_archived(&self) -> bool {
        matches!(self, Self::Archived(_))
    }

    /// The aggregate's version: how many events it has, 0 for none.
    pub const fn version(&self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Live(revisions) => revisions.latest,
            Self::Archived(revisions) => revisions.latest + 1,
        }
    }

    /// The newest spec; `None` for an absent resource and for a workflow definition.
    pub fn spec(&self) -> Option<&Spec> {
        match &self.revisions()?.content {
            Content::Spec(spec) => Some(spec),
            Content::Definition { .. } => None,
        }
    }
}

impl Revisions {
    /// The kind of the resource.
    pub fn kind(&self) -> Kind {
        match &self.content {
            Content::Spec(spec) => spec.kind(),
            Content::Definition { .. } => Kind::WorkflowDefinition,
        }
    }

    /// The name of the resource.
    pub fn name(&self) -> &Name {
        match &self.content {
            Content::Spec(spec) => spec.name(),
            Content::Definition { name, .. } => name,
        }
    }

    /// The project that owns the resource.
    pub fn project_id(&self) -> Option<ProjectId> {
        match &self.content {
            Content::Spec(spec) => spec.project_id(),
            Content::Definition { project_id, .. } => Some(*project_id),
        }
    }

    /// The version of a workflow definition that has this content.
    pub fn version_of(&self, hash: &str) -> Option<u64> {
        match &self.content {
            Content::Spec(_) => None,
            Content::Definition { hashes, .. } => {
                let place = hashes.iter().position(|known| known == hash)?;
                Some(place as u64 + 1)
            }
        }
    }
}
