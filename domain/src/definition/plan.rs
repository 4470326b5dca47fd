//! The plan: a definition compiled and with its references resolved, as the engine runs it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Resolved;
use super::model::{
    ActionKind, ActionUse, CancelSpec, Definition, JoinSpec, Mapping, Node, On, Retry, Step,
    Transition, decode_nodes,
};
use super::problem::{Problem, ProblemCode};
use crate::expression::{Binding, Expression};
use crate::run::event::{Effect, Region, TransitionIndex};
use crate::span::Span;

mod admission;
mod child;
mod undo;
mod waits;

pub use admission::PlanAdmission;
pub use child::PlanChild;
pub use waits::{PlanEmit, PlanGate, PlanWait};

/// A definition, ready to run. Immutable; shared by all runs of the same version and pins.
#[derive(Debug)]
pub struct Plan {
    pub name: String,
    pub start: Arc<str>,
    pub timeout: Option<Span>,
    /// Whether a run that doesn't complete undoes its work.
    pub compensate: bool,
    admission: Option<PlanAdmission>,
    nodes: HashMap<Arc<str>, PlanNode>,
    transitions: Vec<PlanTransition>,
    joins: BTreeMap<String, PlanJoin>,
    input_schema: Option<jsonschema::Validator>,
    output_schema: Option<jsonschema::Validator>,
    output: Option<Vec<(String, Binding)>>,
}

/// A node of a plan.
#[derive(Debug)]
pub struct PlanNode {
    pub name: Arc<str>,
    pub work: NodeWork,
    input: Vec<(String, Binding)>,
    /// `state` path (without `state.`) to value.
    pub output: Vec<(String, Binding)>,
    pub retry: Option<Retry>,
    pub timeout: Option<Span>,
    /// Whether an attempt may be made again where its worker vanished with it.
    pub repeatable: bool,
    /// At most one token is in the nodes of a mutex at a time.
    pub mutex: Option<String>,
    /// What undoes it.
    pub undo: Option<Box<PlanNode>>,
    /// The transitions out of it by tier, lowest first, each in the order of the definition.
    pub tiers: Vec<(i32, Vec<TransitionIndex>)>,
}

/// What a node does.
#[derive(Debug)]
pub enum NodeWork {
    /// An action, or steps, on a worker.
    Task(TaskBody),
    /// A mapping into `state` (paths without `state.`), evaluated by the coordinator.
    Compute(Vec<(String, Binding)>),
    Wait(PlanWait),
    Gate(Box<PlanGate>),
    Emit(PlanEmit),
    Child(PlanChild),
}

impl NodeWork {
    /// Whether workers do it, in attempts.
    pub const fn is_task(&self) -> bool {
        matches!(self, Self::Task(_))
    }

    /// What it does to others, if it does.
    pub fn effect(&self) -> Option<Effect> {
        match self {
            Self::Task(TaskBody::Action(action)) => action.effect(),
            Self::Task(TaskBody::Steps(steps)) => {
                steps.iter().find_map(|(_, action)| action.effect())
            }
            Self::Child(_) => Some(Effect::Workflow),
            Self::Emit(_) => Some(Effect::Emit),
            Self::Gate(_) => Some(Effect::Gate),
            Self::Wait(PlanWait::Signal { .. }) => Some(Effect::Signal),
            Self::Compute(_) | Self::Wait(PlanWait::For(_) | PlanWait::Until(_)) => None,
        }
    }
}

/// The body of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskBody {
    Action(Action),
    Steps(Vec<(Step, Action)>),
}

/// An action with its reference replaced and its overrides laid over.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    pub kind: ActionKind,
    pub with: Map<String, Value>,
    pub output_schema: Option<Value>,
}

const SAFE_METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

impl Action {
    /// What it does to others: a request whose method isn't known to be safe (RFC 9110, 9.2.1) may
    /// change something.
    fn effect(&self) -> Option<Effect> {
        match self.kind {
            ActionKind::Llm | ActionKind::Transform | ActionKind::Mock => None,
            ActionKind::Http => {
                let method = self.with.get("method");
                let is_safe = method.is_none_or(|method| {
                    method.as_str().is_some_and(|method| {
                        SAFE_METHODS.iter().any(|safe| method.eq_ignore_ascii_case(safe))
                    })
                });
                (!is_safe).then_some(Effect::Http)
            }
            ActionKind::Mcp | ActionKind::Metric | ActionKind::Artifact => Some(Effect::Http),
        }
    }
}

/// A transition of a plan.
#[derive(Debug)]
pub struct PlanTransition {
    pub to: Arc<str>,
    pub on: On,
    pub when: Option<Expression>,
    pub priority: i32,
    pub fan_out: FanOut,
    pub group: Option<String>,
    pub item_name: Option<String>,
    /// The group whose join this transition leads to.
    pub join: Option<String>,
    /// The value that a branch brings to the join; absent where it is the node's result.
    pub carries: Option<Binding>,
    pub max_iterations: Option<u32>,
    /// What ends where it is taken.
    pub cancel: Option<Region>,
    /// The group that it completes.
    pub complete: Option<String>,
    /// The open group that its tokens are further branches of.
    pub extend: Option<String>,
}

impl PlanTransition {
    /// Whether it adds branches to a group that is open.
    pub const fn adds(&self) -> bool {
        self.extend.is_some()
    }
}

/// How many tokens a fired transition makes.
#[derive(Debug)]
pub enum FanOut {
    One,
    Spawn(Binding),
    Foreach(Binding),
}

/// The join of a group.
#[derive(Debug)]
pub struct PlanJoin {
    pub spec: JoinSpec,
    pub to: Arc<str>,
    /// The first transition that leads to it.
    pub transition: TransitionIndex,
    pub max_iterations: Option<u32>,
    /// Where the merged value goes, without `state.`.
    pub into: Option<String>,
}

impl Plan {
    /// Compiles a definition that `validate::check` found no problem in. What is still wrong
    /// (a reference that wasn't resolved) is named.
    pub fn compile(definition: &Definition, resolved: &Resolved) -> Result<Self, Vec<Problem>> {
        Compiler { resolved, problems: Vec::new() }.compile(definition)
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&PlanNode> {
        self.nodes.get(name)
    }

    /// The nodes, in no particular order.
    pub fn nodes(&self) -> impl Iterator<Item = &PlanNode> {
        self.nodes.values()
    }

    /// A transition by its place in the definition.
    pub fn transition(&self, index: TransitionIndex) -> Option<&PlanTransition> {
        self.transitions.get(usize::from(index))
    }

    /// The join of a group.
    pub fn join(&self, group: Option<&str>) -> Option<&PlanJoin> {
        self.joins.get(group?)
    }

    /// What is wrong with a run's input, at most 20 problems with pointers into it.
    pub fn input_problems(&self, input: &Value) -> Vec<Problem> {
        schema_problems(self.input_schema.as_ref(), input)
    }

    /// What is wrong with a run's output.
    pub fn output_problems(&self, output: &Value) -> Vec<Problem> {
        schema_problems(self.output_schema.as_ref(), output)
    }

    /// The run's output mapping; without one the output is the run's whole `state`.
    pub fn output(&self) -> Option<&[(String, Binding)]> {
        self.output.as_deref()
    }
}

impl PlanNode {
    /// The mapping from names to the action's input.
    pub fn input(&self) -> &[(String, Binding)] {
        &self.input
    }
}

fn schema_problems(schema: Option<&jsonschema::Validator>, value: &Value) -> Vec<Problem> {
    let Some(schema) = schema else { return Vec::new() };
    if schema.is_valid(value) {
        return Vec::new();
    }
    schema
        .iter_errors(value)
        .take(20)
        .map(|error| Problem {
            code: ProblemCode::InvalidValue,
            pointer: error.instance_path().to_string(),
            line: None,
            message: error.to_string(),
            suggestion: None,
        })
        .collect()
}

struct Compiler<'a> {
    resolved: &'a Resolved,
    problems: Vec<Problem>,
}

impl Compiler<'_> {
    fn compile(mut self, definition: &Definition) -> Result<Plan, Vec<Problem>> {
        let nodes = decode_nodes(&definition.nodes).unwrap_or_else(|error| {
            self.problem(ProblemCode::InvalidValue, "/nodes", error.to_string());
            BTreeMap::new()
        });
        let tiers = tiers(&definition.transitions);
        let nodes = nodes
            .iter()
            .map(|(name, node)| {
                let name: Arc<str> = Arc::from(name.as_str());
                let tiers = tiers.get(&*name).cloned().unwrap_or_default();
                (Arc::clone(&name), self.node(name, node, tiers))
            })
            .collect();
        let transitions: Vec<_> = definition
            .transitions
            .iter()
            .enumerate()
            .map(|(index, transition)| self.transition(index, transition))
            .collect();
        let plan = Plan {
            name: definition.name.to_string(),
            start: Arc::from(definition.start.as_str()),
            timeout: definition.timeout,
            compensate: definition.compensate.unwrap_or(false),
            admission: self.admission(definition),
            nodes,
            transitions,
            joins: joins(&definition.transitions),
            input_schema: self.schema("/input_schema", definition.input_schema.as_ref()),
            output_schema: self.schema("/output_schema", definition.output_schema.as_ref()),
            output: definition.output.as_ref().map(|output| self.mapping("/output", output)),
        };
        if self.problems.is_empty() { Ok(plan) } else { Err(self.problems) }
    }

    fn node(
        &mut self,
        name: Arc<str>,
        node: &Node,
        tiers: Vec<(i32, Vec<TransitionIndex>)>,
    ) -> PlanNode {
        let place = format!("/nodes/{name}");
        let mut retry = node.retry.clone();
        let mut timeout = node.timeout;
        let mut repeatable = node.repeatable;
        let work = if let Some(compute) = &node.compute {
            NodeWork::Compute(self.state_mapping(&format!("{place}/compute"), compute))
        } else if let Some(steps) = &node.steps {
            let steps = steps.iter().enumerate().filter_map(|(index, step)| {
                let action = self.action(&format!("{place}/steps/{index}/action"), &step.action)?;
                Some((step.clone(), action))
            });
            NodeWork::Task(TaskBody::Steps(steps.collect()))
        } else if let Some(used) = &node.action {
            if let Some(spec) =
                used.reference.as_ref().and_then(|name| self.resolved.actions.get(name))
            {
                retry = retry.or_else(|| spec.retry.clone());
                timeout = timeout.or(spec.timeout);
                repeatable = repeatable.or(spec.repeatable);
            }
            match self.action(&format!("{place}/action"), used) {
                Some(action) => NodeWork::Task(TaskBody::Action(action)),
                None => NodeWork::Compute(Vec::new()),
            }
        } else if let Some(work) = self.without_worker(&place, node) {
            work
        } else {
            self.problem(ProblemCode::MissingKey, &place, "say what the node does".to_owned());
            NodeWork::Compute(Vec::new())
        };
        let input = node.input.as_ref().map(|input| self.mapping(&format!("{place}/input"), input));
        let output = node
            .output
            .as_ref()
            .map(|output| self.state_mapping(&format!("{place}/output"), output));
        let undo = node.undo.as_ref();
        let undo = undo.map(|undo| self.undo(&format!("{place}/undo"), &name, undo));
        PlanNode {
            name,
            work,
            input: input.unwrap_or_default(),
            output: output.unwrap_or_default(),
            retry,
            timeout,
            repeatable: repeatable.unwrap_or(true),
            mutex: node.mutex.as_ref().map(ToString::to_string),
            undo: undo.map(Box::new),
            tiers,
        }
    }

    fn without_worker(&mut self, place: &str, node: &Node) -> Option<NodeWork> {
        if let Some(wait) = &node.wait {
            return self.wait(&format!("{place}/wait"), wait).map(NodeWork::Wait);
        }
        if let Some(gate) = &node.gate {
            let gate = self.gate(&format!("{place}/gate"), gate)?;
            return Some(NodeWork::Gate(Box::new(gate)));
        }
        if let Some(child) = &node.workflow {
            return self.child(&format!("{place}/workflow"), child).map(NodeWork::Child);
        }
        self.emit(&format!("{place}/emit"), node.emit.as_ref()?).map(NodeWork::Emit)
    }

    fn action(&mut self, place: &str, used: &ActionUse) -> Option<Action> {
        if let Some(kind) = used.kind {
            return Some(Action { kind, with: used.with.clone(), output_schema: None });
        }
        let name = used.reference.as_deref().unwrap_or_default();
        let Some(spec) = self.resolved.actions.get(name) else {
            let message = format!("action {name:?} does not exist in the project");
            self.problem(ProblemCode::UnknownReference, &format!("{place}/use"), message);
            return None;
        };
        let mut with = spec.with.clone();
        for (key, value) in &used.with {
            with.insert(key.clone(), value.clone());
        }
        Some(Action { kind: spec.action, with, output_schema: spec.output_schema.clone() })
    }

    fn transition(&mut self, index: usize, transition: &Transition) -> PlanTransition {
        let place = format!("/transitions/{index}");
        let fan_out = if let Some(items) = &transition.foreach {
            let items = Value::String(items.clone());
            self.binding(&format!("{place}/foreach"), &items).map_or(FanOut::One, FanOut::Foreach)
        } else if let Some(count) = &transition.spawn {
            self.binding(&format!("{place}/spawn"), count).map_or(FanOut::One, FanOut::Spawn)
        } else {
            FanOut::One
        };
        let from = transition.join.as_ref().and_then(|join| join.merge.as_ref()?.from.as_ref());
        PlanTransition {
            to: Arc::from(transition.to.as_str()),
            on: transition.on,
            when: transition.when.as_ref().and_then(|when| {
                self.compiled(&format!("{place}/when"), Expression::compile(when))
            }),
            priority: transition.priority,
            fan_out,
            group: transition.group.clone(),
            item_name: transition.item_name.clone(),
            join: transition.join.as_ref().map(|join| join.group.clone()),
            carries: from.and_then(|from| {
                let is_result = from.as_str() == Some("${result}");
                if is_result {
                    None
                } else {
                    self.binding(&format!("{place}/join/merge/from"), from)
                }
            }),
            max_iterations: transition.max_iterations,
            cancel: transition.cancel.as_ref().and_then(CancelSpec::region),
            complete: transition.complete.clone(),
            extend: transition.extend.clone(),
        }
    }

    fn mapping(&mut self, place: &str, mapping: &Mapping) -> Vec<(String, Binding)> {
        mapping
            .iter()
            .filter_map(|(name, value)| {
                Some((name.clone(), self.binding(&format!("{place}/{name}"), value)?))
            })
            .collect()
    }

    fn state_mapping(&mut self, place: &str, mapping: &Mapping) -> Vec<(String, Binding)> {
        let mut mapping = self.mapping(place, mapping);
        for (path, _) in &mut mapping {
            *path = path.strip_prefix("state.").unwrap_or(path).to_owned();
        }
        mapping
    }

    fn binding(&mut self, place: &str, value: &Value) -> Option<Binding> {
        match Binding::compile(value) {
            Ok(binding) => Some(binding),
            Err((inner, error)) => {
                let place = format!("{place}{inner}");
                self.problem(ProblemCode::InvalidExpression, &place, error.to_string());
                None
            }
        }
    }

    fn compiled<T, E: ToString>(&mut self, place: &str, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| {
                self.problem(ProblemCode::InvalidExpression, place, error.to_string());
            })
            .ok()
    }

    fn schema(&mut self, place: &str, schema: Option<&Value>) -> Option<jsonschema::Validator> {
        match jsonschema::draft202012::new(schema?) {
            Ok(validator) => Some(validator),
            Err(error) => {
                self.problem(ProblemCode::InvalidSchema, place, error.to_string());
                None
            }
        }
    }

    fn problem(&mut self, code: ProblemCode, pointer: &str, message: String) {
        let pointer = pointer.to_owned();
        self.problems.push(Problem { code, pointer, line: None, message, suggestion: None });
    }
}

type Tiers = Vec<(i32, Vec<TransitionIndex>)>;

fn tiers(transitions: &[Transition]) -> HashMap<&str, Tiers> {
    let mut by_node: HashMap<&str, BTreeMap<i32, Vec<TransitionIndex>>> = HashMap::new();
    for (index, transition) in (0..).zip(transitions) {
        let tiers = by_node.entry(&transition.from).or_default();
        tiers.entry(transition.priority).or_default().push(index);
    }
    by_node.into_iter().map(|(node, tiers)| (node, tiers.into_iter().collect())).collect()
}

fn joins(transitions: &[Transition]) -> BTreeMap<String, PlanJoin> {
    let mut joins = BTreeMap::new();
    for (index, transition) in (0..).zip(transitions) {
        let Some(spec) = &transition.join else { continue };
        joins.entry(spec.group.clone()).or_insert_with(|| PlanJoin {
            to: Arc::from(transition.to.as_str()),
            transition: index,
            max_iterations: transition.max_iterations,
            into: spec
                .merge
                .as_ref()
                .map(|merge| merge.into.strip_prefix("state.").unwrap_or(&merge.into).to_owned()),
            spec: spec.clone(),
        });
    }
    joins
}
