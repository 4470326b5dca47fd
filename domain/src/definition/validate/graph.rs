//! Checking the graph: what can be reached, and that every cycle is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::ProblemCode;
use super::super::problem::escaped;
use super::Checker;

pub(super) fn check(checker: &mut Checker<'_>) {
    let start = checker.definition.start.clone();
    checker.names_node("/start", &start);
    if checker.definition.nodes.contains_key(&start) {
        reachable(checker, &start);
    }
    bounded(checker);
}

fn reachable(checker: &mut Checker<'_>, start: &str) {
    let definition = checker.definition;
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for transition in &definition.transitions {
        next.entry(&transition.from).or_default().push(&transition.to);
    }
    let mut seen: BTreeSet<&str> = BTreeSet::from([start]);
    let mut queue: VecDeque<&str> = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for to in next.get(node).into_iter().flatten() {
            if seen.insert(to) {
                queue.push_back(to);
            }
        }
    }
    for name in definition.nodes.keys().filter(|name| !seen.contains(name.as_str())) {
        let message = format!("no path from {start:?} leads to {name:?}: connect it or drop it");
        checker.problem(
            ProblemCode::UnreachableNode,
            &format!("/nodes/{}", escaped(name)),
            message,
        );
    }
}

/// A cycle is bounded where one of its transitions has `max_iterations`: without those
/// transitions, the rest of the graph must have no cycle.
fn bounded(checker: &mut Checker<'_>) {
    let mut edges: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
    for (index, transition) in checker.definition.transitions.iter().enumerate() {
        if transition.max_iterations.is_none() {
            edges.entry(&transition.from).or_default().push((index, &transition.to));
        }
    }
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut found: Vec<(usize, String)> = Vec::new();
    for start in edges.keys().copied() {
        if done.contains(start) {
            continue;
        }
        // The path from the start, each node with the number of its edges that were followed.
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        let mut on_path: BTreeSet<&str> = BTreeSet::from([start]);
        while let Some((node, followed)) = path.last_mut() {
            let edge = edges.get(*node).and_then(|edges| edges.get(*followed)).copied();
            *followed += 1;
            let Some((index, to)) = edge else {
                done.insert(*node);
                on_path.remove(*node);
                path.pop();
                continue;
            };
            if on_path.contains(to) {
                let from = path.iter().position(|(node, _)| *node == to).unwrap_or(0);
                let cycle: Vec<_> = path[from..].iter().map(|(node, _)| *node).collect();
                found.push((index, format!("{} → {to}", cycle.join(" → "))));
            } else if !done.contains(to) {
                on_path.insert(to);
                path.push((to, 0));
            }
        }
    }
    for (index, cycle) in found {
        let message =
            format!("the cycle {cycle} has no bound: give one of its transitions `max_iterations`");
        checker.problem(ProblemCode::UnboundedLoop, &format!("/transitions/{index}"), message);
    }
}
