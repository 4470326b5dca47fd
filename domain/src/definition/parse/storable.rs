//! What no store could give back unchanged: integers that aren't exact, U+0000, reserved keys.

use serde_json::{Map, Value};

use crate::codec;
use crate::definition::problem::escaped;
use crate::definition::{Problem, ProblemCode};

/// What is wrong with the values of a document, each at its place.
pub(super) fn check(value: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    walk(value, &mut String::new(), &mut problems);
    problems
}

fn walk(value: &Value, pointer: &mut String, problems: &mut Vec<Problem>) {
    let length = pointer.len();
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointer.push_str(&format!("/{index}"));
                walk(item, pointer, problems);
                pointer.truncate(length);
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                pointer.push('/');
                pointer.push_str(&escaped(key));
                let alone = Map::from_iter([(key.clone(), Value::Null)]);
                refuse(Value::Object(alone), pointer, problems);
                walk(member, pointer, problems);
                pointer.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) => {}
        plain => refuse(plain.clone(), pointer, problems),
    }
}

fn refuse(mut value: Value, pointer: &str, problems: &mut Vec<Problem>) {
    if let Err(error) = codec::normalise(&mut value) {
        problems.push(problem(pointer, error.to_string()));
    }
}

fn problem(pointer: &str, message: String) -> Problem {
    let pointer = pointer.to_owned();
    Problem { code: ProblemCode::InvalidValue, pointer, line: None, message, suggestion: None }
}

/// A number of a document, and where it starts (line and column from 1; 0 in JSON).
pub(super) struct Place {
    pub(super) pointer: String,
    pub(super) line: u64,
    pub(super) column: u64,
    /// Whether it was read as a float that may have been written as an integer.
    pub(super) is_suspect: bool,
}

/// The integers that their reader has made floats of, because they were too large for it.
pub(super) fn large_integers(text: &str, is_json: bool, numbers: &[Place]) -> Vec<Problem> {
    if !numbers.iter().any(|number| number.is_suspect) {
        return Vec::new();
    }
    let written = if is_json { tokens(text) } else { Vec::new() };
    let lines: Vec<&str> = text.lines().collect();
    let token = |index: usize, number: &Place| {
        if is_json {
            return written.get(index).copied();
        }
        let line = lines.get(usize::try_from(number.line).ok()?.checked_sub(1)?)?;
        let (start, _) =
            line.char_indices().nth(usize::try_from(number.column).ok()?.checked_sub(1)?)?;
        Some(number_at(&line[start..]))
    };
    let mut problems = Vec::new();
    for (index, number) in numbers.iter().enumerate().filter(|(_, number)| number.is_suspect) {
        let Some(token) = token(index, number) else { continue };
        let digits = token.strip_prefix(['-', '+']).unwrap_or(token);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            let message = format!(
                "the integer {token} is not exact as a JSON number (2^53 and beyond): write it \
                 as a text"
            );
            problems.push(problem(&number.pointer, message));
        }
    }
    problems
}

/// The number that a text begins with, as it is written.
fn number_at(text: &str) -> &str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
    &text[..text.find(|c| !is_part(c)).unwrap_or(text.len())]
}

/// The numbers of a JSON text, in its order.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text.as_bytes()[at] {
            b'"' => {
                at += 1;
                while at < text.len() && text.as_bytes()[at] != b'"' {
                    at += if text.as_bytes()[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let token = number_at(&text[at..]);
                at += token.len();
                found.push(token);
            }
            _ => at += 1,
        }
    }
    found
}
