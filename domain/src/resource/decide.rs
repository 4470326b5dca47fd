//! Deciding: a command becomes events or a refusal, and nothing changes.

use crate::resource::state::{Content, Resource, Revisions};
use crate::resource::{Change, Command, Error, Event, Spec, patch, validate};

/// What a command comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// None where there is nothing to change.
    pub events: Vec<Event>,
    /// The version that answers the command: the aggregate's after the events; for a definition
    /// with content that is published already, the version that has it.
    pub version: u64,
}

/// Decides a command on a resource.
pub fn decide(resource: &Resource, command: &Command) -> Result<Decision, Error> {
    if let Some(expected) = command.expected_version
        && expected != resource.version()
    {
        return Err(Error::VersionMismatch { expected, actual: resource.version() });
    }
    match &command.change {
        Change::Create(spec) => {
            let spec = validate::normalised(spec)?;
            validate::check(&spec, command.at)?;
            create(resource, &spec)
        }
        Change::Revise(patch) => {
            let revisions = live(resource)?;
            let Content::Spec(current) = &revisions.content else {
                return Err(Error::Immutable {
                    kind: revisions.kind(),
                    what: "a published version",
                    pointer: String::new(),
                });
            };
            let spec = validate::normalised(&patch::revised(current, patch)?)?;
            if spec == **current {
                return Ok(Decision { events: Vec::new(), version: revisions.latest });
            }
            validate::check(&spec, command.at)?;
            Ok(revised(revisions, &spec))
        }
        Change::Archive => {
            let version = live(resource)?.latest + 1;
            Ok(Decision { events: vec![Event::Archived], version })
        }
    }
}

fn create(resource: &Resource, spec: &Spec) -> Result<Decision, Error> {
    let (kind, name) = (spec.kind(), spec.name().clone());
    match (resource, spec) {
        (Resource::Absent, spec) => Ok(Decision {
            events: vec![Event::Created { spec: Box::new(spec.clone()), revision: 1 }],
            version: 1,
        }),
        (Resource::Archived(_), _) => Err(Error::NameArchived { kind, name }),
        (Resource::Live(revisions), Spec::WorkflowDefinition(version)) => {
            match revisions.version_of(&version.hash) {
                Some(version) => Ok(Decision { events: Vec::new(), version }),
                None => Ok(revised(revisions, spec)),
            }
        }
        (Resource::Live(_), _) => Err(Error::AlreadyExists { kind, name }),
    }
}

fn revised(revisions: &Revisions, spec: &Spec) -> Decision {
    let revision = revisions.latest + 1;
    let event = Event::Revised { spec: Box::new(spec.clone()), revision };
    Decision { events: vec![event], version: revision }
}

fn live(resource: &Resource) -> Result<&Revisions, Error> {
    match resource {
        Resource::Absent => Err(Error::NotFound),
        Resource::Live(revisions) => Ok(revisions),
        Resource::Archived(revisions) => {
            Err(Error::Archived { kind: revisions.kind(), name: revisions.name().clone() })
        }
    }
}
