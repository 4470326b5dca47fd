//! How a part of a run is ended: what it consists of is derived from what defines it.

use std::collections::BTreeSet;

use crate::run::event::{InstanceId, Region, TokenId, TokensCancelled};
use crate::run::state::{Branch, Live};

impl Live {
    /// The branches around one, innermost first.
    pub(crate) fn around(&self, branch: Option<Branch>) -> impl Iterator<Item = Branch> {
        std::iter::successors(branch, |branch| self.instances.get(&branch.instance)?.parent.branch)
    }

    fn is_within(&self, branch: Option<Branch>, within: Option<Branch>) -> bool {
        within.is_none_or(|within| self.around(branch).any(|around| around == within))
    }

    /// The groups that a region takes away: those of its name, or all, but none that is around the
    /// token which acts.
    pub(crate) fn groups_of(
        &self,
        by: TokenId,
        within: Option<Branch>,
        region: &Region,
    ) -> Vec<InstanceId> {
        let own = self.tokens.get(&by).and_then(|token| token.branch);
        let around: BTreeSet<_> = self.around(own).map(|branch| branch.instance).collect();
        let is_meant = |group: Option<&String>| match region {
            Region::Nodes(_) => false,
            Region::Group(name) => group == Some(name),
            Region::All => true,
        };
        let found = self.instances.iter().filter(|(id, instance)| {
            is_meant(instance.group.as_ref())
                && !around.contains(id)
                && self.is_within(instance.parent.branch, within)
        });
        found.map(|(id, _)| *id).collect()
    }

    /// The tokens that a region ends, apart from those inside its groups.
    fn tokens_of(&self, by: TokenId, within: Option<Branch>, region: &Region) -> Vec<TokenId> {
        let is_meant = is_meant(region);
        let found = self.tokens.iter().filter(|(id, token)| {
            **id != by && is_meant(&token.node) && self.is_within(token.branch, within)
        });
        found.map(|(id, _)| *id).collect()
    }

    /// How many tokens a region ends, and whether there is anything to end.
    pub(crate) fn size_of_region(
        &self,
        by: TokenId,
        within: Option<Branch>,
        region: &Region,
    ) -> (u64, bool) {
        let groups: BTreeSet<_> = self.groups_of(by, within, region).into_iter().collect();
        let own: BTreeSet<_> = self.tokens_of(by, within, region).into_iter().collect();
        let is_inside =
            |branch| self.around(branch).any(|around| groups.contains(&around.instance));
        let ends = |(id, branch): (&TokenId, _)| own.contains(id) || is_inside(branch);
        let tokens = self.tokens.iter().map(|(id, token)| (id, token.branch));
        let count = tokens.filter(|token| ends(*token)).count() as u64;
        (count, count > 0 || !groups.is_empty() || !self.unmade(within, region).is_empty())
    }

    /// Branches that were to be made at a node of a region, and aren't any more.
    fn unmade(&self, within: Option<Branch>, region: &Region) -> Vec<Branch> {
        let is_meant = is_meant(region);
        let mut unmade = Vec::new();
        for (id, instance) in self.instances.iter().filter(|(_, one)| one.spawned < one.declared) {
            for index in instance.spawned..instance.declared {
                let branch = Branch { instance: *id, index };
                let node = instance.branches_of(index).map(|branches| branches.node.as_str());
                if node.is_some_and(&is_meant)
                    && !instance.ended.contains(&index)
                    && self.is_within(Some(branch), within)
                {
                    unmade.push(branch);
                }
            }
        }
        unmade
    }

    pub(super) fn cancel(&mut self, cancelled: &TokensCancelled) {
        let TokensCancelled { by, within, region, .. } = cancelled;
        for id in self.groups_of(*by, *within, region) {
            // One inside another is gone with it.
            if let Some(gone) = self.remove_instance(id)
                && let Some(branch) = gone.parent.branch
            {
                self.end_part(branch);
            }
        }
        for branch in self.unmade(*within, region) {
            if let Some(instance) = self.instances.get_mut(&branch.instance) {
                instance.ended.insert(branch.index);
                instance.skip_ended();
            }
        }
        for id in self.tokens_of(*by, *within, region) {
            if let Some(branch) = self.remove_token(id).and_then(|token| token.branch) {
                self.end_part(branch);
            }
        }
    }
}

/// Whether tokens at a node are of a region.
fn is_meant(region: &Region) -> impl Fn(&str) -> bool {
    let nodes: Option<BTreeSet<&str>> = match region {
        Region::Nodes(nodes) => Some(nodes.iter().map(String::as_str).collect()),
        Region::Group(_) => Some(BTreeSet::new()),
        Region::All => None,
    };
    move |node| nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
}
