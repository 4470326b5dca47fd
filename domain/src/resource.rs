//! Resources: what people set up around runs. Each is an aggregate of revisions.
//!
//! Every resource is created once under a name, revised as a whole, and archived. Its stream id
//! is derived from owner, kind and name, so that a second creation conflicts on its first event.

pub mod spec;

pub use spec::{
    ActionSpec, ApiKeySpec, DefinitionSpec, Fallback, Kind, ModelProfileSpec, Prices,
    ProjectLimits, ProjectSpec, PromptSpecSpec, Provider, Scope, Spec, WorkflowSpec, WorkspaceSpec,
};
