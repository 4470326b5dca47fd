//! Plans of what bounds the runs of a definition.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Compiler, Plan};
use crate::definition::model::{ConcurrencySpec, Definition, RateLimitSpec};
use crate::definition::problem::{Problem, ProblemCode};
use crate::expression::{Binding, Scope};
use crate::limits;
use crate::queue::rank;
use crate::rate::Rate;
use crate::run::event::Admission;

/// What the admission of a run goes by.
#[derive(Debug)]
pub struct PlanAdmission {
    concurrency: Option<ConcurrencySpec>,
    rate: Option<Rate>,
    /// With its place in the definition.
    key: Option<(&'static str, Binding)>,
    priority: Option<Binding>,
}

impl PlanAdmission {
    /// Evaluates it over the input of a run that is started at a time.
    ///
    /// # Errors
    /// What can't be evaluated, or isn't of use, as a problem of the definition.
    pub fn of_run(&self, input: &Value, at: DateTime<Utc>) -> Result<Admission, Problem> {
        let scope = StartScope(input);
        let key = self.key.as_ref();
        let key = key.map(|(place, key)| read_key(place, key, &scope)).transpose()?;
        let priority = self.priority.as_ref().map(|priority| read_priority(priority, &scope));
        let priority = priority.transpose()?.unwrap_or_default();
        Ok(Admission {
            key,
            limit: self.concurrency.as_ref().map(|concurrency| concurrency.limit),
            then: self.concurrency.as_ref().map(|one| one.then).unwrap_or_default(),
            rate: self.rate,
            priority,
            rank: rank(at, priority),
        })
    }
}

fn read_key(
    place: &'static str,
    binding: &Binding,
    scope: &StartScope<'_>,
) -> Result<String, Problem> {
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

fn rate_of(spec: &RateLimitSpec) -> Rate {
    let RateLimitSpec { limit, period, burst, then, .. } = *spec;
    Rate { limit, period, burst: burst.unwrap_or(1), then, until: None }
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
        let (concurrency, rate) = (&definition.concurrency, &definition.rate_limit);
        // Where it has both, they have the same key.
        let (place, key) = match (concurrency, rate) {
            (Some(concurrency), _) => ("/concurrency/key", &concurrency.key),
            (None, Some(rate)) => ("/rate_limit/key", &rate.key),
            (None, None) => return None,
        };
        let key = key.as_ref().and_then(|key| self.binding(place, &Value::String(key.clone())));
        let priority = definition.priority.as_deref();
        let priority = priority.and_then(|priority| self.binding("/priority", priority));
        Some(PlanAdmission {
            concurrency: concurrency.as_deref().cloned(),
            rate: rate.as_deref().map(rate_of),
            key: key.map(|key| (place, key)),
            priority,
        })
    }
}
