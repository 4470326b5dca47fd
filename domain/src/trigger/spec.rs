//! What triggers are made of.

use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::span::Span;

/// Requests that are signed as Standard Webhooks say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSpec {
    /// Environment variables of the processes with the role `commands` that hold secrets
    /// (`whsec_…`); a signature by any of them holds. The secrets themselves are never stored.
    pub secret_envs: Vec<String>,
    /// Names of headers that the run's input may use, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
}

/// Times, by a cron pattern or at a fixed distance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// Five fields (minute, hour, day of month, month, day of week), or six with seconds first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Every so often, counted from 1970-01-01T00:00:00Z; at least a second, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// The zone of `cron`, by its IANA name; absent means UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    #[serde(default)]
    pub missed: Missed,
}

/// What becomes of times at which nobody was there to start a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Nothing.
    Skip,
    /// The latest of them starts a run.
    #[default]
    One,
    /// Each of them starts a run, the latest [`crate::limits::MISSED`] at most.
    All,
}

/// Events of runs of the same project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventSpec {
    /// The event's type, as `run_completed`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Of `event_emitted`: the name under which it was emitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only of runs of this workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Name>,
    /// Only where this holds, an expression (`${…}`) over `event`.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// Messages of a NATS JetStream stream, which isn't one of the platform's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageSpec {
    /// The stream's name.
    pub stream: String,
    /// Only messages on it, as `orders.*.created` or `orders.>`; absent means all of the stream's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Names of headers that the run's input may use, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Only where this holds, an expression (`${…}`) over `message`.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// What starts a trigger's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    Webhook(&'a WebhookSpec),
    Schedule(&'a ScheduleSpec),
    Event(&'a EventSpec),
    Message(&'a MessageSpec),
}

/// The kinds of triggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerKind {
    Webhook,
    Schedule,
    Event,
    Message,
}

impl TriggerKind {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Schedule => "schedule",
            Self::Event => "event",
            Self::Message => "message",
        }
    }
}

impl Source<'_> {
    /// The kind.
    pub const fn kind(self) -> TriggerKind {
        match self {
            Self::Webhook(_) => TriggerKind::Webhook,
            Self::Schedule(_) => TriggerKind::Schedule,
            Self::Event(_) => TriggerKind::Event,
            Self::Message(_) => TriggerKind::Message,
        }
    }
}
