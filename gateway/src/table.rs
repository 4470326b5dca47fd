//! Every route, with its permission. What doesn't stand here doesn't exist.

use domain::limits::{DEFINITION_BYTES, INPUT_BYTES, SIGNAL_BYTES, WEBHOOK_BYTES};
use domain::resource::Kind;

use crate::route::Permission::{Admin, Public, Read, Run, Write};
use crate::route::Verb::{Delete, Get, Patch, Post};
use crate::route::{Body, Handler, Route};
use crate::{
    api_keys, bundles, definitions, events, experiments, forks, gates, operations, resources,
    retention, runs, signals, time_travel, triggers,
};

mod query;

use query::*;

/// Bytes of a body that isn't a definition or a run's start.
const BODY_BYTES: usize = 256 * 1024;
/// A run's input, a definition beside it, and the rest of the body.
const START_BYTES: usize = INPUT_BYTES + DEFINITION_BYTES + 64 * 1024;

/// A signal's payload, and the rest of the body; escapes may make it longer.
const SIGNAL_BODY_BYTES: usize = 2 * SIGNAL_BYTES;

macro_rules! handler {
    ($path:path) => {{
        const HANDLER: Handler = |call| Box::pin($path(call));
        HANDLER
    }};
}

mod audit;
mod logs;
mod metrics;

/// The routes that every kind of resource has.
macro_rules! resource {
    ($kind:ident, $path:literal, $noun:literal, read $read:ident, write $write:ident,
     create $create:path, takes $body:expr, answers $answer:literal, asks $asks:expr) => {
        &[
            Route::new(Post, $path, $write, handler!($create))
                .of(Kind::$kind)
                .says(concat!("Create ", $noun), "Conflicts (409) where the name is taken.")
                .takes($body)
                .asks($asks)
                .answers(201, $answer),
            Route::new(Get, $path, $read, handler!(resources::list))
                .of(Kind::$kind)
                .says(concat!("List: ", $noun), "Newest first.")
                .asks(&[RESOURCES, PAGE, MIN_POSITION])
                .answers(200, "ResourcePage"),
            Route::new(Get, concat!($path, "/{id}"), $read, handler!(resources::get))
                .of(Kind::$kind)
                .says(concat!("Read ", $noun), "`ETag` is the version.")
                .asks(&[MIN_POSITION])
                .answers(200, "Resource"),
            Route::new(Patch, concat!($path, "/{id}"), $write, handler!(resources::revise))
                .of(Kind::$kind)
                .says(
                    concat!("Change ", $noun),
                    "A JSON merge patch (RFC 7386) over `spec`. With `If-Match`, 412 where the \
                     version is another one.",
                )
                .takes(Body::Json { schema: "MergePatch", limit: BODY_BYTES })
                .answers(200, "Receipt"),
            Route::new(Delete, concat!($path, "/{id}"), $write, handler!(resources::archive))
                .of(Kind::$kind)
                .says(concat!("Archive ", $noun), "Takes it out of use; its history stays.")
                .answers(200, "Receipt"),
            Route::new(Get, concat!($path, "/{id}/history"), $read, handler!(resources::history))
                .of(Kind::$kind)
                .says(concat!("History of ", $noun), "Its events, oldest first.")
                .asks(&[CURSOR])
                .answers(200, "EventPage"),
        ]
    };
}

macro_rules! plain {
    ($kind:ident, $path:literal, $noun:literal, $schema:literal, $write:ident) => {
        resource!($kind, $path, $noun, read Read, write $write, create resources::create,
            takes Body::Json { schema: $schema, limit: BODY_BYTES }, answers "Receipt", asks &[])
    };
}

/// All routes, by subject.
const ROUTES: &[&[Route]] = &[
    OPERATIONS,
    plain!(Workspace, "/api/v1/workspaces", "a workspace", "WorkspaceSpec", Admin),
    plain!(Project, "/api/v1/projects", "a project", "ProjectSpec", Write),
    DEFINITIONS,
    resource!(WorkflowDefinition, "/api/v1/workflow-definitions", "a workflow definition",
        read Read, write Write, create definitions::publish,
        takes Body::Definition { limit: DEFINITION_BYTES }, answers "Published", asks &[PROJECT]),
    plain!(Workflow, "/api/v1/workflows", "a workflow", "WorkflowSpec", Write),
    plain!(Action, "/api/v1/actions", "an action", "ActionSpec", Write),
    plain!(PromptSpec, "/api/v1/prompt-specs", "a prompt spec", "PromptSpecSpec", Write),
    plain!(ModelProfile, "/api/v1/model-profiles", "a model profile", "ModelProfileSpec", Write),
    resource!(ApiKey, "/api/v1/api-keys", "an API key", read Admin, write Admin,
        create api_keys::create, takes Body::Json { schema: "NewApiKey", limit: BODY_BYTES },
        answers "NewApiKeySecret", asks &[]),
    RUN_ROUTES,
    WAITING_ROUTES,
    TRIGGER_ROUTES,
    audit::ROUTES,
    logs::ROUTES,
    metrics::ROUTES,
];

const OPERATIONS: &[Route] = &[
    Route::new(Get, "/livez", Public, handler!(operations::livez))
        .says("Alive", "200 while the process answers.")
        .answers(200, "Alive"),
    Route::new(Get, "/readyz", Public, handler!(operations::readyz))
        .says("Ready", "Each dependency with its lag; 503 where one isn't ready.")
        .answers(200, "Readiness"),
    Route::new(Get, "/metrics", Read, handler!(operations::metrics))
        .says("Metrics", "Prometheus text."),
    Route::new(Get, "/openapi.json", Public, handler!(operations::openapi))
        .says("This document", "OpenAPI 3.1."),
    Route::new(Get, "/docs", Public, handler!(operations::docs))
        .says("Reference page", "HTML without scripts; loads nothing."),
    Route::new(Get, "/docs/errors/{code}", Public, handler!(operations::error_page))
        .says("An error explained", "HTML: its cause and what to do."),
];

const DEFINITIONS: &[Route] = &[
    Route::new(
        Post,
        "/api/v1/workflow-definitions/validate",
        Read,
        handler!(definitions::validate),
    )
    .says(
        "Check a definition",
        "Writes nothing. References to other resources are looked up only when it is published.",
    )
    .takes(Body::Definition { limit: DEFINITION_BYTES })
    .answers(200, "Validation"),
    Route::new(
        Get,
        "/api/v1/workflow-definitions/{id}/compare",
        Read,
        handler!(definitions::compare),
    )
    .says("Compare two versions", COMPARES)
    .asks(&[FROM, TO, REHEARSED, MIN_POSITION])
    .answers(200, "Comparison"),
    Route::new(
        Post,
        "/api/v1/workflow-definitions/{id}/compare",
        Read,
        handler!(definitions::compare_unpublished),
    )
    .says("Compare a version with what isn't published", COMPARES)
    .takes(Body::Definition { limit: DEFINITION_BYTES })
    .asks(&[FROM, REHEARSED, MIN_POSITION])
    .answers(200, "Comparison"),
    Route::new(Get, "/api/v1/workflow-definitions/schema", Public, handler!(definitions::schema))
        .says("Schema of definitions", "JSON Schema 2020-12, for editors.")
        .answers(200, "Document"),
];

const COMPARES: &str = "Names what differs, and rehearses recorded runs of the version `from` by \
                        the other one: which go the same way, and where the others part first. \
                        Changes nothing.";

const WAITS: &str = "With `Prefer: wait=N` (seconds, 1 to 60) it answers when the run has ended, \
                     with its outcome, or when the time is up.";

const FORKS: &str = "Starts a run that shares the events of another one up to `at` and goes on from \
                     there, with another input, state, outcome or definition. Outcomes that the \
                     other run recorded later are adopted where the same is asked for, without a \
                     call. With `dry_run` it answers the plan (200, `ForkPlan`) and does nothing.";

const EXPERIMENTS: &str = "Forks many runs from their beginnings with one change. Outcomes that were \
                           recorded are taken over where the same is asked for; effects that aren't \
                           allowed aren't had. It goes on by itself, at most `at_once` forks at the \
                           same time; the answer says how far it is. Asked for again, it goes on, \
                           with another set, cap or `at_once` if these are different; a run is \
                           forked once by a name. With `dry_run` it answers the plan \
                           (`ExperimentPlan`) and does nothing.";

const RERUNS: &str = "Starts a run with the input and the labels of another one, by the version that \
                      it followed or by the one that a start would follow now. Nothing is taken \
                      over of what the other run did.";
const ARCHIVES: &str = "Drops what the events of a run that has ended tell of its work, but for what is to \
                        be kept: `results` keeps its input, and its output or error; `header` keeps \
                        neither. What happened, when, how often and by whom stays, with the proof of \
                        the rest. Write a bundle first (`archive` says where it is): nothing brings \
                        content back. With `dry_run` it says what would be dropped.";
const RETRIES: &str = "Starts a run that shares the events of a failed one up to its failure and goes \
                       on from there: attempts that were under way then are made again, also the \
                       one that failed, and what had been done isn't. The failed run stays as it \
                       is. With `dry_run` it answers the plan (200, `ForkPlan`) and does nothing.";

const RUN_ROUTES: &[Route] = &[
    Route::new(Post, "/api/v1/workflows/{id}/pause", Write, handler!(resources::pause_workflow))
        .says(
            "Pause a workflow",
            "Its runs stand still, as if each were paused; new ones are taken, and wait as \
             `queued`. Runs that were paused for themselves stay so when it is resumed.",
        )
        .of(Kind::Workflow)
        .takes(Body::Optional { schema: "ResumeRun", limit: BODY_BYTES })
        .answers(200, "Receipt"),
    Route::new(Post, "/api/v1/workflows/{id}/resume", Write, handler!(resources::resume_workflow))
        .says("Resume a workflow", "Its runs go on, and those that wait begin in their turn.")
        .of(Kind::Workflow)
        .takes(Body::Optional { schema: "ResumeRun", limit: BODY_BYTES })
        .answers(200, "Receipt"),
    Route::new(Post, "/api/v1/workflows/{id}/runs", Run, handler!(runs::start_workflow))
        .says("Start a run of a workflow", WAITS)
        .takes(Body::Json { schema: "StartWorkflow", limit: START_BYTES })
        .answers(201, "RunStarted")
        .waits(),
    Route::new(Post, "/api/v1/runs", Run, handler!(runs::start_definition))
        .says("Start a run of a definition", WAITS)
        .takes(Body::Json { schema: "StartDefinition", limit: START_BYTES })
        .answers(201, "RunStarted")
        .waits(),
    Route::new(Get, "/api/v1/runs", Read, handler!(runs::list))
        .says("List runs", "Newest first.")
        .asks(&[RUNS, PAGE, MIN_POSITION])
        .answers(200, "RunPage"),
    Route::new(Get, "/api/v1/runs/{id}", Read, handler!(runs::get))
        .says("Read a run", WAITS)
        .asks(&[MIN_POSITION])
        .answers(200, "RunView")
        .waits(),
    Route::new(Post, "/api/v1/runs/{id}/cancel", Run, handler!(runs::cancel))
        .says("Cancel a run", "Open work is abandoned.")
        .takes(Body::Optional { schema: "CancelRun", limit: BODY_BYTES })
        .answers(200, "Receipt"),
    Route::new(Post, "/api/v1/runs/{id}/fork", Run, handler!(forks::fork))
        .says("Fork a run", FORKS)
        .takes(Body::Json { schema: "ForkRun", limit: START_BYTES })
        .answers(201, "RunStarted")
        .waits(),
    Route::new(Post, "/api/v1/runs/{id}/rerun", Run, handler!(runs::rerun))
        .says("Rerun a run", RERUNS)
        .takes(Body::Optional { schema: "RerunRun", limit: BODY_BYTES })
        .answers(201, "RunStarted")
        .waits(),
    Route::new(Post, "/api/v1/runs/{id}/retry", Run, handler!(forks::retry))
        .says("Retry a run", RETRIES)
        .takes(Body::Optional { schema: "RetryRun", limit: BODY_BYTES })
        .answers(201, "RunStarted")
        .waits(),
    Route::new(Post, "/api/v1/runs/{id}/archive", Admin, handler!(retention::archive))
        .says("Archive a run", ARCHIVES)
        .takes(Body::Json { schema: "ArchiveRun", limit: BODY_BYTES })
        .answers(200, "RunDropped"),
    Route::new(Post, "/api/v1/runs/{id}/hold", Admin, handler!(retention::hold))
        .says(
            "Hold a run",
            "Until it is released nothing is dropped of it, whoever asks: nor of its family, of \
             what it was forked from, and of what was forked of it.",
        )
        .takes(Body::Json { schema: "HoldRun", limit: BODY_BYTES })
        .answers(200, "Receipt"),
    Route::new(Post, "/api/v1/runs/{id}/release", Admin, handler!(retention::release))
        .says("Release a run that is held", "From then on it may be archived again.")
        .takes(Body::Optional { schema: "ReleaseRun", limit: BODY_BYTES })
        .answers(200, "Receipt"),
    Route::new(Get, "/api/v1/runs/{id}/events", Read, handler!(events::of_run))
        .says("Events of a run", STREAMS)
        .asks(&[CURSOR, EVENT_TYPE, SPEED, EPHEMERAL])
        .answers(200, "EventPage")
        .streams(),
    Route::new(Get, "/api/v1/runs/{id}/bundle", Read, handler!(bundles::of_run))
        .says(
            "A run as one file",
            "The run with its children, their events, definitions and values, as NDJSON that is \
             read, decided again and forked without a server (`wonder bundle`). Its first 16 MiB \
             are looked through for keys before anything is sent. An answer without its `end` \
             line was broken off: also where a key stands in what comes after that.",
        )
        .asks(&[SECRETS])
        .downloads("application/x-ndjson"),
    Route::new(Get, "/api/v1/runs/{id}/state", Read, handler!(time_travel::state))
        .says("A run at a moment", "The engine's own fold of the run's events.")
        .asks(&[AT])
        .answers(200, "RunState"),
    Route::new(Get, "/api/v1/runs/{id}/timeline", Read, handler!(time_travel::timeline))
        .says("Timeline of a run", "One entry per token and node.")
        .answers(200, "Timeline"),
    Route::new(Get, "/api/v1/runs/{id}/explain", Read, handler!(time_travel::explain))
        .says(
            "Explain a run",
            "Why it stands where it does or has ended, and of a token, or the newest tokens at a \
             node: how it came, what it did, what it waits for, and every transition from there \
             with what its condition read. From recorded events.",
        )
        .asks(&[EXPLAINED, AT])
        .answers(200, "Explanation"),
    Route::new(Get, "/api/v1/runs/{id}/diff", Read, handler!(time_travel::diff))
        .says(
            "Compare moments or runs",
            "Two moments of the run, or the run and another one: the first event that differs, \
             what tokens did at each node, values, usage.",
        )
        .asks(&[DIFFERING])
        .answers(200, "RunDiff"),
    Route::new(Post, "/api/v1/experiments", Run, handler!(experiments::run))
        .says("Run an experiment, or go on with it", EXPERIMENTS)
        .takes(Body::Json { schema: "RunExperiment", limit: BODY_BYTES })
        .asks(&[MIN_POSITION])
        .answers(200, "ExperimentProgress"),
    Route::new(Post, "/api/v1/experiments/{name}/stop", Run, handler!(experiments::stop))
        .says(
            "Stop an experiment",
            "No more forks are started, and those that go on are cancelled. Asked for again \
             (`POST /experiments`), it goes on.",
        )
        .takes(Body::Optional { schema: "StopExperiment", limit: BODY_BYTES })
        .answers(200, "ExperimentProgress"),
    Route::new(Get, "/api/v1/experiments/{name}/progress", Read, handler!(experiments::progress))
        .says(
            "How far an experiment is",
            "Its status, and that of its forks: cheaper than what they came to.",
        )
        .answers(200, "ExperimentProgress"),
    Route::new(Get, "/api/v1/experiments/{name}", Read, handler!(experiments::report))
        .says(
            "What an experiment came to",
            "Each run beside its fork: where it first goes another way, how it ends, which calls              were made, and what they cost; and sums over all.",
        )
        .asks(&[MIN_POSITION])
        .answers(200, "ExperimentReport"),
    Route::new(Post, "/api/v1/runs/{id}/verify", Read, handler!(runs::verify))
        .says(
            "Decide a run again",
            "From the outcomes, answers and signals that its history records, by the engine that \
             answers; names the first event that comes out otherwise. Changes nothing.",
        )
        .takes(Body::Optional { schema: "VerifyRun", limit: BODY_BYTES })
        .answers(200, "Verification"),
    Route::new(Get, "/api/v1/events", Read, handler!(events::all))
        .says("Events of the workspace", STREAMS)
        .asks(&[CURSOR, AGGREGATE, EVENT_TYPE, ORIGIN, EPHEMERAL])
        .answers(200, "EventPage")
        .streams(),
    Route::new(Get, "/api/v1/stream", Read, handler!(events::stream))
        .says("Events over a WebSocket", SOCKET)
        .asks(&[AFTER, STREAMED_RUN, AGGREGATE, EVENT_TYPE, ORIGIN, SPEED, EPHEMERAL])
        .upgrades(),
];

const WAITING_ROUTES: &[Route] = &[
    Route::new(Post, "/api/v1/runs/{id}/pause", Run, handler!(runs::pause))
        .says(
            "Pause a run",
            "Nothing is handed to workers any more, and timers stand still. Outcomes, signals and \
             answers are taken.",
        )
        .takes(Body::Optional { schema: "PauseRun", limit: BODY_BYTES })
        .answers(200, "Receipt"),
    Route::new(Post, "/api/v1/runs/{id}/resume", Run, handler!(runs::resume))
        .says("Resume a run", "Its timers are due later by the length of the pause.")
        .takes(Body::Optional { schema: "ResumeRun", limit: BODY_BYTES })
        .answers(200, "Receipt"),
    Route::new(Get, "/api/v1/runs/{id}/waiting", Read, handler!(runs::waiting))
        .says(
            "What a run waits for",
            "For each token and each open group: what it waits for, since when, and who or what \
             can bring it.",
        )
        .answers(200, "Waiting"),
    Route::new(Post, "/api/v1/runs/{id}/signals/{name}", Run, handler!(signals::to_run))
        .says(
            "Send a signal to a run",
            "Wakes the wait that has waited longest for it, or is kept for one that is reached \
             later; a transient one is dropped then.",
        )
        .takes(Body::Optional { schema: "SignalRun", limit: SIGNAL_BODY_BYTES })
        .answers(200, "Receipt"),
    Route::new(Post, "/api/v1/signals", Run, handler!(signals::by_labels))
        .says(
            "Send a signal to runs by their labels",
            "To each run of the workspace that has all of these labels and hasn't ended, at most \
             1,000 as the read model has them. Each run takes or refuses it alone.",
        )
        .asks(&[MIN_POSITION])
        .takes(Body::Json { schema: "SignalRuns", limit: SIGNAL_BODY_BYTES })
        .answers(200, "Signalled"),
    Route::new(Get, "/api/v1/gates", Read, handler!(gates::list))
        .says("List gates", "Newest first.")
        .asks(&[GATES, PAGE, MIN_POSITION])
        .answers(200, "GatePage"),
    Route::new(Get, "/api/v1/gates/{id}", Read, handler!(gates::get))
        .says("Read a gate", "Its id is that of the run, a dot, and the number of the token.")
        .asks(&[MIN_POSITION])
        .answers(200, "GateView"),
    Route::new(Post, "/api/v1/gates/{id}/answers", Run, handler!(gates::post_answer))
        .says("Answer a gate", "As whoever is signed in; once.")
        .takes(Body::Json { schema: "AnswerGate", limit: BODY_BYTES })
        .answers(200, "Receipt"),
];

const TRIGGER_ROUTES: &[Route] = &[
    Route::new(Post, "/api/v1/hooks/{id}/{trigger}", Public, handler!(triggers::deliver))
        .says(
            "Deliver a webhook",
            "Starts the run of a workflow's trigger. Signed as Standard Webhooks 1.0 say, with \
             `webhook-id`, `webhook-timestamp` and `webhook-signature`; without a key. A delivery \
             with a known `webhook-id` answers for the run that the first one started.",
        )
        .takes(Body::Signed { limit: WEBHOOK_BYTES })
        .answers(202, "WebhookTaken"),
    Route::new(Get, "/api/v1/workflows/{id}/triggers", Read, handler!(triggers::list))
        .says(
            "Triggers of a workflow",
            "Each with its next time, its last run, and its last failure to start one.",
        )
        .asks(&[MIN_POSITION])
        .answers(200, "TriggerList"),
];

const STREAMS: &str = "A page by default. With `Accept: text/event-stream` history and then live \
                       events: ids are cursors, `Last-Event-ID` or `after` resumes, a run's \
                       stream closes with `event: end`, a lagging reader gets `event: error`. With \
                       `ephemeral=true` messages `event: ephemeral` without an id stand between \
                       (an EphemeralEnvelope each): pieces of what models answer to actions with \
                       `stream`, as they come. They are kept nowhere and may be missing.";

const SOCKET: &str = "Text frames `{id, event, data}`, each what a server-sent event of the same \
                      stream is: with `run_id` that of a run, which closes with `end`, else that \
                      of the workspace. Give the last `id` as `after` to go on. A key may come as \
                      the subprotocol `bearer.<key>` beside `wonder.v1`. Pages of other origins \
                      are refused. Closes with 1000 after `end`, 1001 where the server ends, 1008 \
                      where a client sends a message, is silent for 60 s or lost its right, 1013 \
                      where it lags.";

static TABLE: &[&[Route]] = ROUTES;

/// All routes.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    TABLE.iter().copied().flatten()
}

/// The permission of a route, where there is such a route.
#[cfg(test)]
fn permission(path: &str, verb: crate::route::Verb) -> Option<crate::route::Permission> {
    routes().find(|route| route.path == path && route.verb == verb).map(|route| route.permission)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_operations_the_schema_and_what_is_signed_are_public() {
        for route in routes().filter(|route| route.permission == Public) {
            let known = !route.path.starts_with("/api/")
                || route.path.ends_with("/schema")
                || matches!(route.body, Body::Signed { .. });
            assert!(known, "{} is public", route.path);
        }
    }

    #[test]
    fn whatever_changes_something_needs_more_than_read() {
        for route in routes().filter(|route| route.verb != Get) {
            let only_reads = ["/validate", "/verify", "/compare"];
            let checks = only_reads.iter().any(|end| route.path.ends_with(end));
            assert_eq!(route.permission == Read, checks, "{}", route.path);
        }
        assert_eq!(permission("/api/v1/api-keys", Get), Some(Admin));
    }

    #[test]
    fn no_route_stands_twice_and_each_says_what_it_does() {
        let mut seen = std::collections::HashSet::new();
        for route in routes() {
            assert!(seen.insert((route.path, route.verb.method())), "{} twice", route.path);
            assert!(!route.summary.is_empty() && !route.about.is_empty(), "{}", route.path);
        }
    }
}
