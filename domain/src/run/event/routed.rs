//! What leaving a node came to, as events hold it: transitions, group instances, joins.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{InstanceId, TokenId, TransitionIndex};

/// A transition that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Considered {
    pub transition: TransitionIndex,
    pub tier: i32,
    pub held: bool,
    /// The values that the condition read, by path.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub read: Map<String, Value>,
}

/// What a fired transition led to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fired {
    /// A new token at a node, on the same level.
    Moved {
        transition: TransitionIndex,
        token: TokenId,
        node: String,
        /// How often the lineage has taken this transition now, where that is limited.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        iteration: Option<u32>,
    },
    /// The branch arrived at the join of its instance.
    Arrived {
        transition: TransitionIndex,
        instance: InstanceId,
        #[serde(default, skip_serializing_if = "Carried::is_result")]
        value: Carried,
        /// Too late: the join has fired, or the branch had arrived. Recorded, and discarded.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        late: bool,
    },
}

/// What a branch brings to its join.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carried {
    /// The result of the node that it leaves.
    #[default]
    Result,
    /// Nothing: the join merges nothing.
    Nothing,
    /// The value of the join's `merge.from`.
    Value(Value),
}

impl Carried {
    fn is_result(&self) -> bool {
        *self == Self::Result
    }
}

/// How often a lineage has taken a limited transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iteration {
    pub transition: TransitionIndex,
    pub count: u32,
}

/// A group instance that a fan-out opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    pub instance: InstanceId,
    /// The group's name; absent for a fan-out without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The branches by transition, in the order of the definition; indices count through.
    pub branches: Vec<OpenedBranches>,
    /// When its join times out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
}

/// Branches that are added to an open group instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extended {
    pub instance: InstanceId,
    pub branches: OpenedBranches,
    /// The items, one per branch, of a `foreach`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Value>,
}

/// The branches that one transition makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenedBranches {
    pub transition: TransitionIndex,
    pub node: String,
    pub count: u64,
    /// Whether each branch has an item.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreach: bool,
    /// How often the lineage has taken this transition now, where that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
}

/// A join's numbers when it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arithmetic {
    pub declared: u64,
    pub arrived: u64,
    pub failed: u64,
    /// Ended without arriving.
    pub ended: u64,
    pub needed: u64,
}
