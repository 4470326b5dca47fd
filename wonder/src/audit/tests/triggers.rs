//! What triggers say of themselves, and their runs.

use std::sync::Arc;

use bytes::Bytes;
use chassis::clock::{Clock, SystemClock};
use chassis::journal::{Append, Journal, NewEvent};
use chrono::DateTime;
use domain::codec;
use domain::ids::{WorkflowId, WorkspaceId};
use domain::trigger;

use super::{Store, positions, run_id, whole};

#[tokio::test]
async fn triggers_that_are_done_with_something_twice_or_without_a_run_are_found() {
    let store = Store::new().await;
    store.append(1, 0, &whole(1), None).await;
    let fired = |key: &str, number: u32| trigger::Event::TriggerFired {
        trigger: trigger::TriggerRef {
            workflow_id: WorkflowId::derived("test", "flow"),
            name: "nightly".parse().expect("a name"),
        },
        key: key.to_owned(),
        at: DateTime::UNIX_EPOCH,
        run_id: run_id(number),
        position: None,
    };
    let workspace = WorkspaceId::derived("test", "one");
    let events = [fired("a", 1), fired("b", 9), fired("a", 1)].map(|event| NewEvent {
        id: SystemClock::new().uuid_v7(),
        event_type: Arc::from(event.event_type()),
        event_version: event.event_version(),
        payload: codec::encode(&event, workspace).expect("it can be stored").payload.into(),
        recorded_at: None,
    });
    let append = Append {
        aggregate_type: Arc::from("trigger"),
        aggregate_id: Arc::from("trg_1"),
        expected_sequence: 0,
        workspace_id: Arc::from(workspace.to_string()),
        metadata: Bytes::from_static(b"{}"),
        recorded_at: DateTime::UNIX_EPOCH,
        events: events.into(),
        ..Append::default()
    };
    let last = store.journal.append(append).await.expect("it is appended").last_position;
    let report = store.check(&[]).await;
    assert_eq!(positions(&report), [Some(last - 1), Some(last)]);
}
