//! A PostgreSQL server of a test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{free_port, log_of, private, variable};

/// A cluster with the durability that PostgreSQL has by default. Dropping it stops it and removes
/// its files.
#[derive(Debug)]
pub struct PostgresServer {
    folder: PathBuf,
    port: u16,
}

impl PostgresServer {
    /// Starts it, with nothing in it; its files are in a folder of the caller's, or one of its own.
    ///
    /// # Panics
    /// Where it doesn't start.
    pub async fn start_in(folder: Option<&Path>) -> Self {
        let port = free_port();
        let folder = folder.map_or_else(private, Path::to_owned).join(format!("postgres-{port}"));
        let template = variable("WONDER_TEST_POSTGRES_TEMPLATE");
        let mut copy = Command::new("cp");
        // With its owner, who is another than root.
        copy.arg("-a").arg(template).arg(&folder);
        let copied = run(copy).await;
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let server = Self { folder, port };
        server.start_again().await;
        server
    }

    /// Where its database is.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops it as a crash does: no connection is waited for, nothing is written to disk.
    ///
    /// # Panics
    /// Where it can't be stopped.
    pub async fn stop_immediately(&self) {
        let mut stop = self.control("stop");
        stop.args(["--mode", "immediate", "--wait"]);
        let stopped = run(stop).await;
        assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    }

    /// Starts it where it has ended by itself.
    ///
    /// # Panics
    /// Where it doesn't start.
    pub async fn ensure_started(&self) {
        if !run(self.control("status")).await.status.success() {
            self.start_again().await;
        }
    }

    /// Starts it on the same port; it recovers what was committed.
    ///
    /// # Panics
    /// Where it doesn't start.
    pub async fn start_again(&self) {
        let mut start = self.control("start");
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
             -c max_connections=200",
            self.port
        );
        start.arg("--log").arg(self.folder.join("log"));
        start.args(["--options", &options, "--wait", "--timeout", "60"]);
        // A server that goes on holds the pipes open.
        start.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let status = tokio::task::spawn_blocking(move || start.status()).await;
        let status = status.expect("nobody panicked").expect("pg_ctl can be started");
        assert!(status.success(), "PostgreSQL didn't start:\n{}", log_of(&self.folder));
    }

    fn control(&self, verb: &str) -> Command {
        let program = variable("WONDER_TEST_POSTGRES_BIN").join("pg_ctl");
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // A folder that its user may be in.
        command.current_dir("/").arg(verb).arg("--pgdata").arg(&self.folder).arg("--silent");
        command
    }
}

async fn run(mut command: Command) -> Output {
    let done = tokio::task::spawn_blocking(move || command.output()).await;
    done.expect("nobody panicked").expect("a program of PostgreSQL can be started")
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let mut stop = self.control("stop");
        stop.args(["--mode", "immediate", "--wait"]);
        // What is left is ended by scripts/with-services.
        stop.output().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
