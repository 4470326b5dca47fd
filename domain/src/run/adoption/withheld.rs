//! What a fork of an experiment doesn't do: effects that aren't allowed, calls beyond its cap, and
//! waiting for people, signals and times.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Adoption, Outcome, branches_of, is_waiting};
use crate::definition::Plan;
use crate::run::Run;
use crate::run::command::{AttemptError, ChildReport, Command, EndWait, Report};
use crate::run::event::{Effect, FailureKind, GateOutcome, RunError, TokenId, Usage};
use crate::run::state::{Live, Phase, RunStatus, Timer};

/// An effect that the experiment doesn't allow, and no outcome of the node was recorded.
pub const STUBBED: &str = "stubbed";
/// The next call might cost more than the experiment may.
pub const COST_CAP: &str = "cost_cap";

/// Why something isn't done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Withheld {
    Effect(Effect),
    Cost,
}

impl Adoption {
    /// Whether what a token is about to do isn't to be done: then what was recorded of its node is
    /// given, whatever the input was, or else it fails.
    pub(super) fn withhold(
        &mut self,
        run: &Run,
        plan: &Plan,
        token: TokenId,
        attempt: Option<u32>,
    ) -> bool {
        let Some(live) = run.live() else { return false };
        let Some(experiment) = &live.header.experiment else { return false };
        let Some(at) = live.tokens.get(&token).filter(|at| !is_waiting(at)) else { return false };
        let Some(work) = plan.work_of(at).map(|node| &node.work) else { return false };
        let effect = work.effect().filter(|effect| experiment.keeps_from(*effect));
        let is_too_dear = effect.is_none()
            && attempt.is_some()
            && experiment
                .max_cost_micros
                .is_some_and(|most| !self.reserve(run, live, &at.node, token, most));
        let withheld = effect.map(Withheld::Effect).or(is_too_dear.then_some(Withheld::Cost));
        self.withheld.extend(withheld.map(|why| (token, why)));
        withheld.is_some()
    }

    /// What was recorded of a token's node and isn't taken over yet: in the same branches, or else
    /// the earliest.
    fn of_node(&self, live: &Live, token: TokenId) -> Option<usize> {
        let at = live.tokens.get(&token).filter(|at| at.undo.is_none())?;
        let is_child = matches!(at.phase, Phase::AwaitingChild { .. });
        let free = self.by_node.get(&at.node)?.iter().copied().filter_map(|place| {
            let one = self.recorded.get(place).filter(|one| !one.is_taken)?;
            let fits = match one.outcome {
                Outcome::Attempt { .. } => !is_child,
                Outcome::Child(_) => is_child,
                Outcome::Wait(..) => false,
            };
            fits.then_some((place, &one.branches))
        });
        let branches = branches_of(live, at);
        let mut own = free.clone().filter(|(_, others)| **others == branches);
        own.next().or_else(|| free.clone().next()).map(|(place, _)| place)
    }

    /// Whether a call may still be made, by what its node has cost at most. It is counted with those
    /// that are under way.
    fn reserve(&mut self, run: &Run, live: &Live, node: &str, token: TokenId, most: u64) -> bool {
        let places = self.by_node.get(node).into_iter().flatten();
        let costs = places.filter_map(|place| self.recorded.get(*place));
        let cost = costs.map(|one| one.usage.cost_micros).max().unwrap_or_default();
        self.reserved.retain(|other, _| *other != token && run.working_attempt(*other).is_some());
        let spent = live.usage.cost_micros + self.reserved.values().sum::<u64>();
        let fits = spent < most && spent.saturating_add(cost) <= most;
        if fits {
            self.reserved.insert(token, cost);
        }
        fits
    }

    /// What is said instead of the next thing that isn't done.
    pub(super) fn next_withheld(&mut self, run: &Run) -> Option<Command> {
        while let Some((token, why)) = self.withheld.pop_front() {
            let Some(live) = run.live() else { break };
            if matches!(why, Withheld::Effect(_))
                && let Some(place) = self.of_node(live, token)
            {
                self.give(place, token);
                if let Some(command) = self.next_asked(run) {
                    return Some(command);
                }
                continue;
            }
            let error = match why {
                Withheld::Effect(effect) => stubbed(effect),
                Withheld::Cost => policy(
                    COST_CAP,
                    "the calls of this fork would cost more than its experiment may",
                ),
            };
            if let Some((_, attempt)) = run.working_attempt(token) {
                let result = Err(AttemptError::from(&error));
                let (usage, duration_ms, adopted) = (Usage::default(), 0, None);
                let report = Report { token, attempt, result, usage, duration_ms, adopted };
                return Some(Command::Report(Box::new(report)));
            }
            if let Some(run_id) = run.awaited_child(token) {
                let (status, error) = (RunStatus::Failed, Some(error));
                let (output, adopted) = (None, None);
                let report = ChildReport { token, run_id, status, output, error, adopted };
                return Some(Command::ReportChild(Box::new(report)));
            }
        }
        next_unwaited(run).map(|end| Command::EndWait(Box::new(end)))
    }
}

/// Once nothing is under way, the earliest wait of an experiment's fork ends: by the clock where it
/// has a time, and else because nobody is asked.
fn next_unwaited(run: &Run) -> Option<EndWait> {
    let live = run.live().filter(|live| live.pause.is_none() && live.waits.total() > 0)?;
    let experiment = live.header.experiment.as_ref()?;
    let is_under_way = |phase: &Phase| match phase {
        Phase::Working { .. } | Phase::AwaitingChild { .. } => true,
        Phase::Gated { .. } => !experiment.keeps_from(Effect::Gate),
        Phase::Waiting { signal: Some(_), .. } => !experiment.keeps_from(Effect::Signal),
        Phase::Waiting { signal: None, .. }
        | Phase::BackingOff { .. }
        | Phase::Blocked { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { .. } => false,
    };
    if live.tokens.values().any(|token| is_under_way(&token.phase)) {
        return None;
    }
    let mut timers = live.timers.iter().filter(|(_, timer)| *timer != Timer::Run);
    if let Some((due, timer)) = timers.next() {
        let Timer::Wait(token) = timer else { return None };
        return timed_out(live, *token, *due);
    }
    let (token, at) = live.tokens.iter().find(|(_, token)| is_waiting(token))?;
    let (effect, gate) = match at.phase {
        Phase::Gated { .. } => (Effect::Gate, Some(GateOutcome::Cancelled)),
        _ => (Effect::Signal, None),
    };
    Some(EndWait { token: *token, result: Err(stubbed(effect)), gate })
}

/// What a wait comes to when its time is up.
fn timed_out(live: &Live, token: TokenId, due: DateTime<Utc>) -> Option<EndWait> {
    let (result, gate) = match &live.tokens.get(&token)?.phase {
        Phase::Waiting { signal: None, .. } => (Ok(json!({"due": due})), None),
        Phase::Waiting { signal: Some(_), .. } => {
            let mut error = stubbed(Effect::Signal);
            error.kind = FailureKind::Timeout;
            (Err(error), None)
        }
        Phase::Gated { .. } => (Err(stubbed(Effect::Gate)), Some(GateOutcome::Cancelled)),
        _ => return None,
    };
    Some(EndWait { token, result, gate })
}

fn stubbed(effect: Effect) -> RunError {
    let what = match effect {
        Effect::Http => "the request isn't made",
        Effect::Workflow => "no child run is started",
        Effect::Emit => "nothing is emitted",
        Effect::Gate => "nobody is asked",
        Effect::Signal => "no signal is waited for",
    };
    policy(STUBBED, &format!("{what} in this experiment, and the run has no outcome left to give"))
}

fn policy(code: &str, message: &str) -> RunError {
    RunError { kind: FailureKind::Policy, ..RunError::permanent(code, message.to_owned()) }
}
