//! JSON values with `${…}` in their texts.
//!
//! A text that is one whole `${…}` yields the expression's value. Inside other text the value is
//! interpolated: texts as they are, numbers, bools and `null` plainly, lists and objects as
//! compact JSON. `$${` stands for a literal `${`. Keys of objects are never expressions.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::cel::value_fits;
use super::{EvalError, Expression, InvalidExpression, Scope};
use crate::definition::problem::escaped;
use crate::limits;

/// A compiled value; cheap to clone.
#[derive(Debug, Clone)]
pub struct Binding(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    part: Part,
    /// Each expression with its JSON Pointer inside the value.
    expressions: Vec<(String, Expression)>,
}

#[derive(Debug)]
enum Part {
    Constant(Value),
    Whole(Expression),
    Text(Vec<Piece>),
    List(Vec<Part>),
    Object(Vec<(String, Part)>),
}

#[derive(Debug)]
enum Piece {
    Plain(String),
    Value(Expression),
}

impl Binding {
    /// Compiles a value.
    ///
    /// # Errors
    /// The JSON Pointer inside the value, and what is wrong with the expression there.
    pub fn compile(value: &Value) -> Result<Self, (String, InvalidExpression)> {
        let mut compiler = Compiler { pointer: String::new(), expressions: Vec::new() };
        let part = compiler.part(value, limits::JSON_DEPTH)?;
        Ok(Self(Arc::new(Compiled { part, expressions: compiler.expressions })))
    }

    /// Its value over a scope.
    ///
    /// # Errors
    /// As [`Expression::eval`]; `too_large` also if the whole is over
    /// [`limits::EVALUATION_BYTES`].
    pub fn eval(&self, scope: &dyn Scope) -> Result<Value, EvalError> {
        match &self.0.part {
            Part::Constant(value) => Ok(value.clone()),
            Part::Whole(expression) => expression.eval(scope),
            part => {
                let mut left = limits::EVALUATION_BYTES;
                part.eval(scope, limits::JSON_DEPTH, &mut left)
            }
        }
    }

    /// Its expressions, each with its JSON Pointer inside the value.
    pub fn expressions(&self) -> impl Iterator<Item = (&str, &Expression)> {
        self.0.expressions.iter().map(|(pointer, expression)| (pointer.as_str(), expression))
    }

    /// The value where no expression is in it.
    pub fn constant(&self) -> Option<&Value> {
        match &self.0.part {
            Part::Constant(value) => Some(value),
            _ => None,
        }
    }
}

impl Part {
    fn eval(&self, scope: &dyn Scope, depth: usize, left: &mut usize) -> Result<Value, EvalError> {
        let inner = depth.checked_sub(1).ok_or_else(too_deep);
        let value = match self {
            Self::Constant(value) => value.clone(),
            Self::Whole(expression) => expression.eval(scope)?,
            Self::Text(pieces) => Value::String(text(pieces, scope)?),
            Self::List(parts) => {
                let inner = inner?;
                let items: Result<_, _> =
                    parts.iter().map(|part| part.eval(scope, inner, left)).collect();
                return items.map(Value::Array);
            }
            Self::Object(parts) => {
                let inner = inner?;
                let mut object = Map::new();
                for (key, part) in parts {
                    object.insert(key.clone(), part.eval(scope, inner, left)?);
                }
                return Ok(Value::Object(object));
            }
        };
        *left = value_fits(&value, *left, depth)?;
        Ok(value)
    }
}

fn text(pieces: &[Piece], scope: &dyn Scope) -> Result<String, EvalError> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Plain(plain) => text.push_str(plain),
            Piece::Value(expression) => match expression.eval(scope)? {
                Value::String(value) => text.push_str(&value),
                other => text.push_str(&other.to_string()),
            },
        }
        if text.len() > limits::EVALUATION_BYTES {
            return Err(EvalError::new(
                "too_large",
                format!("the text is over {} bytes", limits::EVALUATION_BYTES),
            ));
        }
    }
    Ok(text)
}

fn too_deep() -> EvalError {
    EvalError::new("too_deep", format!("the value nests deeper than {}", limits::JSON_DEPTH))
}

struct Compiler {
    pointer: String,
    expressions: Vec<(String, Expression)>,
}

impl Compiler {
    fn part(&mut self, value: &Value, depth: usize) -> Result<Part, (String, InvalidExpression)> {
        let next = |pointer: &str| {
            depth.checked_sub(1).ok_or_else(|| {
                (pointer.to_owned(), InvalidExpression::new("the value nests too deep"))
            })
        };
        let part = match value {
            Value::String(text) => self.text(text)?,
            Value::Array(list) => {
                let depth = next(&self.pointer)?;
                let mut parts = Vec::with_capacity(list.len());
                for (index, item) in list.iter().enumerate() {
                    parts.push(self.within(&index.to_string(), item, depth)?);
                }
                if parts.iter().all(Part::is_constant) {
                    return Ok(Part::Constant(Value::Array(
                        parts.into_iter().map(Part::into_constant).collect(),
                    )));
                }
                Part::List(parts)
            }
            Value::Object(map) => {
                let depth = next(&self.pointer)?;
                let mut parts = Vec::with_capacity(map.len());
                for (key, item) in map {
                    parts.push((key.clone(), self.within(key, item, depth)?));
                }
                if parts.iter().all(|(_, part)| part.is_constant()) {
                    let object = parts.into_iter().map(|(key, part)| (key, part.into_constant()));
                    return Ok(Part::Constant(Value::Object(object.collect())));
                }
                Part::Object(parts)
            }
            other => Part::Constant(other.clone()),
        };
        Ok(part)
    }

    fn within(
        &mut self,
        key: &str,
        value: &Value,
        depth: usize,
    ) -> Result<Part, (String, InvalidExpression)> {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&escaped(key));
        let part = self.part(value, depth)?;
        self.pointer.truncate(length);
        Ok(part)
    }

    fn text(&mut self, text: &str) -> Result<Part, (String, InvalidExpression)> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                plain.push_str(&rest[..at - 1]);
                plain.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            plain.push_str(&rest[..at]);
            let inside = &rest[at + 2..];
            let end = closing(inside).ok_or_else(|| {
                let message = "`${` without its `}`: close it, or write `$${` for a literal `${`";
                (self.pointer.clone(), InvalidExpression::new(message))
            })?;
            let expression = Expression::compile(&inside[..end])
                .map_err(|invalid| (self.pointer.clone(), invalid))?;
            self.expressions.push((self.pointer.clone(), expression.clone()));
            if !plain.is_empty() {
                pieces.push(Piece::Plain(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Value(expression));
            rest = &inside[end + 1..];
        }
        plain.push_str(rest);
        if pieces.is_empty() {
            return Ok(Part::Constant(Value::String(plain)));
        }
        if plain.is_empty() && pieces.len() == 1 {
            if let Some(Piece::Value(expression)) = pieces.pop() {
                return Ok(expression.constant().map_or(Part::Whole(expression), Part::Constant));
            }
        } else if !plain.is_empty() {
            pieces.push(Piece::Plain(plain));
        }
        Ok(Part::Text(pieces))
    }
}

impl Part {
    fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }

    fn into_constant(self) -> Value {
        match self {
            Self::Constant(value) => value,
            _ => Value::Null,
        }
    }
}

/// What stands inside a text that is one whole `${…}`.
pub(super) fn unwrapped(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix("${")?;
    let end = closing(inside)?;
    (end + 1 == inside.len()).then(|| &inside[..end])
}

/// Where the brace is that closes an expression, given what follows its `${`.
fn closing(source: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut at = 0;
    while at < source.len() {
        let rest = &source[at..];
        let skipped = literal_length(rest);
        if skipped > 0 {
            at += skipped;
            continue;
        }
        let first = rest.chars().next()?;
        match first {
            '{' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        at += first.len_utf8();
    }
    None
}

/// The bytes of the text literal (with its prefix and quotes) or comment that the source begins
/// with, 0 if with neither. An unclosed one reaches to the end.
pub(super) fn literal_length(source: &str) -> usize {
    if source.starts_with("//") {
        return source.find('\n').unwrap_or(source.len());
    }
    let quoted = source.trim_start_matches(['r', 'R', 'b', 'B']);
    let prefix = source.len() - quoted.len();
    if prefix > 2 {
        return 0;
    }
    let raw = source[..prefix].contains(['r', 'R']);
    let Some(quote) = ["\"\"\"", "'''", "\"", "'", "`"].into_iter().find(|q| quoted.starts_with(q))
    else {
        // A plain letter: the caller goes on by one character.
        return 0;
    };
    if quote == "`" && prefix > 0 {
        return 0;
    }
    let mut at = quote.len();
    while at < quoted.len() {
        let rest = &quoted[at..];
        if rest.starts_with(quote) {
            return prefix + at + quote.len();
        }
        let mut characters = rest.chars();
        let first = characters.next().map_or(1, char::len_utf8);
        at += first;
        if rest.starts_with('\\') && !raw && quote != "`" {
            at += characters.next().map_or(0, char::len_utf8);
        }
    }
    source.len()
}

#[cfg(test)]
mod tests;
