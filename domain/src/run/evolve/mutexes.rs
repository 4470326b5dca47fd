//! How mutexes change hands.

use std::sync::Arc;

use crate::run::event::TokenId;
use crate::run::state::{Live, Phase};

impl Live {
    pub(super) fn queue_for(&mut self, id: TokenId, mutex: &str) {
        if self.tokens.contains_key(&id) {
            self.mutexes.entry(mutex.to_owned()).or_default().queue.push_back(id);
            self.set_phase(id, Phase::Blocked { mutex: Arc::from(mutex) });
        }
    }

    pub(super) fn let_in(&mut self, id: TokenId, mutex: &str) {
        let Some(token) = self.tokens.get(&id) else { return };
        let was_blocked = matches!(token.phase, Phase::Blocked { .. });
        let of_name = self.mutexes.entry(mutex.to_owned()).or_default();
        of_name.queue.retain(|queued| *queued != id);
        of_name.holder = Some(id);
        if was_blocked {
            self.set_phase(id, Phase::Working { attempt: 1 });
        }
    }

    /// A token is gone from its node: it holds no mutex and waits for none.
    pub(super) fn release(&mut self, id: TokenId) {
        for mutex in self.mutexes.values_mut() {
            if mutex.holder == Some(id) {
                mutex.holder = None;
            }
            mutex.queue.retain(|queued| *queued != id);
        }
        self.mutexes.retain(|_, mutex| mutex.holder.is_some() || !mutex.queue.is_empty());
    }
}
