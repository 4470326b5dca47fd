//! Page cursors: where a list goes on, bound to the filter that it was made with.

use data_encoding::BASE64URL_NOPAD;
use protocol::{Page, PageRequest, Rejection, RejectionKind};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::refusal;

/// Rows of a page.
const PAGE_ROWS: u32 = 200;
/// Bytes of a row's id: a run's with the number of a token is the longest.
const ID_BYTES: usize = 64;

/// The last row of a page: lists are ordered by time and id, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) micros: i64,
    pub(crate) id: String,
}

/// A number that another filter doesn't have.
fn fingerprint(scope: &str, filter: &impl Serialize) -> String {
    let filter = serde_json::to_vec(filter).unwrap_or_default();
    let digest =
        Sha256::new().chain_update(scope).chain_update([0]).chain_update(filter).finalize();
    data_encoding::HEXLOWER.encode(&digest[..8])
}

/// Bytes of rows after which a page ends, whatever its limit: as JSON it stays far below the 16 MiB
/// that a bus carries.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// A row of a list.
pub(crate) trait Listed {
    /// Its place in the list.
    fn place(&self) -> After;

    /// Bytes that it takes, roughly.
    fn bytes(&self) -> usize;
}

/// A page of a list, as it is asked for.
pub(crate) struct Asked {
    fingerprint: String,
    after: Option<After>,
    limit: u32,
}

impl Asked {
    /// Checks a request for a page of what `scope` sees through a filter.
    pub(crate) fn read(
        page: &PageRequest,
        scope: &str,
        filter: &impl Serialize,
    ) -> Result<Self, Rejection> {
        if !(1..=PAGE_ROWS).contains(&page.limit) {
            return Err(refusal::limit(PAGE_ROWS));
        }
        let fingerprint = fingerprint(scope, filter);
        let after = page.cursor.as_deref().map(|text| After::read(text, &fingerprint));
        Ok(Self { after: after.transpose()?, fingerprint, limit: page.limit })
    }

    /// The time after which the page begins; a parameter of the query, as the next two.
    pub(crate) fn micros(&self) -> Option<i64> {
        self.after.as_ref().map(|after| after.micros)
    }

    /// The id after which it begins, at that time.
    pub(crate) fn id(&self) -> Option<String> {
        self.after.as_ref().map(|after| after.id.clone())
    }

    /// How many rows are to be read: one more than the page has, to see whether there is a next.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// The page of these rows.
    pub(crate) fn page<R: Listed, V>(
        &self,
        mut rows: Vec<R>,
        view: impl Fn(R) -> Result<V, Rejection>,
    ) -> Result<Page<V>, Rejection> {
        let next_cursor = cut(&mut rows, self.limit, &self.fingerprint);
        let items = rows.into_iter().map(view).collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor })
    }
}

/// Cuts the rows of a page, of which one more than the limit was read, and gives the cursor to
/// the next page where there is one.
fn cut<R: Listed>(rows: &mut Vec<R>, limit: u32, fingerprint: &str) -> Option<String> {
    let mut bytes = 0;
    let fits = rows.iter().take(limit as usize).take_while(|row| {
        bytes += row.bytes();
        bytes <= PAGE_BYTES
    });
    let kept = fits.count().max(1);
    let more = rows.len() > kept;
    rows.truncate(kept);
    rows.last().filter(|_| more).map(|row| row.place().write(fingerprint))
}

impl After {
    fn write(&self, fingerprint: &str) -> String {
        let text = format!("{fingerprint}:{}:{}", self.micros, self.id);
        BASE64URL_NOPAD.encode(text.as_bytes())
    }

    fn read(cursor: &str, fingerprint: &str) -> Result<Self, Rejection> {
        let message = "the cursor doesn't belong to this list and filter: pass on the last \
                       page's next_cursor with the same filter, or start without one";
        let invalid = || Rejection::new(RejectionKind::Malformed, "invalid_cursor", message);
        let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).map_err(|_| invalid())?;
        let text = String::from_utf8(bytes).map_err(|_| invalid())?;
        let (made_with, rest) = text.split_once(':').ok_or_else(invalid)?;
        let (micros, id) = rest.split_once(':').ok_or_else(invalid)?;
        let after = Self { micros: micros.parse().map_err(|_| invalid())?, id: id.to_owned() };
        // What nobody was given isn't asked of the database, which takes no U+0000 for one.
        let is_own = made_with == fingerprint && is_id(id) && after.write(fingerprint) == cursor;
        if is_own { Ok(after) } else { Err(invalid()) }
    }
}

/// Whether a text can be the id of a row.
fn is_id(text: &str) -> bool {
    (1..=ID_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTER: &str = "0011223344556677";

    fn encoded(text: &str) -> String {
        BASE64URL_NOPAD.encode(text.as_bytes())
    }

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        let id = "run_01900000000000000000000000.18446744073709551615".to_owned();
        for micros in [0, -1, i64::MIN, i64::MAX] {
            let after = After { micros, id: id.clone() };
            assert_eq!(After::read(&after.write(FILTER), FILTER), Ok(after.clone()));
            let refused = After::read(&after.write("another"), FILTER).expect_err("another filter");
            assert_eq!(
                (refused.kind, &*refused.code),
                (RejectionKind::Malformed, "invalid_cursor")
            );
        }
    }

    #[test]
    fn what_nobody_was_given_is_refused() {
        for rest in ["1:a\0", "1:", "+1:a", "01:a", "1:ä", "9223372036854775808:a", "1", ":a"] {
            assert!(
                After::read(&encoded(&format!("{FILTER}:{rest}")), FILTER).is_err(),
                "{rest:?}"
            );
        }
        let long = |bytes| encoded(&format!("{FILTER}:1:{}", "a".repeat(bytes)));
        assert!(After::read(&long(ID_BYTES), FILTER).is_ok());
        assert!(After::read(&long(ID_BYTES + 1), FILTER).is_err());
    }

    #[test]
    fn a_hostile_text_is_a_cursor_as_it_was_given_or_refused() {
        let plain = format!("{FILTER}:1700000000000000:run_01900000000000000000000000");
        let check = |cursor: &str| match After::read(cursor, FILTER) {
            Ok(after) => assert!(after.write(FILTER) == cursor && is_id(&after.id)),
            Err(refused) => assert_eq!(refused.code, "invalid_cursor"),
        };
        graphs::holds(1_000, graphs::hostile_text(&[&encoded(&plain)]), |text| check(&text));
        graphs::holds(1_000, graphs::hostile(&[&plain]), |bytes| {
            check(&BASE64URL_NOPAD.encode(&bytes));
        });
    }
}
