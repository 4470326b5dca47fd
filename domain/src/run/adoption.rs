//! Outcomes that a run has recorded, for a fork of it that asks for the same.
//!
//! An attempt asks for the same where it stands at the same node in the same branches, is the same
//! attempt, and its mapped input has the same content. What fits is taken over in the order in which
//! it was recorded, one after the other, so that a fork in which nothing is different does what the
//! other run did. Waits and gates ask for the same where they stand at the same node in the same
//! branches; they take over only with [`Adopt::Outside`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::command::{AttemptError, ChildReport, Command, EndWait, Report};
use super::decide::Decision;
use super::event::{Adopt, Effect, Event, Experiment, GateOutcome, RunError, TokenId, Usage};
use super::replay::report_of;
use super::state::{Live, Phase, Run, Token};
use super::vars::size_of;
use crate::definition::Plan;
use crate::definition::plan::NodeWork;
use crate::limits;

mod withheld;

use withheld::Withheld;
pub use withheld::{COST_CAP, STUBBED};

/// What was asked for: a node, the branches that it is in, and the content of its input.
type Ask = [u8; 32];

/// What a run has recorded, and what of it a fork has asked for.
#[derive(Debug, Clone, Default)]
pub struct Adoption {
    adopt: Adopt,
    /// In the order in which it was recorded.
    recorded: Vec<Recorded>,
    bytes: usize,
    by_ask: HashMap<Ask, Vec<usize>>,
    by_node: HashMap<Arc<str>, Vec<usize>>,
    /// Nodes whose work is another one in the fork.
    changed: HashSet<Arc<str>>,
    /// What the fork has asked for and waits for, by its place in `recorded`.
    asked: BTreeMap<usize, TokenId>,
    /// What isn't done, and what is said instead.
    withheld: VecDeque<(TokenId, Withheld)>,
    /// What calls that are under way have cost before, by token.
    reserved: HashMap<TokenId, u64>,
}

/// An outcome that was recorded.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The event of it.
    pub sequence: u64,
    pub token: TokenId,
    pub node: Arc<str>,
    pub usage: Usage,
    /// A fork has it.
    pub is_taken: bool,
    branches: Vec<u64>,
    effect: Option<Effect>,
    outcome: Outcome,
}

#[derive(Debug, Clone)]
enum Outcome {
    Attempt { attempt: u32, result: Result<Value, AttemptError> },
    Child(Box<ChildReport>),
    Wait(Result<Value, RunError>, Option<GateOutcome>),
}

impl Recorded {
    /// Whether a fork of an experiment that doesn't take it over would make the call again. Waits
    /// and gates call nobody.
    pub fn is_call(&self, experiment: Option<&Experiment>) -> bool {
        let is_kept =
            self.effect.zip(experiment).is_some_and(|(effect, one)| one.keeps_from(effect));
        let calls = matches!(self.outcome, Outcome::Attempt { .. } | Outcome::Child(_));
        calls && (self.is_taken || !is_kept)
    }
}

impl Adoption {
    /// Of nothing yet.
    pub fn new(adopt: Adopt) -> Self {
        Self { adopt, ..Self::default() }
    }

    /// Whether more would be kept.
    pub fn has_room(&self) -> bool {
        self.adopt != Adopt::None
            && self.recorded.len() < limits::ADOPTED
            && self.bytes < limits::ADOPTED_BYTES
    }

    /// What was recorded, in order.
    pub fn recorded(&self) -> &[Recorded] {
        &self.recorded
    }

    /// The work of these nodes is another one in the fork: nothing of them is taken over.
    pub fn leave_out(&mut self, nodes: impl IntoIterator<Item = Arc<str>>) {
        self.changed.extend(nodes);
    }

    /// The fork has had what an event records.
    pub fn took(&mut self, sequence: Option<u64>) {
        let place = sequence.and_then(|sequence| {
            self.recorded.binary_search_by_key(&sequence, |one| one.sequence).ok()
        });
        if let Some(one) = place.and_then(|place| self.recorded.get_mut(place)) {
            one.is_taken = true;
        }
    }

    /// Keeps the outcome that an event records. `run` is the run before it.
    pub(super) fn gather(&mut self, run: &Run, plan: &Plan, event: &Event, sequence: u64) {
        if !self.has_room() {
            return;
        }
        let only_successes = self.adopt == Adopt::Successes;
        let (token, usage, outcome) = match event {
            Event::TaskSucceeded { token, attempt, result, usage, .. } => {
                let result = Ok(result.clone());
                (*token, *usage, Outcome::Attempt { attempt: *attempt, result })
            }
            Event::TaskFailed { token, attempt, error, usage, .. }
                if !only_successes && !is_of_workers(error) =>
            {
                let result = Err(AttemptError::from(error));
                (*token, *usage, Outcome::Attempt { attempt: *attempt, result })
            }
            Event::ChildEnded(ended)
                if !ended.given_up && (!only_successes || ended.error.is_none()) =>
            {
                let report = report_of(ended);
                (ended.token, Usage::default(), Outcome::Child(Box::new(report)))
            }
            _ if self.adopt == Adopt::Outside => {
                let Some((token, outcome)) = wait_of(run, event) else { return };
                (token, Usage::default(), outcome)
            }
            _ => return,
        };
        let at = run.live().and_then(|live| Some((live, live.tokens.get(&token)?)));
        let (Some((live, at)), Some(ask)) = (at, ask(run, plan, token, None)) else { return };
        let (node, branches) = (&at.node, branches_of(live, at));
        self.bytes += outcome.bytes();
        self.by_ask.entry(ask).or_default().push(self.recorded.len());
        self.by_node.entry(Arc::clone(node)).or_default().push(self.recorded.len());
        let (node, is_taken) = (Arc::clone(node), false);
        let effect = plan.node(&node).and_then(|node| node.work.effect());
        self.recorded.push(Recorded {
            effect,
            sequence,
            token,
            node,
            usage,
            is_taken,
            branches,
            outcome,
        });
    }

    /// Goes on with a fork for as long as what it asks for has been recorded. Afterwards the
    /// decision names what has to be done; with `advance`, there is more to take over.
    pub fn follow(
        &mut self,
        run: &mut Run,
        plan: &Plan,
        now: DateTime<Utc>,
        mut whole: Decision,
    ) -> Decision {
        let mut seen = 0;
        loop {
            let came = whole.events.iter().skip(seen);
            let came: Vec<_> = match came.clone().any(goes_on) {
                true => waiting(run),
                false => came.filter_map(begun_wait).collect(),
            };
            seen = whole.events.len();
            self.offer_waits(run, plan, came);
            let dispatch = std::mem::take(&mut whole.dispatch).into_iter();
            whole.dispatch = dispatch
                .filter(|(token, attempt)| !self.offer(run, plan, *token, Some(*attempt)))
                .collect();
            let children = std::mem::take(&mut whole.children).into_iter();
            whole.children =
                children.filter(|(token, _)| !self.offer(run, plan, *token, None)).collect();
            if whole.events.len() >= limits::EVENTS_PER_DECISION {
                whole.advance |= !self.asked.is_empty() || !self.withheld.is_empty();
                break;
            }
            let command = if run.next_due().is_some_and(|due| due <= now) {
                Command::Wake
            } else if std::mem::take(&mut whole.advance) {
                Command::Advance
            } else if let Some(command) = self.next(run) {
                command
            } else {
                break;
            };
            // What isn't waited for any more is refused, and asked for by nobody.
            match run.execute(plan, &command, now) {
                Ok(next) => whole.append(next),
                // It would be asked for again.
                Err(_) if matches!(command, Command::EndWait(_)) && self.asked.is_empty() => break,
                Err(_) => {}
            }
        }
        whole.dispatch.retain(|(token, attempt)| {
            run.working_attempt(*token).is_some_and(|(_, current)| current == *attempt)
        });
        whole.children.retain(|(token, child)| run.awaited_child(*token) == Some(*child));
        whole
    }

    /// Whether what a token waits for was recorded: then it is taken over in its turn.
    /// So is what it fails with, where the fork isn't to do it.
    pub fn offer(&mut self, run: &Run, plan: &Plan, token: TokenId, attempt: Option<u32>) -> bool {
        self.offer_same(run, plan, token, attempt) || self.withhold(run, plan, token, attempt)
    }

    fn offer_same(&mut self, run: &Run, plan: &Plan, token: TokenId, attempt: Option<u32>) -> bool {
        if self.recorded.is_empty() {
            return false;
        }
        let Some(live) = run.live() else { return false };
        let Some(at) = live.tokens.get(&token).filter(|at| at.undo.is_none()) else { return false };
        if self.changed.contains(&at.node) {
            return false;
        }
        let own = live.header.fork.map(|fork| (live.header.run_id.to_string(), fork.run_id));
        let Some(ask) = ask(run, plan, token, own) else { return false };
        let adopt = self.adopt;
        let fits = |one: &Recorded| match (&one.outcome, attempt) {
            (Outcome::Attempt { attempt: recorded, .. }, Some(attempt)) => {
                adopt == Adopt::Successes || *recorded == attempt
            }
            (Outcome::Child(_) | Outcome::Wait(..), None) => true,
            (Outcome::Attempt { .. }, None) | (Outcome::Child(_) | Outcome::Wait(..), Some(_)) => {
                false
            }
        };
        // Whoever made the same call is asked first. Another one's is taken over where it won't ask
        // for it any more: it has been here, and is gone.
        let has_left = |other: TokenId| {
            let is_here = live.tokens.get(&other).is_some_and(|other| other.node == at.node);
            at.branch.is_none() || other < live.next_token && !is_here
        };
        let free = |place: &&usize| {
            self.recorded.get(**place).is_some_and(|one| !one.is_taken && fits(one))
        };
        let is_by = |place: &&usize, wanted: &dyn Fn(TokenId) -> bool| {
            self.recorded.get(**place).is_some_and(|one| wanted(one.token))
        };
        let places = self.by_ask.get(&ask).into_iter().flatten();
        let own = places.clone().filter(free).find(|place| is_by(place, &|other| other == token));
        let found = own.or_else(|| places.filter(free).find(|place| is_by(place, &has_left)));
        let Some(place) = found.copied() else { return false };
        self.give(place, token);
        true
    }

    /// What stands at a place is for a token.
    fn give(&mut self, place: usize, token: TokenId) {
        if let Some(one) = self.recorded.get_mut(place) {
            one.is_taken = true;
        }
        self.asked.insert(place, token);
    }

    /// The same of tokens that wait, or stand at gates.
    pub fn offer_waits(
        &mut self,
        run: &Run,
        plan: &Plan,
        tokens: impl IntoIterator<Item = TokenId>,
    ) {
        if run.is_in_queue() {
            return;
        }
        for token in tokens {
            let waits = run
                .live()
                .and_then(|live| live.tokens.get(&token))
                .is_some_and(|token| is_waiting(token));
            if waits && !self.asked.values().any(|asked| *asked == token) {
                self.offer(run, plan, token, None);
            }
        }
    }

    /// The earliest of what was asked for, and then what isn't done.
    fn next(&mut self, run: &Run) -> Option<Command> {
        self.next_asked(run).or_else(|| self.next_withheld(run))
    }

    fn next_asked(&mut self, run: &Run) -> Option<Command> {
        while let Some((place, token)) = self.asked.pop_first() {
            let one = self.recorded.get_mut(place)?;
            let adopted = Some(one.sequence);
            match &one.outcome {
                Outcome::Attempt { result, .. } => {
                    if let Some((_, attempt)) = run.working_attempt(token) {
                        return Some(Command::Report(Box::new(Report {
                            token,
                            attempt,
                            result: result.clone(),
                            usage: Usage::default(),
                            duration_ms: 0,
                            adopted,
                        })));
                    }
                }
                Outcome::Child(report) => {
                    if let Some(run_id) = run.awaited_child(token) {
                        let report = ChildReport { token, run_id, adopted, ..(**report).clone() };
                        return Some(Command::ReportChild(Box::new(report)));
                    }
                }
                Outcome::Wait(result, gate) => {
                    let token = run.live().and_then(|live| Some((token, live.tokens.get(&token)?)));
                    if let Some((token, _)) = token.filter(|(_, token)| is_waiting(token)) {
                        let (result, gate) = (result.clone(), *gate);
                        return Some(Command::EndWait(Box::new(EndWait { token, result, gate })));
                    }
                }
            }
            // Its token is gone.
            one.is_taken = false;
        }
        None
    }
}

impl Outcome {
    fn bytes(&self) -> usize {
        match self {
            Self::Attempt { result: Ok(result), .. } => size_of(result),
            Self::Attempt { result: Err(error), .. } => {
                error.message.len() + size_of(&error.detail)
            }
            Self::Child(report) => report.output.as_ref().map_or(0, size_of),
            Self::Wait(result, _) => result.as_ref().map_or(0, size_of),
        }
    }
}

/// Whether a fork goes on from an event: what it waits for is its own then.
const fn goes_on(event: &Event) -> bool {
    matches!(event, Event::RunForked(_) | Event::RunAdmitted { .. })
}

/// The tokens that wait, or stand at gates.
fn waiting(run: &Run) -> Vec<TokenId> {
    let live = run.live().filter(|live| live.waits.total() > 0);
    let tokens = live.into_iter().flat_map(|live| &live.tokens);
    tokens.filter(|(_, token)| is_waiting(token)).map(|(id, _)| *id).collect()
}

/// The token that begins to wait, or comes to a gate.
fn begun_wait(event: &Event) -> Option<TokenId> {
    match event {
        Event::WaitStarted { token, .. } => Some(*token),
        Event::GateOpened(opened) => Some(opened.token),
        _ => None,
    }
}

const fn is_waiting(token: &Token) -> bool {
    matches!(token.phase, Phase::Waiting { .. } | Phase::Gated { .. })
}

/// What a wait or a gate came to. `run` is the run before the event.
fn wait_of(run: &Run, event: &Event) -> Option<(TokenId, Outcome)> {
    let waits = |id: &TokenId| run.live()?.tokens.get(id).filter(|token| is_waiting(token));
    match event {
        Event::WaitEnded { token, result, .. } => {
            Some((*token, Outcome::Wait(Ok(result.clone()), None)))
        }
        Event::NodeFailed { token, error } if waits(token).is_some() => {
            Some((*token, Outcome::Wait(Err(error.clone()), None)))
        }
        Event::GateClosed(closed) if closed.outcome != GateOutcome::Cancelled => {
            let result = match &closed.error {
                None => Ok(closed.result.clone()),
                Some(error) => Err(error.clone()),
            };
            Some((closed.token, Outcome::Wait(result, Some(closed.outcome))))
        }
        _ => None,
    }
}

/// Whether the action said nothing: the next attempt may well succeed.
fn is_of_workers(error: &RunError) -> bool {
    matches!(&*error.code, "in_doubt" | "worker_lost")
}

/// The branches that a token is in, the innermost first.
fn branches_of(live: &Live, token: &Token) -> Vec<u64> {
    let around = std::iter::successors(token.branch, |branch| {
        live.instances.get(&branch.instance)?.parent.branch
    });
    around.map(|branch| branch.index).collect()
}

/// What a token's node asks for. The id of a fork counts as that of the other run.
fn ask(
    run: &Run,
    plan: &Plan,
    id: TokenId,
    own: Option<(String, crate::ids::RunId)>,
) -> Option<Ask> {
    let token = run.live()?.tokens.get(&id)?;
    let input = match (&token.phase, &plan.node(&token.node)?.work) {
        (Phase::AwaitingChild { .. }, _) => {
            let mut start = run.child_start(plan, id)?;
            // What it only has from its parent isn't asked for.
            let inherited = &run.header()?.labels;
            start.labels.retain(|key, value| inherited.get(key) != Some(value));
            json!([start.definition, start.input, start.labels])
        }
        // People and times are asked for whatever the input is.
        (_, NodeWork::Wait(_) | NodeWork::Gate(_)) => Value::Null,
        _ => run.task_input(plan, id).ok()?,
    };
    let branches = branches_of(run.live()?, token);
    let asked = json!([&*token.node, branches, input]);
    let text = serde_json_canonicalizer::to_string(&asked).ok()?;
    let text = match own {
        Some((own, other)) if text.contains(&own) => text.replace(&own, &other.to_string()),
        _ => text,
    };
    Some(Sha256::digest(text).into())
}
