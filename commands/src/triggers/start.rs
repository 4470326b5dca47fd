//! Starts the run of what has happened, once.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::ids::{CommandId, InvalidId, RunId, WorkspaceId};
use domain::run::event::{RunStarted, TriggeredBy};
use domain::trigger::{CompiledTrigger, Event, Occurrence, Start, TriggerRef};
use protocol::command::StartRun;
use protocol::{Command, CommandEnvelope, Receipt, Rejection, RejectionKind, RunTarget};
use serde_json::{Map, Value, json};

use super::{ACTOR, Triggers};
use crate::coordinator::{Cause, RUN_ALREADY_STARTED, unavailable};
use crate::store::metadata::{self, Along};

/// How often, and after how long each time, it is looked for a run that is being committed.
const LOOKS: u32 = 50;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What is to be started.
pub(super) struct Starting<'a> {
    pub(super) workspace_id: WorkspaceId,
    pub(super) run_id: RunId,
    pub(super) trigger: &'a CompiledTrigger,
    pub(super) by: TriggeredBy,
    /// What is known beside the trigger's name, its time and the key.
    pub(super) more: Map<String, Value>,
    pub(super) along: Along<'a>,
}

/// Whether a refusal is about the moment, and not about what was asked.
pub(super) const fn may_pass(rejection: &Rejection) -> bool {
    matches!(rejection.kind, RejectionKind::Unavailable | RejectionKind::Overloaded)
}

/// The run of a receipt.
pub(super) fn run_of(receipt: &Receipt) -> Result<RunId, Rejection> {
    let unreadable =
        |error: InvalidId| Rejection::new(RejectionKind::Internal, "internal", error.to_string());
    receipt.id.parse().map_err(unreadable)
}

/// That a run could not be started, as the trigger's event. The message is cut at 1,000 characters.
pub(super) fn failure(
    trigger: TriggerRef,
    key: String,
    at: DateTime<Utc>,
    refused: &Rejection,
    position: Option<u64>,
) -> Event {
    let message = refused.message.chars().take(1_000).collect();
    Event::TriggerFailed { trigger, key, at, code: refused.code.clone(), message, position }
}

impl Triggers {
    /// Starts a run, or answers for the one that was started before. It is another one than that of
    /// the occurrence where it takes turns with others.
    pub(super) async fn start(&self, starting: Starting<'_>) -> Result<Receipt, Rejection> {
        let kind = starting.by.kind.as_str();
        let mut run_id = starting.run_id;
        match self.try_start(starting, &mut run_id).await {
            Ok(receipt) => {
                metrics::counter!("wonder_trigger_runs_total", "kind" => kind).increment(1);
                Ok(receipt)
            }
            Err(refused) if may_pass(&refused) => Err(refused),
            Err(refused) if refused.code == RUN_ALREADY_STARTED => self.being_started(run_id).await,
            // What is there stays there, whatever has become of its workflow meanwhile.
            Err(refused) => match self.started(run_id).await? {
                Some(receipt) => Ok(receipt),
                None => {
                    metrics::counter!("wonder_trigger_failures_total", "kind" => kind).increment(1);
                    Err(refused)
                }
            },
        }
    }

    /// The receipt of a run that somebody else starts at the same time.
    async fn being_started(&self, run_id: RunId) -> Result<Receipt, Rejection> {
        for _ in 0..LOOKS {
            if let Some(receipt) = self.started(run_id).await? {
                return Ok(receipt);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(unavailable("the run is being started, try again"))
    }

    async fn try_start(
        &self,
        starting: Starting<'_>,
        run_id: &mut RunId,
    ) -> Result<Receipt, Rejection> {
        let Starting { workspace_id, trigger, by, more, along, .. } = starting;
        let own_trace = metadata::own_trace(*run_id);
        let along = Along { traceparent: along.traceparent.or(Some(&own_trace)), ..along };
        let workflow = self.resolver.workflow(workspace_id, by.workflow_id).await?;
        self.resolver.project_in_use(workspace_id, workflow.project_id).await?;
        let (id, version) = (workflow.definition_id, workflow.definition_version);
        let definition = self.resolver.definition_by_id(id, version).await?;
        let prepared =
            self.preparations.get(workspace_id, id, definition.version, &definition.spec).await?;
        let occurrence = occurrence(&workflow.name, &by, more);
        let start = trigger.start(occurrence).map_err(|error| {
            let message = format!("the trigger's input can't be evaluated: {}", error.message);
            Rejection::new(RejectionKind::Invalid, "trigger_input", message)
        })?;
        let command_id = CommandId::new(run_id.bits());
        let now = self.clock.now();
        let admission = prepared.admission(&start.input, start.labels.len(), now)?;
        if let Some(admission) = &admission {
            *run_id = prepared.run_in_queue(command_id, admission);
            if let Some(everywhere) = &self.everywhere {
                return everywhere
                    .execute(sent_on(command_id, workspace_id, start, by, along))
                    .await;
            }
        }
        let standing = self.resolver.standing(by.workflow_id).await?;
        let metadata = metadata::by(ACTOR, command_id, along);
        let started = RunStarted {
            workflow_id: Some(by.workflow_id),
            labels: start.labels,
            trigger: Some(by),
            admission,
            ..prepared.started(*run_id, start.input, now, ACTOR)
        };
        let cause = Cause { workspace_id, metadata, remembered: None };
        self.coordinator.start_run(*run_id, started, standing, &prepared, cause).await
    }

    /// The receipt of a run's start, where it has started.
    pub(crate) async fn started(&self, run_id: RunId) -> Result<Option<Receipt>, Rejection> {
        let id = run_id.to_string();
        let away = |_| unavailable("the journal is unavailable, try again");
        let first = self.journal.load("run", &id, 0, 2).await.map_err(away)?;
        let queued = first.get(1).is_some_and(|second| &*second.event_type == "run_queued");
        Ok(first.first().map(|first| Receipt {
            id,
            version: first.sequence,
            position: first.position,
            created: true,
            at: first.recorded_at,
            queued,
            ..Receipt::default()
        }))
    }
}

/// The start of a run that takes turns with others, wherever they are.
fn sent_on(
    id: CommandId,
    workspace_id: WorkspaceId,
    start: Start,
    by: TriggeredBy,
    along: Along<'_>,
) -> CommandEnvelope {
    let Start { input, labels } = start;
    let target = RunTarget::Workflow(by.workflow_id);
    let start = StartRun { target, input, labels, home: None, trigger: Some(by) };
    CommandEnvelope {
        origin: along.origin.cloned().map(Box::new),
        traceparent: along.traceparent.map(str::to_owned),
        ..CommandEnvelope::new(id, workspace_id, ACTOR, Command::StartRun(Box::new(start)))
    }
}

/// What the mapping of the input sees as `trigger`.
fn occurrence(
    workflow: &domain::ids::Name,
    by: &TriggeredBy,
    more: Map<String, Value>,
) -> Occurrence {
    let known = json!({
        "workflow": workflow,
        "workflow_id": by.workflow_id,
        "name": by.name,
        "kind": by.kind,
        "at": by.at,
        "key": by.key,
    });
    let mut members = match known {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    members.extend(more);
    Occurrence(members)
}
