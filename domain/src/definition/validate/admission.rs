//! Checking what bounds the runs of a definition.

use serde_json::Value;

use super::super::ProblemCode;
use super::Checker;
use super::scopes::Names;
use crate::limits;

pub(super) fn check(checker: &mut Checker<'_>) {
    let names = Names::of_start();
    if let Some(concurrency) = &checker.definition.concurrency {
        if !(1..=limits::CONCURRENT_RUNS).contains(&concurrency.limit) {
            let message = format!("the limit must be 1 to {}", limits::CONCURRENT_RUNS);
            checker.problem(ProblemCode::InvalidValue, "/concurrency/limit", message);
        }
        if let Some(key) = &concurrency.key {
            if !key.contains("${") {
                let message = "give the key as an expression, as in ${input.user}; without a key \
                               all runs of the definition are counted together";
                checker.problem(ProblemCode::InvalidValue, "/concurrency/key", message);
            } else {
                checker.value("/concurrency/key", &Value::String(key.clone()), &names);
            }
        }
    }
    let Some(priority) = checker.definition.priority.as_deref() else { return };
    if checker.definition.concurrency.is_none() {
        let message = "a priority orders the queue of `concurrency`: give that too, or drop it";
        checker.problem(ProblemCode::InvalidValue, "/priority", message);
    }
    match priority {
        Value::String(text) if !text.contains("${") => {
            let message = "give a whole number, or an expression as ${…}";
            checker.problem(ProblemCode::InvalidValue, "/priority", message);
        }
        Value::String(_) => checker.value("/priority", priority, &names),
        _ => {}
    }
}
