//! The decision on an acquire whose legs have ended.
//!
//! A disabled bucket goes before a refusal, and that before a failure. Of failures, one that is not of the table's moment goes
//! first: a refusal of access before others, and an outage last, since a policy may admit a call in spite of it.

use super::Acquire;
use super::images::statuses_before;
use super::legs::Leg;
use super::protocol::{AcquireError, Decision, Grant};
use super::take::TakeEnd;
use crate::table::{Applied, FailureKind};
use crate::units::EpochMillis;
use crate::verdict::RateLimitExceeded;

impl TakeEnd {
    pub(super) fn grants(&self) -> &[Grant] {
        match self {
            Self::Taken(grants) => grants,
            _ => &[],
        }
    }
}

impl Decision {
    fn rank(&self) -> u8 {
        match self {
            Self::Disabled { .. } => 5,
            Self::Rejected(_) => 4,
            Self::Failed(AcquireError::Table(err)) if err.kind == FailureKind::AccessDenied => 3,
            Self::Failed(AcquireError::Table(err)) if err.is_outage() => 1,
            Self::Admitted(_) | Self::Failed(AcquireError::Abandoned) => 0,
            Self::Failed(_) => 2,
        }
    }

    /// Of this decision and one that came after it, the one that goes before. It is in doubt if one of them is.
    pub(super) fn or(self, later: Self) -> Self {
        let is_in_doubt = self.is_in_doubt() || later.is_in_doubt();
        let mut first = if later.rank() > self.rank() { later } else { self };
        if let (Self::Failed(AcquireError::Table(err)), true) = (&mut first, is_in_doubt) {
            err.applied = Applied::Unknown;
        }
        first
    }

    fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Failed(AcquireError::Table(err)) if err.applied == Applied::Unknown)
    }
}

impl Acquire {
    /// What the ends of the legs come to.
    pub(super) fn judge(&self, now: EpochMillis) -> Decision {
        if self.abandoned {
            return Decision::Failed(AcquireError::Abandoned);
        }
        let ends = || {
            let legs = self.legs.iter().filter(|leg| !leg.is_stray);
            legs.filter_map(|leg| Some((leg, leg.end()?)))
        };
        let disabled = |(leg, end): (&Leg, &TakeEnd)| match end {
            TakeEnd::Disabled(at) => Some(Decision::Disabled {
                bucket: leg.id(&self.request),
                at: *at,
            }),
            _ => None,
        };
        if let Some(disabled) = ends().filter_map(disabled).next_back() {
            return disabled;
        }
        let is_over = |(_, end): &(&Leg, &TakeEnd)| matches!(end, TakeEnd::Taken(_));
        let mut over = ends().filter(is_over);
        if let Some(err) = over.find_map(|(leg, _)| leg.unless_disabled.clone()) {
            return Decision::Failed(err);
        }
        if ends().any(|(_, end)| matches!(end, TakeEnd::Short(_) | TakeEnd::Contended)) {
            let mut statuses = Vec::new();
            for (_, end) in ends() {
                match end {
                    TakeEnd::Short(short) | TakeEnd::Withdrawn(short) => {
                        statuses.extend(short.iter().cloned());
                    }
                    TakeEnd::Taken(grants) => statuses.extend(statuses_before(grants, now)),
                    _ => {}
                }
            }
            let short = ends().any(|(_, end)| matches!(end, TakeEnd::Short(_)));
            return Decision::Rejected(if short {
                RateLimitExceeded::new(statuses)
            } else {
                RateLimitExceeded::contended(statuses)
            });
        }
        let failed = |(_, end): (&Leg, &TakeEnd)| match end {
            TakeEnd::Failed(err) => Some(Decision::Failed(err.clone())),
            _ => None,
        };
        if let Some(failed) = ends().filter_map(failed).reduce(Decision::or) {
            return failed;
        }
        Decision::Admitted(ends().flat_map(|(_, end)| end.grants().to_vec()).collect())
    }
}
