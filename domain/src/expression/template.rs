//! Jinja templates, compiled once, rendered with limits.
use serde_json::Value;
use super::EvalError;

/// Why a text isn't a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidTemplate { pub message: String, pub line: Option<usize> }

/// A compiled template.
#[derive(Debug, Clone)]
pub struct Template { source: String }

impl Template {
    pub fn compile(source: &str) -> Result<Self, InvalidTemplate> { Ok(Self { source: source.to_owned() }) }
    pub fn render(&self, _context: &Value) -> Result<String, EvalError> { Ok(self.source.clone()) }
}
