use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::codec;
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
    let [top, child, other, fork] =
        ["top", "child", "other", "fork"].map(|name| RunId::derived("test", name));
    let started = |run_id: RunId, more: Value| -> RunStarted {
        let mut started = json!({
            "run_id": run_id, "project_id": "prj_00000000000000000000000000",
            "definition": {
                "id": "wfd_00000000000000000000000000", "name": "t", "version": 1, "hash": "00"
            },
            "start": "a", "input": {}, "started_at": "2026-01-01T00:00:00Z"
        });
        let (all, more) = (started.as_object_mut().expect("an object"), more.as_object());
        all.extend(more.cloned().into_iter().flatten());
        serde_json::from_value(started).expect("a start")
    };
    let parent = json!({"parent": {"run_id": top, "token": 1, "root_run_id": top, "depth": 1}});
    let from =
        json!({"forked_from": {"run_id": child, "sequence": 3, "at": "2026-01-01T00:00:00Z"}});
    let (of_top, of_child) = (started(top, json!({})), started(child, parent));
    let (of_other, of_fork) = (started(other, json!({})), started(child, from));
    let needs = |ended: (RunId, &RunStarted), open: (RunId, &RunStarted)| is_needed_by(ended, open);
    assert!(needs((top, &of_top), (child, &of_child)) && needs((child, &of_child), (top, &of_top)));
    assert!(needs((child, &of_child), (fork, &of_fork)), "it may take over its outcomes");
    assert!(!needs((fork, &of_fork), (child, &of_child)), "it has events of its own");
    for (id, run) in [(top, &of_top), (child, &of_child), (fork, &of_fork)] {
        assert!(!needs((other, &of_other), (id, run)) && !needs((id, run), (other, &of_other)));
    }
}
