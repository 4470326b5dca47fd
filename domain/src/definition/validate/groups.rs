//! Checking fan-outs and joins: that each join has its group, and each named group its join.

use std::collections::BTreeMap;

use super::super::{JoinSpec, JoinWait, ProblemCode, Transition};
use super::Checker;
use crate::expression::closest;

pub(super) fn check(checker: &mut Checker<'_>) {
    let transitions = &checker.definition.transitions;
    let mut opened: BTreeMap<&str, usize> = BTreeMap::new();
    let mut joined: BTreeMap<&str, (usize, &JoinSpec, &str)> = BTreeMap::new();
    for (index, transition) in transitions.iter().enumerate() {
        if let Some(group) = &transition.group {
            opened.entry(group).or_insert(index);
        }
        let place = format!("/transitions/{index}");
        if transition.group.is_some() && transition.extend.is_some() {
            let message = "`group` opens a group and `extend` adds to an open one: leave one out";
            checker.problem(ProblemCode::InvalidValue, &format!("{place}/extend"), message);
        }
        let Some(join) = &transition.join else { continue };
        one_thing(checker, &place, transition);
        bounds(checker, &place, join);
        let Some((first, spec, to)) = joined.get(join.group.as_str()).copied() else {
            joined.insert(&join.group, (index, join, &transition.to));
            continue;
        };
        if to != transition.to {
            let message = format!(
                "the joins of group {:?} lead to {to:?} (/transitions/{first}) and {:?}: \
                 one group is joined at one node",
                join.group, transition.to
            );
            checker.problem(ProblemCode::JoinDisagreement, &format!("{place}/to"), message);
        } else if transitions[first].max_iterations != transition.max_iterations {
            let message = format!(
                "the joins of group {:?} differ in `max_iterations` (/transitions/{first}): \
                 one join has one bound",
                join.group
            );
            let pointer = format!("{place}/max_iterations");
            checker.problem(ProblemCode::JoinDisagreement, &pointer, message);
        } else if !agree(spec, join) {
            let message = format!(
                "this join of group {:?} differs from the one in /transitions/{first}: \
                 write both alike (only `merge.from` may differ)",
                join.group
            );
            checker.problem(ProblemCode::JoinDisagreement, &format!("{place}/join"), message);
        }
    }
    for (group, (index, ..)) in &joined {
        if !opened.contains_key(group) {
            let like = closest(group, opened.keys().copied());
            let hint = like.map_or_else(String::new, |like| format!(", did you mean {like:?}?"));
            let message = format!("no transition opens the group {group:?}{hint}");
            let pointer = format!("/transitions/{index}/join/group");
            checker.suggest(ProblemCode::UnknownGroup, &pointer, message, like);
        }
    }
    for (group, index) in &opened {
        if !joined.contains_key(group) {
            let message = format!(
                "nothing joins the group {group:?}: add `join: {{group: {group}}}` where its \
                 branches meet, or leave out `group`"
            );
            let pointer = format!("/transitions/{index}/group");
            checker.problem(ProblemCode::MissingJoin, &pointer, message);
        }
    }
}

/// A transition either makes branches or brings one to its join.
fn one_thing(checker: &mut Checker<'_>, place: &str, transition: &Transition) {
    let fans_out = [
        ("spawn", transition.spawn.is_some()),
        ("foreach", transition.foreach.is_some()),
        ("group", transition.group.is_some()),
        ("extend", transition.extend.is_some()),
    ];
    for (key, _) in fans_out.iter().filter(|(_, is_there)| *is_there) {
        let message = format!(
            "`join` and `{key}` exclude each other: join first, and fan out from the node after"
        );
        checker.problem(ProblemCode::InvalidValue, &format!("{place}/{key}"), message);
    }
}

fn bounds(checker: &mut Checker<'_>, place: &str, join: &JoinSpec) {
    if join.wait == JoinWait::Count(0) {
        let message = "wait must be `all`, `any` or a number from 1";
        checker.problem(ProblemCode::InvalidValue, &format!("{place}/join/wait"), message);
    }
}

/// Whether two joins are one: everything but what each branch brings.
fn agree(left: &JoinSpec, right: &JoinSpec) -> bool {
    let plain = |join: &JoinSpec| {
        let mut join = join.clone();
        if let Some(merge) = &mut join.merge {
            merge.from = None;
        }
        join
    };
    plain(left) == plain(right)
}
