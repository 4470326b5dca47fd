//! `wonder validate`: checks definition files offline.

use std::path::PathBuf;

use crate::client::problem_line;
use crate::definition_file;
use crate::exit::{EXIT_CODES, Exit, Failure};
use crate::output;

/// Which files.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct ValidateArgs {
    /// Definition files, YAML or JSON; folders are searched for YAML
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
}

pub(crate) fn execute(args: &ValidateArgs) -> Result<Exit, Failure> {
    let (mut checked, mut problems) = (0, 0);
    for path in &args.files {
        for file in definition_file::files(path)? {
            let text = definition_file::read_text(&file)?;
            checked += 1;
            let name = file.display().to_string();
            for problem in definition_file::check(&text).err().unwrap_or_default() {
                problems += 1;
                output::line(&problem_line(Some(&name), &problem.into()))?;
            }
        }
    }
    eprintln!("{checked} checked, {problems} problems");
    Ok(if problems == 0 { Exit::Completed } else { Exit::Refused })
}
