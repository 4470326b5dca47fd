//! What events tell metrics: of each, the few members that count.

use std::collections::BTreeMap;
use std::sync::Arc;

use chassis::journal::{Journal, RecordedEvent};
use chrono::{DateTime, Utc};
use domain::codec;
use domain::resource::Kind;
use domain::run::Usage;
use domain::run::event::{ForkedFrom, Pin};
use protocol::event::{is_quiet, is_shared};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::open::{Branches, Facts};
use crate::payload::Blobs;
use crate::projection::FoldError;

/// Characters of a model's name that are kept.
const MODEL_CHARS: usize = 128;

/// An event, as far as it counts.
pub(super) struct Told<'a> {
    pub(super) run_id: &'a str,
    pub(super) workspace_id: &'a Arc<str>,
    pub(super) position: u64,
    /// When it was recorded, in microseconds.
    pub(super) at: i64,
    /// Whether it happened to the run that its run was forked from, and was counted there.
    pub(super) is_shared: bool,
    pub(super) what: What<'a>,
}

pub(super) enum What<'a> {
    Started {
        start: Arc<str>,
        facts: Box<Facts>,
    },
    Forked {
        definition: Option<Definition>,
        pins: Vec<Pin>,
    },
    Admitted,
    Attempted(Box<Attempted<'a>>),
    RetryStarted {
        token: u64,
    },
    /// A node has ended without a worker.
    Ended {
        token: u64,
        failed: bool,
    },
    Routed(Box<Routed>),
    Spawned {
        instance: u64,
        index: u64,
        token: u64,
        count: u64,
    },
    Joined {
        instance: u64,
        token: u64,
        node: Arc<str>,
        /// Further branches may still be made.
        rest_continues: bool,
    },
    GroupGone {
        instance: u64,
    },
    MutexTaken {
        token: u64,
    },
    UndoStarted {
        token: u64,
        node: String,
    },
    Emitted(Box<Emitted>),
    RunEnded {
        status: &'static str,
    },
}

/// An attempt that has ended.
#[derive(Deserialize)]
pub(super) struct Attempted<'a> {
    pub(super) token: u64,
    #[serde(default)]
    retry_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub(super) usage: Usage,
    #[serde(default)]
    pub(super) duration_ms: u64,
    #[serde(default)]
    adopted: Option<u64>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    /// `succeeded`, `failed`, or `retried` where another one follows.
    #[serde(skip)]
    pub(super) status: &'static str,
    #[serde(skip)]
    pub(super) is_undo: bool,
}

impl Attempted<'_> {
    /// Whether no call was made.
    pub(super) const fn is_adopted(&self) -> bool {
        self.adopted.is_some()
    }

    /// The model that answered, where the action asks one: its result says so.
    pub(super) fn model(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct OfModel {
            model: String,
        }
        let result: OfModel = serde_json::from_str(self.result?.get()).ok()?;
        Some(result.model.chars().take(MODEL_CHARS).collect())
    }
}

/// A token that left its node, and what it made.
#[derive(Deserialize)]
pub(super) struct Routed {
    pub(super) token: u64,
    #[serde(default)]
    fired: Vec<Fired>,
    #[serde(default)]
    opened: Vec<Opened>,
    #[serde(default)]
    extended: Vec<Extended>,
}

#[derive(Deserialize)]
struct Fired {
    #[serde(default)]
    moved: Option<Moved>,
}

#[derive(Deserialize)]
struct Moved {
    token: u64,
    node: Arc<str>,
}

#[derive(Deserialize)]
struct Opened {
    instance: u64,
    branches: Vec<OfNode>,
}

#[derive(Deserialize)]
struct Extended {
    instance: u64,
    branches: OfNode,
}

#[derive(Deserialize)]
struct OfNode {
    node: Arc<str>,
    count: u64,
}

impl Routed {
    /// New tokens and their nodes.
    pub(super) fn moved(&self) -> impl Iterator<Item = (u64, &Arc<str>)> {
        self.fired.iter().filter_map(|fired| fired.moved.as_ref()).map(|to| (to.token, &to.node))
    }

    /// Group instances that it opened.
    pub(super) fn opened(&self) -> impl Iterator<Item = (u64, Branches)> {
        self.opened.iter().map(|one| {
            let branches = one.branches.iter().map(|of| (Arc::clone(&of.node), of.count));
            (one.instance, branches.collect())
        })
    }

    /// Branches that it added to others.
    pub(super) fn extended(&self) -> impl Iterator<Item = (u64, &Arc<str>, u64)> {
        self.extended.iter().map(|one| (one.instance, &one.branches.node, one.branches.count))
    }
}

/// A value of a metric that a definition emits.
#[derive(Deserialize)]
pub(super) struct Emitted {
    pub(super) token: u64,
    pub(super) name: Arc<str>,
    pub(super) value: f64,
    #[serde(default)]
    pub(super) dimensions: BTreeMap<String, String>,
}

/// What is known of a definition by an event.
#[derive(Deserialize)]
pub(super) struct Definition {
    pub(super) id: String,
    pub(super) name: Arc<str>,
    pub(super) version: u64,
}

#[derive(Deserialize)]
struct Started {
    project_id: Arc<str>,
    #[serde(default)]
    workflow_id: Option<Arc<str>>,
    definition: Definition,
    #[serde(default)]
    pins: Vec<Pin>,
    start: Arc<str>,
    started_at: DateTime<Utc>,
    #[serde(default)]
    admission: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    forked_from: Option<ForkedFrom>,
}

#[derive(Deserialize)]
struct Forked {
    #[serde(default)]
    definition: Option<Definition>,
    #[serde(default)]
    pins: Vec<Pin>,
}

#[derive(Deserialize)]
struct OfToken {
    token: u64,
    #[serde(default)]
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Closed {
    token: u64,
    outcome: String,
    #[serde(default)]
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct OfInstance {
    instance: u64,
}

#[derive(Deserialize)]
struct Spawned {
    instance: u64,
    index: u64,
    token: u64,
    count: u64,
}

#[derive(Deserialize)]
struct Joined {
    instance: u64,
    token: u64,
    node: Arc<str>,
    #[serde(default)]
    rest_continues: bool,
}

#[derive(Deserialize)]
struct Undoing {
    token: u64,
    node: String,
}

/// Actions are all that a run's references tell of its nodes.
pub(super) fn of_actions(pins: Vec<Pin>) -> Vec<Pin> {
    pins.into_iter().filter(|pin| pin.kind == Kind::Action).collect()
}

/// Reads what events of runs tell.
pub(super) async fn read<'a>(
    journal: &dyn Journal,
    events: &[&'a RecordedEvent],
) -> Result<Vec<Told<'a>>, FoldError> {
    // Of the other types no member that counts is ever so large that it is stored apart.
    let may_be_apart = |event: &&&RecordedEvent| {
        matches!(&*event.event_type, "run_started" | "run_forked" | "token_routed")
    };
    let stored = events.iter().filter(may_be_apart).map(|event| event.payload.as_ref());
    let blobs = Blobs::fetch(journal, stored).await?;
    let mut told = Vec::with_capacity(events.len());
    for event in events {
        let what = what(event, &blobs)
            .map_err(|reason| FoldError::Event { position: event.position, reason })?;
        let Some(what) = what else { continue };
        told.push(Told {
            run_id: &event.aggregate_id,
            workspace_id: &event.workspace_id,
            position: event.position,
            at: event.recorded_at.timestamp_micros(),
            is_shared: is_shared(&event.metadata, event.sequence)
                || *event.event_type == *"metric_emitted" && is_quiet(&event.metadata),
            what,
        });
    }
    Ok(told)
}

fn what<'a>(event: &'a RecordedEvent, blobs: &Blobs) -> Result<Option<What<'a>>, String> {
    let payload = &event.payload;
    Ok(Some(match &*event.event_type {
        "run_started" => {
            let started: Started = whole(payload, blobs)?;
            let began_at = started.forked_from.map_or(started.started_at, |fork| fork.at);
            let facts = Facts {
                project_id: started.project_id,
                workflow_id: started.workflow_id,
                definition_id: started.definition.id,
                definition: started.definition.name,
                version: started.definition.version,
                pins: of_actions(started.pins),
                began_micros: began_at.timestamp_micros(),
                waits_for_admission: started.admission.is_some(),
                is_forked: false,
            };
            What::Started { start: started.start, facts: Box::new(facts) }
        }
        "run_forked" => {
            let Forked { definition, pins } = whole(payload, blobs)?;
            What::Forked { definition, pins }
        }
        "run_admitted" => What::Admitted,
        "task_succeeded" => attempted(payload, Some("succeeded"), false)?,
        "undo_succeeded" => attempted(payload, Some("succeeded"), true)?,
        "task_failed" => attempted(payload, None, false)?,
        "undo_failed" => attempted(payload, None, true)?,
        "retry_started" => What::RetryStarted { token: part::<OfToken>(payload)?.token },
        "node_computed" | "wait_ended" | "event_emitted" => {
            What::Ended { token: part::<OfToken>(payload)?.token, failed: false }
        }
        "node_failed" => What::Ended { token: part::<OfToken>(payload)?.token, failed: true },
        "child_ended" => {
            let OfToken { token, error } = part(payload)?;
            What::Ended { token, failed: error.is_some() }
        }
        "gate_closed" => {
            let Closed { token, outcome, error } = part(payload)?;
            if outcome == "cancelled" {
                return Ok(None);
            }
            What::Ended { token, failed: error.is_some() }
        }
        "token_routed" => What::Routed(Box::new(whole(payload, blobs)?)),
        "branches_spawned" => {
            let Spawned { instance, index, token, count } = part(payload)?;
            What::Spawned { instance, index, token, count }
        }
        "join_fired" => {
            let Joined { instance, token, node, rest_continues } = part(payload)?;
            What::Joined { instance, token, node, rest_continues }
        }
        "join_failed" | "group_ended" => {
            What::GroupGone { instance: part::<OfInstance>(payload)?.instance }
        }
        "mutex_taken" => What::MutexTaken { token: part::<OfToken>(payload)?.token },
        "undo_started" => {
            let Undoing { token, node } = part(payload)?;
            What::UndoStarted { token, node }
        }
        "metric_emitted" => What::Emitted(Box::new(part(payload)?)),
        "run_completed" => What::RunEnded { status: "completed" },
        "run_failed" => What::RunEnded { status: "failed" },
        "run_cancelled" => What::RunEnded { status: "cancelled" },
        "run_timed_out" => What::RunEnded { status: "timed_out" },
        _ => return Ok(None),
    }))
}

fn attempted<'a>(
    payload: &'a [u8],
    status: Option<&'static str>,
    is_undo: bool,
) -> Result<What<'a>, String> {
    let mut attempted: Attempted<'a> = part(payload)?;
    let failed = if attempted.retry_at.is_some() { "retried" } else { "failed" };
    attempted.status = status.unwrap_or(failed);
    attempted.is_undo = is_undo;
    Ok(What::Attempted(Box::new(attempted)))
}

/// Members that are never stored apart.
fn part<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

/// Members of an event whose values may be stored apart.
fn whole<T: DeserializeOwned>(payload: &[u8], blobs: &Blobs) -> Result<T, String> {
    if blobs.is_empty() || codec::refs(payload).is_empty() {
        return part(payload);
    }
    let value =
        codec::shown(payload, &|hash| blobs.get(hash)).map_err(|error| error.to_string())?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}
