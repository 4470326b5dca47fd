//! Hostile sources of definitions: whatever comes is read or refused, with a place inside of it.

use graphs::{holds, hostile};
use serde_json::Value;

use super::super::*;
use crate::definition::validate::tests::PANEL;
use crate::definition::{Plan, Resolved};

/// A definition that uses what [`PANEL`] doesn't.
const APPROVAL: &str = include_str!("../../../../../examples/approval/workflow.yaml");
const TRIP: &str = include_str!("../../../../../examples/trip-booking/workflow.yaml");
const IN_TURN: &str = include_str!("../../../../../examples/reports-in-turn/workflow.yaml");

fn corpus() -> Vec<String> {
    let mut corpus: Vec<String> = [PANEL, APPROVAL, TRIP, IN_TURN].map(str::to_owned).to_vec();
    let as_json = |source: &String| {
        let definition = read(source.as_bytes()).unwrap_or_else(|problems| panic!("{problems:#?}"));
        serde_json::to_string(&definition).expect("definitions are JSON")
    };
    let json: Vec<String> = corpus.iter().map(as_json).collect();
    corpus.extend(json);
    corpus
}

/// Whether a pointer leads to a value of the document, or to a member or item that it doesn't have.
fn leads_into(document: &Value, pointer: &str) -> bool {
    let parent = pointer.rfind('/').map_or("", |end| &pointer[..end]);
    (pointer.is_empty() || pointer.starts_with('/')) && document.pointer(parent).is_some()
}

/// Every problem has a place inside of the source.
fn check_places(source: &[u8], problems: &[Problem]) {
    assert!(!problems.is_empty());
    let lines = source.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
    let document = source::document(source).map(|document| document.value);
    for problem in problems {
        assert!(!problem.message.is_empty(), "{problem:?}");
        assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem:?}");
        match &document {
            Ok(document) => assert!(leads_into(document, &problem.pointer), "{problem:?}"),
            Err(_) => assert_eq!(problem.pointer, "", "{problem:?}"),
        }
    }
}

#[test]
fn a_hostile_source_is_read_or_refused_with_its_place() {
    let corpus = corpus();
    let corpus: Vec<&str> = corpus.iter().map(String::as_str).collect();
    let accepted = std::cell::Cell::new(0);
    holds(200, hostile(&corpus), |source| match read(&source) {
        Err(problems) => check_places(&source, &problems),
        Ok(definition) => {
            accepted.set(accepted.get() + 1);
            let printed = serde_json::to_vec(&definition).expect("definitions are JSON");
            assert_eq!(read(&printed).as_ref(), Ok(&definition), "it reads back as it was");
            assert!(definition.nodes.len() <= limits::NODES);
            assert!(definition.transitions.len() <= limits::TRANSITIONS);
            // Only references to other resources may still be wrong.
            let compiled = Plan::compile(&definition, &Resolved::default()).map(drop);
            let problems = compiled.err().unwrap_or_default();
            let others = |one: &&Problem| one.code != ProblemCode::UnknownReference;
            assert_eq!(problems.iter().find(others), None);
        }
    });
    assert!(accepted.get() > 0, "some mutations leave a definition valid");
}
