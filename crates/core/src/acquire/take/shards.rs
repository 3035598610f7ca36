//! Creating a bucket, splitting it into shards, and creating those.
//!
//! Capacity and rate hold through all of it: a new shard begins with what its siblings hold beyond their
//! shares, and earns from the instant up to which they have earned. See ADR 3.

use smol_str::SmolStr;

use super::{DisabledAt, MAX_RACES, Purpose, State, Take, TakeEnd};
use crate::acquire::write::{self, NewShard};
use crate::acquire::{Ask, Env, out_of_order};
use crate::backoff::Again;
use crate::bucket::Bucket;
use crate::limit::{Limit, Params};
use crate::schema::{BucketId, key_of, meta_key};
use crate::table::{Applied, Cancelled, FailureKind, Item, Op, Part, TableError};
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::LimitStatus;

impl Take {
    pub(super) fn create(&mut self, env: &mut Env<'_>) {
        if !self.fresh {
            // Flags and owner must be read in this very acquire, or a disabled entity gets a new bucket.
            let ask = Ask::Config {
                entity: self.id.entity.clone(),
                fresh: true,
            };
            return self.send(ask, State::Config, env);
        }
        if let Some(level) = self.config.disabled {
            return self.finish(TakeEnd::Disabled(DisabledAt::Config(level)));
        }
        if self.shard == 0 {
            let count = self.shard_count;
            let full = |limit: &Limit| Millitokens(limit.params().share(count).capacity);
            let balances: Vec<_> = self
                .config
                .limits
                .iter()
                .map(|limit| (limit.clone(), full(limit)))
                .collect();
            return self.put_shard(&balances, env.now, Vec::new(), env);
        }
        let keys = family(self.shard, self.shard_count)
            .into_iter()
            .map(|shard| self.id.key(shard))
            .collect();
        self.send(
            Ask::Table(Op::BatchGet {
                keys,
                consistent: true,
            }),
            State::Family,
            env,
        );
    }

    /// Creates a shard other than the first: with what its siblings hold beyond their new shares.
    ///
    /// A new shard must not mint tokens, nor may its slice of the rate be earned twice: siblings that still
    /// count on fewer shards are raised in the same transaction.
    pub(super) fn create_sibling(&mut self, items: &[Item], env: &mut Env<'_>) {
        let mut siblings = Vec::new();
        for item in items {
            let shard = key_of(item)
                .and_then(|key| BucketId::parse(&key))
                .map(|(_, shard)| shard);
            match (shard, Bucket::decode(item)) {
                (Some(shard), Ok(image)) => siblings.push((shard, env.observe(&self.id, shard, image))),
                (_, Err(err)) => return self.fail(err),
                (None, Ok(_)) => {}
            }
        }
        let is_plain = |image: &Bucket| image.unsupported.is_none() && image.shard_count == self.shard_count;
        if self.purpose == Purpose::Shard
            && !siblings
                .iter()
                .any(|(shard, image)| *shard == 0 && is_plain(image))
        {
            return self.abandon();
        }
        let foreign = siblings.iter().find(|(_, image)| image.unsupported.is_some());
        if let Some((shard, image)) = foreign.cloned() {
            if self.purpose == Purpose::Shard {
                return self.abandon();
            }
            // A quota's share must be moved by rules that are not known here: make do with the sibling.
            self.shard = shard;
            let attribute = image.unsupported.clone().unwrap_or_default();
            return self.look_at_foreign(&image, &attribute, env);
        }
        let Some((_, root)) = siblings.iter().find(|(shard, _)| *shard == 0) else {
            // Without shard 0 nobody knows the count: start again from there.
            self.shard = 0;
            return self.create(env);
        };
        let count = root.shard_count;
        if root.disabled {
            return self.finish(TakeEnd::Disabled(DisabledAt::Bucket));
        }
        if count != self.shard_count {
            self.shard_count = count;
            self.races += 1;
            if self.races > MAX_RACES {
                return self.finish(TakeEnd::Contended);
            }
            if self.shard >= count {
                self.shard = env.random.below(count);
            }
            return self.debit(None, env);
        }
        // The nearest relative that exists holds this shard's slice.
        siblings.sort_by_key(|(shard, _)| std::cmp::Reverse(*shard));
        let donor = family(self.shard, count)
            .into_iter()
            .find_map(|id| siblings.iter().find(|(shard, _)| *shard == id))
            .map(|(shard, _)| *shard);
        // What others have earned up to now, by whatever clock, the new shard does not earn again.
        let starts_at = siblings
            .iter()
            .map(|(_, image)| image.refilled_at)
            .fold(env.now, Ord::max);
        let mut balances = Vec::new();
        let mut parts = Vec::new();
        for relative in family(self.shard, count) {
            let key = self.id.key(relative);
            let Some((shard, image)) = siblings.iter().find(|(shard, _)| *shard == relative) else {
                // Created meanwhile, it might hold this shard's slice too.
                parts.push(write::is_absent(key));
                continue;
            };
            let mut given: Vec<(SmolStr, Millitokens)> = Vec::new();
            if Some(*shard) == donor {
                for limit in &self.config.limits {
                    let name = limit.name().as_str();
                    let moved = image.limit(name).map_or(Millitokens::ZERO, |held| {
                        let keep = held.params.share(count).capacity;
                        Millitokens((held.balance.0 - keep).clamp(0, limit.params().share(count).capacity))
                    });
                    given.push((name.into(), moved));
                    balances.push((limit.clone(), moved));
                }
            }
            let covers = image.shard_count < count && self.shard % image.shard_count == *shard;
            given.retain(|(_, moved)| *moved != Millitokens::ZERO);
            if covers || !given.is_empty() {
                let donation = write::Donation {
                    image,
                    shard_count: count,
                    given: &given,
                    hands_over_at: covers.then_some(starts_at),
                };
                parts.push(write::donate(key, &donation));
            } else if *shard == 0 {
                parts.push(write::count_is_still(key, count));
            }
        }
        self.put_shard(&balances, starts_at, parts, env);
    }

    fn put_shard(
        &mut self,
        balances: &[(Limit, Millitokens)],
        starts_at: EpochMillis,
        mut parts: Vec<Part>,
        env: &mut Env<'_>,
    ) {
        let now = env.now;
        let need = |limit: &Limit| {
            self.amounts
                .iter()
                .find(|(name, _)| name == limit.name())
                .map_or(Millitokens::ZERO, |(_, need)| *need)
        };
        let takes = balances.iter().all(|(limit, balance)| *balance >= need(limit));
        if !takes && self.shard == 0 {
            let statuses = balances
                .iter()
                .filter(|(limit, _)| self.amounts.iter().any(|(name, _)| name == limit.name()))
                .map(|(limit, _)| {
                    LimitStatus::untouched(self.who(), limit, self.shard_count, need(limit), now)
                })
                .collect();
            return self.finish(TakeEnd::Short(statuses));
        }
        let cost = |limit: &Limit| if takes { need(limit) } else { Millitokens::ZERO };
        let row = |(limit, balance): &(Limit, Millitokens)| -> (Params, SmolStr, Millitokens, Millitokens) {
            (limit.params(), limit.name().to_smol(), *balance, cost(limit))
        };
        let put = write::create(&NewShard {
            id: &self.id,
            shard: self.shard,
            shard_count: self.shard_count,
            refilled_at: starts_at,
            config: &self.config,
            ttl: self.ttl(None, self.shard_count, now),
            balances: balances.iter().map(row).collect(),
        });
        parts.insert(0, Part::Put(put));
        let meta = meta_key(&self.id.namespace, &self.id.entity);
        parts.insert(1, Part::Check(meta, self.config.meta_unchanged.clone()));
        self.send(Ask::Table(Op::Transact(parts)), State::Create { takes }, env);
    }

    pub(super) fn created(&mut self, takes: bool, env: &mut Env<'_>) {
        if !takes {
            // The shard exists now, but what could be moved into it is not enough: look elsewhere.
            self.races += 1;
            if self.races > MAX_RACES {
                return self.finish(TakeEnd::Contended);
            }
            return self.debit(None, env);
        }
        let Some(Ask::Table(Op::Transact(parts))) = self.last.take() else {
            return self.fail(out_of_order());
        };
        match parts.into_iter().next() {
            Some(Part::Put(put)) => self.taken(&put.item, env),
            _ => self.fail(out_of_order()),
        }
    }

    pub(super) fn not_created(&mut self, takes: bool, reasons: &[Cancelled], env: &mut Env<'_>) {
        self.races += 1;
        if self.races > MAX_RACES {
            return self.finish(TakeEnd::Contended);
        }
        if let Some(Cancelled::Refused(image)) = reasons.first() {
            // Somebody else created it.
            if self.purpose == Purpose::Shard {
                return self.abandon();
            }
            return match image {
                Some(item) => self.look(item, env),
                None => self.debit(None, env),
            };
        }
        if reasons
            .iter()
            .any(|reason| matches!(reason, Cancelled::Refused(_)))
        {
            // The entity or a sibling changed under our hands: read again.
            self.fresh = false;
            return self.create(env);
        }
        let conflict = reasons.contains(&Cancelled::Conflict);
        let again = if conflict {
            self.backoff.conflict(env.random)
        } else {
            self.backoff.resend(env.random)
        };
        match (again, self.last.clone()) {
            (Again::After(delay), Some(ask)) => {
                self.state = State::Create { takes };
                env.send(delay, ask);
            }
            (Again::Contended, _) => self.finish(TakeEnd::Contended),
            _ => self.fail(TableError::new(
                FailureKind::Throttled,
                Applied::No,
                format!("the bucket could not be created: {reasons:?}"),
            )),
        }
    }

    pub(super) fn doubled(&mut self, from: u32, env: &mut Env<'_>) {
        self.doubled = true;
        self.shard_count = from * 2;
        self.last = None;
        if from == 1 {
            return self.go_to_new_shard(from, env);
        }
        self.state = State::Propagate(from - 1);
        for shard in 1..from {
            let update = write::propagate(self.id.key(shard), self.shard_count);
            env.send(0, Ask::Table(Op::Update(update)));
        }
    }

    pub(super) fn propagated(&mut self, left: u32, env: &mut Env<'_>) {
        if left > 1 {
            self.state = State::Propagate(left - 1);
        } else {
            self.go_to_new_shard(self.shard_count / 2, env);
        }
    }

    pub(super) fn go_to_new_shard(&mut self, from: u32, env: &mut Env<'_>) {
        self.doubled = true;
        let new = self.shard_count.saturating_sub(from);
        self.shard = if new == 0 {
            env.random.below(self.shard_count)
        } else {
            from + env.random.below(new)
        };
        self.debit(None, env);
    }
}

/// The shards that may hold the slice of a shard that does not exist: with 8 shards, that of 7 may lie with
/// 3, 1 or 0. Nearest first; shard 0, which knows the count, always last.
fn family(shard: u32, count: u32) -> Vec<u32> {
    let mut relatives: Vec<u32> = Vec::new();
    let mut of = count / 2;
    while of >= 1 {
        let relative = shard % of;
        if relative != shard && !relatives.contains(&relative) {
            relatives.push(relative);
        }
        of /= 2;
    }
    if !relatives.contains(&0) {
        relatives.push(0);
    }
    relatives
}

#[cfg(test)]
mod tests {
    use super::family;

    #[test]
    fn a_shard_descends_from_those_that_held_its_slice_before() {
        assert_eq!(family(7, 8), [3, 1, 0]);
        assert_eq!(family(4, 8), [0]);
        assert_eq!(family(1, 8), [0]);
        assert_eq!(family(5, 8), [1, 0]);
        assert_eq!(family(1, 2), [0]);
    }
}
