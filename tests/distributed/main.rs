//! What several processes do that one can't: they are killed, frozen, replaced and cut off one by
//! one, while clients go on.

use serde_json::Value;
use system_tests::{OPS, Platform, Shape, Traffic};

mod chaos;
mod echoes;
mod kills;
mod restarts;
mod set;
mod subscriber;

/// The real binary in some shape.
async fn platform(shape: impl Into<Shape>) -> Platform {
    Platform::start_as(env!("CARGO_BIN_EXE_wonder"), shape).await
}

/// Lets the clients finish, ends the platform, and has its journal checked against what they were
/// told; answers the report. Nothing may be left open.
async fn finish(platform: &mut Platform, traffic: Traffic) -> Value {
    traffic.variety().await;
    let book = traffic.stop().await;
    platform.client().all_ended().await;
    // Workers may have tasks of cancelled runs that take minutes.
    platform.kill_9().await;
    let report = platform.audit(&book).await;
    assert_eq!(report["runs"]["open"], 0, "{report}");
    for op in OPS {
        assert!(report["claims"][op].as_u64() > Some(0), "no client saw a {op}: {report}");
    }
    report
}
