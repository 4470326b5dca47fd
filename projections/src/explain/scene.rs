//! What a search knows of a run around the events that it has found: enough to tell what they mean,
//! without the states between them.

use std::collections::HashMap;

use domain::run::event::{InstanceId, OpenedBranches, TokenId};
use domain::run::state::Branch;
use domain::run::{Event, RunError};

use super::search::{Group, Place};
use super::trace::Before;

/// See the head of the file.
pub(super) struct Scene {
    /// Of the tokens that events are told of.
    places: HashMap<TokenId, Place>,
    groups: HashMap<InstanceId, Group>,
    /// What they have failed with so far.
    errors: HashMap<TokenId, RunError>,
}

impl Scene {
    pub(super) fn of(places: HashMap<TokenId, Place>, groups: HashMap<InstanceId, Group>) -> Self {
        Self { places, groups, errors: HashMap::new() }
    }

    /// Where a token stands: its node, its branch, and the name of that group.
    pub(super) fn place(&self, token: TokenId) -> Option<(&str, Option<Branch>, Option<String>)> {
        let place = self.places.get(&token)?;
        let group = place.branch.and_then(|branch| self.groups.get(&branch.instance));
        Some((&*place.node, place.branch, group.and_then(|group| group.name.clone())))
    }

    /// Takes what an event changes for those after it.
    pub(super) fn take(&mut self, event: &Event) {
        let failed = match event {
            Event::TaskFailed { token, error, retry_at: None, .. }
            | Event::NodeFailed { token, error } => Some((*token, error)),
            Event::GateClosed(gate) => gate.error.as_ref().map(|error| (gate.token, error)),
            Event::ChildEnded(child) => child.error.as_ref().map(|error| (child.token, error)),
            _ => None,
        };
        if let Some((token, error)) = failed {
            self.errors.insert(token, error.clone());
        }
    }
}

impl Before for Scene {
    fn node_of(&self, token: TokenId) -> Option<&str> {
        self.places.get(&token).map(|place| &*place.node)
    }

    fn error_of(&self, token: TokenId) -> Option<&RunError> {
        self.errors.get(&token)
    }

    fn branches_of(&self, instance: InstanceId, index: u64) -> Option<&OpenedBranches> {
        let mut end = 0;
        self.groups.get(&instance)?.branches.iter().find(|branches| {
            end += branches.count;
            index < end
        })
    }
}
