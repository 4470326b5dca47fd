//! A client of the public HTTP API, as programs of our users write it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::header::{CONNECTION, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::wait::{wait_for, wait_within, within};

/// Longer than the longest `Prefer: wait`.
const TIMEOUT: Duration = Duration::from_secs(70);
/// How often a balancer looks whether gateways are ready.
const READINESS_EVERY: Duration = Duration::from_millis(50);

/// A client of one platform. Clones share connections, and follow the platform to its next ports.
/// Where it has several gateways, requests go to them in turn, and on to the next one where a
/// connection is refused: as behind something that spreads the load.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    urls: Arc<RwLock<Vec<String>>>,
    turn: Arc<AtomicUsize>,
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body where it is JSON, else null.
    pub body: Value,
    pub text: String,
}

impl Answer {
    /// Whether the command was acknowledged.
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// The stable code of a refusal, empty where there is none.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The body of a success.
    ///
    /// # Panics
    /// When the answer is no success.
    pub fn ok(self) -> Value {
        assert!(self.is_success(), "status {}: {}", self.status, self.text);
        self.body
    }
}

impl Client {
    pub(crate) fn new() -> Self {
        Self::with(reqwest::Client::builder())
    }

    fn with(builder: reqwest::ClientBuilder) -> Self {
        let http = builder.no_proxy().timeout(TIMEOUT).build();
        let http = http.expect("a client can be made");
        Self { http, urls: Arc::default(), turn: Arc::default() }
    }

    /// The same client with a connection of its own for each request.
    pub fn with_fresh_connections(&self) -> Self {
        let urls = Arc::clone(&self.urls);
        Self { urls, ..Self::with(reqwest::Client::builder().pool_max_idle_per_host(0)) }
    }

    /// The same client behind something that looks at `/readyz` every 50 ms and sends requests to
    /// those gateways that are ready, or to all where none is. It looks until all its clones are
    /// gone.
    pub fn behind_balancer(&self) -> Self {
        let behind = Self { urls: Arc::default(), ..self.clone() };
        behind.moved_to(self.urls());
        let (all, watched) = (self.clone(), Arc::downgrade(&behind.urls));
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(READINESS_EVERY);
            while let Some(urls) = watched.upgrade() {
                let known = all.urls();
                let asked = known.iter().map(|url| {
                    let asked = all.http.get(format!("{url}/readyz")).send();
                    async { asked.await.is_ok_and(|answer| answer.status() == 200) }
                });
                let answers = futures::future::join_all(asked).await;
                let ready = known.iter().zip(answers).filter(|(_, is_ready)| *is_ready);
                let mut ready: Vec<String> = ready.map(|(url, _)| url.clone()).collect();
                if ready.is_empty() {
                    ready = known;
                }
                *urls.write().unwrap_or_else(PoisonError::into_inner) = ready;
                drop(urls);
                ticks.tick().await;
            }
        });
        behind
    }

    /// Where the gateways answer from now on.
    pub(crate) fn moved_to(&self, urls: Vec<String>) {
        *self.urls.write().unwrap_or_else(PoisonError::into_inner) = urls;
    }

    fn urls(&self) -> Vec<String> {
        self.urls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The gateway whose turn it is; a place where nobody listens while there is none.
    pub(crate) fn base(&self) -> String {
        let urls = self.urls();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let base = turn.checked_rem(urls.len()).map(|place| urls[place].clone());
        base.unwrap_or_else(|| "http://127.0.0.1:1".to_owned())
    }

    /// A request to a path below `/api/v1`; a path that starts with two slashes is taken from the
    /// root (`//readyz`).
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let base = self.base();
        let url = match path.strip_prefix('/').filter(|rest| rest.starts_with('/')) {
            Some(from_root) => format!("{base}{from_root}"),
            None => format!("{base}/api/v1{path}"),
        };
        self.http.request(method, url)
    }

    /// Sends a request; an error means that there was no whole answer. A read model that hasn't
    /// come to `min_position` yet is asked again, as it says.
    pub async fn send(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        wait_within(2 * TIMEOUT, "a read model that has come far enough", || async {
            let answer = self.sent(request.try_clone().expect("bodies are in memory")).await;
            let is_behind =
                answer.as_ref().is_ok_and(|answer| answer.code() == "position_not_reached");
            (!is_behind).then_some(answer)
        })
        .await
    }

    async fn sent(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let response = self.response(request).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Answer { status, headers, body, text })
    }

    /// The head of the answer. Who refuses the connection has not seen the request, so the next
    /// gateway gets it.
    pub(crate) async fn response(
        &self,
        request: RequestBuilder,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let mut request = request.build()?;
        let others = self.urls();
        for other in &others {
            let copy = request.try_clone().expect("bodies are in memory");
            match self.http.execute(copy).await {
                Err(error) if error.is_connect() => {
                    let address = other.strip_prefix("http://").and_then(|it| it.split_once(':'));
                    let port = address.and_then(|(_, port)| port.parse().ok());
                    request.url_mut().set_port(port).expect("a URL with a host has a port");
                }
                answered => return answered,
            }
        }
        self.http.execute(request).await
    }

    /// `POST` of JSON.
    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `POST` of JSON to a platform that is up.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).await.expect("the platform answers")
    }

    /// `POST` of any bytes, with their media type.
    pub async fn post_bytes(&self, path: &str, media: &str, body: Vec<u8>) -> Answer {
        self.try_post_bytes(path, media, body).await.expect("the platform answers")
    }

    /// The same where the platform may hang up before it has read everything. The connection isn't
    /// used again, since one that is being closed would fail the next request.
    pub async fn try_post_bytes(
        &self,
        path: &str,
        media: &str,
        body: Vec<u8>,
    ) -> Result<Answer, reqwest::Error> {
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, media);
        self.send(request.header(CONNECTION, "close").body(body)).await
    }

    /// Announces a `POST` of so many bytes, sends none, and answers the answer's first line.
    pub async fn announce(&self, path: &str, media: &str, length: usize) -> String {
        let base = self.base();
        let address = base.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.expect("the platform listens");
        let head = head(address, path, media, length, "");
        stream.write_all(head.as_bytes()).await.expect("the platform reads");
        let mut line = String::new();
        let answer = within("an early answer", BufReader::new(stream).read_line(&mut line)).await;
        answer.expect("the platform answers");
        line
    }

    /// Sends a `POST` of JSON under an idempotency key and doesn't read the answer. Dropping the
    /// connection hangs up, whether the platform has answered or not.
    pub async fn post_unread(&self, path: &str, key: &str, body: &Value) -> TcpStream {
        let base = self.base();
        let address = base.trim_start_matches("http://");
        let body = body.to_string();
        let key = format!("idempotency-key: {key}\r\n");
        let head = head(address, path, "application/json", body.len(), &key);
        let mut stream = TcpStream::connect(address).await.expect("the platform listens");
        stream.write_all(head.as_bytes()).await.expect("the platform reads");
        stream.write_all(body.as_bytes()).await.expect("the platform reads");
        stream.flush().await.expect("the platform reads");
        stream
    }

    /// `GET` of JSON.
    ///
    /// # Panics
    /// When the answer is no success.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.send(self.request(Method::GET, path)).await;
        answer.expect("the platform answers").ok()
    }

    /// Publishes a definition to the default project; answers `{id, name, version, hash, …}`.
    pub async fn publish(&self, yaml: &str) -> Value {
        let source = yaml.as_bytes().to_vec();
        self.post_bytes("/workflow-definitions", "application/yaml", source).await.ok()
    }

    /// Starts a run of a definition (inline, or the name of a published one); answers its id.
    pub async fn start(&self, definition: &Value, input: Value) -> String {
        let body = json!({"definition": definition, "input": input});
        let started = self.post("/runs", &body).await.ok();
        started["id"].as_str().expect("a started run has an id").to_owned()
    }

    /// Starts a run and answers its view once it has ended.
    pub async fn run_to_end(&self, definition: &Value, input: Value) -> Value {
        let run_id = self.start(definition, input).await;
        self.end_of(&run_id).await
    }

    /// The view of a run once it has ended, however it did.
    pub async fn end_of(&self, run_id: &str) -> Value {
        let path = format!("/runs/{run_id}");
        wait_for(&format!("the end of {run_id}"), || async {
            let request = self.request(Method::GET, &path).header("prefer", "wait=20");
            let answer = self.send(request).await.expect("the platform answers");
            // Lists follow the journal: a run that has just started may not stand there yet.
            if answer.status == 404 {
                return None;
            }
            let view = answer.ok();
            view["ended_at"].is_string().then_some(view)
        })
        .await
    }

    /// Waits until the list of runs shows none that is under way.
    pub async fn all_ended(&self) {
        wait_for("all runs to end", || async {
            let open = self.get("/runs?status=queued,running,waiting,paused&limit=1").await;
            open["items"].as_array()?.is_empty().then_some(())
        })
        .await;
    }

    /// All events of a run, in order.
    pub async fn events(&self, run_id: &str) -> Vec<Value> {
        self.pages(&format!("/runs/{run_id}/events?limit=1000")).await
    }

    /// All events of the workspace, in order.
    pub async fn all_events(&self) -> Vec<Value> {
        self.pages("/events?limit=1000").await
    }

    /// The position of the newest event of the workspace.
    pub async fn head(&self) -> u64 {
        self.all_events().await.last().map_or(0, |event| event["position"].as_u64().unwrap_or(0))
    }

    /// The position of the newest event of the workspace but records of accesses: who read the audit
    /// log, and who was refused what.
    pub async fn written(&self) -> u64 {
        let events = self.all_events().await;
        let newest = events.iter().rev().find(|event| event["aggregate_type"] != "access");
        newest.map_or(0, |event| event["position"].as_u64().unwrap_or(0))
    }

    /// All runs of the workspace, newest first, once the read model has reached a position.
    pub async fn runs(&self, min_position: u64) -> Vec<Value> {
        let mut runs = Vec::new();
        let mut path = format!("/runs?limit=200&min_position={min_position}");
        loop {
            let page = self.get(&path).await;
            runs.extend(page["items"].as_array().cloned().unwrap_or_default());
            let Some(cursor) = page["next_cursor"].as_str() else { return runs };
            path = format!("/runs?limit=200&cursor={cursor}");
        }
    }

    async fn pages(&self, path: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let mut page = self.get(path).await;
        loop {
            events.extend(page["items"].as_array().cloned().unwrap_or_default());
            if page["more"] != true {
                return events;
            }
            let cursor = page["cursor"].as_str().expect("a page has a cursor").to_owned();
            page = self.get(&format!("{path}&after={cursor}")).await;
        }
    }
}

/// The head of a `POST`, for connections that are handled by hand.
fn head(address: &str, path: &str, media: &str, length: usize, more: &str) -> String {
    format!(
        "POST /api/v1{path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {media}\r\n\
         content-length: {length}\r\n{more}\r\n"
    )
}
