//! Workflow definitions: the document people write, its validation, and the plan that runs.
//!
//! [`Definition`] is the document, [`parse`] reads YAML or JSON into it and names every problem
//! with place and remedy, [`Plan`] is the definition compiled and with its references resolved.

pub mod changes;
pub mod hash;
pub mod model;
pub mod parse;
pub mod plan;
pub mod problem;
pub mod resolved;
pub mod schema;
pub mod validate;
pub mod variant;

pub use changes::{Change, ChangeKind, changes, differences};
pub use hash::content_hash;
pub use model::{
    ActionKind, ActionUse, Backoff, CancelNodes, CancelSpec, ChildSpec, ConcurrencySpec,
    Definition, EmitSpec, Excess, FailedPolicy, GateSpec, GateTimeout, JoinSpec, JoinTimeout,
    JoinWait, Mapping, Merge, MergeStrategy, Node, On, OnChildFailure, Overflow, RateLimitSpec,
    Rest, Retry, Step, StepFailure, StepThen, Transition, UndoSpec, WaitSpec, is_reference,
};
pub use plan::{Action, Plan, PlanAdmission};
pub use problem::{Problem, ProblemCode};
pub use resolved::Resolved;
pub use variant::{Condition, NoVariant, Variant};
