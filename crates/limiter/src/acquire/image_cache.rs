//! The last images of bucket shards: they may reject and steer, never admit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use zae_limiter_core::acquire::{Hint, Observation};
use zae_limiter_core::bucket::Life;
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
    /// Shards that a call of this process is refilling, and until when that is assumed.
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

    /// The cached state of a bucket, as of `now`.
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
        let count = observation.image.shard_count;
        let last = shards.seen.get(&observation.shard);
        let newer = last.is_none_or(|seen| seen.order <= order);
        if observation.shard == 0 && newer && count < shards.count {
            // Shard 0 has the count. It falls only when the bucket is created anew, and with it go all shards.
            let is_same = last.is_some_and(|seen| observation.image.life_since(&seen.image) == Life::Same);
            if !is_same {
                shards.count = count;
                shards.seen.retain(|shard, _| *shard < count);
            }
        }
        shards.count = shards.count.max(count);
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

    /// Of how many buckets images are cached.
    #[cfg(feature = "metrics")]
    pub(crate) fn len(&self) -> usize {
        self.buckets.len()
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

#[cfg(test)]
mod tests {
    use zae_limiter_core::table::{Item, Value};
    use zae_limiter_core::{EntityId, NamespaceId, ResourceName};

    use super::*;

    fn seen(shard: u32, shards: u32, birth: &str) -> Observation {
        let item = Item::from([
            ("rf".to_owned(), Value::int(1)),
            ("shard_count".to_owned(), Value::int(shards)),
            ("cf".to_owned(), Value::text(format!("{birth}."))),
        ]);
        Observation {
            id: BucketId {
                namespace: NamespaceId::new("dSkXlbmmfyU").unwrap(),
                entity: EntityId::new("e").unwrap(),
                resource: ResourceName::new("r").unwrap(),
            },
            shard,
            image: Arc::new(Bucket::decode(&item).unwrap()),
        }
    }

    #[test]
    fn the_shard_count_falls_with_a_new_bucket_alone() {
        let (cache, now) = (ImageCache::new(Duration::from_secs(1), 10), EpochMillis(1));
        let id = seen(0, 1, "a").id;
        cache.observe(&seen(0, 1, "a"), 1, now);
        cache.observe(&seen(9, 32, "b"), 2, now);
        // An answer that was on its way when the bucket was split.
        cache.observe(&seen(0, 16, "a"), 3, now);
        assert_eq!(cache.hint(&id, now).shard_count, 32);
        // Another process has created the bucket anew; shard 9 belongs to the former one.
        cache.observe(&seen(0, 1, "c"), 4, now);
        let hint = cache.hint(&id, now);
        assert_eq!((hint.shard_count, hint.images.len()), (1, 1));
        // Shards other than the first do not have the count.
        cache.observe(&seen(0, 4, "c"), 5, now);
        cache.observe(&seen(1, 2, "d"), 6, now);
        assert_eq!(cache.hint(&id, now).shard_count, 4);
    }
}
