//! Looking at a bucket's shards together.

use super::births::{births, family};
use super::{DisabledAt, MAX_RACES, Scope, State, Take, TakeEnd};
use crate::acquire::{Ask, Env};
use crate::bucket::{Bucket, MAX_SHARDS};
use crate::limit::Limit;
use crate::table::{Item, Op};

impl Take {
    /// Whether a refill of the shard would cut tokens that may belong to shards that do not exist yet.
    ///
    /// A doubling raises the count before the new shards exist, so their tokens lie as a surplus with the shards
    /// that they descend from.
    pub(super) fn must_share_out(&self, image: &Bucket) -> bool {
        let count = image.shard_count;
        let has_surplus = image
            .limits
            .iter()
            .any(|limit| limit.balance.0 > image.share(limit).capacity);
        has_surplus
            && (2..=MAX_SHARDS).contains(&count)
            && self.shard < count / 2
            && self.shared_out != Some((self.shard, count))
    }

    /// Has the shard's descendants created with its surplus, before it is refilled.
    pub(super) fn share_out(&mut self, image: &Bucket, env: &mut Env<'_>) {
        self.shard_count = image.shard_count;
        self.scope = Scope::Descendants;
        self.read_shards(0, env);
    }

    /// Reads all shards, after a wait.
    pub(super) fn read_shards(&mut self, delay_ms: u64, env: &mut Env<'_>) {
        let keys = (0..self.shard_count).map(|shard| self.id.key(shard)).collect();
        let ask = Ask::Table(Op::BatchGet {
            keys,
            consistent: true,
        });
        self.send_after(delay_ms, ask, State::Shards, env);
    }

    /// Decides what to do about all shards of the bucket.
    pub(super) fn look_at_shards(&mut self, items: &[Item], env: &mut Env<'_>) {
        let shards = match self.images(items, env) {
            Ok(shards) => shards,
            Err(err) => return self.fail(err),
        };
        let Some(root) = shards.get(&0) else {
            if shards.is_empty() {
                self.shard_count = 1;
            }
            // Without shard 0 nobody knows the count: start again from there.
            (self.scope, self.shard) = (Scope::One, 0);
            return self.create(env);
        };
        if shards.values().any(|image| image.disabled) {
            return self.finish(TakeEnd::Disabled(DisabledAt::Bucket));
        }
        let count = root.shard_count;
        if count != self.shard_count {
            self.races += 1;
            if self.races > MAX_RACES {
                return self.finish(TakeEnd::Contended);
            }
            self.shard_count = count;
            if self.shard >= count {
                self.shard = 0;
            }
            if (2..=MAX_SHARDS).contains(&count) {
                return self.read_shards(0, env);
            }
            self.scope = Scope::One;
            return self.debit(None, env);
        }
        let foreign = shards.values().any(|image| image.unsupported.is_some());
        let missing: Vec<u32> = (0..count)
            .filter(|shard| !shards.contains_key(shard))
            .filter(|shard| family(*shard, count).contains(&self.shard))
            .collect();
        if foreign || missing.is_empty() {
            // A quota's share must be moved by rules that are not known here.
            self.scope = Scope::One;
            let own = shards.get(&self.shard).map_or(count, |image| image.shard_count);
            self.shared_out = Some((self.shard, own));
            return match self.item_of(items) {
                Some(item) => self.look(item, env),
                None => self.create(env),
            };
        }
        if !self.fresh {
            return self.create(env);
        }
        let plan = births(&missing, count, &shards, &self.config.limits, env.now);
        let parts = plan.of_relatives(&self.id, count, &shards);
        self.put_shards(&plan.newborns, parts, env);
    }

    /// The drawn shard in what was read of the bucket.
    fn item_of<'a>(&self, items: &'a [Item]) -> Option<&'a Item> {
        let key = self.id.key(self.shard);
        items
            .iter()
            .find(|item| crate::schema::key_of(item).as_ref() == Some(&key))
    }

    /// Whether the whole limits can hold what is asked for.
    pub(super) fn fits_whole(&self) -> bool {
        let holds = |limit: &Limit, need: i128| limit.params().capacity >= need;
        self.amounts.iter().all(|(name, need)| {
            let limit = self.config.limit(name);
            limit.is_none_or(|limit| holds(limit, need.0))
        })
    }
}
