//! What a limit holds over all shards of a bucket, and when that covers a request.
//!
//! A shard in debt takes nothing from the others: a request can still have what they hold.

use crate::refill::{Balance, Wait};
use crate::terms::Terms;
use crate::units::{EpochMillis, Millitokens};

/// One shard's part of a limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    /// The shard's terms.
    pub(crate) terms: Terms<'a>,
    /// Its balance.
    pub(crate) balance: Balance,
}

/// The tokens that a request could have of all shards at `now`. Negative if all are in debt: what they owe.
pub(crate) fn tokens(parts: &[Part<'_>], now: EpochMillis) -> Millitokens {
    if let [part] = parts {
        return part.terms.refilled(part.balance, now).tokens;
    }
    let each = || {
        parts
            .iter()
            .map(|part| part.terms.refilled(part.balance, now).tokens.0)
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
pub(crate) fn goal(
    capacity: i128,
    parts: &[Part<'_>],
    need: Millitokens,
    now: EpochMillis,
) -> Option<Millitokens> {
    let most = parts
        .iter()
        .map(|part| part.terms.ceiling(now).max(part.terms.share(now).capacity))
        .fold(0, i128::saturating_add);
    // Shards that do not have a changed limit yet are not rounded: the difference is not there.
    let rounded = need.0.saturating_sub(most) < parts.len() as i128;
    if need.0 <= most {
        Some(need)
    } else {
        (need.0 <= capacity && rounded).then_some(Millitokens(most))
    }
}

/// How long after `now` the shards cover `need` together, if no other client takes tokens. Exact, as [`Terms::wait`] is.
pub(crate) fn wait(parts: &[Part<'_>], need: Millitokens, now: EpochMillis) -> Wait {
    if let [part] = parts {
        return part.terms.wait(part.balance, need, now);
    }
    let covers = |at: EpochMillis| {
        let capacity = parts.first().map_or(0, |part| part.terms.whole(at).capacity);
        goal(capacity, parts, need, at).is_some_and(|goal| tokens(parts, at) >= goal)
    };
    if covers(now) {
        return Wait::Millis(0);
    }
    // Tokens only grow until the terms change.
    let mut at = now;
    for _ in 0..MAX_CHANGES {
        let change = parts.iter().filter_map(|part| part.terms.valid_until(at));
        let change = change.filter(|change| *change > at).min();
        let until = match change {
            Some(change) => change.plus(-1),
            None => parts
                .iter()
                .map(|part| full_at(part, at))
                .fold(at, EpochMillis::max),
        };
        if until > at && covers(until) {
            return Wait::Millis(first(at, until, covers).since(now));
        }
        let Some(change) = change else { return Wait::Never };
        if covers(change) {
            return Wait::Millis(change.since(now));
        }
        at = change;
    }
    if parts.iter().any(|part| part.terms.ever_covers(need)) {
        Wait::Millis(at.since(now))
    } else {
        Wait::Never
    }
}

/// How many changes of the terms a wait follows.
const MAX_CHANGES: usize = 64;

/// When a shard is full, if its terms do not change from `at` on.
fn full_at(part: &Part<'_>, at: EpochMillis) -> EpochMillis {
    let full = Millitokens(part.terms.share(at).capacity);
    match part.terms.wait(part.balance, full, at) {
        Wait::Millis(millis) => at.plus(millis),
        Wait::Never => at,
    }
}

/// The first instant after `early`, which is too early, up to `late`, which is not, at which it holds.
fn first(early: EpochMillis, late: EpochMillis, holds: impl Fn(EpochMillis) -> bool) -> EpochMillis {
    let (mut early, mut late) = (early.0, late.0);
    while late - early > 1 {
        let middle = early + (late - early) / 2;
        if holds(EpochMillis(middle)) {
            late = middle;
        } else {
            early = middle;
        }
    }
    EpochMillis(late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Params;
    use proptest::prelude::*;

    const NOW: EpochMillis = EpochMillis(1_795_290_198_000);

    /// A limit of 100 a minute in `count` shards that hold these millitokens, each as of its own instant.
    fn parts(count: u32, held: &[(i128, i64)]) -> Vec<Part<'static>> {
        let terms = Terms::new(whole(), None, count);
        let part = |(tokens, age): &(i128, i64)| Part {
            terms,
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

    fn wait_for(parts: &[Part<'_>], tokens: i64) -> Wait {
        wait(parts, Millitokens::from_tokens(tokens), NOW)
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
        let lower = Params {
            capacity: 50_000,
            ..whole()
        };
        mixed[1].terms = Terms::new(lower, None, 2);
        assert_eq!(
            goal(100_000, &mixed, Millitokens(75_000), NOW),
            Some(Millitokens(75_000))
        );
        assert_eq!(goal(100_000, &mixed, Millitokens(100_000), NOW), None);
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
            let Some(goal) = goal(whole().capacity, &parts, need, NOW) else {
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
