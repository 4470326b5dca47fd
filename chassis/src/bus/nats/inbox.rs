//! Where answers come back: one subscription, and a slot for each who waits.
//!
//! The client library has requests of its own, but keeps what was never answered for ever, and
//! takes one message for an answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{Client, Message, SubscribeError, Subscriber};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{NatsError, Part};

/// Answers that may be waited for at a time.
const SLOTS: usize = 65_536;

/// Why nothing arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum NotArrived {
    /// Too many wait for answers.
    Full,
    /// The connection was closed by us.
    Closed,
    /// A part is missing.
    Torn,
}

impl NotArrived {
    pub(in crate::bus) fn unavailable(self) -> NatsError {
        NatsError::Unavailable(match self {
            Self::Full => "too many answers are waited for".into(),
            Self::Closed => "the connection is closed".into(),
            Self::Torn => "a part of an answer is missing".into(),
        })
    }
}

/// An answer: a message, or the parts of one.
#[derive(Debug)]
pub(in crate::bus) struct Arrived {
    pub(in crate::bus) first: Message,
    pub(in crate::bus) rest: Vec<Message>,
}

impl Arrived {
    /// Its body.
    pub(in crate::bus) fn body(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.payload;
        }
        let parts = std::iter::once(&self.first).chain(&self.rest);
        let mut body = BytesMut::with_capacity(parts.clone().map(|part| part.payload.len()).sum());
        parts.for_each(|part| body.extend_from_slice(&part.payload));
        body.freeze()
    }
}

enum Slot {
    Answer {
        sender: oneshot::Sender<Result<Arrived, NotArrived>>,
        from: usize,
        parts: Vec<Message>,
        bytes: usize,
    },
    Follow(mpsc::Sender<Message>),
}

struct Slots {
    waiting: Mutex<HashMap<u64, Slot>>,
    next: AtomicU64,
}

impl Slots {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Slot>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, token: u64, message: Message) {
        let mut waiting = self.lock();
        let keep = match waiting.get_mut(&token) {
            // Whoever waited has given up.
            None => return,
            Some(Slot::Follow(sender)) => sender.try_send(message).is_ok(),
            Some(Slot::Answer { from, parts, bytes, .. }) => {
                let part = Part::of(&message);
                let expected = *from + parts.len();
                *bytes += message.payload.len();
                let torn = part.is_some_and(|part| part.index != expected || *bytes > part.bytes);
                let last = part.is_none_or(|part| part.index + 1 == part.count);
                parts.push(message);
                if torn || last {
                    let slot = waiting.remove(&token);
                    drop(waiting);
                    complete(slot, torn);
                    return;
                }
                true
            }
        };
        if !keep {
            waiting.remove(&token);
        }
    }
}

fn complete(slot: Option<Slot>, torn: bool) {
    let Some(Slot::Answer { sender, parts, .. }) = slot else {
        return;
    };
    let mut parts = parts.into_iter();
    let arrived = match parts.next() {
        Some(first) if !torn => Ok(Arrived { first, rest: parts.collect() }),
        _ => Err(NotArrived::Torn),
    };
    // Whoever waited may have given up meanwhile.
    let _ = sender.send(arrived);
}

/// The subscription. It lasts as long as the connection.
pub(super) struct Shared {
    prefix: String,
    slots: Arc<Slots>,
}

/// Hands out slots.
pub(in crate::bus) struct Inbox(Shared);

impl Inbox {
    pub(super) async fn open(
        client: &Client,
        closed: CancellationToken,
    ) -> Result<Self, SubscribeError> {
        let prefix = client.new_inbox();
        let subscriber = client.subscribe(format!("{prefix}.*")).await?;
        let slots = Arc::new(Slots { waiting: Mutex::default(), next: AtomicU64::new(0) });
        // Not awaited: it ends with the connection.
        tokio::spawn(dispatch(subscriber, prefix.len() + 1, Arc::clone(&slots), closed));
        Ok(Self(Shared { prefix, slots }))
    }

    /// A place for one answer, which may come in parts.
    pub(in crate::bus) fn answer(&self) -> Result<Answer, NotArrived> {
        self.answer_from(0)
    }

    /// A place for an answer that comes in parts, of which the first come elsewhere.
    pub(in crate::bus) fn answer_from(&self, from: usize) -> Result<Answer, NotArrived> {
        let (sender, receiver) = oneshot::channel();
        let held = self.hold(Slot::Answer { sender, from, parts: Vec::new(), bytes: 0 })?;
        Ok(Answer { subject: self.subject(held.token), receiver, _held: held })
    }

    /// A place for many messages. Where more than `capacity` of them wait, it ends.
    pub(in crate::bus) fn follow(&self, capacity: usize) -> Result<Follow, NotArrived> {
        let (sender, receiver) = mpsc::channel(capacity);
        let held = self.hold(Slot::Follow(sender))?;
        Ok(Follow { subject: self.subject(held.token), receiver, _held: held })
    }

    fn subject(&self, token: u64) -> String {
        format!("{}.{token:x}", self.0.prefix)
    }

    fn hold(&self, slot: Slot) -> Result<Held, NotArrived> {
        let slots = &self.0.slots;
        let token = slots.next.fetch_add(1, Ordering::Relaxed);
        let mut waiting = slots.lock();
        if waiting.len() >= SLOTS {
            return Err(NotArrived::Full);
        }
        waiting.insert(token, slot);
        Ok(Held { token, slots: Arc::clone(slots) })
    }
}

async fn dispatch(
    mut subscriber: Subscriber,
    skip: usize,
    slots: Arc<Slots>,
    closed: CancellationToken,
) {
    loop {
        let message = tokio::select! {
            biased;
            message = subscriber.next() => message,
            () = closed.cancelled() => None,
        };
        let Some(message) = message else {
            break;
        };
        let token = message.subject.get(skip..).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        if let Some(token) = token {
            slots.deliver(token, message);
        }
    }
    // Whoever waits sees the end of its channel.
    slots.lock().clear();
}

struct Held {
    token: u64,
    slots: Arc<Slots>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let slot = self.slots.lock().remove(&self.token);
        drop(slot);
    }
}

/// A place for an answer; given up when dropped.
pub(in crate::bus) struct Answer {
    pub(in crate::bus) subject: String,
    receiver: oneshot::Receiver<Result<Arrived, NotArrived>>,
    _held: Held,
}

impl Answer {
    pub(in crate::bus) async fn arrived(self) -> Result<Arrived, NotArrived> {
        self.receiver.await.unwrap_or(Err(NotArrived::Closed))
    }
}

/// A place for many messages; given up when dropped.
pub(in crate::bus) struct Follow {
    pub(in crate::bus) subject: String,
    receiver: mpsc::Receiver<Message>,
    _held: Held,
}

impl Follow {
    /// The next message; nothing where the connection was closed or the place ran over.
    /// Cancel-safe.
    pub(in crate::bus) async fn next(&mut self) -> Option<Message> {
        self.receiver.recv().await
    }
}
