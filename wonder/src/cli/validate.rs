//! `wonder validate`: checks files of definitions and other resources offline.

use std::path::PathBuf;

use crate::client::problem_line;
use crate::definition_file::{self, Document};
use crate::exit::{EXIT_CODES, Exit, Failure};
use crate::output::{self, say};

/// Which files.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct ValidateArgs {
    /// Files of definitions or other resources, YAML or JSON; folders are searched for YAML
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
}

pub(crate) fn execute(args: &ValidateArgs) -> Result<Exit, Failure> {
    let (mut checked, mut problems) = (0, 0);
    for path in &args.files {
        for file in definition_file::files(path)? {
            let name = file.display().to_string();
            for document in definition_file::checked(&file)? {
                checked += 1;
                if let Ok(Document::Resource { kind, body }) = &document {
                    say!("{name}: a {} named {}", kind.as_str().replace('_', " "), body["name"]);
                }
                for finding in document.err().unwrap_or_default() {
                    problems += 1;
                    output::line(&problem_line(Some(&name), &finding))?;
                }
            }
        }
    }
    say!("{checked} checked, {problems} problems");
    Ok(if problems == 0 { Exit::Completed } else { Exit::Refused })
}
