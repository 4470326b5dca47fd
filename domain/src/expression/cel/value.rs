//! The values that expressions compute with: borrowed JSON wherever possible.

use std::collections::BTreeMap;
use std::rc::Rc;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Number, Value};

use super::EvalError;
use crate::limits;

/// A constant of the source.
#[derive(Debug, Clone)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(String),
}

impl Literal {
    pub(super) fn value(&self) -> Val<'_> {
        match self {
            Self::Null => Val::Null,
            Self::Bool(value) => Val::Bool(*value),
            Self::Int(value) => Val::Int(*value),
            Self::UInt(value) => Val::UInt(*value),
            Self::Double(value) => Val::Double(*value),
            Self::Text(text) => Val::Text(Text::Borrowed(text)),
        }
    }

    pub(super) fn to_json(&self) -> Option<Value> {
        Some(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::UInt(value) => (*value).into(),
            Self::Double(value) => Value::Number(Number::from_f64(*value)?),
            Self::Text(text) => text.as_str().into(),
        })
    }
}

/// A value. Clones are cheap: contents are borrowed or counted.
#[derive(Debug, Clone)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Text<'a>),
    List(List<'a>),
    Map(Object<'a>),
    Time(DateTime<Utc>),
    Span(TimeDelta),
}

#[derive(Debug, Clone)]
pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Made(Rc<str>),
}

#[derive(Debug, Clone)]
pub(super) enum List<'a> {
    Borrowed(&'a [Value]),
    Made(Rc<Vec<Val<'a>>>),
}

#[derive(Debug, Clone)]
pub(super) enum Object<'a> {
    Borrowed(&'a Map<String, Value>),
    Made(Rc<BTreeMap<Rc<str>, Val<'a>>>),
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl<'a> List<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Borrowed(list) => list.len(),
            Self::Made(list) => list.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::Borrowed(list) => list.get(index).map(Val::from_json),
            Self::Made(list) => list.get(index).cloned(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Object<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Borrowed(map) => map.len(),
            Self::Made(map) => map.len(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Val<'a>> {
        match self {
            Self::Borrowed(map) => map.get(key).map(Val::from_json),
            Self::Made(map) => map.get(key).cloned(),
        }
    }

    /// The keys, sorted, so that no result depends on the order of a document.
    pub(super) fn keys(&self) -> Vec<Text<'a>> {
        match self {
            Self::Borrowed(map) => {
                let mut keys: Vec<&'a str> = map.keys().map(String::as_str).collect();
                keys.sort_unstable();
                keys.into_iter().map(Text::Borrowed).collect()
            }
            Self::Made(map) => map.keys().cloned().map(Text::Made).collect(),
        }
    }
}

impl<'a> Val<'a> {
    pub(super) fn from_json(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::number(number),
            Value::String(text) => Self::Text(Text::Borrowed(text)),
            Value::Array(list) => Self::List(List::Borrowed(list)),
            Value::Object(map) => Self::Map(Object::Borrowed(map)),
        }
    }

    fn number(number: &Number) -> Self {
        match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Self::Int(int),
            (None, Some(uint)) => Self::UInt(uint),
            (None, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
        }
    }

    pub(super) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(Text::Made(text.into()))
    }

    pub(super) fn list(list: Vec<Self>) -> Self {
        Self::List(List::Made(Rc::new(list)))
    }

    /// The CEL name of its type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::UInt(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Time(_) => "timestamp",
            Self::Span(_) => "duration",
        }
    }
}

/// What stands in a JSON value, for messages.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Checks a value's size as compact JSON (escapes not counted) and its depth.
///
/// # Errors
/// `too_large` or `too_deep`.
pub(in crate::expression) fn fits(
    value: &Value,
    bytes: usize,
    depth: usize,
) -> Result<usize, EvalError> {
    let mut room = Room { left: bytes, limit: bytes };
    room.walk(value, depth)?;
    Ok(room.left)
}

struct Room {
    left: usize,
    limit: usize,
}

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| too_large(self.limit))?;
        Ok(())
    }

    fn walk(&mut self, value: &Value, depth: usize) -> Result<(), EvalError> {
        match value {
            Value::Null | Value::Bool(true) => self.take(4),
            Value::Bool(false) => self.take(5),
            Value::Number(number) => self.take(number_bytes(number)),
            Value::String(text) => self.take(text.len() + 2),
            Value::Array(list) => {
                let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
                self.take(2 + list.len().saturating_sub(1))?;
                list.iter().try_for_each(|item| self.walk(item, depth))
            }
            Value::Object(map) => {
                let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
                self.take(2 + map.len().saturating_sub(1))?;
                map.iter().try_for_each(|(key, value)| {
                    self.take(key.len() + 3)?;
                    self.walk(value, depth)
                })
            }
        }
    }

    fn convert(&mut self, value: &Val<'_>, depth: usize) -> Result<Value, EvalError> {
        let json = match value {
            Val::Null => Value::Null,
            Val::Bool(value) => Value::Bool(*value),
            Val::Int(value) => (*value).into(),
            Val::UInt(value) => (*value).into(),
            Val::Double(value) => Number::from_f64(*value).map(Value::Number).ok_or_else(|| {
                EvalError::new("not_a_number", format!("{value} can't be written as JSON"))
            })?,
            Val::Text(text) => {
                self.take(text.as_str().len() + 2)?;
                return Ok(Value::String(text.as_str().to_owned()));
            }
            Val::Time(time) => time_text(time).into(),
            Val::Span(span) => span_text(span).into(),
            Val::List(List::Borrowed(list)) => {
                self.walk_list(list, depth)?;
                return Ok(Value::Array(list.to_vec()));
            }
            Val::Map(Object::Borrowed(map)) => {
                let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
                self.take(2 + map.len().saturating_sub(1))?;
                for (key, value) in *map {
                    self.take(key.len() + 3)?;
                    self.walk(value, depth)?;
                }
                return Ok(Value::Object((*map).clone()));
            }
            Val::List(List::Made(list)) => {
                let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
                self.take(2 + list.len().saturating_sub(1))?;
                let items: Result<_, _> =
                    list.iter().map(|item| self.convert(item, depth)).collect();
                return items.map(Value::Array);
            }
            Val::Map(Object::Made(map)) => {
                let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
                self.take(2 + map.len().saturating_sub(1))?;
                let mut object = Map::new();
                for (key, value) in map.iter() {
                    self.take(key.len() + 3)?;
                    object.insert(key.to_string(), self.convert(value, depth)?);
                }
                return Ok(Value::Object(object));
            }
        };
        self.walk(&json, depth)?;
        Ok(json)
    }

    fn walk_list(&mut self, list: &[Value], depth: usize) -> Result<(), EvalError> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        self.take(2 + list.len().saturating_sub(1))?;
        list.iter().try_for_each(|item| self.walk(item, depth))
    }
}

/// The value as JSON, within the limits of an evaluation.
///
/// # Errors
/// `too_large`, `too_deep`, or `not_a_number` for NaN and infinities.
pub(super) fn to_json(value: &Val<'_>) -> Result<Value, EvalError> {
    let mut room = Room { left: limits::EVALUATION_BYTES, limit: limits::EVALUATION_BYTES };
    room.convert(value, limits::JSON_DEPTH)
}

/// RFC 3339 in UTC, with as many fraction digits as there are.
pub(super) fn time_text(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Seconds with up to nine fraction digits and `s`, as in CEL: `90s`, `1.5s`.
pub(super) fn span_text(span: &TimeDelta) -> String {
    let nanos = i128::from(span.num_seconds()) * 1_000_000_000 + i128::from(span.subsec_nanos());
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.abs() / 1_000_000_000, nanos.abs() % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    format!("{sign}{seconds}.{}s", format!("{rest:09}").trim_end_matches('0'))
}

fn number_bytes(number: &Number) -> usize {
    match (number.as_i64(), number.as_u64()) {
        (Some(int), _) => {
            int.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1 + usize::from(int < 0)
        }
        (None, Some(_)) => 20,
        (None, None) => 17,
    }
}

pub(super) fn too_large(limit: usize) -> EvalError {
    EvalError::new("too_large", format!("the value is over {limit} bytes"))
}

fn too_deep() -> EvalError {
    EvalError::new("too_deep", format!("the value nests deeper than {}", limits::JSON_DEPTH))
}
