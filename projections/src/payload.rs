//! Stored values behind references, fetched beforehand for the codec.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chassis::journal::ReadError;
use domain::codec::{self, DecodeError};
use serde_json::Value;

use crate::histories::Past;

/// Stored values by hash.
#[derive(Default)]
pub(crate) struct Blobs(HashMap<Arc<str>, Bytes>);

impl Blobs {
    /// Fetches all that some stored texts refer to.
    pub(crate) async fn fetch<'a>(
        past: &(impl Past + ?Sized),
        stored: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, ReadError> {
        let mut hashes: Vec<Arc<str>> =
            stored.into_iter().flat_map(codec::refs).map(Arc::from).collect();
        if hashes.is_empty() {
            return Ok(Self::default());
        }
        hashes.sort();
        hashes.dedup();
        let payloads = past.payloads(&hashes).await?;
        Ok(Self(payloads.into_iter().map(|payload| (payload.hash, payload.bytes)).collect()))
    }

    /// Whether none were referred to.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, hash: &str) -> Option<Vec<u8>> {
        self.0.get(hash).map(|bytes| bytes.to_vec())
    }

    /// The value of a stored text; without stored values at hand, one that refers to some is
    /// `null`.
    pub(crate) fn value(blobs: Option<&Self>, stored: &str) -> Result<Value, DecodeError> {
        let stored = stored.as_bytes();
        match blobs {
            None if !codec::refs(stored).is_empty() => Ok(Value::Null),
            None => codec::value(stored, &|_| None),
            Some(blobs) => codec::value(stored, &|hash| blobs.get(hash)),
        }
    }

    /// Bytes of all of them.
    pub(crate) fn size(&self) -> usize {
        self.0.values().map(Bytes::len).sum()
    }
}
