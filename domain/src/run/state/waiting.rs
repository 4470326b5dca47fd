//! What runs wait with: signals that are kept, gates that are open, a pause, a place in a queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Live;
use crate::run::event::{Decision, GateAnswered, GateOpened, QueueReason, SignalReceived};
use crate::run::vars::size_of;

/// The signals that no wait has taken yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    /// Signals that have come so far: the number of the newest.
    pub received: u64,
    /// By number, so oldest first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<u64, KeptSignal>,
    /// Bytes of their payloads.
    pub bytes: usize,
}

/// A signal that waits for a wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptSignal {
    pub name: Arc<str>,
    pub payload: Arc<Value>,
    pub sent_at: DateTime<Utc>,
}

impl Signals {
    /// Whether none has come yet.
    pub const fn is_empty(&self) -> bool {
        self.received == 0
    }

    pub(in crate::run) fn receive(&mut self, signal: &SignalReceived) {
        self.received = self.received.max(signal.number);
        if signal.dropped {
            return;
        }
        self.bytes += size_of(&signal.payload);
        let kept = KeptSignal {
            name: Arc::from(signal.name.as_str()),
            payload: Arc::new(signal.payload.clone()),
            sent_at: signal.sent_at,
        };
        self.kept.insert(signal.number, kept);
    }

    pub(in crate::run) fn take(&mut self, number: u64) {
        if let Some(taken) = self.kept.remove(&number) {
            self.bytes -= size_of(&taken.payload);
        }
    }
}

impl KeptSignal {
    /// `signal` as expressions see it; also the result of the wait that takes it.
    pub fn as_value(&self) -> Value {
        json!({"name": self.name, "payload": self.payload, "sent_at": self.sent_at})
    }
}

/// An open gate. Its form and what else people see of it stand in its event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    pub title: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assignees: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    pub approvals: u32,
    /// Rejections from which on it is rejected.
    pub rejections: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
}

/// An answer to a gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub actor: String,
    pub decision: Decision,
    pub value: Arc<Value>,
    pub comment: Option<String>,
    pub at: DateTime<Utc>,
}

impl Gate {
    pub(in crate::run) fn opened(event: &GateOpened) -> Self {
        Self {
            title: event.title.clone(),
            assignees: event.assignees.clone(),
            roles: event.roles.clone(),
            approvals: event.approvals,
            rejections: event.rejections,
            not_by: event.not_by.clone(),
            deadline: event.deadline,
            answers: Vec::new(),
        }
    }

    pub(in crate::run) fn answered(&mut self, event: &GateAnswered) {
        self.answers.push(Answer {
            actor: event.actor.clone(),
            decision: event.decision,
            value: Arc::new(event.value.clone()),
            comment: event.comment.clone(),
            at: event.at,
        });
    }

    /// Answers of a kind so far.
    pub fn count(&self, decision: Decision) -> u32 {
        let answers = self.answers.iter().filter(|answer| answer.decision == decision);
        u32::try_from(answers.count()).unwrap_or(u32::MAX)
    }
}

/// A run waits for its admission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InQueue {
    pub since: DateTime<Utc>,
    pub reason: QueueReason,
}

/// A run stands still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    pub since: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// It goes on with its parent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_parent: bool,
    /// It goes on with its workflow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_workflow: bool,
}

impl Live {
    /// Since when its timers stand still, while they do. Those of a run that hasn't begun aren't
    /// armed yet.
    pub fn still_since(&self) -> Option<DateTime<Utc>> {
        let in_queue = self.in_queue.as_ref().filter(|_| self.header.fork.is_some());
        let pause = self.pause.as_ref().map(|pause| pause.since);
        in_queue.map(|in_queue| in_queue.since).or(pause)
    }

    /// Whether it changes with its workflow, which is paused or isn't.
    pub fn may_follow_workflow(&self, is_paused: bool) -> bool {
        let reason = self.in_queue.as_ref().map(|in_queue| &in_queue.reason);
        match (reason, &self.pause) {
            (Some(QueueReason::WorkflowPaused { .. }), _) => !is_paused,
            (Some(QueueReason::Concurrency { .. } | QueueReason::RateLimit { .. }), _) => is_paused,
            (None, Some(pause)) => pause.by_workflow && !is_paused,
            (None, None) => is_paused,
        }
    }
}
