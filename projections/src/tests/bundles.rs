//! Bundles: what is in them, and that their histories are those of the journal.

use std::collections::BTreeMap;
use std::path::PathBuf;

use domain::bundle::{Fault, Line, Seal};
use domain::run::event::Adopt;
use protocol::bundle::{BundleFork, BundleFrom, BundlePart};
use protocol::{DiffTo, EventFilter, Events, Explain, RejectionKind, RunQueries, StateAt};

use super::driven::{Driven, judged};
use super::*;
use crate::{Bundle, Histories, OpenBundleError};

/// The lines of a run's bundle, and how many parts they came in.
async fn lines(world: &World, run: RunId) -> (Vec<String>, usize) {
    let (mut lines, mut parts, mut seal) = (Vec::new(), 0, Seal::default());
    let mut from = Some(BundleFrom::Start { at: moment(99) });
    while let Some(next) = from {
        let BundlePart { lines: some, next } =
            world.views.bundle(ours(), run, next).await.expect("a part");
        parts += 1;
        for line in some {
            seal.take(line.get().as_bytes());
            lines.push(line.get().to_owned());
        }
        from = next.map(BundleFrom::Next);
    }
    lines.push(Line::End(seal.end()).to_raw().expect("JSON").get().to_owned());
    (lines, parts)
}

fn write(world: &World, lines: &[String]) -> PathBuf {
    let path = world.folder.path().join(format!("{}.wonder", Uuid::now_v7()));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, text).expect("it is written");
    path
}

async fn bundle(world: &World, run: RunId) -> Bundle {
    Bundle::open(&write(world, &lines(world, run).await.0)).expect("a bundle")
}

async fn a_bundle_has_the_histories_of_its_journal(storage: Storage) {
    let world = World::new(storage).await;
    let large = json!({"score": 5, "text": "x".repeat(200_000), "$ref": "mine"});
    let mut run = Driven::start(&world, 1, judged(), json!({"judges": ["a", "b"]})).await;
    run.succeed(1, large).await;
    run.succeed(2, json!(1)).await;
    run.succeed(3, json!(2)).await;
    run.fail(4).await;
    let (id, last) = (run.id, run.sequence);
    let bundle = bundle(&world, id).await;
    let here = Histories::of(&bundle);
    let views = &world.views;
    for sequence in 1..=last {
        let at = StateAt::Sequence(sequence);
        let wanted = views.state(ours(), id, at).await.expect("there");
        assert_eq!(here.run_at(ours(), id, at).await, Ok(wanted), "at {sequence}");
    }
    let mut steps = Vec::new();
    let take = |_: &str, state: &protocol::RunState| {
        steps.push(state.sequence);
        true
    };
    here.steps(ours(), id, take).await.expect("all of them");
    assert_eq!(steps, (1..=last).collect::<Vec<_>>());
    let beyond = here.run_at(ours(), id, StateAt::Sequence(last + 1)).await.expect_err("no");
    assert_eq!(&*beyond.code, "no_such_moment");
    let entries = views.timeline(ours(), id).await.expect("there");
    assert_eq!(here.run_timeline(ours(), id).await, Ok(entries));
    for (token, node) in [(None, None), (Some(1), None), (None, Some("publish".to_owned()))] {
        let asked = Explain { token, node, at: StateAt::Latest };
        let wanted = views.explain(ours(), id, asked.clone()).await.expect("there");
        assert_eq!(here.explained(ours(), id, asked).await, Ok(wanted));
    }
    let moments = DiffTo::Moments { from: StateAt::Sequence(2), to: StateAt::Latest };
    let wanted = views.diff(ours(), id, moments.clone()).await.expect("there");
    assert_eq!(here.differing(ours(), id, moments).await, Ok(wanted));
    let verified = here.run_verified(ours(), id).await.expect("there");
    assert!(verified.verified && verified.events == last, "{verified:?}");
    let filter = EventFilter { aggregate_id: Some(id.to_string()), ..EventFilter::default() };
    let page = views.page(filter, None, 100).await.expect("a page");
    let own = bundle.envelopes(id, 0, 100).await.expect("all of them");
    assert_eq!(own.len() as u64, last);
    assert_eq!(own, page.items);
    let other = self::bundle(&world, id).await;
    let same = here.differing_from((ours(), id), Histories::of(&other), (ours(), id)).await;
    let same = same.expect("both are there");
    assert_eq!((same.parts, same.values, same.changes.len()), (None, None, 0));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, bytes).expect("it is compressed");
    gzip.finish().expect("it is compressed")
}

async fn a_compressed_bundle_is_the_same_and_a_bomb_is_refused(storage: Storage) {
    let world = World::new(storage).await;
    let large = json!({"text": "x".repeat(200_000)});
    let mut run =
        Driven::start(&world, 1, judged(), json!({"judges": ["a"], "large": large})).await;
    run.succeed(1, json!(1)).await;
    let lines = lines(&world, run.id).await.0;
    let plain = write(&world, &lines);
    let bytes = std::fs::read(&plain).expect("a bundle");
    let path = world.folder.path().join("packed.wonder");
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("it is written");
        Bundle::open(&path)
    };
    let packed = open(&gzip(&bytes)).expect("a bundle");
    let view = Bundle::open(&plain).expect("a bundle").view().await.expect("all of it");
    assert_eq!(packed.view().await, Ok(view));
    let at = StateAt::Sequence(1);
    let state = packed_state(&Bundle::open(&plain).expect("a bundle"), run.id, at).await;
    assert_eq!(packed_state(&packed, run.id, at).await, state, "also values that stand apart");

    let fault = |bytes: &[u8]| match open(bytes).expect_err("it is refused") {
        OpenBundleError::Damaged(damaged) => (damaged.line, damaged.fault),
        other => panic!("{other}"),
    };
    let whole = gzip(&bytes);
    assert_eq!(fault(&whole[..whole.len() / 2]).1, Fault::CutOff);
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 0x55;
    assert!(matches!(
        fault(&changed).1,
        Fault::Compression(_)
            | Fault::Unreadable(_)
            | Fault::OtherLines
            | Fault::OtherValue(_)
            | Fault::CutOff
    ));
    assert_eq!(fault(&gzip(b"nothing of ours")), (1, Fault::Foreign));
    // What grows a thousandfold is refused before it is all there: as one line, and as many.
    let line = lines[0].clone() + "\n";
    let head = line.as_bytes();
    let one = [head, &vec![b' '; domain::limits::BUNDLE_LINE_BYTES + 10]].concat();
    assert_eq!(fault(&gzip(&one)), (2, Fault::TooLong));
    let event = "{\"payload\":{\"hash\":\"HASH\",\"value\":VALUE}}\n";
    let value = format!("\"{}\"", "x".repeat(1_000_000));
    let hash = domain::codec::hash(value.as_bytes(), ours());
    let event = event.replace("HASH", &hash).replace("VALUE", &value);
    std::fs::write(&path, gzip(&[head, &event.as_bytes().repeat(9)].concat())).expect("written");
    match Bundle::open_within(&path, 1_000_000).expect_err("it is refused") {
        OpenBundleError::Damaged(damaged) => {
            assert!(matches!(damaged.fault, Fault::Inflates(_)), "{damaged}");
        }
        other => panic!("{other}"),
    }
}

async fn packed_state(bundle: &Bundle, run: RunId, at: StateAt) -> protocol::RunState {
    Histories::of(bundle).run_at(ours(), run, at).await.expect("it is there")
}

async fn children_come_along_as_of_one_moment(storage: Storage) {
    let world = World::new(storage).await;
    let (top, low) = (run_id(1), run_id(1).child(1));
    let asks = event(json!({"type": "child_started", "token": 1, "run_id": low,
        "definition": "helper@2"}));
    let away = event(json!({"type": "child_started", "token": 2, "run_id": run_id(8),
        "definition": "helper@2"}));
    let Event::RunStarted(mut begun) = started(low, json!(1), &[]) else { unreachable!() };
    let above = json!({"run_id": top, "token": 1, "root_run_id": top, "depth": 1});
    begun.parent = Some(serde_json::from_value(above).expect("a parent"));
    world.run(top, 0, &[started(top, json!({"n": 1}), &[]), asks, away]).await;
    world.run(low, 0, &[Event::RunStarted(begun)]).await;
    world.run(run_id(5), 0, &[started(run_id(5), json!(1), &[])]).await;
    let first = world.views.bundle(ours(), top, BundleFrom::Start { at: moment(9) }).await;
    assert!(first.expect("a part").next.is_none());
    // What is committed while it is made isn't in it.
    let begun = world.views.bundle(ours(), top, BundleFrom::Start { at: moment(9) });
    let cut = begun.await.expect("a part").lines.len();
    world.run(low, 1, &[Event::RunCompleted { output: json!({"said": "yes"}) }]).await;
    assert_eq!(lines(&world, top).await.0.len(), cut + 2, "the new event, and the end");
    let view = bundle(&world, top).await.view().await.expect("all of it");
    let runs: Vec<_> = view
        .runs
        .iter()
        .map(|run| (run.run_id.clone(), run.status.as_str(), run.sequence, run.input.clone()))
        .collect();
    let wanted = [
        (top.to_string(), "waiting", 3, Some(json!({"n": 1}))),
        (low.to_string(), "completed", 2, None),
    ];
    assert_eq!(runs, wanted);
    assert_eq!(view.runs[1].parent_run_id, Some(top.to_string()));
    assert_eq!((view.events, view.children_left_out), (5, 1));
    let from = BundleFrom::Start { at: moment(9) };
    let hidden = world.views.bundle(theirs(), top, from).await.expect_err("not theirs");
    assert_eq!(hidden.kind, RejectionKind::NotFound);
}

async fn large_values_come_in_several_parts(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    // Several values of one event, which a part must be able to end between.
    let large = |text: &str| json!(text.repeat(1_500_000));
    let mut events = vec![started(run, large("a"), &[])];
    let result = json!({"b": large("b"), "c": large("c"), "d": large("d")});
    events.push(succeeded(1, result.clone()));
    events.push(succeeded(1, json!({"d": large("d")})));
    world.run(run, 0, &events).await;
    let (lines, parts) = lines(&world, run).await;
    assert!(parts > 1, "{parts}");
    let bundle = Bundle::open(&write(&world, &lines)).expect("a bundle");
    let view = bundle.view().await.expect("all of it");
    assert_eq!((view.events, view.values), (3, 4));
    let decoded = Histories::of(&bundle).run_events(&run.to_string(), 1, 1).await.expect("it");
    let decoded = Histories::of(&bundle).decoded(&decoded).await.expect("it decodes").pop();
    let Some((_, Event::TaskSucceeded { result: found, .. })) = decoded else {
        panic!("another event")
    };
    assert_eq!(found, result);
}

async fn a_bundle_that_is_damaged_is_refused_with_its_line(storage: Storage) {
    let world = World::new(storage).await;
    let mut run = Driven::start(&world, 1, judged(), json!({"judges": ["a"]})).await;
    run.succeed(1, json!({"score": 1})).await;
    let (whole, _) = lines(&world, run.id).await;
    let fault = |lines: &[String]| match Bundle::open(&write(&world, lines)) {
        Err(OpenBundleError::Damaged(damaged)) => (damaged.line, damaged.fault),
        other => panic!("{other:?}"),
    };
    let last = whole.len() as u64;
    assert_eq!(fault(&whole[..whole.len() - 1]), (last - 1, Fault::CutOff));
    let mut unknown = whole.clone();
    unknown[2] = unknown[2].replacen("\"run_started\"", "\"run_dreamt\"", 1);
    let (line, fault_of_it) = fault(&unknown);
    assert!(line == 3 && matches!(fault_of_it, Fault::Event(_)), "{line}: {fault_of_it}");
    // Without a line feed at its end, as editors leave it.
    let path = write(&world, &whole);
    let text = std::fs::read_to_string(&path).expect("text");
    std::fs::write(&path, text.trim_end()).expect("it is written");
    assert!(Bundle::open(&path).is_ok());
    assert!(matches!(Bundle::open(world.folder.path()), Err(OpenBundleError::Read(_))));
}

/// A run that two judges have let through, in a bundle; and its definition.
async fn judged_bundle(world: &World) -> (Bundle, Value) {
    let definition = judged();
    let mut run = Driven::start(world, 1, definition.clone(), json!({"judges": ["a", "b"]})).await;
    run.succeed(1, json!({"score": 5})).await;
    run.succeed(2, json!("good")).await;
    run.succeed(3, json!("fine")).await;
    run.succeed(4, json!("out")).await;
    assert!(run.run.live().is_none(), "it has ended");
    (bundle(world, run.id).await, definition)
}

fn unchanged(at: u64) -> BundleFork {
    BundleFork {
        at: StateAt::Sequence(at),
        adopt: Adopt::All,
        input: None,
        state: None,
        branches: BTreeMap::new(),
        results: BTreeMap::new(),
        definition: None,
    }
}

async fn a_fork_is_decided_without_doing_anything(storage: Storage) {
    let world = World::new(storage).await;
    let (bundle, mut definition) = judged_bundle(&world).await;
    let (here, run) = (Histories::of(&bundle), bundle.manifest().run_id);
    let last = bundle.view().await.expect("all of it").events;
    let tried = async |asked| here.fork_tried(ours(), run, asked, moment(500)).await;
    for at in 1..last {
        let same = tried(unchanged(at)).await.expect("a fork");
        assert_eq!((same.parts, same.values), (None, None), "at {at}");
        assert_eq!((same.plan.status.as_str(), same.plan.calls.count), ("completed", 0), "{at}");
    }
    let ended = tried(unchanged(last)).await.expect_err("it is over");
    assert_eq!(&*ended.code, "fork_after_end");
    let beyond = tried(unchanged(last + 1)).await.expect_err("there is no such event");
    assert_eq!(&*beyond.code, "no_such_moment");

    // Another score leads to the node that nobody was at.
    let results = BTreeMap::from([(1, json!({"score": 1}))]);
    let fixes = tried(BundleFork { results, ..unchanged(1) }).await.expect("a fork");
    assert_eq!((fixes.plan.adopted.count, fixes.plan.calls.count), (0, 1));
    assert_eq!(fixes.plan.calls.items[0].node, "fix");
    let (parts, values) = (fixes.parts.expect("it parts"), fixes.values.expect("before that"));
    assert_eq!((parts.node.as_deref(), parts.sequence), (Some("draft"), 3));
    assert_eq!(
        (values.sequence, values.right.expect("an event")["type"].clone()),
        (2, json!("task_succeeded"))
    );
    assert_eq!(fixes.waiting[0].node.as_deref(), Some("fix"));
    let refused = tried(BundleFork { results: [(9, json!(1))].into(), ..unchanged(1) }).await;
    assert_eq!(&*refused.expect_err("no such token").code, "fork_token");

    // What judges do is another thing now: they are asked again, and nobody else is.
    definition["nodes"]["judge"]["action"]["with"]["result"] = json!(2);
    let other = serde_json::from_value(definition).expect("a definition");
    let asked = BundleFork { definition: Some(Box::new(other)), ..unchanged(1) };
    let judges = tried(asked).await.expect("a fork");
    let called: Vec<_> = judges.plan.calls.items.iter().map(|call| &*call.node).collect();
    assert_eq!((called, judges.plan.adopted.count), (vec!["judge", "judge"], 1));
    assert_eq!(judges.parts.expect("it stands still").right, None);
}

async fn a_fork_waits_for_the_clock_and_for_nobody_else(storage: Storage) {
    let world = World::new(storage).await;
    let mock = json!({"action": {"kind": "mock", "with": {"result": 1}}});
    let definition = json!({"name": "judged", "start": "ask", "timeout": "30d",
        "nodes": {"ask": mock, "rest": {"wait": {"for": "10m"}},
            "approve": {"gate": {"title": "May it go?", "timeout": "1h"}}},
        "transitions": [{"from": "ask", "to": "rest"},
            {"from": "rest", "to": "approve", "when": "input.careful"}]});
    for (number, careful, status, what) in
        [(1, false, "completed", None), (2, true, "waiting", Some("gate"))]
    {
        let input = json!({"careful": careful});
        let mut run = Driven::start(&world, number, definition.clone(), input).await;
        run.succeed(1, json!(1)).await;
        let bundle = bundle(&world, run.id).await;
        let here = Histories::of(&bundle);
        let fork = here.fork_tried(ours(), run.id, unchanged(1), moment(500)).await;
        let fork = fork.expect("a fork");
        assert_eq!(fork.plan.status.as_str(), status);
        assert_eq!(fork.waiting.first().map(|item| &*item.what), what);
        assert!(fork.parts.expect("the run has not gone on").left.is_none());
    }
}

async fn a_run_is_rehearsed_by_a_changed_definition(storage: Storage) {
    let world = World::new(storage).await;
    let (bundle, definition) = judged_bundle(&world).await;
    let (here, run) = (Histories::of(&bundle), bundle.manifest().run_id);
    let by = async |definition: &Value| {
        let definition = serde_json::from_value(definition.clone()).expect("a definition");
        here.run_rehearsed(ours(), run, &definition).await.expect("the run is there")
    };
    assert_eq!(by(&definition).await, Ok(None));
    let mut stricter = definition.clone();
    stricter["transitions"][1]["when"] = json!("state.score > 6");
    let parted = by(&stricter).await.expect("it is decided").expect("it parts");
    assert_eq!((&*parted.kind, parted.node.as_deref()), ("path", Some("draft")));
    let mut richer = definition.clone();
    richer["nodes"]["draft"]["output"]["state.more"] = json!("${result.score + 1}");
    assert_eq!(
        by(&richer).await.expect("it is decided").map(|one| one.kind),
        Some("values".into())
    );
    let mut foreign = definition;
    foreign["nodes"]["fix"]["action"] = json!({"use": "mend"});
    let why = by(&foreign).await.expect_err("the action isn't in the bundle");
    assert!(why.contains("mend"), "{why}");
}

on_both_storages!(
    a_compressed_bundle_is_the_same_and_a_bomb_is_refused,
    a_bundle_has_the_histories_of_its_journal,
    children_come_along_as_of_one_moment,
    large_values_come_in_several_parts,
    a_bundle_that_is_damaged_is_refused_with_its_line,
    a_fork_is_decided_without_doing_anything,
    a_fork_waits_for_the_clock_and_for_nobody_else,
    a_run_is_rehearsed_by_a_changed_definition,
);
