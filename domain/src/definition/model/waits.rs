//! Nodes that need no worker: `wait`, `gate` and `emit`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Mapping;
use crate::ids::Name;
use crate::span::Span;

/// What a `wait` node waits for: exactly one of `for`, `until`, `signal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitSpec {
    /// So long: a span as `10m`, or `${…}` that gives one.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub span: Option<String>,
    /// Until this time: RFC 3339, or `${…}` that gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// For a signal of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Name>,
    /// A condition over `signal` (`{name, payload, sent_at}`) that the signal must meet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// How long it waits for the signal; the node then fails with the code `wait_timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// A decision by people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSpec {
    /// What they are asked, in one line; may hold `${…}`.
    pub title: String,
    /// JSON Schema (2020-12) of the value that an answer brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Value>,
    /// Who may answer, as actors: a list, or `${…}` that gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignees: Option<Value>,
    /// Whoever has one of these roles may answer too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Value>,
    /// How many have to approve.
    #[serde(default = "one")]
    pub approvals: u32,
    /// Whether whoever started the run may answer.
    #[serde(default = "yes")]
    pub self_approval: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    #[serde(default)]
    pub on_timeout: GateTimeout,
}

const fn one() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

/// What a gate's time-out leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateTimeout {
    /// The node fails with the code `gate_timeout`.
    #[default]
    Fail,
    /// It counts as rejected.
    Reject,
    /// The run goes on without a decision.
    Proceed,
}

/// What an `emit` node publishes: a business event or a value of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmitSpec {
    /// The business event's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Name>,
    /// What it says; may hold `${…}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The metric's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Name>,
    /// The value: a number, or `${…}` that gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// What the value is told apart by: names to texts, numbers and booleans, which may hold `${…}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<Mapping>,
}
