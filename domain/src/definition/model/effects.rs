//! What a transition does to the rest of the run.

use serde::{Deserialize, Serialize};

use crate::run::event::Region;

/// What a transition ends: exactly one of `nodes` and `group`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelSpec {
    /// The tokens at these nodes, or `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<CancelNodes>,
    /// The group, with all that is inside; its join never fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Some nodes, or `all`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "`all` or a list of nodes")]
pub enum CancelNodes {
    All(AllWord),
    These(Vec<String>),
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllWord {
    All,
}

impl CancelSpec {
    /// What it ends, as events hold it; `None` where neither key is there.
    pub(crate) fn region(&self) -> Option<Region> {
        match (&self.nodes, &self.group) {
            (Some(CancelNodes::All(_)), _) => Some(Region::All),
            (Some(CancelNodes::These(nodes)), _) => Some(Region::Nodes(nodes.clone())),
            (None, Some(group)) => Some(Region::Group(group.clone())),
            (None, None) => None,
        }
    }
}
