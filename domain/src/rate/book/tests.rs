//! Slots as a journal has them, sound and not.

use chrono::TimeDelta;
use serde_json::json;

use super::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(second)
}

/// A start at a time, of a key that 6 runs may begin of in a minute, 2 of them at once.
fn started(second: i64, until: Option<i64>) -> Event {
    let event = json!({
        "type": "run_started", "run_id": "run_00000000000000000000000004",
        "project_id": "prj_00000000000000000000000000",
        "definition": {
            "id": "wfd_00000000000000000000000000", "name": "t", "version": 1, "hash": "00"
        },
        "start": "a", "input": {}, "started_at": at(second),
        "admission": {
            "key": "ann", "rank": at(second),
            "rate": {"limit": 6, "period": "1m", "burst": 2, "until": until.map(at)},
        },
    });
    serde_json::from_value(event).expect("an event")
}

fn check(book: &mut Book, second: i64, until: i64) -> bool {
    book.enter(&Run::default(), &started(second, Some(until)), at(second)).is_ok()
}

#[test]
fn slots_that_follow_each_other_are_sound_in_any_order() {
    let mut book = Book::default();
    for (second, until) in [(0, 10), (25, 40), (0, 20), (20, 30), (99, 109)] {
        assert!(check(&mut book, second, until), "{second}");
    }
}

#[test]
fn a_slot_that_is_taken_or_too_far_ahead_or_past_is_found() {
    let mut book = Book::default();
    assert!(check(&mut book, 0, 10) && check(&mut book, 0, 20));
    assert!(!check(&mut book, 5, 15));
    assert!(!check(&mut book, 19, 29));
    assert!(!check(&mut book, 20, 41));
    assert!(!check(&mut book, 60, 65));
}

#[test]
fn one_that_waited_takes_its_slot_with_its_admission() {
    let mut book = Book::default();
    assert!(check(&mut book, 0, 10));
    let mut run = Run::default();
    run.evolve(&started(1, None), at(1));
    let admitted = |until| Event::RunAdmitted { deadline: None, until: Some(at(until)) };
    assert!(book.enter(&run, &admitted(12), at(2)).is_err());
    assert!(book.enter(&run, &admitted(30), at(20)).is_ok());
}

#[test]
fn a_clock_that_was_put_back_is_no_fault() {
    let mut book = Book::default();
    assert!(check(&mut book, 10_000, 10_010));
    // It comes to the same time once more.
    for second in (9_000..10_020).step_by(10) {
        assert!(check(&mut book, second, second + 10), "{second}");
    }
    let mut run = Run::default();
    run.evolve(&started(9_000, None), at(9_000));
    let admitted = Event::RunAdmitted { deadline: None, until: Some(at(8_000)) };
    assert!(book.enter(&run, &admitted, at(9_000)).is_ok());
}

#[test]
fn a_run_whose_time_stands_still_tells_that_the_clock_was_put_back() {
    let mut book = Book::default();
    assert!(check(&mut book, 100, 110));
    let mut run = Run::default();
    run.evolve(&started(101, None), at(101));
    let admitted = Event::RunAdmitted { deadline: None, until: Some(at(45)) };
    assert!(book.enter(&run, &admitted, at(101)).is_ok());
    // Later ones aren't further back than what is noticed by itself.
    for second in (45..110).step_by(10) {
        assert!(check(&mut book, second, second + 10), "{second}");
    }
}
