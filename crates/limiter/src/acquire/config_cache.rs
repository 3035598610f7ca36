//! The configuration cache: what the levels say, cached for a while.
//!
//! Two layers. *Slots* hold single records (an entity's META, one level's configuration, or the knowledge that
//! there is none), each for the time to live. *Assembled* results hold the slots of an entity and
//! resource put together, so that a warm acquire costs one lookup.
//!
//! Reads are shared per entity and resource. Concurrent misses wait for one read and get its outcome, be it a
//! success or a failure. A *fresh* read is shared only with calls that asked before it began, so at most two reads
//! follow one another however many calls ask at once. A read ends when no call waits for it any more.
//!
//! A read that is throttled, or that cannot reach the table, is repeated with jittered waits until the calls that
//! wait for it reach their deadlines. Other failures end it, and are cached for [`FAILED_FOR`], so that calls
//! which come later do not wait for the same timeout one after another. If an older configuration is cached,
//! the first failure is enough: the call continues with that.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{FutureExt as _, Shared, WeakShared};
use quick_cache::sync::Cache;
use tokio::time::Instant;
use zae_limiter_core::acquire::AcquireError;
use zae_limiter_core::config::Resolved;
use zae_limiter_core::resolve::{Slot, Stored, resolve};
use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Applied, FailureKind, Key, TableError};
use zae_limiter_core::{EntityId, EpochMillis, NamespaceId, ResourceName};

use crate::acquire::outage::breaker::{Breaker, is_refusal};
use crate::acquire::permits::Permits;
use crate::clock::Time;
use crate::table::{Table, TableExt};

/// How many records make a configuration.
const SLOTS: usize = Slot::ALL.len();

/// How many records and results are cached at most.
const CAPACITY: usize = 100_000;

/// How long a failed read is cached: no longer than the circuit breaker waits between two probes, which have to be
/// sent.
const FAILED_FOR: Duration = Duration::from_millis(400);

/// How many entities' and resources' failures are cached at most.
const FAILURES: usize = 10_000;

/// The longest pause before a read is repeated.
const LONGEST_PAUSE_MS: u64 = 1000;

/// How many reads may be listed before those that have ended are removed from the list.
const LISTED: usize = 1024;

/// How long a read may take for a caller that has no deadline of its own.
const UNHURRIED: Duration = Duration::from_secs(5);

/// Counters of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheStats {
    /// Acquires and queries answered without reading the table.
    pub hits: u64,
    /// Acquires and queries that had to read at least one record.
    pub misses: u64,
    /// Requests refused from memory, without a call; see [`crate::RepositoryBuilder::reject_cache_ttl`].
    pub local_rejections: u64,
    /// Records cached, expired ones included.
    pub size: u64,
    /// How long a record is cached.
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
}

type Pair = (EntityId, ResourceName);

type Outcome = Result<Arc<Resolved>, AcquireError>;
type Read = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A read that may be on its way.
#[derive(Debug)]
struct Flight {
    /// Ends it when no call waits for it.
    read: WeakShared<Read>,
    fresh: bool,
    /// What had been forgotten when it was listed: a call that comes after a change must not get what was before it.
    generation: u64,
    /// Set when the read is sent.
    begun: Arc<AtomicBool>,
}

/// The last failure to read a configuration.
#[derive(Debug, Clone)]
struct Failure {
    at: Instant,
    err: TableError,
    /// Whether the read ended with it.
    ended: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct ConfigCache {
    memory: Arc<Memory>,
    /// The last read of each pair that was begun or is about to.
    flights: Mutex<HashMap<Pair, Flight>>,
    pub(crate) local_rejections: AtomicU64,
}

/// The cached entries.
#[derive(Debug)]
struct Memory {
    namespace: NamespaceId,
    ttl: Duration,
    breaker: Arc<Breaker>,
    permits: Arc<Permits>,
    slots: Cache<Key, SlotEntry>,
    assembled: Cache<Pair, Assembled>,
    failures: Cache<Pair, Failure>,
    generation: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl ConfigCache {
    pub(crate) fn new(
        namespace: NamespaceId,
        ttl: Duration,
        breaker: Arc<Breaker>,
        permits: Arc<Permits>,
    ) -> Self {
        Self {
            memory: Arc::new(Memory {
                namespace,
                ttl,
                breaker,
                permits,
                slots: Cache::new(CAPACITY),
                assembled: Cache::new(CAPACITY),
                failures: Cache::new(FAILURES),
                generation: AtomicU64::new(0),
                hits: AtomicU64::new(0),
                misses: AtomicU64::new(0),
            }),
            flights: Mutex::default(),
            local_rejections: AtomicU64::new(0),
        }
    }

    /// The configuration if it is cached and fresh.
    pub(crate) fn peek(
        &self,
        entity: &EntityId,
        resource: &ResourceName,
        now: EpochMillis,
    ) -> Option<Arc<Resolved>> {
        let config = self.peek_uncounted(entity, resource, now)?;
        self.count_hits(1);
        Some(config)
    }

    /// The same for a call that may look again.
    pub(crate) fn peek_uncounted(
        &self,
        entity: &EntityId,
        resource: &ResourceName,
        now: EpochMillis,
    ) -> Option<Arc<Resolved>> {
        self.memory.peek(&(entity.clone(), resource.clone()), now)
    }

    /// Counts calls that were answered without reading.
    pub(crate) fn count_hits(&self, hits: u64) {
        self.memory.hits.fetch_add(hits, Ordering::Relaxed);
    }

    /// The configuration as last read, however old. Good for limits during an outage, and nothing else.
    pub(crate) fn stale(&self, entity: &EntityId, resource: &ResourceName) -> Option<Arc<Resolved>> {
        self.memory.stale(&(entity.clone(), resource.clone()))
    }

    /// Why the configuration could not be read the last time, unless it has been read since.
    pub(crate) fn last_failure(&self, entity: &EntityId, resource: &ResourceName) -> Option<TableError> {
        let failure = self.memory.failures.get(&(entity.clone(), resource.clone()))?;
        Some(failure.err)
    }

    /// Reads what is not cached and puts it together. With `fresh`, reads all of it, from now on.
    ///
    /// While the table is throttled or cannot be reached, this does not return: it is for callers with a deadline.
    pub(crate) async fn fetch(
        &self,
        table: &Arc<dyn Table>,
        clock: &Time,
        entity: &EntityId,
        resource: &ResourceName,
        fresh: bool,
    ) -> Outcome {
        let pair = (entity.clone(), resource.clone());
        if !fresh && let Some(config) = self.memory.peek(&pair, clock.now()) {
            self.memory.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(config);
        }
        let outcome = match self.memory.just_failed(&pair, fresh) {
            Some(err) => Err(err.into()),
            None => self.join(table, clock, &pair, fresh).await,
        };
        match outcome {
            Err(AcquireError::Table(err)) if !fresh => self.memory.fall_back(&pair, err),
            outcome => outcome,
        }
    }

    /// [`fetch`](Self::fetch) for callers without a deadline: gives up after [`UNHURRIED`].
    pub(crate) async fn fetch_unhurried(
        &self,
        table: &Arc<dyn Table>,
        clock: &Time,
        entity: &EntityId,
        resource: &ResourceName,
        fresh: bool,
    ) -> Outcome {
        let fetch = self.fetch(table, clock, entity, resource, fresh);
        match tokio::time::timeout(UNHURRIED, fetch).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self
                .last_failure(entity, resource)
                .unwrap_or_else(|| {
                    TableError::new(
                        FailureKind::Timeout,
                        Applied::No,
                        "the configuration was not read",
                    )
                })
                .into()),
        }
    }

    /// The read that answers this call: one on its way, or a new one.
    fn join(&self, table: &Arc<dyn Table>, clock: &Time, pair: &Pair, fresh: bool) -> Shared<Read> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let last = flights.get(pair).and_then(|flight| {
            Some((
                flight,
                flight.read.upgrade().filter(|read| read.peek().is_none())?,
            ))
        });
        let generation = self.memory.generation.load(Ordering::Acquire);
        let serves = |flight: &Flight| {
            let is_ahead = flight.fresh && !flight.begun.load(Ordering::Acquire);
            is_ahead || (!fresh && flight.generation == generation)
        };
        let before = match last {
            Some((flight, read)) if serves(flight) => return read,
            Some((_, read)) => Some(read),
            None => None,
        };
        let begun = Arc::new(AtomicBool::new(false));
        let read: Read = Box::pin({
            let memory = Arc::clone(&self.memory);
            let (table, clock, pair) = (Arc::clone(table), clock.clone(), pair.clone());
            let begun = Arc::clone(&begun);
            async move {
                if let Some(before) = before
                    && let Err(err) = before.await
                    && !matches!(&err, AcquireError::Table(err) if err.may_resend())
                {
                    return Err(err);
                }
                begun.store(true, Ordering::Release);
                memory.read(&table, &clock, &pair, fresh).await
            }
        });
        let read = read.shared();
        if flights.len() >= LISTED {
            flights.retain(|_, flight| flight.read.upgrade().is_some_and(|read| read.peek().is_none()));
        }
        if let Some(weak) = read.downgrade() {
            let flight = Flight {
                read: weak,
                fresh,
                generation,
                begun,
            };
            flights.insert(pair.clone(), flight);
        }
        read
    }

    /// Forgets one record, and everything put together from it.
    pub(crate) fn forget(&self, key: &Key) {
        self.memory.slots.remove(key);
        self.memory.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.memory.slots.clear();
        self.memory.assembled.clear();
        self.memory.failures.clear();
        self.memory.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.memory.hits.load(Ordering::Relaxed),
            misses: self.memory.misses.load(Ordering::Relaxed),
            local_rejections: self.local_rejections.load(Ordering::Relaxed),
            size: self.memory.slots.len() as u64,
            ttl: self.memory.ttl,
        }
    }
}

impl Memory {
    fn is_fresh(&self, read_at: EpochMillis, now: EpochMillis) -> bool {
        let age = now.since(read_at);
        age >= 0 && (age as u128) < self.ttl.as_millis()
    }

    fn peek(&self, pair: &Pair, now: EpochMillis) -> Option<Arc<Resolved>> {
        let entry = self.assembled.get(pair)?;
        let current = entry.generation == self.generation.load(Ordering::Acquire);
        (current && self.is_fresh(entry.config.read_at, now)).then_some(entry.config)
    }

    fn stale(&self, pair: &Pair) -> Option<Arc<Resolved>> {
        self.assembled.get(pair).map(|entry| entry.config)
    }

    /// The failure that a read ended with a moment ago.
    ///
    /// One that would have been repeated if no older configuration were cached says nothing to a call that needs a
    /// fresh one.
    fn just_failed(&self, pair: &Pair, fresh: bool) -> Option<TableError> {
        let failure = self.failures.get(pair)?;
        let repeatable = fresh && failure.err.may_resend() && !self.breaker.is_open();
        (failure.ended && !repeatable && failure.at.elapsed() < FAILED_FOR).then_some(failure.err)
    }

    /// Reads, and reads again while waiting may help.
    async fn read(&self, table: &Arc<dyn Table>, clock: &Time, pair: &Pair, fresh: bool) -> Outcome {
        let mut attempt = 0;
        loop {
            let err = match self.read_once(table, clock, pair, fresh).await {
                Err(AcquireError::Table(err)) => err,
                outcome => {
                    self.failures.remove(pair);
                    return outcome;
                }
            };
            let has_other = !fresh && self.stale(pair).is_some();
            let again = err.may_resend() && !has_other && !self.breaker.is_open();
            // The breaker may close before a refusal of its own is forgotten.
            if err.is_outage() && !is_refusal(&err) {
                let failure = Failure {
                    at: Instant::now(),
                    err: err.clone(),
                    ended: !again,
                };
                self.failures.insert(pair.clone(), failure);
            }
            if !again {
                return Err(err.into());
            }
            tokio::time::sleep(pause(attempt)).await;
            attempt += 1;
        }
    }

    async fn read_once(&self, table: &Arc<dyn Table>, clock: &Time, pair: &Pair, fresh: bool) -> Outcome {
        let generation = self.generation.load(Ordering::Acquire);
        let stored = self.slots(table, clock, &pair.0, &pair.1, fresh).await?;
        let oldest = stored.iter().map(|entry| entry.read_at).min().unwrap_or_default();
        let stored = stored.each_ref().map(|entry| &*entry.stored);
        let config = Arc::new(resolve(&pair.0, stored, oldest));
        self.assembled.insert(
            pair.clone(),
            Assembled {
                config: Arc::clone(&config),
                generation,
            },
        );
        Ok(config)
    }

    /// During an outage the last known limits continue being used: refusing or admitting is up to the write.
    fn fall_back(&self, pair: &Pair, err: TableError) -> Result<Arc<Resolved>, AcquireError> {
        match self.stale(pair) {
            Some(config) if err.is_outage() => {
                tracing::warn!(error = %err, "configuration cannot be read, continuing with the last known");
                Ok(config)
            }
            _ => Err(err.into()),
        }
    }

    async fn slots(
        &self,
        table: &Arc<dyn Table>,
        clock: &Time,
        entity: &EntityId,
        resource: &ResourceName,
        fresh: bool,
    ) -> Result<[SlotEntry; SLOTS], AcquireError> {
        let keys = Slot::ALL.map(|slot| slot.key(&self.namespace, entity, resource));
        let now = clock.now();
        let mut found: [Option<SlotEntry>; SLOTS] = keys.each_ref().map(|key| {
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
            let permit = self.permits.enter(clock).await?;
            self.breaker.sending();
            // What decides must not be older than the call.
            let read = table.batch_get(missing, fresh).await;
            drop(permit);
            self.breaker.hear(&read);
            let items = read?;
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
}

/// A random wait of up to 25 ms, 50 ms, 100 ms ... 1 s.
fn pause(attempt: u32) -> Duration {
    let ceiling = (25 << attempt.min(10)).min(LONGEST_PAUSE_MS);
    Duration::from_millis(fastrand::u64(0..=ceiling))
}
