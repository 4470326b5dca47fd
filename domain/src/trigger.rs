//! Triggers: what starts runs of a workflow by itself. Webhooks, schedules, and events of runs.
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
pub use spec::{EventSpec, Missed, ScheduleSpec, Source, TriggerKind, WebhookSpec};
pub use state::Trigger;

/// The aggregate type of triggers in the journal.
pub const AGGREGATE: &str = "trigger";

/// A trigger of a workflow: exactly one of `webhook`, `schedule` and `event`.
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
        match (&self.webhook, &self.schedule, &self.event) {
            (Some(webhook), None, None) => Some(Source::Webhook(webhook)),
            (None, Some(schedule), None) => Some(Source::Schedule(schedule)),
            (None, None, Some(event)) => Some(Source::Event(event)),
            _ => None,
        }
    }

    /// Whether another spec is started by the same: what one is done with, the other is done with.
    pub fn is_like(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}
