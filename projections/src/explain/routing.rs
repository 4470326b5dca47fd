//! The transitions of a definition, and what became of them where a token left its node.

use domain::definition::{Definition, On, Transition};
use domain::run::decide::fits;
use domain::run::event::{Fired, TransitionIndex};
use protocol::explanation::{LedTo, Left, Looked};
use serde_json::{Map, Value};

use super::trace::Routed;

/// A transition that led nowhere.
pub(super) const NOTHING: LedTo = LedTo {
    token: None,
    instance: None,
    branches: None,
    arrived: false,
    late: false,
    iteration: None,
};

/// The transitions of a definition, by their places in it.
pub(super) struct Transitions<'d>(Vec<(TransitionIndex, &'d Transition)>);

impl<'d> Transitions<'d> {
    pub(super) fn of(definition: &'d Definition) -> Self {
        Self((0..).zip(&definition.transitions).collect())
    }

    /// Those that lead to a node.
    pub(super) fn leading_to<'s>(
        &'s self,
        node: &'s str,
    ) -> impl Iterator<Item = (TransitionIndex, &'d Transition)> + 's {
        self.0.iter().copied().filter(move |(_, one)| one.to == node)
    }

    /// Those from a node, in the order in which they are looked at.
    fn from(&self, node: &str) -> Vec<(TransitionIndex, &'d Transition)> {
        let mut from: Vec<_> = self.0.iter().copied().filter(|(_, one)| one.from == node).collect();
        from.sort_by_key(|(index, one)| (one.priority, *index));
        from
    }

    /// A transition that fired.
    pub(super) fn fired(
        &self,
        index: TransitionIndex,
        read: Map<String, Value>,
        led_to: Option<LedTo>,
    ) -> Option<Looked> {
        let (_, one) = self.0.get(usize::from(index))?;
        Some(Looked { read, led_to, ..looked(index, one, "fired") })
    }

    /// How a token left a node.
    pub(super) fn left(&self, node: &str, routed: &Routed) -> Left {
        let from = self.from(node).into_iter();
        let outcome = if routed.error.is_some() { "failure" } else { "success" };
        Left {
            sequence: routed.sequence,
            outcome: outcome.to_owned(),
            failed: routed.failed,
            transitions: from.map(|(index, one)| verdict(index, one, routed)).collect(),
        }
    }

    /// What became of one transition there.
    pub(super) fn one(&self, index: TransitionIndex, routed: &Routed) -> Option<Looked> {
        let (_, one) = self.0.get(usize::from(index))?;
        Some(verdict(index, one, routed))
    }
}

fn looked(index: TransitionIndex, one: &Transition, verdict: &str) -> Looked {
    let on = match one.on {
        On::Success => "success",
        On::Failure => "failure",
        On::Timeout => "timeout",
        On::Rejected => "rejected",
    };
    Looked {
        transition: index,
        from: one.from.clone(),
        to: one.to.clone(),
        tier: one.priority,
        on: on.to_owned(),
        when: one.when.clone(),
        verdict: verdict.to_owned(),
        read: Map::new(),
        led_to: None,
    }
}

/// What stands in the event decides: what fired, what was looked at. Only why something wasn't
/// looked at is told by the definition.
fn verdict(index: TransitionIndex, one: &Transition, routed: &Routed) -> Looked {
    let considered = routed.considered.iter().find(|other| other.transition == index);
    let read = considered.map(|considered| considered.read.clone()).unwrap_or_default();
    let led_to = led_to(index, routed);
    let verdict = match considered {
        _ if led_to.is_some() => "fired",
        Some(considered) if considered.held => "fired",
        Some(_) => "not_held",
        None if !fits(one.on, routed.error.as_ref()) => "other_outcome",
        None => "earlier_tier",
    };
    Looked { read, led_to, ..looked(index, one, verdict) }
}

fn led_to(index: TransitionIndex, routed: &Routed) -> Option<LedTo> {
    let fired = routed.fired.iter().find_map(|fired| match fired {
        Fired::Moved { transition, token, iteration, .. } if *transition == index => {
            Some(LedTo { token: Some(*token), iteration: *iteration, ..NOTHING })
        }
        Fired::Arrived { transition, instance, late, .. } if *transition == index => {
            let instance = Some(*instance);
            Some(LedTo { instance, arrived: true, late: *late, ..NOTHING })
        }
        Fired::Moved { .. } | Fired::Arrived { .. } => None,
    });
    let opened = routed.opened.iter();
    let opened = opened.flat_map(|one| one.branches.iter().map(|of| (one.instance, of)));
    let extended = routed.extended.iter().map(|one| (one.instance, &one.branches));
    let mut made = opened.chain(extended).filter(|(_, of)| of.transition == index);
    fired.or_else(|| {
        let (instance, of) = made.next()?;
        let (instance, branches) = (Some(instance), Some(of.count));
        Some(LedTo { instance, branches, iteration: of.iteration, ..NOTHING })
    })
}
