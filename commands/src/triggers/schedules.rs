//! Schedules: starts the runs of the times that are due, and waits for the next.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use domain::ids::RunId;
use domain::run::event::TriggeredBy;
use domain::trigger::{Event, Source, TriggerKind, due};
use futures::{FutureExt, StreamExt, stream};
use protocol::Rejection;
use serde_json::{Map, json};

use super::armed::{Armed, InForce};
use super::start::{Starting, failure, may_pass, run_of};
use super::{LOOK, Triggers};
use crate::store::metadata::Along;

/// Triggers whose times are come to at the same time.
const AT_ONCE: usize = 32;
/// The least that is waited between two looks.
const LEAST: Duration = Duration::from_millis(10);

impl Triggers {
    /// Never ends.
    pub(super) async fn follow_schedules(self) {
        let mut in_force = InForce::of(TriggerKind::Schedule);
        loop {
            let wait = match in_force.refresh(&self).await {
                Ok(_) => self.come_to(&mut in_force).await,
                Err(error) => {
                    tracing::warn!(%error, "can't look for schedules, trying again");
                    LOOK
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Does what is due; says how long nothing will be.
    async fn come_to(&self, in_force: &mut InForce) -> Duration {
        let armed = in_force.armed.values_mut();
        let each: Vec<_> = armed.map(|armed| self.come_to_one(armed).boxed()).collect();
        let done: Vec<bool> = stream::iter(each).buffer_unordered(AT_ONCE).collect().await;
        let all_done = done.into_iter().all(|done| done);
        let now = self.clock.now();
        let next = in_force.armed.values().filter_map(next).min();
        match next.filter(|_| all_done) {
            Some(next) => (next - now).to_std().unwrap_or_default().clamp(LEAST, LOOK),
            None => LOOK,
        }
    }

    async fn come_to_one(&self, armed: &mut Armed) -> bool {
        let done = self.fire_due(armed).await;
        if let Err(error) = &done {
            let (workflow_id, name) = (armed.trigger.workflow_id, &armed.trigger.name);
            tracing::warn!(%workflow_id, %name, %error, "a schedule can't be come to yet");
        }
        done.is_ok()
    }

    async fn fire_due(&self, armed: &mut Armed) -> Result<(), Rejection> {
        let Some(schedule) = &armed.compiled.schedule else { return Ok(()) };
        let Some(Source::Schedule(spec)) = armed.compiled.spec.source() else { return Ok(()) };
        let due = due(schedule, spec.missed, armed.done_at(), self.clock.now());
        if let Some((first, last)) = due.missed {
            let trigger = armed.trigger.clone();
            self.write(armed, Event::TriggerMissed { trigger, first, last }).await?;
        }
        for at in due.start {
            let event = self.fire_at(armed, at).await?;
            self.write(armed, event).await?;
        }
        Ok(())
    }

    /// Starts the run of a scheduled time. A refusal that stands is what came of it.
    async fn fire_at(&self, armed: &Armed, at: DateTime<Utc>) -> Result<Event, Rejection> {
        let trigger = armed.trigger.clone();
        let key = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let run_id = RunId::triggered_beside(trigger.workflow_id, &trigger.name, &key);
        let by = TriggeredBy {
            workflow_id: trigger.workflow_id,
            name: trigger.name.clone(),
            kind: TriggerKind::Schedule,
            at,
            key: key.clone(),
            depth: 0,
        };
        let more = Map::from_iter([("scheduled_at".to_owned(), json!(key))]);
        let (workspace_id, compiled) = (armed.workspace_id, &armed.compiled);
        let starting =
            Starting { workspace_id, run_id, trigger: compiled, by, more, along: Along::default() };
        match self.start(starting).await {
            Ok(receipt) => {
                let run_id = run_of(&receipt)?;
                Ok(Event::TriggerFired { trigger, key, at, run_id, position: None })
            }
            Err(refused) if may_pass(&refused) => Err(refused),
            Err(refused) => Ok(failure(trigger, key, at, &refused, None)),
        }
    }

    async fn write(&self, armed: &mut Armed, event: Event) -> Result<(), Rejection> {
        let Armed { trigger, workspace_id, epoch, log, .. } = armed;
        self.record(log, trigger, *workspace_id, Some(*epoch), &[event]).await
    }
}

fn next(armed: &Armed) -> Option<DateTime<Utc>> {
    armed.compiled.schedule.as_ref()?.next_after(armed.done_at())
}
