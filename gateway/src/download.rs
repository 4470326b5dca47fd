//! Files of any size, sent as they are made.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use protocol::Rejection;

use crate::call::Call;

/// Answers with a file, piece by piece. Where it can't go on, and where the server ends, the answer
/// is broken off: what its reader has then isn't whole, and says so by its missing end.
pub(crate) fn respond(
    mut call: Call,
    name: &str,
    pieces: impl Stream<Item = Result<Bytes, Rejection>> + Send + 'static,
) -> Response {
    let (place, shutdown) = (call.place.take(), call.edge.gateway.shutdown.clone());
    let sending = (pieces.boxed(), place, shutdown);
    let body = stream::try_unfold(sending, |(mut pieces, place, shutdown)| async move {
        let piece = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Err(broken("shutdown", "the server ends")),
            piece = pieces.next() => piece,
        };
        match piece {
            None => Ok(None),
            Some(Ok(piece)) => Ok(Some((piece, (pieces, place, shutdown)))),
            Some(Err(rejection)) => Err(broken(&rejection.code, &rejection.message)),
        }
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    if let Some(media_type) = call.route.download {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    response
}

fn broken(code: &str, why: &str) -> std::io::Error {
    tracing::warn!(code, why, "a file was broken off");
    std::io::Error::other("the file was broken off")
}
