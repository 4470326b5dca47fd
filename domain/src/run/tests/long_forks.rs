//! A past that is too long to be kept comes to the same as one that is.

use graphs::{Layout, blocks, runner};
use proptest::prelude::*;
use uuid::Uuid;

use super::fixture::Fixture;
use super::forks::{calls, run_by};
use crate::ids::RunId;
use crate::run::Run;
use crate::run::event::Adopt;
use crate::run::fork::{Asked, Forking, Prefix};

fn forking(parent: &Fixture, at: u64, is_long: bool) -> Option<Forking> {
    let mut prefix = match is_long {
        true => Prefix::long(&parent.plan, at, Adopt::All),
        false => Prefix::new(&parent.plan, at, Adopt::All),
    };
    for (event, at) in &parent.events {
        if !prefix.take(event.clone(), *at).expect("the engine decides the same") {
            break;
        }
    }
    let [fork, from] = [4_242, 42].map(|id| RunId::new(Uuid::from_u128(id)));
    let labels = Some([("color".to_owned(), "red".to_owned())].into());
    let until = parent.events.len() as u64;
    let asked = Asked { labels, ..Asked::unchanged(fork, from, until, parent.now) };
    // What has ended, or undoes what it did, can't be forked.
    let goes_on = |run: &Run| run.live().is_some_and(|live| live.compensation.is_none());
    let place = prefix.place().filter(|place| goes_on(&place.run))?;
    Some(place.fork(asked).expect("it can be forked"))
}

#[test]
fn a_fork_begins_the_same_whether_its_past_is_kept_or_not() {
    let graphs = (blocks(), prop::collection::vec(any::<u32>(), 1..40));
    runner(30)
        .run(&graphs, |(block, schedule)| {
            let parent = run_by(Layout::definition(&calls(block, true), false, false), &schedule);
            for at in 1..=parent.events.len() as u64 {
                let forks = [true, false].map(|is_long| forking(&parent, at, is_long));
                let [Some(mut long), Some(mut kept)] = forks else { continue };
                prop_assert_eq!((long.written(), kept.written()), (kept.forked.sequence, 0));
                prop_assert_eq!(&long.started, &kept.started);
                let (mut own, mut other) = (Run::default(), Run::default());
                let (plan, now) = (&parent.plan, parent.now);
                let begun = long.begin(&mut own, plan, now).expect("it begins");
                prop_assert_eq!(&begun, &kept.begin(&mut other, plan, now).expect("it begins"));
                prop_assert_eq!(&own, &other, "forked at {}", at);
                prop_assert!(own.live().is_none_or(|live| live.is_its_own()));
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
