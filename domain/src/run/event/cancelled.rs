//! Parts of a run that are ended: what defines them, so that an event stays small however many
//! tokens go.

use serde::{Deserialize, Serialize};

use super::{TokenId, TransitionIndex};
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
