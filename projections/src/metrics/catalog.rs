//! The metrics that every workspace has, and what each is read from.

use protocol::MetricInfo;

/// Series whose sum or sizes count for nothing: each value is one.
pub(super) const RUNS_STARTED: &str = "runs.started";
pub(super) const RUNS: &str = "runs.duration";
pub(super) const ATTEMPTS_STARTED: &str = "attempts.started";
pub(super) const ATTEMPTS: &str = "attempts.duration";
pub(super) const NODES: &str = "nodes.duration";
pub(super) const INPUT_TOKENS: &str = "usage.input_tokens";
pub(super) const OUTPUT_TOKENS: &str = "usage.output_tokens";
pub(super) const COST: &str = "usage.cost_micros";
/// Values of metrics of which there are too many.
pub(super) const DROPPED: &str = "metrics.dropped";

/// What is told of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Count,
    Sum,
    Distribution,
}

impl Told {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Distribution => "distribution",
        }
    }
}

/// A metric as it is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) told: Told,
    pub(super) unit: &'static str,
    /// The metric that is stored.
    pub(super) stored: &'static str,
    /// The status that its series have, where it is of one only.
    pub(super) status: Option<&'static str>,
    about: &'static str,
    dimensions: &'static [&'static str],
}

/// Dimensions of runs, and so of all that happens in them.
const OF_RUNS: &[&str] = &["project_id", "workflow_id", "definition", "version"];
const OF_ENDED_RUNS: &[&str] = &["project_id", "workflow_id", "definition", "version", "status"];
const OF_NODES: &[&str] =
    &["project_id", "workflow_id", "definition", "version", "node", "kind", "status"];
const OF_STARTS: &[&str] = &["project_id", "workflow_id", "definition", "version", "node", "kind"];
const OF_ATTEMPTS: &[&str] =
    &["project_id", "workflow_id", "definition", "version", "node", "kind", "model", "status"];
const OF_ENDED_ATTEMPTS: &[&str] =
    &["project_id", "workflow_id", "definition", "version", "node", "kind", "model"];
/// Those of metrics that definitions emit, beside their own.
pub(super) const OF_EMITTED: &[&str] =
    &["project_id", "workflow_id", "definition", "version", "node"];

/// Before the name of a dimension that a definition gives a metric of its own.
pub(super) const OWN: &str = "dimensions.";

macro_rules! metric {
    ($name:literal, $told:ident $unit:literal, $stored:ident $status:expr, $dimensions:ident,
     $about:literal) => {
        Metric {
            name: $name,
            told: Told::$told,
            unit: $unit,
            stored: $stored,
            status: $status,
            about: $about,
            dimensions: $dimensions,
        }
    };
}

/// All of them. Their names have a dot, which names that a definition gives have not.
pub(super) const METRICS: &[Metric] = &[
    metric!("runs.started", Count "runs", RUNS_STARTED None, OF_RUNS, "Runs that were started."),
    metric!("runs.ended", Count "runs", RUNS None, OF_ENDED_RUNS,
        "Runs that ended, however they did."),
    metric!("runs.completed", Count "runs", RUNS Some("completed"), OF_RUNS,
        "Runs that completed."),
    metric!("runs.failed", Count "runs", RUNS Some("failed"), OF_RUNS, "Runs that failed."),
    metric!("runs.cancelled", Count "runs", RUNS Some("cancelled"), OF_RUNS,
        "Runs that were cancelled."),
    metric!("runs.timed_out", Count "runs", RUNS Some("timed_out"), OF_RUNS,
        "Runs that took too long."),
    metric!("runs.duration", Distribution "ms", RUNS None, OF_ENDED_RUNS,
        "How long runs took from their start to their end, with all that they waited for."),
    metric!("attempts.started", Count "attempts", ATTEMPTS_STARTED None, OF_STARTS,
        "Attempts of actions that became due."),
    metric!("attempts.succeeded", Count "attempts", ATTEMPTS Some("succeeded"), OF_ENDED_ATTEMPTS,
        "Attempts that succeeded."),
    metric!("attempts.failed", Count "attempts", ATTEMPTS Some("failed"), OF_ENDED_ATTEMPTS,
        "Attempts that failed, and were not tried again."),
    metric!("attempts.retried", Count "attempts", ATTEMPTS Some("retried"), OF_ENDED_ATTEMPTS,
        "Attempts that failed, and were tried again."),
    metric!("attempts.duration", Distribution "ms", ATTEMPTS None, OF_ATTEMPTS,
        "How long attempts took on their workers."),
    metric!("nodes.succeeded", Count "nodes", NODES Some("succeeded"), OF_STARTS,
        "Nodes of all kinds that succeeded, once for each token."),
    metric!("nodes.failed", Count "nodes", NODES Some("failed"), OF_STARTS,
        "Nodes of all kinds that failed, once for each token."),
    metric!("nodes.duration", Distribution "ms", NODES None, OF_NODES,
        "How long tokens were at nodes, with retries and all that they waited for."),
    metric!("usage.input_tokens", Sum "tokens", INPUT_TOKENS None, OF_ATTEMPTS,
        "Tokens that models were given; `count` is the attempts that used some."),
    metric!("usage.output_tokens", Sum "tokens", OUTPUT_TOKENS None, OF_ATTEMPTS,
        "Tokens that models gave."),
    metric!("usage.cost_micros", Sum "micros", COST None, OF_ATTEMPTS,
        "What models cost by their profiles' prices, in millionths of the currency."),
    metric!("metrics.dropped", Count "values", DROPPED None, OF_EMITTED,
        "Values of metrics that definitions emitted beyond 500 names a day."),
];

impl Metric {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        METRICS.iter().find(|metric| metric.name == name)
    }

    pub(super) const fn dimensions(&self) -> &'static [&'static str] {
        self.dimensions
    }

    pub(super) fn info(&self) -> MetricInfo {
        MetricInfo {
            name: self.name.to_owned(),
            r#type: self.told.as_str().to_owned(),
            unit: Some(self.unit.to_owned()),
            description: self.about.to_owned(),
            dimensions: self.dimensions.iter().map(|&name| name.to_owned()).collect(),
        }
    }
}

/// Whether sizes are kept of a stored metric: of durations, and of what definitions emit.
pub(super) fn is_distribution(stored: &str) -> bool {
    !stored.contains('.') || [RUNS, ATTEMPTS, NODES].contains(&stored)
}
