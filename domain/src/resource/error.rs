//! Why a command to a resource was refused.

use crate::ids::Name;
use crate::resource::Kind;

/// A refusal. Nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name is taken by a live resource.
    #[error("a {} named {name} exists already; choose another name, or revise that one", kind.words())]
    AlreadyExists { kind: Kind, name: Name },
    /// The name was used by a resource that is archived; names are not used twice.
    #[error("a {} named {name} was archived, and its name is not used again; choose another name", kind.words())]
    NameArchived { kind: Kind, name: Name },
    /// Nothing was ever created under this id.
    #[error("there is no such resource")]
    NotFound,
    /// It is out of use and doesn't change any more.
    #[error("the {} {name} is archived and can't change any more", kind.words())]
    Archived { kind: Kind, name: Name },
    /// The caller saw another version.
    #[error("the version is {actual}, not {expected}; read it again and repeat the change")]
    VersionMismatch { expected: u64, actual: u64 },
    /// A member, or the whole, that can't change after creation.
    #[error("{what} can't change after creation; create another {} instead", kind.words())]
    Immutable { kind: Kind, what: &'static str, pointer: String },
    /// A value that the kind doesn't allow.
    #[error("{message}")]
    Invalid { pointer: String, message: String },
    /// A spec over a size limit.
    #[error("the spec has {bytes} bytes of JSON, more than {limit}")]
    TooLarge { bytes: usize, limit: usize },
}

impl Error {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AlreadyExists { .. } => "already_exists",
            Self::NameArchived { .. } => "name_archived",
            Self::NotFound => "not_found",
            Self::Archived { .. } => "archived",
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::Immutable { .. } => "immutable",
            Self::Invalid { .. } => "invalid_spec",
            Self::TooLarge { .. } => "spec_too_large",
        }
    }

    /// The place in the spec that is to blame, as a JSON Pointer.
    pub fn pointer(&self) -> Option<&str> {
        match self {
            Self::Immutable { pointer, .. } | Self::Invalid { pointer, .. } => Some(pointer),
            Self::AlreadyExists { kind, .. } | Self::NameArchived { kind, .. } => match kind {
                Kind::WorkflowDefinition => Some("/definition/name"),
                Kind::Workspace
                | Kind::Project
                | Kind::Workflow
                | Kind::Action
                | Kind::PromptSpec
                | Kind::ModelProfile
                | Kind::ApiKey => Some("/name"),
            },
            Self::NotFound
            | Self::Archived { .. }
            | Self::VersionMismatch { .. }
            | Self::TooLarge { .. } => None,
        }
    }

    pub(crate) fn invalid(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { pointer: pointer.into(), message: message.into() }
    }
}
