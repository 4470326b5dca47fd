//! Runs: rows, values, filters, pages.

use std::collections::BTreeSet;

use domain::run::RunStatus;
use protocol::{PageRequest, RejectionKind, RunFilter, RunQueries};

use super::*;

async fn ids(world: &World, filter: RunFilter) -> BTreeSet<String> {
    let page = PageRequest { limit: 200, ..PageRequest::default() };
    let page = RunQueries::list(&*world.views, ours(), filter, page).await.expect("a page");
    page.items.into_iter().map(|run| run.id).collect()
}

async fn a_run_shows_what_its_events_say(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(8);
    let first = [started(run, json!({"q": 1}), &[("team", "red")]), succeeded(1, json!("a"))];
    world.run(run, 0, &first).await;
    let second = [
        moved(1, 2),
        succeeded(2, json!("b")),
        Event::RunCompleted { output: json!({"$ref": "mine"}) },
    ];
    let position = world.run(run, 2, &second).await;
    let view = RunQueries::get(&*world.views, ours(), run, Some(position)).await.expect("there");
    assert_eq!(view.status, RunStatus::Completed);
    assert_eq!((view.sequence, view.position), (5, position));
    assert_eq!(view.input, json!({"q": 1}));
    assert_eq!(view.output, Some(json!({"$ref": "mine"})));
    assert_eq!(view.usage.input_tokens, 20);
    assert_eq!(view.labels["team"], "red");
    assert_eq!(view.ended_at, Some(moment(2)));
    assert_eq!(view.definition.name, "flow-2");

    let hidden = RunQueries::get(&*world.views, theirs(), run, None).await;
    assert_eq!(hidden.expect_err("not theirs").kind, RejectionKind::NotFound);
}

async fn large_values_are_whole_in_a_read_and_null_in_a_list(storage: Storage) {
    let world = World::new(storage).await;
    let (run, input) = (run_id(1), json!({"text": "x".repeat(100_000)}));
    let position = world.run(run, 0, &[started(run, input.clone(), &[])]).await;
    let view = RunQueries::get(&*world.views, ours(), run, Some(position)).await.expect("there");
    assert_eq!(view.input, input);
    let page =
        RunQueries::list(&*world.views, ours(), RunFilter::default(), PageRequest::default());
    assert_eq!(page.await.expect("a page").items[0].input, Value::Null);
}

async fn filters_narrow(storage: Storage) {
    let world = World::new(storage).await;
    let [a, b, c] = [run_id(10), run_id(11), run_id(12)];
    let error = json!({"type": "run_failed", "error":
        {"code": "stalled", "message": "50% done", "kind": "permanent"}});
    world.run(a, 0, &[started(a, json!(1), &[("team", "red"), ("x", "1")])]).await;
    world
        .run(b, 0, &[started(b, json!(1), &[("team", "red"), ("experiment", "e")]), event(error)])
        .await;
    world
        .run(
            c,
            0,
            &[
                started(c, json!(1), &[("team", "blue")]),
                Event::RunCancelled { reason: Some("enough".into()), code: None },
            ],
        )
        .await;
    world.caught_up().await;
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let all = RunFilter::default();
    let cases = [
        (all.clone(), vec![a, b, c]),
        (RunFilter { labels: vec![label("team", "red")], ..all.clone() }, vec![a, b]),
        (RunFilter { labels: vec![label("team", "red"), label("x", "1")], ..all.clone() }, vec![a]),
        (RunFilter { labels: vec![label("team", "1")], ..all.clone() }, vec![]),
        (RunFilter { of_experiment: Some(true), ..all.clone() }, vec![b]),
        (RunFilter { of_experiment: Some(false), ..all.clone() }, vec![a, c]),
        (
            RunFilter {
                of_experiment: Some(true),
                labels: vec![label("team", "blue")],
                ..all.clone()
            },
            vec![],
        ),
        (
            RunFilter { status: vec![RunStatus::Failed, RunStatus::Running], ..all.clone() },
            vec![a, b],
        ),
        (RunFilter { definition: Some("flow-2".into()), ..all.clone() }, vec![b]),
        (RunFilter { project_id: Some(project_id(0).to_string()), ..all.clone() }, vec![a, c]),
        (RunFilter { q: Some("0% d".into()), ..all.clone() }, vec![b]),
        (RunFilter { q: Some("0_ d".into()), ..all.clone() }, vec![]),
        (RunFilter { q: Some("enough".into()), ..all.clone() }, vec![c]),
        (RunFilter { q: Some("ENOUGH".into()), ..all.clone() }, vec![c]),
        (RunFilter { q: Some("Flow-2".into()), ..all.clone() }, vec![b]),
        (RunFilter { q: Some("\0".into()), ..all.clone() }, vec![]),
        (RunFilter { definition: Some("flow-2\0".into()), ..all.clone() }, vec![]),
        (RunFilter { labels: vec![label("team", "red\0")], ..all.clone() }, vec![]),
        (
            RunFilter {
                started_after: Some(DateTime::UNIX_EPOCH + TimeDelta::seconds(5)),
                ..all.clone()
            },
            vec![c],
        ),
        (
            RunFilter {
                started_before: Some(DateTime::UNIX_EPOCH + TimeDelta::seconds(6)),
                ..all.clone()
            },
            vec![a, b],
        ),
    ];
    for (filter, wanted) in cases {
        let wanted = wanted.iter().map(ToString::to_string).collect();
        assert_eq!(ids(&world, filter.clone()).await, wanted, "{filter:?}");
    }
}

async fn pages_show_each_run_once_newest_first(storage: Storage) {
    let world = World::new(storage).await;
    for number in 1..=23 {
        world.whole_run(number, 1, number % 2 == 0).await;
    }
    world.caught_up().await;
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageRequest { limit: 5, cursor, min_position: None };
        let page = RunQueries::list(&*world.views, ours(), RunFilter::default(), page).await;
        let page = page.expect("a page");
        seen.extend(page.items.into_iter().map(|run| (run.started_at, run.id)));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 23);
    assert!(seen.is_sorted_by(|a, b| a > b));
}

async fn a_page_of_large_rows_ends_early(storage: Storage) {
    let world = World::new(storage).await;
    for number in 1..=160 {
        let input = json!("x".repeat(60_000));
        world.run(run_id(number), 0, &[started(run_id(number), input, &[])]).await;
    }
    world.caught_up().await;
    let (mut seen, mut cursor, mut pages) = (0, None, 0);
    loop {
        let page = PageRequest { limit: 200, cursor, min_position: None };
        let page = RunQueries::list(&*world.views, ours(), RunFilter::default(), page).await;
        let page = page.expect("a page");
        assert!(serde_json::to_vec(&page).expect("JSON").len() < 9 * 1024 * 1024);
        (seen, cursor, pages) = (seen + page.items.len(), page.next_cursor, pages + 1);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (160, 2));
}

async fn a_cursor_of_another_list_is_refused(storage: Storage) {
    let world = World::new(storage).await;
    for number in 1..=3 {
        world.whole_run(number, 1, true).await;
    }
    world.caught_up().await;
    let page = |cursor| PageRequest { limit: 1, cursor, min_position: None };
    let list = |workspace, filter, cursor| {
        RunQueries::list(&*world.views, workspace, filter, page(cursor))
    };
    let first = list(ours(), RunFilter::default(), None).await.expect("a page");
    let failed = RunFilter { status: vec![RunStatus::Failed], ..RunFilter::default() };
    for (workspace, filter, cursor) in [
        (ours(), failed, first.next_cursor.clone()),
        (theirs(), RunFilter::default(), first.next_cursor),
        (ours(), RunFilter::default(), Some("nonsense".to_owned())),
    ] {
        let refused = list(workspace, filter, cursor).await.expect_err("another list");
        assert_eq!((refused.kind, &*refused.code), (RejectionKind::Malformed, "invalid_cursor"));
    }
}

async fn a_position_that_does_not_come_is_refused_in_time(storage: Storage) {
    let short = Config { position_wait: std::time::Duration::from_millis(20), ..config() };
    let mut world = World::idle(storage, short).await;
    let run = world.whole_run(1, 1, true).await;
    let head = world.journal.head().await.expect("it answers");
    let refused = RunQueries::get(&*world.views, ours(), run, Some(head)).await;
    assert_eq!(refused.expect_err("nothing folds").code, "position_not_reached");
    world.start();
    world.caught_up().await;
    assert!(RunQueries::get(&*world.views, ours(), run, Some(head)).await.is_ok());
}

on_both_storages!(
    a_run_shows_what_its_events_say,
    large_values_are_whole_in_a_read_and_null_in_a_list,
    filters_narrow,
    pages_show_each_run_once_newest_first,
    a_page_of_large_rows_ends_early,
    a_cursor_of_another_list_is_refused,
    a_position_that_does_not_come_is_refused_in_time,
);
