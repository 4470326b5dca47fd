//! Checking whose branches come to a join: one that only others reach can never work.
//!
//! A token is a branch of the group that was opened around it last, and joins only that one. So
//! the graph is walked with the groups that are open; where that is undecided, nothing is said.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{ProblemCode, Transition};
use super::Checker;

/// The groups around a token, innermost last; `None` for a fan-out without a name.
type Groups<'d> = Vec<Option<&'d str>>;

/// Groups inside each other, beyond which a graph is left undecided.
const DEPTH: usize = 8;
/// Nodes with the groups open at them, beyond which a graph is left undecided.
const STATES: usize = 20_000;

pub(super) fn check(checker: &mut Checker<'_>) {
    // What is wrong with the graph itself would be told twice.
    let has_joins = checker.definition.transitions.iter().any(|one| one.join.is_some());
    if !(has_joins && checker.problems.is_empty()) {
        return;
    }
    let Some(seen) = walk(&checker.definition.start, &checker.definition.transitions) else {
        return;
    };
    for (index, transition) in checker.definition.transitions.iter().enumerate() {
        let Some(at) = seen.get(transition.from.as_str()) else { continue };
        acts_from_outside(checker, index, transition, at);
        if let Some(group) = &transition.extend
            && !at.iter().any(|groups| groups.contains(&Some(group.as_str())))
        {
            let message = format!("the group {group:?} isn't open where this is taken");
            let pointer = format!("/transitions/{index}/extend");
            checker.problem(ProblemCode::UnknownGroup, &pointer, message);
        }
        let Some(join) = &transition.join else { continue };
        let group = join.group.as_str();
        if at.iter().any(|groups| groups.last() == Some(&Some(group))) {
            continue;
        }
        let around = match at.iter().next().and_then(|groups| groups.last()) {
            None => "of no group".to_owned(),
            Some(None) => "of a fan-out without a `group` inside it".to_owned(),
            Some(Some(other)) => format!("of the group {other:?}, which comes first"),
        };
        let message =
            format!("no branch of the group {group:?} comes here: what does is a branch {around}",);
        let pointer = format!("/transitions/{index}/join/group");
        checker.problem(ProblemCode::UnknownGroup, &pointer, message);
    }
}

/// A group isn't cancelled or completed from inside: the token that does it would go with it.
fn acts_from_outside(
    checker: &mut Checker<'_>,
    index: usize,
    transition: &Transition,
    at: &BTreeSet<Groups<'_>>,
) {
    let cancelled = transition.cancel.as_ref().and_then(|cancel| cancel.group.as_deref());
    let named = [("cancel/group", cancelled), ("complete", transition.complete.as_deref())];
    for (key, group) in named {
        let is_around = |groups: &Groups<'_>| group.is_some() && groups.contains(&group);
        if !at.is_empty() && at.iter().all(is_around) {
            let group = group.unwrap_or_default();
            let message = format!(
                "only branches of the group {group:?} come here, and a branch doesn't end its own \
                 group: join it with `wait: any`, or act from beside the group"
            );
            let pointer = format!("/transitions/{index}/{key}");
            checker.problem(ProblemCode::InvalidValue, &pointer, message);
        }
    }
}

/// For each node the groups that may be open where a token is at it; `None` where there are too
/// many to say.
fn walk<'d>(
    start: &'d str,
    transitions: &'d [Transition],
) -> Option<BTreeMap<&'d str, BTreeSet<Groups<'d>>>> {
    let mut next: BTreeMap<&str, Vec<&Transition>> = BTreeMap::new();
    for transition in transitions {
        next.entry(&transition.from).or_default().push(transition);
    }
    let mut seen: BTreeMap<&str, BTreeSet<Groups<'d>>> = BTreeMap::new();
    let mut count = 0;
    let mut open = vec![(start, Groups::new())];
    while let Some((node, groups)) = open.pop() {
        if !seen.entry(node).or_default().insert(groups.clone()) {
            continue;
        }
        count += 1;
        if count > STATES || groups.len() > DEPTH {
            return None;
        }
        let leaving = next.get(node).map_or(&[][..], Vec::as_slice);
        for transition in leaving {
            for groups in after(&groups, transition, leaving) {
                open.push((&transition.to, groups));
            }
        }
    }
    Some(seen)
}

/// The groups that may be open after a transition.
fn after<'d>(
    groups: &Groups<'d>,
    transition: &'d Transition,
    leaving: &[&Transition],
) -> Vec<Groups<'d>> {
    let inside = |group: Option<&'d str>| {
        let mut inside = groups.clone();
        inside.push(group);
        inside
    };
    if let Some(join) = &transition.join {
        let is_branch = groups.last() == Some(&Some(join.group.as_str()));
        return is_branch.then(|| groups[..groups.len() - 1].to_vec()).into_iter().collect();
    }
    if let Some(group) = &transition.extend {
        let open = groups.iter().rposition(|around| *around == Some(group.as_str()));
        return open.map(|at| groups[..=at].to_vec()).into_iter().collect();
    }
    if let Some(group) = &transition.group {
        return vec![inside(Some(group))];
    }
    if transition.spawn.is_some() || transition.foreach.is_some() {
        return vec![inside(None)];
    }
    // One of several that fire together makes branches; alone it moves the token.
    let fires_beside = |other: &&&Transition| {
        !std::ptr::eq(**other, transition)
            && other.join.is_none()
            && other.extend.is_none()
            && other.priority == transition.priority
    };
    match leaving.iter().find(fires_beside) {
        Some(_) => vec![groups.clone(), inside(None)],
        None => vec![groups.clone()],
    }
}
