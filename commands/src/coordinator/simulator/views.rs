//! What happened, as the journal tells it.

use std::collections::BTreeMap;

use domain::codec;
use domain::ids::{EventId, RunId};
use domain::rate::Book;
use domain::run::event::RunStarted;
use domain::run::state::Live;
use domain::run::{Event, Run};
use domain::trigger;
use tokio::time::Instant;

use super::world::World;

/// The runs and the triggers as their events tell.
#[derive(Default)]
pub(super) struct Views {
    position: u64,
    pub(super) runs: BTreeMap<RunId, Run>,
    /// The events of all runs, in the order of their positions.
    pub(super) events: Vec<Seen>,
    pub(super) triggers: Vec<trigger::Event>,
    /// How fast runs began.
    rates: Book,
}

/// An event of a run.
pub(super) struct Seen {
    pub(super) run_id: RunId,
    pub(super) id: EventId,
    /// When it became durable; no clock jumps there.
    pub(super) at: Instant,
    pub(super) event: Event,
}

impl Views {
    /// Reads what is new.
    pub(super) fn follow(&mut self, world: &World) {
        for (recorded, at) in world.store.events_after(self.position) {
            self.position = recorded.position;
            let (event_type, version) = (&recorded.event_type, recorded.event_version);
            let payload = |hash: &str| world.store.payload(hash);
            match &*recorded.aggregate_type {
                "run" => {
                    let run_id = recorded.aggregate_id.parse().expect("a run's id");
                    let event = codec::decode(event_type, version, &recorded.payload, &payload);
                    let event: Event = event.expect("what was stored is read");
                    let run = self.runs.entry(run_id).or_default();
                    let entered = self.rates.enter(run, &event, recorded.recorded_at);
                    entered.unwrap_or_else(|problem| panic!("{run_id}: {problem}"));
                    run.evolve(&event, recorded.recorded_at);
                    self.events.push(Seen { run_id, id: EventId::new(recorded.id), at, event });
                }
                trigger::AGGREGATE => {
                    let event = codec::decode(event_type, version, &recorded.payload, &payload);
                    self.triggers.push(event.expect("what was stored is read"));
                }
                _ => {}
            }
        }
    }

    /// The last event that was read.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn live(&self) -> Vec<(RunId, &Live)> {
        self.runs.iter().filter_map(|(run_id, run)| Some((*run_id, run.live()?))).collect()
    }

    /// The first events of all runs.
    pub(super) fn starts(&self) -> impl Iterator<Item = &RunStarted> {
        self.events.iter().filter_map(|seen| match &seen.event {
            Event::RunStarted(started) => Some(&**started),
            _ => None,
        })
    }
}
