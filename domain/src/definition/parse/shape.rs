//! The shape of a document, checked against the published JSON Schema, so that the schema knows
//! exactly the keys that the parser knows. Only the schema words that it uses are understood; a
//! test sees to it that there are no others.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::super::problem::{Problem, ProblemCode, escaped};
use super::super::schema::definition_schema;
use crate::expression::closest;

/// The words of JSON Schema that this reader understands, annotations included.
#[cfg(test)]
pub(in crate::definition) const WORDS: [&str; 17] = [
    "$schema",
    "$id",
    "$defs",
    "$ref",
    "title",
    "description",
    "type",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
];

/// What is wrong with a document's shape.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) problems: Vec<Problem>,
    /// The places that were changed so that the rest can be read.
    pub(super) mended: Vec<String>,
}

/// The problems of a document's shape. Unknown keys are taken out of it, and what is missing or
/// can't stand at its place is filled in, so that the rest can be looked at.
pub(super) fn check(value: &mut Value) -> Shape {
    let mut checker = Checker { pointer: String::new(), shape: Shape::default() };
    checker.member(definition_schema(), value);
    checker.shape
}

struct Checker {
    pointer: String,
    shape: Shape,
}

impl Checker {
    fn problem(&mut self, code: ProblemCode, message: String, suggestion: Option<String>) {
        let pointer = self.pointer.clone();
        self.shape.problems.push(Problem { code, pointer, line: None, message, suggestion });
    }

    fn mended(&mut self, key: &str) {
        self.within(key, |checker| checker.shape.mended.push(checker.pointer.clone()));
    }

    /// Checks a value, and fills in another where it can't stand here.
    fn member(&mut self, schema: &Value, value: &mut Value) {
        if !self.value(schema, value) {
            *value = placeholder(schema);
            self.shape.mended.push(self.pointer.clone());
        }
    }

    fn within(&mut self, key: &str, run: impl FnOnce(&mut Self)) {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&escaped(key));
        run(self);
        self.pointer.truncate(length);
    }

    /// Checks a value; false where it can't stand here, whatever is in it.
    fn value(&mut self, schema: &Value, value: &mut Value) -> bool {
        let schema = resolved(schema);
        if let Some(types) = schema.get("type")
            && !type_names(types).any(|name| is_type(name, value))
        {
            let wanted: Vec<_> = type_names(types).map(plain_type).collect();
            let message = format!("this must be {}, not {}", wanted.join(" or "), found(value));
            self.problem(ProblemCode::InvalidValue, message, None);
            return false;
        }
        let before = self.shape.problems.len();
        match value {
            Value::String(text) => self.text(schema, text),
            Value::Number(_) => self.number(schema, value),
            Value::Array(items) => {
                let fewest = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
                if (items.len() as u64) < fewest {
                    let message = format!("at least {fewest} needed");
                    self.problem(ProblemCode::InvalidValue, message, None);
                }
                if let Some(of) = schema.get("items") {
                    for (index, item) in items.iter_mut().enumerate() {
                        self.within(&index.to_string(), |checker| checker.member(of, item));
                    }
                }
            }
            Value::Object(members) => self.object(schema, members),
            Value::Null | Value::Bool(_) => {}
        }
        // The members of lists and mappings are mended where they stand.
        value.is_array() || value.is_object() || self.shape.problems.len() == before
    }

    fn text(&mut self, schema: &Value, text: &str) {
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
            if !words.contains(&text) {
                let message = format!("{text:?} isn't one of {}", words.join(", "));
                let like = closest(text, words).map(str::to_owned);
                self.problem(ProblemCode::InvalidValue, message, like);
            }
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
            && Regex::new(pattern).is_ok_and(|pattern| !pattern.is_match(text))
        {
            let hint = schema.get("description").and_then(Value::as_str).unwrap_or(pattern);
            let shown: String = text.chars().take(80).collect();
            let is_name = pattern == "^[A-Za-z0-9_-]{1,64}$";
            let code = if is_name { ProblemCode::InvalidName } else { ProblemCode::InvalidValue };
            self.problem(code, format!("{shown:?} doesn't fit here: {hint}"), None);
        } else if schema.get("pattern") == span_pattern()
            && let Err(error) = text.parse::<crate::span::Span>()
        {
            self.problem(ProblemCode::InvalidValue, error.to_string(), None);
        }
    }

    fn number(&mut self, schema: &Value, value: &Value) {
        let number = value.as_f64().unwrap_or(f64::NAN);
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let low = bound("minimum").unwrap_or(f64::NEG_INFINITY);
        let high = bound("maximum").unwrap_or(f64::INFINITY);
        if !(low..=high).contains(&number) {
            let message = format!("{value} is outside {low} to {high}");
            self.problem(ProblemCode::InvalidValue, message, None);
        }
    }

    fn object(&mut self, schema: &Value, members: &mut Map<String, Value>) {
        let known = schema.get("properties").and_then(Value::as_object);
        let other = schema.get("additionalProperties");
        let mut unknown = Vec::new();
        for (key, member) in members.iter_mut() {
            if let Some(of) = known.and_then(|known| known.get(key)) {
                self.within(key, |checker| checker.member(of, member));
            } else if let Some(of) = other.filter(|other| other.is_object()) {
                self.within(key, |checker| checker.member(of, member));
            } else if other == Some(&Value::Bool(false)) {
                unknown.push(key.clone());
            }
        }
        let names: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        for key in unknown {
            members.shift_remove(&key);
            let was_on = key == "true" && names.contains(&"on");
            let like = if was_on { Some("on") } else { closest(&key, names.iter().copied()) };
            let message = match like {
                Some(_) if was_on => "unknown key \"true\": writers of YAML 1.1 turn `on` into \
                                      true, so have it quoted: \"on\""
                    .to_owned(),
                Some(like) => format!("unknown key {key:?}, did you mean {like:?}?"),
                None => format!("unknown key {key:?}; known here: {}", names.join(", ")),
            };
            self.within(&key, |checker| {
                checker.problem(ProblemCode::UnknownKey, message, like.map(str::to_owned));
            });
            self.mended(like.unwrap_or(&key));
        }
        let required = schema.get("required").and_then(Value::as_array);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(key) {
                self.problem(ProblemCode::MissingKey, format!("the key {key:?} is missing"), None);
                let of = known.and_then(|known| known.get(key)).unwrap_or(&Value::Null);
                members.insert(key.to_owned(), placeholder(of));
                self.mended(key);
            }
        }
    }
}

/// The least that can stand where a schema holds.
fn placeholder(schema: &Value) -> Value {
    const TEXTS: [&str; 4] = ["x", "1s", "all", "state.x"];
    let schema = resolved(schema);
    match schema.get("type").and_then(|types| type_names(types).next()) {
        Some("object") => {
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            let member = |key: &str| (key.to_owned(), placeholder(&schema["properties"][key]));
            Value::Object(required.filter_map(Value::as_str).map(member).collect())
        }
        Some("array") => Value::Array(Vec::new()),
        Some("integer") => schema.get("minimum").cloned().unwrap_or_else(|| 0.into()),
        Some("boolean") => Value::Bool(false),
        Some("string") => {
            let word = schema.pointer("/enum/0").cloned();
            let pattern = schema.get("pattern").and_then(Value::as_str);
            let pattern = pattern.and_then(|pattern| Regex::new(pattern).ok());
            let fits = |text: &&&str| pattern.as_ref().is_none_or(|p| p.is_match(text));
            word.unwrap_or_else(|| TEXTS.iter().find(fits).copied().unwrap_or_default().into())
        }
        _ => Value::Null,
    }
}

fn span_pattern() -> Option<&'static Value> {
    static PATTERN: LazyLock<Option<&'static Value>> =
        LazyLock::new(|| definition_schema().pointer("/$defs/span/pattern"));
    *PATTERN
}

/// The schema that a local reference leads to.
fn resolved(schema: &Value) -> &Value {
    schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| definition_schema().pointer(reference.trim_start_matches('#')))
        .unwrap_or(schema)
}

fn type_names(types: &Value) -> impl Iterator<Item = &str> {
    let one = types.as_str().into_iter();
    one.chain(types.as_array().into_iter().flatten().filter_map(Value::as_str))
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        _ => false,
    }
}

fn plain_type(name: &str) -> &str {
    match name {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number",
        "boolean" => "true or false",
        other => other,
    }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
