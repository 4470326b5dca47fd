//! Events: pages and streams without a gap or a duplicate, and slow readers.

use futures::StreamExt;
use protocol::{Cursor, EventEnvelope, EventFilter, Events, RejectionKind};

use super::*;

fn of_run(run: RunId) -> EventFilter {
    EventFilter {
        workspace_id: Some(ours().to_string()),
        aggregate_id: Some(run.to_string()),
        ..EventFilter::default()
    }
}

async fn all_pages(world: &World, filter: EventFilter, limit: u32) -> Vec<EventEnvelope> {
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = world.views.page(filter.clone(), after, limit).await.expect("a page");
        seen.extend(page.items);
        after = Some(page.cursor);
        if !page.more {
            return seen;
        }
    }
}

fn ids_of(events: &[EventEnvelope]) -> Vec<&str> {
    events.iter().map(|event| event.aggregate_id.as_str()).collect()
}

fn positions(events: &[EventEnvelope]) -> Vec<u64> {
    events.iter().map(|event| event.position).collect()
}

async fn pages_hold_every_wanted_event_once(storage: Storage) {
    let world = World::new(storage).await;
    let mut runs = Vec::new();
    for number in 1..=20 {
        runs.push(world.whole_run(number, 5, true).await);
    }
    let head = world.journal.head().await.expect("it answers");
    for limit in [1, 7, 1_000] {
        let all = all_pages(&world, EventFilter::default(), limit).await;
        assert_eq!(positions(&all), (1..=head).collect::<Vec<_>>());
        let one = all_pages(&world, of_run(runs[9]), limit).await;
        let wanted: Vec<u64> = all
            .iter()
            .filter(|event| event.aggregate_id == runs[9].to_string())
            .map(|event| event.position)
            .collect();
        assert_eq!((positions(&one), one.len()), (wanted, 12));
        let started = EventFilter { event_type: Some("run_started".into()), ..Default::default() };
        assert_eq!(all_pages(&world, started, limit).await.len(), 20);
    }
    let theirs = EventFilter { workspace_id: Some(theirs().to_string()), ..of_run(runs[0]) };
    assert_eq!(all_pages(&world, theirs, 10).await, []);
    assert_eq!(world.views.head().await.expect("it answers").position, head);
}

async fn a_project_has_the_events_of_its_runs_and_things(storage: Storage) {
    let world = World::new(storage).await;
    let project = |number| EventFilter {
        workspace_id: Some(ours().to_string()),
        project_id: Some(project_id(number).to_string()),
        ..EventFilter::default()
    };
    // Runs with odd numbers are of one project, those with even ones of the other.
    for number in 1..=6 {
        world.whole_run(number, 3, number % 3 != 0).await;
    }
    let (workflow, log) = super::triggers::with_a_trigger(&world).await;
    let project_itself = ("project", &*project_id(1).to_string());
    world.append_raw_to(project_itself, "created", "{\"revision\":1}").await;
    world.append_raw_to(("access", "ws_x"), "exported", "{}").await;
    for limit in [1, 5, 1_000] {
        let ids = |events: &[EventEnvelope]| {
            let ids = events.iter().map(|event| event.aggregate_id.clone());
            ids.collect::<std::collections::BTreeSet<_>>()
        };
        let one = all_pages(&world, project(1), limit).await;
        let runs = [1, 3, 5, 11].map(|number| run_id(number).to_string());
        let things = [workflow.clone(), log.clone(), project_id(1).to_string()];
        assert_eq!(ids(&one), runs.into_iter().chain(things).collect());
        let other = all_pages(&world, project(0), limit).await;
        assert_eq!(ids(&other), [2, 4, 6].map(|number| run_id(number).to_string()).into());
        let of_type = EventFilter { event_type: Some("run_started".into()), ..project(0) };
        assert_eq!(all_pages(&world, of_type, limit).await.len(), 3);
        let of_run = EventFilter { project_id: project(0).project_id, ..of_run(run_id(1)) };
        assert_eq!(all_pages(&world, of_run, limit).await, []);
    }
    // What stands elsewhere under a run's id is of its project, and isn't taken for its beginning.
    let held = world.whole_run(13, 1, true).await.to_string();
    let position = world.journal.head().await.expect("it answers");
    world.append_raw_to(("hold", &held), "run_held", r#"{"reason":"case 4711"}"#).await;
    let after = Some(Cursor { epoch: world.journal.epoch(), position });
    let page = world.views.page(project(1), after, 10).await.expect("a page");
    assert_eq!(ids_of(&page.items), [&*held]);
    let of_workflow = EventFilter { workflow_id: Some(workflow.clone()), ..project(1) };
    let events = all_pages(&world, of_workflow, 1_000).await;
    assert_eq!(ids_of(&events), [workflow.as_str(), &log, &run_id(11).to_string()]);
    // A stream that begins in the middle of a run knows whose it is, and goes on into live.
    let all = all_pages(&world, project(1), 1_000).await;
    let after = Some(all[2].cursor);
    let mut stream = world.views.follow(project(1), after).await.expect("a stream");
    world.whole_run(8, 1, true).await;
    let last = world.whole_run(9, 1, true).await.to_string();
    let mut told = Vec::new();
    while told.last().is_none_or(|event: &EventEnvelope| {
        event.event_type != "run_completed" || event.aggregate_id != last
    }) {
        told.push(stream.next().await.expect("an event").expect("no refusal"));
    }
    assert_eq!(told[..all.len() - 3], all[3..]);
    assert!(told[all.len() - 3..].iter().all(|event| event.aggregate_id == last));
}

async fn a_label_has_the_events_of_its_runs(storage: Storage) {
    let world = Arc::new(World::new(storage).await);
    let labelled = |labels: &[(&str, &str)]| EventFilter {
        workspace_id: Some(ours().to_string()),
        labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ..EventFilter::default()
    };
    let team = |number: u128| if number.is_multiple_of(3) { "red" } else { "blue" };
    let written = move |number: u128, step: u64| {
        let run = run_id(number);
        let even = if number.is_multiple_of(2) { "1" } else { "" };
        let label = [("team", team(number)), ("even", even)];
        match step {
            0 => vec![started(run, json!(1), &label)],
            1 => vec![succeeded(1, json!(1)), moved(1, 2)],
            _ => vec![Event::RunCompleted { output: json!(1) }],
        }
    };
    for number in 1..=6 {
        world.run(run_id(number), 0, &written(number, 0)).await;
    }
    world.whole_run(50, 1, true).await;
    world.append_raw_to(("project", &*project_id(1).to_string()), "created", "{}").await;
    for number in 1..=6 {
        world.run(run_id(number), 1, &written(number, 1)).await;
    }
    let held = run_id(3).to_string();
    world.append_raw_to(("hold", &held), "run_held", r#"{"reason":"case 4711"}"#).await;
    let runs = |events: &[EventEnvelope]| {
        let runs = events.iter().map(|event| event.aggregate_id.clone());
        runs.collect::<std::collections::BTreeSet<_>>()
    };
    let ids = |numbers: &[u128]| numbers.iter().map(|one| run_id(*one).to_string()).collect();
    // Where nothing is known yet, where it is known without labels, and where it is remembered.
    let by_project =
        EventFilter { project_id: Some(project_id(0).to_string()), ..labelled(&[("team", "red")]) };
    let other = EventFilter { labels: Vec::new(), ..by_project.clone() };
    assert_eq!(runs(&all_pages(&world, other, 3).await).len(), 4);
    for limit in [1, 4, 1_000] {
        let red = all_pages(&world, labelled(&[("team", "red")]), limit).await;
        assert_eq!((runs(&red), red.len()), (ids(&[3, 6]), 7), "with the hold");
        let both = all_pages(&world, labelled(&[("team", "red"), ("even", "1")]), limit).await;
        assert_eq!((runs(&both), both.len()), (ids(&[6]), 3));
        assert_eq!(all_pages(&world, by_project.clone(), limit).await, both);
        assert_eq!(all_pages(&world, labelled(&[("team", "re")]), limit).await, []);
        assert_eq!(all_pages(&world, labelled(&[("none", "")]), limit).await, []);
    }
    // Streams that begin in the middle, again and again, from history into live.
    let writer = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            for number in 1..=6 {
                world.run(run_id(number), 3, &written(number, 2)).await;
            }
            for number in 7..=40 {
                for (step, after) in [(0, 0), (1, 1), (2, 3)] {
                    world.run(run_id(number), after, &written(number, step)).await;
                }
            }
        })
    };
    let more = 2 + 4 * (7..=40_u32).filter(|number| number.is_multiple_of(3)).count();
    let filter = labelled(&[("team", "red")]);
    let (from_start, from_middle) = tokio::join!(
        follow_to(&world, filter.clone(), 0, 7 + more),
        follow_to(&world, filter.clone(), 14, 5 + more),
    );
    writer.await.expect("the writer ends");
    let all = positions(&all_pages(&world, filter, 1_000).await);
    assert_eq!(from_start, all);
    let rest: Vec<u64> = all.into_iter().filter(|position| *position > 14).collect();
    assert_eq!(from_middle[..], rest[..5 + more]);
}

async fn moved_values_are_put_back_up_to_a_size(storage: Storage) {
    let world = World::new(storage).await;
    for (number, bytes, whole) in [(1, 100_000, true), (2, 1_100_000, false)] {
        let run = run_id(number);
        world.run(run, 0, &[started(run, json!("x".repeat(bytes)), &[])]).await;
        let page = world.views.page(of_run(run), None, 1).await.expect("a page");
        let input = &page.items[0].payload["input"];
        assert_eq!(input.is_string(), whole);
        assert_eq!(input.get("$ref").is_some(), !whole);
    }
}

async fn a_page_of_large_events_ends_early(storage: Storage) {
    let world = World::new(storage).await;
    for number in 1..=20 {
        let input = json!("x".repeat(1_000_000));
        world.run(run_id(number), 0, &[started(run_id(number), input, &[])]).await;
    }
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = world.views.page(EventFilter::default(), after, 1_000).await.expect("a page");
        assert!(serde_json::to_vec(&page.items).expect("JSON").len() < 9 * 1024 * 1024);
        seen.extend(positions(&page.items));
        (after, pages) = (Some(page.cursor), pages + 1);
        if !page.more {
            break;
        }
    }
    assert_eq!((seen, pages), ((1..=20).collect::<Vec<_>>(), 3));
}

async fn a_cursor_of_another_store_is_refused(storage: Storage) {
    let world = World::new(storage).await;
    let head = world.views.head().await.expect("it answers");
    let other = Some(Cursor { epoch: !head.epoch, position: 0 });
    let page = world.views.page(EventFilter::default(), other, 1).await.expect_err("another");
    assert_eq!((page.kind, &*page.code), (RejectionKind::Conflict, "cursor_of_another_store"));
    assert!(world.views.follow(EventFilter::default(), other).await.is_err());
}

async fn a_cursor_beyond_the_last_event_is_refused(storage: Storage) {
    let world = World::new(storage).await;
    let run = world.whole_run(1, 2, true).await;
    let head = world.views.head().await.expect("it answers");
    for filter in [EventFilter::default(), of_run(run)] {
        for position in [head.position + 1, 99_999_999_999, 1 << 63, u64::MAX] {
            let beyond = Some(Cursor { position, ..head });
            let page = world.views.page(filter.clone(), beyond, 1).await.expect_err("beyond");
            assert_eq!((page.kind, &*page.code), (RejectionKind::Malformed, "invalid_cursor"));
            let stream = world.views.follow(filter.clone(), beyond).await.err().expect("beyond");
            assert_eq!(stream.code, "invalid_cursor");
        }
        let page = world.views.page(filter.clone(), Some(head), 1).await.expect("at the end");
        assert_eq!((page.items.len(), page.cursor), (0, head));
    }
}

/// Follows while a writer runs, connecting again after every few events.
async fn follow_to(world: &World, filter: EventFilter, from: u64, wanted: usize) -> Vec<u64> {
    let epoch = world.journal.epoch();
    let (mut seen, mut after) = (Vec::new(), Some(Cursor { epoch, position: from }));
    while seen.len() < wanted {
        let mut stream = world.views.follow(filter.clone(), after).await.expect("a stream");
        for _ in 0..17.min(wanted - seen.len()) {
            let event = stream.next().await.expect("it goes on").expect("an event");
            after = Some(event.cursor);
            seen.push(event.position);
        }
    }
    seen
}

async fn streams_have_no_gap_and_no_duplicate_while_a_writer_runs(storage: Storage) {
    let world = Arc::new(World::new(storage).await);
    let watched = world.whole_run(1, 20, false).await;
    let head = world.journal.head().await.expect("it answers");
    let writer = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            for number in 0..40 {
                world.whole_run(100 + number, 2, true).await;
                let token = 21 + u64::try_from(number).expect("small");
                world
                    .run(
                        run_id(1),
                        41 + 2 * (token - 21),
                        &[succeeded(token, json!(1)), moved(token, token + 1)],
                    )
                    .await;
            }
        })
    };
    let end = head + 40 * 8;
    let (from_start, from_middle, from_head, one_run) = tokio::join!(
        follow_to(&world, EventFilter::default(), 0, end as usize),
        follow_to(&world, EventFilter::default(), head / 2, (end - head / 2) as usize),
        follow_to(&world, EventFilter::default(), head, (end - head) as usize),
        follow_to(&world, of_run(watched), 3, 41 + 80 - 3),
    );
    writer.await.expect("the writer ends");
    assert_eq!(from_start, (1..=end).collect::<Vec<_>>());
    assert_eq!(from_middle, (head / 2 + 1..=end).collect::<Vec<_>>());
    assert_eq!(from_head, (head + 1..=end).collect::<Vec<_>>());
    let all = all_pages(&world, of_run(watched), 1_000).await;
    assert_eq!(one_run, positions(&all)[3..]);
}

async fn a_reader_that_was_live_and_lags_is_dropped_with_its_cursor(storage: Storage) {
    let mut world = World::idle(storage, Config { reader_lag_events: 50, ..config() }).await;
    world.start();
    world.whole_run(1, 2, false).await;
    let mut stream = world.views.follow(EventFilter::default(), None).await.expect("a stream");
    for _ in 0..5 {
        stream.next().await.expect("it goes on").expect("an event");
    }
    world.whole_run(2, 2, true).await;
    let last = stream.next().await.expect("it goes on").expect("live again").cursor;
    for number in 3..20 {
        world.whole_run(number, 5, true).await;
    }
    let mut read = vec![last];
    let refused = loop {
        match stream.next().await.expect("an error comes before the end") {
            Ok(event) => read.push(event.cursor),
            Err(rejection) => break rejection,
        }
    };
    let last = read.last().expect("one at least");
    assert_eq!(refused.code, "reader_too_slow");
    assert!(refused.message.contains(&last.to_string()), "{} after {last}", refused.message);
    assert!(stream.next().await.is_none());
    let mut again = world.views.follow(EventFilter::default(), Some(*last)).await.expect("again");
    let next = again.next().await.expect("it goes on").expect("history has no lag");
    assert_eq!(next.position, last.position + 1);
}

on_both_storages!(
    pages_hold_every_wanted_event_once,
    a_project_has_the_events_of_its_runs_and_things,
    a_label_has_the_events_of_its_runs,
    moved_values_are_put_back_up_to_a_size,
    a_page_of_large_events_ends_early,
    a_cursor_of_another_store_is_refused,
    a_cursor_beyond_the_last_event_is_refused,
    streams_have_no_gap_and_no_duplicate_while_a_writer_runs,
    a_reader_that_was_live_and_lags_is_dropped_with_its_cursor,
);
