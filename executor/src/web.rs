//! HTTP exchanges with everything that bounds them: addresses, hops, sizes and times.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use protocol::task::FailureKind;
use reqwest::header::{self, HeaderMap, HeaderName};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};

use crate::config::HttpLimits;
use crate::fault::{Fault, fault, permanent, transient};
use crate::guard::{AllowedHost, Guard, Refused, Route};

/// One request.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
}

/// Its answer, whole.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer that is whole, or that comes piece by piece.
pub(crate) enum Opened {
    Whole(Reply),
    Stream(Streamed),
}

/// An answer that comes piece by piece, as server-sent events.
pub(crate) struct Streamed {
    response: Response,
    /// Bytes that may still come.
    left: usize,
    idle: Duration,
}

impl Streamed {
    /// The next bytes, or nothing at the end. Fails where none come for too long, or too many.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let chunk = tokio::time::timeout(self.idle, self.response.chunk()).await;
        let chunk = chunk.map_err(|_| {
            let message = format!("nothing more came for {} ms", self.idle.as_millis());
            transient("idle_timeout", message)
        })?;
        let chunk = chunk.map_err(|error| broken(&error))?;
        if let Some(chunk) = &chunk {
            let left = self.left.checked_sub(chunk.len());
            self.left = left.ok_or_else(|| {
                permanent("response_too_large", "the answer has more bytes than it may have")
            })?;
        }
        Ok(chunk)
    }
}

/// The clients: one whose names are vetted when they resolve, one for hosts that are allowed.
pub(crate) struct Web {
    guard: Guard,
    guarded: Client,
    allowed: Client,
    pub(crate) limits: HttpLimits,
}

impl Web {
    pub(crate) fn new(
        limits: HttpLimits,
        allowed_hosts: Vec<AllowedHost>,
    ) -> Result<Self, reqwest::Error> {
        let guard = Guard::new(allowed_hosts);
        let header_bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
        let client = || {
            Client::builder()
                .no_proxy()
                .redirect(redirect::Policy::none())
                .referer(false)
                .connect_timeout(limits.connect_timeout)
                .http1_max_headers(limits.headers)
                .http2_max_header_list_size(header_bytes)
                .user_agent(concat!("wonder/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Self {
            guarded: client().dns_resolver(std::sync::Arc::new(guard.clone())).build()?,
            allowed: client().build()?,
            guard,
            limits,
        })
    }

    /// Makes a call and reads the answer. Redirects are followed unless `is_final` holds.
    pub(crate) async fn send(
        &self,
        call: Call,
        is_final: impl Fn(StatusCode) -> bool,
        limit: Duration,
    ) -> Result<Reply, Fault> {
        self.check_request(&call)?;
        tokio::time::timeout(limit, self.hops(call, is_final)).await.unwrap_or_else(|_| {
            let message = format!("no whole answer within {} ms", limit.as_millis());
            Err(transient("timeout", message))
        })
    }

    /// Makes a call whose answer may come piece by piece. No redirect is followed; `limit` is for
    /// the answer's beginning, and for all of it where it comes whole.
    pub(crate) async fn open(&self, call: Call, limit: Duration) -> Result<Opened, Fault> {
        self.check_request(&call)?;
        let opening = async {
            let response = self.hop(&call).await?;
            if !(response.status().is_success() && is_event_stream(response.headers())) {
                return self.read(response).await.map(Opened::Whole);
            }
            self.check_headers(response.headers(), "the answer")?;
            let (left, idle) = (self.limits.streamed_bytes, self.limits.idle_timeout);
            Ok(Opened::Stream(Streamed { response, left, idle }))
        };
        tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| {
            let message = format!("no answer within {} ms", limit.as_millis());
            Err(transient("timeout", message))
        })
    }

    async fn hops(
        &self,
        mut call: Call,
        is_final: impl Fn(StatusCode) -> bool,
    ) -> Result<Reply, Fault> {
        let mut left = self.limits.redirects;
        loop {
            let response = self.hop(&call).await?;
            let status = response.status();
            let target = if is_final(status) { None } else { location(&call.url, &response)? };
            let Some(target) = target else {
                return self.read(response).await;
            };
            if left == 0 {
                let message = format!("more than {} redirects", self.limits.redirects);
                return Err(permanent("too_many_redirects", message));
            }
            left -= 1;
            call = redirected(call, status, target);
        }
    }

    async fn hop(&self, call: &Call) -> Result<Response, Fault> {
        let route = self.guard.check(&call.url).map_err(|refused| refusal(&refused))?;
        let client = match route {
            Route::Guarded => &self.guarded,
            Route::Allowed => &self.allowed,
        };
        let mut request =
            client.request(call.method.clone(), call.url.clone()).headers(call.headers.clone());
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        request.send().await.map_err(|error| unsent(&call.url, &error))
    }

    async fn read(&self, mut response: Response) -> Result<Reply, Fault> {
        let limit = self.limits.response_bytes;
        let too_large =
            || permanent("response_too_large", format!("the answer is larger than {limit} bytes"));
        self.check_headers(response.headers(), "the answer")?;
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > limit => return Err(too_large()),
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => return Err(broken(&error)),
            }
        }
        Ok(Reply {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: body.freeze(),
        })
    }

    fn check_request(&self, call: &Call) -> Result<(), Fault> {
        self.check_headers(&call.headers, "the request")?;
        let limit = self.limits.request_bytes;
        if call.body.as_ref().is_some_and(|body| body.len() > limit) {
            let message = format!("the request's body is larger than {limit} bytes");
            return Err(permanent("request_too_large", message));
        }
        Ok(())
    }

    fn check_headers(&self, headers: &HeaderMap, whose: &str) -> Result<(), Fault> {
        let bytes: usize =
            headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if headers.len() <= self.limits.headers && bytes <= self.limits.header_bytes {
            return Ok(());
        }
        let (count, size) = (self.limits.headers, self.limits.header_bytes);
        let message = format!("{whose} has more than {count} headers or {size} bytes of them");
        Err(permanent("headers_too_large", message))
    }
}

/// The wish of `Retry-After` (seconds or a date), at most a day.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<domain::span::Span> {
    const DAY_MS: u64 = 86_400_000;
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let ms = match text.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1_000),
        Err(_) => {
            let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
            let wait = at.signed_duration_since(chrono::Utc::now()).num_milliseconds();
            u64::try_from(wait).unwrap_or(0)
        }
    };
    Some(domain::span::Span::from_millis(ms.min(DAY_MS)))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// An answer that has begun and can't be read to its end.
fn broken(error: &reqwest::Error) -> Fault {
    let message = match error.is_decode() {
        true => "the answer's encoding is broken",
        false => "the answer broke off",
    };
    transient("transport", message)
}

fn refusal(refused: &Refused) -> Fault {
    fault(FailureKind::Policy, "address_refused", refused.to_string())
}

/// A request that got no answer. Never shows the URL beyond its host, since queries hold secrets.
fn unsent(url: &Url, error: &reqwest::Error) -> Fault {
    let mut source: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = source {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return refusal(refused);
        }
        source = cause.source();
    }
    let host = url.host_str().unwrap_or_default();
    if error.is_builder() {
        return permanent("bad_request", format!("the request to {host} can't be made"));
    }
    if error.is_connect() || error.is_timeout() {
        return transient("connect", format!("{host} can't be reached"));
    }
    transient("transport", format!("the exchange with {host} broke off"))
}

fn location(from: &Url, response: &Response) -> Result<Option<Url>, Fault> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(value) = response.headers().get(header::LOCATION) else {
        return Ok(None);
    };
    let target = value.to_str().ok().and_then(|text| from.join(text).ok());
    target.map(Some).ok_or_else(|| permanent("bad_redirect", "the redirect's target is no url"))
}

/// The next hop, as RFC 9110 §15.4 has it. Another origin gets no header that could hold a
/// credential, so only those go along that are known to hold none.
fn redirected(mut call: Call, status: StatusCode, target: Url) -> Call {
    const HARMLESS: [HeaderName; 4] =
        [header::ACCEPT, header::ACCEPT_LANGUAGE, header::CONTENT_TYPE, header::USER_AGENT];
    if call.url.origin() != target.origin() {
        call.headers = std::mem::take(&mut call.headers)
            .into_iter()
            .filter_map(|(name, value)| Some((name?, value)))
            .filter(|(name, _)| HARMLESS.contains(name))
            .collect();
    }
    let becomes_get = match status.as_u16() {
        303 => call.method != Method::HEAD,
        301 | 302 => call.method == Method::POST,
        _ => false,
    };
    if becomes_get {
        call.method = Method::GET;
        call.body = None;
        call.headers.remove(header::CONTENT_TYPE);
    }
    call.url = target;
    call
}
