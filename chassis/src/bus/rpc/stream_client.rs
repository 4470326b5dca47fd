//! Reading streams.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::Message;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::wire::{self, Frame, Kind, Sign};
use super::{RequestError, WINDOW, client};
use crate::bus::nats::{Follow, LARGEST, Nats, outbound};

const OPEN_WITHIN: Duration = Duration::from_secs(5);
const SIGN_EVERY: Duration = Duration::from_secs(2);
/// A server that sends nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(6);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Frames that may wait: those that were granted, and signs of life.
const FRAMES: usize = 64;

pub(super) async fn open(
    nats: &Nats,
    below: &str,
    body: Bytes,
) -> Result<BoxStream<'static, Result<Bytes, RequestError>>, RequestError> {
    let follow = nats.inbox().follow(FRAMES).map_err(|error| error.unavailable())?;
    let until = wire::until(OPEN_WITHIN);
    let answer = client::ask(nats, below, body, Some(&follow.subject), until).await?;
    let Some(control) = wire::header(&answer.first, wire::CONTROL).map(str::to_owned) else {
        return Err(RequestError::Unavailable(format!("{below} serves no streams")));
    };
    let taken = Arc::new(Taken::default());
    // Room for all that is granted, and an error at the end.
    let (sender, receiver) = mpsc::channel(usize::try_from(WINDOW).unwrap_or(1) + 1);
    let reading = Reading {
        nats: nats.clone(),
        follow,
        control,
        out: sender,
        taken: Arc::clone(&taken),
        seen: 0,
        given: 0,
        granted: WINDOW,
        free: 0,
        pieces: Vec::new(),
        bytes: 0,
        held: 0,
        heard: Instant::now(),
        told: Instant::now(),
    };
    // Not awaited: it ends with the stream or with its reader.
    tokio::spawn(reading.run());
    Ok(Reader { receiver, taken }.boxed())
}

/// What the reader has taken.
#[derive(Default)]
struct Taken {
    messages: AtomicU64,
    frames: AtomicU64,
    more: Notify,
}

/// A message, and the frames that are granted anew once it is taken.
type Item = Result<(Bytes, u64), RequestError>;

struct Reader {
    receiver: mpsc::Receiver<Item>,
    taken: Arc<Taken>,
}

impl Stream for Reader {
    type Item = Result<Bytes, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = std::task::ready!(self.receiver.poll_recv(context));
        Poll::Ready(item.map(|item| {
            let (body, frames) = item?;
            self.taken.frames.fetch_add(frames, Ordering::Release);
            self.taken.messages.fetch_add(1, Ordering::Release);
            self.taken.more.notify_one();
            Ok(body)
        }))
    }
}

/// Receives frames for a reader, and gives its signs. Apart from the reader, which may be slow.
struct Reading {
    nats: Nats,
    follow: Follow,
    control: String,
    out: mpsc::Sender<Item>,
    taken: Arc<Taken>,
    /// Frames with a body.
    seen: u64,
    /// Messages given to the reader.
    given: u64,
    /// The frame up to which the server may send.
    granted: u64,
    /// Frames of an unfinished message that were granted anew.
    free: u64,
    /// Of an unfinished message.
    pieces: Vec<Bytes>,
    bytes: usize,
    /// Frames of the unfinished message that aren't granted anew yet.
    held: u64,
    heard: Instant,
    told: Instant,
}

enum Ended {
    Ok,
    Cancelled,
    Err(RequestError),
}

impl Reading {
    async fn run(mut self) {
        match self.read().await {
            Ended::Ok => {}
            Ended::Cancelled => self.sign(Sign::Cancel).await,
            Ended::Err(error) => {
                // There is room for it, or the reader is gone.
                let _ = self.out.try_send(Err(error));
                self.sign(Sign::Cancel).await;
            }
        }
    }

    async fn read(&mut self) -> Ended {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            self.grant().await;
            tokio::select! {
                biased;
                () = self.out.closed() => return Ended::Cancelled,
                message = self.follow.next() => {
                    let Some(message) = message else {
                        return broken("the connection is closed, or a stream ran over");
                    };
                    if let Some(ended) = self.take(&message) {
                        return ended;
                    }
                }
                () = self.taken.more.notified() => {}
                _ = look.tick() => {
                    if self.heard.elapsed() > SILENCE {
                        return broken("the server of a stream gives no sign");
                    }
                    if self.told.elapsed() >= SIGN_EVERY {
                        self.sign(Sign::Credit(self.granted)).await;
                    }
                }
            }
        }
    }

    fn take(&mut self, message: &Message) -> Option<Ended> {
        self.heard = Instant::now();
        let Some(frame) = Frame::of(message) else {
            return Some(broken("a frame can't be read"));
        };
        let has_body = matches!(frame.kind, Kind::Whole | Kind::Piece);
        if frame.number != self.seen + u64::from(has_body) {
            return Some(broken("a message of a stream was lost"));
        }
        self.seen = frame.number;
        match frame.kind {
            Kind::Beat => None,
            Kind::End => Some(Ended::Ok),
            Kind::Broken => Some(broken("the server ended a stream before its end")),
            Kind::Piece => self.piece(&message.payload),
            Kind::Whole if self.pieces.is_empty() => self.give(message.payload.clone()),
            Kind::Whole => self.piece(&message.payload).or_else(|| {
                let mut body = BytesMut::with_capacity(self.bytes);
                self.pieces.drain(..).for_each(|piece| body.extend_from_slice(&piece));
                self.bytes = 0;
                self.held -= 1;
                self.give(body.freeze())
            }),
        }
    }

    fn piece(&mut self, piece: &Bytes) -> Option<Ended> {
        self.bytes += piece.len();
        self.pieces.push(piece.clone());
        self.held += 1;
        (self.bytes > LARGEST).then(|| broken("a message of a stream is too large"))
    }

    fn give(&mut self, body: Bytes) -> Option<Ended> {
        let frames = 1 + std::mem::take(&mut self.held);
        self.given += 1;
        match self.out.try_send(Ok((body, frames))) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Closed(_)) => Some(Ended::Cancelled),
            Err(mpsc::error::TrySendError::Full(_)) => Some(broken("more came than was asked for")),
        }
    }

    /// Lets the server send on, as far as the reader has taken what came.
    async fn grant(&mut self) {
        if self.held > 0 && self.taken.messages.load(Ordering::Acquire) == self.given {
            // The reader waits for the unfinished message.
            self.free += std::mem::take(&mut self.held);
        }
        let allowed = self.taken.frames.load(Ordering::Acquire) + self.free + WINDOW;
        if allowed >= self.granted + WINDOW / 2 {
            self.granted = allowed;
            self.sign(Sign::Credit(allowed)).await;
        }
    }

    async fn sign(&mut self, sign: Sign) {
        self.told = Instant::now();
        let message = outbound(self.control.clone(), None, sign.body());
        if let Err(error) = self.nats.send(message).await {
            // The server misses it, and ends the stream in time.
            tracing::debug!(%error, "a sign for a stream was not sent");
        }
    }
}

fn broken(why: &str) -> Ended {
    Ended::Err(RequestError::Unavailable(why.into()))
}
