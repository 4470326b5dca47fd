//! How a fork begins: what it shares, what is different there, and what it takes over at once.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Place;
use crate::definition::Plan;
use crate::ids::RunId;
use crate::limits;
use crate::run::adoption::Adoption;
use crate::run::command::{AttemptError, Report};
use crate::run::event::{
    Admission, Adopt, BranchPatch, DefinitionRef, Event, Experiment, ForkedChild, ForkedFrom,
    ParentRun, Pin, QueueReason, RunForked, RunStarted, TokenId, Usage,
};
use crate::run::state::{Live, Phase};
use crate::run::{Command, Decision, Refusal, Run};

/// Rounds in which a fork is tried: each takes over as much as one append holds.
const ROUNDS: usize = 100;

/// What is asked of a fork.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The fork, and the run that it is made of.
    pub run_id: RunId,
    pub from: RunId,
    /// The last event of the other run that was looked at.
    pub until: u64,
    pub at: DateTime<Utc>,
    pub forked_by: Option<String>,
    pub adopt: Adopt,
    pub input: Option<Value>,
    pub state: Option<Value>,
    pub branches: BTreeMap<TokenId, Value>,
    pub outcomes: BTreeMap<TokenId, Result<Value, AttemptError>>,
    pub definition: Option<(DefinitionRef, Vec<Pin>)>,
    pub labels: Option<BTreeMap<String, String>>,
    /// What its admission goes by, where its definition bounds its runs.
    pub admission: Option<Admission>,
    /// The experiment that it belongs to.
    pub experiment: Option<Experiment>,
    /// The run whose node waits for it, where it is a child that forks with its parent.
    pub parent: Option<ParentRun>,
    /// The children that fork with it.
    pub children: Vec<ForkedChild>,
    /// Whether it is told again what the run was told between the last event that is shared and the
    /// one that was asked for.
    pub is_told_again: bool,
}

impl Asked {
    /// A fork of a run in which nothing is different.
    pub fn unchanged(run_id: RunId, from: RunId, until: u64, at: DateTime<Utc>) -> Self {
        Self {
            run_id,
            from,
            until,
            at,
            forked_by: None,
            adopt: Adopt::All,
            input: None,
            state: None,
            branches: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            definition: None,
            labels: None,
            admission: None,
            experiment: None,
            parent: None,
            children: Vec::new(),
            is_told_again: true,
        }
    }
}

/// Why a fork can't be as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unforkable {
    #[error("a run has at most {} labels", limits::LABELS)]
    TooManyLabels(usize),
    #[error(
        "token {0} has no attempt under way there: fork at an event between the one that brought \
         it to its node and the one that records its outcome"
    )]
    NoAttempt(TokenId),
    #[error("the run doesn't begin with its start")]
    NoBeginning,
}

/// What a fork begins with.
#[derive(Debug, Clone)]
pub struct Forking {
    /// Its first event.
    pub started: Box<RunStarted>,
    pub past: Past,
    pub forked: RunForked,
    /// Why it has to wait for its turn; absent where it goes on at once.
    pub waits: Option<QueueReason>,
    /// What it is told first.
    pub first: Vec<Command>,
    pub adoption: Adoption,
}

/// What a fork shares with the other run.
#[derive(Debug, Clone)]
pub enum Past {
    /// The events, and when they happened: they are written with its beginning.
    Events(Vec<(Event, DateTime<Utc>)>),
    /// What they come to. There are too many: they are written before it begins.
    Run(Box<Run>),
}

impl Past {
    /// The events that are written with its beginning.
    pub fn events(self) -> Vec<(Event, DateTime<Utc>)> {
        match self {
            Self::Events(events) => events,
            Self::Run(_) => Vec::new(),
        }
    }
}

impl Place {
    /// What a fork begins with here.
    ///
    /// # Errors
    /// Where it names what isn't there.
    pub fn fork(self, asked: Asked) -> Result<Forking, Unforkable> {
        let Self { run, shared: sequence, started: first, events, since, again, adoption } = self;
        let header = run.header().ok_or(Unforkable::NoBeginning)?;
        // It has no trigger: it is started by whoever forks, or its parent. How the other run was
        // admitted is history.
        let started = Box::new(RunStarted {
            labels: asked.labels.unwrap_or_else(|| header.labels.clone()),
            parent: asked.parent,
            trigger: None,
            forked_from: Some(ForkedFrom { run_id: asked.from, sequence, at: asked.at }),
            rerun_of: None,
            ..*first
        });
        if started.labels.len() > limits::LABELS {
            return Err(Unforkable::TooManyLabels(started.labels.len()));
        }
        let tokens: Vec<TokenId> = asked.outcomes.keys().copied().collect();
        let told = asked.outcomes.into_iter().map(|(token, result)| report(&run, token, result));
        let mut told = told.collect::<Result<Vec<_>, _>>()?;
        told.extend(again.filter(|_| asked.is_told_again));
        let branches = asked.branches.into_iter();
        let (definition, pins) = asked.definition.unzip();
        let forked = RunForked {
            run_id: asked.run_id,
            from: asked.from,
            sequence,
            until: asked.until,
            adopt: asked.adopt,
            since,
            deadline: None,
            forked_by: asked.forked_by,
            input: asked.input,
            state: asked.state,
            branches: branches.map(|(token, patch)| BranchPatch { token, patch }).collect(),
            outcomes: tokens,
            definition,
            pins: pins.unwrap_or_default(),
            admission: asked.admission.map(Box::new),
            experiment: asked.experiment.map(Box::new),
            children: asked.children,
        };
        let past = match events {
            Some(mut events) => {
                if let Some((first, _)) = events.first_mut() {
                    *first = Event::RunStarted(started.clone());
                }
                Past::Events(events)
            }
            None => Past::Run(Box::new(run.begun_by(&started))),
        };
        Ok(Forking { started, past, forked, waits: None, first: told, adoption })
    }
}

/// The outcome that an attempt is given.
fn report(
    run: &Run,
    token: TokenId,
    result: Result<Value, AttemptError>,
) -> Result<Command, Unforkable> {
    let under_way = run.live().and_then(|live| live.tokens.get(&token)).map(|at| &at.phase);
    let Some(Phase::Working { attempt }) = under_way else {
        return Err(Unforkable::NoAttempt(token));
    };
    let (attempt, usage, duration_ms, adopted) = (*attempt, Usage::default(), 0, None);
    let report = Report { token, attempt, result, usage, duration_ms, adopted };
    Ok(Command::Report(Box::new(report)))
}

impl Forking {
    /// How many events of it are written before it begins.
    pub const fn written(&self) -> u64 {
        match self.past {
            Past::Events(_) => 0,
            Past::Run(_) => self.forked.sequence,
        }
    }

    /// Makes a run that hasn't begun into the fork, up to where others have to do something.
    ///
    /// # Errors
    /// Where the fork is refused; it is half made then.
    pub fn begin(
        &mut self,
        run: &mut Run,
        plan: &Plan,
        now: DateTime<Utc>,
    ) -> Result<Decision, Refusal> {
        match &mut self.past {
            Past::Events(events) => events.iter().for_each(|(event, at)| run.evolve(event, *at)),
            Past::Run(past) => *run = std::mem::take(past),
        }
        let mut whole = run.execute(plan, &Command::Fork(Box::new(self.forked.clone())), now)?;
        let turn = match &self.waits {
            None => Command::Admit { until: None },
            Some(reason) => Command::StayInQueue(reason.clone()),
        };
        // A fork that has ended by now took its turn in that.
        let turn = run.live().is_some().then_some(&turn);
        for command in turn.into_iter().chain(&self.first) {
            whole.append(run.execute(plan, command, now)?);
        }
        Ok(self.adoption.follow(run, plan, now, whole))
    }

    /// Begins without doing anything. What is decided after the shared events is given to `take`.
    ///
    /// # Errors
    /// Where the fork is refused.
    pub fn tried(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
        take: &mut dyn FnMut(&Event),
    ) -> Result<Trial, Refusal> {
        let (mut forking, mut run) = (self.clone(), Run::default());
        let decision = forking.begin(&mut run, plan, now)?;
        let (adoption, dispatch, children) = (forking.adoption, Vec::new(), Vec::new());
        let mut trial = Trial { run, now, adoption, dispatch, children };
        trial.follow(plan, decision, take);
        Ok(trial)
    }
}

/// A fork that was only tried.
#[derive(Debug)]
pub struct Trial {
    /// The fork once it has taken over what it can.
    pub run: Run,
    /// When that is.
    pub now: DateTime<Utc>,
    /// What it has taken over.
    pub adoption: Adoption,
    /// The attempts that are made then, and the children that are started, by token.
    pub dispatch: Vec<(TokenId, u32)>,
    pub children: Vec<(TokenId, RunId)>,
}

impl Trial {
    /// Lets the next timer fall due, where nothing but the clock is waited for: who has to be
    /// called or asked may answer before. False where it stands still.
    pub fn wait(&mut self, plan: &Plan, take: &mut dyn FnMut(&Event)) -> bool {
        let goes_by_itself = self.run.live().is_some_and(waits_for_the_clock);
        let Some(due) = self.run.next_due().filter(|_| goes_by_itself) else { return false };
        self.now = self.now.max(due);
        let Ok(decision) = self.run.execute(plan, &Command::Wake, self.now) else { return false };
        let goes_on = !decision.events.is_empty();
        let decision = self.adoption.follow(&mut self.run, plan, self.now, decision);
        self.follow(plan, decision, take);
        goes_on
    }

    fn follow(&mut self, plan: &Plan, mut decision: Decision, take: &mut dyn FnMut(&Event)) {
        decision.events.iter().for_each(&mut *take);
        for _ in 0..ROUNDS {
            if !decision.advance {
                break;
            }
            decision.events.clear();
            decision = self.adoption.follow(&mut self.run, plan, self.now, decision);
            decision.events.iter().for_each(&mut *take);
        }
        (self.dispatch, self.children) = (decision.dispatch, decision.children);
    }
}

/// Whether nothing is waited for but times.
fn waits_for_the_clock(live: &Live) -> bool {
    let asks_nobody = |phase: &Phase| match phase {
        Phase::Working { .. }
        | Phase::Gated { .. }
        | Phase::AwaitingChild { .. }
        | Phase::Waiting { signal: Some(_), .. } => false,
        Phase::Waiting { signal: None, .. }
        | Phase::BackingOff { .. }
        | Phase::Blocked { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { .. } => true,
    };
    live.pause.is_none()
        && live.in_queue.is_none()
        && live.tokens.values().all(|token| asks_nobody(&token.phase))
}
