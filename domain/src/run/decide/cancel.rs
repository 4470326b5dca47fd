//! What a transition does to the rest of the run: it ends a part of it, or completes a group.

use super::Decider;
use crate::definition::plan::FanOut;
use crate::run::event::{Event, InstanceId, Region, TokenId, TokensCancelled, TransitionIndex};
use crate::run::state::Branch;

impl Decider<'_> {
    /// The part of the run that a token's effects reach: the branch of a `foreach`, `spawn` or
    /// `extend` that it is in, or else the whole run. Plain splits are ways of one and the same
    /// matter.
    fn reach(&self, by: TokenId) -> Option<Branch> {
        let live = self.live()?;
        let mut around = live.around(live.tokens.get(&by)?.branch);
        around.find(|branch| {
            let instance = live.instances.get(&branch.instance);
            let opened = instance.and_then(|instance| instance.branches_of(branch.index));
            let transition = opened.and_then(|opened| self.plan.transition(opened.transition));
            transition.is_some_and(|transition| {
                transition.adds() || !matches!(transition.fan_out, FanOut::One)
            })
        })
    }

    /// Ends what fired transitions cancel.
    pub(super) fn cancel(&mut self, by: TokenId, effects: &[TransitionIndex]) {
        let plan = self.plan;
        for index in effects {
            let cancel = plan.transition(*index).and_then(|one| one.cancel.as_ref());
            let (Some(region), Some(live)) = (cancel, self.live()) else { continue };
            let within = self.reach(by);
            let (tokens, has_any) = live.size_of(&live.extent(by, within, region));
            if !has_any {
                continue;
            }
            self.emit(Event::TokensCancelled(Box::new(TokensCancelled {
                by,
                transition: *index,
                within,
                region: region.clone(),
                tokens,
            })));
            let instances: Vec<_> =
                self.live().iter().flat_map(|live| live.instances.keys().copied()).collect();
            self.touched.extend(instances);
        }
    }

    /// The instances of groups that fired transitions complete.
    pub(super) fn completed(&self, by: TokenId, effects: &[TransitionIndex]) -> Vec<InstanceId> {
        let Some(live) = self.live() else { return Vec::new() };
        let groups = effects.iter().filter_map(|index| {
            let group = self.plan.transition(*index)?.complete.clone()?;
            Some(Region::Group(group))
        });
        groups
            .flat_map(|group| live.instances_in(&live.extent(by, self.reach(by), &group)))
            .collect()
    }

    /// Their joins fire with what has arrived.
    pub(super) fn complete_groups(&mut self, by: TokenId, instances: &[InstanceId]) {
        let plan = self.plan;
        for id in instances {
            let instance = self.live().and_then(|live| live.instances.get(id));
            let open = instance.filter(|instance| !instance.fired);
            if let Some(join) = open.and_then(|instance| plan.join(instance.group.as_deref())) {
                self.fire_join(*id, join, JoinCause::Completed(by));
            }
        }
    }
}

/// Why a join fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinCause {
    /// Enough branches have come.
    Satisfied,
    /// Its time is up.
    TimedOut,
    /// This token took a transition that completes the group.
    Completed(TokenId),
}
