//! Folding events: total, without a refusal.

use crate::resource::state::{Content, Resource, Revisions};
use crate::resource::{Event, Spec};

impl Resource {
    /// Folds one event into the state.
    pub fn evolve(&mut self, event: &Event) {
        *self = match (std::mem::take(self), event) {
            (
                Self::Absent,
                Event::Created { spec, revision } | Event::Revised { spec, revision },
            ) => Self::Live(Revisions { latest: *revision, content: first(spec) }),
            (
                Self::Live(revisions) | Self::Archived(revisions),
                Event::Created { spec, revision } | Event::Revised { spec, revision },
            ) => {
                Self::Live(Revisions { latest: *revision, content: next(revisions.content, spec) })
            }
            (Self::Live(revisions) | Self::Archived(revisions), Event::Archived) => {
                Self::Archived(revisions)
            }
            (Self::Absent, Event::Archived) => Self::Absent,
        };
    }
}

fn first(spec: &Spec) -> Content {
    match spec {
        Spec::WorkflowDefinition(version) => Content::Definition {
            project_id: version.project_id,
            name: version.definition.name.clone(),
            hashes: vec![version.hash.clone()],
        },
        other => Content::Spec(Box::new(other.clone())),
    }
}

fn next(content: Content, spec: &Spec) -> Content {
    match (content, spec) {
        (
            Content::Definition { project_id, name, mut hashes },
            Spec::WorkflowDefinition(version),
        ) => {
            hashes.push(version.hash.clone());
            Content::Definition { project_id, name, hashes }
        }
        (_, spec) => first(spec),
    }
}
