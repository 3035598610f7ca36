//! Configuration: how a process reads it, remembers it, and brings shards up to it.

use std::sync::Arc;

use zae_limiter_core::EpochMillis;
use zae_limiter_core::acquire::{Found, Observation, Reply};
use zae_limiter_core::resolve::{Slot, resolve_items};
use zae_limiter_core::schema::{BucketId, key_of};
use zae_limiter_core::sync::{Drift, reconcile};
use zae_limiter_core::table::{Item, Key, Op};

use super::{Event, World};
use crate::rows::change::Source;

impl World<'_> {
    /// Brings a shard that an answer has shown up to the configuration, as the limiter does in the background: at most
    /// once a second, from a configuration read just now.
    pub(crate) fn note_drift(&mut self, process: usize, seen: &Observation, now: EpochMillis) {
        let entity = &seen.id.entity;
        let Some(known) = self.processes[process].configs.get(&seen.id).cloned() else {
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
        let who = (entity, &seen.id.resource);
        let Ok(config) = resolve_items(&self.names.namespace, who, |key| self.table.get(key), now) else {
            return;
        };
        let config = Arc::new(config);
        self.processes[process].learn_config(&seen.id, &config);
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
    pub(crate) fn ask_config(&mut self, job: usize, call: usize, id: &BucketId, fresh: bool) {
        let process = &self.processes[self.jobs[job].process];
        let now = process.clock(self.now_us);
        let cached = process.found(id, self.plan.config_ttl_ms, now);
        if let Some(found) = cached.filter(|_| !fresh) {
            let reply = Box::new(Reply::Config(Ok(found)));
            return self.schedule(self.now_us, Event::Hear { job, call, reply });
        }
        let key = |slot: Slot| slot.key(&id.namespace, &id.entity, &id.resource);
        let keys: Vec<_> = Slot::ALL.map(key).into();
        let op = Op::BatchGet {
            keys,
            consistent: fresh,
        };
        self.send(job, call, op);
    }

    /// The records behind a configuration have arrived.
    pub(crate) fn config_read(&mut self, job: usize, call: usize, asked_us: u64, items: &[Item]) {
        let Some(id) = self.jobs[job].configs.get(&call).cloned() else {
            return;
        };
        let process = self.jobs[job].process;
        let find = |key: &Key| items.iter().find(|item| key_of(item).as_ref() == Some(key));
        let read_at = self.processes[process].clock(asked_us);
        let reply = match resolve_items(&id.namespace, (&id.entity, &id.resource), find, read_at) {
            Ok(config) => {
                let config = Arc::new(config);
                self.processes[process].learn_config(&id, &config);
                let now = self.processes[process].clock(self.now_us);
                let hint = self.processes[process].hint(&id, now);
                Ok(Found { config, hint })
            }
            Err(err) => Err(err.into()),
        };
        self.hear(job, call, Reply::Config(reply));
    }
}
