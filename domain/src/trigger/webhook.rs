//! Signatures of webhooks, as Standard Webhooks 1.0 has them.
//!
//! `webhook-signature` holds one or more `v1,<base64>`, apart by spaces. Each is the HMAC-SHA256,
//! under the secret, of `<webhook-id>.<webhook-timestamp>.<body>`.

use chrono::{DateTime, Utc};
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::limits;

/// How far a webhook's time may be from ours, either way, in seconds.
pub const TOLERANCE_S: i64 = 5 * 60;

/// A secret that webhooks are signed with. Its text is `whsec_` and base64.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Reads a secret; `None` where the text isn't one. 24 to 64 bytes, as the standard says.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64.decode(text.trim().strip_prefix("whsec_")?.as_bytes()).ok()?;
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The signature of a delivery: `v1,<base64>`.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let tag = self.mac(id, &timestamp.to_string(), body).finalize().into_bytes();
        format!("v1,{}", BASE64.encode(&tag))
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        // A key of any length is taken.
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0)
            .unwrap_or_else(|_| <Hmac<Sha256> as Mac>::new(&Default::default()));
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac
    }
}

/// The headers of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed<'a> {
    pub id: &'a str,
    pub timestamp: &'a str,
    pub signature: &'a str,
}

/// The `v1` signatures of a header; others are passed over.
pub fn signatures(header: &str) -> impl Iterator<Item = Vec<u8>> + '_ {
    let texts = header.split(' ').filter_map(|one| one.strip_prefix("v1,"));
    texts.take(limits::SIGNATURES).filter_map(|text| BASE64.decode(text.as_bytes()).ok())
}

/// Whether a webhook's id can name what happened: 1 to 256 printable ASCII characters.
pub fn is_id(id: &str) -> bool {
    (1..=limits::WEBHOOK_ID_BYTES).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

impl Signed<'_> {
    /// Whether a delivery is of somebody who has one of the secrets, of about now, and unchanged.
    /// Signatures are compared in constant time.
    pub fn holds(&self, secrets: &[Secret], body: &[u8], now: DateTime<Utc>) -> bool {
        let Ok(timestamp) = self.timestamp.parse::<i64>() else { return false };
        let is_recent = timestamp
            .checked_sub(now.timestamp())
            .is_some_and(|ahead| (-TOLERANCE_S..=TOLERANCE_S).contains(&ahead));
        let mut holds = false;
        for signature in signatures(self.signature) {
            for secret in secrets {
                let mac = secret.mac(self.id, self.timestamp, body);
                holds |= mac.verify_slice(&signature).is_ok();
            }
        }
        holds && is_recent && is_id(self.id)
    }
}
