//! Promise 08 over the wire: tasks and outcomes that NATS delivers several times, late and in
//! another order change nothing.
//!
//! It fails where an outcome isn't checked against token and attempt, and where a message's id is
//! what keeps it from being done twice.

use system_tests::{Echo, Shape, Traffic};

#[tokio::test(flavor = "multi_thread")]
async fn repeated_and_shuffled_tasks_and_outcomes_change_nothing() {
    let mut platform = crate::platform(Shape::whole()).await;
    let url = platform.nats().url();
    let echo = Echo::start(&url, &["wonder.outcomes.*", "wonder.tasks.>"]).await;
    let traffic = Traffic::start(&platform.client(), 4).await;
    traffic.progress(60).await;
    platform.kill_one("coordinator-1").await;
    platform.start_one("coordinator-1").await;
    traffic.progress(60).await;
    let repeated = echo.stop().await;
    assert!(repeated > 200, "only {repeated} messages were repeated");
    crate::finish(&mut platform, traffic).await;
}
