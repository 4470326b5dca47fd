//! Jinja templates, compiled once, rendered with limits.
//!
//! Templates are for prose and URLs over ready values; what computes belongs into expressions.
//! There is no loader, no include, import, inheritance or macro, so that a template reaches
//! nothing but its context, and nothing that builds a text on the side (block `set`, recursive
//! loops), so that what it writes is all it makes: that is counted, and stops at
//! [`limits::EVALUATION_BYTES`]. A missing value is an error. Nothing is escaped.

mod filters;
mod tags;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{Serde, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::Value;

use super::EvalError;
use crate::limits;

/// Levels that a render may nest.
const RECURSION: usize = 50;
/// Bytes of stack for reading a template: the reader's frames are large, and what nests as deep as
/// it lets through must fit whatever stack the caller runs on.
const STACK: usize = 64 * 1024 * 1024;
/// The one template of each environment.
const NAME: &str = "template";
/// The context member that the budget of a render stands under; no source can name it.
const BUDGET: &str = "budget of the render";

/// Why a text isn't a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidTemplate {
    pub message: String,
    /// From 1, where known.
    pub line: Option<usize>,
}

/// A compiled template; cheap to clone.
#[derive(Debug, Clone)]
pub struct Template(Arc<Environment<'static>>);

/// What a render has written so far, in bytes.
#[derive(Debug, Default)]
struct Written(AtomicUsize);

impl minijinja::value::Object for Written {}

impl Template {
    /// Compiles a source.
    ///
    /// # Errors
    /// If it isn't Jinja, is over [`limits::TEMPLATE_BYTES`], or uses what templates don't have.
    pub fn compile(source: &str) -> Result<Self, InvalidTemplate> {
        if source.len() > limits::TEMPLATE_BYTES {
            let message = format!(
                "the template has {} bytes, more than {}",
                source.len(),
                limits::TEMPLATE_BYTES
            );
            return Err(InvalidTemplate { message, line: None });
        }
        tags::check(source)?;
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(limits::TEMPLATE_FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.set_formatter(|output, state, value| {
            let mut text = String::new();
            if !value.is_none() {
                text = value.to_string();
            } else {
                text.push_str("null");
            }
            if let Some(budget) = state.lookup(BUDGET)
                && let Some(written) = budget.downcast_object_ref::<Written>()
                && written.0.fetch_add(text.len(), Ordering::Relaxed) + text.len()
                    > limits::EVALUATION_BYTES
            {
                return Err(Error::new(ErrorKind::WriteFailure, "the output is too large"));
            }
            if value.is_undefined() {
                return Err(Error::from(ErrorKind::UndefinedError));
            }
            output.write_str(&text).map_err(Error::from)
        });
        filters::add(&mut environment);
        let read = on_own_stack(|| environment.add_template_owned(NAME, source.to_owned()));
        let broken = || InvalidTemplate { message: "it can't be read".to_owned(), line: None };
        read.ok_or_else(broken)?
            .map_err(|error| InvalidTemplate { message: described(&error), line: error.line() })?;
        Ok(Self(Arc::new(environment)))
    }

    /// The variables that it looks up, sorted. A name is left out that the template itself asks
    /// for (`is defined`) or has a substitute for (`default`).
    pub fn variables(&self) -> Vec<String> {
        let Ok(template) = self.0.get_template(NAME) else { return Vec::new() };
        let source = template.source();
        let found = on_own_stack(|| template.undeclared_variables(false)).unwrap_or_default();
        let mut names: Vec<_> = found.into_iter().collect();
        names.retain(|name| name != "range" && !is_optional(source, name));
        names.sort_unstable();
        names
    }

    /// Renders it over a context: an object, whose members are the names that it can use, and
    /// which it also sees as `input`, unless that is one of them.
    ///
    /// # Errors
    /// `undefined_value`, `fuel_exhausted`, `too_large` (over [`limits::EVALUATION_BYTES`]),
    /// `template_failed`.
    pub fn render(&self, context: &Value) -> Result<String, EvalError> {
        let mut names: std::collections::BTreeMap<String, Jinja> = match context {
            Value::Object(map) => {
                map.iter().map(|(name, value)| (name.clone(), Jinja::from(Serde(value)))).collect()
            }
            _ => Default::default(),
        };
        names.entry("input".to_owned()).or_insert_with(|| Jinja::from(Serde(context)));
        names.insert(BUDGET.to_owned(), Jinja::from_object(Written::default()));
        let template = self.0.get_template(NAME).map_err(|error| failed(&error))?;
        let mut output = Capped { bytes: Vec::new(), over: false };
        let rendered = template.render_captured_to(names, &mut output).map(drop);
        if output.over {
            return Err(too_large());
        }
        rendered.map_err(|error| failed_at(&error, template.source()))?;
        String::from_utf8(output.bytes)
            .map_err(|_| EvalError::new("template_failed", "the template wrote broken text"))
    }
}

/// What a reader gives that has [`STACK`]; `None` where it can't be had, or the reader fails.
fn on_own_stack<T: Send>(read: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("template".to_owned()).stack_size(STACK);
        builder.spawn_scoped(scope, read).ok()?.join().ok()
    })
}

/// Whether a source gives a name that may be missing a substitute, or asks whether it is there.
fn is_optional(source: &str, name: &str) -> bool {
    let name = regex::escape(name);
    let uses = format!(r"\b{name}\s*(\|\s*(default|d)\b|is\s+(not\s+)?(un)?defined\b)");
    regex::Regex::new(&uses).is_ok_and(|uses| uses.is_match(source))
}

struct Capped {
    bytes: Vec<u8>,
    over: bool,
}

impl std::io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > limits::EVALUATION_BYTES {
            self.over = true;
            return Err(std::io::Error::other("the output is too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn too_large() -> EvalError {
    EvalError::new(
        "too_large",
        format!("the template writes more than {} bytes", limits::EVALUATION_BYTES),
    )
}

/// As [`failed`], and of a missing value what it is.
fn failed_at(error: &Error, source: &str) -> EvalError {
    const SHOWN_BYTES: usize = 120;
    let mut failure = failed(error);
    if error.kind() == ErrorKind::UndefinedError
        && error.detail().is_none()
        && let Some(place) = error.range().and_then(|range| source.get(range))
        && place.len() <= SHOWN_BYTES
    {
        failure.message.push_str(&format!(": `{}` isn't there", place.trim()));
    }
    failure
}

fn failed(error: &Error) -> EvalError {
    let code = match error.kind() {
        ErrorKind::UndefinedError => "undefined_value",
        ErrorKind::OutOfFuel => "fuel_exhausted",
        ErrorKind::WriteFailure => return too_large(),
        _ => "template_failed",
    };
    let line = error.line().map_or_else(String::new, |line| format!(" in line {line}"));
    EvalError::new(code, format!("the template failed{line}: {}", described(error)))
}

fn described(error: &Error) -> String {
    let detail = error.detail().unwrap_or_default();
    let kind = error.kind();
    let message = if detail.is_empty() { kind.to_string() } else { format!("{kind}: {detail}") };
    message.chars().take(300).collect()
}

#[cfg(test)]
mod tests;
