//! Resources: what people set up around runs. Each is an aggregate of revisions.
//!
//! Every resource is created once under a name, revised as a whole, and archived. Its stream id
//! is derived from owner, kind and name, so that a second creation conflicts on its first event.
//! [`decide`] turns a command into events or a refusal; [`Resource::evolve`] folds an event.

pub mod command;
pub mod decide;
pub mod error;
pub mod event;
pub mod evolve;
pub mod identity;
mod patch;
pub mod spec;
pub mod state;
mod validate;

#[cfg(test)]
mod tests;

pub use command::{Change, Command};
pub use decide::{Decision, decide};
pub use error::Error;
pub use event::Event;
pub use identity::{check_id, id_of, owned};
pub(crate) use patch::merge;
pub use spec::{
    ActionSpec, ApiKeySpec, DefinitionSpec, Fallback, Kind, ModelProfileSpec, Prices,
    ProjectLimits, ProjectSpec, PromptSpecSpec, Provider, Scope, Spec, WorkflowSpec, WorkspaceSpec,
};
pub use state::{Content, Resource, Revisions};
pub(crate) use validate::is_variable_name;
