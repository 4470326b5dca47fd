//! Promise 03: a run never has two writers; its sequence is dense.
//!
//! Owners are frozen for longer than their leases, others take over, and the owners come back and
//! go on where they stopped: with what they had decided, and with what was still on its way to
//! them. It fails where an append isn't checked against the shard's epoch, where the expected
//! sequence isn't, where an owner answers or hands out after its lease, and where it never gives
//! up what it has lost. That a stale append itself is refused is tried at the journal.

use system_tests::{Setting, Traffic, wait_for};

system_tests::in_distributed!(
    an_owner_that_was_frozen_does_no_harm,
    an_owner_that_nobody_replaces_goes_on,
    owners_that_come_and_go_share_the_runs,
);

/// Clients, each with a run under way.
const CLIENTS: u64 = 6;
/// Coordinators.
const OWNERS: [&str; 2] = ["coordinator-1", "coordinator-2"];

async fn an_owner_that_was_frozen_does_no_harm(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let traffic = Traffic::start(&platform.client(), CLIENTS).await;
    for (frozen, other) in [(OWNERS[0], OWNERS[1]), (OWNERS[1], OWNERS[0])] {
        traffic.progress(8).await;
        platform.freeze(frozen);
        let watched = &platform;
        wait_for(&format!("{other} to take over"), || async {
            let owned = watched.metric(other, "wonder_shards_owned").await;
            (owned == f64::from(protocol::SHARDS)).then_some(())
        })
        .await;
        // More runs than there are clients: those that the frozen one had go on elsewhere.
        traffic.progress(2 * CLIENTS as usize).await;
        platform.thaw(frozen);
        traffic.progress(8).await;
        platform.ready().await;
    }
    let book = traffic.stop().await;
    platform.client().all_ended().await;
    platform.kill_9().await;
    let report = platform.audit(&book).await;
    assert_eq!(report["runs"]["open"], 0, "{report}");
    platform.records().await.check();
}

async fn an_owner_that_nobody_replaces_goes_on(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    platform.kill_one(OWNERS[1]).await;
    let traffic = Traffic::start(&platform.client(), CLIENTS).await;
    traffic.progress(8).await;
    // Its leases end, and nobody is there to take them.
    platform.freeze(OWNERS[0]);
    system_tests::Pace::new(3).pause_exactly(8_000).await;
    platform.thaw(OWNERS[0]);
    traffic.progress(3 * CLIENTS as usize).await;
    let book = traffic.stop().await;
    platform.client().all_ended().await;
    platform.kill_9().await;
    platform.audit(&book).await;
}

async fn owners_that_come_and_go_share_the_runs(setting: Setting) {
    let mut platform = crate::platform_in(setting).await;
    let traffic = Traffic::start(&platform.client(), CLIENTS).await;
    for round in 0..3 {
        let name = OWNERS[round % 2];
        traffic.progress(6).await;
        platform.stop_one(name).await;
        traffic.progress(6).await;
        platform.start_one(name).await;
        // It is ready when it has its share.
        platform.ready().await;
    }
    let book = traffic.stop().await;
    platform.client().all_ended().await;
    platform.kill_9().await;
    platform.audit(&book).await;
}
