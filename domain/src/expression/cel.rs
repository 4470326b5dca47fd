//! CEL expressions, compiled once, evaluated with limits.
//!
//! The source is read by the `cel` crate's parser and lowered to a tree of our own, since that
//! crate's interpreter has neither a step limit nor a memory limit. The tree is evaluated
//! straight over borrowed JSON: a plain path (`state.draft`) is looked up and copied, nothing
//! else is touched. Every visit of a node, every element made and every 16 bytes of text
//! handled cost one unit of [`limits::EXPRESSION_FUEL`].
//!
//! What differs from the CEL specification, all of it additions or restrictions: arithmetic of
//! an int and a double gives a double, so that `3` and `3.5` in data add up; keys of maps are
//! texts; there are no bytes and no messages; `type(x)` gives the type's name as a text; every
//! function may be called as `f(x)` and as `x.f()`.

mod arithmetic;
mod compile;
mod eval;
mod function;
mod node;
mod texts;
mod times;
mod value;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::scope::Scope;
use crate::limits;
use node::{Kind, Program, Step};
pub(super) use value::fits as value_fits;

/// Why a source isn't an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidExpression {
    /// What is wrong, at which column, and what to do.
    pub message: String,
    /// The function that doesn't exist, where that is what is wrong.
    pub undeclared: Option<String>,
}

impl InvalidExpression {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), undeclared: None }
    }
}

/// Why an evaluation gave no value.
///
/// Codes: `no_such_member`, `undeclared_name`, `type_mismatch`, `not_a_bool`,
/// `division_by_zero`, `overflow`, `not_a_number`, `invalid_argument`, `empty_list`,
/// `index_out_of_range`, `fuel_exhausted`, `too_large`, `too_deep`; of templates also
/// `undefined_value` and `template_failed`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    /// Stable, `snake_case`.
    pub code: &'static str,
    pub message: String,
}

impl EvalError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Whether it comes from a limit: such an error is never absorbed by `||` or `&&`.
    fn is_limit(&self) -> bool {
        matches!(self.code, "fuel_exhausted" | "too_large" | "too_deep")
    }
}

/// A compiled expression; cheap to clone.
#[derive(Debug, Clone)]
pub struct Expression(Arc<Program>);

impl Expression {
    /// Compiles a source: CEL, bare or as one whole `${…}`.
    ///
    /// # Errors
    /// If it isn't CEL, is over [`limits::EXPRESSION_BYTES`], nests deeper than 64, or calls
    /// a function that doesn't exist.
    pub fn compile(source: &str) -> Result<Self, InvalidExpression> {
        let bare = super::binding::unwrapped(source).unwrap_or(source);
        compile::compile(bare).map(|program| Self(Arc::new(program)))
    }

    /// The CEL source, without `${` and `}`.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The root variables that it refers to, each once; variables of macros are none.
    pub fn roots(&self) -> Vec<String> {
        let mut roots: Vec<String> = Vec::new();
        for source in &self.0.sources {
            if !roots.contains(&source.root) {
                roots.push(source.root.clone());
            }
        }
        roots
    }

    /// Its value.
    ///
    /// # Errors
    /// See [`EvalError`]; also if the value is over [`limits::EVALUATION_BYTES`] or
    /// [`limits::JSON_DEPTH`].
    pub fn eval(&self, scope: &dyn Scope) -> Result<Value, EvalError> {
        eval::value(&self.0, scope)
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// As [`Self::eval`]; `not_a_bool` if the value is neither true nor false.
    pub fn holds(&self, scope: &dyn Scope) -> Result<bool, EvalError> {
        match self.eval(scope)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(EvalError::new(
                "not_a_bool",
                format!(
                    "`{}` gave {}, but a condition must give true or false",
                    self.0.source,
                    value::kind_of(&other)
                ),
            )),
        }
    }

    /// The values at the paths that it reads, by the path's text; what is missing is null.
    ///
    /// A value of more than 256 bytes stands as `{"$size": n}`: a list's elements, an object's
    /// members, or a text's bytes.
    pub fn reads(&self, scope: &dyn Scope) -> Map<String, Value> {
        let mut reads = Map::new();
        for path in &self.0.paths {
            let source = &self.0.sources[path.source];
            let start = match &source.member {
                Some(member) => scope.member(&source.root, member),
                None => scope.root(&source.root),
            };
            let found = start.as_deref().and_then(|start| walk(start, &path.steps));
            reads.insert(path.text.clone(), found.map_or(Value::Null, abbreviated));
        }
        reads
    }

    /// The value itself where the expression is nothing but a literal.
    pub(super) fn constant(&self) -> Option<Value> {
        match &self.0.root.kind {
            Kind::Literal(literal) => literal.to_json(),
            _ => None,
        }
    }
}

fn walk<'v>(start: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(start, |value, step| match step {
        Step::Key(key) => value.get(key.as_str()),
        Step::Index(index) => value.get(*index),
    })
}

fn abbreviated(value: &Value) -> Value {
    const WHOLE_BYTES: usize = 256;
    if value::fits(value, WHOLE_BYTES, limits::JSON_DEPTH).is_ok() {
        return value.clone();
    }
    let size = match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    json!({ "$size": size })
}

/// The values that a program reads, fetched once before it runs.
type Fetched<'s> = Vec<Option<Cow<'s, Value>>>;

#[cfg(test)]
mod tests;
