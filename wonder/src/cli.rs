//! The command line: one file a command.

use std::future::Future;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::bench;
use crate::client::ClientArgs;
use crate::exit::{EXIT_CODES, Exit, Failure};
use crate::output::Format;

mod apply;
mod archive;
mod audit;
mod bundle;
mod compare;
mod completions;
mod config;
mod dev;
mod diff;
mod doctor;
mod events;
mod experiment;
mod explain;
mod fork;
mod gates;
mod logs;
mod metrics;
mod migrate;
mod mock_model;
mod program;
mod projections;
mod replay;
mod run;
mod runs;
mod serve;
mod state;
mod triggers;
mod validate;
mod waiting;
mod watch;

/// How long the end of the program waits for threads of the runtime.
const LEFT_BEHIND: Duration = Duration::from_millis(100);

/// Event-sourced AI workflows: every run is a history that can be queried, streamed and replayed
#[derive(Debug, Parser)]
#[command(name = "wonder", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Form of the data on stdout
    #[arg(short, long, global = true, value_enum, default_value_t, help_heading = "Client")]
    pub(crate) output: Format,
    /// Project to work in, by name
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "WONDER_PROJECT",
        default_value = "default",
        help_heading = "Client"
    )]
    pub(crate) project: String,
}

/// Which page of a list.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    /// From `next_cursor` of the page before
    #[arg(long)]
    cursor: Option<String>,
}

impl PageArgs {
    /// The parameters of a query that narrows a list, which is extended by the filters.
    fn query(self) -> Vec<(&'static str, String)> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.cursor.map(|cursor| ("cursor", cursor)));
        query
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the platform on loopback with demo workflows, and run one
    Dev(dev::DevArgs),
    /// Start the platform
    Serve(serve::ServeArgs),
    /// Bring the tables of a PostgreSQL database up to date
    Migrate(migrate::MigrateArgs),
    /// Publish definitions and other resources from files
    Apply(apply::ApplyArgs),
    /// Check files of definitions and other resources without a server
    Validate(validate::ValidateArgs),
    /// Start a run from a file or a published definition
    Run(run::RunArgs),
    /// List, show, watch and cancel runs
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    /// Show what a run waits for, and who or what can bring it
    Waiting(waiting::RunId),
    /// List, show and answer gates
    Gates(gates::GatesArgs),
    /// Metrics over runs: which there are, and how they went
    #[command(subcommand)]
    Metrics(metrics::MetricsCommand),
    /// List the triggers of a workflow: when they are due, what they started, what they couldn't
    Triggers(triggers::TriggersArgs),
    /// Send a signal to a run
    Signal(waiting::SignalArgs),
    /// Pause a run, or a workflow with all its runs: nothing is handed to workers, timers stand
    /// still
    Pause(waiting::PauseArgs),
    /// Go on with a paused run or workflow
    Resume(waiting::ResumeArgs),
    /// Read the journal
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Show a run's state after an event or at a time
    State(state::StateArgs),
    /// Compare two versions of a definition, and rehearse recorded runs of one by the other
    Compare(compare::CompareArgs),
    /// Try one change on many recorded runs, without effects outside, and compare
    #[command(subcommand)]
    Experiment(experiment::ExperimentCommand),
    /// Decide histories of runs again, and compare
    Replay(replay::ReplayArgs),
    /// Take a run along as one file, and look at it, decide it again or fork it without a server
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Look after read models
    #[command(subcommand)]
    Projections(projections::ProjectionsCommand),
    /// List what the processes of the platform warned of, newest first
    Logs(Box<logs::LogsArgs>),
    /// Check a journal
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Measure this machine's throughput and latency, as JSON lines
    Bench(bench::BenchArgs),
    /// Check folder, disk, port, server and keys
    Doctor(doctor::DoctorArgs),
    /// Print the configuration in force and where it came from
    Config(config::ConfigArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
}

/// Does what the command line asks.
pub(crate) fn execute(cli: Cli) -> Result<Exit, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Dev(args) => on_all_cores(dev::execute(global, args)),
        Command::Serve(args) => on_all_cores(serve::execute(args)),
        Command::Migrate(args) => on_one_core(migrate::execute(args)),
        Command::Apply(args) => on_one_core(apply::execute(global, args)),
        Command::Validate(args) => validate::execute(&args),
        Command::Run(args) if args.local => on_all_cores(run::execute(global, args)),
        Command::Run(args) => on_one_core(run::execute(global, args)),
        Command::Runs(command) => on_one_core(runs::execute(global, command)),
        Command::Waiting(args) => on_one_core(waiting::waiting(global, args)),
        Command::Gates(args) => on_one_core(gates::execute(global, args)),
        Command::Metrics(command) => on_one_core(metrics::execute(global, command)),
        Command::Triggers(args) => on_one_core(triggers::execute(global, args)),
        Command::Signal(args) => on_one_core(waiting::signal(global, args)),
        Command::Pause(args) => on_one_core(waiting::pause(global, args)),
        Command::Resume(args) => on_one_core(waiting::resume(global, args)),
        Command::Events(command) => on_one_core(events::execute(global, command)),
        Command::Compare(args) => on_one_core(compare::execute(global, args)),
        Command::Experiment(command) => on_one_core(experiment::execute(global, command)),
        Command::Replay(args) => on_one_core(replay::execute(global, args)),
        Command::Bundle(command) => on_one_core(bundle::execute(global, command)),
        Command::State(args) => on_one_core(state::execute(global, args)),
        Command::Projections(command) => on_all_cores(projections::execute(global, command)),
        Command::Logs(args) => on_one_core(logs::execute(global, *args)),
        Command::Audit(command) => on_all_cores(audit::execute(global, command)),
        Command::Bench(args) => on_one_core(bench::execute(args)),
        Command::Doctor(args) => on_one_core(doctor::execute(global, args)),
        Command::Config(args) => config::execute(global, &args),
        Command::Completions(args) => completions::execute(&args),
    }
}

fn on_all_cores<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    // What the platform has left behind (a look-up of a name, say) holds nobody up.
    runtime.shutdown_timeout(LEFT_BEHIND);
    ended
}

/// Clients need no more, and `bench` leaves the other cores to the server.
fn on_one_core<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests;
