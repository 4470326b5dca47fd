//! The query parameters of routes, in groups.

use crate::route::Param;

pub(super) const fn param(name: &'static str, kind: &'static str, about: &'static str) -> Param {
    Param { name, about, kind, repeats: false }
}

pub(super) const fn repeated(name: &'static str, about: &'static str) -> Param {
    Param { name, about, kind: "string", repeats: true }
}

pub(super) const MIN_POSITION: &[Param] = &[param(
    "min_position",
    "integer",
    "Wait (at most 2 s, then 503) until the read model has reached this journal position.",
)];
pub(super) const PAGE: &[Param] = &[
    param("limit", "integer", "Items of a page: 1 to 200, default 50."),
    param("cursor", "string", "`next_cursor` of the page before, with the same filters."),
];
pub(super) const RESOURCES: &[Param] = &[
    param("project_id", "string", "Only those of this project."),
    param("name", "string", "Only those with this name."),
    param("archived", "boolean", "Archived ones too; default false."),
];
pub(super) const RUNS: &[Param] = &[
    param("project_id", "string", "Only runs of this project."),
    param("workflow_id", "string", "Only runs of this workflow."),
    param("parent", "string", "Only children of this run (`run_…`)."),
    param("definition", "string", "Only runs of definitions with this name."),
    repeated(
        "status",
        "One or several of `queued`, `running`, `waiting` (nothing of it is on a worker), \
         `paused`, `completed`, `failed`, `cancelled` and `timed_out`, repeated or separated by \
         commas.",
    ),
    repeated(
        "waiting_on",
        "Only runs that wait for one of these, whatever else they do: `task`, `timer`, `retry`, \
         `signal`, `gate`, `child`, `mutex` and `queue`, repeated or separated by commas.",
    ),
    param(
        "as_of",
        "date-time",
        "The runs as they were at this time. Of those that had not ended, `sequence`, `position` \
         and `usage` are those of now.",
    ),
    repeated("label", "`key=value`; repeated, all must hold."),
    param(
        "experiment",
        "string",
        "`exclude` leaves out runs that experiments made (those with a label `experiment`), `only` \
         leaves out all others; default `any`.",
    ),
    param("started_after", "date-time", "Only runs that started after this time."),
    param("started_before", "date-time", "Only runs that started before this time."),
    param("q", "string", "Part of the id, the definition's name or the error's message."),
];
pub(super) const GATES: &[Param] = &[
    param("status", "string", "Only `open` or only `closed` ones."),
    param("assignee", "string", "Only those that name this assignee."),
    param("role", "string", "Only those that name this role."),
    param("workflow_id", "string", "Only those of runs of this workflow."),
    param("run_id", "string", "Only those of this run."),
];
const AFTER_CURSOR: Param =
    param("after", "string", "Go on after this cursor, `<epoch>:<position>`.");
pub(super) const AFTER: &[Param] = &[AFTER_CURSOR];
pub(super) const STREAMED_RUN: &[Param] =
    &[param("run_id", "string", "Only events of this run; the stream ends with it.")];
pub(super) const CURSOR: &[Param] = &[
    AFTER_CURSOR,
    param("limit", "integer", "Events of a page: 1 to 1,000, default 100. Not for streams."),
];
pub(super) const EVENT_TYPE: &[Param] = &[param("type", "string", "Only events of this type.")];
pub(super) const SPEED: &[Param] = &[param(
    "speed",
    "number",
    "Of a stream: replay what has happened, spaced as it was recorded and so many times as fast \
     (0.01 to 10000); no wait is longer than 10 s. A run that goes on is followed live then.",
)];
pub(super) const SECRETS: &[Param] = &[param(
    "secrets",
    "string",
    "What becomes of what looks like a key that somebody has typed in: `refuse` (the default; \
     `bundle_has_keys` says where), `mask`, or `allow`.",
)];
pub(super) const AGGREGATE: &[Param] = &[
    param("aggregate_type", "string", "Only events of this kind of thing, as `run`."),
    param("aggregate_id", "string", "Only events of this thing."),
];
pub(super) const ORIGIN: &[Param] = &[
    param("project_id", "string", "Only events of runs and things of this project."),
    param("workflow_id", "string", "Only events of this workflow, its triggers and its runs."),
    repeated("label", "`key=value`: only events of runs with this label; repeated, all must hold."),
];
pub(super) const EPHEMERAL: &[Param] = &[param(
    "ephemeral",
    "boolean",
    "Of a stream: `true` tells also what goes on and isn't kept, as pieces of a model's answer.",
)];
pub(super) const PROJECT: &[Param] =
    &[param("project_id", "string", "The project; default: the workspace's default one.")];
pub(super) const FROM: &[Param] =
    &[param("from", "integer", "The version that runs were recorded of.")];
pub(super) const TO: &[Param] = &[param("to", "integer", "The version that it is compared to.")];
pub(super) const REHEARSED: &[Param] = &[param(
    "runs",
    "integer",
    "How many of the newest runs of `from` that have ended are rehearsed: 0 to 500, default 50.",
)];
pub(super) const EXPLAINED: &[Param] = &[
    param("token", "integer", "Explain this token."),
    param("node", "string", "Explain the newest tokens at this node, and the ways to it."),
];
pub(super) const DIFFERING: &[Param] = &[
    param("from", "string", "The first moment: a sequence or a time. Not with `other`."),
    param("to", "string", "The second moment; now, where it is left out."),
    param("other", "string", "Another run (`run_…`) to compare with."),
];
pub(super) const AT: &[Param] =
    &[param("at", "string", "A sequence of the run, or an RFC 3339 time; default: now.")];
