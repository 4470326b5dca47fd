//! Specs at their limits and one beyond them.

use serde_json::json;

use super::{Spec, create, created, given, profile, spec};
use crate::limits;

#[track_caller]
fn taken(spec: &Spec) {
    given([]).when(create(spec)).then([created(spec)], 1);
}

#[track_caller]
fn refused(spec: &Spec, pointer: &str) {
    given([]).when(create(spec)).then_refused("invalid_spec", Some(pointer));
}

#[test]
fn a_description_has_at_most_16_kib() {
    let of = |bytes: usize| spec("project", json!({"name": "p", "description": "x".repeat(bytes)}));
    taken(&of(limits::DESCRIPTION_BYTES));
    refused(&of(limits::DESCRIPTION_BYTES + 1), "/description");
}

#[test]
fn a_run_of_a_project_has_at_most_5000_tasks_on_workers() {
    let of = |tasks: u32| {
        spec("project", json!({"name": "p", "limits": {"tasks_in_flight_per_run": tasks}}))
    };
    taken(&of(limits::TASKS_IN_FLIGHT));
    refused(&of(limits::TASKS_IN_FLIGHT + 1), "/limits/tasks_in_flight_per_run");
}

#[test]
fn a_profile_falls_back_to_at_most_8_others() {
    let of = |count: usize| {
        let others: Vec<_> = (0..count).map(|number| format!("other-{number}")).collect();
        profile(json!({"fallback": others}))
    };
    taken(&of(limits::FALLBACKS));
    refused(&of(limits::FALLBACKS + 1), "/fallback");
}

#[test]
fn a_template_has_at_most_256_kib_and_a_spec_1_mib() {
    let of =
        |bytes: usize| spec("prompt_spec", json!({"name": "p", "template": "x".repeat(bytes)}));
    taken(&of(limits::TEMPLATE_BYTES));
    refused(&of(limits::TEMPLATE_BYTES + 1), "/template");
    let action = |bytes: usize| {
        let with = json!({"result": "x".repeat(bytes)});
        spec("action", json!({"name": "a", "action": "mock", "with": with}))
    };
    let around = serde_json::to_value(action(0)).expect("JSON").to_string().len();
    taken(&action(limits::SPEC_BYTES - around));
    let too_large = given([]).when(create(&action(limits::SPEC_BYTES - around + 1)));
    too_large.then_refused("spec_too_large", None);
}
