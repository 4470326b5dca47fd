//! Far sides: they keep what they were asked, and answer what the test says.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chassis::bus::{Handler, Nats, Served, StreamHandler};
use chrono::DateTime;
use domain::ids::{CommandId, RunId, WorkspaceId};
use futures::stream::{self, BoxStream, StreamExt as _};
use gateway::Remote;
use protocol::remote::{Answer, FOLLOW, FollowCall, NOT_OWNER};
use protocol::{
    Command, CommandEnvelope, Cursor, EventEnvelope, Receipt, Rejection, RejectionKind,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use uuid::Uuid;

/// What a call comes to in these tests, at the latest.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// An end that a test waits for.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) fn home() -> WorkspaceId {
    WorkspaceId::derived("", "default")
}

pub(crate) fn run_id() -> RunId {
    RunId::derived("", "a run")
}

/// A connection of its own, below a prefix that is the test's.
pub(crate) struct Place(chassis::bus::NatsOptions);

impl Place {
    pub(crate) fn new() -> Self {
        Self(chassis::scratch::nats::nats_options())
    }

    pub(crate) async fn nats(&self) -> Nats {
        Nats::connect(&self.0).await.expect("nats runs")
    }

    pub(crate) async fn remote(&self) -> Remote {
        Remote::new(self.nats().await).with_patience(PATIENCE)
    }
}

/// One answer of a script.
pub(crate) enum Say {
    This(Bytes),
    /// No answer ever.
    Nothing,
}

pub(crate) fn ok<T: Serialize>(value: T) -> Say {
    let answer: Answer<T> = Ok(value);
    Say::This(serde_json::to_vec(&answer).expect("json").into())
}

pub(crate) fn no(kind: RejectionKind, code: &str) -> Say {
    let answer: Answer<()> = Err(Rejection::new(kind, code, "a reason"));
    Say::This(serde_json::to_vec(&answer).expect("json").into())
}

pub(crate) fn not_owner() -> Say {
    no(RejectionKind::Unavailable, NOT_OWNER)
}

/// A far side that was asked `C`s. After its script it says nothing.
pub(crate) struct Far<C> {
    asked: Mutex<Vec<C>>,
    script: Mutex<VecDeque<Say>>,
}

impl<C: DeserializeOwned + Clone + Debug + Send + Sync + 'static> Far<C> {
    /// Serves a subject; the second value ends it.
    pub(crate) async fn at(
        nats: &Nats,
        subject: &str,
        script: impl IntoIterator<Item = Say>,
    ) -> (Arc<Self>, Served) {
        let script = Mutex::new(script.into_iter().collect());
        let far = Arc::new(Self { asked: Mutex::default(), script });
        let served = nats.serve(subject, "far", far.clone(), 100).await.expect("it is served");
        (far, served)
    }

    pub(crate) fn asked(&self) -> Vec<C> {
        self.asked.lock().expect("lock").clone()
    }

    /// Waits until it was asked so often.
    pub(crate) async fn was_asked(&self, times: usize) {
        let asked = async {
            while self.asked.lock().expect("lock").len() < times {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, asked).await.expect("it is asked in time");
    }
}

#[async_trait]
impl<C: DeserializeOwned + Clone + Debug + Send + Sync + 'static> Handler for Far<C> {
    async fn handle(&self, body: Bytes) -> Bytes {
        let call = serde_json::from_slice(&body).expect("a call");
        self.asked.lock().expect("lock").push(call);
        let said = self.script.lock().expect("lock").pop_front();
        match said {
            Some(Say::This(answer)) => answer,
            Some(Say::Nothing) | None => std::future::pending().await,
        }
    }
}

pub(crate) fn envelope(command: Command) -> CommandEnvelope {
    CommandEnvelope::new(CommandId::new(Uuid::now_v7()), home(), "dev", command)
}

pub(crate) fn receipt(id: impl ToString) -> Receipt {
    Receipt {
        id: id.to_string(),
        version: 1,
        position: 17,
        created: true,
        at: DateTime::from_timestamp(1_790_000_000, 0).expect("a time"),
        ..Receipt::default()
    }
}

/// What one stream gives: messages, and then its end or nothing more.
pub(crate) struct Stream {
    pub(crate) messages: Vec<Say>,
    pub(crate) ends: bool,
}

/// A far side of streams: each opened one gets the next of its script.
pub(crate) struct FarStreams {
    opened: Mutex<Vec<FollowCall>>,
    script: Mutex<VecDeque<Stream>>,
}

impl FarStreams {
    pub(crate) async fn at(
        nats: &Nats,
        script: impl IntoIterator<Item = Stream>,
    ) -> (Arc<Self>, Served) {
        let script = Mutex::new(script.into_iter().collect());
        let far = Arc::new(Self { opened: Mutex::default(), script });
        let served = nats.serve_streams(FOLLOW, "far", far.clone(), 100).await;
        (far, served.expect("it is served"))
    }

    /// The cursors that streams were opened after.
    pub(crate) fn opened_after(&self) -> Vec<Option<u64>> {
        let opened = self.opened.lock().expect("lock");
        opened.iter().map(|call| call.after.map(|cursor| cursor.position)).collect()
    }
}

#[async_trait]
impl StreamHandler for FarStreams {
    async fn open(&self, body: Bytes) -> BoxStream<'static, Bytes> {
        let call = serde_json::from_slice(&body).expect("a call");
        self.opened.lock().expect("lock").push(call);
        let next = self.script.lock().expect("lock").pop_front();
        let Stream { messages, ends } = next.unwrap_or(Stream { messages: vec![], ends: true });
        let messages = stream::iter(messages).filter_map(async |said| match said {
            Say::This(message) => Some(message),
            Say::Nothing => None,
        });
        if ends { messages.boxed() } else { messages.chain(stream::pending()).boxed() }
    }
}

/// A message with the events at these positions.
pub(crate) fn events(positions: impl IntoIterator<Item = u64>) -> Say {
    ok(positions.into_iter().map(event).collect::<Vec<_>>())
}

fn event(position: u64) -> EventEnvelope {
    EventEnvelope {
        id: format!("evt_{position}"),
        position,
        cursor: Cursor { epoch: 7, position },
        aggregate_type: "run".to_owned(),
        aggregate_id: run_id().to_string(),
        sequence: position,
        event_type: "task_succeeded".to_owned(),
        event_version: 1,
        workspace_id: home().to_string(),
        dropped: false,
        payload: json!({}),
        metadata: json!({}),
        recorded_at: DateTime::from_timestamp(1_790_000_000, 0).expect("a time"),
    }
}
