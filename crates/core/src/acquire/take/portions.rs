//! How a request is divided over the shards of a bucket. Plain functions of numbers.

/// The part of one shard: its place among those given, and how much of which amount.
pub(super) type Portion = (usize, Vec<(usize, i128)>);

/// Stands for a balance that cannot be spent as it is.
pub(super) const NOTHING: i128 = i128::MIN;

/// Stands for a balance that covers any amount: that of a soft limit.
pub(super) const PLENTY: i128 = i128::MAX / 8192;

/// Divides amounts over shards of which each holds so much for each amount; `None` if they do not hold enough.
///
/// Takes from the fullest first, so that few shards are written. An amount of 0 needs a shard that is not in debt.
pub(super) fn divide(needs: &[i128], held: &[Vec<i128>]) -> Option<Vec<Portion>> {
    let of = |shard: usize, amount: usize| held[shard][amount].max(0);
    let total = |amount: usize| (0..held.len()).map(|shard| of(shard, amount)).sum::<i128>();
    // Of the amount that takes most of what there is.
    let scarcity = |a: &usize, b: &usize| {
        let (a, b) = (*a, *b);
        needs[a]
            .saturating_mul(total(b))
            .cmp(&needs[b].saturating_mul(total(a)))
    };
    let scarce = (0..needs.len()).max_by(scarcity)?;
    let mut order: Vec<usize> = (0..held.len()).collect();
    order.sort_by_key(|shard| std::cmp::Reverse(of(*shard, scarce)));
    let mut left = needs.to_vec();
    let mut portions: Vec<Portion> = Vec::new();
    for shard in order {
        let parts: Vec<(usize, i128)> = (0..needs.len())
            .map(|amount| (amount, of(shard, amount).min(left[amount])))
            .filter(|(_, part)| *part > 0)
            .collect();
        for (amount, part) in &parts {
            left[*amount] -= part;
        }
        if !parts.is_empty() {
            portions.push((shard, parts));
        }
    }
    if left.iter().any(|left| *left > 0) {
        return None;
    }
    for (amount, _) in needs.iter().enumerate().filter(|(_, need)| **need == 0) {
        let solvent = |shard: &usize| held[*shard][amount] >= 0;
        if let Some((_, parts)) = portions.iter_mut().find(|(shard, _)| solvent(shard)) {
            parts.push((amount, 0));
        } else {
            let shard = (0..held.len()).find(solvent)?;
            portions.push((shard, vec![(amount, 0)]));
        }
    }
    // A shard may have come in twice, for an amount of 0.
    portions.sort_by_key(|(shard, _)| *shard);
    portions.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1.append(&mut later.1);
        }
        same
    });
    Some(portions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shards with what they pay of each amount.
    type Paid<'a> = &'a [(usize, &'a [(usize, i128)])];

    #[track_caller]
    fn check(needs: &[i128], held: &[&[i128]], expected: Option<Paid<'_>>) {
        let held: Vec<Vec<i128>> = held.iter().map(|held| held.to_vec()).collect();
        let got = divide(needs, &held);
        let expected = expected.map(|all| {
            all.iter()
                .map(|(shard, parts)| (*shard, parts.to_vec()))
                .collect::<Vec<_>>()
        });
        assert_eq!(got, expected);
    }

    #[test]
    fn the_fullest_shards_pay() {
        check(
            &[60],
            &[&[50], &[10], &[40]],
            Some(&[(0, &[(0, 50)]), (2, &[(0, 10)])]),
        );
        check(&[50], &[&[10], &[50]], Some(&[(1, &[(0, 50)])]));
        check(&[61], &[&[50], &[-5], &[10]], None);
        check(
            &[60],
            &[&[50], &[-5], &[10]],
            Some(&[(0, &[(0, 50)]), (2, &[(0, 10)])]),
        );
    }

    #[test]
    fn each_amount_is_divided_on_its_own() {
        check(
            &[1, 90],
            &[&[0, 50], &[5, 40]],
            Some(&[(0, &[(1, 50)]), (1, &[(0, 1), (1, 40)])]),
        );
    }

    #[test]
    fn nothing_is_taken_only_from_a_shard_without_debt() {
        check(
            &[0, 5],
            &[&[-1, 5], &[0, 0]],
            Some(&[(0, &[(1, 5)]), (1, &[(0, 0)])]),
        );
        check(&[0, 5], &[&[-1, 5], &[NOTHING, 0]], None);
        check(&[0], &[&[-1], &[3]], Some(&[(1, &[(0, 0)])]));
    }
}
