//! How mutexes change hands.

use std::sync::Arc;

use crate::run::event::TokenId;
use crate::run::state::{Live, Phase};

impl Live {
    pub(super) fn queue_for(&mut self, id: TokenId, name: &str) {
        if self.tokens.contains_key(&id) {
            let turn = self.mutexes.entry(name.to_owned()).or_default().queue(id);
            self.set_phase(id, Phase::Blocked { mutex: Arc::from(name), turn });
        }
    }

    pub(super) fn let_in(&mut self, id: TokenId, name: &str) {
        let Some(token) = self.tokens.get(&id) else { return };
        let mutex = self.mutexes.entry(name.to_owned()).or_default();
        mutex.holder = Some(id);
        if let Phase::Blocked { turn, .. } = token.phase {
            mutex.queue.remove(&turn);
            self.set_phase(id, Phase::Working { attempt: 1 });
        }
    }

    /// A token is gone from its node: it holds no mutex and waits for none.
    pub(super) fn release(&mut self, id: TokenId, phase: &Phase) {
        let name = match phase {
            Phase::Blocked { mutex, .. } => Some(mutex.to_string()),
            _ => {
                let mut held = self.mutexes.iter().filter(|(_, one)| one.holder == Some(id));
                held.next().map(|(name, _)| name.clone())
            }
        };
        let Some((name, mutex)) = name.and_then(|name| {
            let mutex = self.mutexes.get_mut(&name)?;
            Some((name, mutex))
        }) else {
            return;
        };
        match phase {
            Phase::Blocked { turn, .. } => drop(mutex.queue.remove(turn)),
            _ => mutex.holder = None,
        }
        if mutex.holder.is_none() && mutex.queue.is_empty() {
            self.mutexes.remove(&name);
        }
    }
}
