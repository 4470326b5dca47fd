//! A trigger ready to use: its schedule, its condition and the mapping of its input.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{InvalidSchedule, Schedule, Source, TriggerKind, TriggerSpec};
use crate::expression::{Binding, EvalError, Roots};

/// See the module.
#[derive(Debug, Clone)]
pub struct CompiledTrigger {
    pub kind: TriggerKind,
    pub spec: TriggerSpec,
    /// Of a trigger by time.
    pub schedule: Option<Schedule>,
    input: Option<Binding>,
    condition: Option<Binding>,
}

/// What happened, as the input's mapping sees it under `trigger`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Occurrence(pub Map<String, Value>);

/// What a run is started with.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    pub input: Value,
    pub labels: BTreeMap<String, String>,
}

/// Why a spec can't be compiled: where, below the trigger, and why.
pub type Invalid = (String, String);

impl CompiledTrigger {
    /// Compiles a spec.
    ///
    /// # Errors
    /// A JSON Pointer below the trigger, and what is wrong there.
    pub fn compile(spec: &TriggerSpec) -> Result<Self, Invalid> {
        let Some(source) = spec.source() else {
            let message = "give exactly one of webhook, schedule, event and message";
            return Err((String::new(), message.to_owned()));
        };
        let at_member = |error: InvalidSchedule| {
            let InvalidSchedule { member, message } = error;
            (format!("/schedule/{member}"), message)
        };
        let schedule = match source {
            Source::Schedule(schedule) => Some(Schedule::compile(schedule).map_err(at_member)?),
            Source::Webhook(_) | Source::Event(_) | Source::Message(_) => None,
        };
        let condition = match source {
            Source::Event(event) => event.condition.as_ref(),
            Source::Message(message) => message.condition.as_ref(),
            Source::Webhook(_) | Source::Schedule(_) => None,
        };
        // What happened has the name of its kind there.
        let kind = source.kind().as_str();
        let condition = condition
            .map(|text| binding(&format!("/{kind}/where"), &Value::String(text.clone()), kind));
        let input = spec.input.as_ref().map(|input| binding("/input", input, "trigger"));
        Ok(Self {
            kind: source.kind(),
            schedule,
            input: input.transpose()?,
            condition: condition.transpose()?,
            spec: spec.clone(),
        })
    }

    /// Whether an event or a message is one that the trigger asks for: what its condition has under
    /// the name of its kind.
    ///
    /// # Errors
    /// As [`Binding::eval`].
    pub fn wants(&self, happened: &Value) -> Result<bool, EvalError> {
        match &self.condition {
            None => Ok(true),
            Some(condition) => {
                let roots = Roots::new().with(self.kind.as_str(), happened);
                Ok(condition.eval(&roots)? == Value::Bool(true))
            }
        }
    }

    /// What the run is started with.
    ///
    /// # Errors
    /// As [`Binding::eval`].
    pub fn start(&self, occurrence: Occurrence) -> Result<Start, EvalError> {
        let input = match &self.input {
            None => Value::Object(Map::new()),
            Some(input) => {
                input.eval(&Roots::new().with_owned("trigger", Value::Object(occurrence.0)))?
            }
        };
        Ok(Start { input, labels: self.spec.labels.clone() })
    }
}

fn binding(pointer: &str, value: &Value, root: &str) -> Result<Binding, Invalid> {
    let binding = Binding::compile(value)
        .map_err(|(below, error)| (format!("{pointer}{below}"), error.to_string()))?;
    for (below, expression) in binding.expressions() {
        if let Some(unknown) = expression.roots().into_iter().find(|name| name != root) {
            let message = format!("{unknown:?} is not in scope here: use {root}");
            return Err((format!("{pointer}{below}"), message));
        }
    }
    Ok(binding)
}
