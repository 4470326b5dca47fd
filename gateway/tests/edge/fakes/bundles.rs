//! The bundle that the fake read side makes: two parts, of which the second may be missing.

use domain::bundle::{Line, Manifest};
use domain::ids::WorkspaceId;
use protocol::bundle::{BundleCursor, BundleFrom, BundlePart};
use protocol::{Rejection, RejectionKind, RunView};
use serde_json::json;
use serde_json::value::to_raw_value;

pub(super) fn part(
    workspace_id: WorkspaceId,
    view: &RunView,
    from: BundleFrom,
    is_broken: bool,
    (typed_in, before): (String, usize),
) -> Result<BundlePart, Rejection> {
    match from {
        BundleFrom::Start { at } => {
            let manifest = Manifest {
                format: domain::bundle::FORMAT,
                run_id: view.id.parse().expect("an id"),
                workspace_id,
                epoch: "00000007".to_owned(),
                position: 3,
                exported_at: at,
                engine_version: "0.1.0".to_owned(),
                is_masked: false,
            };
            let line = Line::WonderBundle(manifest.clone()).to_raw().expect("JSON");
            let next = Some(Box::new(BundleCursor::new(manifest)));
            let text = json!({"payload": {"hash": "0", "value": "x".repeat(before)}});
            let more = (before > 0).then(|| to_raw_value(&text).expect("JSON"));
            Ok(BundlePart { lines: std::iter::once(line).chain(more).collect(), next })
        }
        BundleFrom::Next(_) if is_broken => {
            let kind = RejectionKind::Unavailable;
            Err(Rejection::new(kind, "journal_unavailable", "the journal is unavailable"))
        }
        BundleFrom::Next(cursor) => {
            let line = json!({"event": {
                "position": 1, "id": uuid::Uuid::nil(), "aggregate_type": "run",
                "aggregate_id": cursor.manifest.run_id.to_string(), "sequence": 1,
                "event_type": "run_started", "event_version": 1,
                "recorded_at": cursor.manifest.exported_at, "payload": {"note": typed_in}}});
            Ok(BundlePart { lines: vec![to_raw_value(&line).expect("JSON")], next: None })
        }
    }
}
