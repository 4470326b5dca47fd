//! Why tokens are where they are, by what their events record.

use domain::run::{Command, RunStatus};
use protocol::{Explain, Explanation, Looked, RejectionKind, RunQueries, StateAt};

use super::driven::{Driven, judged};
use super::*;

const NOW: StateAt = StateAt::Latest;

async fn explained(world: &World, run: RunId, token: Option<u64>, at: StateAt) -> Explanation {
    let asked = Explain { token, node: None, at };
    world.views.explain(ours(), run, asked).await.expect("it is explained")
}

fn verdicts(looked: &[Looked]) -> Vec<(u16, i32, &str)> {
    looked.iter().map(|one| (one.transition, one.tier, one.verdict.as_str())).collect()
}

async fn a_token_tells_how_it_came_and_where_else_it_could_have_gone(storage: Storage) {
    let world = World::new(storage).await;
    let input = json!({"judges": ["ann", "bob", "cid"]});
    let mut driven = Driven::start(&world, 2, judged(), input).await;
    driven.succeed(1, json!({"score": 5})).await;
    driven.succeed(2, json!(1)).await;
    let (run, half) = (driven.id, driven.sequence);
    driven.fail(3).await;
    driven.succeed(4, json!(1)).await;

    let first = explained(&world, run, Some(1), NOW).await.tokens.remove(0);
    assert_eq!((&*first.came.by, first.came.sequence, &*first.status), ("start", 1, "succeeded"));
    assert_eq!(
        first.did.iter().map(|fact| &*fact.what).collect::<Vec<_>>(),
        ["attempt 1 succeeded"]
    );
    let left = first.left.expect("it left");
    assert_eq!((left.sequence, &*left.outcome, left.failed), (3, "success", false));
    let wanted =
        [(0, 0, "not_held"), (3, 0, "other_outcome"), (1, 1, "fired"), (2, 2, "earlier_tier")];
    assert_eq!(verdicts(&left.transitions), wanted);
    assert_eq!(left.transitions[0].read["result.score"], 5);
    assert_eq!(left.transitions[2].read["state.score"], 5);
    let led_to = left.transitions[2].led_to.as_ref().expect("branches");
    assert_eq!((led_to.branches, led_to.instance), (Some(3), Some(1)));

    // A branch, and its join while it waits and once it has fired.
    let then = explained(&world, run, Some(4), StateAt::Sequence(half)).await;
    assert_eq!((then.sequence, then.status), (half, RunStatus::Running));
    let branch = &then.tokens[0];
    assert_eq!(
        (&*branch.came.by, branch.came.from_token, branch.index),
        ("branch", Some(1), Some(2))
    );
    assert_eq!(branch.waits_for.as_ref().map(|item| &*item.what), Some("task"));
    let join = branch.join.as_ref().expect("it has one");
    assert_eq!(
        (&*join.verdict, join.expected, join.arrived, join.needed),
        ("waits", 3, 1, Some(2))
    );
    let failed = explained(&world, run, Some(3), NOW).await.tokens.remove(0);
    assert_eq!(failed.left.map(|left| (left.failed, left.outcome)), Some((true, "failure".into())));
    let last = explained(&world, run, Some(5), NOW).await.tokens.remove(0);
    let join = last.came.join.expect("it came out of the join");
    assert_eq!(
        (&*last.came.by, &*last.node, join.sequence),
        ("join", "publish", Some(last.came.sequence))
    );
    assert_eq!((join.arrived, join.failed, join.ended, join.needed), (2, 1, 0, Some(2)));
}

async fn a_node_that_nobody_came_to_tells_why(storage: Storage) {
    let world = World::new(storage).await;
    let mut driven = Driven::start(&world, 2, judged(), json!({"judges": ["ann"]})).await;
    let asked = |node: &str| Explain { token: None, node: Some(node.to_owned()), at: NOW };
    let run = driven.id;
    let early = world.views.explain(ours(), run, asked("fix")).await.expect("it is explained");
    let ways: Vec<_> = early.ways.iter().map(|way| (way.transition, way.left)).collect();
    assert_eq!((ways, early.tokens.len()), (vec![(2, 0), (3, 0)], 0));
    driven.succeed(1, json!({"score": 9})).await;
    let late = world.views.explain(ours(), run, asked("fix")).await.expect("it is explained");
    let ways = late.ways.iter().map(|way| {
        let last = way.last.as_ref().expect("one has left");
        (way.left, way.taken, way.token, &*last.verdict)
    });
    let wanted = [(1, 0, Some(1), "earlier_tier"), (1, 0, Some(1), "other_outcome")];
    assert_eq!(ways.collect::<Vec<_>>(), wanted);
    let reached = world.views.explain(ours(), run, asked("publish")).await.expect("explained");
    assert_eq!(reached.tokens.iter().map(|one| one.token).collect::<Vec<_>>(), [2]);
    assert_eq!((reached.ways[0].taken, reached.ways[1].left), (1, 0));
    let taken = reached.tokens[0].came.taken.as_ref().expect("a transition");
    assert_eq!((taken.transition, &taken.read["result.score"]), (0, &json!(9)));
}

async fn a_run_tells_how_it_stands_and_why_it_ended(storage: Storage) {
    let world = World::new(storage).await;
    let mut driven = Driven::start(&world, 2, judged(), json!({"judges": []})).await;
    let run = driven.id;
    let going = explained(&world, run, None, NOW).await;
    assert_eq!((going.status, going.waiting.len()), (RunStatus::Running, 1));
    assert!(going.because.is_empty() && going.why.contains("1 task"), "{}", going.why);
    driven.fail(1).await;
    driven.fail(2).await;
    let failed = explained(&world, run, None, NOW).await;
    assert_eq!(failed.error.as_ref().map(|error| &*error.code), Some("broken"));
    assert!(failed.why.contains("at fix: broken"), "{}", failed.why);
    let led: Vec<_> =
        failed.because.iter().map(|fact| (fact.token, fact.node.as_deref())).collect();
    assert_eq!(led, [(Some(1), Some("draft")), (Some(2), Some("fix")), (None, None)]);

    let mut driven = Driven::start(&world, 4, judged(), json!({"judges": []})).await;
    driven.when(Command::Cancel { reason: Some("enough".into()), compensate: true }).await;
    let cancelled = explained(&world, driven.id, None, NOW).await;
    assert!(cancelled.why.ends_with("cancelled: enough"), "{}", cancelled.why);

    let refused = async |token, node: Option<&str>, at| {
        let asked = Explain { token, node: node.map(str::to_owned), at };
        let refused = world.views.explain(ours(), run, asked).await.expect_err("refused");
        assert_eq!(refused.kind, RejectionKind::Invalid);
        refused.code
    };
    assert_eq!(refused(Some(9), None, NOW).await, "no_such_token");
    assert_eq!(refused(Some(2), None, StateAt::Sequence(1)).await, "no_such_token");
    assert_eq!(refused(None, Some("fax"), NOW).await, "no_such_node");
    assert_eq!(refused(None, None, StateAt::Sequence(99)).await, "no_such_moment");
    let asked = Explain { token: None, node: None, at: NOW };
    let hidden = world.views.explain(theirs(), run, asked).await.expect_err("not theirs");
    assert_eq!(hidden.kind, RejectionKind::NotFound);
}

on_both_storages!(
    a_token_tells_how_it_came_and_where_else_it_could_have_gone,
    a_node_that_nobody_came_to_tells_why,
    a_run_tells_how_it_stands_and_why_it_ended,
);
