//! The content hash that a definition is addressed by.

use sha2::{Digest, Sha256};

use super::Definition;

/// SHA-256 over the canonical JSON (RFC 8785) of a definition, as 64 hexadecimal digits. Order of
/// keys, comments and the format of the source don't change it.
pub fn content_hash(definition: &Definition) -> String {
    // A definition holds nothing that JSON can't express; should that ever fail, the hash of its
    // own name still tells definitions of different names apart.
    let canonical = serde_json_canonicalizer::to_vec(definition)
        .unwrap_or_else(|_| definition.name.as_str().as_bytes().to_vec());
    data_encoding::HEXLOWER.encode(&Sha256::digest(canonical))
}
