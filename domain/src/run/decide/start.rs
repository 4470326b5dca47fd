//! How a run begins. One that may not yet stands in a queue: who may is decided over all runs of a
//! key (see [`crate::queue`]); here it is recorded.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Decider;
use crate::codec::{self, EncodeError};
use crate::definition::Plan;
use crate::ids::RunId;
use crate::limits;
use crate::run::error::Refusal;
use crate::run::event::{Admission, Dropped, Event, QueueReason, RunStarted};
use crate::run::vars::size_of;

impl Decider<'_> {
    pub(super) fn start(&mut self, started: &RunStarted) -> Result<(), Refusal> {
        let timeout = self.plan.timeout;
        self.begin(started, timeout.map(|timeout| self.now + timeout.as_duration()))?;
        if started.admission.is_some() {
            self.emit(Event::RunAdmitted { deadline: None, until: None });
        }
        self.fresh.push(1);
        Ok(())
    }

    fn begin(
        &mut self,
        started: &RunStarted,
        deadline: Option<DateTime<Utc>>,
    ) -> Result<(), Refusal> {
        let input = check_start(self.plan, &started.input, started.labels.len())?;
        self.emit(Event::RunStarted(Box::new(RunStarted {
            start: self.plan.start.to_string(),
            input,
            started_at: self.now,
            deadline,
            ..started.clone()
        })));
        Ok(())
    }

    /// Starts a run that has to wait.
    pub(super) fn start_in_queue(
        &mut self,
        started: &RunStarted,
        reason: &QueueReason,
    ) -> Result<(), Refusal> {
        self.begin(started, None)?;
        self.emit(Event::RunQueued(reason.clone()));
        Ok(())
    }

    /// Records a start that ends at once, since as many runs go on, or have begun, as may.
    pub(super) fn start_dropped(
        &mut self,
        started: &RunStarted,
        over: Dropped,
    ) -> Result<(), Refusal> {
        self.begin(started, None)?;
        let reason = started.admission.as_ref().map(|one| why_dropped(one, over));
        let reason = reason.unwrap_or_default();
        let code = Some(over.code().to_owned());
        self.emit(Event::RunCancelled { reason: Some(reason), code });
        Ok(())
    }

    /// The reason why it waits has become another one, or is told of a fork for the first time.
    pub(super) fn stay_in_queue(&mut self, reason: &QueueReason) {
        let Some(live) = self.live() else { return };
        let is_new = live.header.fork.is_some_and(|fork| fork.sequence + 1 == live.events);
        if live.in_queue.as_ref().is_some_and(|known| is_new || known.reason != *reason) {
            self.emit(Event::RunQueued(reason.clone()));
        }
    }

    /// The run may begin, or a fork go on. One that isn't in a queue goes on as it does.
    pub(super) fn admit(&mut self, until: Option<DateTime<Utc>>) {
        let Some(live) = self.live().filter(|live| live.in_queue.is_some()) else { return };
        if live.header.fork.is_some() {
            self.emit(Event::RunAdmitted { deadline: None, until });
            return self.take_up();
        }
        let deadline = self.plan.timeout.map(|timeout| self.after(timeout));
        self.emit(Event::RunAdmitted { deadline, until });
        self.fresh.push(1);
    }

    /// A newer run takes its place.
    pub(super) fn displace(&mut self, by: RunId) {
        let reason = format!("the run {by} with the same concurrency key takes its place");
        let code = Some("concurrency_replaced".to_owned());
        self.emit(Event::RunCancelled { reason: Some(reason), code });
    }
}

fn why_dropped(admission: &Admission, over: Dropped) -> String {
    match (over, &admission.rate) {
        (Dropped::RateLimit, Some(rate)) => {
            let (limit, period) = (rate.limit, rate.period);
            format!("as many runs with its key as may have begun already: {limit} in {period}")
        }
        _ => {
            let limit = admission.limit.unwrap_or_default();
            format!("as many runs with its concurrency key as may go on already: {limit}")
        }
    }
}

/// Checks what a run would be started with, without starting it. Gives the input as the run's
/// first event holds it.
///
/// # Errors
/// The refusals of [`Command::Start`] that don't depend on the run.
pub fn check_start(plan: &Plan, input: &Value, labels: usize) -> Result<Value, Refusal> {
    let bytes = size_of(input);
    if bytes > limits::INPUT_BYTES {
        return Err(Refusal::InputTooLarge { bytes, limit: limits::INPUT_BYTES });
    }
    let mut input = input.clone();
    codec::normalise(&mut input).map_err(|error| match error {
        EncodeError::TooDeep => Refusal::InputTooDeep { limit: limits::JSON_DEPTH },
        other => Refusal::InputNotStorable(other),
    })?;
    if labels > limits::LABELS {
        return Err(Refusal::TooManyLabels { count: labels, limit: limits::LABELS });
    }
    let problems = plan.input_problems(&input);
    if problems.is_empty() { Ok(input) } else { Err(Refusal::InvalidInput { problems }) }
}
