//! The fake log store: it is empty, and keeps what it was asked for.

use async_trait::async_trait;
use domain::ids::WorkspaceId;
use protocol::{LogFilter, LogQueries, LogRecord, Page, PageRequest, Rejection};

use super::World;

#[async_trait]
impl LogQueries for World {
    async fn list(
        &self,
        workspace_id: Option<WorkspaceId>,
        filter: LogFilter,
        _: PageRequest,
    ) -> Result<Page<LogRecord>, Rejection> {
        self.log_filters.lock().expect("lock").push((workspace_id, filter));
        Ok(Page { items: Vec::new(), next_cursor: None })
    }
}
