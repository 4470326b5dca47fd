//! Projectors: no event skipped or applied twice, and rebuilt rows equal live ones.

use protocol::{Page, PageRequest, RunFilter, RunQueries, RunView};

use crate::rebuild::Difference;
use crate::{OpenError, RebuildError};

use super::*;

async fn rows(views: &Projections) -> Vec<RunView> {
    let page = PageRequest { limit: 200, ..PageRequest::default() };
    let page: Page<RunView> =
        RunQueries::list(views, ours(), RunFilter::default(), page).await.expect("a page");
    page.items
}

async fn a_projector_that_is_killed_anywhere_neither_skips_nor_repeats(storage: Storage) {
    let small = Config { batch_events: 3, ..config() };
    let world = World::idle(storage, small.clone()).await;
    for number in 1..=12 {
        world.whole_run(number, 4, number % 3 == 0).await;
    }
    let head = world.journal.head().await.expect("it answers");
    // A different moment each time: after so many turns of the scheduler.
    let mut kills = 0_usize;
    loop {
        let views = world.reopen_with(small.clone()).await;
        let tasks = views.start(None, &CancellationToken::new());
        until("its turn", async || views.is_folding()).await;
        for _ in 0..(kills * 7) % 61 {
            tokio::task::yield_now().await;
            tokio::task::spawn_blocking(|| {}).await.expect("a turn");
        }
        tasks.iter().for_each(JoinHandle::abort);
        for task in tasks {
            let _ = task.await;
        }
        let done = views.runs.position() == head;
        drop(views);
        kills += 1;
        if done {
            break;
        }
    }
    assert!(kills > 1, "it was killed on the way");
    let views = world.reopen().await;
    let tasks = views.start(None, &world.shutdown);
    reach(&views, head).await;
    assert_eq!(views.compare("runs", |_| {}).await.expect("compares").difference, None);
    assert_eq!(rows(&views).await.len(), 12);
    assert!(rows(&views).await.iter().all(|run| run.usage.input_tokens == 40));
    world.end(tasks).await;
}

#[tokio::test]
async fn of_two_projectors_of_a_file_one_stops_and_nothing_is_applied_twice() {
    let world = World::idle(Storage::Sqlite, config()).await;
    let other = world.reopen().await;
    for number in 1..=20 {
        world.whole_run(number, 4, true).await;
    }
    let head = world.journal.head().await.expect("it answers");
    let tasks = [world.views.start(None, &world.shutdown), other.start(None, &world.shutdown)];
    reach(&world.views, head).await;
    reach(&other, head).await;
    let mut stopped = Vec::new();
    for views in [&world.views, &other] {
        let standings = views.standings().await.expect("it answers");
        stopped.extend(
            standings.into_iter().filter(|s| s.projection == "runs").map(|s| s.stopped.is_some()),
        );
    }
    assert_eq!(stopped.iter().filter(|stopped| **stopped).count(), 1);
    assert!(rows(&other).await.iter().all(|run| run.usage.input_tokens == 40));
    world.end(tasks.into_iter().flatten()).await;
}

async fn an_event_that_cannot_be_applied_stops_the_projection_loudly(storage: Storage) {
    let world = World::new(storage).await;
    let run = world.whole_run(1, 1, false).await;
    world.caught_up().await;
    world.sql_on_views("delete from runs").await;
    world.run(run, 3, &[succeeded(2, json!(1))]).await;
    world.whole_run(2, 1, true).await;
    world.caught_up().await;
    let standings = world.views.standings().await.expect("it answers");
    let runs = standings.iter().find(|s| s.projection == "runs").expect("it is listed");
    assert!(runs.stopped.is_some() && runs.position == 3 && runs.lag_events > 0);
    let resources = standings.iter().find(|s| s.projection == "resources").expect("listed");
    assert_eq!((resources.stopped.clone(), resources.lag_events), (None, 0));
}

async fn a_rebuild_while_writing_equals_the_live_rows(storage: Storage) {
    let world = Arc::new(World::new(storage).await);
    for number in 1..=50 {
        world.whole_run(number, 3, true).await;
    }
    let writer = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            for number in 51..=150 {
                world.whole_run(number, 3, number % 2 == 0).await;
            }
        })
    };
    let mut rebuilds = 0;
    while !writer.is_finished() || rebuilds == 0 {
        let done = world.views.rebuild("runs", |_| {}).await.expect("it rebuilds");
        assert_eq!(done.difference, None);
        let done = world.views.compare("resources", |_| {}).await.expect("it compares");
        assert_eq!(done.difference, None);
        rebuilds += 1;
    }
    writer.await.expect("the writer ends");
    world.caught_up().await;
    assert_eq!(rows(&world.views).await.len(), 150);
    assert_eq!(world.views.compare("runs", |_| {}).await.expect("compares").difference, None);
    assert!(!world.folder.path().join("views.db.runs.next").exists());
}

async fn a_rebuild_names_and_mends_the_first_difference(storage: Storage) {
    let world = World::new(storage).await;
    let run = world.whole_run(7, 1, true).await;
    world.caught_up().await;
    world.sql_on_views("update runs set status = 'failed'").await;
    let row = run.to_string();
    let wrong = Some(Difference { table: "runs", row });
    let compared = world.views.compare("runs", |_| {}).await.expect("it compares");
    assert_eq!(compared.difference, wrong);
    let rebuilt = world.views.rebuild("runs", |_| {}).await.expect("it rebuilds");
    assert_eq!(rebuilt.difference, wrong);
    let compared = world.views.compare("runs", |_| {}).await.expect("it compares");
    assert_eq!(compared.difference, None);
    let unknown = world.views.rebuild("nothing", |_| {}).await;
    assert!(matches!(unknown, Err(RebuildError::NoSuchProjection(_))));
}

#[tokio::test]
async fn a_file_of_another_journal_is_refused() {
    let (one, two) = (World::new(Storage::Sqlite).await, World::new(Storage::Sqlite).await);
    one.whole_run(1, 1, true).await;
    one.caught_up().await;
    let (journal, views) = (Arc::clone(&two.journal), one.other_views().await);
    let opened = Projections::open(journal, views, Config::default()).await;
    assert!(matches!(opened, Err(OpenError::AnotherStore { .. })));
}

async fn rows_of_another_fold_start_over(storage: Storage) {
    let world = World::idle(storage, config()).await;
    world.sql_on_views("update checkpoints set version = 0, position = 0").await;
    world.sql_on_views("insert into run_labels values ('stale', 'a', 'b')").await;
    let views = world.reopen().await;
    let tasks = views.start(None, &world.shutdown);
    until("its turn", async || views.is_folding()).await;
    let compared = views.compare("runs", |_| {}).await.expect("it compares");
    assert_eq!((compared.position, compared.difference), (0, None));
    world.end(tasks).await;
}

async fn what_was_there_before_the_start_is_folded_too(storage: Storage) {
    let world = World::idle(storage, Config::default()).await;
    for number in 1..=30 {
        world.whole_run(number, 2, true).await;
    }
    let tasks = world.views.start(None, &world.shutdown);
    world.caught_up().await;
    assert_eq!(world.views.lag().await.expect("it answers"), 0);
    assert_eq!(world.views.position(), 30 * 6);
    world.end(tasks).await;
}

on_both_storages!(
    a_projector_that_is_killed_anywhere_neither_skips_nor_repeats,
    an_event_that_cannot_be_applied_stops_the_projection_loudly,
    a_rebuild_while_writing_equals_the_live_rows,
    a_rebuild_names_and_mends_the_first_difference,
    rows_of_another_fold_start_over,
    what_was_there_before_the_start_is_folded_too,
);
