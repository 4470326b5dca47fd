//! `wonder completions`: prints a shell's completion script.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use crate::exit::{Exit, Failure};

/// Which shell.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn execute(args: &CompletionsArgs) -> Result<Exit, Failure> {
    clap_complete::generate(args.shell, &mut Cli::command(), "wonder", &mut std::io::stdout());
    Ok(Exit::Completed)
}
