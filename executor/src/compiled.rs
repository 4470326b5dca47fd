//! Compiled works, kept by their key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::limits;
use protocol::task::{Success, Work, WorkAction, WorkBody};

use crate::action::{Action, Services};
use crate::context::Context;
use crate::fault::{Ended, Fault, permanent};
use crate::meters::Label;
use crate::schema;
use crate::steps::Steps;

/// A work, ready to be performed.
pub(crate) struct Compiled {
    pub(crate) label: Label,
    body: Body,
}

enum Body {
    One(Unit),
    Steps(Steps),
    /// It can't be compiled; every attempt fails so.
    Unusable(Fault),
}

/// One action with the check of its result.
pub(crate) struct Unit {
    action: Action,
    output: Option<jsonschema::Validator>,
}

impl Unit {
    pub(crate) fn compile(action: &WorkAction, work: &Work) -> Result<Self, Fault> {
        let output = action.output_schema.as_ref();
        Ok(Self {
            action: Action::compile(action, work)?,
            output: output.map(|s| schema::compile("output_schema", s)).transpose()?,
        })
    }

    pub(crate) fn is_immediate(&self) -> bool {
        self.action.is_immediate()
    }

    pub(crate) async fn perform(&self, context: &Context<'_>, services: &Services) -> Ended {
        let done = self.action.perform(context, services).await?;
        self.checked(done)
    }

    fn checked(&self, done: Success) -> Ended {
        let fail = |mut fault: Fault, done: &Success| {
            fault.usage = done.usage;
            Err(fault)
        };
        if !schema::is_shallow(&done.result, limits::JSON_DEPTH) {
            let message = format!("the result is nested deeper than {}", limits::JSON_DEPTH);
            return fail(permanent("result_too_deep", message), &done);
        }
        let Some(validator) = &self.output else {
            return Ok(done);
        };
        let errors = schema::errors(validator, &done.result);
        if errors.is_empty() {
            return Ok(done);
        }
        let message = "the result doesn't satisfy the action's output_schema";
        let mut fault = permanent("output_schema_mismatch", message);
        fault.detail = serde_json::json!({ "errors": errors });
        fail(fault, &done)
    }
}

impl Compiled {
    fn compile(work: &Work) -> Self {
        let (label, body) = match &work.body {
            WorkBody::Action(action) => {
                (Label::of(action.kind), Unit::compile(action, work).map(Body::One))
            }
            WorkBody::Steps(steps) => (Label::STEPS, Steps::compile(steps, work).map(Body::Steps)),
        };
        Self { label, body: body.unwrap_or_else(Body::Unusable) }
    }

    /// A work that the compiler itself broke on.
    pub(crate) fn panicked() -> Self {
        let fault = permanent("worker_panic", "the worker has a defect: compiling panicked");
        Self { label: Label::STEPS, body: Body::Unusable(fault) }
    }

    /// Whether [`Self::perform`] never waits for anything.
    pub(crate) fn is_immediate(&self) -> bool {
        match &self.body {
            Body::One(unit) => unit.is_immediate(),
            Body::Steps(steps) => steps.is_immediate(),
            Body::Unusable(_) => true,
        }
    }

    pub(crate) async fn perform(&self, context: Context<'_>, services: &Services) -> Ended {
        match &self.body {
            Body::One(unit) => unit.perform(&context, services).await,
            Body::Steps(steps) => steps.perform(context, services).await,
            Body::Unusable(fault) => Err(fault.clone()),
        }
    }
}

/// The kept works.
pub(crate) struct Shelf {
    capacity: usize,
    works: Mutex<HashMap<String, Arc<Compiled>>>,
}

impl Shelf {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), works: Mutex::default() }
    }

    /// The compiled form of a work. Compiling happens outside the lock.
    pub(crate) fn get(&self, work: &Work) -> Arc<Compiled> {
        let works = || self.works.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = works().get(&work.key) {
            return Arc::clone(compiled);
        }
        let compiled = Arc::new(Compiled::compile(work));
        let mut works = works();
        if works.len() >= self.capacity {
            works.clear();
        }
        works.insert(work.key.clone(), Arc::clone(&compiled));
        compiled
    }
}
