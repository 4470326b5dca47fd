//! How a part of a run is ended: what it consists of is derived from what defines it.

use std::collections::BTreeSet;

use crate::run::event::{Extent, InstanceId, Region, TokenId, TokensCancelled};
use crate::run::state::{Branch, Instance, Live};

impl Live {
    /// The branches around one, innermost first.
    pub(crate) fn around(&self, branch: Option<Branch>) -> impl Iterator<Item = Branch> {
        std::iter::successors(branch, |branch| self.instances.get(&branch.instance)?.parent.branch)
    }

    /// What a region consists of where a token acts.
    pub(crate) fn extent<'a>(
        &self,
        by: TokenId,
        within: Option<Branch>,
        region: &'a Region,
    ) -> Extent<'a> {
        let branch = self.tokens.get(&by).and_then(|token| token.branch);
        Extent::new(by, within, region, self.around(branch))
    }

    /// The group instances that a region takes away.
    pub(crate) fn instances_in(&self, extent: &Extent<'_>) -> Vec<InstanceId> {
        let is_taken = |id: InstanceId, instance: &Instance| {
            let around = self.around(instance.parent.branch);
            extent.takes_instance(id, instance.group.as_deref(), around)
        };
        let found = self.instances.iter().filter(|(id, instance)| is_taken(**id, instance));
        found.map(|(id, _)| *id).collect()
    }

    /// The tokens that a region ends, apart from those inside its group instances.
    fn tokens_in(&self, extent: &Extent<'_>) -> Vec<TokenId> {
        let found = self
            .tokens
            .iter()
            .filter(|(id, token)| extent.takes_token(**id, &token.node, self.around(token.branch)));
        found.map(|(id, _)| *id).collect()
    }

    /// How many tokens a region ends, and whether there is anything to end.
    pub(crate) fn size_of(&self, extent: &Extent<'_>) -> (u64, bool) {
        let instances: BTreeSet<_> = self.instances_in(extent).into_iter().collect();
        let own: BTreeSet<_> = self.tokens_in(extent).into_iter().collect();
        let is_inside =
            |branch| self.around(branch).any(|around| instances.contains(&around.instance));
        let ends = |(id, branch): (&TokenId, _)| own.contains(id) || is_inside(branch);
        let tokens = self.tokens.iter().map(|(id, token)| (id, token.branch));
        let count = tokens.filter(|token| ends(*token)).count() as u64;
        (count, count > 0 || !instances.is_empty() || !self.unmade_in(extent).is_empty())
    }

    /// Branches that were to be made at a node of a region, and aren't any more.
    fn unmade_in(&self, extent: &Extent<'_>) -> Vec<Branch> {
        let mut unmade = Vec::new();
        for (id, instance) in self.instances.iter().filter(|(_, one)| one.unmade() > 0) {
            for index in instance.spawned..instance.declared {
                let branch = Branch { instance: *id, index };
                let node = instance.branches_of(index).map(|branches| branches.node.as_str());
                if !instance.ended.contains(&index)
                    && node.is_some_and(|node| extent.takes_at(node, self.around(Some(branch))))
                {
                    unmade.push(branch);
                }
            }
        }
        unmade
    }

    pub(super) fn cancel(&mut self, cancelled: &TokensCancelled) {
        let extent = self.extent(cancelled.by, cancelled.within, &cancelled.region);
        for id in self.instances_in(&extent) {
            // One inside another is gone with it.
            if let Some(gone) = self.remove_instance(id)
                && let Some(branch) = gone.parent.branch
            {
                self.end_part(branch);
            }
        }
        for branch in self.unmade_in(&extent) {
            if let Some(instance) = self.instances.get_mut(&branch.instance) {
                instance.ended.insert(branch.index);
                let unmade = instance.unmade();
                instance.skip_ended();
                self.unmade -= unmade - instance.unmade();
            }
        }
        for id in self.tokens_in(&extent) {
            if let Some(branch) = self.remove_token(id).and_then(|token| token.branch) {
                self.end_part(branch);
            }
        }
    }
}
