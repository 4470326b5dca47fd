//! The real binary as one process or several, on data of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use chassis::database::{Database, DatabaseOptions};
use chassis::journal::{PostgresJournal, PostgresOptions};
use chassis::scratch::ScratchDatabase;
use futures::future::join_all;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::book::Book;
use crate::client::Client;
use crate::process::{Process, tail};
use crate::records::Records;
use crate::services::{NatsServer, PostgresServer};
use crate::shape::{Setting, Shape, role};
use crate::wait::{wait_for, within};

/// How long a process may take to answer about itself.
const ASKED: Duration = Duration::from_secs(10);

/// A platform in processes of its own. Dropping it kills them and removes its data.
#[derive(Debug)]
pub struct Platform {
    exe: PathBuf,
    shape: Shape,
    client: Client,
    /// The running ones, by name: `platform`, or `gateway-1`, `coordinator-2` and so on.
    processes: BTreeMap<String, Process>,
    nats: Option<NatsServer>,
    database: Option<TestDatabase>,
    folder: TempDir,
}

#[derive(Debug)]
enum TestDatabase {
    Shared(Box<ScratchDatabase>),
    Own(PostgresServer),
}

impl TestDatabase {
    fn url(&self) -> String {
        match self {
            Self::Shared(database) => database.url().to_owned(),
            Self::Own(server) => server.url(),
        }
    }
}

impl Platform {
    /// Starts `wonder serve` on an empty folder. `exe` is `env!("CARGO_BIN_EXE_wonder")`.
    pub async fn start(exe: impl AsRef<Path>) -> Self {
        Self::start_as(exe, Setting::Embedded).await
    }

    /// Starts a platform of some shape, with nothing in it, and returns when all of it is ready.
    pub async fn start_as(exe: impl AsRef<Path>, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let folder = tempfile::Builder::new().prefix("wonder-test-").tempdir();
        let database = match shape.setting {
            Setting::Embedded => None,
            _ if shape.own_postgres => {
                let server = PostgresServer::start_in(shape.data_in.as_deref()).await;
                Some(TestDatabase::Own(server))
            }
            _ => Some(TestDatabase::Shared(Box::new(ScratchDatabase::create().await))),
        };
        let nats = match shape.setting {
            Setting::Distributed => Some(NatsServer::start().await),
            Setting::Embedded | Setting::Database => None,
        };
        let mut platform = Self {
            exe: exe.as_ref().to_owned(),
            client: Client::new(),
            processes: BTreeMap::new(),
            nats,
            database,
            folder: folder.expect("a temporary folder can be made"),
            shape,
        };
        platform.start_all().await;
        platform
    }

    /// A client that follows the platform through its restarts.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where a process answers, as `http://127.0.0.1:40123`; another port after each start.
    pub fn url(&self, name: &str) -> &str {
        &self.process(name).url
    }

    /// Where one of its gateways answers.
    pub fn gateway(&self) -> &str {
        match self.shape.setting {
            Setting::Distributed => self.url("gateway-1"),
            Setting::Embedded | Setting::Database => self.url("platform"),
        }
    }

    /// The names of its processes, in the order in which an operator stops them.
    pub fn names(&self) -> Vec<String> {
        self.shape.names()
    }

    /// Whether a process runs.
    pub fn is_running(&self, name: &str) -> bool {
        self.processes.contains_key(name)
    }

    /// The folder of the journal and the read tables of an embedded platform.
    pub fn data_dir(&self) -> PathBuf {
        self.shape.data_in.as_deref().unwrap_or(self.folder.path()).join("data")
    }

    /// Its NATS server.
    pub fn nats(&mut self) -> &mut NatsServer {
        self.nats.as_mut().expect("the setting has a NATS server")
    }

    /// The database that its journal is in, where it is one.
    pub fn database_url(&self) -> Option<String> {
        self.database.as_ref().map(TestDatabase::url)
    }

    /// Its own PostgreSQL server.
    pub fn postgres(&self) -> &PostgresServer {
        match &self.database {
            Some(TestDatabase::Own(server)) => server,
            Some(TestDatabase::Shared(_)) | None => panic!("the shape has no server of its own"),
        }
    }

    /// Kills all processes at once, as `kill -9` does, and returns when they are gone.
    pub async fn kill_9(&mut self) {
        assert!(!self.processes.is_empty(), "there is no process to kill");
        join_all(std::mem::take(&mut self.processes).into_values().map(Process::kill_9)).await;
        self.tell_client();
    }

    /// Starts all of it again on the same data. Processes that still run are killed first.
    pub async fn restart(&mut self) {
        if !self.processes.is_empty() {
            self.kill_9().await;
        }
        self.start_all().await;
    }

    /// Ends it the way an operator does, one process after the other, and returns when all are
    /// gone.
    ///
    /// # Panics
    /// When one doesn't end with exit code 0.
    pub async fn stop(&mut self) {
        for name in self.names() {
            if self.is_running(&name) {
                self.stop_one(&name).await;
            }
        }
    }

    /// Ends all of it at the same time; answers how long each process took.
    ///
    /// # Panics
    /// When one doesn't end with exit code 0.
    pub async fn stop_at_once(&mut self) -> Vec<(String, Duration)> {
        let processes = std::mem::take(&mut self.processes);
        let stopping =
            processes.into_iter().map(async |(name, process)| (name, process.stop().await));
        let stopped = join_all(stopping).await;
        self.tell_client();
        stopped
    }

    /// Kills one process.
    pub async fn kill_one(&mut self, name: &str) {
        let process = self.processes.remove(name).expect("a process to kill");
        process.kill_9().await;
        self.tell_client();
    }

    /// Ends one process the way an operator does; answers how long it took.
    ///
    /// # Panics
    /// When it doesn't end with exit code 0.
    pub async fn stop_one(&mut self, name: &str) -> Duration {
        let process = self.processes.remove(name).expect("a process to stop");
        // Until it is gone the client still calls it, as one would that wasn't told.
        let took = process.stop().await;
        self.tell_client();
        took
    }

    /// Starts one process that doesn't run.
    pub async fn start_one(&mut self, name: &str) {
        assert!(!self.is_running(name), "{name} runs");
        let process = Process::spawn(self.serve(name), self.log_path(name)).await;
        self.processes.insert(name.to_owned(), process);
        self.tell_client();
    }

    /// Stops the clock of one process.
    pub fn freeze(&self, name: &str) {
        self.process(name).freeze();
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self, name: &str) {
        self.process(name).thaw();
    }

    /// Bytes of memory that a process holds.
    pub fn memory(&self, name: &str) -> u64 {
        self.process(name).memory()
    }

    /// Whether a process says of itself that it is ready; a coordinator also, whether it has its
    /// share of the runs.
    pub async fn is_ready(&self, name: &str) -> bool {
        let Some((status, body)) = self.ask(name, "/readyz").await else { return false };
        let dependencies = body["dependencies"].as_array().cloned().unwrap_or_default();
        let shards = dependencies.iter().find(|dependency| dependency["name"] == "shards");
        let owned = shards.and_then(|shards| shards["detail"].as_str()?.split(' ').next());
        let owned = owned.and_then(|owned| owned.parse::<usize>().ok());
        let owners = self.processes.keys().filter(|name| role(name) == Some("commands")).count();
        let share = usize::from(protocol::SHARDS) / owners.max(1);
        status == 200 && owned.is_none_or(|owned| owned >= share)
    }

    /// What a process answers outside of the API; `None` where it doesn't.
    pub async fn ask(&self, name: &str, path: &str) -> Option<(u16, Value)> {
        let url = format!("{}{path}", self.url(name));
        let client = reqwest::Client::builder().no_proxy().build().expect("a client can be made");
        let answer = client.get(url).timeout(ASKED).send().await.ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// A counter or gauge of a process, summed over its labels; 0 where it isn't there.
    pub async fn metric(&self, name: &str, metric: &str) -> f64 {
        let Some((_, Value::String(text))) = self.ask(name, "/metrics").await else { return 0.0 };
        let values = text.lines().filter_map(|line| {
            let (named, value) = line.rsplit_once(' ')?;
            let is_it = named == metric || named.strip_prefix(metric)?.starts_with('{');
            is_it.then(|| value.parse::<f64>().ok())?
        });
        values.sum()
    }

    /// Returns when all processes say that they are ready.
    pub async fn ready(&self) {
        for name in self.processes.keys() {
            wait_for(&format!("{name} to be ready"), || async {
                self.is_ready(name).await.then_some(())
            })
            .await;
        }
    }

    /// Everything in its journal. An embedded one must not run.
    pub async fn records(&self) -> Records {
        let Some(database) = &self.database else {
            return Records::read(&self.data_dir()).await;
        };
        let options = DatabaseOptions {
            url: database.url(),
            connections: 6,
            name: "records".to_owned(),
            connect_timeout: Duration::from_secs(30),
        };
        let database = Database::connect(&options).await.expect("the database can be reached");
        let journal = PostgresJournal::open(&database, PostgresOptions::default()).await;
        let journal = journal.expect("the journal can be opened");
        let records = Records::of(&*journal).await;
        journal.close().await;
        records
    }

    /// Has the binary check the journal, against what clients were told; answers the report.
    ///
    /// # Panics
    /// Where it has a finding.
    pub async fn audit(&self, book: &Book) -> Value {
        let log = self.folder.path().join("told.jsonl");
        std::fs::write(&log, book.to_lines()).expect("the log can be written");
        let data_dir = self.data_dir();
        let log = log.to_str().expect("a path that is text");
        let mut arguments = vec!["audit", "verify", "-o", "json", "--against", log];
        if self.database.is_none() {
            arguments.extend(["--data-dir", data_dir.to_str().expect("a path that is text")]);
        }
        let (status, report, talk) = self.wonder(&arguments).await;
        assert!(status.success(), "the audit failed: {report}\n{talk}");
        serde_json::from_str(&report).expect("the report is JSON")
    }

    /// Runs another command of the same binary on this platform's data; answers its exit status,
    /// stdout and stderr.
    pub async fn wonder(&self, arguments: &[&str]) -> (ExitStatus, String, String) {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null());
        let output = within("a command of the binary", command.output()).await;
        let output = output.expect("the binary can be started");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status, text(output.stdout), text(output.stderr))
    }

    /// The end of what each of its processes has logged.
    pub fn log(&self) -> String {
        let logs = self.names().into_iter().map(|name| (tail(&self.log_path(&name)), name));
        let logs = logs.filter(|(text, _)| !text.is_empty());
        logs.map(|(text, name)| format!("== {name}\n{text}\n")).collect()
    }

    async fn start_all(&mut self) {
        let started = self.names().into_iter().map(|name| async {
            let process = Process::spawn(self.serve(&name), self.log_path(&name)).await;
            (name, process)
        });
        let started = join_all(started).await;
        self.processes.extend(started);
        self.tell_client();
        self.ready().await;
    }

    fn process(&self, name: &str) -> &Process {
        self.processes.get(name).unwrap_or_else(|| panic!("{name} doesn't run"))
    }

    fn tell_client(&self) {
        let gateways = self
            .processes
            .iter()
            .filter(|(name, _)| matches!(role(name), None | Some("gateway")))
            .map(|(_, process)| process.url.clone());
        self.client.moved_to(gateways.collect());
    }

    /// How a process is started.
    fn serve(&self, name: &str) -> Command {
        let mut command = self.command();
        command
            .args(["serve", "--attached", "--auth", "dev", "--listen", "127.0.0.1:0"])
            .args(["--log", "warn"]);
        match role(name) {
            Some(role) => command.args(["--roles", role]),
            None => command.arg("--data-dir").arg(self.data_dir()),
        };
        command.args(&self.shape.arguments);
        command
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
        command.env_remove("DATABASE_URL").env_remove("NATS_URL");
        command.envs(self.database.as_ref().map(|database| ("DATABASE_URL", database.url())));
        command.envs(self.nats.as_ref().map(|nats| ("NATS_URL", nats.url())));
        command.envs(self.shape.variables.iter().cloned());
        // Set aside by the server at once, for each set of processes.
        command.env("WONDER_NATS_EVENTS_BYTES", "16777216");
        command
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the platform's logs end with:\n{}", self.log());
        }
    }
}
