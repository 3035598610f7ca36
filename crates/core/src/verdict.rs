//! The answer to a caller: the state of each limit checked, and why a request was refused.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use crate::bucket::{Bucket, MAX_SHARDS};
use crate::limit::{Limit, Params};
use crate::name::{EntityId, ResourceName};
use crate::refill::{Balance, Wait};
use crate::shards::births::{NewLimit, births};
use crate::shards::together::{self, Part};
use crate::terms::Terms;
use crate::units::{EpochMillis, Millitokens};

/// How one limit stood when a request was checked against it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LimitStatus {
    /// Whose limit it is: the entity's, or its parent's.
    #[cfg_attr(feature = "serde", serde(rename = "entity_id"))]
    pub entity: EntityId,
    /// The resource.
    pub resource: ResourceName,
    /// The limit's name.
    #[cfg_attr(feature = "serde", serde(with = "crate::serialized::text"))]
    pub limit_name: SmolStr,
    /// Tokens the limit can hold, over all shards.
    pub capacity: u64,
    /// Tokens it gains per period, over all shards.
    pub refill_amount: u64,
    /// The period.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "refill_period_seconds", with = "crate::serialized::seconds")
    )]
    pub refill_period: Duration,
    /// 1 if the numbers below are of the whole bucket; else they are of one of so many shards, which holds this fraction
    /// of the limit.
    pub shards: u32,
    /// Whole tokens there were, rounded down; negative in debt.
    pub available: i64,
    /// Whole tokens asked for.
    pub requested: u64,
    /// Whether it refused the request.
    pub exceeded: bool,
    /// The time until the limit would not be exceeded, if no other client takes tokens.
    #[cfg_attr(feature = "serde", serde(rename = "retry_after_ms"))]
    pub wait: Wait,
    /// Whether it gains nothing over time: a quota or a session limit.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "quota", default, skip_serializing_if = "std::ops::Not::not")
    )]
    pub is_quota: bool,
    /// When a quota or a session limit is whole again, if it is used now; `None` if it never is.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "resets_at_ms", default, skip_serializing_if = "Option::is_none")
    )]
    pub resets_at: Option<EpochMillis>,
    /// Whether it never refuses a request.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "soft", default, skip_serializing_if = "std::ops::Not::not")
    )]
    pub is_soft: bool,
}

/// The limit that a status is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Of<'a> {
    pub(crate) who: (&'a EntityId, &'a ResourceName),
    pub(crate) name: &'a str,
    pub(crate) is_soft: bool,
}

impl LimitStatus {
    pub(crate) fn check(
        of: Of<'_>,
        terms: &Terms<'_>,
        shards: u32,
        balance: Balance,
        need: Millitokens,
        now: EpochMillis,
    ) -> Self {
        let tokens = terms.refilled(balance, now).tokens;
        let exceeded = !of.is_soft && tokens < need;
        let wait = if exceeded {
            terms.wait(balance, need, now)
        } else {
            Wait::Millis(0)
        };
        Self {
            shards,
            available: tokens.floor_tokens(),
            exceeded,
            wait,
            ..Self::of(of, terms, need, now)
        }
    }

    /// The status of a limit that holds what is needed.
    fn of(of: Of<'_>, terms: &Terms<'_>, need: Millitokens, now: EpochMillis) -> Self {
        let params = terms.whole(now);
        Self {
            entity: of.who.0.clone(),
            resource: of.who.1.clone(),
            limit_name: of.name.into(),
            capacity: Millitokens(params.capacity).floor_amount(),
            refill_amount: Millitokens(params.refill).floor_amount(),
            refill_period: params.period(),
            shards: 1,
            available: 0,
            requested: need.floor_amount(),
            exceeded: false,
            wait: Wait::Millis(0),
            is_quota: !terms.is_refilled(),
            resets_at: terms.resets_at_if_used(now),
            is_soft: of.is_soft,
        }
    }

    /// The status of a limit whose bucket does not exist yet: full.
    pub(crate) fn untouched(
        who: (&EntityId, &ResourceName),
        limit: &Limit,
        shards: u32,
        need: Millitokens,
        now: EpochMillis,
    ) -> Self {
        let terms = Terms::of(limit, shards);
        let full = Balance::new(Millitokens(terms.share(now).capacity), now);
        let of = Of {
            who,
            name: limit.name().as_str(),
            is_soft: limit.is_soft(),
        };
        let status = Self::check(of, &terms, shards, full, need, now);
        let wait = if status.exceeded {
            // It is full whenever it is created.
            terms.wait_for_room(need, now)
        } else {
            status.wait
        };
        Self { wait, ..status }
    }

    /// The status of a limit over all shards of a bucket, by what they hold together. `terms` are those of all together.
    pub(crate) fn together(
        of: Of<'_>,
        terms: &Terms<'_>,
        shards: &[Part<'_>],
        need: Millitokens,
        now: EpochMillis,
    ) -> Self {
        let tokens = together::tokens(shards, now);
        let goal = together::goal(terms.whole(now).capacity, shards, need, now);
        let exceeded = !of.is_soft && goal.is_none_or(|goal| tokens < goal);
        Self {
            available: tokens.floor_tokens(),
            exceeded,
            wait: if exceeded {
                together::wait(shards, need, now)
            } else {
                Wait::Millis(0)
            },
            ..Self::of(of, terms, need, now)
        }
    }

    /// The status of a limit over all shards of a bucket, by what they hold together, as an acquire would find it:
    /// with the shards that it would create. No shards: a full bucket.
    pub fn over_shards(
        who: (&EntityId, &ResourceName),
        limit: &Limit,
        shards: &BTreeMap<u32, Arc<Bucket>>,
        need: Millitokens,
        now: EpochMillis,
    ) -> Self {
        let name = limit.name().as_str();
        let count = shards.values().map(|shard| shard.shard_count).max().unwrap_or(1);
        let missing: Vec<u32> = (0..count.min(MAX_SHARDS))
            .filter(|shard| !shards.contains_key(shard))
            .collect();
        if shards.is_empty() {
            return Self::untouched(who, limit, 1, need, now);
        }
        let stored = shards
            .values()
            .find_map(|shard| Some(shard.terms_among(shard.limit(name)?, 1)));
        let births = births(&missing, count, shards, &[NewLimit::of(limit, count)], now);
        let mut parts = Vec::with_capacity(count as usize);
        for (id, shard) in shards {
            let Some(stored) = shard.limit(name) else {
                let terms = Terms::of(limit, count);
                let balance = Balance::new(Millitokens(terms.share(now).capacity), now);
                parts.push(Part { terms, balance });
                continue;
            };
            let mut balance = shard.balance(stored, now);
            balance.tokens = balance.tokens - births.given(*id, name);
            let terms = shard.terms_among(
                stored,
                if missing.is_empty() {
                    shard.shard_count
                } else {
                    count
                },
            );
            parts.push(Part { terms, balance });
        }
        for new in &births.newborns {
            let terms = Terms::of(limit, count);
            let start = new.balances.first().map(|start| start.tokens);
            let share = Millitokens(terms.share(new.refilled_at).capacity);
            parts.push(Part {
                terms,
                balance: Balance::new(start.unwrap_or(share), new.refilled_at),
            });
        }
        let of = Of {
            who,
            name,
            is_soft: limit.is_soft(),
        };
        Self::together(of, &stored.unwrap_or(Terms::of(limit, 1)), &parts, need, now)
    }

    /// The status of a limit that is kept outside the table, in one piece.
    pub fn local(
        who: (&EntityId, &ResourceName),
        name: &crate::name::LimitName,
        params: Params,
        balance: Balance,
        need: Millitokens,
        now: EpochMillis,
    ) -> Self {
        let of = Of {
            who,
            name: name.as_str(),
            is_soft: false,
        };
        Self::check(of, &Terms::new(params, None, 1), 1, balance, need, now)
    }

    /// Tokens missing, 0 if none.
    pub fn deficit(&self) -> u64 {
        let missing = i128::from(self.requested) - i128::from(self.available);
        u64::try_from(missing.max(0)).unwrap_or(u64::MAX)
    }

    /// The status as it stands in [`RateLimitExceeded::to_json`]. `retry_after_seconds` is null for never.
    pub fn to_json(&self) -> serde_json::Value {
        let shards = u64::from(self.shards.max(1));
        let mut status = serde_json::Map::new();
        let mut put = |name: &str, value| drop(status.insert(name.to_owned(), value));
        put("entity_id", self.entity.as_str().into());
        put("resource", self.resource.as_str().into());
        put("limit_name", self.limit_name.as_str().into());
        put("kind", if self.is_quota { "quota" } else { "rate" }.into());
        put("capacity", (self.capacity / shards).into());
        if self.is_quota {
            put("resets_at_ms", self.resets_at.map(|at| at.0).into());
        } else {
            put("refill_amount", (self.refill_amount / shards).into());
            put("refill_period_seconds", self.refill_period.as_secs().into());
        }
        put("available", self.available.into());
        put("requested", self.requested.into());
        put("exceeded", self.exceeded.into());
        put("soft", self.is_soft.into());
        let wait = self.wait.after().map(|wait| wait.as_millis() as f64 / 1000.0);
        put("retry_after_seconds", wait.into());
        status.into()
    }
}

/// A request was refused because it would exceed a limit. Nothing was taken.
///
/// Distinguishes *not yet* from *never*: [`retry_after`](Self::retry_after) is `None` when a limit can never cover
/// the request, however long one waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RateLimitExceeded {
    #[cfg_attr(feature = "serde", serde(rename = "limits"))]
    statuses: Vec<LimitStatus>,
    contended: bool,
}

/// The wait in a refusal after losing to concurrent transactions.
const CONTENDED_WAIT: Duration = Duration::from_millis(100);

impl RateLimitExceeded {
    /// Builds a refusal from every limit that was checked, the entity's before its parent's.
    pub fn new(statuses: Vec<LimitStatus>) -> Self {
        Self {
            statuses,
            contended: false,
        }
    }

    /// A refusal because concurrent writers kept winning; a short wait helps.
    pub fn contended(statuses: Vec<LimitStatus>) -> Self {
        Self {
            statuses,
            contended: true,
        }
    }

    /// Every limit that was checked: the entity's, then its parent's.
    pub fn statuses(&self) -> &[LimitStatus] {
        &self.statuses
    }

    /// The limits that refused.
    pub fn violations(&self) -> impl Iterator<Item = &LimitStatus> {
        self.statuses.iter().filter(|status| status.exceeded)
    }

    /// The limits that would have admitted the request.
    pub fn passed(&self) -> impl Iterator<Item = &LimitStatus> {
        self.statuses.iter().filter(|status| !status.exceeded)
    }

    /// The limit that refuses longest; the first of equals.
    pub fn worst(&self) -> Option<&LimitStatus> {
        self.violations()
            .reduce(|worst, status| if status.wait > worst.wait { status } else { worst })
    }

    /// How long to wait before the same request can succeed, if no other client takes tokens; `None` if it never can.
    pub fn retry_after(&self) -> Option<Duration> {
        self.worst()
            .map_or(Some(CONTENDED_WAIT), |status| status.wait.after())
    }

    /// Whether no wait will help: the request is larger than a limit can ever hold.
    pub fn is_never(&self) -> bool {
        self.retry_after().is_none()
    }

    /// Whether the request lost to concurrent writers rather than to a limit.
    pub fn is_contended(&self) -> bool {
        self.contended
    }

    /// The body of an HTTP 429 response, in the shape that the Python library publishes.
    ///
    /// `error` is `rate_limit_exceeded`; `retry_after_seconds` and `retry_after_ms` are null when no wait will
    /// help; `limits` holds every limit that was checked, of the whole bucket (see [`LimitStatus::shards`]).
    ///
    /// ```
    /// # use zae_limiter_core as zae_limiter;
    /// use zae_limiter::RateLimitExceeded;
    ///
    /// let body = RateLimitExceeded::contended(Vec::new()).to_json();
    /// assert_eq!(body["error"], "rate_limit_exceeded");
    /// assert_eq!(body["retry_after_ms"], 100);
    /// ```
    pub fn to_json(&self) -> serde_json::Value {
        let wait = self.retry_after();
        serde_json::json!({
            "error": "rate_limit_exceeded",
            "message": self.to_string(),
            "contended": self.contended,
            "retry_after_seconds": wait.map(|wait| wait.as_millis() as f64 / 1000.0),
            "retry_after_ms": wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            "limits": self.statuses.iter().map(LimitStatus::to_json).collect::<Vec<_>>(),
        })
    }

    /// The value of an HTTP `Retry-After` header: whole seconds, rounded up, at least 1; `None` if never.
    pub fn retry_after_header(&self) -> Option<String> {
        self.retry_after()
            .map(|wait| wait.as_millis().div_ceil(1000).max(1).to_string())
    }
}

impl fmt::Display for RateLimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(worst) = self.worst() else {
            return f.write_str("concurrent writers kept changing the bucket; retry after 0.1 s");
        };
        f.write_str("rate limit exceeded")?;
        // Limits of the same name are distinguished by the entity.
        let mut last = None;
        for status in self.violations() {
            let (entity, name) = (&status.entity, &status.limit_name);
            match last.replace(entity) {
                Some(last) if last == entity => write!(f, ", {name}")?,
                None => write!(f, " for {entity}/{}: {name}", status.resource)?,
                Some(_) => write!(f, "; for {entity}/{}: {name}", status.resource)?,
            }
        }
        if let Some(wait) = self.retry_after() {
            return write!(f, "; retry after {:.3} s", wait.as_secs_f64());
        }
        let held = worst.capacity / u64::from(worst.shards.max(1));
        let each = if worst.shards > 1 { " per shard" } else { "" };
        write!(
            f,
            "; never possible: {} asked of a bucket that holds {held}{each}",
            worst.requested
        )
    }
}

impl std::error::Error for RateLimitExceeded {}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, wait: Wait) -> LimitStatus {
        let limit = Limit::per_minute(name, 100).build().unwrap();
        let (entity, resource) = (EntityId::new("k").unwrap(), ResourceName::new("r").unwrap());
        let base = LimitStatus::untouched((&entity, &resource), &limit, 1, Millitokens::ZERO, EpochMillis(0));
        LimitStatus {
            exceeded: wait != Wait::Millis(0),
            wait,
            ..base
        }
    }

    #[test]
    fn the_worst_limit_decides_and_never_outranks_every_wait() {
        let some = RateLimitExceeded::new(vec![
            status("a", Wait::Millis(0)),
            status("b", Wait::Millis(1001)),
            status("c", Wait::Millis(20)),
        ]);
        assert_eq!(some.worst().unwrap().limit_name, "b");
        assert_eq!(some.retry_after(), Some(Duration::from_millis(1001)));
        assert_eq!(some.retry_after_header().as_deref(), Some("2"));
        let never = RateLimitExceeded::new(vec![status("b", Wait::Millis(1)), status("c", Wait::Never)]);
        assert!(never.is_never());
        assert_eq!(never.retry_after_header(), None);
        assert!(never.to_string().contains("never possible"));
    }

    #[test]
    fn the_text_names_the_entity_of_each_limit() {
        let of = |entity: &str, name: &str| LimitStatus {
            entity: EntityId::new(entity).unwrap(),
            ..status(name, Wait::Millis(3000))
        };
        let text = |statuses| RateLimitExceeded::new(statuses).to_string();
        assert_eq!(
            text(vec![of("key-1", "rpm"), of("key-1", "tpm")]),
            "rate limit exceeded for key-1/r: rpm, tpm; retry after 3.000 s"
        );
        assert_eq!(
            text(vec![of("key-1", "tpm"), of("proj-1", "rpm"), of("proj-1", "tpm")]),
            "rate limit exceeded for key-1/r: tpm; for proj-1/r: rpm, tpm; retry after 3.000 s"
        );
        let passed = LimitStatus {
            exceeded: false,
            ..of("key-1", "tpm")
        };
        assert_eq!(
            text(vec![passed, of("proj-1", "tpm")]),
            "rate limit exceeded for proj-1/r: tpm; retry after 3.000 s"
        );
    }

    #[test]
    fn contention_asks_for_a_short_wait() {
        let lost = RateLimitExceeded::contended(Vec::new());
        assert_eq!(lost.retry_after(), Some(Duration::from_millis(100)));
        assert!(lost.is_contended() && !lost.is_never());
    }
}
