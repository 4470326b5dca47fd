//! Promise 17: it degrades and recovers unattended. NATS, the database or its disk are away: what
//! can't be done is answered 503 or 507, nothing that was acknowledged is lost, and all goes on
//! when they are back, without anybody's help.
//!
//! It fails where a failure is answered as the client's fault or not at all, where a process gives
//! up or ends, and where a connection, a queue or a shard stays broken afterwards.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Answer, Client, Platform, Setting, Shape, Traffic, wait_for, workflows};

mod disk;

use disk::SmallDisk;

system_tests::in_distributed!(nats_is_away, the_database_is_away_from_several);

/// Clients, each with a run under way.
const CLIENTS: u64 = 4;
/// After which everything has to go on.
const RECOVERY: Duration = Duration::from_secs(60);

async fn start_of(shape: impl Into<Shape>) -> (Platform, Client) {
    let platform = Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await;
    let client = platform.client();
    client.post("/workflow-definitions", &workflows::sequence("p17", 3)).await.ok();
    (platform, client)
}

/// Asks for a run, once, under a key.
async fn order(client: &Client, key: &str) -> Answer {
    let body = json!({"definition": "p17", "input": {"n": 1}});
    let request = client.request(Method::POST, "/runs").header("idempotency-key", key);
    client.send(request.json(&body)).await.expect("a gateway answers")
}

/// Whether it was refused for now, and says so.
fn is_unavailable(answer: &Answer) -> bool {
    matches!(answer.status, 503 | 507) && !answer.code().is_empty()
}

/// Returns when a gateway refuses commands for now. One that was taken before is remembered and
/// answered again, so each is asked under a key of its own.
async fn refused(client: &Client, key: &str) {
    let asked = std::sync::atomic::AtomicU64::new(0);
    let refused = wait_for("commands to be refused", || async {
        let number = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let answer = order(client, &format!("{key}-{number}")).await;
        (!answer.is_success()).then_some(answer)
    })
    .await;
    assert!(is_unavailable(&refused), "{}: {}", refused.status, refused.text);
}

/// Returns when a process says that it isn't ready.
async fn unready(platform: &Platform, name: &str) {
    wait_for(&format!("{name} to be unready"), || async {
        (platform.ask(name, "/readyz").await?.0 == 503).then_some(())
    })
    .await;
}

/// What is there again is used again: the same key gives a run, once, and more runs end than there
/// are clients.
async fn recovered(platform: &Platform, client: &Client, key: &str, traffic: &Traffic) {
    let begun = Instant::now();
    let receipt = wait_for("commands to be taken", || async {
        let answer = order(client, key).await;
        answer.is_success().then_some(answer.body)
    })
    .await;
    let run_id = receipt["id"].as_str().expect("a run's id").to_owned();
    assert_eq!(client.end_of(&run_id).await["output"], json!({"n": 4}));
    assert_eq!(order(client, key).await.ok()["id"], Value::String(run_id));
    traffic.progress(2 * CLIENTS as usize).await;
    platform.ready().await;
    let took = begun.elapsed();
    eprintln!("all goes on after {took:?}");
    assert!(took < RECOVERY, "it took {took:?}");
}

async fn finish(mut platform: Platform, traffic: Traffic) {
    let book = traffic.stop().await;
    platform.client().all_ended().await;
    platform.kill_9().await;
    let report = platform.audit(&book).await;
    assert_eq!(report["runs"]["open"], 0, "{report}");
}

async fn nats_is_away(setting: Setting) {
    let (mut platform, client) = start_of(setting).await;
    let traffic = Traffic::start(&client, CLIENTS).await;
    traffic.progress(4).await;
    platform.nats().kill_9().await;
    for name in platform.names() {
        unready(&platform, &name).await;
    }
    refused(&client, "nats").await;
    platform.nats().start_again().await;
    recovered(&platform, &client, "nats", &traffic).await;
    finish(platform, traffic).await;
}

async fn the_database_is_away(shape: Shape, writer: &str) {
    let (platform, client) = start_of(shape.with_own_postgres()).await;
    let traffic = Traffic::start(&client, CLIENTS).await;
    traffic.progress(4).await;
    platform.postgres().stop_immediately().await;
    unready(&platform, writer).await;
    refused(&client, "database").await;
    platform.postgres().start_again().await;
    recovered(&platform, &client, "database", &traffic).await;
    finish(platform, traffic).await;
}

async fn the_database_is_away_from_several(setting: Setting) {
    the_database_is_away(setting.into(), "coordinator-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_away_from_one() {
    the_database_is_away(Setting::Database.into(), "platform").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_a_folder_is_full() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let shape = Shape::from(Setting::Embedded).with_data_in(disk.path());
    let (mut platform, client) = start_of(shape).await;
    let traffic = Traffic::start(&client, CLIENTS).await;
    traffic.progress(4).await;
    disk.fill();
    refused(&client, "folder").await;
    unready(&platform, "platform").await;
    disk.empty();
    recovered(&platform, &client, "folder", &traffic).await;
    let book = traffic.stop().await;
    client.all_ended().await;
    platform.kill_9().await;
    platform.audit(&book).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_the_database_is_full() {
    let Some(disk) = SmallDisk::mount(160) else { return };
    let shape = Shape::from(Setting::Database).with_data_in(disk.path());
    let (platform, client) = start_of(shape.with_own_postgres()).await;
    let traffic = Traffic::start(&client, CLIENTS).await;
    traffic.progress(4).await;
    disk.fill();
    refused(&client, "database-disk").await;
    disk.empty();
    // A server that could not write its log has ended, as it should; its operator starts it.
    platform.postgres().ensure_started().await;
    recovered(&platform, &client, "database-disk", &traffic).await;
    finish(platform, traffic).await;
}
