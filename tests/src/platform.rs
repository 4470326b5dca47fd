//! The real binary as a child process, on a folder of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::client::Client;
use crate::wait::within;

/// Lines of the process's log that a failing test shows.
const SHOWN_LINES: usize = 40;

/// A platform in a process of its own. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct Platform {
    /// Where it answers, as `http://127.0.0.1:40123`; another port after each start.
    pub url: String,
    exe: PathBuf,
    folder: TempDir,
    client: Client,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// Held open: a closed stdout would make the process fail where it prints.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Platform {
    /// Starts `wonder serve` on an empty folder. `exe` is `env!("CARGO_BIN_EXE_wonder")`.
    pub async fn start(exe: impl AsRef<Path>) -> Self {
        let prefix = tempfile::Builder::new().prefix("wonder-test-").tempdir();
        let folder = prefix.expect("a temporary folder can be made");
        let exe = exe.as_ref().to_owned();
        let client = Client::new();
        let mut platform = Self { url: String::new(), exe, folder, client, process: None };
        platform.spawn().await;
        platform
    }

    /// A client that follows the platform through its restarts.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The folder of the journal and the read tables.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Kills the process at once, as `kill -9` does, and returns when it is gone.
    pub async fn kill_9(&mut self) {
        let mut process = self.process.take().expect("a process to kill");
        process.child.kill().await.expect("the process can be killed");
    }

    /// Starts it again on the same folder. A process that still runs is killed first.
    pub async fn restart(&mut self) {
        if self.process.is_some() {
            self.kill_9().await;
        }
        self.spawn().await;
    }

    /// Ends it the way an operator does, and returns when it is gone.
    ///
    /// # Panics
    /// When it doesn't end with exit code 0.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("a process to stop");
        drop(process.child.stdin.take());
        let ended = within("the process to stop", process.child.wait()).await;
        let status = ended.expect("the process can be waited for");
        assert!(status.success(), "the platform stopped with {status}:\n{}", self.log());
    }

    /// Runs another command of the same binary on this platform's folder; answers its exit status,
    /// stdout and stderr.
    pub async fn wonder(&self, arguments: &[&str]) -> (ExitStatus, String, String) {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null());
        let output = within("a command of the binary", command.output()).await;
        let output = output.expect("the binary can be started");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status, text(output.stdout), text(output.stderr))
    }

    /// What the processes on this folder have logged.
    pub fn log(&self) -> String {
        let text = std::fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    async fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path());
        let mut command = self.command();
        command
            .args(["serve", "--attached", "--auth", "dev", "--listen", "127.0.0.1:0"])
            .args(["--log", "warn", "--data-dir"])
            .arg(self.data_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.expect("the log can be opened"));
        let mut child = command.spawn().expect("the binary can be started");
        let stdout = child.stdout.take().expect("its stdout is a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let line = within("the platform's address", lines.next_line()).await;
        let line = line.expect("its stdout can be read");
        let Some(url) = line.filter(|line| line.starts_with("http://")) else {
            panic!("the platform didn't start:\n{}", self.log());
        };
        self.client.moved_to(&url);
        self.url = url;
        self.process = Some(Process { child, _stdout: lines });
    }

    /// The binary with nothing of this machine's configuration, killed when it is dropped.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.exe);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WONDER_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.folder.path()).env("HOME", self.folder.path());
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME").kill_on_drop(true);
        command
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("stderr.log")
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the platform's log ends with:\n{}", self.log());
        }
    }
}
