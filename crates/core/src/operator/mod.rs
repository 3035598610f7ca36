//! What an operator does to a live bucket: giving an entity its tokens back, and adding to them.
//!
//! An [`Operation`] is checked against the configuration, then [planned](Operation::plan) from all shards of the bucket, read
//! consistently. The [plan](Plan) is one transaction, together with a [record](OperationRecord) of the operation, by which a
//! repetition of the call is recognised. A plan that loses to another writer is made anew from another read. Nothing here
//! performs I/O: the crate `zae-limiter` reads, sends and repeats.

mod plan;
mod record;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use record::{OperationKey, OperationRecord, Recorded, Replaces};

use crate::acquire::{AcquireError, Settings, check_config};
use crate::bucket::Bucket;
use crate::config::Resolved;
use crate::error::{InvalidInput, RecordError, UnsupportedFeature};
use crate::limit::Limit;
use crate::name::{EntityId, LimitName, ResourceName};
use crate::schema::{BucketId, key_of};
use crate::table::{Item, Part};
use crate::units::{MAX_TOKENS, Millitokens};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes these limits whole again; all that are configured, if none is named.
    Reset(Vec<LimitName>),
    /// Adds whole tokens to limits.
    TopUp(Vec<(LimitName, u64)>),
}

impl Change {
    /// The kind, as it stands in records: `reset` or `top_up`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Reset(_) => "reset",
            Self::TopUp(_) => "top_up",
        }
    }

    /// The action of the audit event: `bucket_reset` or `bucket_topped_up`.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Reset(_) => "bucket_reset",
            Self::TopUp(_) => "bucket_topped_up",
        }
    }
}

/// The effect of a reset or a top-up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OperationResult {
    /// The entity.
    #[cfg_attr(feature = "serde", serde(rename = "entity_id"))]
    pub entity: EntityId,
    /// The resource.
    pub resource: ResourceName,
    /// How many shards of the bucket were written; 0 if there was nothing to write.
    pub shards: u32,
    /// Whole tokens that each limit has gained. A reset of a balance above the limit is negative.
    pub amounts: BTreeMap<LimitName, i64>,
}

/// A reset or a top-up of one bucket, checked against its configuration.
#[derive(Debug, Clone)]
pub struct Operation {
    id: BucketId,
    change: Change,
    config: Arc<Resolved>,
    settings: Settings,
    /// The limits that it is about, with millitokens to add.
    named: Vec<(LimitName, Millitokens)>,
}

/// The writes of an operation, all of which happen or none.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The writes to the bucket, and the conditions that they depend on. None if there is nothing to write.
    pub parts: Vec<Part>,
    /// The effect.
    pub result: OperationResult,
    /// Whether a quota gains more than its part, which older functions cut:
    /// [`Gated::TopUp`](crate::version::Gated::TopUp).
    pub raises_ceiling: bool,
}

/// Images of a bucket's shards, by shard.
pub type Shards = BTreeMap<u32, Arc<Bucket>>;

impl Operation {
    /// Checks an operation on the bucket `id` against the configuration in force.
    ///
    /// # Errors
    /// [`AcquireError::Input`] if a limit is named that is not configured, or an amount is 0 or above 10^15, or nothing is to be
    /// added; [`AcquireError::NotConfigured`] if no level has limits; [`AcquireError::Record`] if they cannot be read.
    pub fn new(
        id: BucketId,
        change: Change,
        config: Arc<Resolved>,
        settings: Settings,
    ) -> Result<Self, AcquireError> {
        check_config(&config, &id.resource, &[])?;
        let named = match &change {
            Change::Reset(limits) if limits.is_empty() => {
                let all = config.limits.iter();
                all.map(|limit| (limit.name().clone(), Millitokens::ZERO))
                    .collect()
            }
            Change::Reset(limits) => {
                let mut named: Vec<(LimitName, Millitokens)> = Vec::new();
                for limit in limits {
                    check_known(&config, "limits", limit)?;
                    if named.iter().all(|(known, _)| known != limit) {
                        named.push((limit.clone(), Millitokens::ZERO));
                    }
                }
                named
            }
            Change::TopUp(amounts) => check_amounts(&config, amounts)?,
        };
        Ok(Self {
            id,
            change,
            config,
            settings,
            named,
        })
    }

    /// The bucket.
    pub fn id(&self) -> &BucketId {
        &self.id
    }

    /// What is to be done.
    pub fn change(&self) -> &Change {
        &self.change
    }

    /// The configuration that it goes by.
    pub fn config(&self) -> &Arc<Resolved> {
        &self.config
    }

    /// The life of the entity that it belongs to: `-` if the entity has no record.
    pub fn incarnation(&self) -> &str {
        let owner = self.config.owner.as_ref();
        owner
            .and_then(|owner| owner.incarnation.as_deref())
            .unwrap_or(record::ANY_LIFE)
    }

    fn limit(&self, name: &str) -> Option<&Limit> {
        let mut limits = self.config.limits.iter();
        limits.find(|limit| limit.name().as_str() == name)
    }

    fn result(&self, shards: usize, amounts: BTreeMap<LimitName, i64>) -> OperationResult {
        OperationResult {
            entity: self.id.entity.clone(),
            resource: self.id.resource.clone(),
            shards: u32::try_from(shards).unwrap_or(u32::MAX),
            amounts,
        }
    }

    /// The plan that writes nothing.
    fn nothing(&self) -> Plan {
        let none = self.named.iter().map(|(name, _)| (name.clone(), 0)).collect();
        Plan {
            parts: Vec::new(),
            result: self.result(0, none),
            raises_ceiling: false,
        }
    }
}

fn check_known(config: &Resolved, field: &str, name: &LimitName) -> Result<(), InvalidInput> {
    if config.limit(name).is_some() {
        return Ok(());
    }
    let known: Vec<&str> = config.limits.iter().map(|limit| limit.name().as_str()).collect();
    let known = known.join(", ");
    let reason =
        format!("no limit of this name is configured for this entity and resource; there are: {known}");
    Err(InvalidInput::of_request(field, name, reason))
}

fn check_amounts(
    config: &Resolved,
    amounts: &[(LimitName, u64)],
) -> Result<Vec<(LimitName, Millitokens)>, InvalidInput> {
    if amounts.is_empty() {
        return Err(InvalidInput::of_request(
            "amounts",
            "",
            "name at least one limit and the tokens to add",
        ));
    }
    let mut named: Vec<(LimitName, u64)> = Vec::new();
    for (name, amount) in amounts {
        match named.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(*amount),
            None => named.push((name.clone(), *amount)),
        }
    }
    for (name, amount) in &named {
        let field = format!("amounts.{name}");
        if !(1..=MAX_TOKENS).contains(amount) {
            let reason = format!("must be between 1 and {MAX_TOKENS} tokens");
            return Err(InvalidInput::of_request(field, amount, reason));
        }
        check_known(config, "amounts", name)?;
    }
    let amount = |(name, amount)| (name, Millitokens::from_amount(amount));
    Ok(named.into_iter().map(amount).collect())
}

/// Reads the shards of a bucket.
///
/// # Errors
/// [`RecordError`] if one cannot be read, or has an attribute that this version does not know: what it means for the balances is
/// not known.
pub fn read_shards(items: &[Item]) -> Result<Shards, RecordError> {
    let mut shards = Shards::new();
    for item in items {
        let Some(key) = key_of(item) else { continue };
        let Some((_, shard)) = BucketId::parse(&key) else {
            continue;
        };
        let image = Bucket::decode(item)?;
        if let Some(attribute) = image.unsupported {
            return Err(UnsupportedFeature {
                record: "bucket",
                key: key.to_string(),
                attribute: attribute.to_string(),
                advice: "use a client that supports it",
            }
            .into());
        }
        shards.insert(shard, Arc::new(image));
    }
    Ok(shards)
}

/// How many shards a bucket has, according to the highest count on any of them.
pub fn shard_count(shards: &Shards) -> u32 {
    shards.values().map(|image| image.shard_count).max().unwrap_or(1)
}

/// The shards that a bucket should have and that do not exist. Until they are created, what belongs to them lies with others.
pub fn missing(shards: &Shards) -> Vec<u32> {
    (0..shard_count(shards))
        .filter(|shard| !shards.contains_key(shard))
        .collect()
}
