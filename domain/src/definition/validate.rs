//! Checking definitions: what the document's shape can't say.

mod actions;
mod admission;
mod branches;
mod effects;
mod emits;
mod graph;
mod groups;
mod mappings;
mod model;
mod scopes;
mod undo;
mod waits;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::model::decode_nodes;
use super::problem::escaped;
use super::{Definition, Node, On, Problem, ProblemCode, Transition};
use crate::expression::closest;
use crate::ids::Name;
use crate::limits;
use scopes::Names;

/// The node kinds, in the order in which messages name them.
const KINDS: &str = "action, steps, compute, workflow, wait, gate, emit";

/// Every problem of a definition that was read well; empty for one that can run.
///
/// References to actions, prompt specs and model profiles aren't resolved here.
pub fn check(definition: &Definition) -> Vec<Problem> {
    let mut checker = Checker::new(definition);
    checker.limits();
    checker.schema("/input_schema", definition.input_schema.as_ref());
    checker.schema("/output_schema", definition.output_schema.as_ref());
    let nodes = match decode_nodes(&definition.nodes) {
        Ok(nodes) => nodes,
        Err(error) => {
            checker.problem(ProblemCode::InvalidValue, "/nodes", error.to_string());
            return checker.problems;
        }
    };
    for (name, node) in &nodes {
        checker.node(name, node);
    }
    for (index, transition) in definition.transitions.iter().enumerate() {
        checker.transition(index, transition, &nodes);
    }
    graph::check(&mut checker);
    groups::check(&mut checker);
    effects::check(&mut checker);
    if let Some(output) = &definition.output {
        checker.mapping("/output", output, &Names::of_run());
    }
    admission::check(&mut checker);
    branches::check(&mut checker);
    checker.problems
}

struct Checker<'d> {
    definition: &'d Definition,
    problems: Vec<Problem>,
    /// The names that `foreach … as` gives, anywhere.
    item_names: BTreeSet<&'d str>,
}

impl<'d> Checker<'d> {
    fn new(definition: &'d Definition) -> Self {
        let item_names =
            definition.transitions.iter().filter_map(|t| t.item_name.as_deref()).collect();
        Self { definition, problems: Vec::new(), item_names }
    }

    fn problem(&mut self, code: ProblemCode, pointer: &str, message: impl Into<String>) {
        self.suggest(code, pointer, message, None);
    }

    fn suggest(
        &mut self,
        code: ProblemCode,
        pointer: &str,
        message: impl Into<String>,
        suggestion: Option<&str>,
    ) {
        self.problems.push(Problem {
            code,
            pointer: pointer.to_owned(),
            line: None,
            message: message.into(),
            suggestion: suggestion.map(str::to_owned),
        });
    }

    fn limits(&mut self) {
        let (nodes, transitions) = (self.definition.nodes.len(), self.definition.transitions.len());
        if nodes > limits::NODES {
            let message =
                format!("{nodes} nodes, more than {}: use child workflows", limits::NODES);
            self.problem(ProblemCode::LimitExceeded, "/nodes", message);
        }
        if nodes == 0 {
            self.problem(ProblemCode::InvalidValue, "/nodes", "at least one node is needed");
        }
        if transitions > limits::TRANSITIONS {
            let message = format!("{transitions} transitions, more than {}", limits::TRANSITIONS);
            self.problem(ProblemCode::LimitExceeded, "/transitions", message);
        }
    }

    fn schema(&mut self, pointer: &str, schema: Option<&Value>) {
        let Some(schema) = schema else { return };
        if let Some((inside, reference)) = outside_reference(schema, String::new()) {
            let message =
                format!("{reference:?} refers outside the schema: copy what it names into `$defs`");
            self.problem(ProblemCode::InvalidSchema, &format!("{pointer}{inside}"), message);
            return;
        }
        if let Err(error) = jsonschema::draft202012::new(schema) {
            let place = format!("{pointer}{}", error.instance_path());
            match schema_type(error.instance_path().as_str(), error.instance()) {
                Some((message, like)) => {
                    self.suggest(ProblemCode::InvalidSchema, &place, message, like);
                }
                None => {
                    let message: String = error.to_string().chars().take(400).collect();
                    self.problem(ProblemCode::InvalidSchema, &place, message);
                }
            }
        }
    }

    /// Whether a failure may lead to the node, so that it sees the `error`.
    fn takes_failures(&self, name: &str) -> bool {
        let leads = |transition: &Transition| transition.to == name && transition.on != On::Success;
        self.definition.transitions.iter().any(leads)
    }

    fn node(&mut self, name: &str, node: &Node) {
        let place = format!("/nodes/{}", escaped(name));
        if let Err(error) = name.parse::<Name>() {
            self.problem(ProblemCode::InvalidName, &place, error.to_string());
        }
        let kinds = kinds_of(node);
        match kinds.as_slice() {
            [] => {
                let message = format!("the node does nothing: give it one of {KINDS}");
                self.problem(ProblemCode::MissingKey, &place, message);
            }
            [_] => {}
            several => {
                let message =
                    format!("a node does one thing, this one has {}: split it", several.join(", "));
                self.problem(ProblemCode::InvalidValue, &place, message);
            }
        }
        self.node_work(&place, node);
        let mut names = Names::of_node(&self.item_names);
        if self.takes_failures(name) {
            names = names.and("error");
        }
        self.without_worker(&place, node, &names);
        self.undo(&place, node, &names);
        if let Some(input) = &node.input {
            self.mapping(&format!("{place}/input"), input, &names);
        }
        if let Some(output) = &node.output {
            let place = format!("{place}/output");
            if node.compute.is_some() {
                let message = "a `compute` node has no result: write into `compute` itself";
                self.problem(ProblemCode::InvalidValue, &place, message);
            } else if node.emit.is_some() {
                let message = "an `emit` node has no result: drop `output`";
                self.problem(ProblemCode::InvalidValue, &place, message);
            } else {
                self.state_mapping(&place, output, &names.and("result"));
            }
        }
        if let Some(compute) = &node.compute {
            self.state_mapping(&format!("{place}/compute"), compute, &names);
        }
        if let Some(retry) = &node.retry {
            self.retry(&place, node, retry);
        }
    }

    fn retry(&mut self, place: &str, node: &Node, retry: &super::Retry) {
        let place = format!("{place}/retry");
        if node.compute.is_some() {
            let message = "a `compute` node is pure: another attempt would give the same";
            self.problem(ProblemCode::InvalidValue, &place, message);
        }
        self.attempts(&place, retry);
    }

    fn attempts(&mut self, place: &str, retry: &super::Retry) {
        if !(1..=limits::ATTEMPTS).contains(&retry.max_attempts) {
            let message = format!("max_attempts must be 1 to {}", limits::ATTEMPTS);
            self.problem(ProblemCode::InvalidValue, &format!("{place}/max_attempts"), message);
        }
        if retry.initial > retry.max {
            let message =
                format!("the first delay {} is over the longest {}", retry.initial, retry.max);
            self.problem(ProblemCode::InvalidValue, &format!("{place}/initial"), message);
        }
    }

    fn transition(
        &mut self,
        index: usize,
        transition: &Transition,
        nodes: &BTreeMap<String, Node>,
    ) {
        let place = format!("/transitions/{index}");
        self.names_node(&format!("{place}/from"), &transition.from);
        self.names_node(&format!("{place}/to"), &transition.to);
        if transition.on == On::Rejected
            && nodes.get(&transition.from).is_some_and(|node| node.gate.is_none())
        {
            let message = "only a `gate` can be rejected; use `on: failure` for errors";
            self.problem(ProblemCode::InvalidValue, &format!("{place}/on"), message);
        }
        if let (On::Timeout, Some(from)) = (transition.on, nodes.get(&transition.from))
            && let Some(message) = waits::no_timeout(from)
        {
            self.problem(ProblemCode::InvalidValue, &format!("{place}/on"), message);
        }
        let mut names = Names::of_node(&self.item_names);
        names = names.and(if transition.on == On::Success { "result" } else { "error" });
        if let Some(when) = &transition.when {
            self.condition(&format!("{place}/when"), when, &names);
        }
        self.fan_out(&place, transition, &names);
        if let Some(join) = &transition.join
            && let Some(from) = join.merge.as_ref().and_then(|merge| merge.from.as_ref())
        {
            self.value(&format!("{place}/join/merge/from"), from, &names.and("result"));
        }
    }

    fn fan_out(&mut self, place: &str, transition: &Transition, names: &Names<'_>) {
        if transition.spawn.is_some() && transition.foreach.is_some() {
            let message = "`spawn` and `foreach` exclude each other";
            self.problem(ProblemCode::InvalidValue, &format!("{place}/spawn"), message);
        }
        if let Some(spawn) = &transition.spawn {
            let place = format!("{place}/spawn");
            match spawn {
                Value::String(text) if !text.contains("${") => {
                    let message = "give a whole number, or an expression as ${…}";
                    self.problem(ProblemCode::InvalidValue, &place, message);
                }
                Value::String(_) => self.value(&place, spawn, names),
                number
                    if !number
                        .as_u64()
                        .is_some_and(|n| (1..=limits::TOKENS_PER_RUN).contains(&n)) =>
                {
                    let message = format!("spawn must be 1 to {}", limits::TOKENS_PER_RUN);
                    self.problem(ProblemCode::InvalidValue, &place, message);
                }
                _ => {}
            }
        }
        if let Some(foreach) = &transition.foreach {
            let place = format!("{place}/foreach");
            if !foreach.contains("${") {
                let message = "give the list as an expression, as in ${input.items}";
                self.problem(ProblemCode::InvalidValue, &place, message);
            } else {
                self.value(&place, &Value::String(foreach.clone()), names);
            }
        }
        let Some(name) = &transition.item_name else { return };
        let place = format!("{place}/as");
        if transition.foreach.is_none() {
            self.problem(ProblemCode::InvalidValue, &place, "`as` names the item of a `foreach`");
        }
        if scopes::ROOTS.contains(&name.as_str()) {
            let message = format!("{name:?} is a name of its own already: choose another");
            self.problem(ProblemCode::InvalidName, &place, message);
        } else if !scopes::is_identifier(name) {
            let message = format!("{name:?} can't be read in an expression: use A-Z a-z 0-9 _");
            self.problem(ProblemCode::InvalidName, &place, message);
        }
    }

    /// Checks that a node of this name exists.
    fn names_node(&mut self, pointer: &str, name: &str) {
        if self.definition.nodes.contains_key(name) {
            return;
        }
        let like = closest(name, self.definition.nodes.keys().map(String::as_str));
        let hint = like.map_or_else(String::new, |like| format!(", did you mean {like:?}?"));
        let message = format!("there is no node {name:?}{hint}");
        self.suggest(ProblemCode::UnknownNode, pointer, message, like);
    }
}

fn kinds_of(node: &Node) -> Vec<&'static str> {
    [
        ("action", node.action.is_some()),
        ("steps", node.steps.is_some()),
        ("compute", node.compute.is_some()),
        ("workflow", node.workflow.is_some()),
        ("gate", node.gate.is_some()),
        ("wait", node.wait.is_some()),
        ("emit", node.emit.is_some()),
    ]
    .into_iter()
    .filter_map(|(kind, is_there)| is_there.then_some(kind))
    .collect()
}

/// What is wrong with a schema's `type`, which JSON Schema's own schema can't say well.
fn schema_type(place: &str, found: &Value) -> Option<(String, Option<&'static str>)> {
    const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];
    if !place.ends_with("/type") {
        return None;
    }
    let named = found.as_array().map_or(std::slice::from_ref(found), Vec::as_slice);
    let is_type = |name: &&Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
    let wrong = named.iter().find(|name| !is_type(name)).unwrap_or(found);
    let like = wrong.as_str().and_then(|name| closest(name, TYPES));
    let hint = like.map_or_else(String::new, |like| format!(", did you mean {like:?}?"));
    Some((format!("{wrong} isn't a type, use {}{hint}", TYPES.join(", ")), like))
}

/// The first reference of a schema that leads outside it, with its place.
fn outside_reference(schema: &Value, place: String) -> Option<(String, &str)> {
    match schema {
        Value::Object(members) => members.iter().find_map(|(key, member)| {
            let inside = format!("{place}/{}", escaped(key));
            match member {
                Value::String(reference)
                    if matches!(key.as_str(), "$ref" | "$dynamicRef")
                        && !reference.starts_with('#') =>
                {
                    Some((inside, reference.as_str()))
                }
                member => outside_reference(member, inside),
            }
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| outside_reference(item, format!("{place}/{index}"))),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
