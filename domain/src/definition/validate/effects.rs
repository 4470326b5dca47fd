//! Checking what transitions do to the rest of the run: that what they end or complete is there.

use std::collections::BTreeSet;

use super::super::{CancelNodes, ProblemCode};
use super::Checker;
use crate::expression::closest;

pub(super) fn check(checker: &mut Checker<'_>) {
    let transitions = &checker.definition.transitions;
    let opened: BTreeSet<&str> =
        transitions.iter().filter_map(|one| one.group.as_deref()).collect();
    for (index, transition) in transitions.iter().enumerate() {
        let place = format!("/transitions/{index}");
        if let Some(cancel) = &transition.cancel {
            let place = format!("{place}/cancel");
            if cancel.nodes.is_some() == cancel.group.is_some() {
                let message = "give exactly one of `nodes` (a list, or `all`) and `group`";
                checker.problem(ProblemCode::InvalidValue, &place, message);
            }
            if let Some(CancelNodes::These(nodes)) = &cancel.nodes {
                for (at, node) in nodes.iter().enumerate() {
                    checker.names_node(&format!("{place}/nodes/{at}"), node);
                }
            }
            if let Some(group) = &cancel.group {
                names_group(checker, &format!("{place}/group"), group, &opened);
            }
        }
        if let Some(group) = &transition.extend {
            names_group(checker, &format!("{place}/extend"), group, &opened);
        }
        if let Some(group) = &transition.complete {
            names_group(checker, &format!("{place}/complete"), group, &opened);
        }
    }
}

fn names_group(checker: &mut Checker<'_>, place: &str, group: &str, opened: &BTreeSet<&str>) {
    if opened.contains(group) {
        return;
    }
    let like = closest(group, opened.iter().copied());
    let hint = like.map_or_else(String::new, |like| format!(", did you mean {like:?}?"));
    let message = format!("no transition opens the group {group:?}{hint}");
    checker.suggest(ProblemCode::UnknownGroup, place, message, like);
}
