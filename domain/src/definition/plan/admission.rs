//! Plans of what bounds the runs of a definition.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Compiler, Plan};
use crate::definition::model::{ConcurrencySpec, Definition, Overflow};
use crate::definition::problem::{Problem, ProblemCode};
use crate::expression::{Binding, Scope};
use crate::limits;
use crate::queue::rank;
use crate::run::event::Admission;

/// What the admission of a run goes by.
#[derive(Debug)]
pub struct PlanAdmission {
    limit: u32,
    then: Overflow,
    key: Option<Binding>,
    priority: Option<Binding>,
}

impl PlanAdmission {
    /// Evaluates it over the input of a run that is started at a time.
    ///
    /// # Errors
    /// What can't be evaluated, or isn't of use, as a problem of the definition.
    pub fn of_run(&self, input: &Value, at: DateTime<Utc>) -> Result<Admission, Problem> {
        let scope = StartScope(input);
        let key = self.key.as_ref().map(|key| read_key(key, &scope)).transpose()?;
        let priority = self.priority.as_ref().map(|priority| read_priority(priority, &scope));
        let priority = priority.transpose()?.unwrap_or_default();
        Ok(Admission {
            key,
            limit: self.limit,
            then: self.then,
            priority,
            rank: rank(at, priority),
        })
    }
}

fn read_key(binding: &Binding, scope: &StartScope<'_>) -> Result<String, Problem> {
    let place = "/concurrency/key";
    let value = binding.eval(scope).map_err(|error| problem(place, error.message))?;
    let key = match value {
        Value::String(text) => text,
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            let message = "the key must be a text, a number or a bool: make a text of it";
            return Err(problem(place, message.to_owned()));
        }
    };
    if key.len() > limits::KEY_BYTES || key.contains('\0') {
        let limit = limits::KEY_BYTES;
        let message = format!("the key may have {limit} bytes, and no character U+0000");
        return Err(problem(place, message));
    }
    Ok(key)
}

fn read_priority(binding: &Binding, scope: &StartScope<'_>) -> Result<i32, Problem> {
    let place = "/priority";
    let value = binding.eval(scope).map_err(|error| problem(place, error.message))?;
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    number.filter(|number| number.abs() <= limits::PRIORITY).ok_or_else(|| {
        let limit = limits::PRIORITY;
        let shown: String = value.to_string().chars().take(80).collect();
        problem(place, format!("{shown} is no whole number from -{limit} to {limit}"))
    })
}

fn problem(pointer: &str, message: String) -> Problem {
    let (code, pointer) = (ProblemCode::InvalidValue, pointer.to_owned());
    Problem { code, pointer, line: None, message, suggestion: None }
}

/// What expressions see before there is a run.
struct StartScope<'a>(&'a Value);

impl Scope for StartScope<'_> {
    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        (name == "input").then_some(Cow::Borrowed(self.0))
    }
}

impl Plan {
    /// What the admission of its runs goes by; `None` where nothing bounds them.
    pub const fn admission(&self) -> Option<&PlanAdmission> {
        self.admission.as_ref()
    }
}

impl Compiler<'_> {
    pub(super) fn admission(&mut self, definition: &Definition) -> Option<PlanAdmission> {
        let ConcurrencySpec { key, limit, then } = definition.concurrency.as_deref()?;
        let key = key
            .as_ref()
            .and_then(|key| self.binding("/concurrency/key", &Value::String(key.clone())));
        let priority = definition.priority.as_deref();
        let priority = priority.and_then(|priority| self.binding("/priority", priority));
        Some(PlanAdmission { limit: *limit, then: *then, key, priority })
    }
}
