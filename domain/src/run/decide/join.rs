//! Joins: when the branches of a group come together, and when they can't any more.

use serde_json::{Map, Value};

use super::cancel::JoinCause;
use super::{Decider, too_many_tokens};
use crate::definition::plan::PlanJoin;
use crate::definition::{FailedPolicy, JoinTimeout, JoinWait, MergeStrategy, Rest};
use crate::limits;
use crate::run::event::{Arithmetic, Event, FailureKind, Iteration, RunError};
use crate::run::state::Instance;
use crate::run::vars::size_of;

/// What a join's numbers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Satisfied,
    Waits,
    Impossible,
}

impl Decider<'_> {
    /// Looks at every instance whose counts changed, and at what that changes in turn.
    pub(super) fn settle_joins(&mut self) {
        while let Some(id) = self.touched.pop() {
            self.expand(id);
            self.settle_instance(id);
        }
    }

    fn settle_instance(&mut self, id: u64) {
        let plan = self.plan;
        let Some(instance) = self.live().and_then(|live| live.instances.get(&id)) else { return };
        let join = plan.join(instance.group.as_deref());
        match join {
            Some(join) if !instance.fired => {
                let arithmetic = arithmetic(instance, join);
                match verdict(instance, join, &arithmetic) {
                    Verdict::Satisfied => self.fire_join(id, join, JoinCause::Satisfied),
                    Verdict::Impossible => {
                        let error = unsatisfied(instance, join, &arithmetic);
                        self.fail_join(id, error);
                    }
                    Verdict::Waits => {}
                }
            }
            None if instance.first_error.is_some() => {
                let error = instance.first_error.as_deref().cloned();
                self.fail_join(
                    id,
                    error.unwrap_or_else(|| RunError::permanent("failed", String::new())),
                );
            }
            Some(_) | None if instance.is_drained() => {
                let parent = instance.parent.branch;
                self.emit(Event::GroupEnded { instance: id });
                self.touched.extend(parent.map(|branch| branch.instance));
            }
            Some(_) | None => {}
        }
    }

    pub(super) fn fire_join(&mut self, id: u64, join: &PlanJoin, cause: JoinCause) {
        let Some(live) = self.live() else { return };
        let Some(instance) = live.instances.get(&id) else { return };
        let arithmetic = arithmetic(instance, join);
        let count = instance.taken.get(&join.transition).copied().unwrap_or(0) + 1;
        let error = match join.max_iterations {
            Some(limit) if count > limit => {
                let message = format!("the join into {:?} may be taken {limit} times", join.to);
                Some(RunError::permanent("loop_limit", message))
            }
            _ if live.tokens_at_once() >= limits::TOKENS_PER_RUN => Some(too_many_tokens()),
            _ => None,
        };
        let writes = match error {
            Some(error) => Err(Box::new(error)),
            None => merged(instance, join),
        };
        let (token, parent) = (live.next_token, instance.parent.branch);
        match writes {
            Err(error) => self.fail_join(id, *error),
            Ok(writes) => {
                self.emit(Event::JoinFired {
                    instance: id,
                    token,
                    node: join.to.to_string(),
                    arithmetic,
                    writes,
                    iteration: join
                        .max_iterations
                        .map(|_| Iteration { transition: join.transition, count }),
                    rest_continues: join.spec.rest == Rest::Continue,
                    timed_out: cause == JoinCause::TimedOut,
                    completed_by: match cause {
                        JoinCause::Completed(by) => Some(by),
                        JoinCause::Satisfied | JoinCause::TimedOut => None,
                    },
                });
                self.tokens_left = self.tokens_left.saturating_sub(1);
                self.fresh.push(token);
                self.touched.push(id);
                self.touched.extend(parent.map(|branch| branch.instance));
            }
        }
    }

    /// The group is given up: its parent's branch fails, or the run where there is none.
    fn fail_join(&mut self, id: u64, error: RunError) {
        let Some(instance) = self.live().and_then(|live| live.instances.get(&id)) else { return };
        let parent = instance.parent.branch;
        let join = self.plan.join(instance.group.as_deref());
        let arithmetic = match join {
            Some(join) => arithmetic(instance, join),
            None => numbers(instance, 0),
        };
        self.emit(Event::JoinFailed { instance: id, error: error.clone(), arithmetic });
        match parent {
            Some(branch) => self.touched.push(branch.instance),
            None => self.fail_run(error),
        }
    }

    pub(super) fn time_out_join(&mut self, id: u64) {
        let plan = self.plan;
        let Some(instance) = self.live().and_then(|live| live.instances.get(&id)) else { return };
        let Some(join) = plan.join(instance.group.as_deref()) else { return };
        match join.spec.on_timeout {
            JoinTimeout::Proceed => self.fire_join(id, join, JoinCause::TimedOut),
            JoinTimeout::Fail => {
                let mut error = RunError::permanent(
                    "join_timeout",
                    format!("the join into {:?} waited longer than its timeout", join.to),
                );
                error.kind = FailureKind::Timeout;
                self.fail_join(id, error);
            }
        }
    }
}

fn numbers(instance: &Instance, needed: u64) -> Arithmetic {
    Arithmetic {
        declared: instance.declared,
        arrived: instance.arrived.len() as u64,
        failed: instance.failed.len() as u64,
        ended: instance.ended.len() as u64,
        needed,
    }
}

fn arithmetic(instance: &Instance, join: &PlanJoin) -> Arithmetic {
    numbers(instance, instance.needed(&join.spec))
}

fn verdict(instance: &Instance, join: &PlanJoin, numbers: &Arithmetic) -> Verdict {
    let lost = numbers.failed + numbers.ended;
    let counted = match join.spec.failed {
        FailedPolicy::Count => numbers.arrived + lost,
        FailedPolicy::Fail | FailedPolicy::Ignore => numbers.arrived,
    };
    if join.spec.failed == FailedPolicy::Fail && numbers.failed > 0 {
        return Verdict::Impossible;
    }
    // `all` waits until every branch is through: an ignored failure lowers what is needed, and
    // may not let the join fire while others are still out.
    let all_through = join.spec.wait != JoinWait::All || instance.outstanding() == 0;
    if counted >= numbers.needed && all_through {
        Verdict::Satisfied
    } else if counted + instance.outstanding() < numbers.needed {
        Verdict::Impossible
    } else {
        Verdict::Waits
    }
}

fn unsatisfied(instance: &Instance, join: &PlanJoin, numbers: &Arithmetic) -> RunError {
    if let (FailedPolicy::Fail, Some(error)) = (join.spec.failed, &instance.first_error) {
        return (**error).clone();
    }
    let Arithmetic { declared, arrived, failed, ended, needed } = numbers;
    let message = format!(
        "the join into {:?} needs {needed} of {declared} branches: {arrived} arrived, {failed} \
         failed, {ended} ended without arriving",
        join.to
    );
    let detail = serde_json::json!({"first_error": instance.first_error});
    RunError { detail, ..RunError::permanent("join_unsatisfiable", message) }
}

/// The merge of what arrived, in the order of branch index.
fn merged(instance: &Instance, join: &PlanJoin) -> Result<Map<String, Value>, Box<RunError>> {
    let (Some(merge), Some(into)) = (&join.spec.merge, &join.into) else { return Ok(Map::new()) };
    let mut arrived = instance
        .arrived
        .iter()
        .map(|(index, value)| (*index, value.as_deref().cloned().unwrap_or_default()));
    let value = match merge.strategy {
        MergeStrategy::Collect => Value::Array(arrived.map(|(_, value)| value).collect()),
        MergeStrategy::Append => Value::Array(
            arrived
                .flat_map(|(_, value)| match value {
                    Value::Array(items) => items,
                    other => vec![other],
                })
                .collect(),
        ),
        MergeStrategy::ByBranch => {
            Value::Object(arrived.map(|(index, value)| (index.to_string(), value)).collect())
        }
        MergeStrategy::Last => arrived.next_back().map_or(Value::Null, |(_, value)| value),
        MergeStrategy::Object => {
            let mut members = Map::new();
            for (index, value) in arrived {
                let Value::Object(more) = value else {
                    let message = format!(
                        "merge `object` wants objects; branch {index} brought another type"
                    );
                    return Err(Box::new(RunError::permanent("merge_type", message)));
                };
                members.extend(more);
            }
            Value::Object(members)
        }
    };
    if size_of(&value) > limits::CONTEXT_BYTES {
        let limit = limits::CONTEXT_BYTES;
        let message = format!("the merged value takes more than {limit} bytes");
        return Err(Box::new(RunError::permanent("context_too_large", message)));
    }
    Ok(Map::from_iter([(into.clone(), super::canonical(value)?)]))
}
