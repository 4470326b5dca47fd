//! A definition in which something is different: what an experiment tries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::model::{ActionKind, Definition};
use super::parse;
use super::plan::{NodeWork, Plan, TaskBody};
use super::problem::Problem;
use crate::ids::Name;

/// What is different in a definition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Variant {
    /// What lies over `with` of every `llm` action: `model`, `prompt`, `temperature` …
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub with: Map<String, Value>,
    /// The same of a node's action, of whatever kind; of `steps`, over those that are `llm`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, Map<String, Value>>,
    /// Other conditions of transitions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Another condition of the transitions from a node to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    pub from: String,
    pub to: String,
    /// Absent: it always holds.
    #[serde(default)]
    pub when: Option<String>,
}

/// Why a variant can't be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoVariant {
    #[error("the definition has no node {0:?} with an action or steps")]
    NoNode(String),
    #[error("the definition has no transition from {from:?} to {to:?}")]
    NoTransition { from: String, to: String },
    #[error("the definition isn't valid with the change")]
    Invalid(Vec<Problem>),
}

/// What says what a model is asked; an action has one of them.
const PROMPTS: [&str; 3] = ["prompt", "messages", "prompt_spec"];
const NAME_CHARS: usize = 64;
const SUFFIX: &str = "-experiment";

impl Variant {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A definition with the difference, under a name of its own; `None` where it is the same.
    /// `plan` is that of the definition.
    ///
    /// # Errors
    /// Where it names what the definition doesn't have, or makes it invalid.
    pub fn of(
        &self,
        definition: &Definition,
        plan: &Plan,
    ) -> Result<Option<Definition>, NoVariant> {
        let mut other = definition.clone();
        for (name, node) in &mut other.nodes {
            if let Some(llm) = llm_actions(plan, name) {
                lay_over(node, &self.with, &llm);
            }
        }
        for (name, with) in &self.nodes {
            let missing = || NoVariant::NoNode(name.clone());
            let node = other.nodes.get_mut(name).ok_or_else(missing)?;
            let places = llm_actions(plan, name).ok_or_else(missing)?;
            if node.get("action").is_some() {
                lay_over(node, with, &[true]);
            } else if places.contains(&true) {
                lay_over(node, with, &places);
            } else {
                return Err(missing());
            }
        }
        for Condition { from, to, when } in &self.conditions {
            let leads = other.transitions.iter_mut();
            let mut found = leads.filter(|one| one.from == *from && one.to == *to).peekable();
            if found.peek().is_none() {
                return Err(NoVariant::NoTransition { from: from.clone(), to: to.clone() });
            }
            found.for_each(|one| one.when.clone_from(when));
        }
        if other == *definition {
            return Ok(None);
        }
        let value = serde_json::to_value(other.for_experiment()).unwrap_or_default();
        parse::parse_value(&value).map(Some).map_err(NoVariant::Invalid)
    }
}

impl Definition {
    /// The same under the name by which what an experiment tries is published: nobody follows it
    /// who follows the newest version of a name.
    #[must_use]
    pub fn for_experiment(mut self) -> Self {
        let name: String = self.name.as_str().chars().take(NAME_CHARS - SUFFIX.len()).collect();
        if let Ok(name) = format!("{name}{SUFFIX}").parse::<Name>() {
            self.name = name;
        }
        self
    }
}

/// Of a node's actions, which are `llm`; `None` of a node without any action.
fn llm_actions(plan: &Plan, node: &str) -> Option<Vec<bool>> {
    let is_llm = |kind| kind == ActionKind::Llm;
    match &plan.node(node)?.work {
        NodeWork::Task(TaskBody::Action(action)) => Some(vec![is_llm(action.kind)]),
        NodeWork::Task(TaskBody::Steps(steps)) => {
            Some(steps.iter().map(|(_, action)| is_llm(action.kind)).collect())
        }
        _ => None,
    }
}

/// Lays members over `with` of those actions of a node that are meant.
fn lay_over(node: &mut Value, members: &Map<String, Value>, meant: &[bool]) {
    if members.is_empty() {
        return;
    }
    let actions: Vec<&mut Value> = match node.get("action").is_some() {
        true => node.get_mut("action").into_iter().collect(),
        false => {
            let steps = node.get_mut("steps").and_then(Value::as_array_mut);
            let steps = steps.into_iter().flatten();
            steps.filter_map(|step| step.get_mut("action")).collect()
        }
    };
    for (action, _) in actions.into_iter().zip(meant).filter(|(_, meant)| **meant) {
        let Some(action) = action.as_object_mut() else { continue };
        let with = action.entry("with").or_insert_with(|| json!({}));
        let Some(with) = with.as_object_mut() else { continue };
        if members.keys().any(|key| PROMPTS.contains(&key.as_str())) {
            PROMPTS.iter().for_each(|key| drop(with.shift_remove(*key)));
        }
        for (key, value) in members {
            match value {
                Value::Null => drop(with.shift_remove(key)),
                value => drop(with.insert(key.clone(), value.clone())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Resolved;

    fn definition() -> Definition {
        parse::parse_value(&json!({
            "name": "review", "start": "draft",
            "nodes": {
                "draft": {"action": {"kind": "llm", "with": {"model": {"provider": "mock",
                    "model": "m"}, "prompt_spec": "draft@2"}}},
                "rate": {"steps": [
                    {"name": "clean", "action": {"kind": "transform", "with": {"value": 1}}},
                    {"name": "score", "action": {"kind": "llm", "with": {"prompt": "Score it.",
                        "model": {"provider": "mock", "model": "m"}}}}]},
                "tell": {"action": {"kind": "http", "with": {"url": "http://a/"}}},
                "end": {"compute": {}}},
            "transitions": [
                {"from": "draft", "to": "rate"},
                {"from": "rate", "to": "tell", "when": "true"},
                {"from": "tell", "to": "end"}]
        }))
        .expect("a definition")
    }

    fn made(variant: Value) -> Result<Option<Definition>, NoVariant> {
        let (variant, own) = (serde_json::from_value(variant), definition());
        let variant: Variant = variant.expect("a variant");
        let resolved =
            Resolved { prompts: [("draft@2".to_owned(), prompt())].into(), ..Resolved::default() };
        let plan = Plan::compile(&own, &resolved).expect("it compiles");
        variant.of(&own, &plan)
    }

    fn prompt() -> crate::resource::PromptSpecSpec {
        serde_json::from_value(json!({"project_id": crate::ids::ProjectId::derived("", "p"),
            "name": "draft", "template": "Draft it."}))
        .expect("a prompt spec")
    }

    #[test]
    fn what_lies_over_every_model_call_lies_over_no_other_action() {
        let other = made(json!({"with": {"model": "small", "temperature": 0}}));
        let other = other.expect("it can be made").expect("it is another one");
        assert_eq!(other.name.as_str(), "review-experiment");
        let expected = json!({"model": "small", "prompt_spec": "draft@2", "temperature": 0});
        assert_eq!(other.nodes["draft"]["action"]["with"], expected);
        let steps = &other.nodes["rate"]["steps"];
        assert_eq!(steps[0], definition().nodes["rate"]["steps"][0]);
        assert_eq!(steps[1]["action"]["with"]["model"], "small");
        assert_eq!(other.nodes["tell"], definition().nodes["tell"]);
    }

    #[test]
    fn a_node_gets_another_prompt_instead_of_its_own_and_a_way_another_condition() {
        let other = made(json!({
            "nodes": {"draft": {"prompt": "Be brief."}, "tell": {"url": "http://b/"}},
            "conditions": [{"from": "rate", "to": "tell", "when": "1 > 2"}],
        }));
        let other = other.expect("it can be made").expect("it is another one");
        let with = &other.nodes["draft"]["action"]["with"];
        assert_eq!((&with["prompt"], with.get("prompt_spec")), (&json!("Be brief."), None));
        assert_eq!(other.nodes["tell"]["action"]["with"]["url"], "http://b/");
        assert_eq!(other.transitions[1].when.as_deref(), Some("1 > 2"));
    }

    #[test]
    fn what_changes_nothing_is_no_variant_and_what_names_nothing_is_refused() {
        assert_eq!(made(json!({})), Ok(None));
        assert_eq!(made(json!({"nodes": {"tell": {"url": "http://a/"}}})), Ok(None));
        let missing = |node: &str| Err(NoVariant::NoNode(node.to_owned()));
        assert_eq!(made(json!({"nodes": {"gone": {"model": "m"}}})), missing("gone"));
        assert_eq!(made(json!({"nodes": {"end": {"model": "m"}}})), missing("end"));
        let way = json!({"conditions": [{"from": "rate", "to": "end"}]});
        assert!(matches!(made(way), Err(NoVariant::NoTransition { .. })));
    }
}
