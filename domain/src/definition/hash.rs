//! The content hash that a definition is addressed by.

use sha2::{Digest, Sha256};

use super::Definition;

/// SHA-256 of a definition's canonical JSON (RFC 8785), as 64 hexadecimal digits. The order of
/// keys, comments and the format of the source don't change it.
///
/// # Errors
/// Where a value of the definition has no canonical form.
pub fn content_hash(definition: &Definition) -> Result<String, serde_json::Error> {
    let canonical = serde_json_canonicalizer::to_vec(definition)?;
    Ok(data_encoding::HEXLOWER.encode(&Sha256::digest(canonical)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::parse;

    #[test]
    fn the_hash_is_of_the_content_and_not_of_its_form() {
        let hash = |source: &str| {
            content_hash(&parse::read(source.as_bytes()).expect("valid")).expect("canonical")
        };
        let one = hash("name: x\nstart: a\nnodes: {a: {compute: {state.x: 1, state.y: 2}}}\n");
        let same = "{\"nodes\": {\"a\": {\"compute\": {\"state.y\": 2, \"state.x\": 1}}}, \
                    \"start\": \"a\", \"name\": \"x\"}";
        assert_eq!(one.len(), 64);
        assert_eq!(one, hash(same));
        assert_ne!(one, hash(&same.replace('2', "3")));
    }
}
