//! What an explanation is made of, read from a run's events: all of them in turn, or those that a
//! [`Search`] has found.

use chassis::journal::Sieve;
use chrono::{DateTime, Utc};
use domain::run::event::TokenId;
use domain::run::{Event, Run};
use protocol::{Explain, Rejection};

use super::scene::Scene;
use super::search::Search;
use super::told;
use super::trace::{Trace, Wanted};
use crate::histories::Histories;
use crate::time_travel::Folded;
use crate::timeline::{Moment, Timeline};

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
    /// and those after the last state that is kept.
    pub(super) async fn read_parts(&self, question: Question<'_>) -> Result<Read, Rejection> {
        let Question { id, asked, started, sources } = question;
        let Folded { run, sequence, at, .. } = self.reached(id, asked.at, started).await?;
        let mut search = Search::of(asked, sources);
        let mentions = search.mentions.clone();
        let mentions: Vec<&str> = mentions.iter().map(|text| &**text).collect();
        let sieve = Sieve { seldom: search.seldom(), mentions: &mentions };
        let looked =
            self.each_stored(id, sequence, sieve, |stored, event| search.take(stored, event));
        looked.await?;
        let (found, left_out) = (search.found(), search.left_out);
        let (these, left) = (search.tokens.keys().copied().collect(), search.left.clone());
        let mut parts = Parts {
            trace: Trace::new(Wanted { these, ..Wanted::default() }, sources),
            timeline: Timeline::default(),
            scene: search.into_scene(),
        };
        self.visit(id, &found, |moment, event| parts.take(moment, event)).await?;
        let Parts { mut trace, mut timeline, .. } = parts;
        let is_there = |id| run.live().is_some_and(|live| live.tokens.contains_key(&id));
        timeline.cancel_but(is_there, Moment { sequence, at });
        trace.left_out = left_out;
        for (node, (left, taken)) in left {
            let source = trace.sources.entry(node).or_default();
            (source.left, source.taken) = (left, taken);
        }
        Ok(Read { run, timeline, trace, sequence })
    }
}

/// The parts of a run that an answer is made of.
struct Parts {
    trace: Trace,
    timeline: Timeline,
    scene: Scene,
}

impl Parts {
    fn take(&mut self, moment: Moment, event: &Event) {
        let Moment { sequence, at } = moment;
        self.trace.take(event, sequence, at, &self.scene);
        self.scene.take(event);
        let is_asked = |token: &TokenId| self.timeline.entry_of(*token).is_some();
        match event {
            // Where it leads to is told by the scene.
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
        let is_new = |id: &&TokenId| self.timeline.entry_of(**id).is_none();
        let new: Vec<TokenId> = self.trace.tokens.keys().filter(is_new).copied().collect();
        for id in new {
            if let Some((node, branch, group)) = self.scene.place(id) {
                self.timeline.stands(id, node, (branch, group), moment);
            }
        }
    }
}
