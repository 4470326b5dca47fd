//! What is asked of a run of which states are kept is answered as if all of it were read.

use std::cell::Cell;

use protocol::{DiffTo, Explain, StateAt};

use super::random::{Draw, Random, Whole};
use super::*;
use crate::differ::whole;
use crate::histories::Histories;

/// Random graphs.
const GRAPHS: u32 = 25;

/// Fans out and comes together again and again; some of it fails, and is caught.
fn long() -> Value {
    let task = json!({"action": {"kind": "mock"},
        "retry": {"max_attempts": 2, "initial": "1s"}});
    json!({"name": "long", "start": "begin",
        "nodes": {"begin": {"compute": {"state.n": 0}}, "work": task, "judge": task,
            "check": task, "count": {"compute": {"state.n": "${state.n + 1}"}}, "end": task},
        "transitions": [
            {"from": "begin", "to": "work"},
            {"from": "work", "to": "judge", "foreach": "${input.items}", "group": "judges"},
            {"from": "work", "to": "count", "on": "failure"},
            {"from": "judge", "to": "check", "priority": 1, "when": "size(input.items) > 1"},
            {"from": "judge", "to": "count", "priority": 2,
                "join": {"group": "judges", "wait": "any", "failed": "ignore"}},
            {"from": "check", "to": "count",
                "join": {"group": "judges", "wait": "any", "failed": "ignore"}},
            {"from": "judge", "to": "check", "on": "failure"},
            {"from": "check", "to": "count", "on": "failure",
                "join": {"group": "judges", "wait": "any", "failed": "ignore"}},
            {"from": "count", "to": "end", "when": "state.n > 200", "priority": 1},
            {"from": "count", "to": "work", "priority": 2, "max_iterations": 210}]})
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(future);
}

/// Some moment of a run.
fn at(random: &Random, run: RunId, draw: &mut Draw) -> StateAt {
    let events = random.kept.events(run);
    let one = &events[usize::try_from(draw.below(events.len() as u64)).expect("it fits")];
    match draw.below(4) {
        0 => StateAt::Latest,
        1 => StateAt::Time(one.recorded_at),
        _ => StateAt::Sequence(one.sequence + u64::from(draw.below(30) == 0)),
    }
}

async fn explains_alike(random: &Random, run: RunId, asked: Explain) -> usize {
    let whole = Whole(&random.kept);
    let wanted = Histories::of(&whole).explained(ours(), run, asked.clone()).await;
    let found = Histories::of(&random.kept).explained(ours(), run, asked.clone()).await;
    assert_eq!(found, wanted, "{asked:?}");
    let Ok(wanted) = wanted else { return 0 };
    // Whence tokens came is told without the timeline.
    let timeline = Histories::of(&whole).run_timeline(ours(), run).await.expect("it is there");
    for token in &wanted.tokens {
        let from = token.came.from_token;
        let from = from.and_then(|from| timeline.iter().find(|entry| entry.token == from));
        assert_eq!(token.came.from_node, from.map(|entry| entry.node.clone()));
    }
    wanted.tokens.len()
}

async fn differs_alike(random: &Random, run: RunId, to: DiffTo) {
    let whole = Whole(&random.kept);
    let wanted = whole::differing(Histories::of(&whole), ours(), run, to.clone()).await;
    let found = Histories::of(&random.kept).differing(ours(), run, to.clone()).await;
    assert_eq!(found, wanted, "{to:?}");
}

async fn answers_alike(random: &Random, runs: &[RunId], draw: &mut Draw, asks: u64) -> usize {
    let mut told = 0;
    for run in runs.iter().copied() {
        let tokens = random.kept.events(run).len() as u64 / 2 + 1;
        for _ in 0..asks {
            let at = at(random, run, draw);
            let token = Some(1 + draw.below(tokens)).filter(|_| draw.below(2) == 0);
            let node = draw.below(random.nodes.len() as u64);
            let node = random.nodes[usize::try_from(node).expect("it fits")].clone();
            let node = Some(node).filter(|_| draw.below(2) == 0);
            told += explains_alike(random, run, Explain { token, node, at }).await;
            let (from, to) = (self::at(random, run, draw), self::at(random, run, draw));
            differs_alike(random, run, DiffTo::Moments { from, to }).await;
        }
        for other in runs {
            differs_alike(random, run, DiffTo::Run(*other)).await;
        }
    }
    told
}

#[test]
fn random_runs_are_explained_and_compared_by_what_is_kept_as_by_all_of_them() {
    let told = Cell::new(0);
    graphs::holds(GRAPHS, (graphs::blocks(), 0..u64::MAX), |(block, seed)| {
        let mut draw = Draw::of(seed);
        let definition = graphs::Layout::definition(&block, false, seed % 2 == 0);
        let mut random = Random::of(&definition, 1 + seed % 7);
        let input = json!({"z": 0.5, "items": [7, 8, 9], "a": {"y": 1, "b": 2}});
        let run = random.run(2, input.clone(), &mut draw);
        let other = random.run(4, input, &mut draw);
        let fork = random.fork(run, 6, &mut draw);
        block_on(async {
            let of = answers_alike(&random, &[run, other, fork], &mut draw, 8).await;
            told.set(told.get() + of);
        });
    });
    assert!(told.get() > 0, "tokens were explained");
}

#[test]
fn long_runs_are_explained_and_compared_by_what_is_kept_as_by_all_of_them() {
    let mut longest = 0;
    for seed in 0..2 {
        let mut draw = Draw::of(seed);
        let mut random = Random::of(&long(), 150);
        let run = random.run(2, json!({"items": ["a".repeat(70_000), 2, 3]}), &mut draw);
        let other = random.run(4, json!({"items": [1, 2]}), &mut draw);
        let fork = random.fork(run, 6, &mut draw);
        block_on(async {
            let told = answers_alike(&random, &[run, fork, other], &mut draw, 5).await;
            assert!(told > 5, "tokens were explained");
        });
        longest = longest.max(random.kept.events(run).len());
    }
    assert!(longest > 1_500, "{longest} events are several pages");
}
