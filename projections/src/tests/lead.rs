//! Processes that share a database: one folds, the others stand by and take over.

use chassis::database::Database;
use domain::run::RunStatus;
use protocol::{PageRequest, RunFilter, RunQueries, RunView};

use crate::RebuildError;
use crate::checkpoint::{Enlisted, Fold, Mark};
use crate::projection::FoldError;
use crate::store::database::for_folding;
use crate::store::sql::Connection;

use super::*;

/// Ends the session of whoever folds, from the database's side.
const END_SESSION: &str = "select count(pg_terminate_backend(pid)) from pg_locks \
    where locktype = 'advisory' and granted and objid = x'64657202'::bigint::oid \
    and database = (select oid from pg_database where datname = current_database())";

async fn all(views: &Projections) -> Vec<RunView> {
    let page = PageRequest { limit: 200, ..PageRequest::default() };
    let page = RunQueries::list(views, ours(), RunFilter::default(), page).await;
    page.expect("a page").items
}

/// The processes, as (who folds, the others), once one of them does.
async fn by_turn(one: &Arc<Projections>, other: &Arc<Projections>) -> [Arc<Projections>; 2] {
    until("one that folds", async || one.is_folding() != other.is_folding()).await;
    match one.is_folding() {
        true => [Arc::clone(one), Arc::clone(other)],
        false => [Arc::clone(other), Arc::clone(one)],
    }
}

async fn database(world: &World) -> Database {
    world.scratch.as_ref().expect("a database").connect().await
}

#[tokio::test]
async fn who_stands_by_answers_and_reads_its_own_writes() {
    let mut world = World::new(Storage::Postgres).await;
    until("its turn", async || world.views.is_folding()).await;
    let other = world.other_process(config()).await;
    world.tasks.extend(other.start(None, &world.shutdown));
    for number in 1..=20 {
        let run = world.whole_run(number, 1, true).await;
        let position = world.journal.head().await.expect("it answers");
        let view = RunQueries::get(&*other, ours(), run, Some(position)).await.expect("there");
        assert_eq!(view.position, position);
    }
    // A position without concern for a read model is reached as well.
    let head = world.journal.head().await.expect("it answers");
    reach(&other, head).await;
    for (views, folding) in [(&world.views, true), (&other, false)] {
        for standing in views.standings().await.expect("it answers") {
            let found = (standing.position, standing.lag_events, standing.stopped);
            assert_eq!((found, standing.folding), ((head, 0, None), folding));
        }
    }
}

#[tokio::test]
async fn another_takes_over_from_one_whose_session_ends_and_from_one_that_dies() {
    let world = Arc::new(World::idle(Storage::Postgres, config()).await);
    let database = database(&world).await;
    let mut one = world.other_process(config()).await;
    let other = world.other_process(config()).await;
    let mut tasks = one.start(None, &world.shutdown);
    let rest = other.start(None, &world.shutdown);
    let writer = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            for number in 1..=100 {
                world.whole_run(number, 3, number % 2 == 0).await;
            }
        })
    };
    for round in 0..6 {
        let [folds, stands_by] = by_turn(&one, &other).await;
        let before = folds.position();
        let is_moving = async || folds.position() > before || writer.is_finished();
        until("a fold", is_moving).await;
        if round % 2 == 0 {
            let ended: i64 = sqlx::query_scalar(END_SESSION)
                .fetch_one(database.pool())
                .await
                .expect("it can be ended");
            assert!(ended <= 1);
        } else if Arc::ptr_eq(&folds, &one) {
            tasks.iter().for_each(JoinHandle::abort);
            drop((folds, one));
            until("another", async || stands_by.is_folding()).await;
            one = world.other_process(config()).await;
            tasks = one.start(None, &world.shutdown);
        }
    }
    writer.await.expect("the writer ends");
    let head = world.journal.head().await.expect("it answers");
    for views in [&one, &other] {
        reach(views, head).await;
        let runs = all(views).await;
        assert_eq!(runs.len(), 100);
        assert!(runs.iter().all(|run| run.usage.input_tokens == 30), "nothing is applied twice");
        let standings = views.standings().await.expect("it answers");
        assert!(standings.iter().all(|standing| standing.stopped.is_none()));
    }
    let compared = other.compare("runs", |_| {}).await.expect("it compares");
    assert_eq!(compared.difference, None);
    world.end(tasks.into_iter().chain(rest)).await;
}

#[tokio::test]
async fn one_that_is_frozen_keeps_nobody_waiting_and_does_no_harm_when_it_thaws() {
    let world = World::idle(Storage::Postgres, config()).await;
    let [one, other] = [world.other_process(config()).await, world.other_process(config()).await];
    let tasks = [one.start(None, &world.shutdown), other.start(None, &world.shutdown)];
    let [folds, stands_by] = by_turn(&one, &other).await;
    // Without its connection it can neither write nor give a sign of life.
    let frozen = folds.store.writer().lock().await;
    world.whole_run(1, 3, true).await;
    until("another", async || stands_by.is_folding()).await;
    reach(&stands_by, 8).await;
    drop(frozen);
    until("it to stand by", async || !folds.is_folding()).await;
    world.whole_run(2, 3, true).await;
    for views in [&folds, &stands_by] {
        reach(views, 16).await;
        assert!(all(views).await.iter().all(|run| run.usage.input_tokens == 30));
    }
    world.end(tasks.into_iter().flatten()).await;
}

#[tokio::test]
async fn of_two_that_fold_at_once_all_the_same_one_writes() {
    let world = World::idle(Storage::Postgres, config()).await;
    let database = database(&world).await;
    for number in 1..=10 {
        world.whole_run(number, 3, true).await;
    }
    let projection = crate::projection::by_name("runs").expect("it is listed");
    let fold = Fold { projection: projection.as_ref(), journal: world.journal.as_ref() };
    let events = world.journal.read(0, 100).await.expect("it reads");
    let batch: Vec<_> = events.into_iter().map(Arc::new).collect();
    let mut one = Connection::Database(for_folding(&database).await.expect("it connects"));
    let mut other = Connection::Database(for_folding(&database).await.expect("it connects"));
    assert_eq!(fold.enlist(&mut one, 80).await.expect("it can be"), Enlisted::At(0));
    for (from, to) in [(0, 40), (40, 80)] {
        let part = &batch[from..to];
        let (mark, end) = (Mark::at(from as u64), Mark::at(to as u64));
        let (first, second) = tokio::join!(
            fold.apply(&mut one, mark, part, false),
            fold.apply(&mut other, mark, part, false)
        );
        let (written, refused) = if first.is_ok() { (first, second) } else { (second, first) };
        assert_eq!(written.expect("one writes"), end);
        assert!(matches!(refused, Err(FoldError::NotAlone { .. })), "{refused:?}");
    }
    let runs = all(&world.views).await;
    assert!(runs.len() == 10 && runs.iter().all(|run| run.usage.input_tokens == 30));
}

#[tokio::test]
async fn rows_of_a_newer_fold_are_left_to_newer_processes() {
    let mut world = World::idle(Storage::Postgres, config()).await;
    world.start();
    let run = world.whole_run(1, 3, true).await;
    world.caught_up().await;
    world.sql_on_views("update checkpoints set version = version + 1").await;
    world.whole_run(2, 3, true).await;
    until("it to stand by", async || !world.views.is_folding()).await;
    assert!(RunQueries::get(&*world.views, ours(), run, Some(8)).await.is_ok());
    let standings = world.views.standings().await.expect("it answers");
    let runs = standings.iter().find(|standing| standing.projection == "runs").expect("listed");
    assert_eq!((runs.position, runs.lag_events, runs.folding), (8, 8, false));
    world.sql_on_views("update checkpoints set version = version - 1").await;
    world.caught_up().await;
    assert_eq!(all(&world.views).await.len(), 2);
}

#[tokio::test]
async fn rows_of_an_older_fold_are_read_until_those_that_take_their_place_are_there() {
    let world = World::idle(Storage::Postgres, config()).await;
    let one = world.other_process(config()).await;
    let tasks = one.start(None, &world.shutdown);
    for number in 1..=10 {
        world.whole_run(number, 3, true).await;
    }
    reach(&one, 80).await;
    until("its turn", async || one.is_folding()).await;
    world.sql_on_views("update checkpoints set version = version - 1, position = 80").await;
    world.sql_on_views("update runs set status = 'failed'").await;
    world.whole_run(11, 3, true).await;
    until("the new rows", async || {
        let runs = all(&one).await;
        assert!(runs.len() >= 10, "it is never without rows");
        runs.len() == 11 && runs.iter().all(|run| run.status == RunStatus::Completed)
    })
    .await;
    world.end(tasks).await;
}

#[tokio::test]
async fn rows_of_another_history_start_over() {
    let mut world = World::idle(Storage::Postgres, config()).await;
    for sql in [
        "insert into checkpoints values ('runs', 1, -1, 5)",
        "insert into run_labels values ('stale', 'a', 'b')",
    ] {
        world.sql_on_views(sql).await;
    }
    world.start();
    world.whole_run(1, 3, true).await;
    world.caught_up().await;
    let compared = world.views.compare("runs", |_| {}).await.expect("it compares");
    assert_eq!((compared.position, compared.difference), (8, None));
}

#[tokio::test]
async fn text_that_the_database_refuses_stops_the_projection_loudly() {
    let world = World::new(Storage::Postgres).await;
    let payload = r#"{"run_id":"r","project_id":"p","definition":{"id":"d","name":"n","version":1,
        "hash":"h"},"start":"s","input":1,"labels":{"a":"\u0000"},
        "started_at":"2026-01-01T00:00:00Z"}"#;
    world.append_raw("run_started", payload).await;
    until("it to stop", async || {
        let standings = world.views.standings().await.expect("it answers");
        standings.iter().any(|s| s.projection == "runs" && s.stopped.is_some())
    })
    .await;
    let standings = world.views.standings().await.expect("it answers");
    assert!(standings.iter().all(|standing| standing.folding), "another would stop as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rebuilds_one_is_refused() {
    let world = World::new(Storage::Postgres).await;
    for number in 1..=20 {
        world.whole_run(number, 3, true).await;
    }
    world.caught_up().await;
    let other = world.other_process(config()).await;
    let (entered, mut inside) = tokio::sync::mpsc::channel(1);
    let (leave, left) = std::sync::mpsc::channel::<()>();
    let views = Arc::clone(&world.views);
    let first = tokio::spawn(async move {
        let progress = move |_| {
            entered.try_send(()).ok();
            left.recv().ok();
        };
        views.rebuild("runs", progress).await
    });
    inside.recv().await.expect("it is under way");
    let refused = other.rebuild("resources", |_| {}).await;
    assert!(matches!(refused, Err(RebuildError::Busy)), "{refused:?}");
    drop(leave);
    assert_eq!(first.await.expect("it ends").expect("it rebuilds").difference, None);
    let done = other.rebuild("resources", |_| {}).await.expect("it rebuilds");
    assert_eq!(done.difference, None);
}

#[tokio::test]
async fn what_a_crash_took_from_the_rows_is_not_taken_for_missing() {
    let mut world = World::new(Storage::Postgres).await;
    let run = world.whole_run(1, 1, true).await;
    let head = world.journal.head().await.expect("it answers");
    reach(&world.views, head).await;
    let config = Config { position_wait: Duration::from_millis(100), ..config() };
    let reader = world.other_process(config).await;
    let following = CancellationToken::new();
    let tasks = reader.start(None, &following);
    reach(&reader, head).await;
    let read = async || RunQueries::get(&*reader, ours(), run, Some(head)).await;
    read().await.expect("there");
    // From here on nobody folds, and the reader believes in what it has seen.
    following.cancel();
    futures::future::join_all(tasks).await;
    world.shutdown.cancel();
    futures::future::join_all(std::mem::take(&mut world.tasks)).await;
    let database = database(&world).await;
    let crash = [
        "update checkpoints set position = 0",
        "delete from runs",
        "select count(pg_terminate_backend(pid)) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()",
    ];
    for sql in crash {
        sqlx::query(sql).execute(database.pool()).await.expect("it can be done");
    }
    until("the connection that is gone to be told from the rows", async || {
        let code = read().await.expect_err("its row is gone").code;
        assert_ne!(code, "not_found", "an acknowledged run");
        code == "position_not_reached"
    })
    .await;
    // Whoever folds next brings it back.
    let again = CancellationToken::new();
    let tasks = reader.start(None, &again);
    until("its row", async || read().await.is_ok()).await;
    again.cancel();
    futures::future::join_all(tasks).await;
    world.end(Vec::new()).await;
}
