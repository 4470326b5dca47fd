//! Checking actions: the keys of each kind's `with`, and what stands under them.
//!
//! An inline model is checked in `model`, prose in `mappings`.

use serde_json::{Map, Value};

use super::super::problem::escaped;
use super::super::{ActionKind, ActionUse, Mapping, Node, ProblemCode, Step, UndoSpec};
use super::Checker;
use super::scopes::{Names, is_identifier};
use crate::expression::closest;
use crate::span::Span;

/// What stands under a key of `with`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// A JSON value with `${…}` in its texts.
    Value,
    /// A model profile: its name, or one inline.
    Model,
    /// A Jinja text.
    Template,
    /// `{role, content}` objects whose `content` is a Jinja text.
    Messages,
    /// A JSON Schema.
    Schema,
    /// A method of HTTP, or an expression that gives one.
    Method,
    /// As it is.
    Plain,
}

const LLM: &[(&str, Holds)] = &[
    ("model", Holds::Model),
    ("system", Holds::Template),
    ("prompt", Holds::Template),
    ("prompt_spec", Holds::Plain),
    ("messages", Holds::Messages),
    ("schema", Holds::Schema),
    ("tools", Holds::Plain),
    ("temperature", Holds::Value),
    ("max_tokens", Holds::Value),
    ("stream", Holds::Value),
];
const HTTP: &[(&str, Holds)] = &[
    ("method", Holds::Method),
    ("url", Holds::Template),
    ("headers", Holds::Value),
    ("query", Holds::Value),
    ("body", Holds::Value),
    ("json", Holds::Value),
    ("expect", Holds::Value),
];
const TRANSFORM: &[(&str, Holds)] = &[("value", Holds::Value)];
const MOCK: &[(&str, Holds)] =
    &[("result", Holds::Value), ("delay", Holds::Plain), ("fail", Holds::Plain)];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const MOCK_FAIL: [&str; 4] = ["times", "kind", "code", "message"];
/// What templates see beside the members of the input.
const OF_TEMPLATES: [&str; 3] = ["input", "run", "steps"];
const FAILURE_KINDS: [&str; 3] = ["transient", "permanent", "timeout"];

/// The member of a task's result that holds its last step's.
const LAST: &str = "last";

/// What the texts of an action can name.
pub(super) struct Seen<'n> {
    /// Of expressions.
    pub(super) names: Names<'n>,
    /// Of templates.
    pub(super) variables: Vec<&'n str>,
}

impl<'n> Seen<'n> {
    fn new(names: Names<'n>, input: Option<&'n Mapping>) -> Self {
        let mut variables = OF_TEMPLATES.to_vec();
        variables.extend(input.into_iter().flat_map(Mapping::keys).map(String::as_str));
        Self { names, variables }
    }
}

impl Checker<'_> {
    /// Checks what a node does.
    pub(super) fn node_work(&mut self, place: &str, node: &Node) {
        if let Some(action) = &node.action {
            let seen = Seen::new(Names::of_action(), node.input.as_ref());
            self.action(&format!("{place}/action"), action, &seen);
        }
        let steps = node.steps.as_deref().unwrap_or_default();
        for (index, step) in steps.iter().enumerate() {
            let place = format!("{place}/steps/{index}");
            if step.name.as_str() == LAST {
                let message = format!("{LAST:?} names the last step's result: choose another name");
                self.problem(ProblemCode::InvalidName, &format!("{place}/name"), message);
            }
            if steps[..index].iter().any(|earlier| earlier.name == step.name) {
                let message =
                    format!("a step named {:?} stands before this one", step.name.as_str());
                self.problem(ProblemCode::InvalidName, &format!("{place}/name"), message);
            }
            self.step(&place, step, node.input.as_ref());
        }
    }

    /// Checks the action of an undo.
    pub(super) fn undo_action(&mut self, place: &str, undo: &UndoSpec) {
        let seen = Seen::new(Names::of_action(), undo.input.as_ref());
        self.action(place, &undo.action, &seen);
    }

    /// Checks a step; without an input of its own it has the node's.
    fn step(&mut self, place: &str, step: &Step, of_node: Option<&Mapping>) {
        let names = Names::of_step();
        if let Some(condition) = &step.condition {
            self.condition(&format!("{place}/if"), condition, &names);
        } else {
            for (key, is_there) in
                [("then", step.then.is_some()), ("else", step.otherwise.is_some())]
            {
                if is_there {
                    let message = format!("`{key}` needs an `if`");
                    self.problem(ProblemCode::MissingKey, &format!("{place}/{key}"), message);
                }
            }
        }
        if let Some(input) = &step.input {
            self.mapping(&format!("{place}/input"), input, &names);
        }
        let seen = Seen::new(names, step.input.as_ref().or(of_node));
        self.action(&format!("{place}/action"), &step.action, &seen);
    }

    fn action(&mut self, place: &str, action: &ActionUse, seen: &Seen<'_>) {
        match (&action.reference, action.kind) {
            (Some(_), Some(_)) => {
                let message = "`use` and `kind` exclude each other";
                self.problem(ProblemCode::InvalidValue, place, message);
            }
            (None, None) => {
                let message =
                    "an action needs `use` (a name) or `kind` (llm, http, transform, mock)";
                self.problem(ProblemCode::MissingKey, place, message);
            }
            (Some(_), None) => self.overrides(&format!("{place}/with"), &action.with, seen),
            (None, Some(kind)) => self.kind(place, kind, &action.with, seen),
        }
    }

    /// The overrides of a referenced action, whose kind isn't known here: each key is read as
    /// the kind reads it that has such a key.
    fn overrides(&mut self, place: &str, with: &Map<String, Value>, seen: &Seen<'_>) {
        let all = [LLM, HTTP, TRANSFORM, MOCK].concat();
        self.with(place, with, &all, seen);
    }

    fn kind(&mut self, place: &str, kind: ActionKind, with: &Map<String, Value>, seen: &Seen<'_>) {
        let keys = match kind {
            ActionKind::Llm => LLM,
            ActionKind::Http => HTTP,
            ActionKind::Transform => TRANSFORM,
            ActionKind::Mock => MOCK,
            ActionKind::Mcp | ActionKind::Metric | ActionKind::Artifact => {
                let message = "this version doesn't run this kind of action yet; it has llm, http, \
                               transform, mock";
                self.problem(ProblemCode::UnsupportedAction, &format!("{place}/kind"), message);
                return;
            }
        };
        let place = format!("{place}/with");
        let has = |key: &str| with.contains_key(key);
        let missing = match kind {
            ActionKind::Llm if !(has("prompt") || has("prompt_spec") || has("messages")) => {
                Some("an llm action needs `prompt`, `prompt_spec` or `messages`")
            }
            ActionKind::Http if !has("url") => Some("an http action needs `url`"),
            ActionKind::Transform if !has("value") => Some("a transform action needs `value`"),
            _ => None,
        };
        if let Some(message) = missing {
            self.problem(ProblemCode::MissingKey, &place, message);
        }
        for (one, other) in [("prompt", "prompt_spec"), ("prompt", "messages"), ("body", "json")] {
            if has(one) && has(other) {
                let message = format!("`{one}` and `{other}` exclude each other");
                self.problem(ProblemCode::InvalidValue, &format!("{place}/{other}"), message);
            }
        }
        self.with(&place, with, keys, seen);
    }

    fn with(
        &mut self,
        place: &str,
        with: &Map<String, Value>,
        keys: &[(&str, Holds)],
        seen: &Seen<'_>,
    ) {
        for (key, value) in with {
            let place = format!("{place}/{}", escaped(key));
            match keys.iter().find(|(known, _)| known == key).map(|(_, holds)| *holds) {
                Some(Holds::Value) => self.value(&place, value, &seen.names),
                Some(Holds::Model) if value.is_object() => self.inline_model(&place, value),
                Some(Holds::Model) => self.model_name(&place, value, &seen.names),
                Some(Holds::Template) => self.template(&place, value, seen),
                Some(Holds::Messages) => self.messages(&place, value, seen),
                Some(Holds::Schema) => self.schema(&place, Some(value)),
                Some(Holds::Method) => self.method(&place, value, &seen.names),
                Some(Holds::Plain) => self.plain(&place, key, value),
                None => self.unknown(&place, key, keys.iter().map(|(known, _)| *known).collect()),
            }
        }
    }

    pub(super) fn unknown(&mut self, place: &str, key: &str, known: Vec<&str>) {
        let like = closest(key, known.iter().copied());
        let message = match like {
            Some(like) => format!("unknown key {key:?}, did you mean {like:?}?"),
            None => format!("unknown key {key:?}; known here: {}", known.join(", ")),
        };
        self.suggest(ProblemCode::UnknownKey, place, message, like);
    }

    fn messages(&mut self, place: &str, value: &Value, seen: &Seen<'_>) {
        let Some(messages) = value.as_array() else {
            // A list that an expression yields is looked at when it is there.
            self.value(place, value, &seen.names);
            return;
        };
        for (index, message) in messages.iter().enumerate() {
            let place = format!("{place}/{index}");
            match message.get("content") {
                Some(content @ Value::String(_)) => {
                    self.template(&format!("{place}/content"), content, seen);
                }
                Some(_) => {}
                None => {
                    let message = "a message needs `role` and `content`";
                    self.problem(ProblemCode::MissingKey, &place, message);
                }
            }
        }
    }

    fn method(&mut self, place: &str, value: &Value, names: &Names<'_>) {
        let name = value.as_str().unwrap_or_default();
        if name.contains("${") {
            return self.value(place, value, names);
        }
        let name = name.to_ascii_uppercase();
        if !METHODS.contains(&name.as_str()) {
            let like = closest(&name, METHODS);
            let hint = like.map_or_else(String::new, |like| format!(", did you mean {like:?}?"));
            let message = format!("{value} isn't one of {}{hint}", METHODS.join(", "));
            self.suggest(ProblemCode::InvalidValue, place, message, like);
        }
    }

    fn plain(&mut self, place: &str, key: &str, value: &Value) {
        match key {
            "delay" => match value.as_str().map(str::parse::<Span>) {
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    self.problem(ProblemCode::InvalidValue, place, error.to_string());
                }
                None => {
                    let message = "a delay is a text such as 20ms";
                    self.problem(ProblemCode::InvalidValue, place, message);
                }
            },
            "fail" => self.mock_fail(place, value),
            "prompt_spec" if !value.is_string() => {
                let message = "this must be name or name@version";
                self.problem(ProblemCode::InvalidValue, place, message);
            }
            _ => {}
        }
    }

    fn mock_fail(&mut self, place: &str, value: &Value) {
        let Some(fail) = value.as_object() else {
            let message = "`fail` is a mapping: {times, kind, code, message}";
            self.problem(ProblemCode::InvalidValue, place, message);
            return;
        };
        for (key, value) in fail {
            let place = format!("{place}/{}", escaped(key));
            let fits = match key.as_str() {
                "times" => value.is_u64(),
                "kind" => value.as_str().is_some_and(|kind| FAILURE_KINDS.contains(&kind)),
                "code" => value.as_str().is_some_and(is_identifier),
                "message" => value.is_string(),
                _ => {
                    self.unknown(&place, key, MOCK_FAIL.to_vec());
                    continue;
                }
            };
            if !fits {
                let message = match key.as_str() {
                    "times" => "this must be a whole number".to_owned(),
                    "kind" => format!("this must be one of {}", FAILURE_KINDS.join(", ")),
                    "code" => "this must be a word of A-Z a-z 0-9 _".to_owned(),
                    _ => "this must be a text".to_owned(),
                };
                self.problem(ProblemCode::InvalidValue, &place, message);
            }
        }
    }
}
