//! Why a run is where it is: what its events record is put together with its definition. Of a long
//! run only those are decoded that an answer is made of ([`search`]).

use std::collections::BTreeMap;

use domain::definition::{Definition, Transition};
use domain::ids::{RunId, WorkspaceId};
use domain::run::Run;
use domain::run::event::{Arithmetic, InstanceId, TokenId, TransitionIndex};
use protocol::explanation::{
    Came, Explain, Explanation, JoinExplanation, LedTo, TokenExplanation, Way,
};
use protocol::{Rejection, RejectionKind, RunError, TimelineEntry, Waiting};

use crate::histories::Histories;
use crate::{refusal, waiting};

mod read;
mod routing;
mod scene;
mod search;
mod told;
mod trace;

use read::{Question, Read};
use routing::{NOTHING, Transitions};
use trace::{Origin, Traced};

/// Entries of what a run waits for that an explanation has.
const WAITING: usize = 20;

/// Events that are read sooner than those are found that matter. In tests no run is so short.
const SHORT: u64 = if cfg!(test) { 1 } else { 8_000 };

impl Histories<'_> {
    /// Explains a run, and the tokens that are asked for.
    ///
    /// # Errors
    /// Where the run isn't there or hasn't what is asked for, and where events can't be read.
    pub async fn explained(
        &self,
        workspace_id: WorkspaceId,
        run_id: RunId,
        asked: Explain,
    ) -> Result<Explanation, Rejection> {
        let id = run_id.to_string();
        let started = self.run_started(workspace_id, &id).await?;
        let definition = &started.definition;
        let definition = self.definition_at(&definition.id.to_string(), definition.version).await?;
        let definition = definition.ok_or_else(|| {
            refusal::damaged(&id, &"the definition that it follows isn't in the journal")
        })?;
        if let Some(node) = asked.node.as_ref().filter(|node| !definition.nodes.contains_key(*node))
        {
            let message = format!("the definition of {id} has no node {node:?}");
            return Err(Rejection::new(RejectionKind::Invalid, "no_such_node", message));
        }
        let transitions = Transitions::of(&definition);
        let into = asked.node.iter().flat_map(|node| transitions.leading_to(node));
        let sources: Vec<String> = into.map(|(_, one)| one.from.clone()).collect();
        let question =
            Question { id: &id, asked: &asked, started: started.started_at, sources: &sources };
        // Of a short run, and where no states are kept, all is read.
        let read = match self.start_from(&id, asked.at).await? {
            (_, folded) if folded <= SHORT => self.read_whole(question).await?,
            _ => self.read_parts(question).await?,
        };
        if let Some(token) = asked.token.filter(|token| !read.trace.tokens.contains_key(token)) {
            let message = format!("{id} has no token {token} at event {}", read.sequence);
            return Err(Rejection::new(RejectionKind::Invalid, "no_such_token", message));
        }
        let mut waiting = self.waiting_of(run_id, &read.run, read.sequence).await?;
        let more = waiting.items.len().saturating_sub(WAITING) as u64;
        waiting.items.truncate(WAITING);
        waiting.left_out += more;
        let known =
            Known { run_id, definition: &definition, transitions: &transitions, read: &read };
        Ok(known.explanation(waiting, asked.node.as_deref()))
    }
}

/// What an explanation is made of.
struct Known<'a> {
    run_id: RunId,
    definition: &'a Definition,
    transitions: &'a Transitions<'a>,
    read: &'a Read,
}

impl Known<'_> {
    fn explanation(&self, waiting: Waiting, node: Option<&str>) -> Explanation {
        let Read { run, trace, sequence, .. } = self.read;
        let entries = &self.read.timeline.entries;
        let wanted = entries.iter().rev().filter(|entry| trace.tokens.contains_key(&entry.token));
        let (why, error) = standing(run, &waiting);
        Explanation {
            run_id: self.run_id.to_string(),
            sequence: *sequence,
            status: waiting.status,
            why,
            error,
            because: trace.led.iter().cloned().collect(),
            waiting: waiting.items,
            waiting_left_out: waiting.left_out,
            tokens: wanted.filter_map(|entry| self.token(entry)).collect(),
            tokens_left_out: trace.left_out,
            ways: node.map(|node| self.ways(node)).unwrap_or_default(),
        }
    }

    fn token(&self, entry: &TimelineEntry) -> Option<TokenExplanation> {
        let traced = self.read.trace.tokens.get(&entry.token)?;
        let live = self.read.run.live();
        let token = live.and_then(|live| Some((live, live.tokens.get(&entry.token)?)));
        let waits_for = token.map(|(live, token)| {
            let is_own = waiting::is_own(self.definition, token);
            waiting::of_token(live, self.run_id, entry.token, token, is_own)
        });
        let left = traced.left.as_ref();
        Some(TokenExplanation {
            token: entry.token,
            node: entry.node.clone(),
            group: entry.group.clone(),
            index: entry.index,
            status: entry.status.clone(),
            came: self.came(traced),
            did: traced.did.iter().cloned().collect(),
            waits_for,
            left: left.map(|routed| self.transitions.left(&entry.node, routed)),
            join: self.read.timeline.instance_of(entry.token).and_then(|id| self.join(id)),
        })
    }

    fn came(&self, traced: &Traced) -> Came {
        let came = |by: &str, from_token: Option<TokenId>| Came {
            by: by.to_owned(),
            sequence: traced.sequence,
            from_token,
            from_node: traced.from_node.clone(),
            taken: None,
            join: None,
        };
        match &traced.came {
            Origin::Start => came("start", None),
            Origin::Transition { from, transition, read, iteration } => {
                let led_to = iteration.map(|count| LedTo { iteration: Some(count), ..NOTHING });
                let taken = self.transitions.fired(*transition, read.clone(), led_to);
                Came { taken, ..came("transition", Some(*from)) }
            }
            Origin::Branch { instance, transition } => {
                let group = self.read.trace.groups.get(instance);
                let made = group.and_then(|group| {
                    group.branches.iter().rfind(|made| made.transition == *transition)
                });
                let taken = made.and_then(|made| {
                    let (instance, branches) = (Some(*instance), Some(made.count));
                    let led_to = LedTo { instance, branches, iteration: made.iteration, ..NOTHING };
                    self.transitions.fired(*transition, made.read.clone(), Some(led_to))
                });
                Came { taken, ..came("branch", group.map(|group| group.by)) }
            }
            Origin::Join { instance } => {
                let by = self.read.trace.groups.get(instance).map(|group| group.by);
                Came { join: self.join(*instance), ..came("join", by) }
            }
            Origin::Undo { of } => came("undo", Some(*of)),
        }
    }

    /// A join: as it was decided, or as it stands.
    fn join(&self, id: InstanceId) -> Option<JoinExplanation> {
        let group = self.read.trace.groups.get(&id)?;
        let open = self.read.run.live().and_then(|live| live.instances.get(&id));
        let spec = group.name.as_ref().and_then(|name| {
            let joins = &mut self.definition.transitions.iter();
            joins.find_map(|one| {
                Some((&one.to, one.join.as_ref().filter(|join| join.group == *name)?))
            })
        });
        let closing = group.closed.as_ref();
        let numbers = closing.and_then(|closing| closing.arithmetic).or_else(|| {
            open.map(|open| Arithmetic {
                declared: open.declared,
                arrived: open.arrived.len() as u64,
                failed: open.failed.len() as u64,
                ended: open.ended.len() as u64,
                needed: spec.map_or(0, |(_, join)| open.needed(join)),
            })
        });
        let made = || group.branches.iter().map(|made| made.count).sum();
        let (declared, arrived, failed, ended, needed) = match numbers {
            Some(of) => (of.declared, of.arrived, of.failed, of.ended, Some(of.needed)),
            None => (made(), 0, 0, 0, None),
        };
        let verdict = match (closing, open) {
            (Some(closing), _) => closing.verdict,
            (None, Some(_)) => "waits",
            (None, None) => "cancelled",
        };
        Some(JoinExplanation {
            instance: id,
            group: group.name.clone(),
            node: closing
                .and_then(|closing| closing.node.clone())
                .or_else(|| spec.map(|(node, _)| node.clone())),
            verdict: verdict.to_owned(),
            sequence: closing.map(|closing| closing.sequence),
            expected: declared,
            arrived,
            failed,
            ended,
            needed: needed.filter(|_| spec.is_some()),
            timed_out: closing.is_some_and(|closing| closing.timed_out),
            completed_by: closing.and_then(|closing| closing.completed_by),
            error: closing.and_then(|closing| closing.error.as_ref()).map(RunError::from),
        })
    }

    /// The transitions that lead to a node.
    fn ways(&self, node: &str) -> Vec<Way> {
        let way = |(index, one): (TransitionIndex, &Transition)| {
            let source = self.read.trace.sources.get(&one.from);
            let last = source.and_then(|source| source.last.as_ref());
            Way {
                transition: index,
                from: one.from.clone(),
                left: source.map_or(0, |source| source.left),
                taken: source.and_then(|source| source.taken.get(&index).copied()).unwrap_or(0),
                token: last.map(|(token, _)| *token),
                sequence: last.map(|(_, routed)| routed.sequence),
                last: last.and_then(|(_, routed)| self.transitions.one(index, routed)),
            }
        };
        self.transitions.leading_to(node).map(way).collect()
    }
}

/// How a run stands, or why it ended, in a sentence; and its error.
fn standing(run: &Run, waiting: &Waiting) -> (String, Option<RunError>) {
    let mut why = told::standing(waiting.status).to_owned();
    let Run::Closed(closed) = run else {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for item in &waiting.items {
            *counts.entry(&item.what).or_default() += 1;
        }
        let more = waiting.left_out > 0;
        let kinds = counts.iter().map(|(kind, count)| format!("{count} {kind}"));
        let kinds: Vec<String> = kinds.chain(more.then(|| "more".to_owned())).collect();
        if !kinds.is_empty() {
            why = format!("{why}; it waits for: {}", kinds.join(", "));
        }
        return (why, None);
    };
    let error = closed.failure();
    if let Some(error) = &error {
        let at = error.node.as_ref().map(|node| format!(" at {node}")).unwrap_or_default();
        why = format!("{why}{at}: {} ({})", error.code, error.message);
    } else if let Some(reason) = &closed.reason {
        why = format!("{why}: {reason}");
    }
    (why, error.as_ref().map(RunError::from))
}
