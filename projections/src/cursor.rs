//! Page cursors: where a list goes on, bound to the filter that it was made with.

use data_encoding::BASE64URL_NOPAD;
use protocol::{Rejection, RejectionKind};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The last row of a page: lists are ordered by time and id, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) micros: i64,
    pub(crate) id: String,
}

/// A number that another filter doesn't have.
pub(crate) fn fingerprint(scope: &str, filter: &impl Serialize) -> String {
    let filter = serde_json::to_vec(filter).unwrap_or_default();
    let digest =
        Sha256::new().chain_update(scope).chain_update([0]).chain_update(filter).finalize();
    data_encoding::HEXLOWER.encode(&digest[..8])
}

/// Cuts the rows of a page, of which one more than the limit was read, and gives the cursor to
/// the next page where there is one.
pub(crate) fn cut<R>(
    rows: &mut Vec<R>,
    limit: u32,
    fingerprint: &str,
    after: impl Fn(&R) -> After,
) -> Option<String> {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    rows.last().filter(|_| more).map(|row| after(row).write(fingerprint))
}

impl After {
    fn write(&self, fingerprint: &str) -> String {
        let text = format!("{fingerprint}:{}:{}", self.micros, self.id);
        BASE64URL_NOPAD.encode(text.as_bytes())
    }

    pub(crate) fn read(cursor: &str, fingerprint: &str) -> Result<Self, Rejection> {
        let message = "the cursor doesn't belong to this list and filter: pass on the last \
                       page's next_cursor with the same filter, or start without one";
        let invalid = || Rejection::new(RejectionKind::Malformed, "invalid_cursor", message);
        let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).map_err(|_| invalid())?;
        let text = String::from_utf8(bytes).map_err(|_| invalid())?;
        let (made_with, rest) = text.split_once(':').ok_or_else(invalid)?;
        let (micros, id) = rest.split_once(':').ok_or_else(invalid)?;
        if made_with != fingerprint {
            return Err(invalid());
        }
        Ok(Self { micros: micros.parse().map_err(|_| invalid())?, id: id.to_owned() })
    }
}
