//! The document: what stands in a definition file, key by key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::Name;
use crate::span::Span;

mod admission;
mod child;
mod effects;
mod undo;
mod waits;

pub use admission::{ConcurrencySpec, Excess, Overflow, RateLimitSpec};
pub use child::{ChildSpec, OnChildFailure, is_reference};
pub use effects::{CancelNodes, CancelSpec};
pub use undo::UndoSpec;
pub use waits::{EmitSpec, GateSpec, GateTimeout, WaitSpec};

/// From a path (`state.draft`) or a name (`question`) to a value with `${…}` expressions in it.
/// Keys keep the order of the document.
pub type Mapping = Map<String, Value>;

/// A workflow definition, as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The name that versions are counted under.
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema (2020-12) that a run's input must satisfy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// JSON Schema that a run's output must satisfy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// The node at which a run's first token starts.
    pub start: String,
    /// How long a run may take from its start; it then ends as `timed_out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Whether a run that fails, times out or is cancelled undoes the completions of nodes with an
    /// `undo`, newest first, before it ends. To be said where a node has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<bool>,
    /// How many of its runs go on at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Box<ConcurrencySpec>>,
    /// How many of its runs begin in a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Box<RateLimitSpec>>,
    /// How far a run comes forward in the queue of `concurrency` and `rate_limit`: a whole number,
    /// or `${…}` over `input` that gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Box<Value>>,
    /// The nodes by name, in the order of the document.
    pub nodes: Map<String, Value>,
    /// All control flow, in the order of the document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transitions: Vec<Transition>,
    /// What the run answers: names to values with `${…}` over `input` and `state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Mapping>,
}

/// One node; exactly one of `action`, `steps`, `compute`, `workflow`, `gate`, `wait`, `emit`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// One action on a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionUse>,
    /// Actions in sequence on one worker in one dispatch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<Step>>,
    /// A pure mapping into `state`, evaluated without a dispatch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute: Option<Mapping>,
    /// A child run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<ChildSpec>,
    /// A decision by people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSpec>,
    /// A durable timer, or a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<WaitSpec>,
    /// A business event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emit: Option<EmitSpec>,
    /// What the action gets, evaluated whole against the state before the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Mapping>,
    /// Where the result goes: `state.<name>[.<name>…]` to a value over `result`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Mapping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long one attempt may take on its worker; of a `workflow` node, how long it waits for
    /// its child.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Whether an attempt may be made again where its worker vanished with it (default true). Where
    /// not, the attempt ends as failed with the code `in_doubt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeatable: Option<bool>,
    /// Within a run, at most one token is in the nodes of a mutex at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutex: Option<Name>,
    /// What compensates the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoSpec>,
    /// What the node is for, in a few words; lists and timelines show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

/// An action by reference (`{use: name@version, with: {…}}`) or inline (`{kind, with: {…}}`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionUse {
    /// `name` (the latest version when the run starts) or `name@version`.
    #[serde(rename = "use", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ActionKind>,
    /// The kind's configuration; with `use`, laid over the action's own, key by key.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub with: Map<String, Value>,
}

/// What an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    Llm,
    Http,
    Transform,
    Mock,
    /// Refused by this version (`unsupported_action`).
    Mcp,
    /// Refused by this version (`unsupported_action`).
    Metric,
    /// Refused by this version (`unsupported_action`).
    Artifact,
}

impl ActionKind {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Http => "http",
            Self::Transform => "transform",
            Self::Mock => "mock",
            Self::Mcp => "mcp",
            Self::Metric => "metric",
            Self::Artifact => "artifact",
        }
    }
}

/// One action of a `steps` node. In its expressions `steps.<name>` is an earlier step's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: Name,
    pub action: ActionUse,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Mapping>,
    /// A condition over `input` and `steps`; absent means that the step runs.
    #[serde(rename = "if", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// What happens where the condition holds (default `continue`: run the step).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<StepThen>,
    /// What happens where it doesn't (default `skip`).
    #[serde(rename = "else", default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<StepThen>,
    #[serde(default)]
    pub on_failure: StepFailure,
}

/// What a step's condition leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepThen {
    /// Run this step.
    Continue,
    /// Leave this step out.
    Skip,
    /// End the task here as succeeded.
    Succeed,
    /// End the task here as failed.
    Fail,
}

/// What a step's failure leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepFailure {
    /// The task fails, and is not retried.
    #[default]
    Abort,
    /// The task fails as transient: the node's `retry` runs it again from its first step.
    Retry,
    /// The next step runs; `steps.<name>` is `{"error": …}`.
    Continue,
}

/// How attempts of a node follow each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// All attempts, the first one counted: 1 to 100.
    #[serde(default = "Retry::default_max_attempts")]
    pub max_attempts: u32,
    #[serde(default)]
    pub backoff: Backoff,
    /// The delay before the second attempt.
    #[serde(default = "Retry::default_initial")]
    pub initial: Span,
    /// The longest delay.
    #[serde(default = "Retry::default_max")]
    pub max: Span,
    /// Whether the delay is drawn between half of it and all of it (from recorded values).
    #[serde(default = "Retry::default_jitter")]
    pub jitter: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: Self::default_max_attempts(),
            backoff: Backoff::default(),
            initial: Self::default_initial(),
            max: Self::default_max(),
            jitter: Self::default_jitter(),
        }
    }
}

impl Retry {
    fn default_max_attempts() -> u32 {
        5
    }
    fn default_initial() -> Span {
        Span::from_millis(1_000)
    }
    fn default_max() -> Span {
        Span::from_millis(300_000)
    }
    fn default_jitter() -> bool {
        true
    }
}

/// How the delay grows from one attempt to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    Constant,
    Linear,
    #[default]
    Exponential,
}

/// One transition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    pub from: String,
    pub to: String,
    /// A condition; absent holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Tiers are tried from the lowest number; default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    #[serde(default, skip_serializing_if = "On::is_success")]
    pub on: On,
    /// So many tokens: a whole number, or an expression that yields one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawn: Option<Value>,
    /// One token per item of a list: `${…}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreach: Option<String>,
    /// A second name for the item, so that an inner branch still sees the outer one.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub item_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The open group around the token, which gets the transition's tokens as further branches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extend: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinSpec>,
    /// How often one token's lineage may take this transition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_iterations: Option<u32>,
    /// What ends where this transition is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelSpec>,
    /// The group whose join fires, with what has arrived, where this transition is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<String>,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Which outcome of the node a transition is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    #[default]
    Success,
    /// Any failure, time-outs included.
    Failure,
    /// An attempt that took too long, after its retries.
    Timeout,
    /// A gate that was rejected.
    Rejected,
}

impl On {
    fn is_success(&self) -> bool {
        *self == Self::Success
    }
}

/// Where the branches of a group come together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinSpec {
    pub group: String,
    #[serde(default)]
    pub wait: JoinWait,
    #[serde(default)]
    pub failed: FailedPolicy,
    #[serde(default)]
    pub rest: Rest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    #[serde(default)]
    pub on_timeout: JoinTimeout,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
}

/// How many branches a join waits for: `all`, `any`, or a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "JoinWaitText", into = "JoinWaitText")]
pub enum JoinWait {
    #[default]
    All,
    Any,
    Count(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "`all`, `any` or a whole number")]
enum JoinWaitText {
    Count(u64),
    Word(JoinWaitWord),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JoinWaitWord {
    All,
    Any,
}

impl From<JoinWaitText> for JoinWait {
    fn from(text: JoinWaitText) -> Self {
        match text {
            JoinWaitText::Count(count) => Self::Count(count),
            JoinWaitText::Word(JoinWaitWord::All) => Self::All,
            JoinWaitText::Word(JoinWaitWord::Any) => Self::Any,
        }
    }
}

impl From<JoinWait> for JoinWaitText {
    fn from(wait: JoinWait) -> Self {
        match wait {
            JoinWait::Count(count) => Self::Count(count),
            JoinWait::All => Self::Word(JoinWaitWord::All),
            JoinWait::Any => Self::Word(JoinWaitWord::Any),
        }
    }
}

/// What a failed branch means to its join. A branch that ended without arriving is treated alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedPolicy {
    /// The join fails at once.
    #[default]
    Fail,
    /// The branch is no longer expected.
    Ignore,
    /// The branch counts as arrived, without a value.
    Count,
}

/// What becomes of the branches still out when a join is satisfied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    #[default]
    Cancel,
    /// They finish; their arrival is recorded and discarded.
    Continue,
}

/// What a join's time-out leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinTimeout {
    #[default]
    Fail,
    /// It goes on with what has arrived.
    Proceed,
}

/// How a join brings its branches' values together, always in the order of branch index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    pub strategy: MergeStrategy,
    /// The branch's value: default `${result}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// `state.<name>[.<name>…]`.
    pub into: String,
}

/// The merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeStrategy {
    /// A list, flattened one level.
    Append,
    /// A list of the values as they are.
    Collect,
    /// One object, shallow, later branches win.
    Object,
    /// An object keyed by branch index.
    ByBranch,
    /// The value of the highest index.
    Last,
}

/// The nodes of a definition, decoded. Fails only on a document that [`super::parse`] refuses.
pub(crate) fn decode_nodes(
    nodes: &Map<String, Value>,
) -> Result<BTreeMap<String, Node>, serde_json::Error> {
    nodes
        .iter()
        .map(|(name, node)| Ok((name.clone(), serde_json::from_value(node.clone())?)))
        .collect()
}
