//! The way that a run went, node by node: what two runs are compared by whose events come in another
//! order, since what was called beside each other came back otherwise.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::adoption::{COST_CAP, STUBBED};
use super::event::{Event, Fired, RunError, TokenId, Usage};
use super::state::{Run, Token};
use crate::definition::Plan;

/// A token at a node: the node, the branches that it is in (the innermost first), and how many
/// tokens of the same branches were there before.
type Place = (String, Vec<u64>, u32);

/// A run's way, event by event.
#[derive(Debug, Default)]
pub struct Course {
    run: Run,
    steps: BTreeMap<Place, Step>,
    visits: HashMap<(String, Vec<u64>), u32>,
    /// What came of the nodes at which tokens stand.
    done: HashMap<TokenId, Done>,
    /// What calls have used up, by the event that says so.
    used: HashMap<u64, Usage>,
    pub calls: Calls,
}

/// Calls of a fork.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Tasks that were done and child runs that ran.
    pub made: u64,
    /// Outcomes that were taken over.
    pub adopted: u64,
    /// Effects that weren't allowed: the recorded outcome was given, or the node failed.
    pub stubbed: u64,
    /// Calls that weren't made for their cost.
    pub capped: u64,
}

#[derive(Debug, Clone, Default)]
struct Done {
    failed: Option<String>,
    value: Option<[u8; 32]>,
}

#[derive(Debug)]
struct Step {
    sequence: u64,
    way: Led,
    value: Option<[u8; 32]>,
}

/// What a node led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Led {
    /// The code that it failed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// The nodes to which it went on, in order; `join` where it arrived at its group's join.
    pub to: Vec<String>,
}

/// Where two courses part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parted {
    pub node: String,
    /// The event of the first run, or else of the second one.
    pub sequence: u64,
    pub before: Option<Led>,
    pub after: Option<Led>,
}

impl Course {
    /// Takes the run's next event. `plan` is the one that it follows there.
    pub fn take(&mut self, event: &Event, sequence: u64, at: DateTime<Utc>, plan: &Plan) {
        match event {
            Event::TaskSucceeded { token, result, usage, adopted, .. } => {
                self.used.insert(sequence, *usage);
                self.count(*token, *adopted, None, plan);
                self.done(*token, None, result);
            }
            Event::TaskFailed { token, error, retry_at, usage, adopted, .. } => {
                self.used.insert(sequence, *usage);
                self.count(*token, *adopted, Some(error), plan);
                if retry_at.is_none() {
                    self.done(*token, Some(error), &());
                }
            }
            Event::ChildEnded(ended) => {
                self.count(ended.token, ended.adopted, ended.error.as_ref(), plan);
                self.done(ended.token, ended.error.as_ref(), &ended.result);
            }
            Event::NodeComputed { token, writes } => self.done(*token, None, writes),
            Event::NodeFailed { token, error } => self.done(*token, Some(error), &()),
            Event::WaitEnded { token, result, .. } => self.done(*token, None, result),
            Event::GateClosed(closed) => {
                self.done(closed.token, closed.error.as_ref(), &closed.result);
            }
            Event::EventEmitted { token, name, data } => self.done(*token, None, &(name, data)),
            Event::MetricEmitted { token, name, value, .. } => {
                self.done(*token, None, &(name, value));
            }
            Event::TokenRouted { token, fired, opened, extended, .. } => {
                let to = fired.iter().map(|one| match one {
                    Fired::Moved { node, .. } => node.clone(),
                    Fired::Arrived { .. } => "join".to_owned(),
                });
                let opened = opened.iter().flat_map(|one| &one.branches);
                let opened = opened.chain(extended.iter().map(|one| &one.branches));
                let opened = opened.map(|one| format!("{} x {}", one.node, one.count));
                let to = to.chain(opened).collect();
                self.left(*token, sequence, to);
            }
            // The calls before are another run's.
            Event::RunForked(_) => self.calls = Calls::default(),
            _ => {}
        }
        self.run.evolve(event, at);
    }

    /// The run as it is by now.
    pub const fn run(&self) -> &Run {
        &self.run
    }

    /// What a call has used up, by its event.
    pub fn used_at(&self, sequence: u64) -> Usage {
        self.used.get(&sequence).copied().unwrap_or_default()
    }

    fn token(&self, token: TokenId) -> Option<&Token> {
        self.run.live()?.tokens.get(&token).map(|token| &**token)
    }

    fn done(&mut self, token: TokenId, error: Option<&RunError>, value: &impl Serialize) {
        let failed = error.map(|error| error.code.clone());
        let text = serde_json_canonicalizer::to_vec(&json!(value)).unwrap_or_default();
        let value = failed.is_none().then(|| Sha256::digest(text).into());
        self.done.insert(token, Done { failed, value });
    }

    fn count(&mut self, id: TokenId, adopted: Option<u64>, error: Option<&RunError>, plan: &Plan) {
        let Some(at) = self.token(id) else { return };
        let work = plan.work_of(at).map(|node| &node.work);
        let experiment = self.run.header().and_then(|header| header.experiment.as_ref());
        let effect = work.and_then(|work| work.effect());
        let is_kept = experiment.zip(effect).is_some_and(|(one, effect)| one.keeps_from(effect));
        let is_capped = error.is_some_and(|error| error.code == COST_CAP);
        let is_stubbed = is_kept || error.is_some_and(|error| error.code == STUBBED);
        let counter = match adopted {
            _ if is_stubbed => &mut self.calls.stubbed,
            None if is_capped && experiment.is_some() => &mut self.calls.capped,
            Some(_) => &mut self.calls.adopted,
            None => &mut self.calls.made,
        };
        *counter += 1;
    }

    fn left(&mut self, token: TokenId, sequence: u64, mut to: Vec<String>) {
        let Some(live) = self.run.live() else { return };
        let Some(at) = live.tokens.get(&token) else { return };
        let around = std::iter::successors(at.branch, |branch| {
            live.instances.get(&branch.instance)?.parent.branch
        });
        let branches: Vec<u64> = around.map(|branch| branch.index).collect();
        let node = at.node.to_string();
        let visit = self.visits.entry((node.clone(), branches.clone())).or_default();
        let place = (node, branches, *visit);
        *visit += 1;
        to.sort_unstable();
        let Done { failed, value } = self.done.remove(&token).unwrap_or_default();
        self.steps.insert(place, Step { sequence, way: Led { failed, to }, value });
    }

    /// Where another run that goes on from this one's beginning first goes another way, and where it
    /// first has another value. What it hasn't come to yet is no difference.
    pub fn parts_from(&self, other: &Self) -> (Option<Parted>, Option<Parted>) {
        let goes_on = other.run.closed().is_none();
        let (mut parts, mut values): (Vec<Parted>, Vec<Parted>) = (Vec::new(), Vec::new());
        for (place, own) in &self.steps {
            let theirs = other.steps.get(place);
            if theirs.is_none() && goes_on {
                continue;
            }
            let found = || Parted {
                node: place.0.clone(),
                sequence: own.sequence,
                before: Some(own.way.clone()),
                after: theirs.map(|one| one.way.clone()),
            };
            match theirs {
                Some(theirs) if theirs.way == own.way => {
                    if theirs.value != own.value {
                        values.push(found());
                    }
                }
                _ => parts.push(found()),
            }
        }
        if parts.is_empty() {
            let more = other.steps.iter().filter(|(place, _)| !self.steps.contains_key(*place));
            parts.extend(more.map(|(place, one)| Parted {
                node: place.0.clone(),
                sequence: one.sequence,
                before: None,
                after: Some(one.way.clone()),
            }));
        }
        let first = |all: Vec<Parted>| all.into_iter().min_by_key(|one| one.sequence);
        (first(parts), first(values))
    }
}
