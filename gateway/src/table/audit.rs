//! The routes of the audit log and of the audit chain.

use super::query::{MIN_POSITION, PAGE, param};
use crate::audit;
use crate::route::Permission::{Admin, Read};
use crate::route::Verb::Get;
use crate::route::{Handler, Param, Route};

const AUDITED: &[Param] = &[
    param(
        "actor",
        "string",
        "Only what this one did: a key (`key_…`), `administrator`, `trigger` …",
    ),
    param(
        "action",
        "string",
        "Only this, as `workflow.revised`, `run.started` or `gate.answered`.",
    ),
    param("resource_type", "string", "Only what was done to this kind of thing, as `run`."),
    param("resource_id", "string", "Only what was done to this thing."),
    param("run_id", "string", "Only what was done to this run and its gates."),
    param("result", "string", "Only what is `done`, has `failed`, or was `refused`."),
    param("after", "date-time", "Only from this time on."),
    param("before", "date-time", "Only before this time."),
];
const EXPORTED: &[Param] = &[
    param("from", "integer", "The first position; default 1."),
    param("to", "integer", "The last position; default: that of the newest signed head."),
    param(
        "all_workspaces",
        "boolean",
        "Tell also the events of all other workspaces; for the platform's administrator.",
    ),
];
const AFTER_POSITION: &[Param] = &[
    param("after", "integer", "Only heads after this position."),
    param("limit", "integer", "Heads of a page: 1 to 1,000, default 100."),
];
pub(super) const ROUTES: &[Route] = &[
    Route::new(Get, "/api/v1/audit", Admin, handler!(audit::list))
        .says(
            "Who did what",
            "Newest first: what people, keys and triggers did in the workspace, from where, and what \
             of a resource became another.",
        )
        .asks(&[AUDITED, PAGE, MIN_POSITION])
        .answers(200, "AuditPage"),
    Route::new(Get, "/api/v1/audit/export", Admin, handler!(audit::export))
        .says(
            "Export history with its proof",
            "A bundle: lines of JSON with the events of the workspace as they are stored, what of \
             the others it takes to prove them, and the signed heads, from the signed head before \
             `from` to the one from `to` on. `wonder audit verify --bundle` checks it offline. It \
             is whole when its last line is its end.",
        )
        .asks(&[EXPORTED])
        .downloads("application/x-ndjson"),
    Route::new(Get, "/api/v1/audit/heads", Read, handler!(audit::heads))
        .says(
            "Signed heads of the audit chain",
            "In order of position. Keep them elsewhere: whoever has one can tell whether history up \
             to there was altered since.",
        )
        .asks(&[AFTER_POSITION])
        .answers(200, "AuditHeads"),
];
