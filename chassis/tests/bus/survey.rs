//! Questions to everybody.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chassis::bus::Nats;
use chassis::scratch::nats::nats_options;

use crate::wait::LONG;

/// How long who asks waits where not all answer.
const SHORT: Duration = Duration::from_millis(300);

async fn asked(nats: &Nats, within: Duration, enough: usize) -> Vec<Bytes> {
    let mut answers = Vec::new();
    let take = |answer| {
        answers.push(answer);
        answers.len() == enough
    };
    let question = Bytes::from_static(b"who is there?");
    nats.survey("roll-call", question, within, take).await.expect("it can be asked");
    answers.sort_unstable();
    answers
}

#[tokio::test]
async fn each_who_has_something_to_say_is_heard() {
    let options = nats_options();
    let nats = Nats::connect(&options).await.expect("it is there");
    let begun = Instant::now();
    assert_eq!(asked(&nats, LONG, 1).await, Vec::<Bytes>::new(), "nobody listens");
    let mut others = Vec::new();
    for name in ["one", "", "two"] {
        let other = Nats::connect(&options).await.expect("it is there");
        let answer = move |question: Bytes| {
            assert_eq!(question, "who is there?");
            (!name.is_empty()).then(|| Bytes::from_static(name.as_bytes()))
        };
        let answers = other.answer_surveys("roll-call", answer).await.expect("it listens");
        others.push((other, answers));
    }
    assert_eq!(asked(&nats, LONG, 2).await, ["one", "two"], "enough was heard");
    assert!(begun.elapsed() < LONG, "it doesn't wait where there is nothing to wait for");
    let begun = Instant::now();
    assert_eq!(asked(&nats, SHORT, 3).await, ["one", "two"]);
    assert!(begun.elapsed() >= SHORT, "one might have answered still");
    drop(others.pop());
    assert_eq!(asked(&nats, SHORT, 2).await, ["one"], "who has stopped says nothing");
}
