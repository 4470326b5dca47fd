//! Which events an explanation is made of: found in what is stored, of which little is parsed, and
//! of which a store leaves out what tells nothing. What is kept meanwhile are a few words of each
//! group, and of each token that is somewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use chassis::journal::RecordedEvent;
use domain::codec;
use domain::run::Event;
use domain::run::event::{Fired, InstanceId, Opened, OpenedBranches, TokenId, TransitionIndex};
use domain::run::state::Branch;
use protocol::explanation::EXPLAINED_TOKENS;
use protocol::{Explain, Rejection};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::scene::Scene;
use super::told::{OF_ONE_TOKEN, telling};
use super::trace::{FACTS, LED, push};
use crate::refusal;

/// In what is stored: a token comes to a node, a group is opened or gets branches, or some of it
/// stands elsewhere or is escaped.
const WAYS: &[&str] = &["\"moved\":", "\"opened\":[{", "\"extended\":[{", "\"$"];

/// See the head of the file.
#[derive(Default)]
pub(super) struct Search {
    token: Option<TokenId>,
    node: Option<String>,
    /// Texts in what is stored that tell where tokens are, and of the token that is asked for.
    pub(super) mentions: Vec<String>,
    /// The newest tokens that are asked for.
    pub(super) tokens: BTreeMap<TokenId, Found>,
    /// How many older ones there are.
    pub(super) left_out: u64,
    /// How many tokens have left the nodes from which a transition leads to the one that is asked
    /// for, and how many took each transition.
    pub(super) left: HashMap<String, (u64, HashMap<TransitionIndex, u64>)>,
    /// The last one of each that has left: when, which, and where it stood.
    last: HashMap<String, (u64, TokenId, Place)>,
    /// Where the tokens are.
    places: HashMap<TokenId, Place>,
    groups: HashMap<InstanceId, Group>,
    /// The run's waits for its turn.
    turns: Vec<u64>,
    /// What led to the end, and where the tokens stood that it is about.
    led: VecDeque<(u64, Option<(TokenId, Place)>)>,
}

/// Where the events of a token are.
pub(super) struct Found {
    came: u64,
    did: VecDeque<u64>,
    left: Option<u64>,
    place: Place,
    /// The token that it came from, where one went on.
    from: Option<(TokenId, Place)>,
    /// The group that it came out of.
    out_of: Option<InstanceId>,
}

/// Where a token stands.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) node: Arc<str>,
    pub(super) branch: Option<Branch>,
    /// The event with which its work has failed for good.
    failed: Option<u64>,
}

impl Place {
    fn at(node: &str, branch: Option<Branch>) -> Self {
        Self { node: node.into(), branch, failed: None }
    }
}

pub(super) struct Group {
    pub(super) name: Option<String>,
    /// The token that opened it.
    by: Option<(TokenId, Place)>,
    pub(super) branches: Vec<OpenedBranches>,
    /// The events that tell of it.
    sequences: Vec<u64>,
}

/// What is parsed of an event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    token: TokenId,
    start: String,
    node: String,
    instance: InstanceId,
    index: u64,
    count: u64,
    fired: Vec<Fired>,
    opened: Vec<Opened>,
    extended: Vec<Added>,
    error: Option<IgnoredAny>,
    retry_at: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Added {
    instance: InstanceId,
    branches: OpenedBranches,
}

impl Search {
    /// `sources` are the nodes from which a transition leads to the node that is asked for.
    pub(super) fn of(asked: &Explain, sources: &[String]) -> Self {
        let own = asked.token.map(|token| format!("\"token\":{token}"));
        Self {
            mentions: WAYS.iter().map(|text| (*text).to_owned()).chain(own).collect(),
            token: asked.token,
            node: asked.node.clone(),
            left: sources.iter().map(|node| (node.clone(), Default::default())).collect(),
            ..Self::default()
        }
    }

    /// The types of events that concern nobody but where they mention one of those texts. Where a
    /// node is asked for, they may be about any token there, or lead to it.
    pub(super) const fn seldom(&self) -> &'static [&'static str] {
        if self.node.is_none() { OF_ONE_TOKEN } else { &[] }
    }

    /// The sequences of what was found.
    pub(super) fn found(&self) -> BTreeSet<u64> {
        let mut found: BTreeSet<u64> = self.led.iter().map(|(sequence, _)| *sequence).collect();
        for (sequence, _, place) in self.last.values() {
            found.insert(*sequence);
            found.extend(place.failed);
        }
        if !self.tokens.is_empty() {
            found.extend(&self.turns);
        }
        for token in self.tokens.values() {
            found.insert(token.came);
            found.extend(token.did.iter().chain(&token.left));
            let within = token.place.branch.map(|branch| branch.instance);
            let groups = within.iter().chain(&token.out_of).filter_map(|id| self.groups.get(id));
            found.extend(groups.flat_map(|group| &group.sequences));
        }
        found
    }

    /// Where the tokens stood that what was found is about, and the groups.
    pub(super) fn into_scene(self) -> Scene {
        let Self { tokens, last, led, groups, .. } = self;
        let asked = tokens.into_iter();
        let asked = asked.flat_map(|(id, found)| found.from.into_iter().chain([(id, found.place)]));
        let openers = groups.values().filter_map(|group| group.by.clone());
        let left = last.into_values().map(|(_, id, place)| (id, place));
        let led = led.into_iter().filter_map(|(_, about)| about);
        let places = asked.chain(openers).chain(left).chain(led).collect();
        Scene::of(places, groups)
    }

    /// Takes the next event; `decoded` where it can't be read as it is stored.
    pub(super) fn take(
        &mut self,
        recorded: &RecordedEvent,
        decoded: Option<&Event>,
    ) -> Result<(), Rejection> {
        let damaged = |error: serde_json::Error| {
            refusal::damaged(&format!("the event at {}", recorded.position), &error)
        };
        let told = || -> Result<Told, Rejection> {
            match decoded {
                None => serde_json::from_slice(&recorded.payload).map_err(damaged),
                Some(event) => {
                    serde_json::to_value(event).and_then(serde_json::from_value).map_err(damaged)
                }
            }
        };
        let (kind, sequence) = (&*recorded.event_type, recorded.sequence);
        let telling = telling(kind);
        if telling.of_end {
            let is_led = match kind {
                "task_failed" | "undo_failed" => told()?.retry_at.is_none(),
                "child_ended" | "gate_closed" => told()?.error.is_some(),
                _ => true,
            };
            if is_led {
                let token = told()?.token;
                let place = self.places.get_mut(&token);
                if let Some(place) = place.filter(|_| telling.of_token) {
                    place.failed = Some(sequence);
                }
                let about = self.places.get(&token).map(|place| (token, place.clone()));
                push(&mut self.led, (sequence, about), LED);
            }
        }
        if telling.of_token && self.may_be_asked_for(&recorded.payload) {
            let token = told()?.token;
            if let Some(found) = self.tokens.get_mut(&token) {
                push(&mut found.did, sequence, FACTS);
            }
        }
        if telling.of_places && (self.node.is_some() || self.may_lead_on(&recorded.payload)) {
            self.follow(kind, sequence, told()?);
        }
        if telling.of_turn {
            self.turns.push(sequence);
        }
        Ok(())
    }

    /// Whether a stored text names a token that is asked for.
    fn may_be_asked_for(&self, payload: &[u8]) -> bool {
        !self.tokens.is_empty()
            && codec::numbers(payload, "\"token\":").any(|id| self.tokens.contains_key(&id))
    }

    /// Whether an event of a token's way may tell where others are, or be of the token that is asked
    /// for: most end at a join.
    fn may_lead_on(&self, payload: &[u8]) -> bool {
        !codec::mentions(payload, "\"fired\":")
            || self.mentions.iter().any(|text| codec::mentions(payload, text))
    }

    /// Follows tokens from node to node, and groups.
    fn follow(&mut self, kind: &str, sequence: u64, told: Told) {
        let Told { token, instance, .. } = told;
        match kind {
            "run_started" => self.enter(1, Place::at(&told.start, None), (None, None), sequence),
            "undo_started" => {
                self.enter(token, Place::at(&told.node, None), (None, None), sequence)
            }
            "token_routed" => self.route(sequence, told),
            "branches_spawned" => {
                let Some(group) = self.groups.get(&instance) else { return };
                let mut end = 0;
                let ends = group.branches.iter().map(|of| {
                    end += of.count;
                    (end, Arc::<str>::from(&*of.node))
                });
                let ends: Vec<(u64, Arc<str>)> = ends.collect();
                let mut of = ends.iter().peekable();
                for index in told.index..told.index + told.count {
                    while of.next_if(|(end, _)| *end <= index).is_some() {}
                    let Some((_, node)) = of.peek() else { break };
                    let branch = Some(Branch { instance, index });
                    let place = Place { node: Arc::clone(node), branch, failed: None };
                    self.enter(token + (index - told.index), place, (None, None), sequence);
                }
            }
            "join_fired" => {
                self.tell_of(instance, sequence);
                let by = self.groups.get(&instance).and_then(|group| group.by.as_ref());
                let place = Place::at(&told.node, by.and_then(|(_, place)| place.branch));
                self.enter(token, place, (None, Some(instance)), sequence);
            }
            _ => self.tell_of(instance, sequence),
        }
    }

    fn tell_of(&mut self, instance: InstanceId, sequence: u64) {
        if let Some(group) = self.groups.get_mut(&instance) {
            group.sequences.push(sequence);
        }
    }

    fn enter(
        &mut self,
        token: TokenId,
        place: Place,
        (from, out_of): (Option<&(TokenId, Place)>, Option<InstanceId>),
        sequence: u64,
    ) {
        if self.token == Some(token) || self.node.as_deref() == Some(&*place.node) {
            let (came, did, left) = (sequence, VecDeque::new(), None);
            let (from, place) = (from.cloned(), place.clone());
            self.tokens.insert(token, Found { came, did, left, place, from, out_of });
            if self.tokens.len() > EXPLAINED_TOKENS {
                self.tokens.pop_first();
                self.left_out += 1;
            }
        }
        self.places.insert(token, place);
    }

    fn route(&mut self, sequence: u64, told: Told) {
        let Told { token, fired, opened, extended, .. } = told;
        let by = self.places.remove(&token).map(|place| (token, place));
        let branch = by.as_ref().and_then(|(_, place)| place.branch);
        let taken = fired.iter().map(|fired| match fired {
            Fired::Moved { transition, .. } | Fired::Arrived { transition, .. } => *transition,
        });
        let made = opened.iter().flat_map(|one| &one.branches);
        let made = made.chain(extended.iter().map(|one| &one.branches));
        let taken = taken.chain(made.map(|branches| branches.transition));
        if let Some((_, place)) = &by
            && let Some((left, counts)) = self.left.get_mut(&*place.node)
        {
            *left += 1;
            taken.for_each(|index| *counts.entry(index).or_default() += 1);
            self.last.insert(place.node.to_string(), (sequence, token, place.clone()));
        }
        for Opened { instance, group, branches, .. } in opened {
            let (name, by) = (group, by.clone());
            let group = Group { name, by, branches, sequences: vec![sequence] };
            self.groups.insert(instance, group);
        }
        for Added { instance, branches } in extended {
            if let Some(group) = self.groups.get_mut(&instance) {
                group.branches.push(branches);
                group.sequences.push(sequence);
            }
        }
        for fired in fired {
            if let Fired::Moved { token, node, .. } = fired {
                self.enter(token, Place::at(&node, branch), (by.as_ref(), None), sequence);
            }
        }
        if let Some(found) = self.tokens.get_mut(&token) {
            found.left = Some(sequence);
        }
    }
}
