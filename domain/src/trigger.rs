//! Triggers: what starts runs of a workflow by itself. Webhooks, schedules, events of runs, and
//! messages of streams outside.
//!
//! What a trigger is stands in its workflow's spec. What it came to (which times and events it is
//! done with, and what it couldn't start) is an aggregate of its own, since its workflow's
//! revisions are people's. Which run a trigger starts follows from what happened, so that a
//! repetition meets the first one's events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::Name;

pub mod compiled;
pub mod due;
pub mod event;
pub mod schedule;
pub mod state;
pub mod validate;
pub mod webhook;

mod spec;

#[cfg(test)]
mod tests;

pub use compiled::{CompiledTrigger, Occurrence, Start};
pub use due::{Due, due};
pub use event::{Event, TriggerRef};
pub use schedule::{InvalidSchedule, Schedule};
pub use spec::{EventSpec, MessageSpec, Missed, ScheduleSpec, Source, TriggerKind, WebhookSpec};
pub use state::Trigger;

/// The aggregate type of triggers in the journal.
pub const AGGREGATE: &str = "trigger";

/// A trigger of a workflow: exactly one of `webhook`, `schedule`, `event` and `message`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerSpec {
    /// Whether it starts runs.
    #[serde(default = "enabled")]
    pub enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageSpec>,
    /// The run's input, with `${…}` over `trigger`; absent means `{}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// The run's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The triggers of a workflow, by name.
pub type Triggers = BTreeMap<Name, TriggerSpec>;

const fn enabled() -> bool {
    true
}

impl TriggerSpec {
    /// What starts runs. `None` where the spec names none, or more than one.
    pub const fn source(&self) -> Option<Source<'_>> {
        match (&self.webhook, &self.schedule, &self.event, &self.message) {
            (Some(webhook), None, None, None) => Some(Source::Webhook(webhook)),
            (None, Some(schedule), None, None) => Some(Source::Schedule(schedule)),
            (None, None, Some(event), None) => Some(Source::Event(event)),
            (None, None, None, Some(message)) => Some(Source::Message(message)),
            _ => None,
        }
    }

    /// Whether another spec is started by the same: what one is done with, the other is done with.
    pub fn is_like(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}
