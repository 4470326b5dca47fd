//! A feed as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::stream::{self, StreamExt as _};

use crate::feed::{Feed, Message};

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a browser waits before it connects again.
const RETRY: Duration = Duration::from_secs(2);

/// Answers with the messages of a feed.
pub(crate) fn respond(feed: Feed) -> Response {
    let hello = Event::default().retry(RETRY);
    let events = stream::unfold(feed, |mut feed| async move {
        let message = feed.next().await.ok()?;
        Some((event(message), feed))
    });
    let items = stream::iter([hello]).chain(events).map(Ok::<_, Infallible>);
    Sse::new(items).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

fn event(message: Message) -> Event {
    let event = Event::default().event(message.event.replace(['\n', '\r'], " "));
    let event = match message.id {
        Some(id) => event.id(id.to_string()),
        None => event,
    };
    event.data(message.data)
}
