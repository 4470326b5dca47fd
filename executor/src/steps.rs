//! A task of steps: actions in sequence, each with its mapping, condition and failure policy.

use domain::definition::{Step, StepFailure, StepThen};
use domain::expression::Expression;
use protocol::task::{FailureKind, Success, Work, WorkStep};
use protocol::view::Usage;
use serde_json::{Map, Value, json};

use crate::action::Services;
use crate::compiled::Unit;
use crate::context::{Bound, Context};
use crate::fault::{Ended, Fault, invalid, permanent, unevaluated};

/// The member of the result that holds the last step's.
const LAST: &str = "last";

/// The steps, ready to run.
pub(crate) struct Steps(Vec<Prepared>);

struct Prepared {
    name: String,
    condition: Option<Expression>,
    then: StepThen,
    otherwise: StepThen,
    input: Option<Bound>,
    on_failure: StepFailure,
    unit: Unit,
}

impl Steps {
    pub(crate) fn compile(steps: &[WorkStep], work: &Work) -> Result<Self, Fault> {
        steps.iter().map(|step| Prepared::compile(step, work)).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn is_immediate(&self) -> bool {
        self.0.iter().all(|step| step.unit.is_immediate())
    }

    /// Runs the steps. The usage of all of them counts, of failed ones too.
    pub(crate) async fn perform(&self, context: Context<'_>, services: &Services) -> Ended {
        let mut usage = Usage::default();
        let ended = self.sequence(context, services, &mut usage).await;
        match ended {
            Ok(result) => Ok(Success { result, usage }),
            Err(mut fault) => {
                fault.usage = usage;
                Err(fault)
            }
        }
    }

    async fn sequence(
        &self,
        context: Context<'_>,
        services: &Services,
        usage: &mut Usage,
    ) -> Result<Value, Fault> {
        let mut results = Value::Object(Map::new());
        let mut last = Value::Null;
        for step in &self.0 {
            let seen = Context { step: Some(&step.name), steps: Some(&results), ..context };
            let result = match step.decide(&seen)? {
                StepThen::Skip => Value::Null,
                StepThen::Succeed => break,
                StepThen::Fail => return Err(step.refused()),
                StepThen::Continue => {
                    last = step.run(&seen, services, usage).await?;
                    last.clone()
                }
            };
            results[step.name.as_str()] = result;
        }
        results[LAST] = last;
        Ok(results)
    }
}

impl Prepared {
    fn compile(work_step: &WorkStep, work: &Work) -> Result<Self, Fault> {
        let WorkStep { step, action } = work_step;
        let at = |place: &str| format!("steps.{}.{place}", step.name);
        if step.name.as_str() == LAST {
            return Err(invalid(&at("name"), "`last` is the last step's result: rename the step"));
        }
        Ok(Self {
            name: step.name.to_string(),
            condition: condition(step).map_err(|error| invalid(&at("if"), error))?,
            then: step.then.unwrap_or(StepThen::Continue),
            otherwise: step.otherwise.unwrap_or(StepThen::Skip),
            input: step
                .input
                .as_ref()
                .map(|input| Bound::compile(&at("input"), &Value::Object(input.clone())))
                .transpose()?,
            on_failure: step.on_failure,
            unit: Unit::compile(action, work).map_err(|mut fault| {
                fault.message = format!("{}: {}", at("action"), fault.message);
                fault
            })?,
        })
    }

    fn decide(&self, context: &Context<'_>) -> Result<StepThen, Fault> {
        let Some(condition) = &self.condition else {
            return Ok(StepThen::Continue);
        };
        let holds = condition
            .holds(&context.roots())
            .map_err(|error| unevaluated(&format!("steps.{}.if", self.name), &error))?;
        Ok(if holds { self.then } else { self.otherwise })
    }

    async fn run(
        &self,
        context: &Context<'_>,
        services: &Services,
        usage: &mut Usage,
    ) -> Result<Value, Fault> {
        let ended = match self.input.as_ref().map(|input| input.eval(context)).transpose() {
            Err(fault) => Err(fault),
            Ok(mapped) => {
                let input = mapped.as_ref().unwrap_or(context.input);
                self.unit.perform(&Context { input, ..*context }, services).await
            }
        };
        match ended {
            Ok(success) => {
                usage.add(&success.usage);
                Ok(success.result)
            }
            Err(fault) => {
                usage.add(&fault.usage);
                self.failed(fault)
            }
        }
    }

    fn failed(&self, mut fault: Fault) -> Result<Value, Fault> {
        let kind = fault.kind;
        fault.kind = match self.on_failure {
            StepFailure::Continue => {
                return Ok(json!({"error": {
                    "code": fault.code,
                    "message": fault.message,
                    "kind": kind.as_str(),
                    "detail": fault.detail,
                }}));
            }
            // What a rule forbids stays forbidden.
            StepFailure::Retry if kind != FailureKind::Policy => FailureKind::Transient,
            StepFailure::Abort if kind != FailureKind::Policy => FailureKind::Permanent,
            _ => kind,
        };
        fault.message = format!("step {:?}: {}", self.name, fault.message);
        let detail = std::mem::take(&mut fault.detail);
        fault.detail = json!({"step": self.name, "kind": kind.as_str(), "detail": detail});
        Err(fault)
    }

    fn refused(&self) -> Fault {
        let message =
            format!("step {:?} ended the task as failed, as its condition says", self.name);
        let mut fault = permanent("step_failed", message);
        fault.detail = json!({"step": self.name});
        fault
    }
}

fn condition(step: &Step) -> Result<Option<Expression>, domain::expression::InvalidExpression> {
    let Some(text) = step.condition.as_deref().map(str::trim) else {
        return Ok(None);
    };
    let bare = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
    Expression::compile(bare).map(Some)
}
