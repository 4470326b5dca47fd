//! From text to a JSON value and the line of each of its parts.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use super::super::problem::{Problem, ProblemCode};
use super::storable::{self, Place};
use super::words;
use crate::limits;

/// A document and where its parts stand.
pub(super) struct Document {
    pub(super) value: Value,
    /// Lines from 1 by JSON Pointer; empty for JSON.
    pub(super) lines: HashMap<String, u64>,
    /// What is wrong with values that could be read all the same.
    pub(super) problems: Vec<Problem>,
}

pub(super) fn document(source: &[u8]) -> Result<Document, Problem> {
    if source.len() > limits::DEFINITION_BYTES {
        return Err(too_large(source.len()));
    }
    let text = std::str::from_utf8(source).map_err(|error| {
        let line = source[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        syntax("the source isn't UTF-8".to_owned(), Some(line as u64))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // JSON is read as JSON, since YAML knows neither its escapes of surrogates nor its tabs.
    let mut is_json = false;
    let tree = if text.trim_start().starts_with('{') {
        match serde_json::from_str::<Plain>(text) {
            Ok(Plain(tree)) => {
                is_json = true;
                tree
            }
            Err(error) if error.is_data() || looks_like_json(text) => {
                return Err(named(error.to_string(), Some(error.line() as u64)));
            }
            Err(_) => yaml(text)?,
        }
    } else {
        yaml(text)?
    };
    let mut places = Places::default();
    let value = tree.into_value(&mut String::new(), &mut places);
    check_depth(&value)?;
    let problems = storable::large_integers(text, is_json, &places.numbers);
    Ok(Document { value, lines: places.lines, problems })
}

fn looks_like_json(text: &str) -> bool {
    let rest = text.trim_start().trim_start_matches('{').trim_start();
    rest.starts_with('"') || rest.starts_with('}')
}

/// Bytes of stack for the YAML reader, whose frames are large: nesting up to the limit must fit
/// whatever stack the caller runs on.
const YAML_STACK: usize = 64 * 1024 * 1024;

fn yaml(text: &str) -> Result<Tree, Problem> {
    let broken = || syntax("the YAML reader failed on this source".to_owned(), None);
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("definition".to_owned())
            .stack_size(YAML_STACK)
            .spawn_scoped(scope, || read_yaml(text))
            .map_err(|_| broken())?
            .join()
            .map_err(|_| broken())?
    })
}

fn read_yaml(text: &str) -> Result<Tree, Problem> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 400_000,
            max_nodes: 200_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 1,
            max_depth: limits::JSON_DEPTH + 2,
            max_total_scalar_bytes: 8 * limits::DEFINITION_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    };
    serde_saphyr::from_str_with_options::<Spanned<Tree>>(text, options).map(located).map_err(
        |error| {
            let line = error.location().map(|location| location.line());
            let error = error.without_snippet();
            let message = error.to_string();
            named(message.lines().next().unwrap_or("not YAML").to_owned(), line)
        },
    )
}

fn named(message: String, line: Option<u64>) -> Problem {
    let mut problem = syntax(words::plain(&message), line);
    if problem.message.to_lowercase().contains("duplicate") {
        problem.code = ProblemCode::DuplicateKey;
    }
    problem
}

fn syntax(message: String, line: Option<u64>) -> Problem {
    let message = message.chars().take(400).collect();
    Problem { code: ProblemCode::Syntax, pointer: String::new(), line, message, suggestion: None }
}

pub(super) fn too_large(bytes: usize) -> Problem {
    Problem {
        code: ProblemCode::LimitExceeded,
        pointer: String::new(),
        line: None,
        message: format!(
            "the definition has {bytes} bytes, more than {}: split it into several workflows",
            limits::DEFINITION_BYTES
        ),
        suggestion: None,
    }
}

/// Refuses documents that nest deeper than any value may.
pub(super) fn check_depth(value: &Value) -> Result<(), Problem> {
    fn fits(value: &Value, left: usize) -> bool {
        let Some(left) = left.checked_sub(1) else { return false };
        match value {
            Value::Array(list) => list.iter().all(|item| fits(item, left)),
            Value::Object(map) => map.values().all(|item| fits(item, left)),
            _ => true,
        }
    }
    if fits(value, limits::JSON_DEPTH + 1) {
        return Ok(());
    }
    Err(Problem {
        code: ProblemCode::LimitExceeded,
        pointer: String::new(),
        line: None,
        message: format!("the definition nests deeper than {}", limits::JSON_DEPTH),
        suggestion: None,
    })
}

/// Whole numbers from here on have no exact double: 2^53.
const LARGE: f64 = 9_007_199_254_740_992.0;

/// A part of a document: what it is and its line and column, 0 where unknown.
struct Tree {
    line: u64,
    column: u64,
    kind: Kind,
}

/// Where the parts of a document stand.
#[derive(Default)]
struct Places {
    lines: HashMap<String, u64>,
    numbers: Vec<Place>,
}

enum Kind {
    Scalar(Value),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    fn into_value(self, pointer: &mut String, places: &mut Places) -> Value {
        if self.line > 0 {
            places.lines.insert(pointer.clone(), self.line);
        }
        let length = pointer.len();
        match self.kind {
            Kind::Scalar(value) => {
                if let Value::Number(number) = &value {
                    let float = number.as_f64().filter(|_| number.is_f64()).unwrap_or(0.5);
                    places.numbers.push(Place {
                        pointer: pointer.clone(),
                        line: self.line,
                        column: self.column,
                        is_suspect: float.fract() == 0.0 && float.abs() >= LARGE,
                    });
                }
                value
            }
            Kind::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    pointer.push_str(&format!("/{index}"));
                    list.push(item.into_value(pointer, places));
                    pointer.truncate(length);
                }
                Value::Array(list)
            }
            Kind::Map(members) => {
                let mut map = Map::new();
                for (key, member) in members {
                    pointer.push('/');
                    pointer.push_str(&super::super::problem::escaped(&key));
                    let member = member.into_value(pointer, places);
                    pointer.truncate(length);
                    map.insert(key, member);
                }
                Value::Object(map)
            }
        }
    }
}

/// Reads children with their lines (YAML) or without (JSON).
struct Reader {
    spanned: bool,
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader { spanned: true })
    }
}

/// A tree read by a format that has no lines to give.
struct Plain(Tree);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader { spanned: false }).map(Plain)
    }
}

fn scalar(value: Value) -> Tree {
    unplaced(Kind::Scalar(value))
}

fn located(spanned: Spanned<Tree>) -> Tree {
    let Spanned { referenced, value, .. } = spanned;
    Tree { line: referenced.line(), column: referenced.column(), ..value }
}

fn unplaced(kind: Kind) -> Tree {
    Tree { line: 0, column: 0, kind }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        Number::from_f64(value)
            .map(|number| scalar(Value::Number(number)))
            .ok_or_else(|| E::custom("infinities and NaN aren't values"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Tree, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        loop {
            let item = if self.spanned {
                access.next_element::<Spanned<Tree>>()?.map(located)
            } else {
                access.next_element::<Plain>()?.map(|plain| plain.0)
            };
            match item {
                Some(item) => items.push(item),
                None => return Ok(unplaced(Kind::List(items))),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = access.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(serde::de::Error::custom(format!("duplicate key {key:?}")));
            }
            let member = if self.spanned {
                located(access.next_value::<Spanned<Tree>>()?)
            } else {
                access.next_value::<Plain>()?.0
            };
            members.push((key, member));
        }
        Ok(unplaced(Kind::Map(members)))
    }
}
