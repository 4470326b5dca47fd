//! What moments of a run, and runs, differ in.

use domain::run::RunStatus;
use protocol::{DiffTo, RejectionKind, RunDiff, RunQueries, StateAt};

use super::driven::{Driven, judged};
use super::*;

async fn compared(world: &World, run: RunId, to: DiffTo) -> RunDiff {
    world.views.diff(ours(), run, to).await.expect("they are compared")
}

fn places(diff: &RunDiff) -> Vec<(&str, &str)> {
    diff.changes.iter().map(|change| (&*change.kind, &*change.pointer)).collect()
}

async fn two_moments_differ_in_what_happened_between_them(storage: Storage) {
    let world = World::new(storage).await;
    let mut driven = Driven::start(&world, 2, judged(), json!({"judges": ["ann", "bob"]})).await;
    driven.succeed(1, json!({"score": 5})).await;
    let early = driven.sequence;
    driven.succeed(2, json!(1)).await;
    driven.succeed(3, json!(1)).await;
    driven.succeed(4, json!(1)).await;
    let (from, to) = (StateAt::Sequence(1), StateAt::Sequence(early));
    let diff = compared(&world, driven.id, DiffTo::Moments { from, to }).await;
    assert_eq!((diff.left.sequence, diff.right.sequence), (1, early));
    assert_eq!(places(&diff), [("added", "/state/score")]);
    let nodes: Vec<_> = diff.nodes.iter().map(|one| (&*one.node, one.right.tokens)).collect();
    assert_eq!(nodes, [("draft", 1), ("judge", 2)]);
    assert_eq!((diff.nodes[0].left.succeeded, diff.nodes[0].right.succeeded), (0, 1));
    let wanted = [("branches_spawned", 1), ("task_succeeded", 1), ("token_routed", 1)];
    let events: Vec<_> = diff.events.iter().map(|(kind, count)| (&**kind, *count)).collect();
    assert_eq!(events, wanted);

    let from = StateAt::Time(moment(0));
    let diff = compared(&world, driven.id, DiffTo::Moments { from, to: StateAt::Latest }).await;
    assert_eq!((diff.right.status, diff.right.usage.input_tokens), (RunStatus::Completed, 28));
    assert_eq!((diff.parts, diff.values), (None, None));
    let from = StateAt::Sequence(99);
    let asked = DiffTo::Moments { from, to: StateAt::Latest };
    let refused = world.views.diff(ours(), driven.id, asked).await.expect_err("no such moment");
    assert_eq!((refused.kind, &*refused.code), (RejectionKind::Invalid, "no_such_moment"));
}

async fn two_runs_part_at_the_first_event_that_leads_elsewhere(storage: Storage) {
    let world = World::new(storage).await;
    let mut runs = Vec::new();
    for (number, score) in [(2, 5), (4, 5), (6, 4), (8, 9)] {
        let mut driven = Driven::start(&world, number, judged(), json!({"judges": [1, 2]})).await;
        driven.succeed(1, json!({"score": score})).await;
        driven.succeed(2, json!(1)).await;
        runs.push(driven.id);
    }
    let same = compared(&world, runs[0], DiffTo::Run(runs[1])).await;
    assert_eq!((same.parts, same.values), (None, None));
    assert!(same.nodes.is_empty() && same.changes.is_empty());
    // Another score, and the same way.
    let values = compared(&world, runs[0], DiffTo::Run(runs[2])).await;
    assert_eq!(values.parts, None);
    let first = values.values.as_ref().expect("another value");
    assert_eq!((first.sequence, first.node.as_deref()), (2, Some("draft")));
    assert_eq!(first.right.as_ref().map(|event| &event["writes"]["score"]), Some(&json!(4)));
    assert_eq!(places(&values), [("changed", "/state/score")]);
    // A score that leads past the judges.
    let path = compared(&world, runs[0], DiffTo::Run(runs[3])).await;
    let parts = path.parts.as_ref().expect("another way");
    assert_eq!((parts.sequence, parts.node.as_deref()), (3, Some("draft")));
    let nodes = path.nodes.iter().map(|one| (&*one.node, one.left.tokens, one.right.tokens));
    assert_eq!(nodes.collect::<Vec<_>>(), [("judge", 2, 0), ("publish", 0, 1)]);

    let absent = world.views.diff(ours(), runs[0], DiffTo::Run(run_id(99))).await;
    assert_eq!(absent.expect_err("no such run").kind, RejectionKind::NotFound);
    let hidden = world.views.diff(theirs(), runs[0], DiffTo::Run(runs[1])).await;
    assert_eq!(hidden.expect_err("not theirs").kind, RejectionKind::NotFound);
}

on_both_storages!(
    two_moments_differ_in_what_happened_between_them,
    two_runs_part_at_the_first_event_that_leads_elsewhere,
);
