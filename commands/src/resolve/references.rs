//! Follows a definition's references to the end: actions, what actions use, model fallbacks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::definition::resolved::{Use, referred, uses};
use domain::definition::{ActionKind, Problem, ProblemCode, Resolved};
use domain::ids::ProjectId;
use domain::resource::{DefinitionSpec, Kind, ModelProfileSpec, Provider, Spec};
use domain::run::event::Pin;
use protocol::{Rejection, RejectionKind};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::resolve::providers::Model;
use crate::resolve::{OfKind, Resolver, Version};
use crate::resources::heads::Body;
use crate::resources::refusal;

/// Definitions whose uses are kept; beyond, all are forgotten and decoded again when needed.
const KEPT: usize = 2_000;

/// The uses of actions in definitions, by the definition's hash: finding them decodes all nodes.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<String, Arc<[Use]>>>);

impl Uses {
    fn of(&self, spec: &DefinitionSpec) -> Result<Arc<[Use]>, Rejection> {
        if let Some(known) = self.kept().get(&spec.hash) {
            return Ok(Arc::clone(known));
        }
        let uses = uses(&spec.definition).map_err(|error| {
            Rejection::new(RejectionKind::Invalid, "invalid_definition", error.to_string())
        })?;
        let uses: Arc<[Use]> = uses.into();
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(spec.hash.clone(), Arc::clone(&uses));
        Ok(uses)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Arc<[Use]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a definition's references lead to.
pub(super) struct Found {
    pub(super) resolved: Resolved,
    /// Every model that it may ask, in the order in which they were found.
    pub(super) models: Vec<Model>,
}

/// See [`Resolver::resolved`].
pub(super) async fn resolve(
    resolver: &Resolver,
    definition: &DefinitionSpec,
    versions: Versions<'_>,
) -> Result<Found, Rejection> {
    let uses = resolver.uses.of(definition)?;
    let mut walk = Walk {
        resolver,
        project: definition.project_id,
        versions,
        resolved: Resolved::default(),
        models: Vec::new(),
        pins: BTreeMap::new(),
        problems: Vec::new(),
    };
    for action in &*uses {
        walk.action(action).await?;
    }
    let Walk { mut resolved, models, pins, problems, .. } = walk;
    if !problems.is_empty() {
        let message = format!("{} references of the definition lead nowhere", problems.len());
        let refusal = Rejection::new(RejectionKind::Invalid, "unknown_reference", message)
            .at(problems[0].pointer.clone())
            .with_problems(problems);
        return Err(refusal);
    }
    resolved.pins = pins.into_values().collect();
    Ok(Found { resolved, models })
}

/// Which versions references lead to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Versions<'a> {
    Newest,
    /// Those of a run that goes on.
    Pinned(&'a [Pin]),
    /// Those of a run where it has them, and else the newest.
    Beside(&'a [Pin]),
}

struct Walk<'a> {
    resolver: &'a Resolver,
    project: ProjectId,
    versions: Versions<'a>,
    resolved: Resolved,
    models: Vec<Model>,
    pins: BTreeMap<(Kind, String), Pin>,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    async fn action(&mut self, action: &Use) -> Result<(), Rejection> {
        let mut kind = action.kind;
        let mut with = Map::new();
        if let Some(reference) = &action.reference {
            if !self.resolved.actions.contains_key(reference) {
                let place = format!("{}/use", action.pointer);
                let Some(found) = self.find(Kind::Action, reference, &place).await? else {
                    return Ok(());
                };
                self.resolved.actions.insert(reference.clone(), found);
            }
            if let Some(spec) = self.resolved.actions.get(reference) {
                kind = Some(spec.action);
                with.clone_from(&spec.with);
            }
        }
        with.extend(action.with.clone());
        if kind == Some(ActionKind::Llm) {
            self.llm(action, &with).await?;
        }
        Ok(())
    }

    async fn llm(&mut self, action: &Use, with: &Map<String, Value>) -> Result<(), Rejection> {
        // What the use itself names is pointed at; what its action names, through `use`.
        let place = |key: &str| {
            if action.with.contains_key(key) {
                format!("{}/with/{key}", action.pointer)
            } else {
                format!("{}/use", action.pointer)
            }
        };
        if let Some(reference) = referred(with, "prompt_spec")
            && !self.resolved.prompts.contains_key(reference)
            && let Some(spec) =
                self.find(Kind::PromptSpec, reference, &place("prompt_spec")).await?
        {
            self.resolved.prompts.insert(reference.to_owned(), spec);
        }
        match (referred(with, "model"), with.get("model")) {
            (Some(model), _) => self.model(model, &place("model")).await,
            (None, Some(inline)) => {
                if let Some(provider) = inline.get("provider")
                    && let Ok(provider) = Provider::deserialize(provider)
                {
                    let pointer = place("model");
                    self.models.push(Model { provider, profile: None, pointer });
                }
                Ok(())
            }
            (None, None) => self.default_model(action).await,
        }
    }

    /// A model profile and, in turn, its fallbacks.
    async fn model(&mut self, reference: &str, place: &str) -> Result<(), Rejection> {
        let mut wanted = VecDeque::from([reference.to_owned()]);
        while let Some(reference) = wanted.pop_front() {
            if self.resolved.models.contains_key(&reference) {
                continue;
            }
            let found = self.find(Kind::ModelProfile, &reference, place).await?;
            let Some(spec): Option<ModelProfileSpec> = found else {
                continue;
            };
            self.models.push(Model {
                provider: spec.provider,
                profile: Some(reference.clone()),
                pointer: place.to_owned(),
            });
            wanted.extend(spec.fallback.iter().map(ToString::to_string));
            self.resolved.models.insert(reference, spec);
        }
        Ok(())
    }

    /// The project's default, as the project was when the run started.
    async fn default_model(&mut self, action: &Use) -> Result<(), Rejection> {
        if self.resolved.default_model.is_some() {
            return Ok(());
        }
        let id = self.project.to_string();
        let of_project =
            |pins: &[Pin]| pins.iter().find(|pin| pin.kind == Kind::Project).map(|pin| pin.version);
        let version = match self.versions {
            Versions::Pinned(pins) => of_project(pins),
            Versions::Beside(pins) if let Some(version) = of_project(pins) => Some(version),
            Versions::Newest | Versions::Beside(_) => {
                self.resolver.newest(Kind::Project, &id).await?
            }
        };
        let missing = || refusal::not_found(Kind::Project, &id);
        let version = version.ok_or_else(missing)?;
        let body = self.resolver.body(Kind::Project, &id, version).await?;
        let Body::Other(spec) = body else {
            return Err(missing());
        };
        let Spec::Project(project) = &*spec else {
            return Err(missing());
        };
        let Some(model) = &project.default_model else {
            let message = "this llm action names no model, and the project has no default_model";
            self.problem(&action.pointer, message.to_owned());
            return Ok(());
        };
        let reference = project.name.to_string();
        let pin = Pin { kind: Kind::Project, reference: reference.clone(), id, version };
        self.pins.insert((Kind::Project, reference), pin);
        self.model(model.as_str(), &action.pointer).await?;
        self.resolved.default_model = Some(model.to_string());
        Ok(())
    }

    /// What a reference stands for; `None` where that became a problem.
    async fn find<T: OfKind>(
        &mut self,
        kind: Kind,
        reference: &str,
        place: &str,
    ) -> Result<Option<T>, Rejection> {
        let version = match self.versions {
            Versions::Pinned(pins) => pinned(pins, kind, reference),
            Versions::Beside(pins) if let Ok(found) = pinned(pins, kind, reference) => Ok(found),
            Versions::Newest | Versions::Beside(_) => {
                self.resolver.current(self.project, kind, reference).await
            }
        };
        let (id, version) = match version {
            Ok(found) => found,
            Err(refusal) if is_about_the_reference(&refusal) => {
                self.problem(place, refusal.message);
                return Ok(None);
            }
            Err(refusal) => return Err(refusal),
        };
        let Version { id, version, spec } = self.resolver.spec(id, version).await?;
        let pin = Pin { kind, reference: reference.to_owned(), id, version };
        self.pins.insert((kind, reference.to_owned()), pin);
        Ok(Some(spec))
    }

    fn problem(&mut self, pointer: &str, message: String) {
        self.problems.push(Problem {
            code: ProblemCode::UnknownReference,
            pointer: pointer.to_owned(),
            line: None,
            message,
            suggestion: None,
        });
    }
}

fn pinned(pins: &[Pin], kind: Kind, reference: &str) -> Result<(String, u64), Rejection> {
    let pin = pins.iter().find(|pin| pin.kind == kind && pin.reference == reference);
    let pin = pin.ok_or_else(|| {
        Rejection::new(
            RejectionKind::Internal,
            "pin_missing",
            format!("the run has no version of the {} {reference}", kind.words()),
        )
    })?;
    Ok((pin.id.clone(), pin.version))
}

fn is_about_the_reference(refusal: &Rejection) -> bool {
    matches!(refusal.code.as_str(), "unknown_reference" | "invalid_reference" | "archived")
}
