//! Events without their values: what the timeline and counts are made of, for a part of the work of
//! reading them whole.

use chassis::journal::RecordedEvent;
use domain::codec;
use domain::run::Event;
use domain::run::event::{
    Arithmetic, Carried, Extended, Fired, InstanceId, Opened, OpenedBranches, TokenId,
    TransitionIndex, Usage,
};
use protocol::Rejection;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::histories::Histories;

impl Histories<'_> {
    /// An event in which results, inputs, items and what conditions read may be left out.
    pub(crate) async fn outlined(&self, recorded: &RecordedEvent) -> Result<Event, Rejection> {
        self.have_content(std::slice::from_ref(recorded)).await?;
        match outline(recorded) {
            Some(event) => Ok(event),
            None => self.decoded_one(recorded).await,
        }
    }
}

#[derive(Deserialize)]
struct Attempt {
    token: TokenId,
    attempt: u32,
    #[serde(default)]
    usage: Usage,
    #[serde(default)]
    duration_ms: u64,
}

#[derive(Deserialize)]
struct Computed {
    token: TokenId,
}

#[derive(Deserialize)]
struct Routed {
    token: TokenId,
    #[serde(default)]
    fired: Vec<Taken>,
    #[serde(default)]
    opened: Vec<Opened>,
    #[serde(default)]
    extended: Vec<Added>,
    #[serde(default)]
    failed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Taken {
    Moved { transition: TransitionIndex, token: TokenId, node: String },
    Arrived { transition: TransitionIndex, instance: InstanceId },
}

#[derive(Deserialize)]
struct Added {
    instance: InstanceId,
    branches: OpenedBranches,
}

#[derive(Deserialize)]
struct Spawned {
    instance: InstanceId,
    index: u64,
    token: TokenId,
    count: u64,
}

#[derive(Deserialize)]
struct Joined {
    instance: InstanceId,
    token: TokenId,
    node: String,
    arithmetic: Arithmetic,
    #[serde(default)]
    rest_continues: bool,
}

/// The event, where it is one of those that are most of a run's and reads as it stands there.
fn outline(recorded: &RecordedEvent) -> Option<Event> {
    let payload = &recorded.payload;
    if recorded.event_version != 1 || !codec::is_plain(payload) {
        return None;
    }
    Some(match &*recorded.event_type {
        "task_succeeded" => {
            let Attempt { token, attempt, usage, duration_ms } = parsed(payload)?;
            let (result, writes) = (Value::Null, Map::new());
            let (undo, adopted) = (None, None);
            Event::TaskSucceeded {
                token,
                attempt,
                result,
                writes,
                usage,
                duration_ms,
                undo,
                adopted,
            }
        }
        "node_computed" => {
            let Computed { token } = parsed(payload)?;
            Event::NodeComputed { token, writes: Map::new() }
        }
        "token_routed" => {
            let Routed { token, fired, opened, extended, failed } = parsed(payload)?;
            Event::TokenRouted {
                token,
                considered: Vec::new(),
                fired: fired.into_iter().map(Fired::from).collect(),
                opened,
                extended: extended.into_iter().map(Extended::from).collect(),
                failed,
            }
        }
        "branches_spawned" => {
            let Spawned { instance, index, token, count } = parsed(payload)?;
            Event::BranchesSpawned { instance, index, token, count, items: Vec::new() }
        }
        "join_fired" => {
            let Joined { instance, token, node, arithmetic, rest_continues } = parsed(payload)?;
            Event::JoinFired {
                instance,
                token,
                node,
                arithmetic,
                writes: Map::new(),
                iteration: None,
                rest_continues,
                timed_out: false,
                completed_by: None,
            }
        }
        _ => return None,
    })
}

/// What is read of a payload. One that is damaged is told by whoever decodes all of it.
fn parsed<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Option<T> {
    serde_json::from_slice(payload).ok()
}

impl From<Taken> for Fired {
    fn from(taken: Taken) -> Self {
        match taken {
            Taken::Moved { transition, token, node } => {
                Self::Moved { transition, token, node, iteration: None }
            }
            Taken::Arrived { transition, instance } => {
                Self::Arrived { transition, instance, value: Carried::Nothing, late: false }
            }
        }
    }
}

impl From<Added> for Extended {
    fn from(Added { instance, branches }: Added) -> Self {
        Self { instance, branches, items: Vec::new() }
    }
}
