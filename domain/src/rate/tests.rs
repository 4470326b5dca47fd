//! Rates over chosen and random times: no more than may in any stretch of a period, and whoever is
//! turned away may begin at the time that was named.

use proptest::prelude::*;

use super::*;

fn rate(limit: u32, period_ms: u64, burst: u32) -> Rate {
    let period = Span::from_millis(period_ms);
    Rate { limit, period, burst, then: Excess::Queue, until: None }
}

fn at(millis: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(millis)
}

#[test]
fn starts_are_spread_evenly_over_the_period() {
    let (mut slots, rate) = (Slots::default(), rate(4, 1_000, 1));
    assert_eq!(slots.take(&rate, at(0)), Some(at(250)));
    assert_eq!(slots.take(&rate, at(249)), None);
    assert_eq!(slots.opens_at(&rate, at(249)), at(250));
    assert_eq!(slots.take(&rate, at(250)), Some(at(500)));
    // What isn't used isn't saved up.
    assert_eq!(slots.take(&rate, at(9_000)), Some(at(9_250)));
    assert_eq!(slots.take(&rate, at(9_001)), None);
}

#[test]
fn a_burst_begins_at_once_and_is_made_up_for_by_waiting() {
    let (mut slots, rate) = (Slots::default(), rate(4, 1_000, 3));
    let begun = (0..9).filter(|_| slots.take(&rate, at(0)).is_some()).count();
    assert_eq!(begun, 3);
    assert_eq!(slots.opens_at(&rate, at(0)), at(250));
    assert_eq!(slots.opens_after(2, &rate, at(0)), Some(at(750)));
    let mut quiet = Slots::default();
    let after = [0, 2, 3].map(|others| quiet.opens_after(others, &rate, at(0)));
    assert_eq!(after, [Some(at(0)), Some(at(0)), Some(at(250))]);
    assert_eq!(slots.take(&rate, at(250)), Some(at(1_000)));
    assert_eq!(slots.take(&rate, at(250)), None);
}

#[test]
fn a_slot_is_rounded_up_to_microseconds() {
    assert_eq!(rate(7, 1_000, 1).slot(), TimeDelta::microseconds(142_858));
    assert_eq!(rate(100_000, 1_000, 1).slot(), TimeDelta::microseconds(10));
}

#[test]
fn a_clock_that_is_put_back_stops_nobody_for_long() {
    let (mut slots, rate) = (Slots::default(), rate(2, 1_000, 2));
    slots.take(&rate, at(1_000_000_000));
    assert_eq!(slots.opens_at(&rate, at(0)), at(500));
    assert_eq!(slots.take(&rate, at(499)), None);
    assert!(slots.take(&rate, at(500)).is_some());
    // By a little it is as if it stood still.
    let end = slots.0.expect("there is one");
    assert_eq!(slots.opens_at(&rate, at(-30_000)), end - rate.slot());
}

#[test]
fn slots_of_a_slower_rate_are_cut_where_the_faster_one_reaches() {
    let (mut slots, day) = (Slots::default(), rate(1, 86_400_000, 1));
    slots.take(&day, at(0));
    let faster = rate(10, 1_000, 1);
    assert_eq!(slots.opens_at(&faster, at(5)), at(105));
    assert!(slots.take(&faster, at(105)).is_some());
}

#[test]
fn what_is_stored_leaves_out_what_goes_without_saying() {
    let text = serde_json::to_string(&rate(3, 60_000, 1)).expect("it is JSON");
    assert_eq!(text, r#"{"limit":3,"period":"1m"}"#);
    assert_eq!(serde_json::from_str::<Rate>(&text).expect("it reads back"), rate(3, 60_000, 1));
}

proptest! {
    /// In any stretch as long as the period at most `limit + burst - 1` begin, whoever has to wait
    /// may begin at the time that was named and not a microsecond sooner, and slots that are over
    /// need not be remembered.
    #[test]
    fn no_stretch_of_a_period_has_more_than_may(
        gaps in proptest::collection::vec(0_i64..400_000, 1..120),
        limit in 1_u32..8,
        burst in 1_u32..8,
        period_ms in 1_u64..1_500,
    ) {
        let rate = rate(limit, period_ms, burst.min(limit));
        let (mut slots, mut now) = (Slots::default(), DateTime::UNIX_EPOCH);
        let mut begun: Vec<DateTime<Utc>> = Vec::new();
        for gap in gaps {
            now += TimeDelta::microseconds(gap);
            let mut forgotten = Slots(slots.0.filter(|end| *end > now));
            let opens = slots.opens_at(&rate, now);
            prop_assert_eq!(forgotten.opens_at(&rate, now), opens);
            if opens > now {
                prop_assert_eq!(slots.take(&rate, opens - TimeDelta::microseconds(1)), None);
                now = opens;
            }
            prop_assert!(slots.take(&rate, now).is_some());
            begun.push(now);
        }
        let period = TimeDelta::milliseconds(i64::try_from(period_ms).expect("short"));
        let most = (rate.limit + rate.burst - 1) as usize;
        for (first, from) in begun.iter().enumerate() {
            let within = begun[first..].iter().take_while(|one| **one - *from < period).count();
            prop_assert!(within <= most, "{within} of {most}");
        }
    }
}
