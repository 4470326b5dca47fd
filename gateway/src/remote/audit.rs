//! The audit log, and bundles, which come from one projector to their end or not at all.

use async_trait::async_trait;
use chassis::bus::RequestError;
use domain::ids::WorkspaceId;
use futures::stream::{self, BoxStream, StreamExt as _};
use protocol::remote::{EXPORT, QueryCall};
use protocol::{
    AuditEntry, AuditFilter, AuditHeads, AuditQueries, ExportAudit, Page, PageRequest, Rejection,
};

use super::{Remote, decoded, encoded, unavailable};

#[async_trait]
impl AuditQueries for Remote {
    async fn list(
        &self,
        workspace_id: WorkspaceId,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, Rejection> {
        self.query_page(page.limit, |limit| {
            let (filter, page) = (filter.clone(), PageRequest { limit, ..page.clone() });
            QueryCall::ListAudit { workspace_id, filter, page }
        })
        .await
    }

    async fn heads(&self, after: u64, limit: u32) -> Result<AuditHeads, Rejection> {
        self.query(QueryCall::AuditHeads { after, limit }).await
    }

    async fn export(
        &self,
        asked: ExportAudit,
    ) -> Result<BoxStream<'static, Result<String, Rejection>>, Rejection> {
        let opened = self.nats.open_stream(EXPORT, encoded(&asked)?).await;
        let mut messages = opened.map_err(away)?;
        let first = messages.next().await.ok_or_else(broken_off)?;
        let first: String = decoded(&first.map_err(away)?)?;
        let rest = messages.map(|message| decoded(&message.map_err(away)?));
        Ok(stream::iter([Ok(first)]).chain(rest).boxed())
    }
}

fn away(error: RequestError) -> Rejection {
    tracing::debug!(%error, "an export broke off");
    broken_off()
}

fn broken_off() -> Rejection {
    unavailable("the export broke off: ask for it again")
}
