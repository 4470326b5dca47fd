//! Reading definitions: from YAML or JSON text to a [`Definition`], with every problem named.

mod mend;
mod shape;
mod source;
mod storable;
mod words;

use std::collections::HashMap;

use serde_json::Value;

use super::{Definition, Problem, ProblemCode, validate};
use crate::limits;
#[cfg(test)]
pub(super) use shape::WORDS;

/// Reads and checks a definition: [`parse`], then [`validate::check`].
///
/// A document with a wrong shape is checked all the same, without what is wrong in it, so that
/// one answer names everything.
///
/// # Errors
/// Every problem, in the order of the document where it is known.
pub fn read(source: &[u8]) -> Result<Definition, Vec<Problem>> {
    let document = source::document(source).map_err(|problem| vec![problem])?;
    let lines = document.lines;
    finish(document.value, true, document.problems).map_err(|problems| located(problems, &lines))
}

/// Reads a definition: YAML (1.2 core schema, no merge keys) or JSON.
///
/// # Errors
/// Every unknown key, missing key and wrong value, not only the first.
pub fn parse(source: &[u8]) -> Result<Definition, Vec<Problem>> {
    let document = source::document(source).map_err(|problem| vec![problem])?;
    let lines = document.lines;
    finish(document.value, false, document.problems).map_err(|problems| located(problems, &lines))
}

/// Reads a definition that is JSON already.
///
/// # Errors
/// As [`parse`], without lines.
pub fn parse_value(value: &Value) -> Result<Definition, Vec<Problem>> {
    source::check_depth(value).map_err(|problem| vec![problem])?;
    let bytes = serde_json::to_vec(value).map_or(usize::MAX, |text| text.len());
    if bytes > limits::DEFINITION_BYTES {
        return Err(vec![source::too_large(bytes)]);
    }
    finish(value.clone(), false, Vec::new())
}

/// `problems` is what is known to be wrong already.
fn finish(
    mut value: Value,
    check: bool,
    mut problems: Vec<Problem>,
) -> Result<Definition, Vec<Problem>> {
    problems.extend(storable::check(&value));
    let shape::Shape { problems: of_shape, mended } = shape::check(&mut value);
    problems.extend(of_shape);
    if !(problems.is_empty() || check) {
        return Err(problems);
    }
    match serde_json::from_value::<Definition>(value) {
        Ok(definition) if problems.is_empty() => {
            if check {
                problems = validate::check(&definition);
            }
            if problems.is_empty() { Ok(definition) } else { Err(problems) }
        }
        Ok(definition) => {
            let found = validate::check(&definition);
            problems.extend(found.into_iter().filter(|found| !mend::causes(&mended, found)));
            Err(problems)
        }
        Err(error) => {
            if problems.is_empty() {
                problems.push(Problem {
                    code: ProblemCode::InvalidValue,
                    pointer: String::new(),
                    line: None,
                    message: error.to_string(),
                    suggestion: None,
                });
            }
            Err(problems)
        }
    }
}

/// The problems with the line of the nearest part of the document that has one.
fn located(mut problems: Vec<Problem>, lines: &HashMap<String, u64>) -> Vec<Problem> {
    for problem in &mut problems {
        let mut pointer = problem.pointer.as_str();
        while problem.line.is_none() {
            problem.line = lines.get(pointer).copied();
            match pointer.rfind('/') {
                Some(end) => pointer = &pointer[..end],
                None => break,
            }
        }
    }
    problems.sort_by_key(|problem| problem.line.unwrap_or(u64::MAX));
    problems
}

#[cfg(test)]
mod tests;
