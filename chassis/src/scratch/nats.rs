//! NATS for tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use uuid::Uuid;

use crate::bus::NatsOptions;

/// The environment variable that names the server of a test run.
pub const VARIABLE: &str = "WONDER_TEST_NATS";

/// How long a server may take to start or to stop.
const WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Options for the test run's server, with a prefix that nobody else has.
///
/// # Panics
/// Where [`VARIABLE`] isn't set.
pub fn nats_options() -> NatsOptions {
    match std::env::var(VARIABLE) {
        Ok(url) if !url.is_empty() => with_own_prefix(url),
        _ => {
            panic!("{VARIABLE} is not set: run `make test`, which starts a NATS server and sets it")
        }
    }
}

fn with_own_prefix(url: String) -> NatsOptions {
    let prefix = format!("test-{}", Uuid::new_v4().simple());
    NatsOptions { name: prefix.clone(), prefix, ..NatsOptions::new(url) }
}

/// A server of the test's own, which it may stop and start. Killed when dropped.
///
/// All of it panics with a reason where the server doesn't do as it should.
#[derive(Debug)]
pub struct ScratchNats {
    folder: PathBuf,
    arguments: Vec<String>,
    /// Of clients, and of monitoring. The same after each start.
    ports: Option<[u16; 2]>,
    child: Option<Child>,
}

impl ScratchNats {
    /// Starts `nats-server` with JetStream on free ports of the loopback, and its store in a
    /// temporary folder.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with further arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("scratch-nats-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).expect("a temporary folder can be made");
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self { folder, arguments, ports: None, child: None };
        server.restart().await;
        server
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port(0))
    }

    /// Options for this server, with a prefix that nobody else has.
    pub fn options(&self) -> NatsOptions {
        with_own_prefix(self.url())
    }

    /// Starts it again where it doesn't run, on the same ports and with what it has stored.
    pub async fn restart(&mut self) {
        self.stop().await;
        let ports = self.ports.map_or(["-1".into(), "-1".into()], |p| p.map(|p| p.to_string()));
        let log = std::fs::File::create(self.folder.join("log")).expect("a log can be made");
        let store = self.folder.join("store");
        let child = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &ports[0], "-m", &ports[1], "-js", "-sd"])
            .arg(&store)
            .arg("--ports_file_dir")
            .arg(&self.folder)
            .args(&self.arguments)
            .stderr(Stdio::from(log))
            .spawn()
            .expect("nats-server is installed and starts");
        let file = self.folder.join(format!("nats-server_{}.ports", child.id()));
        self.child = Some(child);
        let ports = wait("nats-server starts", || read_ports(&file)).await;
        self.ports = Some(ports);
        let answers = async {
            while TcpStream::connect(self.address(0)).await.is_err() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(WITHIN, answers).await.expect("nats-server takes connections");
    }

    /// Stops it in good order.
    pub async fn stop(&mut self) {
        if self.child.is_some() {
            self.signal("-INT");
            self.ended().await;
        }
    }

    /// Stops it where it is, with its connections open, until [`ScratchNats::thaw`].
    pub async fn freeze(&self) {
        self.signal("-STOP");
        let stat = format!("/proc/{}/stat", self.id());
        wait("nats-server stands still", || {
            let stat = std::fs::read_to_string(&stat).ok()?;
            stat.rsplit(')').next()?.trim_start().starts_with('T').then_some(())
        })
        .await;
    }

    /// Lets it go on.
    pub async fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Kills it.
    pub async fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().expect("it is our child");
            self.ended().await;
        }
    }

    /// Kills it, deletes all that it has stored, and starts it again.
    pub async fn wipe(&mut self) {
        self.kill().await;
        std::fs::remove_dir_all(self.folder.join("store")).expect("its store can be deleted");
        self.restart().await;
    }

    /// What its monitoring answers, as in `/connz?subs=1`.
    pub async fn monitor(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address(1)).await.expect("it is monitored");
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers with text");
        let (_, body) = answer.split_once("\r\n\r\n").expect("it answers with HTTP");
        body.to_owned()
    }

    fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status();
        assert!(sent.expect("there is a kill command").success(), "it runs, so it is told");
    }

    fn port(&self, which: usize) -> u16 {
        self.ports.expect("it has started once")[which]
    }

    fn address(&self, which: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port(which)))
    }

    async fn ended(&mut self) {
        let mut child = self.child.take().expect("only a running one ends");
        wait("nats-server ends", || child.try_wait().expect("it is our child")).await;
    }
}

impl Drop for ScratchNats {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; what is left of it is only a temporary folder.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn read_ports(file: &Path) -> Option<[u16; 2]> {
    let text = std::fs::read(file).ok()?;
    let ports: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let port = |kind: &str| ports[kind][0].as_str()?.rsplit(':').next()?.parse().ok();
    Some([port("nats")?, port("monitoring")?])
}

async fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + WITHIN;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} within {WITHIN:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
