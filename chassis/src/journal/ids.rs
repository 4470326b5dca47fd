//! Ids of aggregates, one after the other; the journal gives them by pages.

use std::future::Future;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::{Journal, ReadError};

/// Ids that are read at once.
const PAGE: usize = 1_000;

/// The ids of a shard's aggregates that still owe work, in order: see
/// [`Journal::open_aggregates`].
pub fn open_ids<'a>(
    journal: &'a dyn Journal,
    aggregate_type: &'a str,
    shard: u16,
) -> BoxStream<'a, Result<Arc<str>, ReadError>> {
    by_page(move |after| async move {
        journal.open_aggregates(aggregate_type, shard, &after, PAGE).await
    })
}

/// The ids of a type's aggregates that still owe work and lean on one, in order: see
/// [`Journal::leaning`].
pub fn leaning_ids<'a>(
    journal: &'a dyn Journal,
    aggregate_type: &'a str,
    on: &'a str,
) -> BoxStream<'a, Result<Arc<str>, ReadError>> {
    by_page(move |after| async move { journal.leaning(aggregate_type, on, &after, PAGE).await })
}

/// The ids of all aggregates of a type, in order: see [`Journal::aggregates`].
pub fn all_ids<'a>(
    journal: &'a dyn Journal,
    aggregate_type: &'a str,
) -> BoxStream<'a, Result<Arc<str>, ReadError>> {
    by_page(move |after| async move { journal.aggregates(aggregate_type, &after, PAGE).await })
}

/// What pages after an id have, until one isn't full.
fn by_page<'a, F>(
    page: impl Fn(Arc<str>) -> F + Send + 'a,
) -> BoxStream<'a, Result<Arc<str>, ReadError>>
where
    F: Future<Output = Result<Vec<Arc<str>>, ReadError>> + Send + 'a,
{
    let pages = stream::try_unfold(Some(Arc::from("")), move |after: Option<Arc<str>>| {
        let page = after.map(&page);
        async move {
            let Some(page) = page else { return Ok(None) };
            let ids = page.await?;
            let after = ids.last().filter(|_| ids.len() == PAGE).cloned();
            Ok(Some((stream::iter(ids).map(Ok), after)))
        }
    });
    pages.try_flatten().boxed()
}
