//! One process: its clock, its caches, and how they serve the machines it runs.
//!
//! What is remembered here may be stale in every way that a real process's memory may be.

use std::collections::HashMap;
use std::sync::Arc;

use zae_limiter_core::acquire::{Found, Hint, Observation, Reply, next_round_trip, refilled_by};
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::config::Resolved;
use zae_limiter_core::resolve::{Slot, Stored, resolve};
use zae_limiter_core::schema::{BucketId, key_of};
use zae_limiter_core::sync::{Drift, reconcile};
use zae_limiter_core::table::{Item, Op};
use zae_limiter_core::{EntityId, EpochMillis};

use crate::check::Source;
use crate::plan::ProcessPlan;
use crate::world::{EPOCH_MS, Event, World, true_ms};

/// How long an image may be rejected by, as in the limiter's default.
const FRESH_MS: i64 = 1000;

/// One process.
#[derive(Debug)]
pub struct Process {
    plan: ProcessPlan,
    /// How often it has started.
    pub incarnation: u32,
    configs: HashMap<EntityId, Arc<Resolved>>,
    images: HashMap<BucketId, Memory>,
    /// When shards were last brought up to their configuration.
    reconciled: HashMap<(BucketId, u32), EpochMillis>,
    /// How long the table takes to answer, in milliseconds.
    round_trip_ms: i64,
}

#[derive(Debug, Default)]
struct Memory {
    shard_count: u32,
    images: Vec<(u32, Arc<Bucket>, EpochMillis)>,
    /// Shards being refilled, and until when that is believed.
    refilling: Vec<(u32, EpochMillis)>,
}

impl Process {
    /// A process with empty caches.
    pub fn new(plan: ProcessPlan) -> Self {
        Self {
            plan,
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
        self.reconciled.clear();
        self.round_trip_ms = 0;
    }

    /// What its clock shows at a true time.
    pub fn clock(&self, now_us: u64) -> EpochMillis {
        let now = true_ms(now_us);
        let drift = (now - EPOCH_MS) * self.plan.drift_ppm / 1_000_000;
        EpochMillis(now + self.plan.skew_ms + drift)
    }

    /// A cached configuration that is still trusted.
    pub fn config(&self, entity: &EntityId, ttl_ms: i64, now: EpochMillis) -> Option<Arc<Resolved>> {
        let config = self.configs.get(entity)?;
        (now.since(config.read_at) < ttl_ms).then(|| Arc::clone(config))
    }

    /// A cached configuration that is still trusted, with what is remembered of the bucket.
    pub fn found(&self, entity: &EntityId, id: BucketId, ttl_ms: i64, now: EpochMillis) -> Option<Found> {
        let config = self.config(entity, ttl_ms, now)?;
        let hint = self.hint(&id, now);
        Some(Found { config, hint })
    }

    /// Remembers a configuration.
    pub fn learn_config(&mut self, config: &Arc<Resolved>) {
        self.configs.insert(config.entity.clone(), Arc::clone(config));
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

    /// The last image seen of a shard, however old.
    pub fn last_image(&self, id: &BucketId, shard: u32) -> Option<Arc<Bucket>> {
        let images = &self.images.get(id)?.images;
        let (_, image, _) = images.iter().find(|(at, _, _)| *at == shard)?;
        Some(Arc::clone(image))
    }
}

impl World<'_> {
    /// Brings a shard that an answer has shown up to the configuration, as the limiter does in the background: at most
    /// once a second, from a configuration read just now.
    pub(crate) fn note_drift(&mut self, process: usize, seen: &Observation, now: EpochMillis) {
        let entity = &seen.id.entity;
        let Some(known) = self.processes[process].configs.get(entity).cloned() else {
            return;
        };
        let key = (seen.id.clone(), seen.shard);
        let last = self.processes[process].reconciled.get(&key);
        if !Drift::between(&seen.image, &known, now).is_some()
            || last.is_some_and(|last| now.since(*last) < 1000)
        {
            return;
        }
        self.processes[process].reconciled.insert(key, now);
        let read = |slot: Slot| {
            let key = slot.key(&self.names.namespace, entity, &self.names.resource);
            Stored::decode(slot, self.table.get(&key)).unwrap_or_default()
        };
        let [meta, entity_config, default, resource, system] = Slot::ALL.map(read);
        let stored = [&meta, &entity_config, &default, &resource, &system];
        let config = Arc::new(resolve(entity, stored, now));
        self.processes[process].learn_config(&config);
        if config.limits.is_empty() || !Drift::between(&seen.image, &config, now).is_some() {
            return;
        }
        self.stats.reconciled += 1;
        let shard = seen.id.key(seen.shard);
        let update = reconcile(shard, &seen.image, &config, self.plan.ttl_multiplier, now);
        let at = self.now_us + self.plan.faults.latency_us.unsigned_abs();
        let (source, op) = (Source::Admin, Op::Update(update));
        self.schedule(at, Event::Other { source, op });
    }

    /// Answers a machine that asks for configuration: from the process's cache, or by reading it.
    pub(crate) fn ask_config(&mut self, job: usize, call: usize, entity: &EntityId, fresh: bool) {
        let process = &self.processes[self.jobs[job].process];
        let now = process.clock(self.now_us);
        let cached = process.found(entity, self.names.bucket_of(entity), self.plan.config_ttl_ms, now);
        if let Some(found) = cached.filter(|_| !fresh) {
            let reply = Box::new(Reply::Config(Ok(found)));
            return self.schedule(self.now_us, Event::Hear { job, call, reply });
        }
        let (namespace, resource) = (&self.names.namespace, &self.names.resource);
        let keys: Vec<_> = Slot::ALL.map(|slot| slot.key(namespace, entity, resource)).into();
        let op = Op::BatchGet {
            keys,
            consistent: fresh,
        };
        self.send(job, call, op);
    }

    /// The records behind a configuration have arrived.
    pub(crate) fn config_read(&mut self, job: usize, call: usize, asked_us: u64, items: &[Item]) {
        let Some(entity) = self.jobs[job].configs.get(&call).cloned() else {
            return;
        };
        let process = self.jobs[job].process;
        let find = |slot: Slot| {
            let key = slot.key(&self.names.namespace, &entity, &self.names.resource);
            let item = items.iter().find(|item| key_of(item).as_ref() == Some(&key));
            Stored::decode(slot, item)
        };
        let stored: Result<Vec<Stored>, _> = Slot::ALL.into_iter().map(find).collect();
        let reply = match stored {
            Ok(stored) => {
                let read_at = self.processes[process].clock(asked_us);
                let [meta, entity_config, default, resource, system] = &stored[..] else {
                    return;
                };
                let config = Arc::new(resolve(
                    &entity,
                    [meta, entity_config, default, resource, system],
                    read_at,
                ));
                self.processes[process].learn_config(&config);
                let now = self.processes[process].clock(self.now_us);
                let hint = self.processes[process].hint(&self.names.bucket_of(&entity), now);
                Ok(Found { config, hint })
            }
            Err(err) => Err(err.into()),
        };
        self.hear(job, call, Reply::Config(reply));
    }
}
