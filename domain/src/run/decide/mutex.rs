//! Mutexes: at most one token is in the nodes of one at a time. A token holds at most one, for as
//! long as it is in its node, so none waits for another in a circle.

use super::Decider;
use crate::run::event::{Event, TokenId};

impl Decider<'_> {
    /// Whether a token that came to a node of a mutex has it; else it waits for its turn.
    pub(super) fn gets(&mut self, id: TokenId, name: &str) -> bool {
        let Some(live) = self.live() else { return false };
        let (token, mutex) = (id, name.to_owned());
        match live.mutexes.get(name) {
            Some(of_name) if of_name.holder == Some(id) => true,
            Some(_) => {
                self.emit(Event::MutexAwaited { token, mutex });
                false
            }
            None => {
                self.emit(Event::MutexTaken { token, mutex });
                true
            }
        }
    }

    /// Lets in who has waited longest for a mutex that is free; answers whether there was one.
    pub(super) fn pass_on_mutex(&mut self) -> bool {
        let Some((name, token)) = self.live().and_then(|live| live.next_turn()) else {
            return false;
        };
        let mutex = name.clone();
        if self.is_full() {
            self.decision.advance = true;
            return false;
        }
        self.emit(Event::MutexTaken { token, mutex });
        self.fresh.push(token);
        true
    }
}
