//! Plans ready to run, kept by what they are made of.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use domain::definition::plan::{Action, NodeWork, PlanNode, TaskBody};
use domain::definition::{ActionKind, Definition, Plan, Problem, Resolved};
use domain::run::event::{DefinitionRef, Pin};
use domain::run::state::Token;
use protocol::task::{WorkBody, WorkStep};
use protocol::{Work, WorkAction};

/// A plan with the work of its nodes as workers get it.
#[derive(Debug)]
pub(crate) struct LivePlan {
    pub plan: Plan,
    pub pins: Vec<Pin>,
    works: HashMap<Arc<str>, Arc<Work>>,
    /// What undoes nodes, by node.
    undos: HashMap<Arc<str>, Arc<Work>>,
}

impl LivePlan {
    /// The work of a token at its node; `None` for nodes without a worker.
    pub(crate) fn work(&self, token: &Token) -> Option<&Arc<Work>> {
        let works = if token.undo.is_some() { &self.undos } else { &self.works };
        works.get(&token.node)
    }

    /// Whether a node's work in another plan is the same, whatever else is different there.
    pub(crate) fn does_the_same(&self, other: &Self, node: &str) -> bool {
        match (self.works.get(node), other.works.get(node)) {
            (Some(own), Some(other)) => {
                own.key == other.key
                    || own.body == other.body
                        && (!asks_models(&own.body)
                            || (&own.models, &own.prompts, &own.default_model)
                                == (&other.models, &other.prompts, &other.default_model))
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// Plans that are kept; beyond that all are dropped and made again.
const KEPT: usize = 1_024;

/// The plans of this process.
#[derive(Debug, Default)]
pub(crate) struct Plans(Mutex<HashMap<String, Arc<LivePlan>>>);

impl Plans {
    /// The plan of a definition with its references resolved.
    pub(crate) fn get(
        &self,
        definition_ref: &DefinitionRef,
        definition: &Definition,
        resolved: &Resolved,
    ) -> Result<Arc<LivePlan>, Vec<Problem>> {
        let key = key(definition_ref, &resolved.pins);
        if let Some(plan) = self.plans().get(&key) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(compile(&key, definition, resolved)?);
        let mut plans = self.plans();
        if plans.len() >= KEPT {
            plans.clear();
        }
        plans.insert(key, Arc::clone(&plan));
        Ok(plan)
    }

    fn plans(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<LivePlan>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A definition by its content, and everything that it was resolved to.
fn key(definition: &DefinitionRef, pins: &[Pin]) -> String {
    let mut key = definition.hash.clone();
    for pin in pins {
        // Writing to a String can't fail.
        let _ = write!(key, "/{}@{}", pin.id, pin.version);
    }
    key
}

fn compile(
    key: &str,
    definition: &Definition,
    resolved: &Resolved,
) -> Result<LivePlan, Vec<Problem>> {
    let plan = Plan::compile(definition, resolved)?;
    let (mut works, mut undos) = (HashMap::new(), HashMap::new());
    for node in plan.nodes() {
        if let Some(work) = work(format!("{key}#{}", node.name), node, resolved) {
            works.insert(Arc::clone(&node.name), Arc::new(work));
        }
        let undo = node.undo.as_deref();
        if let Some(work) = undo.and_then(|undo| {
            // No node's name has a slash.
            work(format!("{key}#{}/undo", node.name), undo, resolved)
        }) {
            undos.insert(Arc::clone(&node.name), Arc::new(work));
        }
    }
    Ok(LivePlan { plan, pins: resolved.pins.clone(), works, undos })
}

fn work(key: String, node: &PlanNode, resolved: &Resolved) -> Option<Work> {
    let NodeWork::Task(body) = &node.work else { return None };
    let body = match body {
        TaskBody::Action(action) => WorkBody::Action(work_action(action)),
        TaskBody::Steps(steps) => {
            let steps = steps
                .iter()
                .map(|(step, action)| WorkStep { step: step.clone(), action: work_action(action) });
            WorkBody::Steps(steps.collect())
        }
    };
    Some(Work {
        key,
        body,
        repeatable: node.repeatable,
        models: resolved.models.clone(),
        prompts: resolved.prompts.clone(),
        default_model: resolved.default_model.clone(),
    })
}

/// Whether models or prompts that are set up elsewhere take part in it.
fn asks_models(body: &WorkBody) -> bool {
    let is_llm = |action: &WorkAction| action.kind == ActionKind::Llm;
    match body {
        WorkBody::Action(action) => is_llm(action),
        WorkBody::Steps(steps) => steps.iter().any(|step| is_llm(&step.action)),
    }
}

fn work_action(action: &Action) -> WorkAction {
    WorkAction {
        kind: action.kind,
        with: action.with.clone(),
        output_schema: action.output_schema.clone(),
    }
}
