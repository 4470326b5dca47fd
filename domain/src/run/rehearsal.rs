//! A recorded run by another version of its definition: would it have gone another way, and where
//! first?
//!
//! The history is decided again (see [`super::replay`]) by the plan of the other version, from what
//! came from outside: outcomes are as they were recorded, also where the version would have asked
//! for something else. Only what leads somewhere parts a run: nodes, tokens, branches, joins, codes
//! of failures, the end. Other values are noted, and it goes on with them.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::event::Event;
use super::replay::{Difference, Replay};
use super::state::{Live, Phase, Run, Timer};
use super::{Command, Refusal, check_start};
use crate::definition::{Plan, Problem};

mod sameness;

pub use sameness::compared;
use sameness::{is_same_course, is_same_value};

/// Where a run parts from its history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parting {
    pub kind: PartingKind,
    /// The sequence of the event.
    pub sequence: u64,
    /// The node that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The event that stands there; absent where the history ends before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Event>,
    /// The event that is decided instead; absent where nothing is, or the version needs what the
    /// history doesn't have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Event>,
    /// What is wrong with the input, where it is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// How a run parts from its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartingKind {
    /// The way is the same; a value is another one.
    Values,
    /// It goes another way.
    Path,
    /// It would not have been started: the input is refused.
    Refused,
}

impl PartingKind {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Values => "values",
            Self::Path => "path",
            Self::Refused => "refused",
        }
    }
}

/// A run that is rehearsed, event by event.
pub struct Rehearsal<'a> {
    plan: &'a Plan,
    replay: Replay<'a>,
    /// The run as it was.
    recorded: Run,
    sequence: u64,
    /// How much later it is in the rehearsal, since something waits longer by this plan.
    later: TimeDelta,
    /// The first other value.
    values: Option<Box<Parting>>,
}

impl<'a> Rehearsal<'a> {
    /// From the first event on, by the plan of the other version.
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            replay: Replay::comparing(plan, &is_same_course),
            recorded: Run::default(),
            sequence: 0,
            later: TimeDelta::zero(),
            values: None,
        }
    }

    /// Takes the history's next event, and when it was recorded.
    ///
    /// # Errors
    /// Where the run parts from it for good. Nothing can be taken after that.
    pub fn take(&mut self, event: &Event, at: DateTime<Utc>) -> Result<(), Box<Parting>> {
        self.sequence += 1;
        if let Event::RunStarted(started) = event
            && let Err(refusal) = check_start(self.plan, &started.input, started.labels.len())
        {
            let problems = match refusal {
                Refusal::InvalidInput { problems } => problems,
                _ => Vec::new(),
            };
            let parting = self.parting(PartingKind::Refused, Some(event.clone()), None);
            return Err(Box::new(Parting { problems, ..*parting }));
        }
        if self.replay.is_between_commands() {
            if let Some(decided) = self.due_before(at) {
                return Err(self.parting(PartingKind::Path, Some(event.clone()), Some(decided)));
            }
            self.wait_for(event, at);
        }
        match self.replay.take(event, at + self.later) {
            Ok(decided) => {
                if self.values.is_none() && !is_same_value(event, &decided) {
                    let (recorded, decided) = (Some(event.clone()), Some(decided));
                    self.values = Some(self.parting(PartingKind::Values, recorded, decided));
                }
                self.recorded.evolve(event, at);
                Ok(())
            }
            Err(difference) => Err(self.parted(*difference)),
        }
    }

    /// The history ends here. Answers the first other value, if there is one.
    ///
    /// # Errors
    /// Where more is decided than it has.
    pub fn end(mut self) -> Result<Option<Box<Parting>>, Box<Parting>> {
        self.sequence += 1;
        match self.replay.end() {
            Ok(()) => Ok(self.values),
            Err(difference) => Err(self.parted(*difference)),
        }
    }

    fn parted(&self, difference: Difference) -> Box<Parting> {
        let Difference { recorded, decided, .. } = difference;
        self.parting(PartingKind::Path, recorded, decided)
    }

    fn parting(
        &self,
        kind: PartingKind,
        recorded: Option<Event>,
        decided: Option<Event>,
    ) -> Box<Parting> {
        let node = recorded.as_ref().or(decided.as_ref());
        let node = node.and_then(|event| node_of(event, &self.recorded));
        let sequence = self.sequence;
        Box::new(Parting { kind, sequence, node, recorded, decided, problems: Vec::new() })
    }

    /// What a timer of this plan leads to that the history has nothing of: it would have been due
    /// before the next event.
    fn due_before(&self, at: DateTime<Utc>) -> Option<Event> {
        let live = self.replay.run().live().filter(|live| live.pause.is_none())?;
        let now = at + self.later;
        let due = live.timers.iter().take_while(|(due, _)| *due <= now);
        let mut due = due.filter(|(_, timer)| !only_goes_on(live, *timer));
        let (due, _) = due.find(|(_, timer)| !is_due(&self.recorded, *timer, at))?;
        let decision = self.replay.run().clone().execute(self.plan, &Command::Wake, *due).ok()?;
        decision.events.into_iter().find(|event| !matches!(event, Event::RetryStarted { .. }))
    }

    /// Where a retry or a wait takes longer by this plan, it is later from now on.
    fn wait_for(&mut self, event: &Event, at: DateTime<Utc>) {
        let token = match event {
            Event::RetryStarted { token, .. } | Event::WaitEnded { token, signal: None, .. } => {
                token
            }
            _ => return,
        };
        let token = self.replay.run().live().and_then(|live| live.tokens.get(token));
        let due = match token.map(|token| &token.phase) {
            Some(Phase::BackingOff { until, .. }) => Some(*until),
            Some(Phase::Waiting { until, signal: None }) => *until,
            _ => None,
        };
        let late = due.map(|due| due - at).filter(|late| *late > self.later);
        self.later = late.unwrap_or(self.later);
    }
}

/// Whether a timer leads nowhere else when it is due earlier: a retry, or a wait for a time.
fn only_goes_on(live: &Live, timer: Timer) -> bool {
    match timer {
        Timer::Retry(_) => true,
        Timer::Wait(token) => live
            .tokens
            .get(&token)
            .is_some_and(|token| matches!(token.phase, Phase::Waiting { signal: None, .. })),
        Timer::Run | Timer::Join(_) => false,
    }
}

fn is_due(run: &Run, timer: Timer, at: DateTime<Utc>) -> bool {
    let timers = run.live().into_iter().flat_map(|live| &live.timers);
    timers.take_while(|(due, _)| *due <= at).any(|(_, due)| *due == timer)
}

/// The node that an event is about: its own, that of its token, that of its error.
pub fn node_of(event: &Event, run: &Run) -> Option<String> {
    let event = serde_json::to_value(event).ok()?;
    let text = |pointer: &str| event.pointer(pointer)?.as_str().map(str::to_owned);
    let of_token = || {
        let token = event.get("token").or_else(|| event.get("by"))?.as_u64()?;
        Some(run.live()?.tokens.get(&token)?.node.to_string())
    };
    text("/node").or_else(of_token).or_else(|| text("/error/node")).or_else(|| text("/start"))
}
