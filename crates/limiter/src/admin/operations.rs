//! Resetting and topping up live buckets.

use std::collections::BTreeSet;
use std::time::Duration;

use zae_limiter_core::bucket::MAX_SHARDS;
use zae_limiter_core::config::Resolved;
use zae_limiter_core::operator::{
    Change, Operation, OperationKey, OperationRecord, OperationResult, Plan, Recorded, Replaces, Shards,
    missing, read_shards, shard_count,
};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::sync::{Drift, reconcile};
use zae_limiter_core::table::{Item, Key, Part, Value};
use zae_limiter_core::version::{Gate, Gated};
use zae_limiter_core::{EntityId, IntoName, InvalidInput, LimitName, ResourceName, ResourceScope};

use crate::acquire::draws::FastRandom;
use crate::admin::Admin;
use crate::admin::audit::Event;
use crate::admin::retry::BRIEF;
use crate::admin::stack::Stack;
use crate::error::Error;
use crate::table::{TableExt as _, Transacted};

/// How often an operation that loses to other writers of the bucket is planned again.
const MAX_ATTEMPTS: u32 = 4;

/// How often a bucket is read again after it was brought up to its configuration.
const MAX_PREPARATIONS: u32 = 4;

/// The longest pause before the second attempt; twice as long before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The bucket, the key and what was refused while they were named.
#[derive(Debug, Clone)]
struct Target {
    names: Result<(EntityId, ResourceName), InvalidInput>,
    key: Result<Option<OperationKey>, InvalidInput>,
}

impl Target {
    fn new(entity: impl IntoName<EntityId>, resource: impl IntoName<ResourceName>) -> Self {
        let names = entity
            .into_name()
            .and_then(|entity| Ok((entity, resource.into_name()?)));
        Self { names, key: Ok(None) }
    }

    fn set_key(&mut self, key: impl AsRef<str>) {
        self.key = OperationKey::new(key).map(Some);
    }
}

/// A reset of an entity's limits for a resource, for [`Admin::reset_bucket`].
///
/// ```
/// use zae_limiter::BucketReset;
///
/// let reset = BucketReset::new("key-1", "gpt-4").limit("rpd").idempotency_key("ticket-4711");
/// ```
#[derive(Debug, Clone)]
#[must_use = "describes a reset; pass it to `reset_bucket`"]
pub struct BucketReset {
    target: Target,
    limits: Result<Vec<LimitName>, InvalidInput>,
}

impl BucketReset {
    /// A reset of all limits that are configured for the entity and the resource.
    pub fn new(entity: impl IntoName<EntityId>, resource: impl IntoName<ResourceName>) -> Self {
        Self {
            target: Target::new(entity, resource),
            limits: Ok(Vec::new()),
        }
    }

    /// Resets this limit, and the others that are named, and leaves the rest.
    pub fn limit(mut self, limit: impl IntoName<LimitName>) -> Self {
        match (&mut self.limits, limit.into_name()) {
            (Ok(limits), Ok(limit)) => limits.push(limit),
            (Ok(_), Err(err)) => self.limits = Err(err.in_field("limits")),
            (Err(_), _) => {}
        }
        self
    }

    /// Names the reset, with 1 to 64 letters, digits, `.`, `_`, `:` and `-`: a call with the same key within three days resets
    /// nothing, and returns what the first one did.
    pub fn idempotency_key(mut self, key: impl AsRef<str>) -> Self {
        self.target.set_key(key);
        self
    }
}

/// Tokens to add to an entity's limits for a resource, for [`Admin::top_up`].
///
/// ```
/// use zae_limiter::TopUp;
///
/// let bought = TopUp::new("key-1", "gpt-4").add("tokens", 5_000).idempotency_key("order-17");
/// ```
#[derive(Debug, Clone)]
#[must_use = "describes a top-up; pass it to `top_up`"]
pub struct TopUp {
    target: Target,
    amounts: Result<Vec<(LimitName, u64)>, InvalidInput>,
}

impl TopUp {
    /// A top-up of limits that are still to be [named](Self::add).
    pub fn new(entity: impl IntoName<EntityId>, resource: impl IntoName<ResourceName>) -> Self {
        Self {
            target: Target::new(entity, resource),
            amounts: Ok(Vec::new()),
        }
    }

    /// Adds 1 to 10^15 tokens to a limit. What is named twice is added together.
    pub fn add(mut self, limit: impl IntoName<LimitName>, tokens: u64) -> Self {
        match (&mut self.amounts, limit.into_name()) {
            (Ok(amounts), Ok(limit)) => amounts.push((limit, tokens)),
            (Ok(_), Err(err)) => self.amounts = Err(err.in_field("amounts")),
            (Err(_), _) => {}
        }
        self
    }

    /// Names the top-up, with 1 to 64 letters, digits, `.`, `_`, `:` and `-`: a call with the same key within three days adds
    /// nothing, and returns what the first one did.
    pub fn idempotency_key(mut self, key: impl AsRef<str>) -> Self {
        self.target.set_key(key);
        self
    }
}

/// A call: what it does, under which key, and a random name of its own for the record.
struct Call {
    id: BucketId,
    change: Change,
    key: OperationKey,
    has_key: bool,
    writer: String,
}

impl Admin {
    /// Makes an entity's limits for a resource whole again, at once.
    ///
    /// A limit that is refilled by its rate is full, and a debt is forgiven. A quota has all of its amount for the rest of its
    /// period; what was [added](Self::top_up) to it is gone. Of a session limit the session has ended, and the next request
    /// begins another one. Nothing else changes: not what was counted as used, nor the buckets of the parent. A bucket that does
    /// not exist is left so: its first request finds it full.
    ///
    /// All shards change in one transaction, with the event in the audit log. Debits that arrive at the same time stay debited.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{BucketReset, Limit, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_resource_defaults("gpt-4", [Limit::quota("rpd", 100).resets("0 0 * * *", "UTC")]).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// limiter.acquire("key-1", "gpt-4").consume("rpd", 100).await?.commit().await?;
    ///
    /// let reset = admin.reset_bucket(BucketReset::new("key-1", "gpt-4").idempotency_key("ticket-4711")).await?;
    /// assert_eq!((reset.shards, reset.amounts.values().sum::<i64>()), (1, 100));
    /// limiter.acquire("key-1", "gpt-4").consume("rpd", 60).await?.commit().await?;
    /// // A repetition does nothing, and says what the first call did.
    /// let again = admin.reset_bucket(BucketReset::new("key-1", "gpt-4").idempotency_key("ticket-4711")).await?;
    /// assert_eq!(again, reset);
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["rpd"], 40);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a limit that is not configured, or a key that was used for a top-up;
    /// [`Error::NotConfigured`] if no level has limits; [`Error::Unavailable`] if other requests kept changing the bucket. If that
    /// is [in doubt](Error::in_doubt), or the call was cancelled, the reset may have happened: the same call with the same key
    /// finds out. Without a key, it resets again.
    pub async fn reset_bucket(&self, reset: BucketReset) -> Result<OperationResult, Error> {
        let (target, limits) = (reset.target, reset.limits?);
        self.operate(target, Change::Reset(limits)).await
    }

    /// Adds tokens to an entity's limits for a resource, at once.
    ///
    /// A quota or a session limit gets exactly the amount, on top of what it is, until its period ends. A session begins with it
    /// if none has begun. A limit that is refilled by its rate is filled up, but not beyond its capacity: the result says by how
    /// much. A bucket that does not exist is created, full, with what is added to its quotas.
    ///
    /// All shards change in one transaction, with the event in the audit log. Debits that arrive at the same time stay debited.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Limit, RateLimiter, Repository, TopUp};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_resource_defaults("gpt-4", [Limit::quota("rpd", 100).resets("0 0 * * *", "UTC")]).await?;
    /// let bought = TopUp::new("key-1", "gpt-4").add("rpd", 50).idempotency_key("order-17");
    /// assert_eq!(admin.top_up(bought.clone()).await?.amounts.values().sum::<i64>(), 50);
    /// admin.top_up(bought).await?;
    ///
    /// let limiter = RateLimiter::new(repo.clone());
    /// assert_eq!(limiter.available("key-1", "gpt-4").await?["rpd"], 150);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`reset_bucket`](Self::reset_bucket); [`Error::InvalidInput`] also for an amount of 0 or above 10^15, and for a
    /// limit that is configured but not on the bucket yet; [`Error::Disabled`] if the bucket would have to be created;
    /// [`Error::VersionMismatch`], before anything is written, if a quota is topped up on a table whose functions predate it.
    pub async fn top_up(&self, top_up: TopUp) -> Result<OperationResult, Error> {
        let (target, amounts) = (top_up.target, top_up.amounts?);
        self.operate(target, Change::TopUp(amounts)).await
    }

    async fn operate(&self, target: Target, change: Change) -> Result<OperationResult, Error> {
        let (entity, resource) = target.names?;
        let key = target.key?;
        let has_key = key.is_some();
        let key = if let Some(key) = key {
            key
        } else {
            let tail = u128::from(fastrand::u64(..)) << 16 | u128::from(fastrand::u16(..));
            let now = self.inner.clock.now().0.unsigned_abs();
            OperationKey::new(ulid::Ulid::from_parts(now, tail).to_string())?
        };
        let call = Call {
            id: self.inner.bucket_id(&entity, &resource),
            change,
            key,
            has_key,
            writer: format!("{:016x}{:08x}", fastrand::u64(..), fastrand::u32(..)),
        };
        let done = self.attempts(&call).await;
        // What this process has seen of the bucket says nothing any more, also if it is not known how the call has ended.
        self.inner.images.forget(&call.id);
        done
    }

    async fn attempts(&self, call: &Call) -> Result<OperationResult, Error> {
        let inner = &self.inner;
        let mut doubt = None;
        for attempt in 0..MAX_ATTEMPTS {
            let is_first = attempt == 0;
            if !is_first {
                let longest = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempt - 1));
                tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
            }
            // The entity may have been deleted and created again since the last attempt.
            let operation = self.check(call).await?;
            // What failed may have happened, or another call with the same key.
            let asks = call.has_key || !is_first;
            let replaces = match self.recorded(call, &operation, asks).await? {
                Recorded::Done(done) => return Ok(done),
                Recorded::Other(err) => return Err(err.into()),
                Recorded::Nothing(replaces) => replaces,
            };
            if is_first {
                // Tokens that this process has taken ahead belong to the bucket that is changed.
                inner.return_slices_of(&call.id).await;
            }
            let plan = self.plan(&operation).await?;
            if plan.parts.is_empty() && !call.has_key {
                return Ok(plan.result);
            }
            if plan.raises_ceiling {
                self.pass(&Gate::of_part(Gated::TopUp)).await?;
            }
            let result = plan.result.clone();
            let parts = self.parts(call, plan, operation.incarnation(), &replaces).await?;
            match inner.place.transact(&*inner.table, parts).await {
                Ok(Transacted::Applied) => return Ok(result),
                Ok(Transacted::Cancelled(_)) => {}
                Err(err) if err.in_doubt() => doubt = Some(err),
                Err(err) => return Err(err),
            }
        }
        let operation = self.check(call).await?;
        match self.recorded(call, &operation, true).await? {
            Recorded::Done(done) => Ok(done),
            Recorded::Other(err) => Err(err.into()),
            Recorded::Nothing(_) => Err(doubt.unwrap_or_else(|| inner.place.contended(&call.id.key(0)))),
        }
    }

    /// The operation, by the configuration in force.
    async fn check(&self, call: &Call) -> Result<Operation, Error> {
        let inner = &self.inner;
        let config = inner.resolve_now(&call.id.entity, &call.id.resource).await?;
        let settings = inner.options.settings;
        let operation = Operation::new(call.id.clone(), call.change.clone(), config, settings);
        operation.map_err(|err| inner.place.acquire_error(err))
    }

    /// What is recorded under the key of a call. A key that nothing else can have used is not looked for.
    async fn recorded(&self, call: &Call, operation: &Operation, asks: bool) -> Result<Recorded, Error> {
        let inner = &self.inner;
        if !asks {
            return Ok(Recorded::Nothing(Replaces::Nothing));
        }
        let key = OperationRecord::table_key(&call.id, &call.key);
        let item = inner.place.read(&*inner.table, &key).await?;
        let recorded = OperationRecord::read(item.as_ref(), call.change.kind(), operation.incarnation());
        recorded.map_err(Into::into)
    }

    async fn plan(&self, operation: &Operation) -> Result<Plan, Error> {
        let inner = &self.inner;
        let shards = self.prepared(operation).await?;
        let now = inner.clock.now();
        if !shards.is_empty() || matches!(operation.change(), Change::Reset(_)) {
            let plan = operation.plan(&shards, now);
            return plan.map_err(|err| inner.place.acquire_error(err));
        }
        let plan = operation.create(now, &mut FastRandom);
        match operation.config().disabled() {
            Some(level) if !plan.parts.is_empty() => Err(Error::Disabled {
                entity: operation.id().entity.to_string(),
                resource: operation.id().resource.to_string(),
                level: level.as_str(),
            }),
            _ => Ok(plan),
        }
    }

    /// The writes of a plan, with its record and its event.
    async fn parts(
        &self,
        call: &Call,
        plan: Plan,
        incarnation: &str,
        replaces: &Replaces,
    ) -> Result<Vec<Part>, Error> {
        let Plan {
            mut parts, result, ..
        } = plan;
        let amounts = result.amounts.iter();
        let amounts = amounts.map(|(limit, amount)| (limit.to_string(), Value::int(*amount)));
        let event = Event {
            subject: call.id.entity.to_string(),
            action: call.change.action(),
            resource: Some(call.id.resource.to_string()),
            details: Item::from([
                ("amounts".into(), Value::M(amounts.collect())),
                ("shards".into(), Value::int(result.shards)),
            ]),
        };
        let record = OperationRecord {
            key: call.key.clone(),
            kind: call.change.kind().to_owned(),
            writer: call.writer.clone(),
            incarnation: incarnation.to_owned(),
            result,
        };
        parts.push(Part::Put(record.put(&call.id, replaces, self.inner.clock.now())));
        let days = self.audit_retention_days().await?;
        parts.push(Part::Put(self.event_put(event, days).await));
        Ok(parts)
    }

    /// All shards of the bucket, brought up to the configuration in force, and those created that are missing: what belongs to
    /// them would otherwise lie with others, and be no part of what is reset.
    async fn prepared(&self, operation: &Operation) -> Result<Shards, Error> {
        let inner = &self.inner;
        let mut has_created = false;
        for _ in 0..MAX_PREPARATIONS {
            let shards = self.all_shards(operation.id()).await?;
            if self.bring_up(operation, &shards).await? {
                continue;
            }
            if !has_created && self.create_missing(operation, &shards).await? {
                has_created = true;
                continue;
            }
            return Ok(shards);
        }
        Err(inner.place.contended(&operation.id().key(0)))
    }

    /// Brings shards up to the configuration. Returns whether one was behind.
    async fn bring_up(&self, operation: &Operation, shards: &Shards) -> Result<bool, Error> {
        let inner = &self.inner;
        let config: &Resolved = operation.config();
        let multiplier = inner.options.settings.bucket_ttl_multiplier;
        let mut was_behind = false;
        for (shard, image) in shards {
            let now = inner.clock.now();
            if !Drift::between(image, config, now).limits {
                continue;
            }
            was_behind = true;
            let key = operation.id().key(*shard);
            let update = reconcile(key, image, config, multiplier, now);
            // Refused, another writer was faster: the next look tells.
            let _ = inner
                .place
                .insisting(BRIEF, || inner.table.update(update.clone()))
                .await?;
        }
        Ok(was_behind)
    }

    /// Creates shards that are missing, as the next requests would. Returns whether any were: there are none of a bucket that is
    /// disabled, nor of one with quotas, whose parts lie with others until a client that splits them creates the shards.
    async fn create_missing(&self, operation: &Operation, shards: &Shards) -> Result<bool, Error> {
        let (count, missing) = (shard_count(shards), missing(shards));
        let has_quota = shards.values().any(|image| image.has_quota());
        if missing.is_empty() || count > MAX_SHARDS || has_quota || !shards.contains_key(&0) {
            return Ok(false);
        }
        let stack = Stack {
            parts: self.inner.parts(),
        };
        let mut created = 0;
        for shard in missing {
            created += stack
                .create_shards(operation.id(), shard..shard + 1, count)
                .await?;
        }
        Ok(created > 0)
    }

    /// Reads all shards of a bucket consistently: those that the index shows, which is behind, and those that there should be.
    async fn all_shards(&self, id: &BucketId) -> Result<Shards, Error> {
        let inner = &self.inner;
        let scope = ResourceScope::One(id.resource.clone());
        let listed = self.buckets_of(&id.entity, &scope).await?;
        let mut wanted: BTreeSet<Key> = listed
            .into_iter()
            .filter(|key| BucketId::parse(key).is_some_and(|(of, _)| of == *id))
            .collect();
        wanted.insert(id.key(0));
        let (mut items, mut asked) = (Vec::new(), BTreeSet::new());
        loop {
            let keys: Vec<Key> = wanted.iter().cloned().collect();
            let read = || inner.table.batch_get(keys.clone(), true);
            items.extend(inner.place.insisting(BRIEF, read).await?);
            asked.append(&mut wanted);
            let shards = read_shards(&items)?;
            wanted.extend(missing(&shards).into_iter().map(|shard| id.key(shard)));
            wanted.retain(|key| !asked.contains(key));
            if wanted.is_empty() {
                return Ok(shards);
            }
        }
    }
}
