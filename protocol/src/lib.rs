//! What services say to each other, and the traits that they say it through.
//!
//! Only shapes stand here: commands and their answers, queries and views, tasks and outcomes,
//! event envelopes. No transport: in one process the traits are called directly.

pub mod audit;
pub mod bundle;
pub mod command;
pub mod comparison;
pub mod difference;
pub mod ephemeral;
pub mod event;
pub mod experiment;
pub mod explanation;
pub mod fork;
pub mod gate;
pub mod log;
pub mod metric;
pub mod query;
pub mod rejection;
pub mod remote;
pub mod retention;
pub mod service;
pub mod shard;
pub mod task;
pub mod trigger;
pub mod view;

pub use audit::{AuditEntry, AuditFilter, AuditHead, AuditHeads, AuditResult, ExportAudit};
pub use command::{
    Actor, AnswerGate, Command, CommandEnvelope, Origin, Receipt, RerunVersion, RunTarget,
    StartAnswer, StartHome, Webhook,
};
pub use comparison::{
    Compare, ComparedTo, Comparison, DefinitionChange, NotRehearsed, PartedRun, RehearsalView,
};
pub use difference::{DiffSide, DiffTo, Divergence, NodeCounts, NodeDiff, RunDiff};
pub use ephemeral::{
    Ephemeral, EphemeralEnvelope, EphemeralFilter, EphemeralSink, EphemeralSource, LlmDelta,
    Unheard,
};
pub use event::{Cursor, EventEnvelope, EventFilter, Speed};
pub use experiment::{
    ExperimentCalls, ExperimentEnd, ExperimentFork, ExperimentParting, ExperimentPlan,
    ExperimentProgress, ExperimentRefusal, ExperimentReport, ExperimentRun, ExperimentTotals,
    ExperimentUsage, PlannedFork,
};
pub use explanation::{
    Came, Explain, Explanation, Fact, JoinExplanation, LedTo, Left, Looked, TokenExplanation, Way,
};
pub use fork::{
    ForkCall, ForkCalls, ForkDefinition, ForkExperiment, ForkOutcome, ForkPlan, ForkRun, ForkedFrom,
};
pub use gate::{GateAnswerView, GateFilter, GateId, GateStatus, GateView};
pub use log::{LogFilter, LogLevel, LogRecord};
pub use metric::{
    MetricAnswer, MetricInfo, MetricList, MetricPoint, MetricQuery, MetricSeries, MetricStep,
    MetricValues,
};
pub use query::{EventPage, Page, PageRequest, ResourceFilter, RunFilter, StateAt};
pub use rejection::{Rejection, RejectionKind};
pub use retention::{ArchiveRun, ArchiveView, RunArchived, RunDropped, RunHeld};
pub use service::{
    AuditQueries, Commands, Events, GateQueries, LogQueries, MetricQueries, ResourceQueries,
    RunQueries, Tasks,
};
pub use shard::{SHARDS, run_of, shard_of, shard_of_experiment};
pub use task::{
    Abandoned, Failure, FailureKind, Outcome, OutcomeResult, Success, Task, Work, WorkAction,
};
pub use trigger::{MissedTimes, RunTrigger, TriggerError, TriggerView};
pub use view::{
    ResourceView, RunError, RunOutcome, RunState, RunStatus, RunView, TimelineEntry, Usage,
    Verification, WaitKind, WaitKinds, Waiting,
};
