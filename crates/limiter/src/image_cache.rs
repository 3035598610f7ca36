//! The last images of bucket shards: they may reject and steer, never admit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use zae_limiter_core::acquire::{Hint, Observation};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::{Bucket, EpochMillis};

/// One shard's image, and when it was seen.
#[derive(Debug, Clone)]
struct Seen {
    image: Arc<Bucket>,
    at: EpochMillis,
    /// Order of the requests that showed it; of two answers that cross, the later request's stays.
    order: u64,
}

#[derive(Debug, Clone, Default)]
struct Shards {
    count: u32,
    seen: BTreeMap<u32, Seen>,
    /// Shards that a call of this process is refilling, and until when that is believed.
    refilling: BTreeMap<u32, EpochMillis>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct ImageCache {
    ttl: Duration,
    buckets: Cache<BucketId, Arc<std::sync::Mutex<Shards>>>,
}

impl ImageCache {
    /// Remembers up to `capacity` buckets, and rejects by images younger than `ttl`.
    pub(crate) fn new(ttl: Duration, capacity: usize) -> Self {
        Self {
            ttl,
            buckets: Cache::new(capacity.max(1)),
        }
    }

    fn shards(&self, id: &BucketId) -> Arc<std::sync::Mutex<Shards>> {
        let Ok(shards) = self
            .buckets
            .get_or_insert_with(id, || Ok::<_, std::convert::Infallible>(Arc::default()));
        shards
    }

    /// What is remembered of a bucket, as of `now`.
    pub(crate) fn hint(&self, id: &BucketId, now: EpochMillis) -> Hint {
        let Some(shards) = self.buckets.get(id) else {
            return Hint::default();
        };
        let shards = lock(&shards);
        let fresh = |seen: &Seen| {
            let age = now.since(seen.at);
            age >= 0 && (age as u128) < self.ttl.as_millis()
        };
        let mut hint = Hint {
            shard_count: shards.count,
            ..Hint::default()
        };
        for (shard, seen) in &shards.seen {
            let images = if fresh(seen) {
                &mut hint.images
            } else {
                &mut hint.older
            };
            images.push((*shard, Arc::clone(&seen.image)));
        }
        let refilling = shards.refilling.iter().filter(|(_, until)| now < **until);
        hint.refilling = refilling.map(|(shard, _)| *shard).collect();
        hint
    }

    /// Remembers what an answer showed. `order` numbers the requests in the order they were sent.
    pub(crate) fn observe(&self, observation: &Observation, order: u64, now: EpochMillis) {
        let shards = self.shards(&observation.id);
        let mut shards = lock(&shards);
        shards.count = shards.count.max(observation.image.shard_count);
        let newer = shards
            .seen
            .get(&observation.shard)
            .is_none_or(|seen| seen.order <= order);
        if newer {
            shards.refilling.remove(&observation.shard);
            let image = Arc::clone(&observation.image);
            shards.seen.insert(
                observation.shard,
                Seen {
                    image,
                    at: now,
                    order,
                },
            );
        }
    }

    /// Remembers that a request refills a shard, until its answer is observed or `until` has come. Other calls then
    /// do not send a refill of their own, of which only one can happen.
    pub(crate) fn refilling(&self, id: &BucketId, shard: u32, until: EpochMillis) {
        lock(&self.shards(id)).refilling.insert(shard, until);
    }

    /// The latest image of a shard, however old.
    pub(crate) fn latest(&self, id: &BucketId, shard: u32) -> Option<Arc<Bucket>> {
        let shards = self.buckets.get(id)?;
        lock(&shards).seen.get(&shard).map(|seen| Arc::clone(&seen.image))
    }

    /// Forgets a bucket's balances, not its shard count.
    pub(crate) fn forget(&self, id: &BucketId) {
        if let Some(shards) = self.buckets.get(id) {
            let mut shards = lock(&shards);
            shards.seen.clear();
            shards.refilling.clear();
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.buckets.clear();
    }
}

fn lock(shards: &std::sync::Mutex<Shards>) -> std::sync::MutexGuard<'_, Shards> {
    // Nothing panics while holding it, and what it guards is only a hint.
    shards.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
