//! A NATS server of a test's own.

use std::path::PathBuf;
use std::process::Stdio;

use async_nats::jetstream;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{free_port, log_of, private, variable};
use crate::wait::wait_for;

/// A server with JetStream. Dropping it kills it and removes its files.
#[derive(Debug)]
pub struct NatsServer {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl NatsServer {
    /// Starts it, with nothing in it.
    ///
    /// # Panics
    /// Where it doesn't start.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("nats-").tempdir_in(private());
        let folder = folder.expect("a temporary folder can be made");
        let mut server = Self { folder, port: free_port(), child: None };
        server.start_again().await;
        server
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it at once; does nothing where it doesn't run.
    pub async fn kill_9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("the server can be killed");
        }
    }

    /// Starts it on the same port, with what it had stored.
    ///
    /// # Panics
    /// Where it doesn't start.
    pub async fn start_again(&mut self) {
        let mut command = Command::new(variable("WONDER_TEST_NATS_BIN"));
        command
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string(), "--jetstream"])
            .arg("--store_dir")
            .arg(self.store())
            .arg("--log")
            .arg(self.folder.path().join("log"))
            .arg("--pid")
            .arg(self.folder.path().join("nats.pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the NATS server can be started");
        let address = ("127.0.0.1", self.port);
        tokio::select! {
            ended = child.wait() => {
                panic!("NATS ended with {ended:?}:\n{}", log_of(self.folder.path()));
            }
            () = wait_for("the NATS server to listen", || async {
                TcpStream::connect(address).await.ok().map(drop)
            }) => {}
        }
        self.child = Some(child);
    }

    /// Kills it, forgets everything that it had stored, and starts it again.
    pub async fn wipe(&mut self) {
        self.kill_9().await;
        std::fs::remove_dir_all(self.store()).expect("the store can be removed");
        self.start_again().await;
    }

    /// Deletes the consumers of all streams; answers how many. One that is just being written to
    /// may be left.
    ///
    /// # Panics
    /// Where JetStream doesn't answer.
    pub async fn delete_consumers(&self) -> usize {
        let client = async_nats::connect(self.url()).await.expect("the NATS server listens");
        let ask = async |subject: String| -> Value {
            let answer = client.request(subject, "".into()).await.expect("JetStream answers");
            serde_json::from_slice(&answer.payload).expect("it answers JSON")
        };
        let names = |answer: &Value, key: &str| -> Vec<String> {
            let names = answer[key].as_array().cloned().unwrap_or_default();
            names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
        };
        let mut deleted = 0;
        let streams = ask("$JS.API.STREAM.NAMES".to_owned()).await;
        for stream in names(&streams, "streams") {
            let consumers = ask(format!("$JS.API.CONSUMER.NAMES.{stream}")).await;
            for consumer in names(&consumers, "consumers") {
                let answer = ask(format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}")).await;
                deleted += usize::from(answer["success"] == true);
            }
        }
        deleted
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }
}

/// A JetStream stream that the platform doesn't fill.
pub struct Stream {
    context: jetstream::Context,
    name: String,
}

impl NatsServer {
    /// Makes a stream of these subjects.
    ///
    /// # Panics
    /// Where JetStream refuses it.
    pub async fn stream(&self, name: &str, subjects: &str) -> Stream {
        let client = async_nats::connect(self.url()).await.expect("the NATS server listens");
        let context = jetstream::new(client);
        let config = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![subjects.to_owned()],
            ..Default::default()
        };
        context.create_stream(config).await.expect("JetStream makes it");
        Stream { context, name: name.to_owned() }
    }
}

impl Stream {
    /// Publishes a message, and waits until the stream has it.
    ///
    /// # Panics
    /// Where it doesn't take it.
    pub async fn publish(&self, subject: &str, header: (&str, &str), body: String) {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(header.0, header.1);
        let sent = self.context.publish_with_headers(subject.to_owned(), headers, body.into());
        sent.await.expect("it is sent").await.expect("the stream has it");
    }

    /// How many consumers it has.
    ///
    /// # Panics
    /// Where JetStream doesn't answer.
    pub async fn consumers(&self) -> usize {
        let stream = self.context.get_stream(&self.name).await.expect("it is there");
        stream.get_info().await.expect("JetStream answers").state.consumer_count
    }
}
