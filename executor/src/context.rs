//! What one action sees, and the values in `with` that are evaluated over it.

use domain::expression::{Binding, Roots, Template};
use protocol::task::Task;
use serde_json::{Map, Value};

use crate::fault::{Fault, invalid, unevaluated};

/// What an action sees.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) task: &'a Task,
    /// The step's name, in a task of steps.
    pub(crate) step: Option<&'a str>,
    pub(crate) input: &'a Value,
    /// Results of the earlier steps, in a task of steps.
    pub(crate) steps: Option<&'a Value>,
}

impl<'a> Context<'a> {
    /// The roots of expressions.
    pub(crate) fn roots(&self) -> Roots<'a> {
        let roots = Roots::new().with("input", self.input).with("run", &self.task.run);
        match self.steps {
            Some(steps) => roots.with("steps", steps),
            None => roots,
        }
    }

    /// The variables of templates: members of the input win over the roots' names.
    fn variables(&self) -> Value {
        let mut variables = Map::new();
        variables.insert("input".to_owned(), self.input.clone());
        variables.insert("run".to_owned(), self.task.run.clone());
        if let Some(steps) = self.steps {
            variables.insert("steps".to_owned(), steps.clone());
        }
        if let Value::Object(members) = self.input {
            variables.extend(members.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        Value::Object(variables)
    }

    /// The key of external effects: the same for all attempts, its own for each step.
    pub(crate) fn idempotency_key(&self) -> String {
        match self.step {
            Some(step) => format!("{}/{step}", self.task.idempotency_key()),
            None => self.task.idempotency_key(),
        }
    }
}

/// A value of `with`, compiled, with its place for messages.
#[derive(Debug)]
pub(crate) struct Bound {
    place: String,
    binding: Binding,
}

impl Bound {
    pub(crate) fn compile(place: &str, value: &Value) -> Result<Self, Fault> {
        let binding = Binding::compile(value)
            .map_err(|(pointer, error)| invalid(&format!("{place}{pointer}"), error))?;
        Ok(Self { place: place.to_owned(), binding })
    }

    pub(crate) fn eval(&self, context: &Context<'_>) -> Result<Value, Fault> {
        self.binding.eval(&context.roots()).map_err(|error| unevaluated(&self.place, &error))
    }

    /// The value, which must be a text.
    pub(crate) fn text(&self, context: &Context<'_>) -> Result<String, Fault> {
        match self.eval(context)? {
            Value::String(text) => Ok(text),
            _ => Err(invalid(&self.place, "give a text")),
        }
    }
}

/// Prose of `with`: a Jinja template, or a binding where it has `${` and no Jinja mark.
#[derive(Debug)]
pub(crate) enum Prose {
    Template(String, Box<Template>),
    Bound(Bound),
}

impl Prose {
    pub(crate) fn compile(place: &str, value: &Value) -> Result<Self, Fault> {
        let Value::String(text) = value else {
            return Err(invalid(place, "give a text"));
        };
        let jinja = ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark));
        if text.contains("${") && !jinja {
            return Bound::compile(place, value).map(Self::Bound);
        }
        Self::template(place, text)
    }

    pub(crate) fn template(place: &str, text: &str) -> Result<Self, Fault> {
        let template = Template::compile(text).map_err(|error| invalid(place, error))?;
        Ok(Self::Template(place.to_owned(), Box::new(template)))
    }

    pub(crate) fn render(&self, context: &Context<'_>) -> Result<String, Fault> {
        match self {
            Self::Template(place, template) => {
                template.render(&context.variables()).map_err(|error| unevaluated(place, &error))
            }
            Self::Bound(bound) => match bound.eval(context)? {
                Value::String(text) => Ok(text),
                other => Ok(other.to_string()),
            },
        }
    }
}
