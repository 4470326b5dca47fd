//! What is kept of a run's events while they are read for an explanation: how the tokens that were
//! asked for came and left, what happened to them, and what became of groups. Bounded, but for a few
//! words of each group.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use chrono::{DateTime, Utc};
use domain::run::event::{
    Arithmetic, Carried, Considered, Extended, Fired, GateOutcome, InstanceId, Opened,
    OpenedBranches, RunError, TokenId, TransitionIndex,
};
use domain::run::{Event, Run};
use protocol::explanation::{EXPLAINED_TOKENS, Fact};
use serde_json::{Map, Value};

use super::told;

/// Events that are told of one token.
pub(super) const FACTS: usize = 30;
/// Events that are told of the run.
pub(super) const LED: usize = 20;

/// Which tokens are asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) token: Option<TokenId>,
    pub(super) node: Option<String>,
    /// These, where they are known: no more than are kept.
    pub(super) these: BTreeSet<TokenId>,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Trace {
    wanted: Wanted,
    /// The newest tokens that were asked for.
    pub(super) tokens: BTreeMap<TokenId, Traced>,
    /// How many older ones were left out.
    pub(super) left_out: u64,
    pub(super) groups: HashMap<InstanceId, Group>,
    /// How tokens left the nodes from which transitions lead to the one that was asked for.
    pub(super) sources: HashMap<String, Source>,
    /// What led to where the run is.
    pub(super) led: VecDeque<Fact>,
}

/// A token that was asked for.
#[derive(Debug)]
pub(super) struct Traced {
    pub(super) came: Origin,
    /// The node of the token that it came from.
    pub(super) from_node: Option<String>,
    pub(super) sequence: u64,
    pub(super) did: VecDeque<Fact>,
    pub(super) left: Option<Routed>,
}

/// Where a token came from.
#[derive(Debug)]
pub(super) enum Origin {
    Start,
    Transition {
        from: TokenId,
        transition: TransitionIndex,
        read: Map<String, Value>,
        iteration: Option<u32>,
    },
    Branch {
        instance: InstanceId,
        transition: TransitionIndex,
    },
    Join {
        instance: InstanceId,
    },
    Undo {
        of: TokenId,
    },
}

/// How a token left its node.
#[derive(Debug, Clone)]
pub(super) struct Routed {
    pub(super) sequence: u64,
    pub(super) considered: Vec<Considered>,
    pub(super) fired: Vec<Fired>,
    pub(super) opened: Vec<Opened>,
    pub(super) extended: Vec<Extended>,
    pub(super) failed: bool,
    /// What the node had failed with.
    pub(super) error: Option<RunError>,
}

/// A node from which a transition leads to the one that was asked for.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) left: u64,
    /// How often each of its transitions was taken.
    pub(super) taken: HashMap<TransitionIndex, u64>,
    pub(super) last: Option<(TokenId, Routed)>,
}

/// A group instance.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Option<String>,
    pub(super) by: TokenId,
    /// The node that it was opened from.
    pub(super) by_node: Option<String>,
    pub(super) branches: Vec<Made>,
    pub(super) closed: Option<Closing>,
}

/// The branches that one transition made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) transition: TransitionIndex,
    pub(super) read: Map<String, Value>,
    pub(super) count: u64,
    pub(super) iteration: Option<u32>,
}

/// How a join was decided.
#[derive(Debug, Clone)]
pub(super) struct Closing {
    pub(super) sequence: u64,
    pub(super) verdict: &'static str,
    pub(super) node: Option<String>,
    pub(super) arithmetic: Option<Arithmetic>,
    pub(super) timed_out: bool,
    pub(super) completed_by: Option<TokenId>,
    pub(super) error: Option<RunError>,
}

/// What is known of a run before an event.
pub(super) trait Before {
    /// Where a token stands.
    fn node_of(&self, token: TokenId) -> Option<&str>;

    /// What the work of a token has failed with for good.
    fn error_of(&self, token: TokenId) -> Option<&RunError>;

    /// The part of a fan-out that a branch belongs to.
    fn branches_of(&self, instance: InstanceId, index: u64) -> Option<&OpenedBranches>;
}

impl Before for Run {
    fn node_of(&self, token: TokenId) -> Option<&str> {
        Some(&*self.live()?.tokens.get(&token)?.node)
    }

    fn error_of(&self, token: TokenId) -> Option<&RunError> {
        self.live()?.tokens.get(&token)?.phase.error()
    }

    fn branches_of(&self, instance: InstanceId, index: u64) -> Option<&OpenedBranches> {
        self.live()?.instances.get(&instance)?.branches_of(index)
    }
}

impl Trace {
    /// `sources` are the nodes from which a transition leads to the node that is asked for.
    pub(super) fn new(wanted: Wanted, sources: &[String]) -> Self {
        let sources = sources.iter().map(|node| (node.clone(), Source::default())).collect();
        Self { wanted, sources, ..Self::default() }
    }

    /// Takes the next event of a run.
    pub(super) fn take(
        &mut self,
        event: &Event,
        sequence: u64,
        at: DateTime<Utc>,
        before: &impl Before,
    ) {
        let about = told::token_of(event);
        // A gate that was given up is gone with its token already.
        let stands = about.filter(
            |_| !matches!(event, Event::GateClosed(gate) if gate.outcome == GateOutcome::Cancelled),
        );
        let fact = || Fact {
            sequence,
            at,
            what: told::told(event),
            token: about,
            node: stands.and_then(|token| before.node_of(token)).map(str::to_owned),
        };
        if let Some(traced) = about.and_then(|token| self.tokens.get_mut(&token)) {
            push(&mut traced.did, fact(), FACTS);
        }
        if told::leads_to_the_end(event) {
            push(&mut self.led, fact(), LED);
        }
        match event {
            Event::RunStarted(started) => {
                self.enter(1, &started.start, Origin::Start, None, sequence);
            }
            Event::TokenRouted { token, considered, fired, opened, extended, failed } => {
                let routed = Routed {
                    sequence,
                    considered: considered.clone(),
                    fired: fired.iter().map(without_value).collect(),
                    opened: opened.clone(),
                    extended: extended.iter().map(without_items).collect(),
                    failed: *failed,
                    error: before.error_of(*token).cloned(),
                };
                self.route(*token, routed, before.node_of(*token));
            }
            Event::BranchesSpawned { instance, index, token, count, .. } => {
                for offset in 0..*count {
                    let (token, index) = (token + offset, index + offset);
                    if let Some(branches) = before.branches_of(*instance, index) {
                        let transition = branches.transition;
                        let origin = Origin::Branch { instance: *instance, transition };
                        let by = self.opened_from(*instance);
                        self.enter(token, &branches.node, origin, by, sequence);
                    }
                }
            }
            Event::JoinFired {
                instance, token, node, arithmetic, timed_out, completed_by, ..
            } => {
                let closing = Closing {
                    node: Some(node.clone()),
                    arithmetic: Some(*arithmetic),
                    timed_out: *timed_out,
                    completed_by: *completed_by,
                    ..Closing::of("fired", sequence)
                };
                self.close(*instance, closing);
                let by = self.opened_from(*instance);
                self.enter(*token, node, Origin::Join { instance: *instance }, by, sequence);
            }
            Event::JoinFailed { instance, error, arithmetic } => {
                let closing = Closing::of("failed", sequence);
                let (error, arithmetic) = (Some(error.clone()), Some(*arithmetic));
                self.close(*instance, Closing { error, arithmetic, ..closing });
            }
            // Where its join has fired, that is what became of it.
            Event::GroupEnded { instance }
                if self.groups.get(instance).is_some_and(|group| group.closed.is_none()) =>
            {
                self.close(*instance, Closing::of("ended", sequence));
            }
            Event::UndoStarted { token, undoes, node } => {
                // The undo stands where what it undoes was done.
                let of = Some(node.clone());
                self.enter(*token, node, Origin::Undo { of: *undoes }, of, sequence);
            }
            // What these do to tokens is told above, or by the timeline.
            _ => {}
        }
    }

    fn enter(
        &mut self,
        token: TokenId,
        node: &str,
        came: Origin,
        from_node: Option<String>,
        sequence: u64,
    ) {
        let is_wanted = self.wanted.token == Some(token)
            || self.wanted.node.as_deref().is_some_and(|wanted| wanted == node)
            || self.wanted.these.contains(&token);
        if !is_wanted {
            return;
        }
        let did = VecDeque::new();
        self.tokens.insert(token, Traced { came, from_node, sequence, did, left: None });
        if self.tokens.len() > EXPLAINED_TOKENS {
            self.tokens.pop_first();
            self.left_out += 1;
        }
    }

    fn route(&mut self, token: TokenId, routed: Routed, node: Option<&str>) {
        for opened in &routed.opened {
            let branches = opened.branches.iter();
            let branches = branches.map(|one| Made::of(one, &routed));
            let group = Group {
                name: opened.group.clone(),
                by: token,
                by_node: node.map(str::to_owned),
                branches: branches.collect(),
                closed: None,
            };
            self.groups.insert(opened.instance, group);
        }
        for extended in &routed.extended {
            if let Some(group) = self.groups.get_mut(&extended.instance) {
                group.branches.push(Made::of(&extended.branches, &routed));
            }
        }
        let moved: Vec<_> = routed
            .fired
            .iter()
            .filter_map(|fired| match fired {
                Fired::Moved { transition, token: new, node, iteration } => {
                    let read = routed.read(*transition);
                    let (transition, iteration) = (*transition, *iteration);
                    let origin = Origin::Transition { from: token, transition, read, iteration };
                    Some((*new, node.clone(), origin))
                }
                Fired::Arrived { .. } => None,
            })
            .collect();
        for (new, to, origin) in moved {
            self.enter(new, &to, origin, node.map(str::to_owned), routed.sequence);
        }
        if let Some(traced) = self.tokens.get_mut(&token) {
            traced.left = Some(routed.clone());
        }
        if let Some(source) = node.and_then(|node| self.sources.get_mut(node)) {
            source.left += 1;
            for index in routed.taken() {
                *source.taken.entry(index).or_default() += 1;
            }
            source.last = Some((token, routed));
        }
    }

    fn opened_from(&self, instance: InstanceId) -> Option<String> {
        self.groups.get(&instance).and_then(|group| group.by_node.clone())
    }

    fn close(&mut self, instance: InstanceId, closing: Closing) {
        if let Some(group) = self.groups.get_mut(&instance) {
            group.closed = Some(closing);
        }
    }
}

impl Routed {
    /// The transitions that were taken.
    fn taken(&self) -> impl Iterator<Item = TransitionIndex> {
        let fired = self.fired.iter().map(|fired| match fired {
            Fired::Moved { transition, .. } | Fired::Arrived { transition, .. } => *transition,
        });
        let opened = self.opened.iter().flat_map(|opened| &opened.branches);
        let extended = self.extended.iter().map(|extended| &extended.branches);
        fired.chain(opened.chain(extended).map(|branches| branches.transition))
    }

    /// What the condition of a transition read.
    fn read(&self, transition: TransitionIndex) -> Map<String, Value> {
        let looked = self.considered.iter().find(|one| one.transition == transition);
        looked.map(|one| one.read.clone()).unwrap_or_default()
    }
}

impl Made {
    fn of(branches: &OpenedBranches, routed: &Routed) -> Self {
        let OpenedBranches { transition, count, iteration, .. } = *branches;
        Self { transition, read: routed.read(transition), count, iteration }
    }
}

impl Closing {
    const fn of(verdict: &'static str, sequence: u64) -> Self {
        Self {
            sequence,
            verdict,
            node: None,
            arithmetic: None,
            timed_out: false,
            completed_by: None,
            error: None,
        }
    }
}

/// Adds to the last so many.
pub(super) fn push<T>(facts: &mut VecDeque<T>, fact: T, most: usize) {
    if facts.len() == most {
        facts.pop_front();
    }
    facts.push_back(fact);
}

/// What a branch carries may be large, and isn't told.
fn without_value(fired: &Fired) -> Fired {
    match fired {
        Fired::Arrived { transition, instance, late, .. } => Fired::Arrived {
            transition: *transition,
            instance: *instance,
            value: Carried::Nothing,
            late: *late,
        },
        Fired::Moved { .. } => fired.clone(),
    }
}

fn without_items(extended: &Extended) -> Extended {
    let Extended { instance, branches, .. } = extended;
    Extended { instance: *instance, branches: branches.clone(), items: Vec::new() }
}
