//! The hash of a definition's content: what makes two versions the same.

use sha2::{Digest, Sha256};

use crate::definition::Definition;

/// SHA-256 of a definition's canonical JSON (RFC 8785), as 64 hexadecimal digits.
pub fn content_hash(definition: &Definition) -> Result<String, serde_json::Error> {
    let canonical = serde_json_canonicalizer::to_vec(definition)?;
    Ok(data_encoding::HEXLOWER.encode(&Sha256::digest(canonical)))
}
