//! What a definition refers to, and what those references stand for: exactly which versions,
//! with their content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::definition::problem::escaped;
use crate::definition::{ActionKind, ActionUse, Definition, model};
use crate::resource::{ActionSpec, ModelProfileSpec, PromptSpecSpec, Spec};
use crate::run::event::Pin;

/// The references of one definition, resolved. Keys are the references as they stand in the
/// definition (`name` or `name@version`); models hold their fallbacks too, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    pub actions: BTreeMap<String, ActionSpec>,
    pub prompts: BTreeMap<String, PromptSpecSpec>,
    pub models: BTreeMap<String, ModelProfileSpec>,
    /// The project's default model profile, where an action needs it; it stands in `models`.
    pub default_model: Option<String>,
    /// One pin per reference, sorted by kind and reference: the same pins give the same content
    /// again. A pin of the project says whose `default_model` holds.
    pub pins: Vec<Pin>,
}

impl Resolved {
    /// What a run's pins stand for: the version of each pin, in their order.
    pub fn pinned(pins: &[Pin], specs: Vec<Spec>) -> Self {
        let mut resolved = Self { pins: pins.to_vec(), ..Self::default() };
        for (pin, spec) in pins.iter().zip(specs) {
            let reference = pin.reference.clone();
            match spec {
                Spec::Action(spec) => drop(resolved.actions.insert(reference, spec)),
                Spec::PromptSpec(spec) => drop(resolved.prompts.insert(reference, spec)),
                Spec::ModelProfile(spec) => drop(resolved.models.insert(reference, spec)),
                Spec::Project(spec) => {
                    resolved.default_model = spec.default_model.map(|model| model.to_string());
                }
                Spec::Workspace(_)
                | Spec::WorkflowDefinition(_)
                | Spec::Workflow(_)
                | Spec::ApiKey(_) => {}
            }
        }
        resolved
    }
}

/// One use of an action in a definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Use {
    /// JSON Pointer of the action into the definition.
    pub pointer: String,
    /// The action's reference; absent where it is inline.
    pub reference: Option<String>,
    /// The inline action's kind.
    pub kind: Option<ActionKind>,
    /// What stands in its `with`.
    pub with: Map<String, Value>,
}

/// All uses of actions in a definition, in the order of the document. Fails only on a document
/// that [`super::parse`] refuses.
pub fn uses(definition: &Definition) -> Result<Vec<Use>, serde_json::Error> {
    let mut uses = Vec::new();
    for (name, node) in model::decode_nodes(&definition.nodes)? {
        let pointer = format!("/nodes/{}", escaped(&name));
        if let Some(action) = &node.action {
            uses.push(use_of(action, format!("{pointer}/action")));
        }
        for (index, step) in node.steps.iter().flatten().enumerate() {
            uses.push(use_of(&step.action, format!("{pointer}/steps/{index}/action")));
        }
        if let Some(undo) = &node.undo {
            uses.push(use_of(&undo.action, format!("{pointer}/undo/action")));
        }
    }
    Ok(uses)
}

fn use_of(action: &ActionUse, pointer: String) -> Use {
    Use {
        pointer,
        reference: action.reference.clone(),
        kind: action.kind,
        with: action.with.clone(),
    }
}

/// The name that a key of `with` refers to: a plain text, neither an inline object nor one with
/// expressions.
pub fn referred<'a>(with: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    with.get(key)?.as_str().filter(|text| !text.contains("${"))
}
