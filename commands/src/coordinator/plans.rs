//! Plans ready to run, kept by what they are made of.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use domain::definition::plan::{Action, NodeWork, PlanNode, TaskBody};
use domain::definition::{ActionKind, Definition, Plan, Problem, Resolved};
use domain::resource::{ModelProfileSpec, PromptSpecSpec};
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
                own.key == other.key || own.body == other.body && asked(own) == asked(other)
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

/// The models and prompts that are set up elsewhere and take part in it.
fn asked(work: &Work) -> (Vec<&ModelProfileSpec>, Vec<&PromptSpecSpec>) {
    let actions: Vec<&WorkAction> = match &work.body {
        WorkBody::Action(action) => vec![action],
        WorkBody::Steps(steps) => steps.iter().map(|step| &step.action).collect(),
    };
    let llm = || actions.iter().filter(|action| action.kind == ActionKind::Llm);
    let models = llm().filter_map(|action| match action.with.get("model") {
        Some(model) => model.as_str(),
        None => work.default_model.as_deref(),
    });
    let mut names: Vec<&str> = models.collect();
    let mut models = Vec::new();
    // A profile's fallbacks are asked where it fails; each is looked at once.
    let mut next = 0;
    while let Some(name) = names.get(next).copied() {
        next += 1;
        if let Some(model) = work.models.get(name) {
            models.push(model);
            for fallback in &model.fallback {
                if !names.contains(&fallback.as_str()) {
                    names.push(fallback.as_str());
                }
            }
        }
    }
    let prompts = llm().filter_map(|action| action.with.get("prompt_spec")?.as_str());
    (models, prompts.filter_map(|name| work.prompts.get(name)).collect())
}

fn work_action(action: &Action) -> WorkAction {
    WorkAction {
        kind: action.kind,
        with: action.with.clone(),
        output_schema: action.output_schema.clone(),
    }
}
