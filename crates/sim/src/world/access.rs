//! Operators who say what holds for requests: first in the configuration, then on every live shard, one by one, until a look finds
//! nothing to change, as the library does. An operator may be killed at each step; another one repeats the call.

use zae_limiter_core::EpochMillis;
use zae_limiter_core::access::{is_stamped, stamp_access};
use zae_limiter_core::acquire::{AcquireError, Decision, Settings};
use zae_limiter_core::config::Access;
use zae_limiter_core::resolve::resolve_items;
use zae_limiter_core::table::{Op, Update, Value};

use super::World;
use super::works::{Next, Work};
use crate::judge::access::Ended;
use crate::rng::Rng;
use crate::rows::change::Source;

/// How often live shards are looked for again.
const MAX_ROUNDS: usize = 8;

/// Microseconds between two looks.
const SETTLE_US: u64 = 500_000;

/// A call of an operator about access.
#[derive(Debug)]
pub(super) struct SetAccess {
    pub(super) clock: usize,
    pub(super) entity: Option<usize>,
    pub(super) access: Option<Access>,
    /// The looks so far; 0 until the configuration says it.
    rounds: usize,
    began_us: u64,
    /// The shards of entities that this look has still to see.
    left: Vec<(usize, u32)>,
    has_stamped: bool,
    /// The stamp that is on its way.
    update: Option<Update>,
}

impl SetAccess {
    pub(super) fn new(clock: usize, entity: Option<usize>, access: Option<Access>) -> Self {
        Self {
            clock,
            entity,
            access,
            rounds: 0,
            began_us: 0,
            left: Vec::new(),
            has_stamped: false,
            update: None,
        }
    }
}

impl World<'_> {
    /// One step of a call.
    pub(super) fn set_access(&mut self, mut call: SetAccess, rng: &mut Rng) -> Next {
        if let Some(update) = call.update.take() {
            // A stamp may be written any number of times: after a failure it is sent again.
            if !self.operator_writes(Source::Admin, Op::Update(update.clone()), rng) {
                call.update = Some(update);
            }
            return Next::soon(Work::Access(call));
        }
        if call.rounds == 0 {
            let mut update = Update::new(self.names.config_key(call.entity));
            match call.access {
                Some(access) => update.set.push(("disabled".into(), access.value())),
                None => update.remove.push("disabled".into()),
            }
            if !self.operator_writes(Source::Admin, Op::Update(update), rng) {
                // It does not know whether it has happened.
                return Next::Ends;
            }
            return Self::next_round(call, 0);
        }
        let Some((entity, shard)) = call.left.pop() else {
            let is_settled = !call.has_stamped && call.rounds > 1;
            if is_settled {
                self.stats.access_settled += 1;
                for entity in self.concerned(&call) {
                    let bucket = self.bucket_name(entity);
                    self.check.access.settles(&bucket, call.began_us);
                }
                return Next::Ends;
            }
            if call.rounds == MAX_ROUNDS {
                return Next::Ends;
            }
            return Self::next_round(call, SETTLE_US);
        };
        let key = self.names.bucket(entity).key(shard);
        let now = self.processes[call.clock].clock(self.now_us);
        let who = (&self.names.entities[entity], &self.names.resource);
        let config = resolve_items(&self.names.namespace, who, |key| self.table.get(key), now);
        if let (Ok(config), Some(item)) = (config, self.table.get(&key)) {
            let access = config.access.map_or(Access::Enabled, |(_, access)| access);
            if !is_stamped(item, access, now) {
                call.has_stamped = true;
                self.stats.access_stamped += 1;
                let until: EpochMillis = now.plus(Settings::default().stamp_life_ms(rng));
                call.update = Some(stamp_access(key, access, until));
            }
        }
        Next::soon(Work::Access(call))
    }

    fn next_round(mut call: SetAccess, after_us: u64) -> Next {
        call.rounds += 1;
        Next::After(after_us, Work::Listing(call))
    }

    /// Lists the shards that the call concerns.
    pub(super) fn list_shards(&mut self, mut call: SetAccess) -> Next {
        call.began_us = self.now_us;
        call.has_stamped = false;
        for entity in self.concerned(&call) {
            let shards = self.rows(entity).into_keys();
            call.left.extend(shards.map(|shard| (entity, shard)));
        }
        Next::soon(Work::Access(call))
    }

    fn concerned(&self, call: &SetAccess) -> Vec<usize> {
        match call.entity {
            Some(entity) => vec![entity],
            None => (0..self.plan.entities.len()).collect(),
        }
    }

    /// The name of an entity's bucket in the judge's account.
    pub(super) fn bucket_name(&self, entity: usize) -> String {
        let pk = self.names.bucket(entity).key(0).pk;
        pk.rsplit_once('#')
            .map_or(pk.as_str(), |(bucket, _)| bucket)
            .to_owned()
    }

    /// Tells the judge what is configured by now.
    pub(super) fn note_access(&mut self) {
        let word = |entity: Option<usize>| {
            let item = self.table.get(&self.names.config_key(entity))?;
            match item.get("disabled")? {
                Value::Bool(true) => Some(Access::Disabled),
                Value::S(text) if text == "bypass" => Some(Access::Bypass),
                _ => Some(Access::Enabled),
            }
        };
        let of_resource = word(None);
        let words: Vec<Access> = (0..self.plan.entities.len())
            .map(|entity| word(Some(entity)).or(of_resource).unwrap_or(Access::Enabled))
            .collect();
        for (entity, word) in words.into_iter().enumerate() {
            let bucket = self.bucket_name(entity);
            self.check.access.says(&bucket, word, self.now_us);
        }
    }

    /// Whether an acquire has ended as what is said about access allows.
    pub(super) fn judge_access(&self, job: usize, decision: &Decision) -> Result<(), String> {
        let access = &self.check.access;
        let name = |pk: &str| pk.rsplit_once('#').map_or(pk, |(bucket, _)| bucket).to_owned();
        let has_asked = self.jobs[job].calls.iter().flatten().next().is_some();
        match decision {
            Decision::Failed(AcquireError::Table(_) | AcquireError::Abandoned) => return Ok(()),
            Decision::Admitted(grants) => {
                for grant in grants {
                    access.decided(job, &name(&grant.id.key(0).pk), Ended::Admitted)?;
                }
            }
            Decision::Disabled { bucket, .. } if has_asked => {
                access.decided(job, &name(&bucket.key(0).pk), Ended::Disabled)?;
            }
            Decision::Rejected(why) if has_asked && !why.is_contended() => {
                let exceeded = why.statuses().iter().filter(|status| status.exceeded);
                for status in exceeded.filter(|status| status.resource == self.names.resource) {
                    let bucket = self.names.bucket_of(&status.entity);
                    access.decided(job, &name(&bucket.key(0).pk), Ended::Limited)?;
                }
            }
            _ => {}
        }
        // A client that ends between its stamp and its look leaves the stamp, which lasts for a minute at most.
        if self.jobs[job].abandoned || self.jobs[job].has_failed {
            return Ok(());
        }
        access.ends(job)
    }
}
