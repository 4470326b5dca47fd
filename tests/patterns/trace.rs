//! What a run did, in lines: which nodes began, ended, failed or were withdrawn, in order.

use std::collections::BTreeMap;

use domain::run::event::TokenId;
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
        let failed = matches!(event, Event::TokenRouted { token, .. }
            if self.has_failed(*token));
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
        for (_, node) in after.iter().filter(|(token, _)| !before.contains_key(token)) {
            self.lines.push(format!("begin {node}"));
        }
    }

    fn has_failed(&self, token: TokenId) -> bool {
        let token = self.run.live().and_then(|live| live.tokens.get(&token));
        token.is_some_and(|token| token.phase.error().is_some())
    }

    fn standing(&self) -> BTreeMap<TokenId, String> {
        let tokens = self.run.live().map(|live| live.tokens.iter());
        tokens.into_iter().flatten().map(|(id, token)| (*id, token.node.to_string())).collect()
    }
}
