//! Calls a function of the application when the use of a limit reaches a threshold, and when a limit refuses, once in a period.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;
use zae_limiter_core::acquire::Grant;
use zae_limiter_core::alert::{Period, Thresholds, Use};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::{
    EntityId, EpochMillis, InvalidInput, LimitName, NamespaceName, RateLimitExceeded, ResourceName, Wait,
};

use crate::inner::Inner;

/// How many thresholds are remembered as reported, of all limits together. One that is forgotten may be reported again in its
/// period.
const REMEMBERED: usize = 10_000;

/// Why an [`Alert`] is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlertReason {
    /// So many percent of the capacity are used.
    Used(u8),
    /// A call was refused.
    Refused,
}

/// The use of a limit has reached a threshold, or the limit has refused a call: see
/// [`RepositoryBuilder::on_alert`](crate::RepositoryBuilder::on_alert).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alert {
    /// The namespace.
    pub namespace: NamespaceName,
    /// Whose limit it is: the entity of the call, or its parent.
    pub entity: EntityId,
    /// The resource.
    pub resource: ResourceName,
    /// The limit.
    pub limit_name: LimitName,
    /// Why it is reported.
    pub reason: AlertReason,
    /// Whole tokens that are left, rounded down; negative in debt.
    pub available: i64,
    /// The most tokens that there can be, rounded down.
    pub capacity: u64,
    /// 1 if both numbers are of the whole bucket; else they are of one of so many shards, which holds this fraction of the limit.
    pub shards: u32,
    /// When it was noticed.
    pub at: EpochMillis,
    /// When a quota or a session limit is whole again; `None` for a limit that is refilled.
    pub resets_at: Option<EpochMillis>,
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: {} ", self.entity, self.resource, self.limit_name)?;
        match self.reason {
            AlertReason::Used(percent) => write!(f, "has used {percent} %")?,
            AlertReason::Refused => f.write_str("refuses calls")?,
        }
        write!(f, ", {} of {} left", self.available, self.capacity)?;
        if self.shards > 1 {
            write!(f, " on one of {} shards", self.shards)?;
        }
        Ok(())
    }
}

/// What is to be called, and for which thresholds, as the builder was given it.
#[derive(Clone)]
pub(crate) struct Alerts(Arc<State>);

type Tell = dyn Fn(&Alert) + Send + Sync;

struct State {
    thresholds: Result<Thresholds, InvalidInput>,
    tell: Box<Tell>,
    reported: Cache<Reported, Period>,
    /// Held while a report is looked up and entered, so that two calls do not make the same one.
    entering: Mutex<()>,
}

type Reported = (BucketId, LimitName, AlertReason);

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Alerts").field(&self.0.thresholds).finish()
    }
}

impl Alerts {
    pub(crate) fn new(
        percents: impl IntoIterator<Item = u8>,
        tell: impl Fn(&Alert) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(State {
            thresholds: Thresholds::new("on_alert.percents", percents),
            tell: Box::new(tell),
            reported: Cache::new(REMEMBERED),
            entering: Mutex::new(()),
        }))
    }

    /// Checks the percentages.
    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        self.0.thresholds.clone().map(drop)
    }

    /// Whether it is to be reported now; it counts as reported from then on.
    fn enters(&self, what: Reported, period: Period) -> bool {
        let is_due = || {
            let reported = self.0.reported.get(&what);
            reported.is_none_or(|reported| period.follows(&reported))
        };
        if !is_due() {
            return false;
        }
        let _entering = self.0.entering.lock().unwrap_or_else(PoisonError::into_inner);
        let enters = is_due();
        if enters {
            self.0.reported.insert(what, period);
        }
        enters
    }

    fn tell(&self, alert: &Alert) {
        // A call must not end because of it.
        if catch_unwind(AssertUnwindSafe(|| (self.0.tell)(alert))).is_err() {
            tracing::error!(%alert, "the function that is called for alerts has panicked");
        }
    }
}

impl Inner {
    /// Reports thresholds that the limits of a call have reached, by the images of the shards that it has debited.
    pub(crate) fn alert_use(&self, grants: &[Grant]) {
        let Some(alerts) = &self.options.alerts else {
            return;
        };
        let Ok(thresholds) = &alerts.0.thresholds else {
            return;
        };
        let now = self.clock.now();
        for grant in grants {
            let shard = &grant.image;
            for (name, _) in &grant.amounts {
                let Some(limit) = shard.limit(name.as_str()) else {
                    continue;
                };
                let Some(used) = Use::of(shard, limit, now) else {
                    continue;
                };
                for percent in thresholds.reached(used) {
                    let reason = AlertReason::Used(percent);
                    let what = (grant.id.clone(), name.clone(), reason);
                    if alerts.enters(what, Period::of(shard, limit, now)) {
                        alerts.tell(&Alert {
                            namespace: self.namespace_name.clone(),
                            entity: grant.id.entity.clone(),
                            resource: grant.id.resource.clone(),
                            limit_name: name.clone(),
                            reason,
                            available: used.available.floor_tokens(),
                            capacity: used.capacity.floor_amount(),
                            shards: shard.shard_count,
                            at: now,
                            resets_at: shard.terms(limit).resets_at(now),
                        });
                    }
                }
            }
        }
    }

    /// Reports the limits that have refused a call. An amount that a limit can never cover says nothing about its use.
    pub(crate) fn alert_refusal(&self, refused: &RateLimitExceeded) {
        let Some(alerts) = &self.options.alerts else {
            return;
        };
        let now = self.clock.now();
        for status in refused.violations().filter(|status| status.wait != Wait::Never) {
            let Ok(limit_name) = LimitName::new(&status.limit_name) else {
                continue;
            };
            let id = self.bucket_id(&status.entity, &status.resource);
            let reason = AlertReason::Refused;
            if alerts.enters((id, limit_name.clone(), reason), Period::of_status(status, now)) {
                alerts.tell(&Alert {
                    namespace: self.namespace_name.clone(),
                    entity: status.entity.clone(),
                    resource: status.resource.clone(),
                    limit_name,
                    reason,
                    available: status.available,
                    capacity: status.capacity / u64::from(status.shards.max(1)),
                    shards: status.shards,
                    at: now,
                    resets_at: status.resets_at,
                });
            }
        }
    }
}
