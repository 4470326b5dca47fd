//! Archiving of runs, and holds.

use axum::http::StatusCode;
use axum::response::Response;
use domain::ids::RunId;
use domain::retention::{Archive, Keep};
use protocol::{ArchiveRun, Command};
use serde::Deserialize;

use crate::call::{Call, answer, done};
use crate::problem::Problem;

/// Bytes of where an archive is.
const LOCATION_BYTES: usize = 1_024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    keep: Keep,
    #[serde(default)]
    archive: Option<Archive>,
    #[serde(default)]
    dry_run: bool,
}

/// `POST /runs/{id}/archive`.
pub(crate) async fn archive(call: Call) -> Result<Response, Problem> {
    let run_id: RunId = call.id()?;
    let Asked { keep, archive, dry_run } = call.json()?;
    let invalid = |detail: &str, pointer: &str| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail).at(pointer)
    };
    if keep == Keep::Full {
        return Err(invalid("use results or header: all of it is kept as it is", "/keep"));
    }
    if let Some(Archive { location, sha256 }) = &archive {
        if location.is_empty() || location.len() > LOCATION_BYTES || location.contains('\0') {
            return Err(invalid("write where it is, in 1 to 1024 bytes", "/archive/location"));
        }
        let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if sha256.len() != 64 || !sha256.bytes().all(is_hex) {
            let detail = "write 64 hexadecimal digits in lower case";
            return Err(invalid(detail, "/archive/sha256"));
        }
    }
    let asked = ArchiveRun { run_id, keep, archive, dry_run };
    let receipt = call.execute(Command::ArchiveRun(Box::new(asked))).await?;
    let mut dropped = receipt.dropped.map(|dropped| *dropped);
    if let Some(dropped) = &mut dropped {
        dropped.position = receipt.position;
    }
    answer(StatusCode::OK, &dropped)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    reason: String,
}

/// `POST /runs/{id}/hold`.
pub(crate) async fn hold(call: Call) -> Result<Response, Problem> {
    let run_id: RunId = call.id()?;
    let Held { reason } = call.json()?;
    done(&call.execute(Command::HoldRun { run_id, reason }).await?)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Released {
    #[serde(default)]
    reason: Option<String>,
}

/// `POST /runs/{id}/release`.
pub(crate) async fn release(call: Call) -> Result<Response, Problem> {
    let run_id: RunId = call.id()?;
    let Released { reason } = call.optional()?;
    done(&call.execute(Command::ReleaseRun { run_id, reason }).await?)
}
