//! What a limit holds over all shards of a bucket, and when that covers a request.
//!
//! A shard in debt takes nothing from the others: a request can still have what they hold.

use crate::limit::Params;
use crate::refill::{Balance, Wait};
use crate::units::{EpochMillis, Millitokens};

/// One shard's part of a limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// The shard's share of the parameters.
    pub(crate) share: Params,
    /// Its balance.
    pub(crate) balance: Balance,
}

/// The tokens that a request could have of all shards at `now`. Negative if all are in debt: what they owe.
pub(crate) fn tokens(parts: &[Part], now: EpochMillis) -> Millitokens {
    if let [part] = parts {
        return part.balance.refilled(part.share, now).tokens;
    }
    let each = || {
        parts
            .iter()
            .map(|part| part.balance.refilled(part.share, now).tokens.0)
    };
    let held: i128 = each().filter(|tokens| *tokens > 0).sum();
    if held > 0 || each().any(|tokens| tokens == 0) {
        Millitokens(held)
    } else {
        Millitokens(each().sum())
    }
}

/// The balance at which a request is covered; `None` if it is larger than the limit.
///
/// Shares are rounded down, so that all shards together hold a little less than the capacity: less than a
/// millitoken each. A request of up to the capacity is covered when all are full.
pub(crate) fn goal(capacity: i128, parts: &[Part], need: Millitokens) -> Option<Millitokens> {
    let most = parts.iter().map(|part| part.share.capacity).sum::<i128>();
    // Shards that do not have a changed limit yet are not rounded: the difference is not there.
    let rounded = (need.0 - most) < parts.len() as i128;
    if need.0 <= most {
        Some(need)
    } else {
        (need.0 <= capacity && rounded).then_some(Millitokens(most))
    }
}

/// How long after `now` the shards cover `need` together, if no other client takes tokens. Exact, as [`Balance::wait`]
/// is.
pub(crate) fn wait(capacity: i128, parts: &[Part], need: Millitokens, now: EpochMillis) -> Wait {
    if let [part] = parts {
        return part.balance.wait(part.share, need, now);
    }
    let Some(goal) = goal(capacity, parts, need) else {
        return Wait::Never;
    };
    let covers = |millis: i64| tokens(parts, now.plus(millis)) >= goal;
    if covers(0) {
        return Wait::Millis(0);
    }
    let full = |part: &Part| {
        let full = Millitokens(part.share.capacity);
        match part.balance.wait(part.share, full, now) {
            Wait::Millis(millis) => Some(millis),
            Wait::Never => None,
        }
    };
    // Tokens only grow: the first instant is between one that is too early and one that is not.
    let (mut early, mut late) = (0, parts.iter().filter_map(full).max().unwrap_or(0));
    if !covers(late) {
        return Wait::Never;
    }
    while late - early > 1 {
        let middle = early + (late - early) / 2;
        if covers(middle) {
            late = middle;
        } else {
            early = middle;
        }
    }
    Wait::Millis(late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: EpochMillis = EpochMillis(1_795_290_198_000);

    /// A limit of 100 a minute in `count` shards that hold these millitokens, each as of its own instant.
    fn parts(count: u32, held: &[(i128, i64)]) -> Vec<Part> {
        let share = whole().share(count);
        let part = |(tokens, age): &(i128, i64)| Part {
            share,
            balance: Balance::new(Millitokens(*tokens), NOW.plus(-age)),
        };
        held.iter().map(part).collect()
    }

    fn whole() -> Params {
        Params {
            capacity: 100_000,
            refill: 100_000,
            period_ms: 60_000,
        }
    }

    fn wait_for(parts: &[Part], tokens: i64) -> Wait {
        wait(whole().capacity, parts, Millitokens::from_tokens(tokens), NOW)
    }

    #[test]
    fn shards_cover_together_what_none_covers_alone() {
        let half = parts(2, &[(40_000, 0), (30_000, 0)]);
        assert_eq!(tokens(&half, NOW), Millitokens(70_000));
        assert_eq!(wait_for(&half, 70), Wait::Millis(0));
        // Both gain 50 a minute until the first is full, after 12 s; then the other continues alone.
        assert_eq!(wait_for(&half, 90), Wait::Millis(12_000));
        assert_eq!(wait_for(&half, 95), Wait::Millis(18_000));
        assert_eq!(wait_for(&half, 100), Wait::Millis(24_000));
        assert_eq!(wait_for(&half, 101), Wait::Never);
    }

    #[test]
    fn a_shard_in_debt_takes_nothing_from_the_others() {
        let one_owes = parts(2, &[(-40_000, 0), (30_000, 0)]);
        assert_eq!(tokens(&one_owes, NOW), Millitokens(30_000));
        assert_eq!(wait_for(&one_owes, 30), Wait::Millis(0));
        let all_owe = parts(2, &[(-40_000, 0), (-10_000, 0)]);
        assert_eq!(tokens(&all_owe, NOW), Millitokens(-50_000));
        assert_eq!(wait_for(&all_owe, 0), Wait::Millis(12_000));
    }

    #[test]
    fn the_whole_capacity_can_be_had_although_shares_are_rounded_down() {
        let third = parts(3, &[(33_333, 0), (33_333, 0), (33_333, 0)]);
        assert_eq!(wait_for(&third, 100), Wait::Millis(0));
        let third = parts(3, &[(33_333, 0), (33_333, 0), (33_332, 0)]);
        assert!(matches!(wait_for(&third, 100), Wait::Millis(1..)));
    }

    #[test]
    fn shards_that_were_told_of_a_lower_limit_owe_nothing() {
        let mut mixed = parts(2, &[(50_000, 0), (25_000, 0)]);
        mixed[1].share.capacity = 25_000;
        assert_eq!(
            goal(100_000, &mixed, Millitokens(75_000)),
            Some(Millitokens(75_000))
        );
        assert_eq!(goal(100_000, &mixed, Millitokens(100_000)), None);
    }

    proptest! {
        #[test]
        fn a_wait_is_exact(
            count in 2_u32..=32,
            held in prop::collection::vec((-50_000_i128..60_000, 0_i64..50_000), 2..32),
            tokens_asked in 0_i64..100,
        ) {
            let parts = parts(count, &held);
            let need = Millitokens::from_tokens(tokens_asked);
            let Some(goal) = goal(whole().capacity, &parts, need) else {
                prop_assert_eq!(wait_for(&parts, tokens_asked), Wait::Never);
                return Ok(());
            };
            match wait_for(&parts, tokens_asked) {
                Wait::Never => prop_assert!(false, "all of it is earned some time"),
                Wait::Millis(millis) => {
                    prop_assert!(tokens(&parts, NOW.plus(millis)) >= goal);
                    prop_assert!(millis == 0 || tokens(&parts, NOW.plus(millis - 1)) < goal);
                }
            }
        }
    }
}
