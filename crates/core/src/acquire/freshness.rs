//! How long after a bucket's last refill its balance may be spent as it stands.
//!
//! A stored balance stands for the refill instant `rf`, and a plain debit does not move that instant. A bucket that
//! stood idle while it was full could therefore be emptied, and then gain what its idle time earned although a full
//! bucket earns nothing. So a plain debit demands that `rf` is at most one *horizon* old. An older bucket is
//! refilled and debited in one write, which cuts at the capacity and moves `rf`.
//!
//! The horizon is an eighth of the time in which the fastest limit that is spent fills, and at least four round
//! trips to the table. Without that floor, progress would depend on the table being fast: a refill is known to other
//! callers one round trip after it was dated, so with a shorter horizon each request would need a refill of its own,
//! and only one of those can happen per round trip.
//!
//! In the last part of the horizon, one call per process and shard refills ahead of the others, so that they never
//! find a bucket that is too old.
//!
//! See `docs/adr/0014-the-horizon-follows-the-round-trip.md` for the bound that follows.

use crate::limit::Params;
use crate::schema::{BucketId, key_of};
use crate::table::{Op, Part};

/// The horizon is this part of the time in which a limit fills.
const FILL_PART: i128 = 8;

/// The horizon is at least this many round trips: two until the refill ahead begins, one for its answer, and one to
/// spare for a refill that loses to another process.
const ROUND_TRIPS: i64 = 4;

/// The longest round trip that counts, in milliseconds: a client waits no longer for an answer, and a clock that is
/// set while a request is under way must not stretch the horizon without bound.
pub(crate) const MAX_ROUND_TRIP_MS: i64 = 2000;

/// How old a bucket may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Horizon {
    /// Milliseconds after which a plain debit is refused.
    pub(crate) hard_ms: i64,
    /// Milliseconds after which one call refills ahead of the others.
    pub(crate) soft_ms: i64,
}

impl Horizon {
    /// The horizon for spending limits of these parameters from a table that answers within `round_trip_ms`; `None`
    /// if nothing is spent.
    pub(crate) fn of(spent: impl Iterator<Item = Params>, round_trip_ms: i64) -> Option<Self> {
        let fill_ms = |params: Params| params.capacity * params.period_ms / params.refill.max(1);
        let part = spent.map(fill_ms).min()? / FILL_PART;
        let part = i64::try_from(part).unwrap_or(i64::MAX).max(1);
        let round_trip_ms = round_trip_ms.clamp(0, MAX_ROUND_TRIP_MS);
        let hard_ms = part.max(round_trip_ms.saturating_mul(ROUND_TRIPS));
        Some(Self {
            hard_ms,
            soft_ms: hard_ms.saturating_sub(round_trip_ms.saturating_mul(2)),
        })
    }
}

/// The next estimate of a table's round trip, after an answer that took `sample_ms`: a slower answer counts at once,
/// faster ones bring the estimate down by an eighth each.
///
/// ```
/// use zae_limiter_core::acquire::next_round_trip;
///
/// assert_eq!(next_round_trip(8, 300), 300);
/// assert_eq!(next_round_trip(300, 8), 264);
/// assert_eq!(next_round_trip(1, 0), 0);
/// ```
pub fn next_round_trip(estimate_ms: i64, sample_ms: i64) -> i64 {
    let sample_ms = sample_ms.clamp(0, MAX_ROUND_TRIP_MS);
    if sample_ms >= estimate_ms {
        return sample_ms;
    }
    let gap = estimate_ms - sample_ms;
    estimate_ms - (gap / 8).max(1)
}

/// The bucket shard that an operation refills or creates, if it does. Of several such operations at a time only one
/// can happen.
pub fn refilled_by(op: &Op) -> Option<(BucketId, u32)> {
    match op {
        Op::Update(update) => {
            let refills = update.set.iter().any(|(name, _)| name == "rf");
            refills.then(|| BucketId::parse(&update.key)).flatten()
        }
        Op::Transact(parts) => match parts.first() {
            Some(Part::Put(put)) => BucketId::parse(&key_of(&put.item)?),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PER_SECOND: Params = Params {
        capacity: 1_000_000,
        refill: 1_000_000,
        period_ms: 1000,
    };

    fn horizon(spent: &[Params], round_trip_ms: i64) -> Option<(i64, i64)> {
        let horizon = Horizon::of(spent.iter().copied(), round_trip_ms)?;
        Some((horizon.hard_ms, horizon.soft_ms))
    }

    #[test]
    fn the_horizon_is_an_eighth_of_the_fill_time_or_four_round_trips() {
        assert_eq!(horizon(&[PER_SECOND], 0), Some((125, 125)));
        assert_eq!(horizon(&[PER_SECOND], 5), Some((125, 115)));
        assert_eq!(horizon(&[PER_SECOND], 300), Some((1200, 600)));
        let slow = Params {
            period_ms: 60_000,
            ..PER_SECOND
        };
        assert_eq!(horizon(&[slow, PER_SECOND], 0), Some((125, 125)));
        assert_eq!(horizon(&[slow], 0), Some((7500, 7500)));
        assert_eq!(horizon(&[], 0), None);
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let huge = Params {
            capacity: i128::from(i64::MAX),
            refill: 0,
            period_ms: i128::from(i64::MAX),
        };
        assert_eq!(
            horizon(&[huge], i64::MAX),
            Some((i64::MAX, i64::MAX - 2 * MAX_ROUND_TRIP_MS))
        );
        assert_eq!(next_round_trip(0, i64::MAX), MAX_ROUND_TRIP_MS);
        assert_eq!(horizon(&[PER_SECOND], -5), Some((125, 125)));
    }

    #[test]
    fn the_estimate_rises_at_once_and_falls_slowly() {
        let mut estimate = next_round_trip(0, 2000);
        assert_eq!(estimate, 2000);
        let mut answers = 0;
        while estimate > 10 {
            estimate = next_round_trip(estimate, 5);
            answers += 1;
        }
        assert!((30..60).contains(&answers), "{answers}");
    }
}
