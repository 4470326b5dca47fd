//! The fake audit log: it is empty, and keeps what it was asked for.

use async_trait::async_trait;
use domain::ids::WorkspaceId;
use futures::stream::{self, BoxStream, StreamExt as _};
use protocol::{
    AuditEntry, AuditFilter, AuditHead, AuditHeads, AuditQueries, ExportAudit, Page, PageRequest,
    Rejection, RejectionKind,
};

use super::World;

#[async_trait]
impl AuditQueries for World {
    async fn list(
        &self,
        _: WorkspaceId,
        filter: AuditFilter,
        _: PageRequest,
    ) -> Result<Page<AuditEntry>, Rejection> {
        self.audit_filters.lock().expect("lock").push(filter);
        Ok(Page { items: Vec::new(), next_cursor: None })
    }

    async fn export(
        &self,
        asked: ExportAudit,
    ) -> Result<BoxStream<'static, Result<String, Rejection>>, Rejection> {
        self.exports.lock().expect("lock").push(asked);
        let broken = Rejection::new(RejectionKind::Unavailable, "unavailable", "away");
        let ends = !*self.lag.lock().expect("lock");
        let pieces = [Ok("{\"manifest\":{}}\n".to_owned()), Ok("{\"end\":{}}\n".to_owned())];
        let cut = if ends { None } else { Some(Err(broken)) };
        let pieces = pieces.into_iter().take(if ends { 2 } else { 1 }).chain(cut);
        Ok(stream::iter(pieces.collect::<Vec<_>>()).boxed())
    }

    async fn heads(&self, after: u64, limit: u32) -> Result<AuditHeads, Rejection> {
        let head = |position| AuditHead {
            epoch: "00000007".to_owned(),
            position,
            hash: "00".repeat(32),
            signed_at: "2026-01-01T00:00:00.000000Z".to_owned(),
            key_id: "00".repeat(8),
            signature: String::new(),
        };
        let items: Vec<_> = (after + 1..=5).take(limit as usize).map(head).collect();
        let next_after = items.last().map(|head| head.position).filter(|last| *last < 5);
        Ok(AuditHeads { items, next_after, public_key: None })
    }
}
