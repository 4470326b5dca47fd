//! API keys: `wonder_<key id>_<256 bits in base32>`. Only the secret's SHA-256 is stored.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use data_encoding::{BASE32_DNSSEC, HEXLOWER};
use domain::ids::{ApiKeyId, WorkspaceId};
use domain::resource::{Kind, Scope};
use protocol::{Actor, RejectionKind};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Caller;
use crate::config::AuthConfig;
use crate::edge::Edge;
use crate::environment::Environment;
use crate::refusals::{Stranger, Unknown};

/// How long a key is taken as it was read: a revoked one stops within this time.
const FRESH: Duration = Duration::from_secs(5);
const CACHED_KEYS: usize = 10_000;

/// The secret half of a new API key. Shown once; its hash is what is stored.
pub struct Secret([u8; 32]);

impl Secret {
    /// Draws a new one.
    pub fn new(environment: &dyn Environment) -> Self {
        Self(environment.secret())
    }

    /// SHA-256 of the 32 bytes, 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.0))
    }

    /// What the client sends as `Authorization: Bearer …`, once the key has its id.
    pub fn token(&self, id: ApiKeyId) -> String {
        let id = id.to_string();
        let id = id.strip_prefix("key_").unwrap_or(&id);
        format!("wonder_{id}_{}", BASE32_DNSSEC.encode(&self.0))
    }
}

/// What of a key matters at sign-in.
#[derive(Clone)]
struct Key {
    workspace_id: WorkspaceId,
    hash: [u8; 32],
    scopes: Vec<Scope>,
    expires_at: Option<DateTime<Utc>>,
    read_at: DateTime<Utc>,
}

/// Keys as they were read lately.
#[derive(Default)]
pub(crate) struct KeyCache(Mutex<HashMap<ApiKeyId, Key>>);

impl KeyCache {
    fn fresh(&self, id: ApiKeyId, now: DateTime<Utc>) -> Option<Key> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |key: &Key| now.signed_duration_since(key.read_at).to_std();
        keys.get(&id).filter(|key| age(key).is_ok_and(|age| age < FRESH)).cloned()
    }

    fn keep(&self, id: ApiKeyId, key: Key) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= CACHED_KEYS {
            keys.clear();
        }
        keys.insert(id, key);
    }
}

/// The fields of `ApiKeySpec` that count here; a view may carry more.
#[derive(Deserialize)]
struct Stored {
    workspace_id: WorkspaceId,
    secret_hash: String,
    scopes: Vec<Scope>,
    #[serde(default)]
    expires_at: Option<DateTime<Utc>>,
}

/// The caller behind an `Authorization` header.
pub(super) async fn identify(edge: &Edge, header: &str) -> Result<Caller, Unknown> {
    // Of what isn't a key of ours nothing is recorded: it may be somebody's secret elsewhere.
    let not_a_key = || Stranger::without("not_a_key");
    let token = bearer(header).ok_or_else(not_a_key)?;
    if let AuthConfig::Keys { administrator: Some(administrator) } = edge.gateway.config.auth
        && administrator.is(token)
    {
        return Ok(Caller::everything("administrator", administrator.workspace_id));
    }
    let (id, secret) = parse(token).ok_or_else(not_a_key)?;
    let now = edge.gateway.environment.now();
    let key = match edge.keys.fresh(id, now) {
        Some(key) => key,
        None => {
            let key = look_up(edge, id, now).await?;
            edge.keys.keep(id, key.clone());
            key
        }
    };
    let is_right = same(&key.hash, &Sha256::digest(secret).into());
    let is_over = key.expires_at.is_some_and(|end| end <= now);
    if !is_right || is_over {
        let why = if is_right { "expired" } else { "wrong_secret" };
        let workspace_id = Some(key.workspace_id);
        return Err(Stranger { why, key: Some(id), workspace_id }.into());
    }
    Ok(Caller {
        actor: Actor(id.to_string()),
        workspace_id: key.workspace_id,
        scopes: key.scopes,
        platform: false,
    })
}

/// The token of a `Bearer` header.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn parse(token: &str) -> Option<(ApiKeyId, Vec<u8>)> {
    let (id, secret) = token.strip_prefix("wonder_")?.split_once('_')?;
    let secret = BASE32_DNSSEC.decode(secret.as_bytes()).ok()?;
    Some((format!("key_{id}").parse().ok()?, secret)).filter(|(_, secret)| secret.len() == 32)
}

async fn look_up(edge: &Edge, id: ApiKeyId, now: DateTime<Utc>) -> Result<Key, Unknown> {
    let stranger = |why, workspace_id| Stranger { why, key: Some(id), workspace_id };
    let found = edge.gateway.resources.get(None, Kind::ApiKey, &id.to_string(), None).await;
    let view = match found {
        Ok(view) if !view.archived => view,
        Ok(view) => {
            let workspace_id = Stored::deserialize(&view.spec).ok().map(|key| key.workspace_id);
            return Err(stranger("revoked", workspace_id).into());
        }
        Err(rejection) if rejection.kind == RejectionKind::NotFound => {
            return Err(stranger("unknown_key", None).into());
        }
        Err(rejection) => {
            let stranger = stranger("unknown_key", None);
            return Err(Unknown { problem: rejection.into(), stranger });
        }
    };
    let stored = Stored::deserialize(&view.spec).ok();
    let Some((stored, hash)) = stored.and_then(|stored| {
        let hash = HEXLOWER.decode(stored.secret_hash.as_bytes()).ok()?.try_into().ok()?;
        Some((stored, hash))
    }) else {
        tracing::error!(api_key_id = %id, "stored api key could not be read");
        return Err(stranger("unknown_key", None).into());
    };
    let Stored { workspace_id, scopes, expires_at, .. } = stored;
    Ok(Key { workspace_id, hash, scopes, expires_at, read_at: now })
}

/// Compares in a time that doesn't depend on where they differ.
pub(crate) fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let difference = left.iter().zip(right).fold(0, |sum, (l, r)| sum | (l ^ r));
    std::hint::black_box(difference) == 0
}
