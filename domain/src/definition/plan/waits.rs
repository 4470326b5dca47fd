//! Plans of nodes that need no worker: `wait`, `gate` and `emit`.

use serde_json::Value;

use super::{Compiler, schema_problems};
use crate::definition::model::{EmitSpec, GateSpec, GateTimeout, WaitSpec};
use crate::definition::problem::Problem;
use crate::expression::{Binding, Expression};
use crate::span::Span;

/// What a `wait` node waits for.
#[derive(Debug)]
pub enum PlanWait {
    /// A span of time.
    For(Binding),
    /// A time.
    Until(Binding),
    Signal {
        name: String,
        /// Absent where any signal of the name will do.
        when: Option<Expression>,
        timeout: Option<Span>,
    },
}

/// What a `gate` node asks.
#[derive(Debug)]
pub struct PlanGate {
    pub title: Binding,
    /// The schema of an answer's value, as it stands in the definition.
    pub form: Option<Value>,
    form_schema: Option<jsonschema::Validator>,
    pub assignees: Option<Binding>,
    pub roles: Option<Binding>,
    pub approvals: u32,
    pub self_approval: bool,
    pub timeout: Option<Span>,
    pub on_timeout: GateTimeout,
}

/// What an `emit` node publishes.
#[derive(Debug)]
pub enum PlanEmit {
    Event { name: String, data: Option<Binding> },
    Metric { name: String, value: Binding, dimensions: Vec<(String, Binding)> },
}

impl PlanGate {
    /// What is wrong with an answer's value, at most 20 problems with pointers into it.
    pub fn value_problems(&self, value: &Value) -> Vec<Problem> {
        schema_problems(self.form_schema.as_ref(), value)
    }
}

impl Compiler<'_> {
    pub(super) fn wait(&mut self, place: &str, wait: &WaitSpec) -> Option<PlanWait> {
        let text = |text: &String| Value::String(text.clone());
        if let Some(span) = &wait.span {
            return self.binding(&format!("{place}/for"), &text(span)).map(PlanWait::For);
        }
        if let Some(until) = &wait.until {
            return self.binding(&format!("{place}/until"), &text(until)).map(PlanWait::Until);
        }
        let name = wait.signal.as_ref()?.to_string();
        let when = wait
            .when
            .as_ref()
            .and_then(|when| self.compiled(&format!("{place}/when"), Expression::compile(when)));
        Some(PlanWait::Signal { name, when, timeout: wait.timeout })
    }

    pub(super) fn gate(&mut self, place: &str, gate: &GateSpec) -> Option<PlanGate> {
        let title = Value::String(gate.title.clone());
        let mut list = |key: &str, list: &Option<Value>| {
            list.as_ref().and_then(|list| self.binding(&format!("{place}/{key}"), list))
        };
        Some(PlanGate {
            assignees: list("assignees", &gate.assignees),
            roles: list("roles", &gate.roles),
            title: self.binding(&format!("{place}/title"), &title)?,
            form: gate.form.clone(),
            form_schema: self.schema(&format!("{place}/form"), gate.form.as_ref()),
            approvals: gate.approvals,
            self_approval: gate.self_approval,
            timeout: gate.timeout,
            on_timeout: gate.on_timeout,
        })
    }

    pub(super) fn emit(&mut self, place: &str, emit: &EmitSpec) -> Option<PlanEmit> {
        if let Some(metric) = &emit.metric {
            let dimensions = emit.dimensions.as_ref();
            let dimensions =
                dimensions.map(|given| self.mapping(&format!("{place}/dimensions"), given));
            return Some(PlanEmit::Metric {
                name: metric.to_string(),
                value: self.binding(&format!("{place}/value"), emit.value.as_ref()?)?,
                dimensions: dimensions.unwrap_or_default(),
            });
        }
        let data = emit.data.as_ref();
        Some(PlanEmit::Event {
            name: emit.event.as_ref()?.to_string(),
            data: data.and_then(|data| self.binding(&format!("{place}/data"), data)),
        })
    }
}
