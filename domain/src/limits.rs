//! Every limit in one place. What goes beyond is refused before anything is written.

/// Bytes of a definition's source.
pub const DEFINITION_BYTES: usize = 1024 * 1024;
/// Nodes of a definition.
pub const NODES: usize = 2_000;
/// Transitions of a definition.
pub const TRANSITIONS: usize = 10_000;
/// Differences of two definitions that are named; the others are counted.
pub const CHANGES: usize = 5_000;
/// Tokens that one run may have at the same time, with the branches that are still to be made; and
/// branches of one group, also of one that is added to.
pub const TOKENS_PER_RUN: u64 = 100_000;
/// Tokens that one append may make; a larger fan-out is expanded in slices, between which other runs
/// have their turns.
pub const TOKENS_PER_APPEND: usize = 250;
/// Events that one decision may give before the rest is put off to the next append.
pub const EVENTS_PER_DECISION: usize = 2_000;
/// Events of a run from which on its owner warns of it in its log.
pub const EVENTS_WARNED_OF: u64 = 100_000;
/// Events of a run at which it is suspended: it is paused, and not resumed any more.
pub const EVENTS_PER_RUN: u64 = 1_000_000;
/// Bytes of a run's input.
pub const INPUT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a run's context (state and pending branch values).
pub const CONTEXT_BYTES: usize = 8 * 1024 * 1024;
/// Triggers of a workflow.
pub const TRIGGERS: usize = 32;
/// How long a chain of runs may be in which each is started by an event of the one before.
pub const TRIGGER_DEPTH: u32 = 10;
/// Bytes of a cron pattern.
pub const CRON_BYTES: usize = 256;
/// Missed times of a schedule that start a run, the latest.
pub const MISSED: usize = 1_000;
/// Secrets of a webhook.
pub const WEBHOOK_SECRETS: usize = 5;
/// Headers of a webhook that its run's input may use.
pub const WEBHOOK_HEADERS: usize = 20;
/// Bytes of a webhook's id.
pub const WEBHOOK_ID_BYTES: usize = 256;
/// Signatures of a webhook that are looked at.
pub const SIGNATURES: usize = 16;
/// Bytes of a webhook's body.
pub const WEBHOOK_BYTES: usize = 1024 * 1024;
/// Bytes of a message that starts a run.
pub const MESSAGE_BYTES: usize = 1024 * 1024;
/// Bytes of the name of a stream outside.
pub const STREAM_NAME_BYTES: usize = 255;
/// Bytes of a subject, or a pattern of some.
pub const SUBJECT_BYTES: usize = 256;
/// Depth of any JSON value that enters an event.
pub const JSON_DEPTH: usize = 64;
/// Bytes of one expression's source.
pub const EXPRESSION_BYTES: usize = 8 * 1024;
/// Bytes of one template's source.
pub const TEMPLATE_BYTES: usize = 256 * 1024;
/// Bytes that one expression or template may produce.
pub const EVALUATION_BYTES: usize = 4 * 1024 * 1024;
/// Work that one expression may do, in element visits (see `expression::cel`).
pub const EXPRESSION_FUEL: u64 = 1_000_000;
/// Work that one template may do, in Jinja instructions.
pub const TEMPLATE_FUEL: u64 = 200_000;
/// Bytes of one event's value above which it moves to the payload table.
pub const INLINE_VALUE_BYTES: usize = 64 * 1024;
/// Runs with the same key that may go on at the same time.
pub const CONCURRENT_RUNS: u32 = 100_000;
/// Bytes of the value of the key that runs are counted by.
pub const KEY_BYTES: usize = 1_024;
/// Runs with the same key that may begin in a period.
pub const RATE: u32 = 100_000;
/// Milliseconds of the period of a rate, at least and at most.
pub const RATE_PERIOD_MS: std::ops::RangeInclusive<u64> = 1_000..=30 * 86_400_000;
/// The highest priority of a run, and the lowest below zero.
pub const PRIORITY: i32 = 10_000;
/// Runs ahead of one in its queue that are counted where it doesn't come last.
pub const AHEAD_COUNTED: usize = 1_000;
/// Labels of a run.
pub const LABELS: usize = 32;
/// Events that a fork shares with its run at most.
pub const FORK_EVENTS: u64 = 100_000;
/// Live children, and theirs, that fork with a run at most.
pub const FORK_CHILDREN: usize = 1_000;
/// Bytes of these events as they are stored, without the values that stand apart.
pub const FORK_BYTES: usize = 256 * 1024 * 1024;
/// Events that a fork shares, and bytes of them, that are written with its beginning. Where there
/// are more they are copied before it, part by part.
pub const FORK_EVENTS_AT_ONCE: u64 = 5_000;
pub const FORK_BYTES_AT_ONCE: usize = 8 * 1024 * 1024;
/// Outcomes beyond the place of a fork that are looked at, in order; the calls of others are made
/// again.
pub const ADOPTED: usize = 20_000;
/// Bytes of the results of these outcomes.
pub const ADOPTED_BYTES: usize = 64 * 1024 * 1024;
/// Runs of one experiment.
pub const EXPERIMENT_RUNS: usize = 200;
/// Forks of one experiment, whatever its sets were.
pub const EXPERIMENT_FORKS: usize = 1_000;
/// Forks of an experiment that may go on at the same time.
pub const EXPERIMENT_AT_ONCE: usize = 32;
/// Runs of one bundle: the one that was asked for, its children, and theirs.
pub const BUNDLE_RUNS: usize = 1_000;
/// Bytes of a line of a bundle: more than any event or value that the journal takes has as JSON.
pub const BUNDLE_LINE_BYTES: usize = 32 * 1024 * 1024;

/// Bytes that a compressed bundle may come to: this, and so many times its own size.
pub const BUNDLE_INFLATED_BYTES: u64 = 256 * 1024 * 1024;
pub const BUNDLE_INFLATED_TIMES: u64 = 100;
/// How deep child runs are nested: a run at the top has depth 0.
pub const CHILD_DEPTH: u32 = 10;
/// Attempts of one node.
pub const ATTEMPTS: u32 = 100;
/// How often an attempt is handed to workers that vanish with it.
pub const HAND_OUTS: u32 = 5;
/// Completions that a run's record names which could not be undone; the others are counted.
pub const UNDO_FAILURES: usize = 20;
/// Characters of the message of each of them.
pub const UNDO_MESSAGE_CHARS: usize = 500;
/// Signals that a run keeps for waits it comes to later; their payloads together have at most
/// [`CONTEXT_BYTES`].
pub const SIGNALS: usize = 1_000;
/// Bytes of one signal's payload.
pub const SIGNAL_BYTES: usize = 1024 * 1024;
/// Runs that one signal by labels may be sent to.
pub const SIGNAL_RUNS: usize = 1_000;
/// Approvals that a gate may ask for.
pub const APPROVALS: u32 = 100;
/// Names in a gate's list of assignees or of roles.
pub const ASSIGNEES: usize = 100;
/// Bytes of each of these names.
pub const ASSIGNEE_BYTES: usize = 256;
/// Bytes of a gate's title.
pub const TITLE_BYTES: usize = 1_000;
/// Bytes of the value of an answer to a gate.
pub const ANSWER_BYTES: usize = 64 * 1024;
/// Bytes of the comment of an answer.
pub const COMMENT_BYTES: usize = 4_000;
/// Bytes of the reason that a run is cancelled or paused for.
pub const REASON_BYTES: usize = 1_000;
/// Bytes of a resource's spec, as JSON; a definition is bounded by [`DEFINITION_BYTES`].
pub const SPEC_BYTES: usize = 1024 * 1024;
/// Bytes of a description.
pub const DESCRIPTION_BYTES: usize = 16 * 1024;
/// Model profiles that one profile may fall back to.
pub const FALLBACKS: usize = 8;
/// Tasks of one run that may be on workers at the same time, whatever the project says.
pub const TASKS_IN_FLIGHT: u32 = 5_000;
/// Dimensions of one value of a metric that a definition emits.
pub const METRIC_DIMENSIONS: usize = 8;
/// Bytes of the value of such a dimension.
pub const METRIC_DIMENSION_BYTES: usize = 128;
/// The largest value that such a metric may have, and the least below zero.
pub const METRIC_VALUE: f64 = 1e12;
/// Names of such dimensions that are told of one metric.
pub const METRIC_DIMENSION_NAMES: usize = 32;
