//! Who is in the nodes of a mutex, and who waits for it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::run::event::TokenId;
use crate::run::state::Live;

/// A mutex that is held or waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutex {
    /// The token that is in one of its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<TokenId>,
    /// Who waits, in the order in which they came.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub queue: VecDeque<TokenId>,
}

impl Live {
    /// A mutex that nobody holds while somebody waits for it, and whose turn it is.
    pub fn next_turn(&self) -> Option<(&String, TokenId)> {
        let mut free = self.mutexes.iter().filter(|(_, mutex)| mutex.holder.is_none());
        free.find_map(|(name, mutex)| Some((name, *mutex.queue.front()?)))
    }
}
