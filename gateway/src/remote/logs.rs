//! The log store.

use async_trait::async_trait;
use domain::ids::WorkspaceId;
use protocol::remote::QueryCall;
use protocol::{LogFilter, LogQueries, LogRecord, Page, PageRequest, Rejection};

use super::Remote;

#[async_trait]
impl LogQueries for Remote {
    async fn list(
        &self,
        workspace_id: Option<WorkspaceId>,
        filter: LogFilter,
        page: PageRequest,
    ) -> Result<Page<LogRecord>, Rejection> {
        self.query_page(page.limit, |limit| {
            let (filter, page) = (filter.clone(), PageRequest { limit, ..page.clone() });
            QueryCall::ListLogs { workspace_id, filter, page }
        })
        .await
    }
}
