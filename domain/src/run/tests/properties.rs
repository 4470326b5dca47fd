//! The engine's invariants over random graphs, inputs, faults and schedules.
//!
//! A graph is a random tree of blocks (steps, waits, gates, children, choices, bounded loops,
//! fan-outs with every kind of join), laid out as a definition. A schedule is a list of random
//! numbers that choose which attempt is reported, with what, which signals, answers and ends of
//! children come, when the run is paused and resumed, and when the clock moves.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixture::{Fixture, error};
use super::replays::difference;
use crate::codec;
use crate::ids::{RunId, WorkspaceId};
use crate::run::command::{ChildReport, GateAnswer};
use crate::run::event::{Decision, FailureKind, Fired, RunError};
use crate::run::state::{Instance, Live, Phase, WaitKind, Waits};
use crate::run::{Command, Event, Run, RunStatus};

mod thinned;
mod undone;

use graphs::{Block, Layout, PEOPLE, SIGNALS, blocks, runner};
use undone::Undone;

/// Cases of a property.
const CASES: u32 = 2_000;

/// What a schedule does with the attempt that it chose.
fn outcome(choice: u32, faults: bool) -> Result<Value, FailureKind> {
    match choice % 10 {
        7 if faults => Err(FailureKind::Transient),
        8 if faults => Err(FailureKind::Permanent),
        9 if faults => Err(FailureKind::Timeout),
        _ => Ok(json!({"z": 1.0, "big": 1e17, "a": [2.50, {"y": 1, "$ref": 0}]})),
    }
}

/// Runs a graph by a schedule to its end, checking the invariants at every decision.
fn run_by(definition: &Value, items: usize, schedule: &[u32], faults: bool) -> Fixture {
    let mut run = Fixture::new(definition.clone());
    let mut shadow = Shadow::default();
    run.start(json!({"z": 0.50, "items": vec![json!(7.0); items], "a": {"y": 1, "b": 2e3}}))
        .expect("it starts");
    shadow.follow(&run);
    let mut steps = schedule.iter().copied().cycle();
    let mut next = || steps.next().unwrap_or_default();
    for step in 0..5_000 {
        let Run::Live(live) = &run.run else { return run };
        let choice = next();
        let before = run.run.clone();
        let choice_outside = if step < PLAYFUL { choice } else { CALM };
        let command = match outside(live, choice_outside, next(), faults) {
            Some(command) => command,
            None if !run.owed.is_empty() && (choice % 7 != 0 || live.next_due().is_none()) => {
                let (token, attempt) = run.owed[choice as usize % run.owed.len()];
                let result = outcome(next(), faults).map_err(error);
                if choice % 5 == 0 {
                    refuses_stale(&mut run, token, attempt + 1);
                }
                report(token, attempt, result)
            }
            None => {
                match live.next_due() {
                    Some(due) => {
                        run.now = run.now.max(due);
                        Command::Wake
                    }
                    // What it made while it was paused is handed out after that.
                    None if live.pause.is_some() => Command::Resume,
                    None => panic!("the run hangs: {live:#?}"),
                }
            }
        };
        let again = crate::run::decide(&before, &run.plan, &command, run.now);
        let decided = before.clone().execute(&run.plan, &command, run.now);
        assert_eq!(again, decided, "deciding again gives the same");
        run.when(&command).expect("what is owed is not refused");
        shadow.follow(&run);
        shadow.undone.check(&run, &command);
        is_alone_in_its_mutex(&run);
        if let Command::Report(report) = &command {
            refuses_stale(&mut run, report.token, report.attempt);
        }
    }
    panic!("the run did not end in 5,000 steps");
}

/// Who is in a node of a mutex and isn't waiting for it holds it; a free one is passed on.
fn is_alone_in_its_mutex(run: &Fixture) {
    let Run::Live(live) = &run.run else { return };
    assert_eq!(live.next_turn(), None, "a free mutex is passed on at once");
    for (id, token) in &live.tokens {
        let mutex = run.plan.node(&token.node).and_then(|node| node.mutex.as_ref());
        if let Some(mutex) = mutex.filter(|_| !matches!(token.phase, Phase::Blocked { .. })) {
            assert_eq!(live.mutexes[mutex].holder, Some(*id));
        }
    }
}

/// Steps in which a schedule may do what the run doesn't need. It repeats itself, and would else
/// pause and resume for ever.
const PLAYFUL: usize = 500;
/// A choice that leads to what the run needs only.
const CALM: u32 = 15;

/// What comes from outside, if anything does now: the run needs it, or the schedule likes it.
fn outside(live: &Live, choice: u32, more: u32, faults: bool) -> Option<Command> {
    if let Some(cancel) = undone::cancel(live, choice, more).filter(|_| faults) {
        return Some(cancel);
    }
    let is_idle = live.waits.total() == live.tokens.len() as u64 && live.next_due().is_none();
    let child = live.children.iter().nth(choice as usize % live.children.len().max(1));
    if let Some((token, run_id)) = child.filter(|_| is_idle || (12..15).contains(&(choice % 16))) {
        return Some(child_ends(*token, *run_id, more, faults));
    }
    let gate = live.gates.iter().nth(choice as usize % live.gates.len().max(1));
    let wanted = live.tokens.values().find_map(|token| match &token.phase {
        Phase::Waiting { signal: Some(name), .. } => Some(name.parse().expect("a name")),
        _ => None,
    });
    match (choice % 16, gate, wanted) {
        (0, ..) if live.pause.is_none() => Some(Command::Pause { reason: None }),
        (0..6, ..) if live.pause.is_some() => Some(Command::Resume),
        (6, ..) => {
            let name = SIGNALS[more as usize % 2].parse().expect("a name");
            let payload = if more.is_multiple_of(3) { json!(7) } else { json!({"ok": true}) };
            Some(Command::Signal { name, payload, transient: more.is_multiple_of(5) })
        }
        (7..10, Some(token), _) => Some(answer(live, *token, more, faults)),
        (10..12, _, Some(name)) => Some(wake(name)),
        (_, Some(token), _) if is_idle => Some(answer(live, *token, more, faults)),
        (_, None, Some(name)) if is_idle => Some(wake(name)),
        // Nothing else can bring it on: its attempts are handed out after the pause.
        _ if live.pause.is_some() && (is_idle || choice == CALM) => Some(Command::Resume),
        _ => None,
    }
}

fn wake(name: crate::ids::Name) -> Command {
    Command::Signal { name, payload: json!({"ok": true}), transient: false }
}

/// A child ends in some way.
fn child_ends(token: u64, run_id: RunId, more: u32, faults: bool) -> Command {
    let failed = [RunStatus::Failed, RunStatus::Cancelled, RunStatus::TimedOut];
    let (status, output, error) = match more {
        more if faults && more.is_multiple_of(2) => {
            let error = RunError {
                code: "broken".to_owned(),
                message: "it broke".to_owned(),
                kind: FailureKind::Permanent,
                node: None,
                attempt: None,
                detail: json!([1.0]),
            };
            (failed[more as usize % 3], None, Some(error))
        }
        _ => (RunStatus::Completed, Some(json!({"z": 1.0, "big": 1e17})), None),
    };
    Command::ReportChild(Box::new(ChildReport {
        token,
        run_id,
        status,
        output,
        error,
        adopted: None,
    }))
}

/// The next of the people answers.
fn answer(live: &Live, token: u64, more: u32, faults: bool) -> Command {
    let Phase::Gated { gate } = &live.tokens[&token].phase else { panic!("no gate at {token}") };
    let rejects = faults && more.is_multiple_of(3);
    Command::Answer(Box::new(GateAnswer {
        token,
        actor: PEOPLE[gate.answers.len()].to_owned(),
        roles: Vec::new(),
        decision: if rejects { Decision::Reject } else { Decision::Approve },
        value: json!({"n": 1.50}),
        comment: None,
    }))
}

fn report(
    token: u64,
    attempt: u32,
    result: Result<Value, crate::run::command::AttemptError>,
) -> Command {
    Command::Report(Box::new(crate::run::command::Report {
        token,
        attempt,
        result,
        usage: Default::default(),
        duration_ms: 0,
        adopted: None,
    }))
}

/// A second, late or foreign outcome changes nothing.
fn refuses_stale(run: &mut Fixture, token: u64, attempt: u32) {
    let before = (run.run.clone(), run.events.len());
    assert!(run.when(&report(token, attempt, Ok(json!("stale")))).is_err());
    assert_eq!((&run.run, run.events.len()), (&before.0, before.1));
}

/// The event as the journal gives it back.
fn stored(event: &Event) -> Event {
    let encoded = codec::encode(event, WorkspaceId::derived("", "w")).expect("it can be stored");
    let blobs = |hash: &str| encoded.blobs.iter().find(|(h, _)| h == hash).map(|(_, b)| b.clone());
    codec::decode(event.event_type(), event.event_version(), &encoded.payload, &blobs)
        .expect("what was stored is read")
}

/// The fold of the events so far, and what they say of tokens and groups.
#[derive(Default)]
struct Shadow {
    run: Run,
    seen: usize,
    made: BTreeMap<u64, bool>,
    declared: BTreeMap<u64, u64>,
    arrived: BTreeMap<u64, Vec<u64>>,
    fired: BTreeMap<u64, u32>,
    /// Gates that were opened, and whether they take answers.
    gates: BTreeMap<u64, bool>,
    signals: u64,
    /// Children that were started and haven't ended, by token.
    children: BTreeMap<u64, RunId>,
    undone: Undone,
}

impl Shadow {
    fn follow(&mut self, run: &Fixture) {
        for (event, at) in &run.events[self.seen..] {
            self.count(event);
            self.run.evolve(&stored(event), *at);
            let kept = serde_json::to_vec(&self.run).expect("a run has a JSON form");
            let back: Run = serde_json::from_slice(&kept).expect("a snapshot reads back");
            assert_eq!(back, self.run, "a snapshot is the state");
            self.run = back;
        }
        self.seen = run.events.len();
        let counted = self.run.live().map_or(self.seen as u64, |live| live.events);
        assert_eq!(counted, self.seen as u64, "every event is counted once");
        assert_eq!(self.run, run.run, "the fold is the state in memory");
        self.check();
        self.check_children(run);
    }

    fn count(&mut self, event: &Event) {
        self.undone.count(event);
        match event {
            Event::RunStarted(_) => {
                self.made.insert(1, true);
            }
            Event::TokenRouted { token, fired, opened, extended, .. } => {
                for one in extended {
                    *self.declared.get_mut(&one.instance).expect("open") += one.branches.count;
                }
                assert_eq!(self.made.insert(*token, false), Some(true), "a token ends once");
                for one in fired {
                    if let Fired::Moved { token, .. } = one {
                        assert_eq!(self.made.insert(*token, true), None);
                    }
                }
                for one in opened {
                    let declared = one.branches.iter().map(|branches| branches.count).sum();
                    assert_eq!(self.declared.insert(one.instance, declared), None);
                }
            }
            Event::BranchesSpawned { instance, index, token, count, .. } => {
                for offset in 0..*count {
                    assert_eq!(self.made.insert(token + offset, true), None);
                    self.arrived.entry(*instance).or_default().push(index + offset);
                }
            }
            Event::JoinFired { instance, token, .. } => {
                *self.fired.entry(*instance).or_default() += 1;
                assert_eq!(self.made.insert(*token, true), None);
            }
            Event::GateOpened(opened) => {
                assert_eq!(self.gates.insert(opened.token, true), None, "a gate opens once");
            }
            Event::GateAnswered(answered) => {
                assert_eq!(self.gates.get(&answered.token), Some(&true), "a closed gate is mute");
            }
            Event::GateClosed(closed) => {
                assert_eq!(self.gates.insert(closed.token, false), Some(true), "it closes once");
            }
            Event::ChildStarted(started) => {
                let before = self.children.insert(started.token, started.run_id);
                assert_eq!(before, None, "a token starts one child");
            }
            // The node waits no longer, and has said so to the child.
            Event::ChildEnded(ended) if ended.given_up => {
                assert_eq!(self.children.get(&ended.token), Some(&ended.run_id));
            }
            Event::ChildEnded(ended) => {
                let before = self.children.remove(&ended.token);
                assert_eq!(before, Some(ended.run_id), "a child ends once");
            }
            // Whatever was under way is over, and who was asked is told by this.
            Event::CompensationStarted(_) => {
                self.made.values_mut().for_each(|lives| *lives = false);
                self.gates.values_mut().for_each(|open| *open = false);
            }
            Event::UndoStarted { token, .. } => {
                assert_eq!(self.made.insert(*token, true), None);
            }
            Event::UndoSucceeded { token, .. }
            | Event::UndoFailed { token, retry_at: None, .. } => {
                assert_eq!(self.made.insert(*token, false), Some(true), "an undo ends once");
            }
            Event::SignalReceived(signal) => {
                self.signals += 1;
                assert_eq!(signal.number, self.signals, "signals are numbered");
            }
            _ => {}
        }
    }

    fn check(&self) {
        assert!(self.fired.values().all(|count| *count == 1), "a join fires at most once");
        for (instance, indices) in &self.arrived {
            let in_order = indices.windows(2).all(|pair| pair[0] < pair[1]);
            assert!(in_order, "branches are made once and in order: {indices:?}");
            assert!(indices.len() as u64 <= self.declared[instance]);
        }
        let Run::Live(live) = &self.run else { return };
        let unmade = live.instances.values().map(Instance::unmade).sum::<u64>();
        assert_eq!(live.unmade, unmade, "branches that are to be made are counted");
        for token in live.tokens.values() {
            if let Some(branch) = token.branch {
                let instance = live.instances.get(&branch.instance).expect("its group is alive");
                assert!(branch.index < instance.declared);
            }
        }
        for instance in live.instances.values() {
            if let Some(branch) = instance.parent.branch {
                assert!(live.instances.contains_key(&branch.instance), "its parent is alive");
            }
        }
        self.check_waits(live);
    }

    /// A child has ended, is waited for, or was given up: one of these.
    fn check_children(&self, run: &Fixture) {
        let mut known: Vec<_> = run.given_up.clone();
        known.extend(self.run.owed(&run.plan).children.iter().map(|(_, child)| *child));
        known.sort_unstable();
        let mut started: Vec<_> = self.children.values().copied().collect();
        started.sort_unstable();
        assert_eq!(known, started);
    }

    /// What is kept beside the tokens agrees with them.
    fn check_waits(&self, live: &Live) {
        let waiting = live.tokens.values().filter_map(|token| token.phase.waits_for());
        let mut waits = Waits::default();
        waiting.for_each(|kind| waits.begin(Some(kind)));
        assert_eq!(waits, live.waits);
        let rests = live.pause.is_none() && !live.waiting_on().has(WaitKind::Task);
        let status = self.run.status();
        assert_eq!(rests, matches!(status, Some(RunStatus::Waiting | RunStatus::Queued)));
        let children = live.tokens.iter().filter_map(|(id, token)| match &token.phase {
            Phase::AwaitingChild { run_id, .. } => Some((*id, *run_id)),
            _ => None,
        });
        assert_eq!(children.collect::<BTreeMap<_, _>>(), live.children);
        let is_gated = |phase: &Phase| matches!(phase, Phase::Gated { .. });
        let gated = live.tokens.iter().filter(|(_, token)| is_gated(&token.phase));
        let gates: BTreeSet<_> = gated.map(|(id, _)| *id).collect();
        assert_eq!(gates, live.gates);
        let open = self.gates.iter().filter(|(_, open)| **open);
        let open: BTreeSet<_> = open.map(|(id, _)| *id).collect();
        assert_eq!(gates, open, "who was asked is told when nobody waits any more");
        for timer in live.tokens.iter().filter_map(|(id, token)| token.phase.timer(*id)) {
            assert!(live.timers.contains(&timer), "{timer:?} is armed");
        }
        self.check_mutexes(live);
        let payloads =
            live.signals.kept.values().map(|one| crate::run::vars::size_of(&one.payload));
        assert_eq!(payloads.sum::<usize>(), live.signals.bytes);
    }

    /// At most one token is in a mutex; who waits for one is in its queue, once.
    fn check_mutexes(&self, live: &Live) {
        let mut queued = BTreeSet::new();
        for (name, mutex) in &live.mutexes {
            let phase = |id: &u64| live.tokens.get(id).map(|token| &token.phase);
            if let Some(holder) = &mutex.holder {
                let phase = phase(holder).expect("who holds a mutex is there");
                assert!(!matches!(phase, Phase::Blocked { .. }));
            }
            for (turn, id) in &mutex.queue {
                let waits = matches!(phase(id), Some(Phase::Blocked { mutex, turn: own })
                    if **mutex == **name && own == turn);
                assert!(waits && queued.insert(*id), "who is queued waits, once");
            }
        }
        let is_blocked = |phase: &Phase| matches!(phase, Phase::Blocked { .. });
        let blocked = live.tokens.iter().filter(|(_, token)| is_blocked(&token.phase));
        assert_eq!(blocked.map(|(id, _)| *id).collect::<BTreeSet<_>>(), queued);
    }
}

#[test]
fn every_schedule_with_faults_keeps_the_invariants_and_ends() {
    let schedules = prop::collection::vec(any::<u32>(), 8..64);
    let seen = RefCell::new(BTreeSet::new());
    runner(CASES)
        .run(&(blocks(), 0..4_usize, schedules, any::<bool>()), |(block, items, schedule, undo)| {
            // Where work is undone, there is some at first.
            let first = Block::Task { retries: true, undo: true };
            let block = if undo { Block::Sequence(vec![first, block]) } else { block };
            let definition = Layout::definition(&block, false, undo);
            let run = run_by(&definition, items, &schedule, true);
            prop_assert!(run.run.status().is_some_and(|status| status.is_terminal()));
            prop_assert_eq!(difference(&run, &run.plan), None, "it is decided again as it was");
            thinned::check(&run);
            seen.borrow_mut().extend(run.types());
            let adds = |(event, _): &(Event, _)| {
                matches!(event, Event::TokenRouted { extended, .. } if !extended.is_empty())
            };
            if run.events.iter().any(adds) {
                seen.borrow_mut().insert("extended");
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    for what in [
        "tokens_cancelled",
        "mutex_awaited",
        "join_fired",
        "gate_closed",
        "extended",
        "undo_succeeded",
        "undo_failed",
    ] {
        assert!(seen.borrow().contains(what), "no graph came to {what}");
    }
}

#[test]
fn with_wait_all_and_pure_nodes_every_schedule_gives_the_same_output() {
    let schedule = || prop::collection::vec(any::<u32>(), 8..64);
    runner(CASES)
        .run(&(blocks(), 0..4_usize, schedule(), schedule()), |(block, items, one, other)| {
            let definition = Layout::definition(&block, true, false);
            let one = run_by(&definition, items, &one, false);
            let other = run_by(&definition, items, &other, false);
            prop_assert_eq!(&one.closed().output, &other.closed().output);
            prop_assert_eq!(&one.closed().error, &other.closed().error);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
