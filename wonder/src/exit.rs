//! Exit codes, and the failures that lead to them.

use std::process::ExitCode;

use crate::client::ApiProblem;
use crate::output::say;

/// What stands below the help of the commands that end with a run's result.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0  completed
  1  failed (the run, or the command itself)
  2  usage, or refused: the definition or input is invalid, nothing was started
  3  cancelled
  4  timed out (the run, or the wait for it)
  5  server unreachable";

/// How the program ends. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Completed = 0,
    Failed = 1,
    Refused = 2,
    Cancelled = 3,
    TimedOut = 4,
    Unreachable = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The exit code of a run's status; `None` while it hasn't ended.
    pub(crate) fn of_status(status: &str) -> Option<Self> {
        match status {
            "completed" => Some(Self::Completed),
            "failed" => Some(Self::Failed),
            "cancelled" => Some(Self::Cancelled),
            "timed_out" => Some(Self::TimedOut),
            _ => None,
        }
    }
}

/// Why a command doesn't do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no server answers at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{}", .0.detail)]
    Api(Box<ApiProblem>),
    /// The arguments or a file are wrong; nothing was sent.
    #[error("{0}")]
    Refused(String),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// The exit code: what the caller can mend is a refusal, the rest failed.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Api(problem) if problem.status < 500 => Exit::Refused,
            Self::Refused(_) => Exit::Refused,
            Self::Api(_) | Self::Other(_) => Exit::Failed,
        }
    }

    /// Says on stderr what is wrong and what to do.
    pub(crate) fn print(&self) {
        say!("{}", self.text().trim_end());
    }

    fn text(&self) -> String {
        match self {
            Self::Api(problem) => problem.text(),
            Self::Unreachable { .. } => format!(
                "error: {self}\n  start one with `wonder dev`, or name another with --server URL\n"
            ),
            Self::Refused(_) | Self::Other(_) => format!("error: {self}\n"),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Other(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_run_has_its_code() {
        let codes = [("completed", 0), ("failed", 1), ("cancelled", 3), ("timed_out", 4)];
        for (status, code) in codes {
            assert_eq!(Exit::of_status(status).map(|exit| exit as u8), Some(code), "{status}");
        }
        for status in ["queued", "running", "waiting", "paused", ""] {
            assert_eq!(Exit::of_status(status), None, "{status}");
        }
    }

    #[test]
    fn client_errors_are_refusals_and_server_errors_are_failures() {
        let api = |status| Failure::Api(Box::new(ApiProblem { status, ..ApiProblem::default() }));
        assert_eq!(api(422).exit(), Exit::Refused);
        assert_eq!(api(404).exit(), Exit::Refused);
        assert_eq!(api(503).exit(), Exit::Failed);
        assert_eq!(Failure::Refused("x".to_owned()).exit(), Exit::Refused);
    }

    #[test]
    fn an_unreachable_server_is_named_with_the_way_out() {
        let failure = Failure::Unreachable {
            url: "http://127.0.0.1:7420".to_owned(),
            reason: "connection refused".to_owned(),
        };
        assert_eq!(failure.exit(), Exit::Unreachable);
        let text = failure.text();
        assert!(text.contains("http://127.0.0.1:7420") && text.contains("wonder dev"), "{text}");
    }
}
