//! What a transition ends, counted by the engine's own rule.

use domain::run::event::{Extent, InstanceId, TokenId, TokensCancelled};

use super::Progress;

impl Progress {
    pub(super) fn cancel(&mut self, cancelled: &TokensCancelled) {
        let TokensCancelled { by, within, region, .. } = cancelled;
        let own = self.tokens.get(by).and_then(|token| token.branch);
        let extent = Extent::new(*by, *within, region, self.around(own));
        let groups = self.groups.iter().filter(|(id, group)| {
            extent.takes_instance(**id, group.name.as_deref(), self.around(group.parent))
        });
        let groups: Vec<InstanceId> = groups.map(|(id, _)| *id).collect();
        let tokens = self.tokens.iter().filter(|(id, token)| {
            extent.takes_token(**id, &self.nodes[token.node].node, self.around(token.branch))
        });
        let tokens: Vec<TokenId> = tokens.map(|(id, _)| *id).collect();
        for id in groups {
            self.take_back_group(id);
        }
        for id in tokens {
            self.take_back(id);
        }
    }
}
