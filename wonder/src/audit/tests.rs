//! A check of journals that the tests write by hand.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chassis::clock::{Clock, SystemClock};
use chassis::journal::{Append, InboxEntry, Journal, NewEvent, SqliteJournal, SqliteOptions};
use chrono::DateTime;
use domain::codec;
use domain::ids::{RunId, WorkspaceId};
use domain::run::Event;
use serde_json::{Value, json};

use super::chain::Evidence;
use super::claims::Claims;
use super::{Report, verify};

mod chain;
mod retained;
mod triggers;

fn run_id(number: u32) -> RunId {
    RunId::derived("test", &number.to_string())
}

fn started(number: u32) -> Value {
    json!({
        "type": "run_started", "run_id": run_id(number),
        "project_id": "prj_00000000000000000000000000",
        "definition": {
            "id": "wfd_00000000000000000000000000", "name": "t", "version": 1, "hash": "00"
        },
        "start": "a", "input": {}, "labels": {"order": number.to_string()},
        "started_at": "2026-01-01T00:00:00Z"
    })
}

/// One task and the end.
fn whole(number: u32) -> Vec<Value> {
    vec![
        started(number),
        json!({"type": "task_succeeded", "token": 1, "attempt": 1, "result": 1}),
        json!({"type": "token_routed", "token": 1}),
        json!({"type": "run_completed", "output": {"n": 1, "f": 2.5}}),
    ]
}

struct Store {
    folder: tempfile::TempDir,
    journal: Arc<SqliteJournal>,
}

impl Store {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = open(folder.path()).await;
        Self { folder, journal }
    }

    /// Appends events of a run from a sequence on, answered under the key `key-<number>`; answers
    /// the position of the last.
    async fn append(&self, number: u32, after: u64, events: &[Value], open: Option<bool>) -> u64 {
        self.append_to(run_id(number), &format!("key-{number}"), after, events, open).await
    }

    async fn append_to(
        &self,
        run_id: RunId,
        key: &str,
        after: u64,
        events: &[Value],
        open: Option<bool>,
    ) -> u64 {
        let workspace = WorkspaceId::derived("test", "one");
        let answer = json!({"id": run_id, "version": 1, "position": 0});
        let clock = SystemClock::new();
        let encoded = events.iter().map(|value| {
            let event: Event = serde_json::from_value(value.clone()).expect("an event");
            let encoded = codec::encode(&event, workspace).expect("it can be stored");
            NewEvent {
                id: clock.uuid_v7(),
                event_type: Arc::from(event.event_type()),
                event_version: event.event_version(),
                payload: Bytes::from(encoded.payload),
                recorded_at: None,
            }
        });
        let key = format!("{workspace}/{key}");
        let inbox =
            InboxEntry { key, fingerprint: String::new(), answer: answer.to_string().into() };
        let append = Append {
            aggregate_type: Arc::from("run"),
            aggregate_id: Arc::from(run_id.to_string()),
            expected_sequence: after,
            workspace_id: Arc::from(workspace.to_string()),
            metadata: Bytes::from_static(b"{}"),
            recorded_at: DateTime::UNIX_EPOCH,
            events: encoded.collect(),
            inbox: if after == 0 { vec![inbox] } else { Vec::new() },
            open,
            shard: protocol::shard_of(run_id),
            ..Append::default()
        };
        self.journal.append(append).await.expect("it is appended").last_position
    }

    async fn check(&self, log: &[Value]) -> Report {
        let log: Vec<String> = log.iter().map(Value::to_string).collect();
        let claims = Claims::parse(&log.join("\n")).expect("a log");
        verify(&*self.journal, &claims, &Evidence::default(), |_, _| {})
            .await
            .expect("the journal can be read")
    }
}

async fn open(folder: &Path) -> Arc<SqliteJournal> {
    let path = folder.join("journal.db");
    SqliteJournal::open(&path, SqliteOptions::default()).await.expect("a journal")
}

fn positions(report: &Report) -> Vec<Option<u64>> {
    report.findings.iter().map(|finding| finding.subject.position).collect()
}

fn lines(report: &Report) -> Vec<Option<usize>> {
    report.findings.iter().map(|finding| finding.subject.line).collect()
}

#[tokio::test]
async fn a_sound_journal_has_no_finding() {
    let store = Store::new().await;
    store.append(1, 0, &whole(1), None).await;
    store.append(2, 0, &whole(2)[..1], Some(true)).await;
    store.append(2, 1, &whole(2)[1..], Some(false)).await;
    store.append(3, 0, &whole(3)[..1], Some(true)).await;
    let report = store.check(&[]).await;
    assert_eq!(report.findings, []);
    assert!(report.ok && report.complete);
    assert_eq!((report.head, report.events, report.aggregates), (9, 9, 3));
    assert_eq!((report.runs.completed, report.runs.open), (2, 1));
}

#[tokio::test]
async fn an_event_that_does_not_fit_is_found_where_it_stands() {
    let succeeded = |token: u64, attempt: u32| {
        let event = "task_succeeded";
        json!({"type": event, "token": token, "attempt": attempt, "result": 2})
    };
    let routed = json!({"type": "token_routed", "token": 1});
    let twice = json!({"moved": {"transition": 0, "token": 1, "node": "b"}});
    let spawned =
        json!({"type": "branches_spawned", "instance": 1, "index": 0, "token": 2, "count": 1});
    let completed = json!({"type": "run_completed", "output": {}});
    let cancelled = json!({"type": "run_cancelled"});
    let [first, done] = [started(1), succeeded(1, 1)];
    let cases: Vec<(Vec<Value>, &[u64])> = vec![
        (vec![done.clone()], &[1]),
        (vec![started(2)], &[1]),
        (vec![first.clone(), first.clone()], &[2]),
        (vec![first.clone(), done.clone(), succeeded(1, 1)], &[3]),
        (vec![first.clone(), succeeded(1, 2)], &[2]),
        (vec![first.clone(), succeeded(7, 1)], &[2]),
        (vec![first.clone(), routed.clone()], &[2]),
        (vec![first.clone(), done.clone(), routed.clone(), routed.clone()], &[4]),
        (
            vec![
                first.clone(),
                done.clone(),
                json!({"type": "token_routed", "token": 1, "fired": [twice]}),
            ],
            &[3],
        ),
        (vec![first.clone(), json!({"type": "retry_started", "token": 1, "attempt": 2})], &[2]),
        (vec![first.clone(), json!({"type": "group_ended", "instance": 1})], &[2]),
        (vec![first.clone(), spawned], &[2]),
        (vec![first.clone(), completed], &[2]),
        (vec![first.clone(), cancelled.clone(), done, cancelled], &[3, 4]),
    ];
    found_where_they_stand(cases).await;
}

#[tokio::test]
async fn what_is_undone_twice_out_of_order_or_for_another_cause_is_found() {
    let done = |token: u64, next: u64| {
        let moved = json!({"moved": {"transition": 0, "token": next, "node": "a"}});
        [
            json!({"type": "task_succeeded", "token": token, "attempt": 1, "result": 2, "undo": {}}),
            json!({"type": "token_routed", "token": token, "fired": [moved]}),
        ]
    };
    let [[one, first], [two, second]] = [done(1, 2), done(2, 3)];
    let begun = [started(1), one, first, two, second];
    let starts = |total: u64| json!({"type": "compensation_started", "status": "cancelled", "reason": "x", "total": total});
    let undo = |token: u64, undoes: u64| json!({"type": "undo_started", "token": token, "undoes": undoes, "node": "a"});
    let undone =
        |token: u64, event: &str| json!({"type": event, "token": token, "attempt": 1, "result": 1});
    let ended = |undone: u64| json!({"type": "compensation_ended", "total": 2, "undone": undone, "failed": 0});
    let cancelled = |reason: &str| json!({"type": "run_cancelled", "reason": reason});
    let all = [undo(4, 2), undone(4, "undo_succeeded"), undo(5, 1), undone(5, "undo_succeeded")];
    let with = |rest: Vec<Value>| [begun.to_vec(), vec![starts(2)], rest].concat();
    let whole = with([all.to_vec(), vec![ended(2), cancelled("x")]].concat());
    let store = Store::new().await;
    store.append(1, 0, &whole, None).await;
    assert_eq!(store.check(&[]).await.findings, []);

    let completed = json!({"type": "run_completed", "output": {}});
    let mut started_twice = whole.clone();
    started_twice.insert(6, starts(2));
    let cases: Vec<(Vec<Value>, &[u64])> = vec![
        ([begun.to_vec(), vec![starts(3)]].concat(), &[6]),
        ([begun.to_vec(), vec![undo(4, 2)]].concat(), &[6]),
        (with(vec![undo(4, 1)]), &[7]),
        (with(vec![undo(3, 2)]), &[7]),
        (with(vec![undo(4, 2), undo(5, 1)]), &[8]),
        (with(vec![undo(4, 2), undone(4, "task_succeeded")]), &[8]),
        (with(vec![undone(3, "task_succeeded")]), &[7]),
        (with(vec![ended(1)]), &[7]),
        (with(vec![ended(0), cancelled("y")]), &[8]),
        (with(vec![completed]), &[7]),
        (started_twice, &[7]),
    ];
    found_where_they_stand(cases).await;
}

#[tokio::test]
async fn mutexes_regions_and_additions_that_do_not_fit_are_found() {
    let first = started(1);
    let of_mutex = |event: &str, token: u64| json!({"type": event, "token": token, "mutex": "m"});
    let (taken, awaited) = (of_mutex("mutex_taken", 1), of_mutex("mutex_awaited", 1));
    let done = json!({"type": "task_succeeded", "token": 1, "attempt": 1, "result": 2});
    let region = json!({"type": "tokens_cancelled", "by": 1, "transition": 0, "tokens": 0,
        "region": "all"});
    let added = json!({"type": "token_routed", "token": 1, "extended": [{"instance": 1,
        "branches": {"transition": 0, "node": "b", "count": 1}}]});
    let cases: Vec<(Vec<Value>, &[u64])> = vec![
        (vec![first.clone(), taken.clone(), taken.clone()], &[3]),
        (vec![first.clone(), awaited.clone(), awaited.clone()], &[3]),
        (vec![first.clone(), awaited, done.clone()], &[3]),
        (vec![first.clone(), of_mutex("mutex_taken", 7)], &[2]),
        (vec![first.clone(), region], &[2]),
        (vec![first, done, added], &[3]),
    ];
    found_where_they_stand(cases).await;
}

#[tokio::test]
async fn waits_gates_signals_and_pauses_that_do_not_fit_are_found() {
    let first = started(1);
    let waits = json!({"type": "wait_started", "token": 1, "signal": "go"});
    let ended = json!({"type": "wait_ended", "token": 1, "result": {}});
    let gate = json!({"type": "gate_opened", "token": 1, "node": "a", "title": "?",
        "approvals": 1, "rejections": 1});
    let answer = json!({"type": "gate_answered", "token": 1, "actor": "ann",
        "decision": "approve", "at": DateTime::UNIX_EPOCH});
    let closed = |outcome: &str| json!({"type": "gate_closed", "token": 1, "outcome": outcome});
    let signal = |number: u64| {
        json!({"type": "signal_received", "number": number, "name": "go",
            "sent_at": DateTime::UNIX_EPOCH})
    };
    let failed = json!({"type": "node_failed", "token": 1,
        "error": {"code": "x", "message": "x", "kind": "permanent"}});
    let (paused, resumed) = (json!({"type": "run_paused"}), json!({"type": "run_resumed"}));
    let sound = [
        vec![
            first.clone(),
            waits.clone(),
            signal(1),
            paused.clone(),
            resumed.clone(),
            ended.clone(),
        ],
        vec![first.clone(), gate.clone(), answer.clone(), closed("approved")],
        vec![first.clone(), waits.clone(), failed.clone()],
    ];
    for events in sound {
        let store = Store::new().await;
        store.append(1, 0, &events, Some(true)).await;
        assert_eq!(store.check(&[]).await.findings, [], "{events:?}");
    }
    let cases: Vec<(Vec<Value>, &[u64])> = vec![
        (vec![first.clone(), waits.clone(), waits.clone()], &[3]),
        (vec![first.clone(), ended.clone(), ended], &[3]),
        (vec![first.clone(), answer.clone()], &[2]),
        (vec![first.clone(), gate.clone(), failed], &[3]),
        (vec![first.clone(), gate.clone(), closed("approved"), answer], &[4]),
        (vec![first.clone(), closed("rejected")], &[2]),
        (vec![first.clone(), gate, closed("cancelled")], &[3]),
        (vec![first.clone(), signal(2)], &[2]),
        (vec![first.clone(), paused.clone(), paused], &[3]),
        (vec![first, resumed], &[2]),
    ];
    found_where_they_stand(cases).await;
}

/// Each list of events has findings at these positions.
async fn found_where_they_stand(cases: Vec<(Vec<Value>, &[u64])>) {
    for (events, wanted) in cases {
        let store = Store::new().await;
        // Whether it is listed as open isn't what is looked at here.
        store.append(1, 0, &events, Some(true)).await;
        let report = store.check(&[]).await;
        let found: Vec<_> = positions(&report).into_iter().flatten().collect();
        assert_eq!(found, wanted, "{events:?}: {:?}", report.findings);
        assert!(!report.ok);
    }
}

#[tokio::test]
async fn the_list_of_open_runs_is_compared() {
    let store = Store::new().await;
    store.append(1, 0, &whole(1), Some(true)).await;
    store.append(2, 0, &whole(2)[..1], None).await;
    let report = store.check(&[]).await;
    let mut found: Vec<_> =
        report.findings.iter().filter_map(|finding| finding.subject.aggregate_id.clone()).collect();
    found.sort();
    let wanted: Vec<Arc<str>> =
        [1, 2].into_iter().map(|number| Arc::from(run_id(number).to_string())).collect();
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn damaged_rows_are_found_and_one_that_cannot_be_read_ends_the_check() {
    let store = Store::new().await;
    store.append(1, 0, &whole(1), None).await;
    store.append(2, 0, &whole(2), None).await;
    let Store { folder, journal } = store;
    journal.close().await;
    drop(journal);
    let damages = [
        ("update events set sequence = 9 where position = 4", vec![4], true),
        ("update events set payload = x'5b5d' where position = 2", vec![2, 3, 4], true),
        ("update events set event_id = x'00' where position = 6", vec![2, 3, 4, 6], false),
    ];
    for (damage, wanted, complete) in damages {
        let path = folder.path().join("journal.db");
        let file = rusqlite::Connection::open(&path).expect("the file");
        file.execute(damage, []).expect("a damaged row");
        drop(file);
        let journal = open(folder.path()).await;
        let claims = Claims::default();
        let report = verify(&*journal, &claims, &Evidence::default(), |_, _| {})
            .await
            .expect("it can be read");
        journal.close().await;
        let found: Vec<_> = positions(&report).into_iter().flatten().collect();
        assert_eq!((found, report.complete), (wanted, complete), "{:?}", report.findings);
    }
}

#[tokio::test]
async fn what_clients_were_told_is_what_stands_there() {
    let store = Store::new().await;
    let first = store.append(1, 0, &whole(1), None).await;
    let second = store.append(2, 0, &whole(2)[..1], Some(true)).await;
    let start = |number: u32, key: &str, position: u64| {
        json!({
            "op": "start", "key": key, "run_id": run_id(number), "position": position,
            "status": 201, "labels": {"order": number.to_string()}
        })
    };
    let ended = |number: u32, status: &str, output: Value| {
        let run_id = run_id(number);
        json!({"op": "ended", "run_id": run_id, "status": status, "output": output})
    };
    let told = [
        start(1, "key-1", first),
        start(1, "key-1", first),
        start(2, "key-2", second),
        json!({"op": "refused", "key": "key-9", "status": 422}),
        ended(1, "completed", json!({"f": 2.5, "n": 1.0})),
    ];
    let report = store.check(&told).await;
    assert_eq!(report.findings, []);
    assert_eq!((report.claims.start, report.claims.refused, report.claims.ended), (3, 1, 1));

    let lies = [
        start(3, "key-3", first),
        start(1, "key-1", second),
        start(1, "key-1", 99),
        start(1, "key-2", first),
        start(2, "key-2", second),
        json!({"op": "refused", "key": "key-1", "status": 404}),
        json!({"op": "refused", "key": "key-9", "status": 503}),
        ended(1, "failed", Value::Null),
        ended(1, "completed", json!({"f": 2.5, "n": 2})),
        ended(2, "completed", Value::Null),
        ended(3, "cancelled", Value::Null),
    ];
    let report = store.check(&lies).await;
    let wanted: Vec<_> = (1..=lies.len()).map(Some).collect();
    assert_eq!(lines(&report), wanted, "{:?}", report.findings);
}

#[tokio::test]
async fn two_runs_of_one_order_are_found() {
    let store = Store::new().await;
    let position = store.append(1, 0, &whole(1), None).await;
    let mut ghost = whole(2);
    ghost[0]["labels"] = json!({"order": "1"});
    store.append(2, 0, &ghost, None).await;
    let told = json!({
        "op": "start", "run_id": run_id(1), "position": position, "status": 201,
        "labels": {"order": "1"}
    });
    assert_eq!(lines(&store.check(&[told]).await), [Some(1)]);
}

#[test]
fn a_line_that_is_none_is_named() {
    for line in ["{", "{\"op\":\"sing\"}", "{\"op\":\"refused\"}", "7"] {
        let log = format!("{{\"op\":\"refused\",\"key\":\"k\",\"status\":422}}\n\n{line}\n");
        let error = Claims::parse(&log).expect_err("a bad line");
        assert!(error.to_string().contains("line 3"), "{error}");
    }
}

#[tokio::test]
async fn parents_and_children_that_do_not_agree_are_found() {
    let (parent, token) = (run_id(1), 1);
    let child = parent.child(token);
    let asks = json!({"type": "child_started", "token": token, "run_id": child, "definition": "t"});
    let told = |status: &str| {
        json!({"type": "child_ended", "token": token, "run_id": child, "status": status,
            "result": 1})
    };
    let begins = |depth: u32| {
        let mut first = started(1);
        first["run_id"] = json!(child);
        first["parent"] =
            json!({"run_id": parent, "token": token, "root_run_id": parent, "depth": depth});
        first
    };
    let mut done = whole(1);
    done[0] = begins(1);
    // The parent's first events, the child's, the parent's others; and where findings are.
    type Case = (Vec<Value>, Vec<Value>, Vec<Value>, &'static [u64]);
    let cases: Vec<Case> = vec![
        (vec![started(1), asks.clone()], done.clone(), vec![told("completed")], &[]),
        (vec![started(1), asks.clone()], vec![], vec![told("failed")], &[]),
        (vec![started(1), asks.clone()], done.clone(), vec![told("cancelled")], &[7]),
        (vec![started(1), asks.clone()], vec![begins(1)], vec![told("completed")], &[4]),
        (vec![started(1)], vec![begins(1)], vec![], &[2]),
        (vec![started(1)], vec![], vec![told("failed")], &[2]),
        (vec![started(1), asks.clone()], vec![], vec![told("failed"), told("failed")], &[4]),
        (
            vec![
                started(1),
                json!({"type": "child_started", "token": token, "run_id": run_id(9),
                    "definition": "t"}),
            ],
            vec![],
            vec![],
            &[2],
        ),
    ];
    for (first, below, rest, wanted) in cases {
        let store = Store::new().await;
        store.append(1, 0, &first, Some(true)).await;
        if !below.is_empty() {
            store.append_to(child, "child", 0, &below, Some(below.len() == 1)).await;
        }
        if !rest.is_empty() {
            store.append(1, first.len() as u64, &rest, None).await;
        }
        let report = store.check(&[]).await;
        let found: Vec<_> = positions(&report).into_iter().flatten().collect();
        assert_eq!(found, wanted, "{first:?} {below:?} {rest:?}: {:?}", report.findings);
    }
}
