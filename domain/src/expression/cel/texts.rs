//! Functions on texts. Positions count characters, not bytes.

use regex::RegexBuilder;

use super::eval::Machine;
use super::function::{Function, int};
use super::value::{List, Text, Val, span_text, time_text};
use super::{EvalError, InvalidExpression};

type Result<T> = std::result::Result<T, EvalError>;

/// Bytes that a compiled regular expression may take.
const PATTERN_BYTES: usize = 256 * 1024;
/// Operators, selections and brackets that may lie on one path through an expression's tree.
/// The parser recurses over them with large frames, and has no limit of its own for most.
const NESTING: usize = 200;

/// Refuses sources whose nesting would take the parser too deep into its own recursion. An
/// estimate from above: what it lets through, the tree's depth limit judges exactly. Gives the
/// deepest nesting that it met.
pub(super) fn check_nesting(source: &str) -> std::result::Result<usize, InvalidExpression> {
    // For each open bracket, how long the chain of operators around it is.
    let mut outer: Vec<usize> = Vec::new();
    let mut chain = 0_usize;
    let mut total = 0_usize;
    let mut deepest = 0_usize;
    let mut previous = ' ';
    let mut at = 0;
    while let Some(first) = source[at..].chars().next() {
        let skipped = super::super::binding::literal_length(&source[at..]);
        if skipped > 0 {
            at += skipped;
            previous = '"';
            continue;
        }
        match first {
            '(' | '[' | '{' => {
                outer.push(chain + 1);
                total += chain + 1;
                chain = 0;
            }
            ')' | ']' | '}' => {
                // What is inside lies beside what follows, but a call or an index is one link.
                let around = outer.pop().unwrap_or(0);
                total = total.saturating_sub(around);
                chain = around;
            }
            ',' => chain = 0,
            '&' | '|' if first == previous => chain = 0,
            '!' | '-' | '.' | '?' | ':' => chain += 1,
            '+' | '*' | '/' | '%' | '<' | '>' => chain += 1,
            '=' if previous != '=' => chain += 1,
            _ => {}
        }
        // `in` is the one operator that is spelled as a word.
        if first == 'i' && previous.is_whitespace() && source[at..].starts_with("in ") {
            chain += 1;
        }
        deepest = deepest.max(total + chain);
        if deepest > NESTING {
            return Err(InvalidExpression::new(
                "the expression nests too deep: split it over `compute` nodes",
            ));
        }
        previous = first;
        at += first.len_utf8();
    }
    Ok(deepest)
}

/// A regular expression, compiled within its size limit.
pub(super) fn pattern(pattern: &str) -> Result<regex::Regex> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(PATTERN_BYTES)
        .nest_limit(32)
        .build()
        .map_err(|error| {
            let message = error.to_string();
            let reason = message.lines().last().unwrap_or_default();
            EvalError::new("invalid_argument", format!("not a regular expression: {reason}"))
        })
}

/// What `string(value)` gives; `None` where a value has no plain text.
pub(super) fn of<'a>(value: &Val<'a>) -> Option<Val<'a>> {
    Some(match value {
        Val::Text(text) => Val::Text(text.clone()),
        Val::Bool(value) => Val::text(value.to_string()),
        Val::Int(value) => Val::text(value.to_string()),
        Val::UInt(value) => Val::text(value.to_string()),
        Val::Double(value) => Val::text(value.to_string()),
        Val::Time(time) => Val::text(time_text(time)),
        Val::Span(span) => Val::text(span_text(span)),
        Val::Null | Val::List(_) | Val::Map(_) => return None,
    })
}

/// Calls a function on a text; `None` where there is none for such values.
pub(super) fn call<'a>(
    machine: &mut Machine<'_, 'a>,
    function: Function,
    text: &str,
    rest: &[Val<'a>],
) -> Option<Result<Val<'a>>> {
    if let Err(error) = machine.charge(text.len() / 16 + 1) {
        return Some(Err(error));
    }
    Some(match (function, rest) {
        (Function::Contains, [Val::Text(part)]) => Ok(Val::Bool(text.contains(part.as_str()))),
        (Function::StartsWith, [Val::Text(part)]) => Ok(Val::Bool(text.starts_with(part.as_str()))),
        (Function::EndsWith, [Val::Text(part)]) => Ok(Val::Bool(text.ends_with(part.as_str()))),
        (Function::Matches, [Val::Text(wanted)]) => matches(machine, text, wanted.as_str()),
        (Function::IndexOf, [Val::Text(part)]) => Ok(match text.find(part.as_str()) {
            Some(at) => int(text[..at].chars().count()),
            None => Val::Int(-1),
        }),
        (Function::Split, [Val::Text(by)]) => split(machine, text, by.as_str(), None),
        (Function::Split, [Val::Text(by), Val::Int(limit)]) => {
            split(machine, text, by.as_str(), usize::try_from(*limit).ok())
        }
        (Function::Trim, []) => Ok(Val::text(text.trim())),
        (Function::Lower, []) => Ok(Val::text(text.to_lowercase())),
        (Function::Upper, []) => Ok(Val::text(text.to_uppercase())),
        (Function::Replace, [Val::Text(from), Val::Text(to)]) => {
            replace(machine, text, from.as_str(), to.as_str())
        }
        (Function::Substring, [Val::Int(from)]) => substring(text, *from, None),
        (Function::Substring, [Val::Int(from), Val::Int(to)]) => substring(text, *from, Some(*to)),
        (Function::Reverse, []) => Ok(Val::text(text.chars().rev().collect::<String>())),
        _ => return None,
    })
}

fn matches<'a>(machine: &mut Machine<'_, 'a>, text: &str, wanted: &str) -> Result<Val<'a>> {
    // Compiling costs far more than a step, and matching grows with both lengths.
    machine.charge(500 + wanted.len() * 20)?;
    machine.charge((text.len() / 64 + 1).saturating_mul(wanted.len() / 8 + 1))?;
    Ok(Val::Bool(pattern(wanted)?.is_match(text)))
}

fn split<'a>(
    machine: &mut Machine<'_, 'a>,
    text: &str,
    by: &str,
    limit: Option<usize>,
) -> Result<Val<'a>> {
    let mut parts = Vec::new();
    let take = |machine: &mut Machine<'_, 'a>, parts: &mut Vec<Val<'a>>, part: &str| {
        machine.charge_text(part.len())?;
        parts.push(Val::text(part));
        Ok::<_, EvalError>(())
    };
    if by.is_empty() {
        let mut buffer = [0; 4];
        for character in text.chars() {
            take(machine, &mut parts, character.encode_utf8(&mut buffer))?;
        }
        return Ok(Val::list(parts));
    }
    for part in text.splitn(limit.unwrap_or(usize::MAX), by) {
        take(machine, &mut parts, part)?;
    }
    Ok(Val::list(parts))
}

fn replace<'a>(machine: &mut Machine<'_, 'a>, text: &str, from: &str, to: &str) -> Result<Val<'a>> {
    let count = text.matches(from).count();
    let added = count.saturating_mul(to.len());
    machine.charge_text(text.len().saturating_add(added))?;
    machine.charge(count)?;
    Ok(Val::text(text.replace(from, to)))
}

fn substring<'a>(text: &str, from: i64, to: Option<i64>) -> Result<Val<'a>> {
    let place = |position: i64| {
        let position = usize::try_from(position).ok()?;
        let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        places.nth(position)
    };
    let range = place(from).zip(to.map_or(Some(text.len()), place));
    match range.filter(|(from, to)| from <= to) {
        Some((from, to)) => Ok(Val::text(&text[from..to])),
        None => Err(EvalError::new(
            "index_out_of_range",
            format!("a text of {} characters has no such part", text.chars().count()),
        )),
    }
}

/// Joins a list of texts; `None` where something in it isn't a text.
pub(super) fn join<'a>(
    machine: &mut Machine<'_, 'a>,
    list: &List<'a>,
    rest: &[Val<'a>],
) -> Option<Result<Val<'a>>> {
    let by = match rest {
        [] => "",
        [Val::Text(by)] => by.as_str(),
        _ => return None,
    };
    let mut joined = String::new();
    for (index, item) in list.iter().enumerate() {
        let Val::Text(part) = &item else {
            return None;
        };
        if index > 0 {
            joined.push_str(by);
        }
        joined.push_str(Text::as_str(part));
        if let Err(error) = machine.charge_text(part.as_str().len() + by.len()) {
            return Some(Err(error));
        }
        if joined.len() > crate::limits::EVALUATION_BYTES {
            return Some(Err(super::value::too_large(crate::limits::EVALUATION_BYTES)));
        }
    }
    Some(Ok(Val::text(joined)))
}
