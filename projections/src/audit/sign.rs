//! Signing: every few seconds the head of the chain, where it has moved.

use std::sync::Arc;

use chassis::clock::{Clock as _, SystemClock};
use domain::audit::AuditKey;
use tokio_util::sync::CancellationToken;

use super::newest;
use crate::Projections;
use crate::projection::FoldError;
use crate::projector::Ended;
use crate::store::sql::sql;

/// Signs until the token is cancelled, and then once more.
pub(crate) async fn run(
    this: Arc<Projections>,
    key: AuditKey,
    shutdown: CancellationToken,
) -> Ended {
    let mut signed = 0;
    loop {
        let every = tokio::time::sleep(this.config.audit_every);
        let is_last = shutdown.run_until_cancelled(every).await.is_none();
        match this.sign(&key, signed).await {
            Ok(position) => {
                signed = position;
                metrics::gauge!("wonder_audit_signed_position").set(position as f64);
            }
            // It is tried again, and nothing is lost: the chain goes on.
            Err(error) => tracing::warn!(%error, "the head of the audit chain can't be signed"),
        }
        if is_last {
            return Ended::Asked;
        }
    }
}

impl Projections {
    /// Signs what is sealed, if it is more than `signed`; answers how far it is signed.
    async fn sign(&self, key: &AuditKey, signed: u64) -> Result<u64, FoldError> {
        let mut writer = self.store.writer().lock().await;
        let mut session = writer.as_mut().ok_or(FoldError::NoWriter)?.session();
        let Some(newest) = newest(&mut session).await? else { return Ok(signed) };
        let chain = newest.chain()?;
        if chain.position <= signed {
            return Ok(signed);
        }
        let head = key.sign(self.journal.epoch(), &chain, SystemClock::new().now());
        let insert =
            sql("insert into signed_heads (position, hash, signed_at, key_id, signature) \
             values ($1, $2, $3, $4, $5) on conflict (position) do nothing");
        let insert = insert
            .bind(chain.position.cast_signed())
            .bind(head.hash)
            .bind(head.signed_at)
            .bind(head.key_id)
            .bind(head.signature);
        session.execute(insert).await?;
        Ok(chain.position)
    }
}
