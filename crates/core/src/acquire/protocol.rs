//! What a machine and its driver say to each other: requests, asks, replies, decisions.

use std::sync::Arc;

use super::debit::Debit;
use crate::bucket::Bucket;
use crate::config::{Level, Resolved};
use crate::error::{InvalidInput, RecordError, UnsupportedFeature};
use crate::limit::Limit;
use crate::name::{EntityId, LimitName, ResourceName};
use crate::random::Random;
use crate::schema::BucketId;
use crate::table::{Answer, Applied, FailureKind, Op, TableError};
use crate::units::{EpochMillis, Millitokens};
use crate::verdict::RateLimitExceeded;

/// An acquire: the bucket and the amounts to take, of one resource or of several.
#[derive(Debug, Clone)]
pub struct Request {
    /// The bucket of the entity that asks.
    pub id: BucketId,
    /// Whole tokens by limit, each between 0 and the bound; an amount of 0 is refused in debt.
    pub consume: Vec<(LimitName, Millitokens)>,
    /// Amounts of further resources, each named once. All are taken together with these, or none.
    pub also: Vec<(ResourceName, Vec<(LimitName, Millitokens)>)>,
    /// Limits to enforce instead of the stored ones, for the entity and its parent alike.
    pub limits: Option<Vec<Limit>>,
    /// Whether limits that do not cover the amounts go into debt, instead of refusing.
    pub overdraws: bool,
    /// How buckets are kept.
    pub settings: Settings,
    /// What [slices](super::Slice) ask of it.
    pub slices: Option<Box<ForSlices>>,
}

impl Request {
    /// Its resources with their amounts.
    pub fn parts(&self) -> impl Iterator<Item = (&ResourceName, &[(LimitName, Millitokens)])> {
        (0..=self.also.len()).map(|part| self.part(part))
    }

    /// The resource of this number, and its amounts. The first one is that of the [bucket](Self::id); so is one that there is not.
    pub fn part(&self, part: usize) -> (&ResourceName, &[(LimitName, Millitokens)]) {
        match part.checked_sub(1).and_then(|further| self.also.get(further)) {
            Some((resource, amounts)) => (resource, amounts),
            None => (&self.id.resource, &self.consume),
        }
    }

    /// The parent for which the caller has tokens already.
    pub(super) fn paid(&self) -> Option<&EntityId> {
        self.slices.as_ref()?.paid.as_ref()
    }
}

/// What [slices](super::Slice) ask of an acquire.
#[derive(Debug, Clone, Default)]
pub struct ForSlices {
    /// What is taken ahead of the entity's bucket.
    pub child: Option<Ahead>,
    /// What is taken ahead of this parent's bucket, if it is the parent.
    pub parent: Option<(EntityId, Ahead)>,
    /// A parent for which the caller has tokens already: if it is the parent, it is not debited. See
    /// [`Acquire::is_paid`](super::Acquire::is_paid).
    pub paid: Option<EntityId>,
}

/// Tokens for further calls, to be taken by the first write of a bucket if its last image shows four times as much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// For how many calls at most.
    pub calls: u32,
    /// What a call takes: whole tokens by limit.
    pub per_call: Vec<(LimitName, Millitokens)>,
    /// What the process holds already, which is not taken again.
    pub held: Vec<(LimitName, Millitokens)>,
}

impl Ahead {
    /// What is to be taken of a limit for so many calls.
    pub(super) fn of(&self, limit: &LimitName, calls: i128) -> Millitokens {
        let of = |amounts: &[(LimitName, Millitokens)]| {
            let found = amounts.iter().find(|(named, _)| named == limit);
            found.map_or(0, |(_, amount)| amount.0)
        };
        Millitokens(
            of(&self.per_call)
                .saturating_mul(calls)
                .saturating_sub(of(&self.held))
                .max(0),
        )
    }
}

/// How buckets are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// An idle bucket under shared limits is kept this many times as long as it takes to fill; with 0 it
    /// never expires. Default 7.
    pub bucket_ttl_multiplier: u32,
    /// For how long at most a client goes by a bypass without reading the configuration again, in milliseconds. Default 60,000.
    pub stamp_ttl_ms: u32,
}

impl Settings {
    /// The life of a stamp, which is up to a fifth shorter so that those of many shards do not end at once.
    pub fn stamp_life_ms(self, random: &mut dyn Random) -> i64 {
        i64::from(self.stamp_ttl_ms - random.below(self.stamp_ttl_ms / 5 + 1))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bucket_ttl_multiplier: 7,
            stamp_ttl_ms: 60_000,
        }
    }
}

/// The cached state of a bucket. It can refuse a request or choose a shard, but never admit.
#[derive(Debug, Clone, Default)]
pub struct Hint {
    /// The highest shard count seen; 0 or 1 when unknown.
    pub shard_count: u32,
    /// The last image of each shard, if it is fresh enough to reject by.
    pub images: Vec<(u32, Arc<Bucket>)>,
    /// The last image of each other shard that was seen: too old for that, but good for choosing the first write,
    /// which is pinned to it.
    pub older: Vec<(u32, Arc<Bucket>)>,
    /// How long the table takes to answer at present, in milliseconds; see
    /// [`next_round_trip`](super::next_round_trip). 0 if unknown.
    pub round_trip_ms: i64,
    /// Shards that another call of this process is refilling or creating at this moment.
    pub refilling: Vec<u32>,
}

/// The answer to [`Ask::Config`].
#[derive(Debug, Clone)]
pub struct Found {
    /// The configuration in force.
    pub config: Arc<Resolved>,
    /// The cached state of the entity's bucket.
    pub hint: Hint,
}

/// Why an acquire could not be decided.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AcquireError {
    /// The request is not one that the configured limits can answer.
    #[error(transparent)]
    Input(#[from] InvalidInput),
    /// No level defines limits for the entity and resource.
    #[error("no limits are configured for entity '{entity}' and resource '{resource}' at any level")]
    NotConfigured {
        /// The entity.
        entity: String,
        /// The resource.
        resource: String,
    },
    /// A stored record cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The table failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The caller stopped waiting.
    #[error("the caller stopped waiting")]
    Abandoned,
}

pub(crate) use AcquireError as TakeError;

/// An error for a leg that lost its own thread.
pub(crate) fn out_of_order() -> TableError {
    TableError::new(
        FailureKind::Internal,
        Applied::Unknown,
        "an answer arrived out of order",
    )
}

/// Something the machine needs.
#[derive(Debug, Clone)]
pub enum Ask {
    /// A table operation.
    Table(Op),
    /// A debit, alone ([`Debit::update`]) or with others in a [`Group`](super::Group). Answered by [`Reply::Table`] or
    /// [`Reply::Debited`].
    Debit(Box<Debit>),
    /// The configuration of an entity for a resource of the request.
    Config {
        /// The entity.
        entity: EntityId,
        /// The resource.
        resource: ResourceName,
        /// Read it now, whatever is cached.
        fresh: bool,
    },
    /// Nothing but the time that the call says. Answered by [`Reply::Waited`].
    Wait,
    /// Give these tokens back, by a [credit](crate::credit). It goes ahead even if the caller has stopped waiting.
    /// Answered by [`Reply::GivenBack`].
    GiveBack(Grant),
}

/// One request of the machine: wait `delay_ms`, then do `ask`, then answer with `id`.
#[derive(Debug, Clone)]
pub struct Call {
    /// Names the call in [`Acquire::answer`](super::Acquire::answer).
    pub id: usize,
    /// Milliseconds to wait first.
    pub delay_ms: u64,
    /// The request to the driver.
    pub ask: Ask,
}

/// The outcome of a call.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Of a table operation.
    Table(Result<Answer, TableError>),
    /// Of a debit that was part of a [`Batch`](super::Batch), or waited for one, with the shard as the batch left it.
    Debited(Outcome, Arc<Bucket>),
    /// Of a configuration request.
    Config(Result<Found, AcquireError>),
    /// The time has passed.
    Waited,
    /// The credit has ended, with any outcome, or the caller has stopped waiting for it.
    GivenBack,
}

/// What became of a debit in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The tokens were taken.
    Taken,
    /// The write that carried it was refused.
    Refused,
    /// No write carried it.
    LeftOut,
}

/// Tokens taken from one shard.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The bucket.
    pub id: BucketId,
    /// The shard that was debited. Whatever is given back goes there.
    pub shard: u32,
    /// How much, by limit. Not in whole tokens where a request was divided over shards.
    pub amounts: Vec<(LimitName, Millitokens)>,
    /// The shard as the debit left it.
    pub image: Arc<Bucket>,
    /// Whether the amounts were only counted, under a bypass. Then there is nothing to give back but the count.
    pub is_bypassed: bool,
}

impl Grant {
    /// Adds tokens that were taken later from the same shard in the same life of the bucket, so that one credit
    /// corrects both. It keeps the later image, unless the bucket was split in between: then the image from before
    /// shows that a refund may have to be divided.
    pub fn add(&mut self, later: Self) {
        for (name, amount) in later.amounts {
            match self.amounts.iter_mut().find(|(summed, _)| *summed == name) {
                Some((_, sum)) => *sum += amount,
                None => self.amounts.push((name, amount)),
            }
        }
        if later.image.shard_count <= self.image.shard_count {
            self.image = later.image;
        }
    }
}

/// Where a disabled flag was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisabledAt {
    /// On the configuration of this level.
    Config(Level),
    /// On the bucket.
    Bucket,
}

/// How an acquire ended.
#[derive(Debug, Clone)]
pub enum Decision {
    /// The tokens were taken: of each resource from the entity's bucket, and from its parent's if it cascades. Several grants of
    /// one bucket are of several shards, where none covered the request alone.
    Admitted(Vec<Grant>),
    /// A limit refused. Whatever was taken on the way has been given back.
    Rejected(RateLimitExceeded),
    /// The entity or resource is disabled.
    Disabled {
        /// The bucket.
        bucket: BucketId,
        /// Where the flag is.
        at: DisabledAt,
    },
    /// It could not be decided.
    Failed(AcquireError),
}

/// A shard's image that an answer showed, for the driver to remember.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The bucket.
    pub id: BucketId,
    /// The shard.
    pub shard: u32,
    /// The image of the item.
    pub image: Arc<Bucket>,
}

/// The environment of a leg during a step.
pub(crate) struct Env<'a> {
    pub(crate) now: EpochMillis,
    pub(crate) random: &'a mut dyn Random,
    pub(crate) asks: Vec<(u64, Ask)>,
    pub(crate) observations: &'a mut Vec<Observation>,
}

impl Env<'_> {
    pub(crate) fn send(&mut self, delay_ms: u64, ask: Ask) {
        self.asks.push((delay_ms, ask));
    }

    pub(crate) fn observe(&mut self, id: &BucketId, shard: u32, image: &Arc<Bucket>) {
        self.observations.push(Observation {
            id: id.clone(),
            shard,
            image: Arc::clone(image),
        });
    }
}

/// Whether a configuration defines limits, all of which can be enforced, and those that are asked for.
pub fn check_config(
    config: &Resolved,
    resource: &ResourceName,
    amounts: &[(LimitName, Millitokens)],
) -> Result<(), AcquireError> {
    if let (Some(feature), true) = (&config.unsupported, config.level != Level::Override) {
        return Err(RecordError::from(feature.clone()).into());
    }
    let mut limits = config.limits.iter().filter(|_| config.level == Level::Override);
    if let Some((limit, part)) = limits.find_map(|limit| Some((limit, limit.part_of_shape()?))) {
        return Err(RecordError::from(UnsupportedFeature {
            record: "limit",
            key: limit.name().to_string(),
            attribute: part.to_owned(),
            advice: "pass limits that are refilled over time, without schedules",
        })
        .into());
    }
    if config.limits.is_empty() {
        return Err(AcquireError::NotConfigured {
            entity: config.entity.to_string(),
            resource: resource.to_string(),
        });
    }
    for (name, amount) in amounts {
        if config.limit(name).is_none() {
            let known: Vec<&str> = config.limits.iter().map(|limit| limit.name().as_str()).collect();
            let reason = format!(
                "no limit of this name is configured for this entity and resource; there are: {}",
                known.join(", ")
            );
            return Err(InvalidInput::unknown(format!("consume.{name}"), amount, reason).into());
        }
    }
    Ok(())
}
