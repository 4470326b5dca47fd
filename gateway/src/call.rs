//! A request that was read and signed in, as handlers get it.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Query;
use axum::http::{HeaderValue, StatusCode, Uri, header, request::Parts};
use axum::response::Response;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER;
use domain::ids::CommandId;
use domain::resource::{Kind, check_id};
use protocol::{Command, CommandEnvelope, Origin, PageRequest, Receipt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use crate::auth::Caller;
use crate::connections::Peer;
use crate::edge::Edge;
use crate::headers;
use crate::json;
use crate::problem::Problem;
use crate::route::Route;
use crate::trace::Trace;

/// One request.
pub(crate) struct Call {
    pub(crate) edge: Arc<Edge>,
    pub(crate) route: &'static Route,
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) trace: Trace,
    /// `None` on public routes only.
    pub(crate) caller: Option<Caller>,
    /// A stream keeps its place among the open streams with this.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

/// Query parameters, none but those that the route knows.
pub(crate) fn query_of(uri: &Uri, route: &Route) -> Result<Vec<(String, String)>, Problem> {
    if uri.query().is_none_or(str::is_empty) {
        return Ok(Vec::new());
    }
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", error.to_string())
    })?;
    for (place, (name, value)) in pairs.iter().enumerate() {
        if !route.params().any(|param| param.name == name) {
            let known: Vec<_> = route.params().map(|param| param.name).collect();
            let name: String = name.chars().take(80).collect();
            let detail = match known.is_empty() {
                true => format!("{name:?} is not known here: this route takes no query parameters"),
                false => format!("{name:?} is not known here: use {}", known.join(", ")),
            };
            return Err(Problem::new(StatusCode::BAD_REQUEST, "unknown_parameter", detail));
        }
        if value.contains('\0') {
            return Err(Problem::parameter(name, "leave out the character \\u0000"));
        }
        let may_repeat = || route.params().any(|param| param.name == name && param.repeats);
        if pairs[..place].iter().any(|(before, _)| before == name) && !may_repeat() {
            return Err(Problem::parameter(name, "it stands here twice; give it once"));
        }
    }
    Ok(pairs)
}

impl Call {
    /// Who asks.
    pub(crate) fn caller(&self) -> Result<&Caller, Problem> {
        self.caller.as_ref().ok_or_else(Problem::internal)
    }

    /// The part of the path that stands where the template has `{name}`.
    pub(crate) fn segment(&self, name: &str) -> &str {
        self.route.segment(self.parts.uri.path(), name)
    }

    /// An id of the path. One that can't be an id names nothing that exists.
    pub(crate) fn id<T: FromStr<Err = domain::ids::InvalidId>>(&self) -> Result<T, Problem> {
        self.segment("id").parse().map_err(|error: T::Err| Problem::not_found(error.to_string()))
    }

    /// The id of the path as text, checked for the kind of the route.
    pub(crate) fn resource_id(&self, kind: Kind) -> Result<&str, Problem> {
        let text = self.segment("id");
        let checked = check_id(kind, text);
        checked.map(|()| text).map_err(|error| Problem::not_found(error.to_string()))
    }

    /// A query parameter that doesn't repeat. The empty text is a value.
    pub(crate) fn asked(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a query parameter.
    pub(crate) fn asked_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A query parameter of a type.
    pub(crate) fn asked_as<T: FromStr>(&self, name: &str) -> Result<Option<T>, Problem>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |text: &str| text.parse().map_err(|error| Problem::parameter(name, error));
        self.asked(name).map(parse).transpose()
    }

    /// A query parameter that is a time.
    pub(crate) fn asked_time(&self, name: &str) -> Result<Option<DateTime<Utc>>, Problem> {
        let parse = |text: &str| {
            let time = DateTime::parse_from_rfc3339(text);
            let wrong = "write an rfc 3339 time, as in 2026-01-31T12:00:00Z";
            time.map(|time| time.to_utc()).map_err(|_| Problem::parameter(name, wrong))
        };
        self.asked(name).map(parse).transpose()
    }

    /// `limit`, within 1 and a bound.
    pub(crate) fn limit(&self, usual: u32, most: u32) -> Result<u32, Problem> {
        let Some(text) = self.asked("limit") else { return Ok(usual) };
        let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| Problem::parameter("limit", format_args!("use 1 to {most}")))
    }

    /// `limit`, `cursor` and `min_position` of a list.
    pub(crate) fn page(&self) -> Result<PageRequest, Problem> {
        let cursor = self.asked("cursor").map(str::to_owned);
        if cursor.as_ref().is_some_and(|cursor| cursor.is_empty() || cursor.len() > 1_024) {
            let wrong = "pass next_cursor on as it was given, or leave it out";
            return Err(Problem::parameter("cursor", wrong));
        }
        let min_position = self.min_position()?;
        Ok(PageRequest { limit: self.limit(50, 200)?, cursor, min_position })
    }

    /// `min_position`, a place in the journal.
    pub(crate) fn min_position(&self) -> Result<Option<u64>, Problem> {
        let wrong = |_| {
            let detail = "write a whole number, 0 or more, as answers give it as position";
            Problem::parameter("min_position", detail)
        };
        self.asked("min_position").map(|text| text.parse().map_err(wrong)).transpose()
    }

    /// How long the client wants to wait for a run's end.
    pub(crate) fn wait(&self) -> Result<Option<Duration>, Problem> {
        headers::wait(&self.parts.headers)
    }

    /// The body as JSON of a type.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        headers::expect_media(&self.parts.headers, &["application/json"])?;
        json::decode(&self.body)
    }

    /// The same of a body that may be left out.
    pub(crate) fn optional<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body.is_empty() { Ok(T::default()) } else { self.json() }
    }

    /// Surrounds a command with who asks and what the headers say.
    pub(crate) fn envelope(&self, command: Command) -> Result<CommandEnvelope, Problem> {
        let caller = self.caller()?;
        let key = headers::idempotency_key(&self.parts.headers)?;
        Ok(CommandEnvelope {
            id: CommandId::new(self.edge.gateway.environment.id()),
            workspace_id: caller.workspace_id,
            actor: caller.actor.clone(),
            origin: Some(Box::new(self.origin())),
            idempotency_key: key.map(str::to_owned),
            fingerprint: key.map(|_| self.fingerprint()),
            expected_version: headers::if_match(&self.parts.headers)?,
            traceparent: Some(self.trace.traceparent.clone()),
            command,
        })
    }

    /// From where the request comes.
    pub(crate) fn origin(&self) -> Origin {
        let agent = self.parts.headers.get(header::USER_AGENT);
        let peer = self.parts.extensions.get::<Peer>();
        Origin::new(peer.map(|peer| peer.address), agent.and_then(|value| value.to_str().ok()))
    }

    /// SHA-256 over method, path with query, and body; lengths keep them apart.
    fn fingerprint(&self) -> String {
        let uri = &self.parts.uri;
        let target = uri.path_and_query().map_or(uri.path(), |target| target.as_str());
        let mut hash = Sha256::new();
        for part in [self.parts.method.as_str().as_bytes(), target.as_bytes(), &self.body[..]] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        HEXLOWER.encode(&hash.finalize())
    }

    /// Does a command.
    pub(crate) async fn execute(&self, command: Command) -> Result<Receipt, Problem> {
        let envelope = self.envelope(command)?;
        Ok(self.edge.gateway.commands.execute(envelope).await?)
    }
}

/// What a command to something that is there is answered with.
pub(crate) fn done(receipt: &Receipt) -> Result<Response, Problem> {
    Ok(tagged(answer(StatusCode::OK, receipt)?, receipt.version))
}

/// An answer as JSON.
pub(crate) fn answer<T: Serialize>(status: StatusCode, body: &T) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(body).map_err(|error| {
        tracing::error!(%error, "answer could not be written");
        Problem::internal()
    })?;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// Adds the aggregate's version as `ETag`.
pub(crate) fn tagged(mut response: Response, version: u64) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Adds where the new thing is.
pub(crate) fn located(mut response: Response, path: &str) -> Response {
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    response
}
