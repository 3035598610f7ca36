//! The token bucket's arithmetic: refill, shares and waits.
//!
//! A bucket's balance stands for an instant; what it gained since is computed, not stored. The part of a
//! millitoken that a refill earns but cannot pay out is carried as a fraction, so that refilling often
//! gains exactly as much as refilling once. All division is of integers, rounded down: in the bucket's
//! disfavour by less than a millitoken, never in its favour.
//!
//! See <https://en.wikipedia.org/wiki/Token_bucket> for the algorithm.

use std::time::Duration;

use crate::limit::Params;
use crate::units::{EpochMillis, Millitokens, div_rem};

/// A balance as it stood at an instant, with the fraction of a millitoken earned beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// The balance.
    pub tokens: Millitokens,
    /// Earned but not yet a whole millitoken: this many `1/period_ms` parts of one.
    pub carry: i128,
    /// When the balance stood so.
    pub at: EpochMillis,
}

/// How long until a bucket covers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// This many milliseconds; 0 is now. Exact: a millisecond earlier is too early, if no other client takes tokens.
    Millis(i64),
    /// The request is larger than the bucket; no wait will help.
    Never,
}

impl Wait {
    /// The time to wait; `None` if no wait will help.
    pub fn after(self) -> Option<Duration> {
        match self {
            Self::Millis(millis) => Some(Duration::from_millis(millis.max(0).unsigned_abs())),
            Self::Never => None,
        }
    }
}

impl Balance {
    /// A balance with nothing carried.
    pub fn new(tokens: Millitokens, at: EpochMillis) -> Self {
        Self { tokens, carry: 0, at }
    }

    /// The balance at `now`: refilled, then capped at capacity.
    ///
    /// With a clock behind the balance's instant nothing is gained and the instant stays. Debt is never capped.
    ///
    /// ```
    /// use zae_limiter_core::{EpochMillis, Millitokens, limit::Params, refill::Balance};
    ///
    /// // 100 tokens a minute gain 1,666 millitokens in a second; 2/3 of a millitoken is carried on.
    /// let rate = Params { capacity: 100_000, refill: 100_000, period_ms: 60_000 };
    /// let empty = Balance::new(Millitokens(0), EpochMillis(0));
    /// let later = empty.refilled(rate, EpochMillis(1000));
    /// assert_eq!(later.tokens, Millitokens(1666));
    /// assert_eq!(later.refilled(rate, EpochMillis(2000)).tokens, Millitokens(3333));
    /// ```
    pub fn refilled(self, params: Params, now: EpochMillis) -> Self {
        let elapsed = i128::from(now.since(self.at).max(0));
        // At most 2^63 ms times 10^18, plus less than a period: fits 128 bits.
        let earned = elapsed.saturating_mul(params.refill).saturating_add(self.carry);
        let (gained, carry) = div_rem(earned, params.period_ms);
        let tokens = self.tokens + Millitokens(gained);
        let at = self.at.max(now);
        if tokens.0 >= params.capacity {
            Self {
                tokens: Millitokens(params.capacity),
                carry: 0,
                at,
            }
        } else {
            Self { tokens, carry, at }
        }
    }

    /// How long after `now` the balance covers `need`, if no other client takes tokens.
    pub fn wait(self, params: Params, need: Millitokens, now: EpochMillis) -> Wait {
        if self.refilled(params, now).tokens >= need {
            return Wait::Millis(0);
        }
        if need.0 > params.capacity || params.refill == 0 {
            return Wait::Never;
        }
        let missing = (need - self.tokens)
            .0
            .saturating_mul(params.period_ms)
            .saturating_sub(self.carry);
        let (millis, _) = div_rem(missing.saturating_add(params.refill - 1), params.refill);
        let due = i128::from(self.at.0).saturating_add(millis) - i128::from(now.0);
        Wait::Millis(i64::try_from(due).unwrap_or(i64::MAX).max(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Params = Params {
        capacity: 100_000,
        refill: 100_000,
        period_ms: 60_000,
    };

    #[track_caller]
    fn check_refill(tokens: i128, now: i64, params: Params, expected: i128) {
        let got = Balance::new(Millitokens(tokens), EpochMillis(0)).refilled(params, EpochMillis(now));
        assert_eq!(got.tokens, Millitokens(expected));
    }

    #[test]
    fn refill_vectors_of_the_shared_format() {
        check_refill(0, 1000, RATE, 1666);
        check_refill(0, 1, RATE, 1);
        check_refill(
            0,
            7,
            Params {
                capacity: 1_000_000_000,
                ..RATE
            },
            11,
        );
        check_refill(
            0,
            1,
            Params {
                capacity: 1000,
                refill: 1000,
                period_ms: 60_000_000,
            },
            0,
        );
        check_refill(99_000, 60_000, RATE, 100_000);
        check_refill(-5000, 1000, RATE, -3334);
        check_refill(120_000, -50, RATE, 100_000);
        check_refill(120_000, 1000, RATE, 100_000);
    }

    #[test]
    fn waits_are_rounded_up_to_the_millisecond() {
        let wait = |tokens, need| {
            Balance::new(Millitokens(tokens), EpochMillis(0)).wait(RATE, Millitokens(need), EpochMillis(0))
        };
        assert_eq!(wait(5000, 6000), Wait::Millis(600));
        assert_eq!(wait(5999, 6000), Wait::Millis(1));
        assert_eq!(wait(-1500, 0), Wait::Millis(900));
        assert_eq!(wait(5000, 5000), Wait::Millis(0));
        assert_eq!(wait(0, 100_001), Wait::Never);
    }

    #[test]
    fn a_clock_behind_the_bucket_waits_for_it() {
        let ahead = Balance::new(Millitokens(0), EpochMillis(10_000));
        assert_eq!(ahead.refilled(RATE, EpochMillis(0)).at, EpochMillis(10_000));
        assert_eq!(
            ahead.wait(RATE, Millitokens(1000), EpochMillis(0)),
            Wait::Millis(10_600)
        );
    }

    fn params() -> impl Strategy<Value = Params> {
        (
            1..=1_000_000_000_000_000_i128,
            1..=1_000_000_000_000_000_i128,
            1..=1_000_000_000_i128,
        )
            .prop_map(|(capacity, refill, secs)| Params {
                capacity: capacity * 1000,
                refill: refill * 1000,
                period_ms: secs * 1000,
            })
    }

    /// Rates of the size people use, where a remainder matters.
    fn ordinary_params() -> impl Strategy<Value = Params> {
        (1..=1_000_000_i128, 1..=1_000_000_i128, 1..=90_000_i128).prop_map(|(capacity, refill, secs)| {
            Params {
                capacity: capacity * 1000,
                refill: refill * 1000,
                period_ms: secs * 1000,
            }
        })
    }

    proptest! {
        #[test]
        fn refilling_often_gains_as_much_as_refilling_once(
            params in ordinary_params(),
            start in -1_000_000_i128..1_000_000,
            steps in prop::collection::vec(0_i64..5000, 1..200),
        ) {
            let mut often = Balance::new(Millitokens(start), EpochMillis(0));
            let once = often;
            let mut now = 0;
            for step in steps {
                now += step;
                often = often.refilled(params, EpochMillis(now));
            }
            prop_assert_eq!(often, once.refilled(params, EpochMillis(now)));
        }

        #[test]
        fn a_wait_is_exact(
            params in params(),
            tokens in -2_000_000_000_000_000_000_i128..=1_000_000_000_000_000_000,
            need in 0..=1_000_000_000_000_000_000_i128,
            elapsed in 0_i64..1_000_000_000,
            carry in 0_i128..1000,
        ) {
            let balance = Balance { carry, ..Balance::new(Millitokens(tokens), EpochMillis(0)) };
            let (need, now) = (Millitokens(need), EpochMillis(elapsed));
            match balance.wait(params, need, now) {
                Wait::Never => prop_assert!(need.0 > params.capacity),
                Wait::Millis(millis) => {
                    if let Some(due) = now.0.checked_add(millis) {
                        prop_assert!(balance.refilled(params, EpochMillis(due)).tokens >= need);
                        if millis > 0 {
                            prop_assert!(balance.refilled(params, EpochMillis(due - 1)).tokens < need);
                        }
                    }
                }
            }
        }

        #[test]
        fn extreme_numbers_do_not_overflow(
            params in params(),
            tokens in any::<i128>(),
            at in any::<i64>(),
            now in any::<i64>(),
            need in any::<i128>(),
        ) {
            let balance = Balance::new(Millitokens(tokens), EpochMillis(at));
            let after = balance.refilled(params, EpochMillis(now));
            prop_assert!(after.tokens.0 <= params.capacity.max(tokens));
            let _ = balance.wait(params, Millitokens(need), EpochMillis(now));
        }

        #[test]
        fn shares_never_add_up_to_more_than_the_limit(params in params(), shards in 1_u32..=32) {
            let share = params.share(shards);
            prop_assert!(share.capacity * i128::from(shards) <= params.capacity);
            prop_assert!(share.refill * i128::from(shards) <= params.refill);
        }
    }
}
