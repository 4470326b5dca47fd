//! What a run did, in lines: which nodes began, ended, failed or were withdrawn, and at which
//! a token waited for a mutex (`block`) and was let in (`enter`), in order.

use std::collections::BTreeMap;

use domain::run::event::TokenId;
use domain::run::state::Phase;
use domain::run::{Event, Run};

/// The lines so far, and the run that its events were folded into.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) run: Run,
    pub(crate) lines: Vec<String>,
}

impl Trace {
    /// Takes the next event. What began and what is gone is seen in the run before and after it.
    pub(crate) fn take(&mut self, event: &Event, at: chrono::DateTime<chrono::Utc>) {
        let before = self.standing();
        let phase = |id: &TokenId| Some(&self.run.live()?.tokens.get(id)?.phase);
        let failed = matches!(event, Event::TokenRouted { token, .. }
            if phase(token).is_some_and(|phase| phase.error().is_some()));
        let was_blocked = matches!(event, Event::MutexTaken { token, .. }
            if matches!(phase(token), Some(Phase::Blocked { .. })));
        let routed = match event {
            Event::TokenRouted { token, .. } => Some(*token),
            _ => None,
        };
        self.run.evolve(event, at);
        let after = self.standing();
        for (token, node) in before.iter().filter(|(token, _)| !after.contains_key(token)) {
            let how = match routed {
                Some(id) if id == *token && failed => "fail",
                Some(id) if id == *token => "end",
                _ => "withdraw",
            };
            self.lines.push(format!("{how} {node}"));
        }
        match event {
            Event::MutexAwaited { token, .. } => self.lines.push(format!("block {}", after[token])),
            Event::MutexTaken { token, .. } if was_blocked => {
                self.lines.push(format!("enter {}", after[token]));
            }
            _ => {}
        }
        for (_, node) in after.iter().filter(|(token, _)| !before.contains_key(token)) {
            self.lines.push(format!("begin {node}"));
        }
    }

    fn standing(&self) -> BTreeMap<TokenId, String> {
        let tokens = self.run.live().map(|live| live.tokens.iter());
        tokens.into_iter().flatten().map(|(id, token)| (*id, token.node.to_string())).collect()
    }
}
