//! Streams of events: refused before they begin, and continued where their far side goes away.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use protocol::{Cursor, EventEnvelope, EventFilter, Events as _, Rejection, RejectionKind};

use crate::far::{BOUND, FarStreams, Place, Stream, events, no};

type Feed = BoxStream<'static, Result<EventEnvelope, Rejection>>;

/// The positions of the next events.
async fn next(feed: &mut Feed, count: usize) -> Vec<u64> {
    let taken = feed.by_ref().take(count).map(|event| event.expect("an event").position);
    tokio::time::timeout(BOUND, taken.collect()).await.expect("they come in time")
}

async fn rejection(feed: &mut Feed) -> Rejection {
    let item = tokio::time::timeout(BOUND, feed.next()).await.expect("it comes in time");
    item.expect("an item").expect_err("a rejection")
}

fn live(messages: Vec<crate::far::Say>) -> Stream {
    Stream { messages, ends: false }
}

fn ending(messages: Vec<crate::far::Say>) -> Stream {
    Stream { messages, ends: true }
}

#[tokio::test]
async fn history_and_live_events_come_in_order_and_the_first_message_may_be_empty() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let (far, _served) =
        FarStreams::at(&nats, [live(vec![events([]), events(1..=300), events([305])])]).await;
    let mut feed = remote.follow(EventFilter::default(), None).await.expect("a stream");
    let expected: Vec<u64> = (1..=300).chain([305]).collect();
    assert_eq!(next(&mut feed, 301).await, expected);
    assert_eq!(far.opened_after(), [None]);
}

#[tokio::test]
async fn a_refusal_comes_before_the_stream_and_one_in_its_midst_ends_it() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let refused = no(RejectionKind::Malformed, "invalid_cursor");
    let unavailable = no(RejectionKind::Unavailable, "journal_unavailable");
    let lagged = no(RejectionKind::Overloaded, "reader_too_slow");
    let script = [live(vec![refused]), live(vec![unavailable]), live(vec![events([1, 2]), lagged])];
    let (far, _served) = FarStreams::at(&nats, script).await;
    for code in ["invalid_cursor", "journal_unavailable"] {
        let refused = remote.follow(EventFilter::default(), None).await;
        assert_eq!(refused.err().expect("it is refused").code, code);
    }
    let mut feed = remote.follow(EventFilter::default(), None).await.expect("a stream");
    assert_eq!(next(&mut feed, 2).await, [1, 2]);
    assert_eq!(rejection(&mut feed).await.code, "reader_too_slow");
    assert!(feed.next().await.is_none());
    assert_eq!(far.opened_after().len(), 3);
}

#[tokio::test]
async fn a_far_side_that_says_nothing_at_first_is_followed_all_the_same() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let (far, _served) = FarStreams::at(&nats, [live(Vec::new())]).await;
    assert!(remote.follow(EventFilter::default(), None).await.is_ok());
    assert_eq!(far.opened_after(), [None]);
}

#[tokio::test]
async fn a_stream_goes_on_after_the_last_event_when_its_far_side_ends_it() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let away = no(RejectionKind::Unavailable, "journal_unavailable");
    let script = [
        ending(vec![events([]), events([4, 5])]),
        ending(vec![events([])]),
        // A far side that repeats what was seen.
        live(vec![events([5, 6]), away]),
        live(vec![events([6, 7])]),
    ];
    let (far, _served) = FarStreams::at(&nats, script).await;
    let after = Some(Cursor { epoch: 7, position: 3 });
    let mut feed = remote.follow(EventFilter::default(), after).await.expect("a stream");
    assert_eq!(next(&mut feed, 4).await, [4, 5, 6, 7]);
    assert_eq!(far.opened_after(), [Some(3), Some(5), Some(5), Some(6)]);
}

#[tokio::test]
async fn a_stream_moves_to_another_far_side_when_its_own_stops() {
    let place = Place::new();
    let (first, second) = (place.nats().await, place.nats().await);
    let remote = place.remote().await;
    let (_old, served) = FarStreams::at(&first, [live(vec![events([1, 2])])]).await;
    let mut feed = remote.follow(EventFilter::default(), None).await.expect("a stream");
    assert_eq!(next(&mut feed, 2).await, [1, 2]);
    served.stop().await;
    let (new, _served) = FarStreams::at(&second, [live(vec![events([3])])]).await;
    assert_eq!(next(&mut feed, 1).await, [3]);
    assert_eq!(new.opened_after(), [Some(2)]);
}

#[tokio::test]
async fn a_stream_that_nobody_serves_any_more_is_given_up() {
    let place = Place::new();
    let (nats, remote) = (place.nats().await, place.remote().await);
    let remote = remote.with_patience(Duration::from_millis(400));
    let nobody = remote.follow(EventFilter::default(), None).await;
    assert_eq!(nobody.err().expect("nobody is there").code, "unavailable");
    let (_far, served) = FarStreams::at(&nats, [live(vec![events([1])])]).await;
    let mut feed = remote.follow(EventFilter::default(), None).await.expect("a stream");
    assert_eq!(next(&mut feed, 1).await, [1]);
    served.stop().await;
    assert_eq!(rejection(&mut feed).await.code, "unavailable");
    assert!(feed.next().await.is_none());
}
