//! `wonder bench`: workloads against a server over HTTP, as JSON lines on stdout.
//!
//! Without `--url` each workload gets a server of its own: a child process on a fresh folder of
//! the real disk, so that its CPU can be told from the client's.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::exit::{Exit, Failure};
use crate::output::{self, say};
use crate::server;

mod beside;
mod definitions;
mod floor;
mod http;
mod load;
mod measure;
mod process;
mod report;
mod target;
mod workload;

use target::Target;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// 5 tasks in sequence, 64 runs at a time
    Sequence,
    /// 5 tasks in sequence, one run at a time
    Latency,
    /// 1,000 branches and a join
    Fanout,
    /// Runs of 3 tasks by two clients: alone, and beside a run of 100,000 branches
    Beside,
    /// Durably accepted starts
    Start,
    /// 2,000 sequential steps in one run
    History,
    /// The machine's own: fsync, and the same events in group-committed batches
    Floor,
    /// All of them
    All,
}

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Which workload
    #[arg(value_enum, default_value = "all")]
    workload: Workload,
    /// A server to measure (http://…); its CPU, memory and log can't be seen then
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// API key for --url
    #[arg(long, value_name = "KEY", env = "WONDER_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Less of everything: under 10 s in all
    #[arg(long)]
    quick: bool,
    /// Runs of a repetition (sequence, latency, start), branches (fanout, beside), steps (history)
    #[arg(short, long)]
    n: Option<u64>,
    /// Connections that ask at the same time (sequence, start)
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: Option<u32>,
    /// Folder in which the throwaway data is made [default: the working folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Tasks that the measured server works on at the same time
    #[arg(long, value_name = "N")]
    executor_concurrency: Option<usize>,
}

/// The sizes of one workload.
#[derive(Debug, Clone, Copy)]
struct Size {
    n: u64,
    clients: u32,
    repetitions: u32,
    warm_up: u64,
}

impl Workload {
    fn each(self) -> Vec<Self> {
        match self {
            // The floors stand first and last, so that a machine that changed in between shows.
            Self::All => vec![
                Self::Floor,
                Self::Sequence,
                Self::Latency,
                Self::Fanout,
                Self::Beside,
                Self::History,
                Self::Start,
                Self::Floor,
            ],
            one => vec![one],
        }
    }

    fn size(self, args: &BenchArgs) -> Size {
        let (n, clients, repetitions, warm_up) = match (self, args.quick) {
            (Self::Sequence, false) => (3_000, 64, 3, 200),
            (Self::Sequence, true) => (500, 64, 1, 50),
            (Self::Latency, false) => (500, 1, 1, 20),
            (Self::Latency, true) => (100, 1, 1, 10),
            (Self::Fanout, false) => (1_000, 1, 5, 1),
            (Self::Fanout, true) => (1_000, 1, 2, 1),
            (Self::Beside, false) => (100_000, 2, 3, 200),
            (Self::Beside, true) => (5_000, 2, 1, 50),
            (Self::Start, false) => (10_000, 256, 3, 500),
            (Self::Start, true) => (2_000, 256, 1, 100),
            (Self::History, false) => (2_000, 1, 3, 0),
            (Self::History, true) => (500, 1, 1, 0),
            (Self::Floor | Self::All, false) => (20_000, 1, 1, 0),
            (Self::Floor | Self::All, true) => (5_000, 1, 1, 0),
        };
        Size {
            n: args.n.unwrap_or(n).max(1),
            clients: match self {
                Self::Sequence | Self::Start => args.clients.unwrap_or(clients),
                _ => clients,
            },
            repetitions,
            warm_up,
        }
    }
}

pub(crate) async fn execute(args: BenchArgs) -> Result<Exit, Failure> {
    let shutdown = server::signals()?;
    // An interrupt drops the measurement, which ends the child and removes its folder.
    tokio::select! {
        measured = measure(&args) => measured,
        () = shutdown.requested() => Ok(Exit::Failed),
    }
}

async fn measure(args: &BenchArgs) -> Result<Exit, Failure> {
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    process::warn_of_memory_disk(&dir);
    for workload in args.workload.each() {
        let size = workload.size(args);
        say!("{workload:?}: n {} · clients {}", size.n, size.clients);
        if workload == Workload::Floor {
            for line in floor::measure(&dir, size.n).await? {
                output::line(&line.to_string())?;
            }
            continue;
        }
        let target = Target::open(args, &dir).await?;
        let measured = workload::measure(workload, size, &target).await;
        target.close().await?;
        output::line(&measured?.to_string())?;
    }
    Ok(Exit::Completed)
}
