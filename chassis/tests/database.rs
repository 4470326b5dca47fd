//! The PostgreSQL database: what it must be set to, and its migrations.

use chassis::clock::{Clock, DatabaseClock};
use chassis::database::{Database, DatabaseError};
use chassis::scratch::ScratchDatabase;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;

#[tokio::test]
async fn many_processes_migrate_at_once() {
    let scratch = ScratchDatabase::empty().await;
    let processes = join_all((0..6).map(|_| scratch.connect())).await;
    for done in join_all(processes.iter().map(Database::migrate)).await {
        done.expect("each of them finds the tables made");
    }
    let head: i64 = sqlx::query_scalar("select position from journal_head")
        .fetch_one(processes[0].pool())
        .await
        .expect("the tables are on the search path");
    assert_eq!(head, 0);
}

#[tokio::test]
async fn a_connection_waits_for_the_disk_whatever_the_database_is_set_to() {
    let scratch = ScratchDatabase::empty().await;
    let database = scratch.connect().await;
    let name: String = sqlx::query_scalar("select current_database()")
        .fetch_one(database.pool())
        .await
        .expect("the database can be asked");
    for setting in [
        "synchronous_commit = off",
        "default_transaction_isolation = 'repeatable read'",
        "search_path = public",
    ] {
        sqlx::raw_sql(&format!("alter database {name} set {setting}"))
            .execute(database.pool())
            .await
            .expect("the setting is taken");
    }
    let database = scratch.connect().await;
    for (setting, wanted) in [
        ("synchronous_commit", "on"),
        ("default_transaction_isolation", "read committed"),
        ("search_path", "wonder"),
        ("statement_timeout", "30s"),
        ("application_name", "test"),
    ] {
        let found: String = sqlx::query_scalar("select current_setting($1)")
            .bind(setting)
            .fetch_one(database.pool())
            .await
            .expect("the setting is known");
        assert_eq!(found, wanted, "{setting}");
    }
}

#[tokio::test]
async fn a_database_that_is_away_says_so_in_time() {
    let scratch = ScratchDatabase::empty().await;
    let mut options = scratch.options();
    options.url = "postgres://nobody@127.0.0.1:1/nothing".to_owned();
    options.connect_timeout = std::time::Duration::from_millis(200);
    let refused = Database::connect(&options).await;
    assert!(matches!(refused, Err(DatabaseError::Unreachable(_))), "{refused:?}");
}

#[tokio::test]
async fn the_databases_clock_tells_its_time() {
    let scratch = ScratchDatabase::empty().await;
    let database = scratch.connect().await;
    let clock = DatabaseClock::start(&database).await.expect("the database tells the time");
    let before = clock.now();
    let time: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(database.pool())
        .await
        .expect("the database tells the time");
    let after = clock.now();
    // The first reading may be wrong by half of what it took.
    let slack = TimeDelta::milliseconds(50);
    assert!(before - slack <= time && time <= after + slack, "{before} {time} {after}");
}
