//! The route of the log store.

use super::query::{PAGE, param};
use crate::logs;
use crate::route::Permission::Admin;
use crate::route::Verb::Get;
use crate::route::{Handler, Param, Route};

const LOGGED: &[Param] = &[
    param("level", "string", "Only this level and above: `error`, `warn`, `info` …"),
    param(
        "role",
        "string",
        "Only what this role told: `gateway`, `commands`, `projections`, `executor`.",
    ),
    param("run_id", "string", "Only what is about this run."),
    param(
        "tree",
        "boolean",
        "With `run_id`: `true` for what is about any run of its tree, from the one at its top down.",
    ),
    param(
        "trace_id",
        "string",
        "Only what is about this trace (the `x-request-id` of an answer), or about a run that it \
         started, or one below that.",
    ),
    param("from", "date-time", "Only from this time on."),
    param("to", "date-time", "Only before this time."),
    param("q", "string", "Part of the message or the fields, whatever the case."),
];
pub(super) const ROUTES: &[Route] = &[Route::new(Get, "/api/v1/logs", Admin, handler!(logs::list))
    .says(
        "What processes warned of",
        "Newest first, a moment after it was told; by default warnings and errors of the last \
         week. A key sees what is about its workspace and its runs; the platform's administrator \
         sees all.",
    )
    .asks(&[LOGGED, PAGE])
    .answers(200, "LogPage")];
