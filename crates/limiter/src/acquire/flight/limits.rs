//! How many places an entity and resource have: read from the table, and cached for as long as other configuration.

use std::time::Duration;

use quick_cache::sync::Cache;
use zae_limiter_core::acquire::AcquireError;
use zae_limiter_core::concurrency::{concurrency_keys, concurrency_limit};
use zae_limiter_core::config::Level;
use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Item, Key, TableError};
use zae_limiter_core::{EntityId, EpochMillis, ResourceName};

use crate::inner::Inner;
use crate::table::TableExt as _;

/// How many records are cached at most.
const CAPACITY: usize = 100_000;

#[derive(Debug, Clone, Copy)]
struct Record {
    limit: Option<u32>,
    read_at: EpochMillis,
}

/// The cached records.
#[derive(Debug)]
pub(crate) struct Limits {
    ttl: Duration,
    records: Cache<Key, Record>,
}

impl Limits {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            records: Cache::new(CAPACITY),
        }
    }

    /// Forgets one record.
    pub(crate) fn forget(&self, key: &Key) {
        self.records.remove(key);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.records.clear();
    }

    fn get(&self, key: &Key, now: EpochMillis, stale: bool) -> Option<Record> {
        let record = self.records.get(key)?;
        let age = now.since(record.read_at);
        let is_fresh = age >= 0 && (age as u128) < self.ttl.as_millis();
        (stale || is_fresh).then_some(record)
    }

    /// The record that decides by what is cached, or the last one, which has no limit either. `None` if one that could decide is
    /// not cached.
    fn deciding(&self, keys: &[(Level, Key)], now: EpochMillis, stale: bool) -> Option<Record> {
        let mut last = None;
        for (_, key) in keys {
            let record = self.get(key, now, stale)?;
            if record.limit.is_some() {
                return Some(record);
            }
            last = Some(record);
        }
        last
    }
}

impl Inner {
    /// How many requests of an entity and resource may be in flight; `None` if no level says so. For requests of entities below it
    /// (`of_others`), only what is stored for the entity itself counts: the limits of the resource and the system are for each
    /// entity's own requests.
    ///
    /// If the table cannot be read, the last known limit continues being used, unless it is to be read consistently.
    pub(in crate::acquire) async fn most_in_flight(
        &self,
        entity: &EntityId,
        resource: &ResourceName,
        of_others: bool,
        consistent: bool,
    ) -> Result<Option<u32>, AcquireError> {
        let keys = concurrency_keys(&self.namespace, entity, resource);
        let is_entitys = |level: Level| matches!(level, Level::Entity | Level::EntityDefault);
        let keys = keys
            .into_iter()
            .filter(|(level, _)| !of_others || is_entitys(*level));
        let keys: Vec<_> = keys.collect();
        let limits = &self.flight.limits;
        let now = self.clock.now();
        let cached = limits.deciding(&keys, now, false);
        if let Some(record) = cached.filter(|_| !consistent) {
            return Ok(record.limit);
        }
        let missing = keys
            .iter()
            .filter(|(_, key)| consistent || limits.get(key, now, false).is_none());
        let missing: Vec<Key> = missing.map(|(_, key)| key.clone()).collect();
        let items = match self.read_limits(missing.clone(), consistent).await {
            Ok(items) => items,
            Err(err) => {
                let known = limits.deciding(&keys, now, true);
                let known = known.filter(|_| err.is_outage() && !consistent);
                return known.map(|record| record.limit).ok_or_else(|| err.into());
            }
        };
        let mut found = Vec::with_capacity(missing.len());
        for key in missing {
            let item = items.iter().find(|item| key_of(item).as_ref() == Some(&key));
            let limit = item.map(concurrency_limit).transpose()?;
            limits.records.insert(key.clone(), Record { limit, read_at: now });
            found.push((key, limit));
        }
        // Not from the cache alone, which keeps only so many.
        let limit = |key: &Key| {
            let read = found
                .iter()
                .find(|(read, _)| read == key)
                .map(|(_, limit)| *limit);
            let cached = || limits.get(key, now, true).and_then(|record| record.limit);
            read.unwrap_or_else(cached)
        };
        Ok(keys.iter().find_map(|(_, key)| limit(key)))
    }

    async fn read_limits(&self, keys: Vec<Key>, consistent: bool) -> Result<Vec<Item>, TableError> {
        let permit = self.permits.enter(&self.clock).await?;
        self.breaker.sending();
        let read = self.table.batch_get(keys, consistent).await;
        drop(permit);
        self.breaker.hear(&read);
        read
    }
}
