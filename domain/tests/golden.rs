//! Every event ever written decodes: one stored payload per event type and version.
//!
//! The files are never changed. A new event gets a new file; a changed one a new version, its
//! file, and an upcaster for the old. Fields that a version has got since have a file more,
//! `<type>.v<version>.<what>.json`.

use std::path::{Path, PathBuf};

use domain::access;
use domain::codec::{Stored, decode, encode};
use domain::experiment;
use domain::hold;
use domain::ids::WorkspaceId;
use domain::retention;
use domain::run::Event;
use domain::trigger;
use serde::Serialize;
use uuid::Uuid;

const VARIANTS: usize = 39;

/// A new variant doesn't compile here until it has a number, and then fails until it has a file.
fn number(event: &Event) -> usize {
    match event {
        Event::RunStarted(_) => 0,
        Event::TaskSucceeded { .. } => 1,
        Event::TaskFailed { .. } => 2,
        Event::RetryStarted { .. } => 3,
        Event::NodeComputed { .. } => 4,
        Event::NodeFailed { .. } => 5,
        Event::TokenRouted { .. } => 6,
        Event::BranchesSpawned { .. } => 7,
        Event::JoinFired { .. } => 8,
        Event::JoinFailed { .. } => 9,
        Event::GroupEnded { .. } => 10,
        Event::RunCompleted { .. } => 11,
        Event::RunFailed { .. } => 12,
        Event::RunCancelled { .. } => 13,
        Event::RunTimedOut { .. } => 14,
        Event::TaskHandedOut { .. } => 15,
        Event::WaitStarted { .. } => 16,
        Event::WaitEnded { .. } => 17,
        Event::SignalReceived(_) => 18,
        Event::GateOpened(_) => 19,
        Event::GateAnswered(_) => 20,
        Event::GateClosed(_) => 21,
        Event::EventEmitted { .. } => 22,
        Event::RunPaused { .. } => 23,
        Event::RunResumed {} => 24,
        Event::ChildStarted(_) => 25,
        Event::ChildEnded(_) => 26,
        Event::TokensCancelled(_) => 27,
        Event::MutexAwaited { .. } => 28,
        Event::MutexTaken { .. } => 29,
        Event::CompensationStarted(_) => 30,
        Event::UndoStarted { .. } => 31,
        Event::UndoSucceeded { .. } => 32,
        Event::UndoFailed { .. } => 33,
        Event::CompensationEnded(_) => 34,
        Event::RunQueued(_) => 35,
        Event::RunAdmitted { .. } => 36,
        Event::RunForked(_) => 37,
        Event::MetricEmitted { .. } => 38,
    }
}

fn files(family: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(family);
    let entries = std::fs::read_dir(folder).expect("the golden files are there");
    entries.map(|entry| entry.expect("the folder can be read").path()).collect()
}

fn type_and_version(file: &Path) -> (String, u32) {
    let name = file.file_name().expect("a file").to_str().expect("ASCII");
    let (event_type, rest) = name.split_once(".v").expect("<type>.v<version>.json");
    let (version, _) = rest.split_once('.').expect("<type>.v<version>.json");
    (event_type.to_owned(), version.parse().expect("a version"))
}

/// Reads all files of a family: each decodes, and what this release writes encodes to the same.
fn stored<E: Stored + Serialize, const VARIANTS: usize>(
    family: &str,
    number: impl Fn(&E) -> usize,
    named: impl Fn(&E) -> (&'static str, u32),
) {
    let mut seen = [false; VARIANTS];
    for file in files(family) {
        let (event_type, version) = type_and_version(&file);
        let stored = std::fs::read(&file).expect("the file can be read");
        let event: E = decode(&event_type, version, &stored, &|_| None).expect(&event_type);
        let (name, newest) = named(&event);
        assert_eq!(name, event_type);
        seen[number(&event)] = true;
        if version == newest {
            let encoded = encode(&event, WorkspaceId::new(Uuid::nil())).expect(&event_type);
            let text = String::from_utf8(encoded.payload).expect("JSON is UTF-8");
            assert_eq!(text, String::from_utf8_lossy(&stored), "{event_type}");
        }
    }
    assert_eq!(seen, [true; VARIANTS], "an event has no golden file");
}

#[test]
fn every_stored_run_event_decodes_and_encodes_to_the_same_bytes() {
    let named = |event: &Event| (event.event_type(), event.event_version());
    stored::<Event, VARIANTS>("run", number, named);
}

/// As above.
const fn number_of_trigger(event: &trigger::Event) -> usize {
    match event {
        trigger::Event::TriggerFired { .. } => 0,
        trigger::Event::TriggerFailed { .. } => 1,
        trigger::Event::TriggerMissed { .. } => 2,
        trigger::Event::TriggerAdvanced { .. } => 3,
    }
}

#[test]
fn every_stored_trigger_event_decodes_and_encodes_to_the_same_bytes() {
    let named = |event: &trigger::Event| (event.event_type(), event.event_version());
    const VARIANTS: usize = trigger::Event::TYPES.len();
    stored::<trigger::Event, VARIANTS>("trigger", number_of_trigger, named);
}

/// As above.
const fn number_of_access(event: &access::Event) -> usize {
    match event {
        access::Event::AuditRead { .. } => 0,
        access::Event::AuditExported { .. } => 1,
        access::Event::AccessRefused(_) => 2,
        access::Event::WebhookSecretsUsed(_) => 3,
        access::Event::AccessesLeftOut { .. } => 4,
    }
}

#[test]
fn every_stored_access_decodes_and_encodes_to_the_same_bytes() {
    let named = |event: &access::Event| (event.event_type(), event.event_version());
    const VARIANTS: usize = access::Event::TYPES.len();
    stored::<access::Event, VARIANTS>("access", number_of_access, named);
}

/// As above.
const fn number_of_experiment(event: &experiment::Event) -> usize {
    match event {
        experiment::Event::ExperimentStarted(_) => 0,
        experiment::Event::ExperimentChanged(_) => 1,
        experiment::Event::ExperimentForkBegun { .. } => 2,
        experiment::Event::ExperimentForkRefused { .. } => 3,
        experiment::Event::ExperimentForkEnded { .. } => 4,
        experiment::Event::ExperimentStopped => 5,
        experiment::Event::ExperimentEnded { .. } => 6,
    }
}

#[test]
fn every_stored_experiment_event_decodes_and_encodes_to_the_same_bytes() {
    let named = |event: &experiment::Event| (event.event_type(), event.event_version());
    const VARIANTS: usize = experiment::Event::TYPES.len();
    stored::<experiment::Event, VARIANTS>("experiment", number_of_experiment, named);
}

/// As above.
const fn number_of_hold(event: &hold::Event) -> usize {
    match event {
        hold::Event::RunHeld { .. } => 0,
        hold::Event::RunReleased { .. } => 1,
    }
}

#[test]
fn every_stored_hold_decodes_and_encodes_to_the_same_bytes() {
    let named = |event: &hold::Event| (event.event_type(), event.event_version());
    const VARIANTS: usize = hold::Event::TYPES.len();
    stored::<hold::Event, VARIANTS>("hold", number_of_hold, named);
}

/// As above.
const fn number_of_retention(event: &retention::Event) -> usize {
    match event {
        retention::Event::RunThinned(_) => 0,
        retention::Event::RunArchived(_) => 1,
        retention::Event::ValuesDropped { .. } => 2,
    }
}

#[test]
fn every_stored_retention_event_decodes_and_encodes_to_the_same_bytes() {
    let named = |event: &retention::Event| (event.event_type(), event.event_version());
    const VARIANTS: usize = retention::Event::TYPES.len();
    stored::<retention::Event, VARIANTS>("retention", number_of_retention, named);
}
