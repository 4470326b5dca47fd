//! Cases about what is found again.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta};
use futures::future::join_all;

use super::{Storage, answer, append, event, everything, must};
use crate::journal::{
    Append, AppendError, Mark, NewEvent, Payload, ReadError, RecordedEvent, Redacted, Redaction,
    Sieve, Snapshot, Sought, Until,
};

fn payload(hash: &str, bytes: &'static [u8]) -> Payload {
    Payload { hash: hash.into(), bytes: Bytes::from_static(bytes) }
}

/// Events, answers, payloads, snapshots, the open list, the epoch and the next position.
pub async fn a_reopened_journal_keeps_everything(storage: &impl Storage) {
    let journal = storage.open().await;
    let epoch = journal.epoch();
    let full = Append {
        inbox: vec![answer("ws/k", "f", "done")],
        payloads: vec![payload("h", b"value")],
        open: Some(true),
        snapshot: Some(Snapshot { sequence: 2, version: 1, state: Bytes::from_static(b"s") }),
        ..append("a", 0, 2)
    };
    must(&*journal, full).await;
    must(&*journal, append("b", 0, 1)).await;
    let events = everything(&*journal).await;
    let recalled = journal.recall("ws/k").await.expect("the inbox can be read");
    drop(journal);

    let journal = storage.open().await;
    assert_eq!(journal.epoch(), epoch);
    assert_eq!(journal.head().await, Ok(3));
    assert_eq!(everything(&*journal).await, events);
    assert!(recalled.is_some());
    assert_eq!(journal.recall("ws/k").await, Ok(recalled));
    assert_eq!(journal.payloads(&["h".into()]).await, Ok(vec![payload("h", b"value")]));
    assert_eq!(journal.open_aggregates("thing", 0, "", 9).await, Ok(vec![Arc::from("a")]));
    let snapshot = journal.snapshot("thing", "a", 1).await.expect("snapshots can be read");
    assert_eq!(snapshot.map(|snapshot| snapshot.sequence), Some(2));
    assert!(journal.append(append("a", 0, 1)).await.is_err(), "the sequence was forgotten");
    let next = must(&*journal, append("a", 2, 1)).await;
    assert_eq!((next.first_position, next.last_sequence), (4, 3));
}

/// Whatever the JSON is, and every field as it was given, from storage and from memory.
pub async fn bytes_are_kept_as_they_are(storage: &impl Storage) {
    let journal = storage.open().await;
    // What a database that understands JSON would change, refuse, or lose.
    let texts = [
        "{}",
        r#"{"b":1,"a":2,"b":3}"#,
        r#"{ "nul" : "\u0000", "half" : "\ud800" }"#,
        "[1e999,1.0,-0,123456789012345678901234567890]",
        "\"\u{fffd}\u{1f980}é it's \\\"quoted\\\"; drop table events\"",
        " null\n",
    ];
    let id = "a\u{1}é/'\\";
    let mut given = append(id, 0, 0);
    given.metadata = Bytes::from_static(br#"{"z":{"\u0000":[]},"a":1e0}"#);
    given.events = texts.iter().map(|text| event(text)).collect();
    given.events[1].event_version = u32::MAX;
    // One that happened before, to another aggregate.
    given.events[2].recorded_at = Some(given.recorded_at - TimeDelta::days(400));
    must(&*journal, given.clone()).await;

    let read = everything(&*journal).await;
    assert_eq!(read.len(), texts.len());
    for (stored, new) in read.iter().zip(&given.events) {
        assert_eq!((stored.id, &stored.payload), (new.id, &new.payload));
        assert_eq!(
            (&stored.event_type, stored.event_version),
            (&new.event_type, new.event_version)
        );
        assert_eq!(
            (&stored.metadata, &stored.aggregate_id),
            (&given.metadata, &given.aggregate_id)
        );
        assert_eq!(stored.workspace_id, given.workspace_id);
        assert_eq!(stored.recorded_at, given.recorded_at(new));
    }
    let loaded = journal.load("thing", id, 0, 100).await;
    assert_eq!(loaded.as_ref(), Ok(&read));
    let tailed = journal.tail(0).next(100).await.expect("the tail can be read");
    assert!(tailed.iter().map(|event| &**event).eq(&read), "memory and storage differ");
}

/// By position and by sequence, without an event of somebody else.
pub async fn pages_follow_each_other(storage: &impl Storage) {
    let journal = storage.open().await;
    for n in 0..10 {
        must(&*journal, append("a", n * 2, 2)).await;
        must(&*journal, append("b", n, 1)).await;
        let mut other = append("a", n, 1);
        other.aggregate_type = "other".into();
        must(&*journal, other).await;
    }
    let mut read = Vec::new();
    while let Ok(page) = journal.read(read.len() as u64, 7).await
        && !page.is_empty()
    {
        assert!(page.len() <= 7);
        read.extend(page.iter().map(|event| event.position));
    }
    assert_eq!(read, (1..=40).collect::<Vec<u64>>());

    let mut loaded = Vec::new();
    while let Ok(page) = journal.load("thing", "a", loaded.len() as u64, 3).await
        && !page.is_empty()
    {
        assert!(page.iter().all(|event| &*event.aggregate_type == "thing"));
        loaded.extend(page.iter().map(|event| event.sequence));
    }
    assert_eq!(loaded, (1..=20).collect::<Vec<u64>>());
    assert_eq!(journal.read(u64::MAX, 5).await, Ok(Vec::new()));
    assert_eq!(journal.load("thing", "nobody", 0, 5).await, Ok(Vec::new()));
}

/// The first bytes under a hash stay; a hash that isn't there is an error.
pub async fn payloads_are_found_by_their_hash(storage: &impl Storage) {
    let journal = storage.open().await;
    let mut first = append("a", 0, 1);
    first.payloads = vec![payload("one", b"1"), payload("two", b"\x00\xff")];
    must(&*journal, first).await;
    let mut second = append("a", 1, 1);
    second.payloads = vec![payload("two", b"\x00\xff"), payload("three", b"")];
    must(&*journal, second).await;

    let found = journal.payloads(&["two".into(), "three".into(), "one".into()]).await;
    let wanted = vec![payload("two", b"\x00\xff"), payload("three", b""), payload("one", b"1")];
    assert_eq!(found, Ok(wanted));
    let missing = journal.payloads(&["one".into(), "none".into()]).await;
    assert!(matches!(missing, Err(ReadError::Damaged(what)) if what.contains("none")));
    assert_eq!(journal.payloads(&[]).await, Ok(Vec::new()));
}

/// One for each aggregate, of the wanted shape, and none that hides events.
pub async fn the_newest_snapshot_is_kept(storage: &impl Storage) {
    let journal = storage.open().await;
    let snapshot = |sequence, version| Snapshot {
        sequence,
        version,
        state: Bytes::from(format!("state {sequence}")),
    };
    let with = |expected, snapshot| Append { snapshot: Some(snapshot), ..append("a", expected, 2) };
    must(&*journal, with(0, snapshot(2, 1))).await;
    must(&*journal, with(2, snapshot(4, 1))).await;
    assert_eq!(journal.snapshot("thing", "a", 1).await, Ok(Some(snapshot(4, 1))));
    // It claims events that aren't there: kept, the next load would skip them.
    must(&*journal, with(4, snapshot(9, 1))).await;
    assert_eq!(journal.snapshot("thing", "a", 1).await, Ok(Some(snapshot(4, 1))));
    must(&*journal, with(6, snapshot(8, 2))).await;
    assert_eq!(journal.snapshot("thing", "a", 1).await, Ok(None));
    assert_eq!(journal.snapshot("thing", "a", 2).await, Ok(Some(snapshot(8, 2))));
    assert_eq!(journal.snapshot("thing", "b", 2).await, Ok(None));
}

/// The last one of each 2,048 events stays, and is found by a sequence and by a time.
pub async fn some_older_snapshots_are_kept(storage: &impl Storage) {
    const EACH: u64 = 500;
    let journal = storage.open().await;
    let snapshot = |sequence: u64, version| Snapshot {
        sequence,
        version,
        state: Bytes::from(format!("state {sequence}")),
    };
    let moment = |number: i64| DateTime::from_timestamp(number, 0).unwrap_or_default();
    for number in 1..=10 {
        let version = if number < 10 { 1 } else { 2 };
        let count = usize::try_from(EACH).unwrap_or(0);
        let append = Append {
            snapshot: Some(snapshot(number * EACH, version)),
            recorded_at: moment(number.cast_signed()),
            ..append("a", (number - 1) * EACH, count)
        };
        must(&*journal, append).await;
    }
    let until = async |until| journal.snapshot_until("thing", "a", 1, until).await;
    // 2,000 and 4,000 are the last ones of their stretches; 4,500 has another shape's after it.
    for (asked, found) in [(1_999, None), (2_000, Some(2_000)), (3_999, Some(2_000))] {
        let found = found.map(|sequence| snapshot(sequence, 1));
        assert_eq!(until(Until::Sequence(asked)).await, Ok(found), "{asked}");
    }
    for asked in [4_000, 4_999, u64::MAX >> 1] {
        assert_eq!(until(Until::Sequence(asked)).await, Ok(Some(snapshot(4_000, 1))), "{asked}");
    }
    let shortly = TimeDelta::microseconds(1);
    for (asked, found) in [
        (moment(4) - shortly, None),
        (moment(4), Some(2_000)),
        (moment(8) - shortly, Some(2_000)),
        (moment(8), Some(4_000)),
        (moment(1_000), Some(4_000)),
    ] {
        let found = found.map(|sequence| snapshot(sequence, 1));
        assert_eq!(until(Until::Time(asked)).await, Ok(found), "{asked}");
    }
    let newest = journal.snapshot_until("thing", "a", 2, Until::Sequence(5_000)).await;
    assert_eq!(newest, Ok(Some(snapshot(5_000, 2))));
    let other = journal.snapshot_until("thing", "b", 1, Until::Sequence(5_000)).await;
    assert_eq!(other, Ok(None));
}

/// All but those of some types, and of these the ones that mention a text; page by page.
pub async fn some_events_of_an_aggregate_are_found_by_what_they_tell(storage: &impl Storage) {
    let journal = storage.open().await;
    let kinds = ["often", "seldom", "now.and.then"];
    for number in 0..30_u64 {
        let of = kinds[usize::try_from(number % 3).unwrap_or(0)];
        let event = NewEvent { event_type: of.into(), ..event(&format!(r#"{{"n":{number}}}"#)) };
        must(&*journal, Append { events: vec![event], ..append("a", number, 0) }).await;
    }
    must(&*journal, append("b", 0, 5)).await;
    let all = journal.load("thing", "a", 0, 100).await.expect("the journal can be read");
    let sieves = [
        (&[][..], &[][..], 30),
        (&["seldom"], &[], 20),
        (&["seldom", "now.and.then"], &["\"n\":1"], 10 + 8),
        (&["seldom", "now.and.then", "often"], &["\"n\":7}", ":2"], 12),
    ];
    for (seldom, mentions, count) in sieves {
        let sieve = Sieve { seldom, mentions };
        let (mut found, mut after) = (Vec::new(), 2);
        loop {
            let page = journal.load_some("thing", "a", after, 4, sieve).await.expect("a page");
            let Some(last) = page.last() else { break };
            after = last.sequence;
            found.extend(page);
        }
        let mut wanted = all.clone();
        assert_eq!(wanted.iter().filter(|event| sieve.takes(event)).count(), count, "{sieve:?}");
        wanted.retain(|event| event.sequence > 2 && sieve.takes(event));
        assert_eq!(found, wanted, "{sieve:?}");
    }
}

/// In the order of ids, on and off the list as the appends say.
pub async fn open_aggregates_are_listed_in_order(storage: &impl Storage) {
    let journal = storage.open().await;
    let list = |after: &'static str, limit| journal.open_aggregates("thing", 0, after, limit);
    for id in ["d", "b", "a", "c"] {
        must(&*journal, Append { open: Some(true), ..append(id, 0, 1) }).await;
    }
    must(&*journal, Append { open: Some(true), ..append("a", 1, 1) }).await;
    must(&*journal, Append { open: Some(false), ..append("b", 1, 1) }).await;
    must(&*journal, append("c", 1, 1)).await;
    must(&*journal, append("e", 0, 1)).await;
    assert_eq!(list("", 10).await, Ok(vec!["a".into(), "c".into(), "d".into()]));
    assert_eq!(list("a", 1).await, Ok(vec!["c".into()]));
    assert_eq!(list("d", 10).await, Ok(Vec::new()));
    must(&*journal, Append { open: Some(true), shard: 7, ..append("f", 0, 1) }).await;
    assert_eq!(list("d", 10).await, Ok(Vec::new()));
    assert_eq!(journal.open_aggregates("thing", 7, "", 10).await, Ok(vec!["f".into()]));
    assert_eq!(journal.open_aggregates("other", 0, "", 10).await, Ok(Vec::new()));
}

/// In the order of ids and of all shards, for as long as it is on the list of open ones.
pub async fn what_leans_on_another_is_found_while_it_is_open(storage: &impl Storage) {
    let journal = storage.open().await;
    let leaning = async |on: &'static str, after: &'static str, limit| {
        journal.leaning("thing", on, after, limit).await.expect("it is read")
    };
    let leans = |id: &str, shard, on: &str| Append {
        open: Some(true),
        leans_on: Some(on.into()),
        shard,
        ..append(id, 0, 1)
    };
    let all = [("d", 7, "x"), ("b", 0, "x"), ("c", 0, "y")];
    join_all(all.map(|(id, shard, on)| must(&*journal, leans(id, shard, on)))).await;
    must(&*journal, Append { open: Some(true), ..append("a", 0, 1) }).await;
    assert!(journal.append(leans("b", 0, "z")).await.is_err(), "it is there");
    assert_eq!(leaning("x", "", 9).await, ["b".into(), "d".into()]);
    assert_eq!(leaning("x", "", 1).await, ["b".into()]);
    assert_eq!(leaning("x", "b", 9).await, ["d".into()]);
    assert_eq!(leaning("y", "", 9).await, ["c".into()]);
    for on in ["z", "a", ""] {
        assert_eq!(leaning(on, "", 9).await, [""; 0].map(Arc::from), "{on:?}");
    }
    assert_eq!(journal.leaning("other", "x", "", 9).await, Ok(Vec::new()));
    // Said again without a word of it, or anew.
    must(&*journal, Append { open: Some(true), ..append("b", 1, 1) }).await;
    let again = Append { open: Some(true), leans_on: Some("y".into()), ..append("a", 1, 1) };
    must(&*journal, again).await;
    assert_eq!(leaning("x", "", 9).await, ["b".into(), "d".into()]);
    assert_eq!(leaning("y", "", 9).await, ["a".into(), "c".into()]);

    must(&*journal, Append { open: Some(false), shard: 7, ..append("d", 1, 1) }).await;
    must(&*journal, append("b", 2, 1)).await;
    drop(journal);
    let journal = storage.open().await;
    assert_eq!(journal.leaning("thing", "x", "", 9).await, Ok(vec!["b".into()]));
}

/// The latest time of each name, by shard, of what was appended; also where a batch has several.
pub async fn marks_are_kept_until_their_time(storage: &impl Storage) {
    let journal = storage.open().await;
    let mark = |name: &str, day: i64| {
        // Long after any test.
        let until = DateTime::from_timestamp(8_000_000_000 + 86_400 * day, 120_000);
        Mark { name: name.into(), until: until.unwrap_or_default() }
    };
    let marked = |id: &str, sequence, shard, mark| {
        let mark = Some(mark);
        Append { mark, shard, ..append(id, sequence, 1) }
    };
    let both = futures::future::join(
        must(&*journal, marked("a", 0, 5, mark("y", 2))),
        must(&*journal, marked("b", 0, 5, mark("y", 1))),
    );
    both.await;
    must(&*journal, marked("c", 0, 5, mark("x", 3))).await;
    must(&*journal, marked("d", 0, 6, mark("x", 9))).await;
    must(&*journal, marked("c", 1, 5, mark("x", 1))).await;
    assert!(journal.append(marked("a", 0, 5, mark("y", 7))).await.is_err());
    assert_eq!(journal.marks(5, "", 9).await, Ok(vec![mark("x", 3), mark("y", 2)]));
    assert_eq!(journal.marks(5, "x", 9).await, Ok(vec![mark("y", 2)]));
    assert_eq!(journal.marks(5, "", 1).await, Ok(vec![mark("x", 3)]));
    must(&*journal, marked("c", 2, 5, mark("x", 4))).await;
    assert_eq!(journal.marks(5, "", 1).await, Ok(vec![mark("x", 4)]));
    assert_eq!(journal.marks(7, "", 9).await, Ok(Vec::new()));
}

/// Each once, in the order of ids, whatever it owes.
pub async fn aggregates_are_listed_by_type(storage: &impl Storage) {
    let journal = storage.open().await;
    for id in ["c", "a", "b"] {
        must(&*journal, append(id, 0, 2)).await;
    }
    must(&*journal, append("a", 2, 1)).await;
    must(&*journal, Append { aggregate_type: "other".into(), ..append("d", 0, 1) }).await;
    let list = |after: &'static str, limit| journal.aggregates("thing", after, limit);
    assert_eq!(list("", 10).await, Ok(vec!["a".into(), "b".into(), "c".into()]));
    assert_eq!(list("a", 1).await, Ok(vec!["b".into()]));
    assert_eq!(list("c", 10).await, Ok(Vec::new()));
    assert_eq!(journal.aggregates("other", "", 10).await, Ok(vec!["d".into()]));
}

/// Only of the events that it is about, with what appends it or not at all, and with the hash of
/// what stood there first.
pub async fn payloads_are_replaced_and_their_hashes_are_kept(storage: &impl Storage) {
    let journal = storage.open().await;
    let snapshot = Snapshot { sequence: 3, version: 1, state: Bytes::from_static(b"old") };
    must(&*journal, Append { snapshot: Some(snapshot), ..append("a", 0, 3) }).await;
    let before = everything(&*journal).await;
    let other = |sequence, payload: &'static str| Redacted {
        sequence,
        payload: Bytes::from_static(payload.as_bytes()),
    };
    let redaction = |events| {
        let (aggregate_type, aggregate_id) = ("thing".into(), "a".into());
        let (released, referred, dropped) = (Vec::new(), Vec::new(), Vec::new());
        Some(Redaction { aggregate_type, aggregate_id, events, released, referred, dropped })
    };
    let log = |expected, events| Append {
        aggregate_type: "log".into(),
        redaction: redaction(events),
        ..append("a", expected, 1)
    };
    let refused = journal.append(log(7, vec![other(1, "[]")])).await;
    assert!(matches!(refused, Err(AppendError::Conflict { .. })), "{refused:?}");
    assert_eq!(everything(&*journal).await, before, "a refused append has replaced something");

    // One that isn't there is left out.
    must(&*journal, log(0, vec![other(1, "[]"), other(3, "[1]"), other(9, "[]")])).await;
    must(&*journal, log(1, vec![other(3, "null")])).await;
    drop(journal);
    let journal = storage.open().await;
    let after = everything(&*journal).await;
    assert_eq!(after.len(), 5);
    assert_eq!(after[1], before[1]);
    for (at, payload) in [(0, "[]"), (2, "null")] {
        let first = &before[at];
        let wanted = RecordedEvent {
            payload: Bytes::from_static(payload.as_bytes()),
            redacted: Some(first.payload_hash()),
            ..first.clone()
        };
        assert_eq!(after[at], wanted);
        assert_eq!(after[at].payload_hash(), first.payload_hash());
    }
    let loaded = journal.load("thing", "a", 0, 9).await;
    assert_eq!(loaded.as_deref(), Ok(&after[..3]));
    assert_eq!(journal.snapshot("thing", "a", 1).await, Ok(None), "it holds the old payloads");
    let next = must(&*journal, append("a", 3, 1)).await;
    assert_eq!((next.first_position, next.last_sequence), (6, 4));
}

/// Between two positions, of their types, and without those that have a namesake.
pub async fn events_are_found_by_their_type_and_without_namesakes(storage: &impl Storage) {
    let journal = storage.open().await;
    for id in ["a", "b", "c", "d"] {
        let mut ended = append(id, 0, 3);
        ended.events[2].event_type = if id == "c" { "thing.lost" } else { "thing.ended" }.into();
        must(&*journal, ended).await;
    }
    must(&*journal, Append { aggregate_type: "log".into(), ..append("b", 0, 1) }).await;
    let found = async |event_types: &[&str], after, through| {
        let (aggregate_type, without) = ("thing", "log");
        let sought = Sought { aggregate_type, event_types, without, after, through };
        let found = journal.seek(sought).await.expect("the journal can be read");
        let names = found.into_iter().map(|one| {
            assert_eq!(&*one.aggregate_type, "thing");
            (one.position, one.aggregate_id.to_string())
        });
        names.collect::<Vec<_>>()
    };
    let [a, c, d] = [(3, "a"), (9, "c"), (12, "d")].map(|(at, id)| (at, id.to_owned()));
    let both = ["thing.ended", "thing.lost"];
    assert_eq!(found(&both, 0, 100).await, [a.clone(), c, d.clone()]);
    assert_eq!(found(&both[..1], 0, 12).await, [a.clone(), d.clone()]);
    assert_eq!(found(&both[..1], 3, 12).await, [d]);
    assert_eq!(found(&both[..1], 0, 11).await, [a]);
    assert_eq!(found(&[], 0, 100).await, []);
}

/// Once it is released, and neither referred to by others nor written again.
pub async fn a_value_is_dropped_once_nothing_refers_to_it(storage: &impl Storage) {
    let journal = storage.open().await;
    let [one, two, three, four] = ["one", "two", "three", "four"].map(Arc::<str>::from);
    let mut first = append("a", 0, 1);
    first.payloads = [&one, &two, &three, &four].map(|hash| payload(hash, b"v")).to_vec();
    must(&*journal, first.clone()).await;
    let log = |expected, released: &[&Arc<str>], referred: &[&Arc<str>], dropped: &[&Arc<str>]| {
        let list = |hashes: &[&Arc<str>]| hashes.iter().copied().cloned().collect::<Vec<_>>();
        let redaction = Redaction {
            aggregate_type: "thing".into(),
            aggregate_id: "a".into(),
            events: Vec::new(),
            released: list(released),
            referred: list(referred),
            dropped: list(dropped),
        };
        let redaction = Some(redaction);
        Append { aggregate_type: "log".into(), redaction, ..append("a", expected, 1) }
    };
    must(&*journal, log(0, &[&one, &two, &three], &[], &[])).await;
    let (until, before) = (first.recorded_at, first.recorded_at - TimeDelta::days(1));
    assert_eq!(journal.released(before, 9).await, Ok(vec![]));
    let noted = vec![Arc::clone(&one), Arc::clone(&three), Arc::clone(&two)];
    assert_eq!(journal.released(until, 9).await, Ok(noted));
    // It comes again between the look and the drop.
    let again = Append { payloads: vec![payload(&one, b"v")], ..append("b", 0, 1) };
    must(&*journal, again).await;
    must(&*journal, log(1, &[], &[&three], &[&one, &two, &four])).await;
    assert_eq!(journal.released(until, 9).await, Ok(vec![]));
    for hash in [&one, &three, &four] {
        assert!(journal.payloads(std::slice::from_ref(hash)).await.is_ok(), "{hash} is gone");
    }
    let gone = journal.payloads(&[two]).await;
    assert!(matches!(gone, Err(ReadError::Damaged(_))), "{gone:?}");
}
