//! What the nodes of definitions are, as the journal has the definitions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chassis::journal::{Journal, ReadError};
use domain::definition::{ActionKind, ActionUse, Node};
use domain::resource::{Kind, Spec};
use domain::run::event::Pin;
use serde_json::Value;

use super::open::Facts;
use crate::projection::FoldError;
use crate::resources::spec_at;

/// Definitions that are remembered; with one more, all are forgotten.
const REMEMBERED: usize = 1_000;

/// What a node is.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeKind {
    /// The kind of its action, or what it does otherwise: `steps`, `compute`, `gate` and so on.
    pub(super) kind: &'static str,
    /// Whether a worker does it.
    pub(super) is_task: bool,
    /// Whether a token may have to wait for its turn there.
    pub(super) has_mutex: bool,
}

/// The nodes of a definition by name; a node's undo is called `<node>/undo`.
#[derive(Debug, Default)]
pub(super) struct Kinds(HashMap<String, NodeKind>);

impl Kinds {
    pub(super) fn of(&self, node: &str) -> Option<NodeKind> {
        self.0.get(node).copied()
    }
}

type Key = (String, u64, Vec<Pin>);

/// Those that were asked for.
#[derive(Default)]
pub(super) struct KnownKinds(Mutex<HashMap<Key, Arc<Kinds>>>);

impl KnownKinds {
    /// The nodes of a run's definition. One that isn't in the journal, or isn't what it should be,
    /// has none.
    pub(super) async fn of(
        &self,
        journal: &dyn Journal,
        facts: &Facts,
    ) -> Result<Arc<Kinds>, FoldError> {
        let key = (facts.definition_id.clone(), facts.version, facts.pins.clone());
        let known = |key: &Key| {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).map(Arc::clone)
        };
        if let Some(known) = known(&key) {
            return Ok(known);
        }
        let kinds = Arc::new(read(journal, facts).await?);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(key, Arc::clone(&kinds));
        Ok(kinds)
    }
}

async fn read(journal: &dyn Journal, facts: &Facts) -> Result<Kinds, ReadError> {
    let mut actions: HashMap<&str, ActionKind> = HashMap::new();
    for pin in &facts.pins {
        let spec = spec_at(journal, pin.kind, &pin.id, pin.version).await?;
        if let Some(Ok(Spec::Action(action))) = spec {
            actions.insert(&pin.reference, action.action);
        }
    }
    let (kind, id) = (Kind::WorkflowDefinition, &facts.definition_id);
    let mut kinds = Kinds::default();
    let spec = spec_at(journal, kind, id, facts.version).await?;
    if let Some(Ok(Spec::WorkflowDefinition(spec))) = spec {
        for (name, node) in &spec.definition.nodes {
            if let Ok(node) = serde_json::from_value::<Node>(Value::clone(node)) {
                kinds.0.extend(of_node(name, &node, &actions));
            }
        }
    }
    Ok(kinds)
}

fn of_node(
    name: &str,
    node: &Node,
    actions: &HashMap<&str, ActionKind>,
) -> impl Iterator<Item = (String, NodeKind)> + use<> {
    let of_action = |action: &ActionUse| {
        let referred = action.reference.as_deref().and_then(|name| actions.get(name).copied());
        action.kind.or(referred).map_or("", ActionKind::as_str)
    };
    let (kind, is_task) = if let Some(action) = &node.action {
        (of_action(action), true)
    } else if node.steps.is_some() {
        ("steps", true)
    } else if node.compute.is_some() {
        ("compute", false)
    } else if node.workflow.is_some() {
        ("workflow", false)
    } else if node.gate.is_some() {
        ("gate", false)
    } else if node.wait.is_some() {
        ("wait", false)
    } else if node.emit.is_some() {
        ("emit", false)
    } else {
        ("", false)
    };
    let own = NodeKind { kind, is_task, has_mutex: node.mutex.is_some() };
    let undo = node.undo.as_ref().map(|undo| {
        let kind = of_action(&undo.action);
        (undo_of(name), NodeKind { kind, is_task: true, has_mutex: false })
    });
    [(name.to_owned(), own)].into_iter().chain(undo)
}

/// What a node's undo is called: no name of a node holds a slash.
pub(super) fn undo_of(node: &str) -> String {
    format!("{node}/undo")
}
