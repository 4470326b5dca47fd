//! One process of a platform: the real binary as a child.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::wait::within;

/// Lines of a process's log that a failing test shows.
const SHOWN_LINES: usize = 80;

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    /// Where it answers, as `http://127.0.0.1:40123`.
    pub(crate) url: String,
    child: Child,
    log: PathBuf,
    /// Held open: a closed stdout would make the process fail where it prints.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts `wonder serve --attached` and returns when it serves.
    ///
    /// # Panics
    /// When it doesn't start, with the end of its log.
    pub(crate) async fn spawn(mut command: Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file.expect("the log can be opened"));
        let mut child = command.spawn().expect("the binary can be started");
        let stdout = child.stdout.take().expect("its stdout is a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let line = within("a process's address", lines.next_line()).await;
        let line = line.expect("its stdout can be read");
        let Some(url) = line.filter(|line| line.starts_with("http://")) else {
            panic!("{} didn't start:\n{}", log.display(), tail(&log));
        };
        Self { url, child, log, _stdout: lines }
    }

    /// Kills it at once, and returns when it is gone.
    pub(crate) async fn kill_9(mut self) {
        self.child.kill().await.expect("the process can be killed");
    }

    /// Ends it the way an operator does, and returns how long that took.
    ///
    /// # Panics
    /// When it doesn't end with exit code 0.
    pub(crate) async fn stop(mut self) -> Duration {
        let begun = Instant::now();
        drop(self.child.stdin.take());
        let ended = within("a process to stop", self.child.wait()).await;
        let status = ended.expect("the process can be waited for");
        let log = self.log.display();
        assert!(status.success(), "{log} stopped with {status}:\n{}", tail(&self.log));
        begun.elapsed()
    }

    /// Stops its clock: it neither runs nor knows that it doesn't.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Process::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> u64 {
        let pid = self.child.id().expect("the process runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        let status = status.expect("Linux tells about processes");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("a process's memory is a number of KiB") * 1024
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let sent = kill_process(pid.expect("the process runs"), signal);
        sent.expect("a signal can be sent");
    }
}

/// The end of a log.
pub(crate) fn tail(log: &std::path::Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
