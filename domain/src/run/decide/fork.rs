//! A run that has another one's history goes on by itself.

use super::Decider;
use crate::run::decide::check_start;
use crate::run::error::Refusal;
use crate::run::event::{BranchPatch, Event, RunForked};
use crate::run::vars::size_of;
use crate::{codec, limits};

impl Decider<'_> {
    /// What the other run waited for is waited for here as well: its attempts, people, times,
    /// signals and children.
    pub(super) fn fork(&mut self, forked: &RunForked) -> Result<(), Refusal> {
        let plan = self.plan;
        let Some(live) = self.live() else { return Ok(()) };
        if live.compensation.is_some() {
            return Err(Refusal::ForkWhileUndoing);
        }
        let mut forked = forked.clone();
        // What stood still already was armed by the time at which that began.
        forked.since = live.still_since().unwrap_or(forked.since);
        let has_begun = live.in_queue.is_none() || live.header.fork.is_some();
        forked.deadline = plan.timeout.filter(|_| !has_begun).map(|timeout| {
            // The run's clock starts only here.
            self.now + timeout.as_duration()
        });
        if let Some(input) = &mut forked.input {
            *input = check_start(plan, input, live.header.labels.len())?;
        }
        for BranchPatch { token, patch } in &mut forked.branches {
            if live.tokens.get(token).is_none_or(|token| token.branch.is_none()) {
                return Err(Refusal::NoBranch { token: *token });
            }
            checked(patch)?;
        }
        forked.state.as_mut().map(checked).transpose()?;
        if let Some((id, token)) = live.tokens.iter().find(|(_, token)| {
            let is_there = plan.node(&token.node).is_some();
            !is_there
        }) {
            return Err(Refusal::NodeMissing { token: *id, node: token.node.to_string() });
        }
        self.emit(Event::RunForked(Box::new(forked)));
        self.take_up();
        Ok(())
    }

    /// All that is owed is to be done, by who does it; of a run in a queue nothing is.
    pub(super) fn take_up(&mut self) {
        let owed = self.run.owed(self.plan);
        self.decision.dispatch.extend(owed.attempts);
        self.decision.children.extend(owed.children);
        self.decision.advance |= owed.advance;
        self.wake();
    }
}

/// Checks a patch of `state`, and gives it the form that it has when it is read back.
fn checked(patch: &mut serde_json::Value) -> Result<(), Refusal> {
    let bytes = size_of(patch);
    if bytes > limits::INPUT_BYTES {
        return Err(Refusal::PatchTooLarge { bytes, limit: limits::INPUT_BYTES });
    }
    codec::normalise(patch).map_err(Refusal::PatchNotStorable)
}
