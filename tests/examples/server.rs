//! A small server of files on loopback, one of which is in trouble at first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// It serves until it is dropped.
pub(crate) struct Server {
    /// As `http://127.0.0.1:40123`.
    pub(crate) url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    folder: PathBuf,
    troubled: String,
    failures: usize,
    asked: Mutex<BTreeMap<String, usize>>,
}

impl Server {
    /// Serves the JSON files of a folder. The path `troubled` answers 500 for the first `failures`
    /// times; what isn't there answers 404.
    pub(crate) async fn start(folder: &Path, troubled: &str, failures: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            troubled: troubled.to_owned(),
            failures,
            asked: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move { shared.answer(stream).await });
            }
        });
        Self { url: format!("http://{address}"), shared, task }
    }

    /// How often each path was asked for.
    pub(crate) fn asked(&self) -> BTreeMap<String, usize> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Answers one request and closes the connection.
    async fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            if stream.read_line(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let path = request.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let times = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let times = asked.entry(path.clone()).or_default();
            *times += 1;
            *times
        };
        let (status, body) = if path == self.troubled && times <= self.failures {
            ("500 Internal Server Error", "{}".to_owned())
        } else {
            match std::fs::read_to_string(self.folder.join(path.trim_start_matches('/'))) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", "{}".to_owned()),
            }
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    }
}
