//! Parts of a run that are ended: what defines them, so that an event stays small however many
//! tokens go.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{InstanceId, TokenId, TransitionIndex};
use crate::run::state::Branch;

/// See [`super::Event::TokensCancelled`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokensCancelled {
    /// The token that took the transition; it goes on.
    pub by: TokenId,
    pub transition: TransitionIndex,
    /// The branch of a `foreach` or `spawn` that it acts in; absent where that is the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Branch>,
    pub region: Region,
    /// How many tokens ended.
    pub tokens: u64,
}

/// What is ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// The tokens at these nodes.
    Nodes(Vec<String>),
    /// The instances of a group, with all inside them; their join never fires.
    Group(String),
    /// Everything but the token that took the transition.
    All,
}

/// What a region consists of: the rule, for the engine and for whoever reads its events and keeps
/// the tokens and group instances of a run. Branches around something are those that it is in, of
/// whatever depth.
pub struct Extent<'a> {
    by: TokenId,
    within: Option<Branch>,
    region: &'a Region,
    /// Those of [`Region::Nodes`].
    nodes: BTreeSet<&'a str>,
    /// The instances around the token that acts, which are never taken away.
    own: BTreeSet<InstanceId>,
}

impl<'a> Extent<'a> {
    /// `around` are the branches around the token that acts.
    pub fn new(
        by: TokenId,
        within: Option<Branch>,
        region: &'a Region,
        around: impl Iterator<Item = Branch>,
    ) -> Self {
        let nodes = match region {
            Region::Nodes(nodes) => nodes.iter().map(String::as_str).collect(),
            Region::Group(_) | Region::All => BTreeSet::new(),
        };
        Self { by, within, region, nodes, own: around.map(|branch| branch.instance).collect() }
    }

    /// Whether a group instance goes, with all inside it. `around` are the branches around the
    /// token that opened it.
    pub fn takes_instance(
        &self,
        id: InstanceId,
        group: Option<&str>,
        around: impl Iterator<Item = Branch>,
    ) -> bool {
        let is_meant = match self.region {
            Region::Nodes(_) => false,
            Region::Group(name) => group == Some(name),
            Region::All => true,
        };
        is_meant && !self.own.contains(&id) && self.is_within(around)
    }

    /// Whether a token goes where no instance takes it along.
    pub fn takes_token(
        &self,
        id: TokenId,
        node: &str,
        around: impl Iterator<Item = Branch>,
    ) -> bool {
        id != self.by && self.takes_at(node, around)
    }

    /// Whether what stands at a node, or is yet to be made there, goes.
    pub fn takes_at(&self, node: &str, around: impl Iterator<Item = Branch>) -> bool {
        let is_meant = match self.region {
            Region::Nodes(_) => self.nodes.contains(node),
            Region::Group(_) => false,
            Region::All => true,
        };
        is_meant && self.is_within(around)
    }

    fn is_within(&self, mut around: impl Iterator<Item = Branch>) -> bool {
        self.within.is_none_or(|within| around.any(|branch| branch == within))
    }
}
