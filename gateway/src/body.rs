//! Request bodies: read up to the route's limit. The rest of a refused one is taken off the wire for
//! a while, since a client may read the answer only once it has sent everything, and closing the
//! connection before would take the answer with it.

use std::mem;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::headers;
use crate::problem::Problem;
use crate::route::{self, Route, Verb};

/// Bytes of a refused body that are taken off the wire at most.
const LINGER_BYTES: usize = 16 * 1024 * 1024;
/// How long that may last.
const LINGER: Duration = Duration::from_secs(2);

/// A request's body, as it comes in.
pub(crate) struct Incoming {
    body: Body,
    /// Whether the client sends it without being asked for it.
    lingers: bool,
}

impl Incoming {
    pub(crate) fn new(body: Body, headers: &HeaderMap) -> Self {
        // Who asks first (`expect: 100-continue`) has sent nothing yet.
        let lingers = !headers.contains_key(header::EXPECT);
        Self { body, lingers }
    }

    /// Reads it up to the route's limit; a route without a body refuses one.
    pub(crate) async fn read(
        mut self,
        route: &Route,
        headers: &mut HeaderMap,
    ) -> Result<Bytes, Problem> {
        let limit = route.body.limit();
        let too_large = || {
            let detail = match route.body {
                route::Body::None => "this route takes no body".to_owned(),
                _ => format!("the body may have at most {limit} bytes"),
            };
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
        };
        if self.body.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        if route.verb == Verb::Get {
            return Ok(Bytes::new());
        }
        headers::refuse_encoding(headers)?;
        match Limited::new(&mut self.body, limit).collect().await {
            Ok(whole) => Ok(whole.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
            Err(_) => {
                let detail = "the body broke off; send the request again";
                Err(Problem::new(StatusCode::BAD_REQUEST, "body_unreadable", detail))
            }
        }
    }
}

impl Drop for Incoming {
    /// The answer doesn't wait for it.
    fn drop(&mut self) {
        if self.lingers && !self.body.is_end_stream() {
            let mut rest = Limited::new(mem::take(&mut self.body), LINGER_BYTES);
            let drain = async move { while let Some(Ok(_)) = rest.frame().await {} };
            tokio::spawn(tokio::time::timeout(LINGER, drain));
        }
    }
}
