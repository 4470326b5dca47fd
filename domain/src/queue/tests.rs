//! The queue over chosen and random schedules: never more than may go on, in the order of rank, and
//! what is put together anew from the runs decides the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::span::Span;

fn run(number: u32) -> RunId {
    RunId::new(Uuid::from_u128(u128::from(number)))
}

fn admission(second: i64, limit: u32, then: Overflow) -> Admission {
    let rank = DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
    Admission { key: None, limit: Some(limit), then, rate: None, priority: 0, rank }
}

/// Enters and admits where no rate matters.
trait Unlimited {
    fn enters(&mut self, run_id: RunId, admission: &Admission, is_known: bool) -> Entered;
    fn lets_in(&mut self) -> Option<RunId>;
}

impl Unlimited for Queue {
    fn enters(&mut self, run_id: RunId, admission: &Admission, is_known: bool) -> Entered {
        let (mut admission, mut slots) = (admission.clone(), Slots::default());
        self.enter(run_id, &mut admission, &mut slots, DateTime::UNIX_EPOCH, is_known)
    }

    fn lets_in(&mut self) -> Option<RunId> {
        match self.admit(&mut Slots::default(), DateTime::UNIX_EPOCH) {
            Next::Begins { run_id, until: None } => Some(run_id),
            Next::Nobody => None,
            other => unreachable!("{other:?}"),
        }
    }
}

fn waits(ahead: u64) -> Entered {
    Entered::Waits { ahead, has_room: false, not_before: None }
}

fn queued(limit: u32) -> impl Fn(i64) -> Admission {
    move |second| admission(second, limit, Overflow::Queue)
}

#[test]
fn as_many_go_on_as_may_and_the_rest_in_the_order_of_their_starts() {
    let (mut queue, of) = (Queue::default(), queued(2));
    assert_eq!(queue.enters(run(1), &of(1), true), Entered::Admitted);
    assert_eq!(queue.enters(run(2), &of(2), true), Entered::Admitted);
    assert_eq!(queue.enters(run(3), &of(3), true), waits(0));
    assert_eq!(queue.enters(run(4), &of(4), true), waits(1));
    assert_eq!(queue.lets_in(), None);
    queue.leave(run(2));
    assert_eq!((queue.lets_in(), queue.lets_in()), (Some(run(3)), None));
    for gone in [1, 3, 4] {
        queue.leave(run(gone));
    }
    assert!(queue.lets_in().is_none() && queue.is_empty());
    assert_eq!(queue, Queue::default());
}

#[test]
fn a_rank_passes_those_behind_it_but_nobody_who_goes_on() {
    let (mut queue, of) = (Queue::default(), queued(1));
    for second in 1_u32..=3 {
        queue.enters(run(second), &of(second.into()), true);
    }
    assert_eq!(queue.enters(run(9), &of(-50), true), waits(0));
    assert_eq!(queue.lets_in(), None);
    queue.leave(run(1));
    assert_eq!((queue.lets_in(), queue.lets_in()), (Some(run(9)), None));
}

#[test]
fn one_that_is_set_aside_keeps_its_place() {
    let (mut queue, of) = (Queue::default(), queued(1));
    for second in 1_u32..=3 {
        queue.enters(run(second), &of(second.into()), true);
    }
    queue.hold(run(2), Hold::Run, true);
    queue.hold(run(1), Hold::Run, true);
    queue.leave(run(1));
    assert_eq!(queue.lets_in(), Some(run(3)));
    queue.hold(run(2), Hold::Run, false);
    assert_eq!(queue.lets_in(), None);
    queue.leave(run(3));
    assert_eq!(queue.lets_in(), Some(run(2)));
}

#[test]
fn what_is_to_be_dropped_isnt_kept() {
    let mut queue = Queue::default();
    let of = |second| admission(second, 1, Overflow::Drop);
    assert_eq!(queue.enters(run(1), &of(1), true), Entered::Admitted);
    assert_eq!(queue.enters(run(2), &of(2), true), Entered::Dropped(Dropped::Concurrency));
    queue.leave(run(1));
    assert_eq!(queue.lets_in(), None);
    assert_eq!(queue.enters(run(3), &of(3), true), Entered::Admitted);
}

#[test]
fn the_oldest_makes_room_and_holds_its_place_until_it_has_ended() {
    let mut queue = Queue::default();
    let of = |second| admission(second, 2, Overflow::CancelOldest);
    queue.enters(run(1), &of(1), true);
    queue.enters(run(2), &of(2), true);
    assert_eq!(queue.displace(), None);
    assert_eq!(queue.enters(run(3), &of(3), true), waits(0));
    assert_eq!((queue.displace(), queue.displace()), (Some((run(1), run(3))), None));
    assert_eq!(queue.lets_in(), None);
    assert_eq!(queue.enters(run(4), &of(4), true), waits(1));
    assert_eq!(queue.enters(run(5), &of(5), true), waits(2));
    let ended: Vec<_> = std::iter::from_fn(|| queue.displace()).collect();
    assert_eq!(ended, [(run(2), run(5)), (run(3), run(5))]);
    for gone in [3, 1, 2] {
        queue.leave(run(gone));
    }
    let next: Vec<_> = std::iter::from_fn(|| queue.lets_in()).collect();
    assert_eq!(next, [run(4), run(5)]);
}

#[test]
fn who_displaces_begins_once_it_is_written_and_not_before() {
    let mut queue = Queue::default();
    let (older, newer) = (queued(1), |second| admission(second, 1, Overflow::CancelOldest));
    queue.enters(run(1), &older(1), true);
    queue.enters(run(2), &older(2), true);
    queue.enters(run(3), &newer(3), true);
    let asked = |queue: &mut Queue| std::iter::from_fn(|| queue.displace()).collect::<Vec<_>>();
    assert_eq!(asked(&mut queue), [(run(1), run(3)), (run(2), run(3))]);
    queue.leave(run(1));
    assert_eq!(queue.lets_in(), None, "the end of run 2 isn't written yet");
    // It couldn't be written, and the run was read again.
    queue.restore(run(2), &older(2), Found::Waiting);
    assert_eq!(asked(&mut queue), [(run(2), run(3))]);
    queue.leave(run(2));
    assert_eq!(queue.lets_in(), Some(run(3)));
}

#[test]
fn nobody_is_let_in_before_all_are_known() {
    let mut queue = Queue::default();
    let of = |second| admission(second, 1, Overflow::Drop);
    let entered = Entered::Waits { ahead: 0, has_room: true, not_before: None };
    assert_eq!(queue.enters(run(2), &of(2), false), entered);
    queue.restore(run(1), &of(1), Found::Admitted);
    assert_eq!(queue.lets_in(), None);
}

#[test]
fn what_is_held_twice_is_let_go_twice() {
    let (mut queue, of) = (Queue::default(), queued(1));
    queue.restore(run(1), &of(1), Found::Waiting);
    queue.hold(run(1), Hold::Run, true);
    queue.hold(run(1), Hold::Workflow, true);
    queue.hold(run(1), Hold::Workflow, false);
    assert_eq!(queue.lets_in(), None);
    queue.hold(run(1), Hold::Run, false);
    assert_eq!(queue.lets_in(), Some(run(1)));
}

#[derive(Debug, Clone)]
enum Step {
    Enter(i64),
    End(usize),
    Aside(usize, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (-100_i64..100).prop_map(Step::Enter),
        2 => (0_usize..40).prop_map(Step::End),
        1 => ((0_usize..40), any::<bool>()).prop_map(|(at, aside)| Step::Aside(at, aside)),
    ];
    proptest::collection::vec(step, 1..120)
}

/// A run as its own events would tell it.
#[derive(Debug, Clone)]
struct Known {
    admission: Admission,
    found: Found,
    is_held: bool,
}

impl Known {
    fn may_begin(&self) -> bool {
        self.found == Found::Waiting && !self.is_held
    }
}

fn limited(second: i64, then: Excess) -> Admission {
    let rate = Rate { limit: 2, period: Span::from_millis(10_000), burst: 1, then, until: None };
    Admission { limit: None, rate: Some(rate), ..admission(second, 0, Overflow::Queue) }
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(second)
}

fn begins(number: u32, until: i64) -> Next {
    Next::Begins { run_id: run(number), until: Some(at(until)) }
}

#[test]
fn a_rate_lets_one_in_at_a_time_and_says_when() {
    let (mut queue, mut slots) = (Queue::default(), Slots::default());
    let mut first = limited(0, Excess::Queue);
    assert_eq!(queue.enter(run(1), &mut first, &mut slots, at(0), true), Entered::Admitted);
    assert_eq!(first.rate.and_then(|rate| rate.until), Some(at(5)));
    for (number, opens) in [(2, 5), (3, 10)] {
        let mut admission = limited(number.into(), Excess::Queue);
        let entered = queue.enter(run(number), &mut admission, &mut slots, at(1), true);
        let (ahead, not_before) = (u64::from(number) - 2, Some(at(opens)));
        assert_eq!(entered, Entered::Waits { ahead, has_room: true, not_before });
        assert_eq!(admission.rate.and_then(|rate| rate.until), None);
    }
    // That the first one ends changes nothing.
    queue.leave(run(1));
    assert_eq!(queue.admit(&mut slots, at(4)), Next::At(at(5)));
    assert_eq!(queue.admit(&mut slots, at(6)), begins(2, 11));
    assert_eq!(queue.admit(&mut slots, at(6)), Next::At(at(11)));
    assert_eq!(queue.admit(&mut slots, at(11)), begins(3, 16));
    assert_eq!(queue.admit(&mut slots, at(99)), Next::Nobody);
}

#[test]
fn one_that_isnt_to_wait_for_its_slot_is_dropped_or_counts_at_once() {
    let (mut queue, mut slots) = (Queue::default(), Slots::default());
    let of = || Admission { limit: Some(1), ..limited(0, Excess::Drop) };
    let mut first = of();
    assert_eq!(queue.enter(run(1), &mut first, &mut slots, at(0), true), Entered::Admitted);
    assert_eq!(first.rate.and_then(|rate| rate.until), Some(at(5)));
    let dropped = Entered::Dropped(Dropped::RateLimit);
    assert_eq!(queue.enter(run(2), &mut of(), &mut slots, at(4), true), dropped);
    // It has its slot, and waits for the place alone.
    let mut third = of();
    let entered = queue.enter(run(3), &mut third, &mut slots, at(5), true);
    assert_eq!(entered, waits(0));
    assert_eq!(third.rate.and_then(|rate| rate.until), Some(at(10)));
    queue.leave(run(1));
    let begins = Next::Begins { run_id: run(3), until: None };
    assert_eq!(queue.admit(&mut slots, at(5)), begins);
}

#[test]
fn a_place_and_a_slot_are_both_needed() {
    let (mut queue, mut slots) = (Queue::default(), Slots::default());
    for number in 1..=3 {
        let mut both = Admission { limit: Some(1), ..limited(number.into(), Excess::Queue) };
        queue.enter(run(number), &mut both, &mut slots, at(0), true);
    }
    assert_eq!(queue.admit(&mut slots, at(60)), Next::Nobody);
    queue.leave(run(1));
    assert_eq!(queue.admit(&mut slots, at(60)), begins(2, 65));
    queue.leave(run(2));
    assert_eq!(queue.admit(&mut slots, at(61)), Next::At(at(65)));
    assert_eq!(queue.admit(&mut slots, at(65)), begins(3, 70));
}

#[test]
fn a_drop_counts_those_that_wait_for_a_slot() {
    let (mut queue, mut slots) = (Queue::default(), Slots::default());
    let mut entered = |number: u32| {
        let mut one = limited(number.into(), Excess::Queue);
        (one.limit, one.then) = (Some(2), Overflow::Drop);
        queue.enter(run(number), &mut one, &mut slots, at(0), true)
    };
    assert_eq!(entered(1), Entered::Admitted);
    assert!(matches!(entered(2), Entered::Waits { has_room: true, .. }));
    assert_eq!(entered(3), Entered::Dropped(Dropped::Concurrency));
}

proptest! {
    /// After each step: at most `limit` go on, nobody waits while there is room, whoever is let in
    /// has the smallest rank, and a queue that is put together from the runs is the same.
    #[test]
    fn any_schedule_keeps_to_the_limit_and_to_the_order(steps in steps(), limit in 1_u32..4) {
        let mut queue = Queue::default();
        let mut runs: BTreeMap<RunId, Known> = BTreeMap::new();
        for (number, step) in (1_u32..).zip(steps) {
            let nth = |runs: &BTreeMap<RunId, Known>, at: usize| {
                runs.keys().nth(at % runs.len().max(1)).copied()
            };
            match step {
                Step::Enter(rank) => {
                    let admission = queued(limit)(rank);
                    let found = match queue.enters(run(number), &admission, true) {
                        Entered::Admitted => Found::Admitted,
                        Entered::Waits { .. } => Found::Waiting,
                        Entered::Dropped(_) => unreachable!("nothing is dropped here"),
                    };
                    runs.insert(run(number), Known { admission, found, is_held: false });
                }
                Step::End(at) => {
                    if let Some(run_id) = nth(&runs, at) {
                        runs.remove(&run_id);
                        queue.leave(run_id);
                    }
                }
                Step::Aside(at, is_aside) => {
                    if let Some(run_id) = nth(&runs, at) {
                        queue.hold(run_id, Hold::Run, is_aside);
                        let known = runs.get_mut(&run_id).expect("it is there");
                        known.is_held = is_aside;
                    }
                }
            }
            while let Some(next) = queue.lets_in() {
                let waiting = runs.iter().filter(|(_, one)| one.may_begin());
                let first = waiting.map(|(id, one)| (one.admission.rank, *id)).min();
                prop_assert_eq!(first.map(|(_, id)| id), Some(next));
                runs.get_mut(&next).expect("it is there").found = Found::Admitted;
            }
            let going = runs.values().filter(|one| one.found == Found::Admitted).count();
            prop_assert!(going <= limit as usize);
            prop_assert!(going == limit as usize || !runs.values().any(Known::may_begin));
            let mut anew = Queue::default();
            for (run_id, one) in runs.iter().rev() {
                anew.restore(*run_id, &one.admission, one.found);
                anew.hold(*run_id, Hold::Run, one.is_held);
            }
            prop_assert_eq!(&anew, &queue);
        }
    }
}

#[test]
fn of_those_ahead_1000_are_counted_where_a_run_does_not_come_last() {
    let (mut queue, of) = (Queue::default(), queued(1));
    for second in 1..=1_003 {
        queue.enters(run(second), &of(second.into()), true);
    }
    assert_eq!(queue.enters(run(1_004), &of(9_000), true), waits(1_002));
    assert_eq!(queue.enters(run(1_005), &of(1_001), true), waits(1_000));
    assert_eq!(queue.enters(run(1_006), &of(8_000), true), waits(1_000));
}
