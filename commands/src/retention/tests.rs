//! Archiving over a journal that the tests write by hand.

use std::path::Path;

use chassis::clock::SystemClock;
use chassis::journal::{SqliteJournal, SqliteOptions};
use chassis::shards::sole_owner;
use chrono::Utc;
use domain::hold;
use domain::ids::CommandId;
use domain::run::event::SignalReceived;
use protocol::{Command, CommandEnvelope, SHARDS};
use serde_json::{Value, json};

use super::*;

fn workspace() -> WorkspaceId {
    WorkspaceId::derived("test", "one")
}

async fn archivist(folder: &Path) -> Archivist {
    let path = folder.join("journal.db");
    let journal = SqliteJournal::open(&path, SqliteOptions::default()).await.expect("a journal");
    Archivist {
        journal,
        clock: Arc::new(SystemClock::new()),
        ownership: sole_owner(SHARDS),
        workspace_id: workspace(),
        archives: None,
        decisions: Mutex::default(),
        releases: AtomicU64::default(),
    }
}

/// A run that was told so many things, and was cancelled then.
async fn told(archivist: &Archivist, number: u64, signals: u64, payload: &Value) -> Ended {
    let run_id = RunId::derived("test", &number.to_string());
    told_of(archivist, run_id, json!({}), signals, payload).await
}

/// The same of a run whose first event says more.
async fn told_of(
    archivist: &Archivist,
    run_id: RunId,
    more: Value,
    signals: u64,
    payload: &Value,
) -> Ended {
    let run = going_on(archivist, run_id, more, signals, payload).await;
    over(archivist, &run).await
}

/// A run that goes on, as the coordinator writes it.
async fn going_on(
    archivist: &Archivist,
    run_id: RunId,
    more: Value,
    signals: u64,
    payload: &Value,
) -> Ended {
    let on = more["forked_from"]["run_id"].as_str().map(Arc::from);
    let mut started = json!({
        "type": "run_started", "run_id": run_id,
        "project_id": "prj_00000000000000000000000000",
        "definition": {
            "id": "wfd_00000000000000000000000000", "name": "t", "version": 1, "hash": "00"
        },
        "start": "a", "input": payload, "started_at": "2026-01-01T00:00:00Z"
    });
    for (name, value) in more.as_object().expect("members") {
        started[name] = value.clone();
    }
    let mut events = vec![serde_json::from_value(started).expect("an event")];
    events.extend((1..=signals).map(|number| {
        let (name, sent_at, payload) = ("s".to_owned(), Utc::now(), payload.clone());
        let dropped = true;
        let signal = SignalReceived { number, name, payload, sent_at, dropped };
        run::Event::SignalReceived(Box::new(signal))
    }));
    append(archivist, run_id, 0, &events, (Some(true), on)).await
}

/// It is cancelled.
async fn over(archivist: &Archivist, run: &Ended) -> Ended {
    let end = run::Event::RunCancelled { reason: None, code: None };
    append(archivist, run.run_id, run.sequence, &[end], (Some(false), None)).await
}

async fn append(
    archivist: &Archivist,
    run_id: RunId,
    expected_sequence: u64,
    events: &[run::Event],
    (open, leans_on): (Option<bool>, Option<Arc<str>>),
) -> Ended {
    let encoded = events.iter().map(|event| codec::encode(event, workspace()).expect("stored"));
    let (mut payloads, mut new) = (Vec::new(), Vec::new());
    for (event, encoded) in events.iter().zip(encoded) {
        let (event, values) = payload::new_event(&*archivist.clock, event.event_type(), 1, encoded);
        payloads.extend(values);
        new.push(event);
    }
    let append = Append {
        aggregate_type: RUN.into(),
        aggregate_id: run_id.to_string().into(),
        expected_sequence,
        workspace_id: workspace().to_string().into(),
        metadata: Bytes::from_static(b"{}"),
        recorded_at: Utc::now(),
        events: new,
        payloads,
        open,
        leans_on,
        shard: shard_of(run_id),
        ..Append::default()
    };
    let appended = archivist.journal.append(append).await.expect("it is appended");
    Ended { run_id, workspace_id: workspace(), sequence: appended.last_sequence }
}

fn asked(keep: Keep) -> Asked {
    let (archive, dry_run, remembered) = (None, false, None);
    Asked { keep, archive, dry_run, metadata: Bytes::from_static(b"{}"), remembered }
}

async fn dropped(archivist: &Archivist, ended: &Ended, keep: Keep) -> RunDropped {
    let receipt = archivist.archive(ended, asked(keep)).await.expect("it is archived");
    *receipt.dropped.expect("what was dropped")
}

/// Sequences of the events of which content was dropped.
async fn thinned(archivist: &Archivist, ended: &Ended) -> Vec<u64> {
    let id = ended.run_id.to_string();
    let events = archivist.journal.load(RUN, &id, 0, usize::MAX).await.expect("it is read");
    let thinned = events.iter().filter(|event| event.redacted.is_some());
    thinned.map(|event| event.sequence).collect()
}

#[tokio::test]
async fn a_long_run_is_archived_in_parts_and_gone_on_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let archivist = archivist(folder.path()).await;
    let ended = told(&archivist, 1, 2 * SLICE + 10, &json!({"a": 1})).await;
    let id: Arc<str> = ended.run_id.to_string().into();
    let planned = {
        let receipt = archivist.archive(&ended, Asked { dry_run: true, ..asked(Keep::Results) });
        receipt.await.expect("a plan").dropped.expect("what would be dropped")
    };
    assert_eq!(thinned(&archivist, &ended).await, [0; 0]);

    // A process dies after the first part.
    let part = archivist.part(&ended, &id, Keep::Results, 0, None).await.expect("a part");
    let place = (0, shard_of(ended.run_id), 0);
    let append = archivist.append(&ended, &id, place, part, false, &asked(Keep::Results));
    archivist.journal.append(append.expect("an append")).await.expect("it is appended");
    assert_eq!(thinned(&archivist, &ended).await, (2..=SLICE).collect::<Vec<_>>());

    // Less is asked for now, and what was begun is finished first.
    let owned = Arc::clone(&archivist.ownership.borrow());
    archivist.finish(&owned).await.expect("it is finished");
    let (retained, version) = archivist.retained(&id).await.expect("it is read");
    assert_eq!((retained.keep, retained.upto, version), (Some(Keep::Results), 0, 3));
    let all: Vec<u64> = (2..=2 * SLICE + 11).collect();
    assert_eq!(thinned(&archivist, &ended).await, all);
    assert_eq!(planned.dropped, all.len() as u64);
    let open = archivist.journal.open_aggregates(AGGREGATE, shard_of(ended.run_id), "", 9).await;
    assert_eq!(open, Ok(vec![]));

    assert_eq!(dropped(&archivist, &ended, Keep::Results).await.dropped, 0);
    let more = dropped(&archivist, &ended, Keep::Header).await;
    assert_eq!((more.dropped, more.keep), (1, Keep::Header), "the input");
}

#[tokio::test]
async fn a_value_goes_with_the_last_run_that_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let archivist = archivist(folder.path()).await;
    let large = json!({"text": "x".repeat(100_000)});
    let first = told(&archivist, 1, 2, &large).await;
    let second = told(&archivist, 2, 2, &large).await;
    let id = first.run_id.to_string();
    let events = archivist.journal.load(RUN, &id, 0, 1).await.expect("it is read");
    let hash: Arc<str> = codec::refs(&events[0].payload).pop().expect("a value apart").into();
    let is_there = async || archivist.journal.payloads(std::slice::from_ref(&hash)).await.is_ok();

    assert_eq!(archivist.drop_values(Utc::now()).await, Ok(0));
    dropped(&archivist, &first, Keep::Header).await;
    assert_eq!(archivist.drop_values(Utc::now()).await, Ok(0), "the other run has it");
    assert!(is_there().await);
    // With its results it keeps the input, and so the value.
    dropped(&archivist, &second, Keep::Results).await;
    assert_eq!(archivist.drop_values(Utc::now()).await, Ok(0));
    dropped(&archivist, &second, Keep::Header).await;
    let before = Utc::now() - chrono::TimeDelta::hours(1);
    assert_eq!(archivist.drop_values(before).await, Ok(0), "somebody may be reading it");
    assert_eq!(archivist.drop_values(Utc::now()).await, Ok(1));
    assert!(!is_there().await);
}

/// Holds or releases a run, as somebody asks for it.
async fn hold(archivist: &Archivist, run_id: RunId, held: bool) -> Result<Receipt, Rejection> {
    let reason = "case 4711".to_owned();
    let (event, command) = match held {
        true => {
            let event = hold::Event::RunHeld { reason: reason.clone() };
            (event, Command::HoldRun { run_id, reason })
        }
        false => {
            let event = hold::Event::RunReleased { reason: None };
            (event, Command::ReleaseRun { run_id, reason: None })
        }
    };
    let envelope = CommandEnvelope::new(
        CommandId::new(archivist.clock.uuid_v7()),
        workspace(),
        "key_ann",
        command,
    );
    archivist.hold(workspace(), run_id, &envelope, event).await
}

#[tokio::test]
async fn what_is_held_and_what_belongs_to_it_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let archivist = archivist(folder.path()).await;
    let payload = json!({"a": 1});
    let top = told(&archivist, 1, 2, &payload).await;
    let other = told(&archivist, 2, 2, &payload).await;
    let above = json!({"parent":
        {"run_id": top.run_id, "token": 1, "root_run_id": top.run_id, "depth": 1}});
    let child = told_of(&archivist, top.run_id.child(1), above, 2, &payload).await;
    let from = json!({"forked_from": {"run_id": top.run_id, "sequence": 2,
        "at": "2026-01-01T00:00:00Z"}});
    let command_id = CommandId::new(archivist.clock.uuid_v7());
    let fork_id = top.run_id.forked(command_id, top.run_id.home());
    let fork = told_of(&archivist, fork_id, from, 2, &payload).await;

    let code = |done: Result<Receipt, Rejection>| done.err().map(|refused| refused.code);
    let is = |code: &str| Some(code.to_owned());
    assert_eq!(code(hold(&archivist, top.run_id, false).await), is("not_held"));
    hold(&archivist, top.run_id, true).await.expect("it is held");
    assert_eq!(code(hold(&archivist, top.run_id, true).await), is("already_held"));
    let nobody = RunId::derived("test", "nobody");
    assert_eq!(code(hold(&archivist, nobody, true).await), is("run_not_found"));
    for ended in [&top, &child, &fork] {
        let refused = archivist.archive(ended, asked(Keep::Results)).await.expect_err("it is held");
        assert_eq!(refused.code, "run_held");
        let names = ["case 4711", "key_ann", &top.run_id.to_string()];
        assert!(names.iter().all(|name| refused.message.contains(name)), "{}", refused.message);
        assert_eq!(
            code(
                archivist
                    .archive_by(ended.run_id, Keep::Header, false)
                    .await
                    .map(|()| { Receipt::default() })
            ),
            is("run_held"),
            "nor by a policy"
        );
        assert_eq!(thinned(&archivist, ended).await, [0; 0]);
    }
    assert!(dropped(&archivist, &other, Keep::Results).await.dropped > 0);
    // A part is dropped, and then it is held.
    let long = told(&archivist, 3, SLICE + 10, &payload).await;
    let id: Arc<str> = long.run_id.to_string().into();
    let part = archivist.part(&long, &id, Keep::Results, 0, None).await.expect("a part");
    let place = (0, shard_of(long.run_id), 0);
    let append = archivist.append(&long, &id, place, part, false, &asked(Keep::Results));
    archivist.journal.append(append.expect("an append")).await.expect("it is appended");
    hold(&archivist, long.run_id, true).await.expect("it is held");
    let before = thinned(&archivist, &long).await;
    let owned = Arc::clone(&archivist.ownership.borrow());
    archivist.finish(&owned).await.expect("it goes on with others");
    assert_eq!(thinned(&archivist, &long).await, before);

    for run_id in [top.run_id, long.run_id] {
        hold(&archivist, run_id, false).await.expect("it is released");
    }
    assert!(dropped(&archivist, &child, Keep::Results).await.dropped > 0);
    archivist.finish(&owned).await.expect("it is finished");
    assert!(thinned(&archivist, &long).await.len() > before.len());
    let open = archivist.journal.open_aggregates(hold::AGGREGATE, shard_of(top.run_id), "", 9);
    assert_eq!(open.await, Ok(vec![]));
}

#[tokio::test]
async fn forks_keep_what_they_were_made_of_wherever_they_live() {
    let folder = tempfile::tempdir().expect("a folder");
    let archivist = archivist(folder.path()).await;
    let payload = json!({"a": 1});
    let top = told(&archivist, 1, 2, &payload).await;
    let below = |parent: RunId, token| {
        let depth = if parent == top.run_id { 1 } else { 2 };
        let parent =
            json!({"run_id": parent, "token": 1, "root_run_id": top.run_id, "depth": depth});
        told_of(&archivist, top.run_id.child(token), json!({"parent": parent}), 2, &payload)
    };
    let child = below(top.run_id, 1).await;
    let grandchild = below(child.run_id, 2).await;
    let elsewhere = RunId::derived("test", "elsewhere").home();
    let from = |run: &Ended| json!({"forked_from": {"run_id": run.run_id, "sequence": 2, "at": "2026-01-01T00:00:00Z"}});
    let fork_of = async |run: &Ended| {
        let id = run.run_id.forked(CommandId::new(archivist.clock.uuid_v7()), elsewhere);
        assert_ne!(shard_of(id), shard_of(run.run_id));
        going_on(&archivist, id, from(run), 2, &payload).await
    };
    let code = async |run: &Ended| {
        let planned = Asked { dry_run: true, ..asked(Keep::Results) };
        archivist.archive(run, planned).await.err().map(|refused| refused.code)
    };
    let is = |code: &str| Some(code.to_owned());
    // A fork of the middle may still come to fork what is below it, and nothing above.
    let of_child = fork_of(&child).await;
    assert_eq!(code(&child).await, is("run_needed"));
    assert_eq!(code(&grandchild).await, is("run_needed"));
    assert_eq!(code(&top).await, None);
    over(&archivist, &of_child).await;
    for run in [&top, &child, &grandchild] {
        assert_eq!(code(run).await, None);
    }
    // One of the top needs all of them, and its own child only what that was made of.
    let of_top = fork_of(&top).await;
    let parent = json!({"run_id": of_top.run_id, "token": 1, "root_run_id": of_top.run_id,
        "depth": 1});
    let mut more = from(&child);
    more["parent"] = parent;
    let its_child = going_on(&archivist, of_top.run_id.child(1), more, 2, &payload).await;
    for run in [&top, &child, &grandchild] {
        assert_eq!(code(run).await, is("run_needed"));
    }
    let of_top = over(&archivist, &of_top).await;
    assert_eq!(code(&top).await, None);
    assert_eq!(code(&child).await, is("run_needed"));
    let its_child = over(&archivist, &its_child).await;
    assert_eq!(code(&child).await, None);

    // A hold on either holds the other.
    for (held, others) in [(&of_top, [&top, &its_child]), (&top, [&of_top, &child])] {
        hold(&archivist, held.run_id, true).await.expect("it is held");
        for run in others {
            assert_eq!(code(run).await, is("run_held"), "{:?} by {:?}", run, held);
        }
        hold(&archivist, held.run_id, false).await.expect("it is released");
    }
    let of_fork = RunId::derived("test", "of the fork");
    let of_fork = going_on(&archivist, of_fork, from(&of_top), 2, &payload).await;
    for (run, refused) in [(&of_top, is("run_needed")), (&top, None), (&child, None)] {
        assert_eq!(code(run).await, refused);
    }
    over(&archivist, &of_fork).await;
    for run in [&grandchild, &child, &top, &its_child, &of_top] {
        assert!(dropped(&archivist, run, Keep::Results).await.dropped > 0);
    }
}

/// An archive that is there, or isn't.
struct Shelf {
    fails: std::sync::atomic::AtomicBool,
    written: std::sync::Mutex<Vec<(RunId, u64)>>,
}

#[async_trait]
impl Archives for Shelf {
    async fn write(&self, run_id: RunId, sequence: u64) -> Result<Archive, String> {
        if self.fails.load(std::sync::atomic::Ordering::Relaxed) {
            return Err("the disk is full".to_owned());
        }
        self.written.lock().expect("lock").push((run_id, sequence));
        Ok(Archive { location: format!("/shelf/{run_id}"), sha256: "5f".repeat(32) })
    }
}

#[tokio::test]
async fn what_is_to_be_written_elsewhere_first_stays_until_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut archivist = archivist(folder.path()).await;
    let payload = json!({"a": 1});
    let (run, bare) =
        (told(&archivist, 1, 2, &payload).await, told(&archivist, 2, 2, &payload).await);
    let refused = async |archivist: &Archivist, ended: &Ended| {
        let done = archivist.archive_by(ended.run_id, Keep::Header, true).await;
        let refused = done.expect_err("it is left");
        assert_eq!(
            (&*refused.code, thinned(archivist, ended).await.len()),
            ("run_not_archived", 0)
        );
        refused.message
    };
    assert!(refused(&archivist, &run).await.contains("--archive-dir"));
    let shelf = Arc::new(Shelf { fails: true.into(), written: std::sync::Mutex::default() });
    archivist.archives = Some(Arc::clone(&shelf) as _);
    assert!(refused(&archivist, &run).await.contains("the disk is full"));
    shelf.fails.store(false, std::sync::atomic::Ordering::Relaxed);
    archivist.archive_by(run.run_id, Keep::Header, true).await.expect("it is archived");
    assert_eq!(*shelf.written.lock().expect("lock"), [(run.run_id, run.sequence)]);
    let (retained, _) = archivist.retained(&run.run_id.to_string()).await.expect("it is read");
    assert_eq!(retained.archive.expect("an archive").location, format!("/shelf/{}", run.run_id));
    // Once is enough, and what is gone already can't be written any more.
    archivist.archive_by(run.run_id, Keep::Header, true).await.expect("nothing is to be done");
    assert_eq!(shelf.written.lock().expect("lock").len(), 1);
    assert!(dropped(&archivist, &bare, Keep::Results).await.dropped > 0);
    let left = archivist.archive_by(bare.run_id, Keep::Header, true).await.expect_err("it is left");
    assert_eq!(left.code, "run_not_archived");
    assert_eq!(shelf.written.lock().expect("lock").len(), 1);
}
