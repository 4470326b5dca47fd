//! What a transition ends, counted by the same rule as the engine's fold.

use std::collections::BTreeSet;

use domain::run::event::{InstanceId, Region, TokenId, TokensCancelled};

use super::{Branch, Progress};

impl Progress {
    pub(super) fn cancel(&mut self, cancelled: &TokensCancelled) {
        let TokensCancelled { by, within, region, .. } = cancelled;
        let own = self.tokens.get(by).and_then(|token| token.branch);
        let around: BTreeSet<_> = self.around(own).map(|branch| branch.instance).collect();
        let is_within = |branch: Option<Branch>| {
            within.is_none_or(|within| self.around(branch).any(|around| around == within))
        };
        let groups: Vec<InstanceId> = self
            .groups
            .iter()
            .filter(|(id, group)| {
                let is_meant = match region {
                    Region::Nodes(_) => false,
                    Region::Group(name) => group.name.as_ref() == Some(name),
                    Region::All => true,
                };
                is_meant && !around.contains(id) && is_within(group.parent)
            })
            .map(|(id, _)| *id)
            .collect();
        let tokens: Vec<TokenId> = self
            .tokens
            .iter()
            .filter(|(id, token)| {
                let is_meant = match region {
                    Region::Nodes(nodes) => nodes.contains(&self.nodes[token.node].node),
                    Region::Group(_) => false,
                    Region::All => true,
                };
                **id != *by && is_meant && is_within(token.branch)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in groups {
            self.take_back_group(id);
        }
        for id in tokens {
            self.take_back(id);
        }
    }
}
