//! The configuration cache: what the levels say, remembered for a while.
//!
//! Two layers. *Slots* hold single records (an entity's META, one level's configuration, or the knowledge that
//! there is none), each for the time to live. *Assembled* results hold the five slots of an entity and
//! resource put together, so that a warm acquire costs one lookup. Fetching is single-flight per entity and
//! resource: of concurrent misses one reads, the others wait for it, and misses of other keys do not queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use zae_limiter_core::acquire::AcquireError;
use zae_limiter_core::config::Resolved;
use zae_limiter_core::resolve::{Slot, Stored, resolve};
use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Key, TableError};
use zae_limiter_core::{EntityId, EpochMillis, NamespaceId, ResourceName};

use crate::clock::Clock;
use crate::table::{Table, TableExt};

/// How many records and results are remembered at most.
const CAPACITY: usize = 100_000;

/// What the cache has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Acquires and queries answered without reading the table.
    pub hits: u64,
    /// Acquires and queries that had to read at least one record.
    pub misses: u64,
    /// Requests refused from memory, without a call; see [`crate::RepositoryBuilder::reject_cache_ttl`].
    pub local_rejections: u64,
    /// Records remembered, expired ones included.
    pub size: u64,
    /// How long a record is remembered.
    pub ttl: Duration,
}

#[derive(Debug, Clone)]
struct SlotEntry {
    stored: Arc<Stored>,
    read_at: EpochMillis,
}

#[derive(Debug, Clone)]
struct Assembled {
    config: Arc<Resolved>,
    generation: u64,
    /// Which read of all records, all of them consistent, it comes from; 0 if from none.
    read: u64,
}

type Pair = (EntityId, ResourceName);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct ConfigCache {
    namespace: NamespaceId,
    ttl: Duration,
    slots: Cache<Key, SlotEntry>,
    assembled: Cache<Pair, Assembled>,
    /// Serialises fetches of one pair.
    fetching: Cache<Pair, Arc<tokio::sync::Mutex<()>>>,
    generation: AtomicU64,
    /// Counts reads of all records.
    reads: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    pub(crate) local_rejections: AtomicU64,
}

impl ConfigCache {
    pub(crate) fn new(namespace: NamespaceId, ttl: Duration) -> Self {
        Self {
            namespace,
            ttl,
            slots: Cache::new(CAPACITY),
            assembled: Cache::new(CAPACITY),
            fetching: Cache::new(1024),
            generation: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            local_rejections: AtomicU64::new(0),
        }
    }

    fn is_fresh(&self, read_at: EpochMillis, now: EpochMillis) -> bool {
        let age = now.since(read_at);
        age >= 0 && (age as u128) < self.ttl.as_millis()
    }

    /// The configuration if it is remembered and fresh.
    pub(crate) fn peek(
        &self,
        entity: &EntityId,
        resource: &ResourceName,
        now: EpochMillis,
    ) -> Option<Arc<Resolved>> {
        let entry = self.assembled.get(&(entity.clone(), resource.clone()))?;
        let current = entry.generation == self.generation.load(Ordering::Acquire);
        if current && self.is_fresh(entry.config.read_at, now) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Some(entry.config);
        }
        None
    }

    /// The configuration as last read, however old. Good for limits during an outage, and nothing else.
    pub(crate) fn stale(&self, entity: &EntityId, resource: &ResourceName) -> Option<Arc<Resolved>> {
        self.assembled
            .get(&(entity.clone(), resource.clone()))
            .map(|entry| entry.config)
    }

    /// Reads what is not remembered and puts it together. With `fresh`, reads all of it, consistently; of concurrent
    /// calls, those that wait share a read that began after they did.
    pub(crate) async fn fetch(
        &self,
        table: &dyn Table,
        clock: &dyn Clock,
        entity: &EntityId,
        resource: &ResourceName,
        fresh: bool,
    ) -> Result<Arc<Resolved>, AcquireError> {
        let pair = (entity.clone(), resource.clone());
        let lock = self
            .fetching
            .get_or_insert_with(&pair, || Ok::<_, std::convert::Infallible>(Arc::default()));
        let Ok(lock) = lock;
        let before = self.reads.load(Ordering::Acquire);
        let _flight = lock.lock().await;
        if fresh {
            let shared = self.assembled.get(&pair).filter(|entry| {
                entry.read > before && entry.generation == self.generation.load(Ordering::Acquire)
            });
            if let Some(entry) = shared {
                return Ok(entry.config);
            }
        } else if let Some(config) = self.peek(entity, resource, clock.now()) {
            return Ok(config);
        }
        let generation = self.generation.load(Ordering::Acquire);
        let read = if fresh {
            self.reads.fetch_add(1, Ordering::AcqRel) + 1
        } else {
            0
        };
        let stored = match self.slots(table, clock, entity, resource, fresh).await {
            Ok(stored) => stored,
            Err(AcquireError::Table(err)) if !fresh => return self.fall_back(&pair, err),
            Err(err) => return Err(err),
        };
        let oldest = stored.iter().map(|entry| entry.read_at).min().unwrap_or_default();
        let refs: [&Stored; 5] = std::array::from_fn(|i| &*stored[i].stored);
        let config = Arc::new(resolve(entity, refs, oldest));
        self.assembled.insert(
            pair,
            Assembled {
                config: Arc::clone(&config),
                generation,
                read,
            },
        );
        Ok(config)
    }

    /// During an outage the last known limits go on being used: refusing or admitting is up to the write.
    fn fall_back(&self, pair: &Pair, err: TableError) -> Result<Arc<Resolved>, AcquireError> {
        match self.stale(&pair.0, &pair.1) {
            Some(config) if crate::repository::is_outage(&err) => {
                tracing::warn!(error = %err, "configuration cannot be read, going on with the last known");
                Ok(config)
            }
            _ => Err(err.into()),
        }
    }

    async fn slots(
        &self,
        table: &dyn Table,
        clock: &dyn Clock,
        entity: &EntityId,
        resource: &ResourceName,
        fresh: bool,
    ) -> Result<[SlotEntry; 5], AcquireError> {
        let keys = Slot::ALL.map(|slot| slot.key(&self.namespace, entity, resource));
        let now = clock.now();
        let mut found: [Option<SlotEntry>; 5] = keys.each_ref().map(|key| {
            let entry = self
                .slots
                .get(key)
                .filter(|entry| self.is_fresh(entry.read_at, now));
            entry.filter(|_| !fresh)
        });
        let missing: Vec<Key> = keys
            .iter()
            .zip(&found)
            .filter(|(_, entry)| entry.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        let counter = if missing.is_empty() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if !missing.is_empty() {
            let items = table.batch_get(missing, fresh).await?;
            for (i, key) in keys
                .iter()
                .enumerate()
                .filter(|(i, _)| found[*i].is_none())
                .collect::<Vec<_>>()
            {
                let item = items.iter().find(|item| key_of(item).as_ref() == Some(key));
                let stored = Arc::new(Stored::decode(Slot::ALL[i], item)?);
                let entry = SlotEntry { stored, read_at: now };
                self.slots.insert(key.clone(), entry.clone());
                found[i] = Some(entry);
            }
        }
        Ok(found.map(|entry| {
            entry.unwrap_or_else(|| SlotEntry {
                stored: Arc::default(),
                read_at: now,
            })
        }))
    }

    /// Forgets one record, and everything put together from it.
    pub(crate) fn forget(&self, key: &Key) {
        self.slots.remove(key);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.slots.clear();
        self.assembled.clear();
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            local_rejections: self.local_rejections.load(Ordering::Relaxed),
            size: self.slots.len() as u64,
            ttl: self.ttl,
        }
    }
}
