//! Leases that another process may end.
//!
//! A [`DetachedLease`] is a value that says what was taken from which shards. It can be sent to another process, and any process can
//! end it: keep the tokens, with corrections, or give them back. A [`Settlement`] does that, once at most, however many processes
//! try, whichever answers are lost, and wherever one of them is killed:
//!
//! - The [`record`] of the lease says how it was ended, and which corrections are left to write. The first end that is
//!   recorded holds; the same end asked for again is a success, another one is refused.
//! - Each correction of a bucket is written in one transaction with the record, which takes it off what is left. So it happens
//!   once, also if it is sent again because an answer was lost, and what a killed process has left can be finished by another.
//!
//! A lease whose tokens are to go back when it expires has a record from the beginning, so that a process that
//! [sweeps](record::due) finds it. One whose tokens are kept needs none before it is ended.

mod encoded;
pub mod record;
mod settlement;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use smol_str::SmolStr;

pub use self::encoded::NotALease;
pub use self::settlement::{Settled, Settlement};
use crate::acquire::Grant;
use crate::error::InvalidInput;
use crate::name::{EntityId, LimitName, NamespaceId, ResourceName};
use crate::schema::BucketId;
use crate::units::{EpochMillis, MAX_TOKENS, Millitokens};

/// The shortest time to live of a detached lease.
pub const MIN_TTL: Duration = Duration::from_secs(1);

/// The longest time to live of a detached lease, and the longest by which it is extended.
pub const MAX_TTL: Duration = Duration::from_hours(24);

/// What becomes of the tokens of a lease that is not ended within its time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnExpiry {
    /// They stay consumed. Nothing is written before the lease is ended.
    #[default]
    Keep,
    /// They are given back by a process that sweeps. The lease is recorded in the table when it is detached.
    GiveBack,
}

impl OnExpiry {
    /// `keep` or `give_back`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::GiveBack => "give_back",
        }
    }
}

impl fmt::Display for OnExpiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Tokens that were taken, as a value that any process can end. See the [module](self).
#[derive(Debug, Clone, PartialEq)]
pub struct DetachedLease {
    /// Names the lease: no other one has the same.
    pub(crate) id: SmolStr,
    pub(crate) namespace: NamespaceId,
    pub(crate) entity: EntityId,
    /// What the call asked for, by resource, in its order.
    pub(crate) taken: Vec<(ResourceName, Vec<(LimitName, u64)>)>,
    /// What was debited, of the entity and of those above it. Nothing if the lease was granted without the table.
    pub(crate) grants: Vec<Grant>,
    pub(crate) expires_at: EpochMillis,
    pub(crate) on_expiry: OnExpiry,
}

/// How a detached lease is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEnd {
    /// The tokens stay consumed, and consumption of these limits becomes what is said here, in whole tokens.
    Commit(BTreeMap<(ResourceName, LimitName), u64>),
    /// All tokens go back.
    Rollback,
    /// The lease was not ended in time, and [gives its tokens back](OnExpiry::GiveBack).
    Expired,
}

impl LeaseEnd {
    /// A text that only the same end has.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Commit(actual) => {
                let of = |((resource, limit), tokens): (&(ResourceName, LimitName), &u64)| {
                    format!(" {resource} {limit}={tokens}")
                };
                let all: String = actual.iter().map(of).collect();
                format!("commit{all}")
            }
            Self::Rollback => "rollback".to_owned(),
            Self::Expired => "expired".to_owned(),
        }
    }
}

impl DetachedLease {
    /// A lease of what was debited. `id` names it: up to 64 letters and digits, that no other lease has.
    ///
    /// # Errors
    /// [`InvalidInput`] for a time to live below a second or above a day.
    pub fn new(
        id: SmolStr,
        (namespace, entity): (NamespaceId, EntityId),
        taken: Vec<(ResourceName, Vec<(LimitName, u64)>)>,
        grants: Vec<Grant>,
        on_expiry: OnExpiry,
        (ttl, now): (Duration, EpochMillis),
    ) -> Result<Self, InvalidInput> {
        let expires_at = now.plus(check_ttl(ttl)?);
        Ok(Self {
            id,
            namespace,
            entity,
            taken,
            grants,
            expires_at,
            on_expiry,
        })
    }

    /// Checks a time to live, before anything is taken for the lease.
    ///
    /// # Errors
    /// [`InvalidInput`] for less than a second, or more than a day.
    pub fn check_ttl(ttl: Duration) -> Result<(), InvalidInput> {
        check_ttl(ttl).map(drop)
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The namespace.
    pub fn namespace(&self) -> &NamespaceId {
        &self.namespace
    }

    /// The entity.
    pub fn entity(&self) -> &EntityId {
        &self.entity
    }

    /// Until when it can be ended, unless that was extended.
    pub fn expires_at(&self) -> EpochMillis {
        self.expires_at
    }

    /// What becomes of its tokens then.
    pub fn on_expiry(&self) -> OnExpiry {
        self.on_expiry
    }

    /// Whether it was granted without the table, so that ending it corrects nothing.
    pub fn is_degraded(&self) -> bool {
        self.grants.is_empty()
    }

    /// The buckets that were debited.
    pub fn buckets(&self) -> impl Iterator<Item = &BucketId> {
        self.grants.iter().map(|grant| &grant.id)
    }

    /// When it expires if it is to live for `ttl` from now on: not before its own end.
    ///
    /// # Errors
    /// [`InvalidInput`] for a time to live below a second or above a day, and one that ends more than a day after the lease's own.
    pub fn extended(&self, ttl: Duration, now: EpochMillis) -> Result<EpochMillis, InvalidInput> {
        let until = now.plus(check_ttl(ttl)?);
        let longest = self.expires_at.plus(check_ttl(MAX_TTL)?);
        if until > longest {
            let reason = format!(
                "must end by {}, a day after the lease's first end",
                longest.to_text()
            );
            return Err(InvalidInput::of_request("ttl", format!("{ttl:?}"), reason));
        }
        Ok(until.max(self.expires_at))
    }

    /// Whole tokens that were taken, by resource and limit, in the order of the call.
    pub fn taken(&self) -> impl Iterator<Item = (&ResourceName, &LimitName, u64)> {
        self.taken
            .iter()
            .flat_map(|(resource, amounts)| amounts.iter().map(move |(limit, n)| (resource, limit, *n)))
    }

    /// Checks what a commit says about consumption. Without a resource, the first one of the call is meant.
    ///
    /// # Errors
    /// [`InvalidInput`] for a resource or limit that the call did not name, one that is named twice, or more than 10^15 tokens.
    pub fn commit<'a>(
        &self,
        actual: impl IntoIterator<Item = (Option<&'a str>, &'a str, u64)>,
    ) -> Result<LeaseEnd, InvalidInput> {
        let mut checked = BTreeMap::new();
        for (resource, limit, tokens) in actual {
            let mut taken = self.taken();
            let first = self.taken.first().map(|(first, _)| first.as_str());
            let wanted = resource.or(first).unwrap_or_default();
            let field = match resource {
                Some(resource) => format!("actual.{resource}.{limit}"),
                None => format!("actual.{limit}"),
            };
            let Some((resource, limit, _)) =
                taken.find(|(of, name, _)| of.as_str() == wanted && name.as_str() == limit)
            else {
                let named: Vec<_> = self.taken().map(|(of, name, _)| format!("{of} {name}")).collect();
                let reason = format!("is not a limit of this lease; it has: {}", named.join(", "));
                return Err(InvalidInput::of_request(field, tokens, reason));
            };
            if tokens > MAX_TOKENS {
                let reason = "must be from 0 to 10^15 tokens";
                return Err(InvalidInput::of_request(field, tokens, reason));
            }
            if checked
                .insert((resource.clone(), limit.clone()), tokens)
                .is_some()
            {
                return Err(InvalidInput::of_request(field, tokens, "is given twice"));
            }
        }
        Ok(LeaseEnd::Commit(checked))
    }

    /// The corrections that an end asks for, by grant: positive ones give back.
    pub(crate) fn corrections(&self, end: &LeaseEnd) -> record::Left {
        match end {
            LeaseEnd::Rollback | LeaseEnd::Expired => {
                let all = |grant: &Grant| {
                    let amounts = grant.amounts.iter();
                    amounts.map(|(name, amount)| (name.to_smol(), amount.0)).collect()
                };
                record::Left::new(self.grants.iter().map(all))
            }
            LeaseEnd::Commit(actual) => {
                let deltas = self.taken().filter_map(|(resource, limit, taken)| {
                    let actual = actual.get(&(resource.clone(), limit.clone()))?;
                    let delta = Millitokens::from_amount(*actual) - Millitokens::from_amount(taken);
                    Some((resource, limit, delta))
                });
                let mut left = vec![BTreeMap::new(); self.grants.len()];
                for (grant, name, delta) in spread(&self.grants, deltas) {
                    *left[grant].entry(name.to_smol()).or_insert(0) += delta.0;
                }
                record::Left::new(left)
            }
        }
    }
}

/// Checks a time to live, and gives it in milliseconds.
pub(crate) fn check_ttl(ttl: Duration) -> Result<i64, InvalidInput> {
    if ttl < MIN_TTL || ttl > MAX_TTL {
        let reason = "must be from 1 s to 24 h";
        return Err(InvalidInput::of_request("ttl", format!("{ttl:?}"), reason));
    }
    Ok(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
}

/// Puts adjustments on the shards that were debited, for each bucket of the resource on its own: no shard gets back more than
/// it gave, and what is charged goes to the first. By grant; positive amounts give back.
pub fn spread<'a>(
    grants: &[Grant],
    deltas: impl IntoIterator<Item = (&'a ResourceName, &'a LimitName, Millitokens)>,
) -> Vec<(usize, &'a LimitName, Millitokens)> {
    let mut parts = Vec::new();
    for (resource, name, delta) in deltas {
        let first_of_bucket = |(at, grant): &(usize, &Grant)| {
            grant.id.resource == *resource && grants[..*at].iter().all(|before| before.id != grant.id)
        };
        for (_, first) in grants.iter().enumerate().filter(first_of_bucket) {
            let mut back = -delta.0;
            for (at, grant) in grants
                .iter()
                .enumerate()
                .filter(|(_, grant)| grant.id == first.id)
            {
                let Some((_, held)) = grant.amounts.iter().find(|(held, _)| held == name) else {
                    continue;
                };
                let part = back.min(held.0);
                if part != 0 {
                    parts.push((at, name, Millitokens(part)));
                    back -= part;
                }
                if back == 0 {
                    break;
                }
            }
        }
    }
    parts
}
