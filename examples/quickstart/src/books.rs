//! The books: what every key and the project used according to the leases and to the table. Both must agree.

use zae_limiter::table::TableExt as _;
use zae_limiter::{EntityId, Error, Limit, RateLimiter, Repository, ResourceName};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::{Bucket, EpochMillis, Millitokens};

use crate::Failure;
use crate::setup::{LIMITS, MODEL, PROJECT, key};

/// One limit of one entity, over the replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spending {
    /// Tokens that committed leases held.
    pub(crate) used: i64,
    /// How many requests the limit refused.
    pub(crate) refused: u64,
    /// The largest debt that was seen.
    pub(crate) owed_at_most: i64,
}

/// One entity over the replay.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) limits: Vec<Limit>,
    /// By limit, in the order of [`LIMITS`].
    pub(crate) spending: [Spending; 2],
    /// The state of its buckets before and after the replay.
    pub(crate) before: Standing,
    pub(crate) after: Standing,
    /// How often it was debited. Shows whether a call took tokens between two moments.
    pub(crate) debits: u64,
}

/// The state of an entity's bucket, by limit in the order of [`LIMITS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Available whole tokens; negative in debt.
    pub(crate) available: [i64; 2],
    /// The same without the ceiling. A bucket gains tokens for the time since its last refill, which a plain debit does
    /// not change. Tokens above the capacity can still be used if a debit makes room before the next refill.
    earned: [i64; 2],
    /// Net consumption since the bucket was created, counted by the table.
    pub(crate) counted: [Millitokens; 2],
}

/// The books of all keys and their project.
#[derive(Debug)]
pub(crate) struct Books {
    /// The accounts of the keys by rank, then the project's.
    accounts: Vec<Account>,
    opened_at: EpochMillis,
}

impl Books {
    /// Opens the books with the current state of the buckets.
    pub(crate) async fn open(limiter: &RateLimiter, keys: usize, now: EpochMillis) -> Result<Self, Failure> {
        let repo = limiter.repository();
        let mut accounts = Vec::with_capacity(keys + 1);
        for id in (0..keys).map(key).chain([PROJECT.to_owned()]) {
            let stored = repo.admin().effective_limits(&id, MODEL).await?;
            let named = |name: &&str| {
                stored
                    .iter()
                    .find(|limit| limit.name().as_str() == *name)
                    .cloned()
            };
            let limits: Vec<Limit> = LIMITS.iter().filter_map(named).collect();
            let standing = standing(limiter, &id, &limits, now).await?;
            accounts.push(Account {
                limits,
                id,
                spending: [Spending::default(); 2],
                before: standing,
                after: standing,
                debits: 0,
            });
        }
        Ok(Self {
            accounts,
            opened_at: now,
        })
    }

    /// The keys' accounts, by rank.
    pub(crate) fn keys(&self) -> &[Account] {
        &self.accounts[..self.accounts.len() - 1]
    }

    /// The project's account.
    pub(crate) fn project(&self) -> &Account {
        &self.accounts[self.accounts.len() - 1]
    }

    /// The accounts from which a key's calls take tokens: its own and the project's.
    pub(crate) fn charged(&mut self, key: usize) -> [&mut Account; 2] {
        let last = self.accounts.len() - 1;
        let (keys, project) = self.accounts.split_at_mut(last);
        [&mut keys[key], &mut project[0]]
    }

    /// Closes the books: reads every bucket again and lists the differences.
    pub(crate) async fn close(
        &mut self,
        limiter: &RateLimiter,
        now: EpochMillis,
    ) -> Result<Vec<String>, Failure> {
        for account in &mut self.accounts {
            account.after = standing(limiter, &account.id, &account.limits, now).await?;
        }
        let mut faults: Vec<String> = self
            .accounts
            .iter()
            .flat_map(|account| account.faults(self.opened_at, now))
            .collect();
        let (project, keys) = (self.project(), self.keys());
        for (i, limit) in LIMITS.iter().enumerate() {
            let keys = keys.iter().map(|key| key.counted(i).0).sum();
            if project.counted(i) != Millitokens(keys) {
                let (keys, project) = (Millitokens(keys), project.counted(i));
                faults.push(format!(
                    "{limit}: the table counts {keys} for all keys, but {project} for the project"
                ));
            }
        }
        Ok(faults)
    }
}

impl Account {
    /// The consumption that the table counted during the replay.
    pub(crate) fn counted(&self, limit: usize) -> Millitokens {
        self.after.counted[limit] - self.before.counted[limit]
    }

    fn faults(&self, from: EpochMillis, to: EpochMillis) -> Vec<String> {
        let mut faults = Vec::new();
        for (i, limit) in self.limits.iter().enumerate() {
            let (name, used) = (format!("{} {}", self.id, limit.name()), self.spending[i].used);
            let counted = self.counted(i);
            if counted != Millitokens::from_tokens(used) {
                faults.push(format!(
                    "{name}: the leases used {used}, but the table counts {counted}"
                ));
            }
            // The balance before the replay plus the refill is either used, still there, or cut at the capacity.
            let (had, has) = (self.before, self.after.available[i]);
            let most = had.earned[i] + earned(limit, to.since(from), 1) - used;
            let least = had.available[i] - used;
            if has > most.min(limit.capacity().cast_signed()) + 1 || has < least - 1 {
                faults.push(format!("{name}: {has} are left, expected {least} to {most}"));
            }
        }
        faults
    }
}

/// Whole tokens that one of `shards` shards gains in a time, rounded up.
fn earned(limit: &Limit, millis: i64, shards: u32) -> i64 {
    let period = i128::from(limit.refill_period().as_secs()) * 1000 * i128::from(shards);
    let parts = i128::from(limit.refill_amount()) * i128::from(millis.max(0));
    i64::try_from((parts + period - 1) / period).unwrap_or(i64::MAX / 4)
}

async fn standing(
    limiter: &RateLimiter,
    entity: &str,
    limits: &[Limit],
    now: EpochMillis,
) -> Result<Standing, Failure> {
    let mut standing = Standing::default();
    // A key's statuses are followed by its project's.
    for status in limiter.check(entity, MODEL).await?.statuses {
        let limit = LIMITS.iter().position(|limit| status.limit_name == *limit);
        if let Some(i) = limit.filter(|_| status.entity.as_str() == entity) {
            standing.available[i] = status.available;
        }
    }
    let shards = shards(limiter.repository(), entity).await?;
    if shards.is_empty() {
        standing.earned = standing.available;
    }
    for bucket in shards {
        for (i, limit) in limits.iter().enumerate() {
            let Some(stored) = bucket
                .limits
                .iter()
                .find(|stored| stored.name == *limit.name().as_str())
            else {
                continue;
            };
            standing.counted[i] += stored.consumed.unwrap_or_default();
            let since_refill = earned(limit, now.since(bucket.refilled_at), bucket.shard_count);
            standing.earned[i] += stored.balance.floor_tokens() + 1 + since_refill;
        }
    }
    Ok(standing)
}

/// The latest instant that the buckets of all keys and the project were refilled to.
pub(crate) async fn last_refill(repo: &Repository, keys: usize) -> Result<Option<EpochMillis>, Failure> {
    let mut last = None;
    for id in (0..keys).map(key).chain([PROJECT.to_owned()]) {
        last = last.max(
            shards(repo, &id)
                .await?
                .iter()
                .map(|bucket| bucket.refilled_at)
                .max(),
        );
    }
    Ok(last)
}

/// The stored bucket of an entity. Above a thousand writes a second a bucket is split into shards, each an item of its
/// own. The first shard has their number.
async fn shards(repo: &Repository, entity: &str) -> Result<Vec<Bucket>, Failure> {
    let id = BucketId {
        namespace: repo.namespace_id().clone(),
        entity: EntityId::new(entity).map_err(Error::from)?,
        resource: ResourceName::new(MODEL).map_err(Error::from)?,
    };
    let mut shards: Vec<Bucket> = Vec::new();
    let mut shard = 0;
    while shard < shards.first().map_or(1, |first| first.shard_count) {
        if let Some(item) = repo.table().get(id.key(shard), true).await? {
            shards.push(Bucket::decode(&item).map_err(Error::from)?);
        }
        shard += 1;
    }
    Ok(shards)
}
