//! Who is in the nodes of a mutex, and who waits for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::run::event::TokenId;
use crate::run::state::Live;

/// A mutex that is held or waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutex {
    /// The token that is in one of its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<TokenId>,
    /// Who waits, by turn: in the order in which they came.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queue: BTreeMap<u64, TokenId>,
    /// The last turn that was given out.
    pub turns: u64,
}

impl Mutex {
    pub(in crate::run) fn queue(&mut self, id: TokenId) -> u64 {
        self.turns += 1;
        self.queue.insert(self.turns, id);
        self.turns
    }
}

impl Live {
    /// A mutex that nobody holds while somebody waits for it, and whose turn it is.
    pub fn next_turn(&self) -> Option<(&String, TokenId)> {
        let mut free = self.mutexes.iter().filter(|(_, mutex)| mutex.holder.is_none());
        free.find_map(|(name, mutex)| Some((name, *mutex.queue.values().next()?)))
    }
}
