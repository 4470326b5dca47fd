//! The routes of metrics over runs.

use super::query::{MIN_POSITION, param, repeated};
use crate::metrics;
use crate::route::Permission::Read;
use crate::route::Verb::Get;
use crate::route::{Handler, Param, Route};

const QUERY: &[Param] = &[
    param("metric", "string", "The metric, as `runs.completed`."),
    param("from", "date-time", "From here on; default: an hour before `to`."),
    param("to", "date-time", "Up to here; default: now."),
    param(
        "step",
        "string",
        "How long a point's time is: `1m` (kept for 7 days), `1h` (90 days) or `1d` (800 days); \
         default: the shortest that gives at most 200 points. At most 1,500 points.",
    ),
    repeated(
        "group_by",
        "Up to four dimensions, repeated or separated by commas: one series for each of their \
         values. `dimensions.NAME` is one that a definition gave its metric.",
    ),
    param("project_id", "string", "Only what happened in this project."),
    param("workflow_id", "string", "Only in runs of this workflow."),
    param("definition", "string", "Only in runs of definitions with this name."),
    param("version", "string", "Only in runs of this version of their definition."),
    param("node", "string", "Only at this node."),
    param("kind", "string", "Only at nodes of this kind, as `llm`."),
    param("model", "string", "Only where this model answered."),
    param("status", "string", "Only what ended so."),
    repeated("dimension", "`name=value` of a dimension that a definition gave its metric."),
];

pub(super) const ROUTES: &[Route] = &[
    Route::new(Get, "/api/v1/metrics", Read, handler!(metrics::list))
        .says(
            "The metrics over runs that exist",
            "Those of every workspace, and those that definitions emitted within 30 days. \
             (`/metrics` without a prefix is about this process.)",
        )
        .asks(&[MIN_POSITION])
        .answers(200, "MetricList"),
    Route::new(Get, "/api/v1/metrics/query", Read, handler!(metrics::query))
        .says(
            "A metric over time",
            "Sums over minutes, hours or days, by the times at which events were recorded (UTC). \
             Buckets without a value are left out.",
        )
        .asks(&[QUERY, MIN_POSITION])
        .answers(200, "MetricAnswer"),
];
