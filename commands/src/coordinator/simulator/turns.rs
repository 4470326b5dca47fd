//! Whether runs with a concurrency key took their turns: looked at position by position.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::definition::Overflow;
use domain::ids::{DefinitionId, RunId};
use domain::run::Event;
use domain::run::event::{Admission, QueueReason};
use tokio::time::Instant;

use super::views::Seen;

/// How long after an event whoever decides knows of it, and how long after a decision its event is
/// there, whatever fails meanwhile.
const KNOWN: Duration = Duration::from_secs(10);

/// What is counted together.
type Scope = (DefinitionId, Option<String>);
type Place = (DateTime<Utc>, RunId);

/// The runs of a key, as far as was looked at.
#[derive(Default)]
struct Key {
    /// When runs were held back, over all of the history.
    held: BTreeMap<RunId, Vec<Instant>>,
    /// With their limits.
    going: BTreeMap<RunId, usize>,
    waiting: BTreeMap<Place, Waits>,
    /// What has happened, to be told where it shouldn't have.
    told: Vec<String>,
}

struct Waits {
    /// Since when nothing of this has changed.
    since: Instant,
    is_paused: bool,
    is_paused_with_workflow: bool,
}

impl Waits {
    /// Whether it might have been let in, as everybody knew, going by what has happened so far.
    fn is_ready(&self, now: Instant) -> bool {
        !self.is_paused && !self.is_paused_with_workflow && now - self.since >= KNOWN
    }
}

/// Whether a run is held back from now on.
const fn is_hold(event: &Event) -> bool {
    matches!(event, Event::RunPaused { .. } | Event::RunQueued(QueueReason::WorkflowPaused { .. }))
}

/// Checks that no more runs of a key go on than may, that none is let in before one that has waited
/// for longer, and that a run is displaced by one that may.
pub(super) fn check(events: &[Seen]) {
    let mut runs: BTreeMap<RunId, (Scope, Admission)> = BTreeMap::new();
    let mut keys: BTreeMap<Scope, Key> = BTreeMap::new();
    let mut displaced: Vec<(RunId, RunId)> = Vec::new();
    for seen in events {
        if let Event::RunStarted(started) = &seen.event
            && let Some(admission) = &started.admission
        {
            let scope = (started.definition.id, admission.key.clone());
            runs.insert(seen.run_id, (scope, admission.clone()));
        }
        if let Some((scope, _)) = runs.get(&seen.run_id).filter(|_| is_hold(&seen.event)) {
            let held = &mut keys.entry(scope.clone()).or_default().held;
            held.entry(seen.run_id).or_default().push(seen.at);
        }
    }
    for seen in events {
        let Some((scope, admission)) = runs.get(&seen.run_id) else { continue };
        keys.entry(scope.clone()).or_default().follow(seen, admission);
        displaced.extend(by_whom(&seen.event).map(|by| (seen.run_id, by)));
    }
    for (run_id, by) in displaced {
        let (older, newer) = (&runs[&run_id], &runs[&by]);
        assert_eq!(older.0, newer.0, "{run_id} makes room for one of its key");
        assert!(run_id != by && newer.1.then == Overflow::CancelOldest, "{run_id} for {by}");
    }
}

/// The run that takes the place of one that is cancelled for it.
fn by_whom(event: &Event) -> Option<RunId> {
    match event {
        Event::RunCancelled { reason: Some(reason), code: Some(code) }
            if code == "concurrency_replaced" =>
        {
            let named = reason.split(' ').find_map(|word| word.parse().ok());
            Some(named.expect("the reason names the newer run"))
        }
        _ => None,
    }
}

impl Key {
    /// Whether a run is held back by a decision that may have been made by now.
    fn is_held_soon(&self, run_id: RunId, now: Instant) -> bool {
        let soon = now..now + KNOWN;
        self.held.get(&run_id).is_some_and(|held| held.iter().any(|at| soon.contains(at)))
    }

    fn follow(&mut self, seen: &Seen, admission: &Admission) {
        let place = (admission.rank, seen.run_id);
        let limit = admission.limit.map_or(usize::MAX, |limit| limit as usize);
        self.told.push(format!("{:?} {} {:?}", seen.at, seen.run_id, seen.event.event_type()));
        match &seen.event {
            Event::RunQueued(reason) => {
                let is_paused = self.waiting.get(&place).is_some_and(|waits| waits.is_paused);
                let is_paused_with_workflow = matches!(reason, QueueReason::WorkflowPaused { .. });
                let waits = Waits { since: seen.at, is_paused, is_paused_with_workflow };
                self.waiting.insert(place, waits);
            }
            Event::RunPaused { .. } | Event::RunResumed {} => {
                if let Some(waits) = self.waiting.get_mut(&place) {
                    waits.is_paused = matches!(seen.event, Event::RunPaused { .. });
                    waits.since = seen.at;
                }
            }
            Event::RunAdmitted { .. } => {
                self.waiting.remove(&place);
                self.going.insert(seen.run_id, limit);
                // Versions have other limits. Of those that go on any may have been let in last.
                let (going, told) = (self.going.len(), &self.told);
                let most = self.going.values().max().copied().unwrap_or_default();
                assert!(going <= most, "{going} go on, and {most} may: {place:?}\n{told:#?}");
                // Those that are let in at the same time may be recorded in any order.
                let before = self.waiting.range(..place);
                let is_ready = |(_, run_id): &Place, waits: &Waits| {
                    waits.is_ready(seen.at) && !self.is_held_soon(*run_id, seen.at)
                };
                let ready = before.filter(|(place, waits)| is_ready(place, waits));
                let passed: Vec<_> = ready.map(|(place, _)| place).collect();
                assert!(passed.len() <= most - going, "{place:?} passed {passed:?}\n{told:#?}");
            }
            event if event.ends_run() => {
                self.waiting.remove(&place);
                self.going.remove(&seen.run_id);
            }
            _ => {}
        }
    }
}
