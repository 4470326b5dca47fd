//! The client of the public API: one place for addresses, keys, time-outs and problems.

use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::exit::Failure;

mod problem;
mod sse;

pub(crate) use problem::{ApiProblem, Finding, line as problem_line};
pub(crate) use sse::{EventStream, Told};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a read model may take to get to a `min_position`.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause before it is asked again, where the answer doesn't say.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the server is and how we are known to it.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ClientArgs {
    /// Server to talk to
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "WONDER_SERVER",
        default_value = "http://127.0.0.1:7420",
        help_heading = "Client"
    )]
    pub(crate) server: String,
    /// API key; not needed where `wonder dev` runs
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        env = "WONDER_API_KEY",
        hide_env_values = true,
        help_heading = "Client"
    )]
    pub(crate) api_key: Option<String>,
}

/// A connection to one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    api_key: Option<String>,
    patience: Duration,
}

/// An answer, as the server wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) text: String,
}

impl Answer {
    /// The answer as a shape.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        Ok(serde_json::from_str(&self.text)?)
    }
}

impl Client {
    /// A client; refused where the address isn't an http(s) URL.
    pub(crate) fn new(args: &ClientArgs) -> Result<Self, Failure> {
        let url = reqwest::Url::parse(&args.server)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
        let Some(url) = url else {
            let text = format!("{:?} is not a server: write http://HOST:PORT", args.server);
            return Err(Failure::Refused(text));
        };
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("wonder/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        Ok(Self {
            http: builder.build().map_err(anyhow::Error::from)?,
            base: args.server.trim_end_matches('/').to_owned(),
            api_key: args.api_key.clone(),
            patience: PATIENCE,
        })
    }

    /// A client of a server at hand.
    pub(crate) fn to(url: &str) -> Result<Self, Failure> {
        Self::new(&ClientArgs { server: url.to_owned(), api_key: None })
    }

    /// The server's address, without a slash at its end.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// `GET` of a path under `/api/v1`.
    pub(crate) async fn get(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Answer, Failure> {
        let request = self.request(Method::GET, &format!("/api/v1{path}")).query(query);
        self.answer(request.timeout(REQUEST_TIMEOUT)).await
    }

    /// `GET` of a file under `/api/v1`, of any size: what comes is written as it comes.
    pub(crate) async fn download(
        &self,
        path: &str,
        query: &[(&str, String)],
        file: &mut impl std::io::Write,
    ) -> Result<(), Failure> {
        let request = self.request(Method::GET, &format!("/api/v1{path}")).query(query);
        let mut response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.problem(response).await);
        }
        loop {
            let chunk = tokio::time::timeout(REQUEST_TIMEOUT, response.chunk()).await;
            let chunk = chunk.map_err(|_| self.silent())?;
            match chunk.map_err(|error| self.unreachable(&error))? {
                Some(chunk) => file.write_all(&chunk)?,
                None => return Ok(()),
            }
        }
    }

    /// `POST` of JSON to a path under `/api/v1`.
    pub(crate) async fn post(
        &self,
        path: &str,
        query: &[(&str, String)],
        body: &Value,
    ) -> Result<Answer, Failure> {
        let request = self.request(Method::POST, &format!("/api/v1{path}")).query(query).json(body);
        self.answer(request.timeout(REQUEST_TIMEOUT)).await
    }

    /// `PATCH` of a path under `/api/v1`: a JSON merge patch.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        let request = self.request(Method::PATCH, &format!("/api/v1{path}")).json(body);
        self.answer(request.timeout(REQUEST_TIMEOUT)).await
    }

    /// `GET` of a path outside the API (`/readyz`, `/metrics`, `/openapi.json`): status and text.
    pub(crate) async fn get_plain(&self, path: &str) -> Result<(u16, String), Failure> {
        let request = self.request(Method::GET, path).timeout(REQUEST_TIMEOUT);
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        Ok((status, self.text(response).await?))
    }

    /// The server's time by its `Date` header, in whole seconds.
    pub(crate) async fn server_time(&self) -> Option<DateTime<Utc>> {
        let request = self.request(Method::GET, "/livez").timeout(REQUEST_TIMEOUT);
        let response = self.send(request).await.ok()?;
        let date = response.headers().get(header::DATE)?.to_str().ok()?;
        Some(DateTime::parse_from_rfc2822(date).ok()?.to_utc())
    }

    /// The id of a project by its name; `None` for `default`, which the server knows itself.
    pub(crate) async fn project(&self, name: &str) -> Result<Option<String>, Failure> {
        match name {
            "default" => Ok(None),
            name => self.project_id(name).await.map(Some),
        }
    }

    /// The id of a project by its name.
    pub(crate) async fn project_id(&self, name: &str) -> Result<String, Failure> {
        let query = [("name", name.to_owned()), ("limit", "1".to_owned())];
        let page: Value = self.get("/projects", &query).await?.read()?;
        page["items"][0]["id"].as_str().map(str::to_owned).ok_or_else(|| {
            Failure::Refused(format!("no project is named {name:?}: choose one with --project"))
        })
    }

    /// The one thing of a list with a name, in a project that is given by its name.
    pub(crate) async fn named(
        &self,
        list: &str,
        project: &str,
        name: &str,
    ) -> Result<Option<Value>, Failure> {
        let project_id = self.project_id(project).await?;
        let query =
            [("name", name.to_owned()), ("project_id", project_id), ("limit", "1".to_owned())];
        let mut page: Value = self.get(list, &query).await?.read()?;
        Ok(page.pointer_mut("/items/0").map(Value::take))
    }

    /// Opens a stream of server-sent events after a cursor.
    async fn open_stream(
        &self,
        path: &str,
        query: &[(String, String)],
        after: Option<&str>,
    ) -> Result<Response, Failure> {
        let mut request = self
            .request(Method::GET, &format!("/api/v1{path}"))
            .query(query)
            .header(header::ACCEPT, "text/event-stream");
        if let Some(cursor) = after {
            request = request.header("last-event-id", cursor);
        }
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.problem(response).await)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request. A read model that is behind is asked again, as its answer says: nothing of
    /// the request was done.
    async fn answer(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let end = Instant::now() + self.patience;
        loop {
            let once = request.try_clone().context("a request's body is in memory")?;
            let response = self.send(once).await?;
            if response.status().is_success() {
                return Ok(Answer { text: self.text(response).await? });
            }
            let pause = wish(&response).unwrap_or(PAUSE);
            let mut failure = self.problem(response).await;
            let Failure::Api(problem) = &mut failure else { return Err(failure) };
            if problem.code != "position_not_reached" {
                return Err(failure);
            }
            if Instant::now() + pause >= end {
                let (waited, base) = (self.patience.as_secs(), &self.base);
                problem.detail = format!(
                    "{}; it was asked for {waited} s: look at {base}/readyz",
                    problem.detail
                );
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    async fn text(&self, response: Response) -> Result<String, Failure> {
        response.text().await.map_err(|error| self.unreachable(&error))
    }

    async fn problem(&self, response: Response) -> Failure {
        let status: StatusCode = response.status();
        match self.text(response).await {
            Ok(text) => Failure::Api(Box::new(ApiProblem::read(status.as_u16(), &text))),
            Err(failure) => failure,
        }
    }

    fn silent(&self) -> Failure {
        let reason = format!("nothing came for {} s", REQUEST_TIMEOUT.as_secs());
        Failure::Unreachable { url: self.base.clone(), reason }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut reason = error as &dyn std::error::Error;
        while let Some(source) = reason.source() {
            reason = source;
        }
        Failure::Unreachable { url: self.base.clone(), reason: reason.to_string() }
    }
}

/// `Retry-After` in seconds.
fn wish(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// Proxies of the environment are not for servers on this machine.
fn is_loopback(url: &reqwest::Url) -> bool {
    url.host_str().is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests;
