//! One process: its clock, its caches, and how they serve the machines it runs.
//!
//! What is remembered here may be stale in every way that a real process's memory may be.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use zae_limiter_core::EpochMillis;
use zae_limiter_core::acquire::{Found, Hint, Observation, next_round_trip, refilled_by};
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::config::Resolved;
use zae_limiter_core::outage::breaker;
use zae_limiter_core::outage::local_buckets::LocalBuckets;
use zae_limiter_core::outage::policy::Memory;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::Op;

use super::groups::{Groups, Shard};
use super::slices::Slices;
use crate::plan::ProcessPlan;
use crate::time::{EPOCH_MS, true_ms};

/// How long an image may be rejected by, as in the limiter's default.
const FRESH_MS: i64 = 1000;

/// One process.
#[derive(Debug)]
pub struct Process {
    pub(crate) plan: ProcessPlan,
    local_limits: usize,
    /// How often it has started.
    pub incarnation: u32,
    pub(crate) configs: HashMap<BucketId, Arc<Resolved>>,
    images: HashMap<BucketId, Seen>,
    /// When shards were last brought up to their configuration.
    pub(crate) reconciled: HashMap<(BucketId, u32), EpochMillis>,
    /// How long the table takes to answer, in milliseconds.
    round_trip_ms: i64,
    pub(crate) breaker: breaker::State,
    /// Its part of the limits, for outages.
    pub(crate) local: LocalBuckets<Hasher>,
    /// Debits that wait for a write of their shard.
    pub(crate) groups: Groups,
    /// Tokens taken ahead.
    pub(crate) slices: Slices,
}

/// A hasher without a random seed, so that runs can be repeated.
type Hasher = BuildHasherDefault<DefaultHasher>;

fn no_local_buckets(plan: ProcessPlan, bound: usize) -> LocalBuckets<Hasher> {
    // One lock or several makes no difference to the answers.
    let shards = if plan.remembers { 1 } else { 4 };
    LocalBuckets::with_bound(shards, bound, Hasher::default())
}

#[derive(Debug, Default)]
struct Seen {
    shard_count: u32,
    images: Vec<(u32, Arc<Bucket>, EpochMillis)>,
    /// Shards being refilled, and until when that is believed.
    refilling: Vec<(u32, EpochMillis)>,
}

impl Process {
    /// A process with empty caches.
    pub fn new(plan: ProcessPlan, local_limits: usize) -> Self {
        Self {
            plan,
            local_limits,
            breaker: breaker::State::default(),
            local: no_local_buckets(plan, local_limits),
            groups: Groups::default(),
            slices: Slices::default(),
            incarnation: 0,
            configs: HashMap::new(),
            images: HashMap::new(),
            reconciled: HashMap::new(),
            round_trip_ms: 0,
        }
    }

    /// Dies and starts again.
    pub fn crash(&mut self) {
        self.incarnation += 1;
        self.configs.clear();
        self.images.clear();
        self.groups.clear();
        self.slices.clear();
        self.reconciled.clear();
        self.round_trip_ms = 0;
        self.breaker = breaker::State::default();
        self.local = no_local_buckets(self.plan, self.local_limits);
    }

    /// What its clock shows at a true time.
    pub fn clock(&self, now_us: u64) -> EpochMillis {
        let now = true_ms(now_us);
        let drift = (now - EPOCH_MS) * self.plan.drift_ppm / 1_000_000;
        EpochMillis(now + self.plan.skew_ms + drift)
    }

    /// A cached configuration that is still trusted.
    pub fn config(&self, id: &BucketId, ttl_ms: i64, now: EpochMillis) -> Option<Arc<Resolved>> {
        let config = self.configs.get(id)?;
        (now.since(config.read_at) < ttl_ms).then(|| Arc::clone(config))
    }

    /// A cached configuration that is still trusted, with what is remembered of the bucket.
    pub fn found(&self, id: &BucketId, ttl_ms: i64, now: EpochMillis) -> Option<Found> {
        let config = self.config(id, ttl_ms, now)?;
        let hint = self.hint(id, now);
        Some(Found { config, hint })
    }

    /// Remembers the configuration of a bucket.
    pub fn learn_config(&mut self, id: &BucketId, config: &Arc<Resolved>) {
        self.configs.insert(id.clone(), Arc::clone(config));
    }

    /// Remembers what an answer has shown.
    pub fn observe(&mut self, seen: Observation, now: EpochMillis) {
        let memory = self.images.entry(seen.id).or_default();
        memory.shard_count = memory.shard_count.max(seen.image.shard_count);
        memory.images.retain(|(shard, _, _)| *shard != seen.shard);
        memory.refilling.retain(|(shard, _)| *shard != seen.shard);
        memory.images.push((seen.shard, seen.image, now));
    }

    /// A request leaves. Refills are remembered until they are answered, or should have been.
    pub fn sends(&mut self, op: &Op, now: EpochMillis) {
        if let Some((id, shard)) = refilled_by(op) {
            let until = now.plus(2 * self.round_trip_ms + 10);
            self.images.entry(id).or_default().refilling.push((shard, until));
        }
    }

    /// An answer took this long.
    pub fn answered_after(&mut self, millis: i64) {
        self.round_trip_ms = next_round_trip(self.round_trip_ms, millis);
    }

    /// What is remembered of a bucket: the count for as long as the process lives, images while fresh.
    pub fn hint(&self, id: &BucketId, now: EpochMillis) -> Hint {
        let Some(memory) = self.images.get(id) else {
            return Hint {
                round_trip_ms: self.round_trip_ms,
                ..Hint::default()
            };
        };
        let mut hint = Hint {
            shard_count: memory.shard_count,
            round_trip_ms: self.round_trip_ms,
            ..Hint::default()
        };
        let refilling = memory.refilling.iter().filter(|(_, until)| now < *until);
        hint.refilling = refilling.map(|(shard, _)| *shard).collect();
        for (shard, image, at) in memory.images.iter().filter(|_| self.plan.remembers) {
            let images = if now.since(*at) < FRESH_MS {
                &mut hint.images
            } else {
                &mut hint.older
            };
            images.push((*shard, Arc::clone(image)));
        }
        hint
    }

    /// The last image of a shard, by which its debits are put together.
    pub(crate) fn latest(&self, (pk, shard): &Shard) -> Option<Arc<Bucket>> {
        let id = self.images.keys().find(|id| id.key(0).pk == *pk);
        id.filter(|_| self.plan.remembers)
            .and_then(|id| self.last_image(id, *shard))
    }

    /// The last image seen of a shard, however old.
    pub fn last_image(&self, id: &BucketId, shard: u32) -> Option<Arc<Bucket>> {
        let images = &self.images.get(id)?.images;
        let (_, image, _) = images.iter().find(|(at, _, _)| *at == shard)?;
        Some(Arc::clone(image))
    }
}

/// What a process remembers at an instant of its clock.
#[derive(Debug)]
pub(crate) struct Remembered<'a>(pub(crate) &'a Process, pub(crate) EpochMillis);

impl Memory for Remembered<'_> {
    fn config(&self, id: &BucketId) -> Option<Arc<Resolved>> {
        self.0.configs.get(id).cloned()
    }

    fn hint(&self, id: &BucketId) -> Hint {
        self.0.hint(id, self.1)
    }
}
