//! What an explanation is made of, read from a run's events: all of them in turn, or those that a
//! [`Search`] has found, with the run as it was at each.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use domain::run::event::TokenId;
use domain::run::{Event, Run};
use protocol::{Explain, Rejection};

use super::search::Search;
use super::told;
use super::trace::{Trace, Wanted};
use crate::histories::Histories;
use crate::time_travel::Folded;
use crate::timeline::{Moment, Timeline};
use crate::visit::Visitor;

/// What is asked of which run.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) id: &'a str,
    pub(super) asked: &'a Explain,
    pub(super) started: DateTime<Utc>,
    /// The nodes from which a transition leads to the one that is asked for.
    pub(super) sources: &'a [String],
}

/// What was read of a run.
pub(super) struct Read {
    pub(super) run: Run,
    /// At least of the tokens that are asked for.
    pub(super) timeline: Timeline,
    pub(super) trace: Trace,
    pub(super) sequence: u64,
}

impl Histories<'_> {
    /// Reads and folds all events.
    pub(super) async fn read_whole(&self, question: Question<'_>) -> Result<Read, Rejection> {
        let Question { id, asked, started, sources } = question;
        let Explain { token, node, .. } = asked.clone();
        let mut read = Read {
            run: Run::default(),
            timeline: Timeline::default(),
            trace: Trace::new(Wanted { token, node, ..Wanted::default() }, sources),
            sequence: 0,
        };
        self.walk(id, asked.at, started, |sequence, at, event| {
            read.trace.take(event, sequence, at, &read.run);
            read.timeline.take(event, sequence, at);
            read.run.evolve(event, at);
            read.sequence = sequence;
        })
        .await?;
        Ok(read)
    }

    /// The same of a run of which states are kept: decoded are the events that the answer is made of,
    /// and those between them and a state that is kept.
    pub(super) async fn read_parts(&self, question: Question<'_>) -> Result<Read, Rejection> {
        let Question { id, asked, started, sources } = question;
        let Folded { run, sequence, at, .. } = self.reached(id, asked.at, started).await?;
        let mut search = Search::of(asked, sources);
        self.each_stored(id, sequence, |recorded, event| search.take(recorded, event)).await?;
        if asked.node.is_none() && !search.tokens.is_empty() {
            let mut entries = Entries(&mut search);
            let came = entries.0.came();
            self.visit(id, &came, &mut entries).await?;
        }
        let these: BTreeSet<TokenId> = search.tokens.keys().copied().collect();
        let mut parts = Parts {
            trace: Trace::new(Wanted { these, ..Wanted::default() }, sources),
            timeline: Timeline::default(),
        };
        self.visit(id, &search.found(), &mut parts).await?;
        let Parts { mut trace, mut timeline } = parts;
        let is_there = |id| run.live().is_some_and(|live| live.tokens.contains_key(&id));
        timeline.cancel_but(is_there, Moment { sequence, at });
        trace.left_out = search.left_out;
        for (node, (left, taken)) in search.left {
            let source = trace.sources.entry(node).or_default();
            (source.left, source.taken) = (left, taken);
        }
        Ok(Read { run, timeline, trace, sequence })
    }
}

/// The tokens that are asked for, as they come.
struct Entries<'a>(&'a mut Search);

impl Visitor for Entries<'_> {
    fn before(&mut self, _: Moment, _: &Event, _: &Run) {}

    fn after(&mut self, _: Moment, run: &Run) {
        let Some(live) = run.live() else { return };
        let tokens: Vec<TokenId> = self.0.tokens.keys().copied().collect();
        for id in tokens {
            let branch = live.tokens.get(&id).and_then(|token| token.branch);
            self.0.is_in(id, branch.map(|branch| branch.instance));
        }
    }
}

/// The parts of a run that an answer is made of.
struct Parts {
    trace: Trace,
    timeline: Timeline,
}

impl Visitor for Parts {
    fn before(&mut self, moment: Moment, event: &Event, run: &Run) {
        let Moment { sequence, at } = moment;
        self.trace.take(event, sequence, at, run);
        let is_asked = |token: &TokenId| self.timeline.entry_of(*token).is_some();
        match event {
            // Where it leads to is told by the run after it.
            Event::TokenRouted { token, failed, .. } if is_asked(token) => {
                let left = Event::TokenRouted {
                    token: *token,
                    considered: Vec::new(),
                    fired: Vec::new(),
                    opened: Vec::new(),
                    extended: Vec::new(),
                    failed: *failed,
                };
                self.timeline.take(&left, sequence, at);
            }
            Event::RunQueued(_) | Event::RunAdmitted { .. } => {
                self.timeline.take(event, sequence, at);
            }
            _ if told::token_of(event).as_ref().is_some_and(is_asked) => {
                self.timeline.take(event, sequence, at);
            }
            _ => {}
        }
    }

    fn after(&mut self, moment: Moment, run: &Run) {
        let Some(live) = run.live() else { return };
        let is_new = |id: &&TokenId| self.timeline.entry_of(**id).is_none();
        let new: Vec<TokenId> = self.trace.tokens.keys().filter(is_new).copied().collect();
        for id in new {
            let Some(token) = live.tokens.get(&id) else { continue };
            let instance = token.branch.and_then(|branch| live.instances.get(&branch.instance));
            let group = instance.and_then(|instance| instance.group.clone());
            self.timeline.stands(id, &token.node, (token.branch, group), moment);
        }
    }
}
