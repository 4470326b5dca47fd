//! What remains of events, and of whom anything may go.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::codec;
use crate::ids::CommandId;
use crate::run;

fn remaining(event_type: &str, payload: &Value, keep: Keep) -> Value {
    let blob = |hash: &str| {
        let apart = json!({"code": "boom", "kind": "permanent", "message": "a secret"});
        (hash == "apart").then(|| apart.to_string().into_bytes())
    };
    let rest = remains(event_type, payload.to_string().as_bytes(), keep, &blob);
    match rest.expect("it is read") {
        Some(rest) => serde_json::from_slice(&rest).expect("JSON"),
        None => payload.clone(),
    }
}

#[test]
fn each_event_ever_written_is_still_one_once_its_content_is_dropped() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/run");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).expect("the golden files are there") {
        let file = file.expect("a file").path();
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        let event_type = name.split('.').next().expect("a type");
        let payload = std::fs::read(&file).expect("it is read");
        let whole: Value = serde_json::from_slice(&payload).expect("JSON");
        for keep in [Keep::Header, Keep::Results] {
            let rest = remaining(event_type, &whole, keep).to_string();
            let event: Result<run::Event, _> =
                codec::decode(event_type, 1, rest.as_bytes(), &|_| None);
            assert!(event.is_ok(), "{event_type}: {event:?} of {rest}");
        }
        assert_eq!(remaining(event_type, &whole, Keep::Full), whole);
        seen += 1;
    }
    assert!(seen > 39, "{seen} golden files");
}

#[test]
fn every_type_has_its_rules() {
    for event_type in codec::RUN_EVENTS {
        assert!(remains::rules(event_type).is_some(), "{event_type}");
    }
    assert_eq!(remains("another", b"{}", Keep::Header, &|_| None), Ok(None));
}

#[test]
fn results_stay_where_they_are_to() {
    let started = json!({"run_id": "run_1", "input": {"a": 1}, "labels": {"k": "v"}});
    assert_eq!(remaining("run_started", &started, Keep::Results), started);
    let header = remaining("run_started", &started, Keep::Header);
    assert_eq!(header, json!({"run_id": "run_1", "input": null, "labels": {"k": "v"}}));
    let failed = json!({"error": {"$ref": "apart"}});
    assert_eq!(remaining("run_failed", &failed, Keep::Results), failed);
    let bare = json!({"error": {"code": "boom", "kind": "permanent", "message": ""}});
    assert_eq!(remaining("run_failed", &failed, Keep::Header), bare);
}

#[test]
fn what_metrics_count_by_stays_and_what_was_said_goes() {
    let succeeded = json!({
        "token": 3, "attempt": 1, "usage": {"input_tokens": 7},
        "result": {"model": "large", "text": "a secret"}, "writes": {"x": 1}, "undo": {"id": 7},
    });
    let rest = json!({
        "token": 3, "attempt": 1, "usage": {"input_tokens": 7},
        "result": {"model": "large"}, "undo": {},
    });
    assert_eq!(remaining("task_succeeded", &succeeded, Keep::Results), rest);
    let routed = json!({
        "token": 1,
        "considered": [{"transition": 0, "tier": 0, "held": true, "read": {"state.x": "a secret"}}],
        "fired": [
            {"arrived": {"transition": 0, "instance": 1, "value": {"value": "a secret"}}},
            {"arrived": {"transition": 0, "instance": 1, "value": "nothing"}},
        ],
        "extended": [{"instance": 1, "branches": {}, "items": ["a secret"]}],
    });
    let rest = json!({
        "token": 1,
        "considered": [{"transition": 0, "tier": 0, "held": true}],
        "fired": [
            {"arrived": {"transition": 0, "instance": 1, "value": {"value": null}}},
            {"arrived": {"transition": 0, "instance": 1, "value": "nothing"}},
        ],
        "extended": [{"instance": 1, "branches": {}}],
    });
    assert_eq!(remaining("token_routed", &routed, Keep::Header), rest);
}

#[test]
fn less_is_kept_later_and_never_more() {
    let dropped = |keep, last| {
        let (run_id, sha256, archive) = (RunId::new(uuid::Uuid::nil()), String::new(), None);
        Box::new(Dropped { run_id, keep, first: 1, last, events: 1, bytes: 1, sha256, archive })
    };
    let mut retained = Retained::default();
    assert_eq!(retained.next(Keep::Full), None);
    assert_eq!(retained.next(Keep::Results), Some(Keep::Results));
    retained.evolve(&Event::RunThinned(dropped(Keep::Results, SLICE)));
    assert_eq!(retained.next(Keep::Header), Some(Keep::Results), "what was begun is finished");
    assert_eq!(retained.upto, SLICE);
    retained.evolve(&Event::RunArchived(dropped(Keep::Results, SLICE + 9)));
    assert_eq!((retained.upto, retained.next(Keep::Results)), (0, None));
    assert_eq!(retained.next(Keep::Header), Some(Keep::Header));
    retained.evolve(&Event::RunArchived(dropped(Keep::Header, 9)));
    assert_eq!(retained.next(Keep::Header), None);
}

#[test]
fn a_run_is_needed_by_its_family_and_its_forks() {
    let ids = ["top", "child", "other", "of child", "of top", "its child"];
    let [top, child, other, of_child, of_top, its_child] =
        ids.map(|name| RunId::derived("test", name));
    let started = |run_id: RunId, parent: Option<RunId>, from: Option<RunId>| -> RunStarted {
        let parent = parent
            .map(|parent| json!({"run_id": parent, "token": 1, "root_run_id": parent, "depth": 1}));
        let at = "2026-01-01T00:00:00Z";
        let from = from.map(|from| json!({"run_id": from, "sequence": 3, "at": at}));
        serde_json::from_value(json!({
            "run_id": run_id, "project_id": "prj_00000000000000000000000000",
            "definition": {
                "id": "wfd_00000000000000000000000000", "name": "t", "version": 1, "hash": "00"
            },
            "start": "a", "input": {}, "started_at": at, "parent": parent, "forked_from": from
        }))
        .expect("a start")
    };
    // The first events of forks are those of the runs that they were made of.
    let runs = [
        (top, started(top, None, None)),
        (child, started(child, Some(top), None)),
        (of_child, started(child, Some(top), Some(child))),
        (of_top, started(top, None, Some(top))),
        (its_child, started(child, Some(top), Some(child))),
    ];
    let of_other = started(other, None, None);
    for (id, run) in &runs {
        for (open, by) in &runs {
            assert!(Kin::of(*id, run).has(*open, by), "{id} by {open}");
        }
        assert!(!Kin::of(*id, run).has(other, &of_other));
        assert!(!Kin::of(other, &of_other).has(*id, run));
    }
    let of_fork = started(top, None, Some(of_top));
    let fork_of_fork = RunId::derived("test", "fork of fork");
    assert!(Kin::of(of_top, &runs[3].1).has(fork_of_fork, &of_fork));
    let kin = Kin::of(top, &runs[0].1);
    assert!(!kin.has(fork_of_fork, &of_fork), "it takes over nothing of that");
    // Far below what was forked: a fork may still come to fork it too.
    let deep = RunId::derived("test", "deep");
    let mut below = started(deep, Some(top), None);
    let parent = below.parent.as_mut().expect("a parent");
    (parent.run_id, parent.depth) = (RunId::derived("test", "its parent"), 3);
    let (fork, from) = (RunId::derived("test", "another"), started(child, None, Some(child)));
    let mut kin = Kin::of(deep, &below);
    assert!(!kin.has(fork, &from));
    kin.add(child);
    assert!(kin.has(fork, &from));
    assert_eq!(kin.ids().count(), 4);
    let homes = |kin: &Kin| kin.homes().len();
    assert_eq!(homes(&Kin::of(fork, &from)), 2);
    assert_eq!(homes(&Kin::of(child.forked(CommandId::derived("a", "b"), child.home()), &from)), 1);
}
