//! The measured server: a child process on a throwaway folder, or one that is there already.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::BenchArgs;
use super::http::Prepared;
use crate::client::{Client, ClientArgs};
use crate::exit::Failure;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A server to measure.
pub(super) struct Target {
    pub(super) client: Client,
    /// `host:port`.
    pub(super) address: String,
    headers: String,
    child: Option<(Child, TempDir)>,
}

impl Target {
    /// Starts a child, or takes the server at `--url`.
    pub(super) async fn open(args: &BenchArgs, dir: &Path) -> Result<Self, Failure> {
        let (url, child) = match &args.url {
            Some(url) => (url.trim_end_matches('/').to_owned(), None),
            None => {
                let (url, child) = spawn(dir, args.executor_concurrency).await?;
                (url, Some(child))
            }
        };
        let Some(address) = url.strip_prefix("http://").filter(|rest| !rest.contains('/')) else {
            return Err(Failure::Refused(format!(
                "{url:?}: the bench speaks http://HOST:PORT only"
            )));
        };
        let address = match address.contains(':') {
            true => address.to_owned(),
            false => format!("{address}:80"),
        };
        let headers = match &args.key {
            Some(key) => format!("authorization: Bearer {key}\r\n"),
            None => String::new(),
        };
        let api_key = args.key.clone();
        let client = Client::new(&ClientArgs { server: url.clone(), api_key })?;
        Ok(Self { client, address, headers, child })
    }

    /// Publishes a definition and binds a workflow to it; answers the workflow's id.
    pub(super) async fn workflow(&self, definition: &Value) -> Result<String, Failure> {
        let project = self.client.project_id("default").await?;
        let query = [("project_id", project.clone())];
        let published: Value =
            self.client.post("/workflow-definitions", &query, definition).await?.read()?;
        let name = format!("{}-{}", definition["name"].as_str().unwrap_or("bench"), suffix());
        let body = json!({
            "project_id": project, "name": name, "definition_id": published["id"],
            "definition_version": published["version"],
        });
        let workflow: Value = self.client.post("/workflows", &[], &body).await?.read()?;
        let id = workflow["id"].as_str().context("the new workflow has no id")?;
        Ok(id.to_owned())
    }

    /// A start of a workflow, ready to be sent; `wait_s` of 0 doesn't wait for the end.
    pub(super) fn start(&self, workflow: &str, wait_s: u32, input: &Value) -> Prepared {
        let mut headers = self.headers.clone();
        if wait_s > 0 {
            headers.push_str(&format!("prefer: wait={wait_s}\r\n"));
        }
        let path = format!("/api/v1/workflows/{workflow}/runs");
        Prepared::post(&self.address, &path, &headers, &json!({"input": input}).to_string())
    }

    /// The child's process id, where there is one.
    pub(super) fn pid(&self) -> Option<String> {
        self.child.as_ref().and_then(|(child, _)| child.id()).map(|id| id.to_string())
    }

    /// The child's data folder.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        self.child.as_ref().map(|(_, folder)| folder.path().to_owned())
    }

    /// Whether the server goes away with the measurement, and its runs with it.
    pub(super) fn is_throwaway(&self) -> bool {
        self.child.is_some()
    }

    /// Ends the child by force: its data is thrown away, so nothing is worth waiting for. (Should
    /// this process die first, the child sees the end of its stdin and stops.)
    pub(super) async fn close(self) -> Result<(), Failure> {
        if let Some((mut child, folder)) = self.child {
            child.kill().await?;
            folder.close()?;
        }
        Ok(())
    }
}

async fn spawn(
    dir: &Path,
    executor_concurrency: Option<usize>,
) -> Result<(String, (Child, TempDir)), Failure> {
    let folder = tempfile::Builder::new().prefix("wonder-bench-").tempdir_in(dir)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["serve", "--attached", "--listen", "127.0.0.1:0", "--auth", "dev", "--log", "warn"])
        .arg("--data-dir")
        .arg(folder.path());
    if let Some(number) = executor_concurrency {
        command.arg("--executor-concurrency").arg(number.to_string());
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a server to measure")?;
    let stdout = child.stdout.take().context("the server's stdout is gone")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(START_TIMEOUT, lines.next_line())
        .await
        .context("the measured server didn't start in time")??;
    let url = line.unwrap_or_default();
    if !url.starts_with("http://") {
        return Err(
            anyhow::anyhow!("the measured server didn't start: see its message above").into()
        );
    }
    Ok((url, (child, folder)))
}

/// Makes the names of workflows on a lasting server unique.
fn suffix() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default().as_micros().to_string()
}
