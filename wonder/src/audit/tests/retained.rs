//! Journals of which content was dropped, and altered.

use chassis::journal::{Redacted, Redaction};
use domain::retention::{AGGREGATE, Dropped, Event, Keep, Proof, remains};

use super::*;

/// Puts other payloads into a run's events, and records them or not.
async fn replaced(store: &Store, number: u32, version: u64, events: Vec<Redacted>, event: Event) {
    let workspace = WorkspaceId::derived("test", "one");
    let encoded = codec::encode(&event, workspace).expect("it can be stored");
    let redaction = Redaction {
        aggregate_type: "run".into(),
        aggregate_id: run_id(number).to_string().into(),
        events,
        released: Vec::new(),
        referred: Vec::new(),
        dropped: Vec::new(),
    };
    let append = Append {
        aggregate_type: AGGREGATE.into(),
        aggregate_id: run_id(number).to_string().into(),
        expected_sequence: version,
        workspace_id: workspace.to_string().into(),
        metadata: Bytes::from_static(b"{}"),
        recorded_at: DateTime::UNIX_EPOCH,
        events: vec![NewEvent {
            id: SystemClock::new().uuid_v7(),
            event_type: event.event_type().into(),
            event_version: event.event_version(),
            payload: encoded.payload.into(),
            recorded_at: None,
        }],
        redaction: Some(redaction),
        ..Append::default()
    };
    store.journal.append(append).await.expect("it is appended");
}

/// What is left of a run's events, and the record of it.
async fn header(store: &Store, number: u32) -> (Vec<Redacted>, Dropped) {
    let id = run_id(number).to_string();
    let events = store.journal.load("run", &id, 0, 100).await.expect("it is read");
    let (mut proof, mut redacted) = (Proof::default(), Vec::new());
    for event in &events {
        let rest = remains(&event.event_type, &event.payload, Keep::Header, &|_| None);
        match rest.expect("it is read") {
            Some(rest) => {
                proof.take(&rest);
                redacted.push(Redacted { sequence: event.sequence, payload: rest.into() });
            }
            None => proof.take(&event.payload),
        }
    }
    let dropped = Dropped {
        run_id: run_id(number),
        keep: Keep::Header,
        first: 1,
        last: events.len() as u64,
        events: redacted.len() as u64,
        bytes: 1,
        sha256: proof.finish(),
        archive: None,
    };
    (redacted, dropped)
}

fn problems(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| &*finding.problem).collect()
}

#[tokio::test]
async fn what_was_dropped_is_held_against_its_record() {
    let store = Store::new().await;
    store.append(1, 0, &whole(1), None).await;
    store.append(2, 0, &whole(2), None).await;
    let (rest, dropped) = header(&store, 1).await;
    let count = rest.len() as u64;
    replaced(&store, 1, 0, rest, Event::RunArchived(Box::new(dropped))).await;
    let report = store.check(&[]).await;
    assert_eq!(report.findings, []);
    assert_eq!((report.dropped.runs, report.dropped.events), (1, count));

    // Somebody puts other numbers into what was left.
    let other = json!({"token": 1, "attempt": 1, "result": null, "usage": {"cost_micros": 9}});
    let forged = Redacted { sequence: 2, payload: other.to_string().into() };
    replaced(&store, 1, 1, vec![forged], Event::ValuesDropped { values: 0 }).await;
    let report = store.check(&[]).await;
    assert_eq!(problems(&report), ["its events 1 to 4 aren't what was left of them"]);
}

#[tokio::test]
async fn content_that_nothing_records_to_be_dropped_is_found() {
    let store = Store::new().await;
    store.append(1, 0, &whole(1), None).await;
    let (mut rest, _) = header(&store, 1).await;
    rest.truncate(1);
    replaced(&store, 1, 0, rest, Event::ValuesDropped { values: 0 }).await;
    let report = store.check(&[]).await;
    let problem = "1 of its events have another content than was written, and 0 are recorded to";
    assert_eq!(problems(&report), [problem]);
}
