//! Deleting very many items: an entity with all it has, a namespace with all it holds.
//!
//! Both delete in an order that keeps findable what is left, so that a work that was interrupted is finished
//! by doing it again. Deleting what is gone changes nothing, so batches are repeated without fear.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Answer, Item, Key, Op, Query};

use crate::admin::pages::Pages;
use crate::admin::retry::LONG;
use crate::error::{Error, Place};
use crate::table::{BATCH_DELETE_LIMIT, Table};

/// How many batches are on their way at once.
pub(crate) const IN_FLIGHT: usize = 8;

/// How many items are looked for before they are deleted.
const PAGE: u32 = 1000;

/// Told how many records have been deleted so far.
pub type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// A deletion that is under way.
pub(crate) struct Sweep<'a> {
    place: &'a Place,
    table: &'a Arc<dyn Table>,
    progress: Progress<'a>,
    deleted: AtomicU64,
}

impl<'a> Sweep<'a> {
    pub(crate) fn new(place: &'a Place, table: &'a Arc<dyn Table>, progress: Progress<'a>) -> Self {
        Self {
            place,
            table,
            progress,
            deleted: AtomicU64::new(0),
        }
    }

    /// Records deleted so far.
    pub(crate) fn deleted(&self) -> u64 {
        self.deleted.load(Ordering::Relaxed)
    }

    /// Counts records that were deleted by other means.
    pub(crate) fn count(&self, records: u64) {
        let before = self.deleted.fetch_add(records, Ordering::Relaxed);
        (self.progress)(before + records);
    }

    /// Deletes items by key.
    pub(crate) async fn delete(&self, keys: &[Key]) -> Result<(), Error> {
        // Owned, so that the future can be sent between threads.
        let batches: Vec<Vec<Key>> = keys.chunks(BATCH_DELETE_LIMIT).map(<[Key]>::to_vec).collect();
        stream::iter(batches)
            .map(|batch| self.delete_batch(batch))
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
    }

    async fn delete_batch(&self, batch: Vec<Key>) -> Result<(), Error> {
        let answer = self
            .place
            .insisting(LONG, || self.table.call(Op::BatchDelete(batch.clone())))
            .await?;
        debug_assert!(matches!(answer, Answer::Applied(_)), "{answer:?}");
        self.count(batch.len() as u64);
        Ok(())
    }

    /// Deletes what a query finds, page by page, but for what `keep` says. Returns how many were found.
    pub(crate) async fn delete_found(
        &self,
        query: Query,
        keep: impl Fn(&Item) -> bool + Send + Sync + 'static,
    ) -> Result<u64, Error> {
        let mut pages = self.pages(query.page(PAGE), move |item| key_of(item).filter(|_| !keep(item)));
        let mut found = 0;
        while let Some(keys) = pages.next_page().await? {
            found += keys.len() as u64;
            self.delete(&keys).await?;
        }
        Ok(found)
    }

    /// The keys of all that a query finds.
    pub(crate) async fn find(&self, query: Query) -> Result<Vec<Key>, Error> {
        self.pages(query, key_of).all().await
    }

    fn pages(&self, query: Query, key: impl Fn(&Item) -> Option<Key> + Send + Sync + 'static) -> Pages<Key> {
        Pages::new(self.place, self.table, Some(query), move |item| Ok(key(item))).patience(LONG)
    }
}
