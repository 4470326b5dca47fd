//! Metrics of the workers. Handles are looked up once, because tasks are many and short; so the
//! recorder has to be installed before an executor is made.

use domain::definition::ActionKind;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use protocol::task::{FailureKind, OutcomeResult};

const KINDS: [&str; 5] = ["llm", "http", "transform", "mock", "steps"];
const RESULTS: [&str; 6] = ["success", "transient", "permanent", "timeout", "policy", "cancelled"];

/// The kind of a task, for labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

impl Label {
    pub(crate) const STEPS: Self = Self(4);

    pub(crate) const fn of(kind: ActionKind) -> Self {
        Self(match kind {
            ActionKind::Llm => 0,
            ActionKind::Http => 1,
            ActionKind::Transform => 2,
            _ => 3,
        })
    }

    pub(crate) const fn as_str(self) -> &'static str {
        KINDS[self.0]
    }
}

/// The handles.
pub(crate) struct Meters {
    tasks: [[Counter; 6]; 5],
    seconds: [Histogram; 5],
    pub(crate) in_flight: Gauge,
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            tasks: KINDS.map(|kind| {
                RESULTS.map(
                    |result| counter!("wonder_tasks_total", "kind" => kind, "result" => result),
                )
            }),
            seconds: KINDS.map(|kind| histogram!("wonder_task_seconds", "kind" => kind)),
            in_flight: gauge!("wonder_tasks_in_flight"),
        }
    }

    /// Counts one ended attempt.
    pub(crate) fn ended(&self, label: Label, result: &OutcomeResult, seconds: f64) {
        let index = match result {
            OutcomeResult::Success(_) => 0,
            OutcomeResult::Failure(failure) => match failure.kind {
                FailureKind::Transient => 1,
                FailureKind::Permanent => 2,
                FailureKind::Timeout => 3,
                FailureKind::Policy => 4,
                FailureKind::Cancelled => 5,
            },
        };
        self.tasks[label.0][index].increment(1);
        self.seconds[label.0].record(seconds);
    }
}

/// Counts what one model call used up.
pub(crate) fn model_usage(provider: &'static str, model: &str, usage: &protocol::view::Usage) {
    let counted = [
        ("wonder_llm_input_tokens_total", usage.input_tokens),
        ("wonder_llm_output_tokens_total", usage.output_tokens),
        ("wonder_llm_cost_micros_total", usage.cost_micros),
    ];
    for (name, amount) in counted {
        counter!(name, "provider" => provider, "model" => model.to_owned()).increment(amount);
    }
}
