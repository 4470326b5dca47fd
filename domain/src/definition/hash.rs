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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::parse;

    #[test]
    fn the_hash_is_of_the_content_and_not_of_its_form() {
        let hash = |source: &str| content_hash(&parse::read(source.as_bytes()).expect("valid"));
        let one = hash("name: x\nstart: a\nnodes: {a: {compute: {state.x: 1, state.y: 2}}}\n");
        let same = "{\"nodes\": {\"a\": {\"compute\": {\"state.y\": 2, \"state.x\": 1}}}, \
                    \"start\": \"a\", \"name\": \"x\"}";
        assert_eq!(one.len(), 64);
        assert_eq!(one, hash(same));
        assert_ne!(one, hash(&same.replace('2', "3")));
    }
}
