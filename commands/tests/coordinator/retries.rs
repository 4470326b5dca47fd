//! Retries by a clock that the test moves.

use std::sync::Arc;

use chassis::clock::{Clock, ManualClock};
use chrono::{DateTime, TimeDelta};
use domain::run::RunStatus;
use protocol::FailureKind;
use serde_json::json;

use crate::platform::{Platform, config, folder, sequence};

#[tokio::test]
async fn a_retry_comes_when_it_is_due_and_not_before() {
    let folder = folder();
    let at = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
    let clock = Arc::new(ManualClock::new(at));
    let platform =
        Platform::start_with(folder.path(), &config(), Arc::clone(&clock) as Arc<dyn Clock>).await;
    let mut definition = sequence(1);
    definition["nodes"]["s0"]["retry"] = json!({"max_attempts": 2, "backoff": "constant", "initial": "1h", "max": "1h", "jitter": false});
    let run_id = platform.run(&definition).await;
    let first = platform.pull_one().await;
    platform.fail(&first, FailureKind::Transient).await;
    // Whatever wakes the worker before the hour is over, the retry isn't handed out. The first
    // of these runs also says that the failure was decided before the clock moves.
    for minutes in [0, 59] {
        clock.advance(TimeDelta::minutes(minutes));
        let other = platform.run(&sequence(1)).await;
        assert_eq!(platform.pull_one().await.run_id, other);
    }
    clock.advance(TimeDelta::minutes(1));
    platform.cancel_from_elsewhere(run_id).await;
    let second = platform.pull_one().await;
    assert_eq!((second.run_id, second.token, second.attempt), (run_id, first.token, 2));
    platform.fail(&second, FailureKind::Transient).await;
    let end = platform.end_of(run_id).await;
    assert_eq!(end.status, RunStatus::Failed);
    assert_eq!(end.error.map(|error| error.code).as_deref(), Some("test"));
    platform.stop().await;
}
