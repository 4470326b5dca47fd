//! What remains of a run's events once their content is dropped.

use crate::codec;
use crate::ids::WorkspaceId;
use crate::retention::{Keep, remains};
use crate::run::tests::fixture::Fixture;
use crate::run::{Event, Run};

/// A run folded from what remains is, after each event, where it was: the same tokens, groups,
/// timers and waits, and the same end.
pub(super) fn check(run: &Fixture) {
    for keep in [Keep::Header, Keep::Results] {
        let (mut whole, mut thinned) = (Run::default(), Run::default());
        for (event, at) in &run.events {
            whole.evolve(event, *at);
            thinned.evolve(&thin(event, keep), *at);
            assert_eq!(shape(&thinned), shape(&whole), "after {}", event.event_type());
        }
        let (whole, thinned) = (whole.closed().expect("an end"), thinned.closed().expect("an end"));
        assert_eq!((thinned.usage, thinned.ended_at), (whole.usage, whole.ended_at));
        let results = |run: &crate::run::state::Closed| {
            (run.output.clone(), run.error.clone(), run.header.input.clone())
        };
        match keep {
            Keep::Results => assert_eq!(results(thinned), results(whole)),
            Keep::Header | Keep::Full => {
                let (output, error, input) = results(thinned);
                assert!(output.is_none_or(|output| output.is_null()) && input.is_null());
                let kinds = |error: &crate::run::event::RunError| (error.code.clone(), error.kind);
                assert_eq!(error.as_deref().map(kinds), whole.error.as_deref().map(kinds));
                assert!(error.is_none_or(|error| error.message.is_empty()));
            }
        }
    }
}

/// An event as it is read once its content is dropped; dropping it again changes nothing.
fn thin(event: &Event, keep: Keep) -> Event {
    let encoded = codec::encode(event, WorkspaceId::new(uuid::Uuid::nil())).expect("it is stored");
    let (name, blob) = (event.event_type(), |_: &str| None);
    let rest = remains(name, &encoded.payload, keep, &blob).expect("it is read");
    let rest = rest.unwrap_or(encoded.payload);
    assert_eq!(remains(name, &rest, keep, &blob), Ok(None), "{name}");
    codec::decode(name, event.event_version(), &rest, &blob).expect("it is an event")
}

/// Where a run is, without what it knows.
fn shape(run: &Run) -> String {
    let Some(live) = run.live() else { return format!("{:?}", run.status()) };
    let tokens: Vec<_> = live.tokens.iter().map(|(id, token)| (id, &token.node)).collect();
    let groups: Vec<_> = live.instances.keys().collect();
    let (timers, waits, undone) = (&live.timers, &live.waits, live.completions.len());
    format!("{:?}", (run.status(), tokens, groups, live.unmade, timers, waits, undone))
}
