//! Triggers by messages of NATS streams: pulls them, and acknowledges each when its run has
//! started, or when it is recorded that it can't.
//!
//! A message is named by its stream, its place there and the time at which the server got it: so it
//! starts one run however often it is delivered, and another one where a stream was made anew and
//! counts from the beginning.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use chassis::bus::{Arrival, Inlet, InletOptions, Nats, NatsError};
use chrono::SecondsFormat;
use domain::ids::{RunId, TriggerId};
use domain::limits;
use domain::run::event::TriggeredBy;
use domain::trigger::{MessageSpec, Source, TriggerKind, TriggerRef};
use futures::{StreamExt, stream};
use protocol::{Rejection, RejectionKind};
use serde_json::{Map, Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::armed::{Armed, InForce};
use super::start::{Starting, failure, may_pass};
use super::{LOOK, Triggers};
use crate::store::metadata::Along;

/// Messages of one trigger whose runs are started at the same time.
const AT_ONCE: usize = 32;
/// How long a message waits whose run can't be started at the moment.
const LATER: Duration = Duration::from_secs(1);
/// The longest pause before a stream that can't be pulled from is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A trigger that is followed.
struct Followed {
    /// What it was armed by: another version or owner follows anew.
    armed: (u64, u64),
    inlet: InletOptions,
    _task: AbortOnDropHandle<()>,
}

impl Triggers {
    /// Never ends.
    pub(super) async fn follow_messages(self) {
        let mut in_force = InForce::of(TriggerKind::Message);
        let mut followed = BTreeMap::new();
        loop {
            match in_force.refresh(&self).await {
                Ok(true) => self.follow_these(&in_force, &mut followed).await,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "can't look for triggers by messages"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Begins with what is new in force, and ends what isn't any more.
    async fn follow_these(
        &self,
        in_force: &InForce,
        followed: &mut BTreeMap<TriggerRef, Followed>,
    ) {
        let Some(nats) = &self.nats else {
            if !in_force.armed.is_empty() {
                let triggers = in_force.armed.len();
                tracing::warn!(triggers, "triggers by messages need NATS, and start nothing here");
            }
            return;
        };
        let mut before = std::mem::take(followed);
        for (trigger, armed) in &in_force.armed {
            let Some(inlet) = inlet_of(armed) else { continue };
            let of = (armed.version(), armed.epoch);
            if let Some(one) = before.remove(trigger) {
                if one.armed == of {
                    followed.insert(trigger.clone(), one);
                    continue;
                }
                if one.inlet != inlet {
                    forget(nats, &one.inlet).await;
                }
            }
            let follow = self.clone().follow_stream(nats.clone(), armed.clone(), inlet.clone());
            let _task = AbortOnDropHandle::new(tokio::spawn(follow));
            followed.insert(trigger.clone(), Followed { armed: of, inlet, _task });
        }
        for (trigger, one) in before {
            // With its shard it has gone to another coordinator, which goes on with the consumer.
            if in_force.owns(trigger.workflow_id) {
                forget(nats, &one.inlet).await;
            }
        }
    }

    /// Never ends.
    async fn follow_stream(self, nats: Nats, armed: Armed, options: InletOptions) {
        let mut pause = LOOK;
        loop {
            let Err(error) = match nats.inlet(&options).await {
                Ok(inlet) => self.take_messages(&armed, inlet, &mut pause).await,
                Err(error) => Err(error),
            };
            let (workflow_id, name) = (armed.trigger.workflow_id, &armed.trigger.name);
            let stream = &options.stream;
            tracing::warn!(%workflow_id, %name, stream, %error, "can't follow a stream for now");
            metrics::counter!("wonder_trigger_stream_failures_total").increment(1);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Starts the runs of messages as they come. Ends with a failure of the stream.
    async fn take_messages(
        &self,
        armed: &Armed,
        mut inlet: Inlet,
        pause: &mut Duration,
    ) -> Result<Infallible, NatsError> {
        loop {
            let arrived = inlet.pull().await?;
            *pause = LOOK;
            stream::iter(arrived)
                .for_each_concurrent(AT_ONCE, async |message| {
                    match self.come_to_message(armed, &message).await {
                        Ok(()) => message.ack().await,
                        Err(error) => {
                            tracing::debug!(%error, "a message has to wait");
                            message.later(LATER).await;
                        }
                    }
                })
                .await;
        }
    }

    /// Starts the run of a message, where the trigger's condition holds. A refusal that stands is
    /// recorded, and the message is done with.
    async fn come_to_message(&self, armed: &Armed, message: &Arrival) -> Result<(), Rejection> {
        let Some(Source::Message(spec)) = armed.compiled.spec.source() else { return Ok(()) };
        let at = message.published;
        let time = at.to_rfc3339_opts(SecondsFormat::Nanos, true);
        let key = format!("{}/{}/{time}", spec.stream, message.sequence);
        match self.start_by(armed, spec, message, &key).await {
            Err(refused) if !may_pass(&refused) => {
                let failed = failure(armed.trigger.clone(), key, at, &refused, None);
                self.record_told(armed.workspace_id, failed).await
            }
            done => done,
        }
    }

    async fn start_by(
        &self,
        armed: &Armed,
        spec: &MessageSpec,
        message: &Arrival,
        key: &str,
    ) -> Result<(), Rejection> {
        let view = view(spec, message)?;
        let wants = armed.compiled.wants(&view).map_err(|error| {
            let message = format!("where can't be evaluated: {}", error.message);
            Rejection::new(RejectionKind::Invalid, "trigger_condition", message)
        });
        if !wants? {
            return Ok(());
        }
        let Armed { trigger, workspace_id, compiled, .. } = armed;
        let run_id = RunId::triggered_beside(trigger.workflow_id, &trigger.name, key);
        let by = TriggeredBy {
            workflow_id: trigger.workflow_id,
            name: trigger.name.clone(),
            kind: TriggerKind::Message,
            at: message.published,
            key: key.to_owned(),
            depth: 0,
        };
        let more = Map::from_iter([("message".to_owned(), view)]);
        let along = Along { traceparent: header(message, "traceparent"), origin: None };
        let starting =
            Starting { workspace_id: *workspace_id, run_id, trigger: compiled, by, more, along };
        self.start(starting).await.map(drop)
    }
}

/// What is pulled for a trigger. The consumer's name tells the trigger, what it asks for and since
/// when: a trigger that is changed, or enabled again, has another one.
fn inlet_of(armed: &Armed) -> Option<InletOptions> {
    let Some(Source::Message(spec)) = armed.compiled.spec.source() else { return None };
    let id = TriggerId::of(armed.trigger.workflow_id, &armed.trigger.name);
    let since = armed.since();
    Some(InletOptions {
        stream: spec.stream.clone(),
        durable: format!("wonder-{id}-{}", since.timestamp_micros()),
        subject: spec.subject.clone(),
        since,
        at_once: AT_ONCE,
    })
}

/// A consumer that isn't deleted keeps its place in the stream, and no more.
async fn forget(nats: &Nats, inlet: &InletOptions) {
    if let Err(error) = nats.forget_inlet(&inlet.stream, &inlet.durable).await {
        let InletOptions { stream, durable, .. } = inlet;
        tracing::warn!(stream, durable, %error, "a consumer can't be deleted");
    }
}

/// A message as conditions and mappings see it.
fn view(spec: &MessageSpec, message: &Arrival) -> Result<Value, Rejection> {
    let refused =
        |code, message: String| Err(Rejection::new(RejectionKind::Invalid, code, message));
    let bytes = message.body.len();
    if bytes > limits::MESSAGE_BYTES {
        let most = limits::MESSAGE_BYTES;
        let message = format!("the message has {bytes} bytes, and may have {most}");
        return refused("message_too_large", message);
    }
    // JSON, or else a text.
    let body = match serde_json::from_slice::<Value>(&message.body) {
        Ok(body) => body,
        Err(_) => match std::str::from_utf8(&message.body) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => {
                let message = "the message is neither json nor a text in utf-8";
                return refused("invalid_message", message.to_owned());
            }
        },
    };
    let mut headers = Map::new();
    for name in &spec.headers {
        if let Some(value) = header(message, name) {
            headers.insert(name.clone(), value.into());
        }
    }
    Ok(json!({
        "stream": spec.stream,
        "sequence": message.sequence,
        "subject": message.subject,
        "published_at": message.published,
        "headers": headers,
        "body": body,
    }))
}

/// The value of a header, however its name is spelt.
fn header<'a>(message: &'a Arrival, name: &str) -> Option<&'a str> {
    let named = message.headers.iter().find(|(one, _)| one.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str())
}
