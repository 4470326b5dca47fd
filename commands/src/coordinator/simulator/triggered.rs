//! Whether each time and each event started one run, and none was left out.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use domain::ids::{RunId, WorkflowId};
use domain::limits;
use domain::run::Event;
use domain::run::event::{RunStarted, TriggeredBy};
use domain::trigger;

use super::cast::{After, Cast, EVERY, Often, RANDOM};
use super::views::Views;

/// Checks the runs that were started by time, and because others completed.
pub(super) fn check(views: &Views, cast: &Cast) {
    by_events(views, &cast.after);
    by_time(views, &cast.often);
}

/// The runs that a workflow's trigger has started, by what they were started for.
fn runs_of(views: &Views, workflow_id: WorkflowId) -> BTreeMap<&str, RunId> {
    let mut runs = BTreeMap::new();
    for started in views.starts() {
        let by = started.trigger.as_ref().filter(|by| by.workflow_id == workflow_id);
        if let Some(TriggeredBy { key, .. }) = by {
            let before = runs.insert(&**key, started.run_id);
            assert_eq!(before, None, "one run is started for {key}");
        }
    }
    runs
}

fn by_events(views: &Views, after: &After) {
    let starts: BTreeMap<RunId, &RunStarted> =
        views.starts().map(|started| (started.run_id, started)).collect();
    let depth = |started: &RunStarted| started.trigger.as_ref().map_or(0, |by| by.depth);
    let mut asked_for = BTreeMap::new();
    for seen in views.events.iter().filter(|seen| matches!(seen.event, Event::RunCompleted { .. }))
    {
        let started = starts[&seen.run_id];
        let top = started.parent.map_or(started, |parent| starts[&parent.root_run_id]);
        if after.is_chain || started.definition.name.starts_with(RANDOM) {
            asked_for.insert(seen.id.to_string(), depth(top));
        }
    }
    let runs = runs_of(views, after.workflow_id);
    let mut done = BTreeSet::new();
    for event in views.triggers.iter().filter(|one| one.trigger().workflow_id == after.workflow_id)
    {
        match event {
            trigger::Event::TriggerFired { key, run_id, .. } => {
                assert_eq!(runs.get(&**key), Some(run_id), "what was started for {key}");
                done.insert(key.clone());
            }
            trigger::Event::TriggerFailed { key, code, .. } => {
                assert_eq!(code, "trigger_chain_too_deep");
                assert_eq!(asked_for.get(key), Some(&limits::TRIGGER_DEPTH), "{key}");
                done.insert(key.clone());
            }
            trigger::Event::TriggerAdvanced { .. } => {}
            trigger::Event::TriggerMissed { .. } => panic!("no time was asked for: {event:?}"),
        }
    }
    assert!(done.iter().eq(asked_for.keys()), "{done:?} are done with of {asked_for:?}");
    assert!(runs.keys().all(|key| asked_for.contains_key(*key)), "{runs:?}");
}

/// Each time comes once, in order: it starts a run, or stands among those that were missed.
fn by_time(views: &Views, often: &Often) {
    let runs = runs_of(views, often.workflow_id);
    let next = |time: DateTime<Utc>| {
        let seconds = time.timestamp().div_euclid(EVERY) * EVERY + EVERY;
        DateTime::from_timestamp(seconds, 0).expect("a time")
    };
    let mut done = often.since;
    for event in views.triggers.iter().filter(|one| one.trigger().workflow_id == often.workflow_id)
    {
        match event {
            trigger::Event::TriggerFired { at, key, run_id, .. } => {
                assert_eq!(*at, next(done), "the time after {done}");
                assert_eq!(runs.get(&**key), Some(run_id), "what was started for {key}");
                done = *at;
            }
            trigger::Event::TriggerMissed { first, last, .. } => {
                assert_eq!(*first, next(done), "the time after {done}");
                done = *last;
            }
            trigger::Event::TriggerFailed { .. } | trigger::Event::TriggerAdvanced { .. } => {
                panic!("a schedule has no failures: {event:?}")
            }
        }
    }
    // What was started last may not have been noted when the schedule ended.
    let last = runs.keys().filter_map(|key| key.parse::<DateTime<Utc>>().ok()).max();
    let most = done + TimeDelta::seconds(EVERY);
    assert!(last.is_none_or(|last| last <= most), "{last:?} follows {done}");
}
