//! What shards start with: the tokens that their relatives hold beyond their shares, and what their slices of the
//! rate have earned. Plain functions of images.
//!
//! A slice whose shard does not exist belongs to a relative ([`family`]): the nearest one that, when it was created,
//! was given the slice ([`holds`]). Its tokens lie there as a surplus above the relative's share, and nothing is earned
//! for it. When the shard is created, the surplus moves. A refill cuts a surplus only once all descendants of the shard
//! exist.
//!
//! A refund above the share and a lowered limit leave a surplus, too, which belongs to no slice. It cannot be spent, since
//! the item is then marked for a forced pass. If it moved to a slice that another relative holds and has spent, the bucket
//! would admit more than its limit. So no other relative gives anything. Shards that other clients created do not tell
//! what they were given: where the holder is not known, each relative gives that is not marked.

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::bucket::{Bucket, BucketLimit};
use crate::limit::{Limit, Params};
use crate::refill::Balance;
use crate::schema::BucketId;
use crate::table::Part;
use crate::terms::Terms;
use crate::units::{EpochMillis, Millitokens};
use crate::write::{self, Donation};

/// Images of a bucket's shards, by shard.
pub(crate) type Shards = BTreeMap<u32, Arc<Bucket>>;

/// A shard to create.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Newborn {
    pub(crate) shard: u32,
    /// The instant that its balances stand for.
    pub(crate) refilled_at: EpochMillis,
    pub(crate) balances: Vec<Start>,
}

/// The initial balance of a shard for a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) name: SmolStr,
    pub(crate) params: Params,
    pub(crate) tokens: Millitokens,
}

/// A limit that new shards have.
#[derive(Debug, Clone)]
pub(crate) struct NewLimit<'a> {
    pub(crate) name: SmolStr,
    /// Its stored parameters, undivided.
    pub(crate) params: Params,
    /// Its terms on one of the shards.
    pub(crate) terms: Terms<'a>,
}

impl<'a> NewLimit<'a> {
    /// A configured limit, in so many shards.
    pub(crate) fn of(limit: &'a Limit, count: u32) -> Self {
        Self {
            name: limit.name().to_smol(),
            params: limit.params(),
            terms: Terms::of(limit, count),
        }
    }

    /// A limit that a relative has.
    pub(crate) fn held(image: &Bucket, limit: &'a BucketLimit, count: u32) -> Self {
        Self {
            name: limit.name.clone(),
            params: limit.params,
            terms: image.terms_among(limit, count),
        }
    }
}

/// Shards to create, and what of it comes from which relative.
#[derive(Debug)]
pub(crate) struct Births {
    pub(crate) newborns: Vec<Newborn>,
    given: BTreeMap<u32, Vec<(SmolStr, Millitokens)>>,
    /// All limits that new shards may have.
    limits: Vec<SmolStr>,
}

/// Plans the creation of shards of a bucket of `count`, with these limits. `siblings` are all relatives of theirs that
/// exist. A new shard has the limits that at least one of them has.
pub(crate) fn births(
    newborns: &[u32],
    count: u32,
    siblings: &Shards,
    limits: &[NewLimit<'_>],
    now: EpochMillis,
) -> Births {
    let mut given: BTreeMap<u32, Vec<(SmolStr, Millitokens)>> = BTreeMap::new();
    let mut planned = Vec::with_capacity(newborns.len());
    for shard in newborns {
        let relatives: Vec<(u32, &Arc<Bucket>)> = family(*shard, count)
            .into_iter()
            .filter_map(|id| Some((id, siblings.get(&id)?)))
            .collect();
        // Only relatives can have earned the slice, and none of them earns it any more: since then, it is due.
        let earned_until = relatives.iter().map(|(_, image)| image.earned_until(now)).max();
        let earned_until = earned_until.unwrap_or(now);
        // A clock behind that does not bring back what was in force before.
        let at = earned_until.max(now);
        let earner = earner(*shard, &relatives);
        let mut balances = Vec::with_capacity(limits.len());
        for limit in limits {
            let (name, new) = (limit.name.clone(), limit.terms);
            if relatives.iter().all(|(_, image)| image.limit(&name).is_none()) {
                // The new shard gains it at its first use, as they do: in full.
                continue;
            }
            // Time until now was earned under the terms that the slice's holder still has.
            let held = earner.and_then(|image| Some(image.terms_among(image.limit(&name)?, count)));
            let terms = held.unwrap_or(new);
            let most = new.share(at).capacity.min(terms.share(at).capacity);
            let mut moved = 0;
            for (id, image) in givers(*shard, &relatives) {
                let Some(held) = image.limit(&name) else { continue };
                let gifts = given.entry(id).or_default();
                let gone: i128 = gifts.iter().filter(|(of, _)| *of == name).map(|(_, n)| n.0).sum();
                let beyond = held.balance.0 - gone - image.terms_among(held, count).share(at).capacity;
                let part = beyond.min(most - moved);
                if part > 0 {
                    gifts.push((name.clone(), Millitokens(part)));
                    moved += part;
                }
            }
            let tokens = terms
                .refilled(Balance::new(Millitokens(moved), earned_until), now)
                .tokens;
            balances.push(Start {
                name,
                params: limit.params,
                tokens: Millitokens(tokens.0.min(most)),
            });
        }
        planned.push(Newborn {
            shard: *shard,
            refilled_at: at,
            balances,
        });
    }
    for gifts in given.values_mut() {
        merge(gifts);
    }
    Births {
        newborns: planned,
        given,
        limits: limits.iter().map(|limit| limit.name.clone()).collect(),
    }
}

/// The relatives that may hold tokens of a slice, of those that exist, nearest first.
fn givers<'a>(slice: u32, relatives: &[(u32, &'a Arc<Bucket>)]) -> Vec<(u32, &'a Arc<Bucket>)> {
    let mut givers = Vec::new();
    let mut is_known = true;
    for (id, image) in relatives {
        let holds = holds(*id, image, slice);
        if holds == Some(false) {
            continue;
        }
        is_known &= holds.is_some();
        if is_known || image.valid_until.is_none() {
            givers.push((*id, *image));
        }
        if holds == Some(true) {
            break;
        }
    }
    givers
}

/// The relative whose parameters a slice earns by: the one that still earns it, or else the one that holds it.
fn earner<'a>(slice: u32, relatives: &[(u32, &'a Arc<Bucket>)]) -> Option<&'a Arc<Bucket>> {
    let earns = |(id, image): &&(u32, &Arc<Bucket>)| slice % image.shard_count == *id;
    let may_hold = |(id, image): &&(u32, &Arc<Bucket>)| holds(*id, image, slice) != Some(false);
    let found = relatives.iter().find(earns);
    let found = found.or_else(|| relatives.iter().find(may_hold));
    found.map(|(_, image)| *image)
}

/// Whether a shard holds a slice, unless a nearer relative does; `None` if that is not known.
///
/// One of `n` shards that is created is given all slices that are equal to it modulo `n`.
fn holds(shard: u32, image: &Bucket, slice: u32) -> Option<bool> {
    let is_one_of = |count: u32| slice % count == shard;
    match image.count_at_birth() {
        Some(count) => Some(is_one_of(count)),
        // The first shard begins undivided, and one without the count of a doubling still earns the slice.
        None => (shard == 0 || is_one_of(image.shard_count)).then_some(true),
    }
}

impl Births {
    /// The tokens of a limit that a relative gives.
    pub(crate) fn given(&self, shard: u32, limit: &str) -> Millitokens {
        let of = self.given.get(&shard).map_or(&[][..], Vec::as_slice);
        of.iter()
            .find(|(name, _)| name == limit)
            .map_or(Millitokens::ZERO, |(_, tokens)| *tokens)
    }

    /// The writes and conditions for relatives in the transaction that creates the shards.
    pub(crate) fn of_relatives(&self, id: &BucketId, count: u32, siblings: &Shards) -> Vec<Part> {
        let mut relatives: Vec<u32> = Vec::new();
        for newborn in &self.newborns {
            let of = family(newborn.shard, count).into_iter();
            relatives.extend(of.filter(|id| self.newborns.iter().all(|n| n.shard != *id)));
        }
        relatives.sort_unstable();
        relatives.dedup();
        let mut parts = Vec::with_capacity(relatives.len());
        for shard in relatives {
            let key = id.key(shard);
            let Some(image) = siblings.get(&shard) else {
                // Created meanwhile, it might hold these shards' slices too.
                parts.push(write::is_absent(key));
                continue;
            };
            let held = |newborn: &Newborn| newborn.shard % image.shard_count == shard;
            let covers = image.shard_count < count && self.newborns.iter().any(held);
            let given = self.given.get(&shard).map_or(&[][..], Vec::as_slice);
            if covers || !given.is_empty() {
                let lacking = self.limits.iter().filter(|name| image.limit(name).is_none());
                let lacking: Vec<SmolStr> = lacking.cloned().collect();
                let donation = Donation {
                    image,
                    lacking: &lacking,
                    // A delayed doubling of a former life may have raised it further.
                    shard_count: count.max(image.shard_count),
                    given,
                    hands_over_at: covers.then_some(image.refilled_at),
                };
                parts.push(write::donate(key, &donation));
            } else if shard == 0 {
                parts.push(write::count_is_still(key, image, count));
            }
        }
        parts
    }
}

/// One sum for each limit.
fn merge(gifts: &mut Vec<(SmolStr, Millitokens)>) {
    let mut sums: Vec<(SmolStr, Millitokens)> = Vec::new();
    for (name, tokens) in gifts.drain(..) {
        match sums.iter_mut().find(|(of, _)| *of == name) {
            Some((_, sum)) => *sum += tokens,
            None => sums.push((name, tokens)),
        }
    }
    *gifts = sums;
}

/// The shards that may hold the slice of a shard that does not exist: with 8 shards, that of 7 may lie with
/// 3, 1 or 0. Nearest first; shard 0, which has the count, always last.
pub(crate) fn family(shard: u32, count: u32) -> Vec<u32> {
    let mut relatives: Vec<u32> = Vec::new();
    let mut of = count / 2;
    while of >= 1 {
        let relative = shard % of;
        if relative != shard && !relatives.contains(&relative) {
            relatives.push(relative);
        }
        of /= 2;
    }
    if !relatives.contains(&0) {
        relatives.push(0);
    }
    relatives
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::{FENCE, birth_mark, first_fence};
    use crate::table::{Item, Value};

    const NOW: EpochMillis = EpochMillis(1_795_290_198_000);

    #[test]
    fn a_shard_descends_from_those_that_held_its_slice_before() {
        assert_eq!(family(7, 8), [3, 1, 0]);
        assert_eq!(family(4, 8), [0]);
        assert_eq!(family(1, 8), [0]);
        assert_eq!(family(5, 8), [1, 0]);
        assert_eq!(family(1, 2), [0]);
    }

    fn limit() -> Limit {
        Limit::per_minute("rpm", 1600).build().unwrap()
    }

    /// A shard of 1600 a minute that another client created.
    fn image(tokens: i64, count: u32, at: EpochMillis) -> Arc<Bucket> {
        Arc::new(Bucket::decode(&item(tokens, count, at)).unwrap())
    }

    /// A shard that was created as one of so many, and whether it is marked for a forced pass.
    fn born(tokens: i64, count: u32, of: u32, is_marked: bool) -> Arc<Bucket> {
        let mut item = item(tokens, count, NOW);
        item.insert(FENCE.into(), Value::S(first_fence(&birth_mark(7, of, None))));
        if is_marked {
            item.insert("vu".into(), Value::int(0));
        }
        Arc::new(Bucket::decode(&item).unwrap())
    }

    fn item(tokens: i64, count: u32, at: EpochMillis) -> Item {
        Item::from([
            ("rf".into(), Value::int(at.0)),
            ("shard_count".into(), Value::int(count)),
            ("b_rpm_tk".into(), Value::int(tokens * 1000)),
            ("b_rpm_cp".into(), Value::int(1_600_000)),
            ("b_rpm_ra".into(), Value::int(1_600_000)),
            ("b_rpm_rp".into(), Value::int(60_000)),
        ])
    }

    fn plan(newborns: &[u32], count: u32, siblings: &[(u32, Arc<Bucket>)]) -> (Vec<i128>, Vec<(u32, i128)>) {
        let siblings: Shards = siblings.iter().cloned().collect();
        let births = births(newborns, count, &siblings, &[NewLimit::of(&limit(), count)], NOW);
        let tokens = births.newborns.iter().map(|n| n.balances[0].tokens.0 / 1000);
        let given = births.given.iter().flat_map(|(shard, gifts)| {
            let of = |(_, n): &(SmolStr, Millitokens)| (*shard, n.0 / 1000);
            gifts.iter().map(of)
        });
        (tokens.collect(), given.collect())
    }

    #[test]
    fn the_surplus_of_several_slices_reaches_every_shard_of_them() {
        let (tokens, given) = plan(&[1, 2, 3], 4, &[(0, image(1600, 4, NOW))]);
        assert_eq!((tokens, given), (vec![400, 400, 400], vec![(0, 1200)]));
        // Its nearest relative holds just its own share; the rest still lies with the first.
        let two = [(0, image(1200, 4, NOW)), (1, image(400, 4, NOW))];
        assert_eq!(plan(&[3], 4, &two), (vec![400], vec![(0, 400)]));
        // What can only go to shard 3 goes there.
        let two = [(0, image(800, 4, NOW)), (1, image(500, 4, NOW))];
        assert_eq!(plan(&[3], 4, &two), (vec![400], vec![(0, 300), (1, 100)]));
    }

    #[test]
    fn a_slice_has_earned_since_its_relatives_were_refilled_last() {
        // A share of 400 a minute, for 15 seconds.
        let before = NOW.plus(-15_000);
        assert_eq!(plan(&[1], 4, &[(0, image(400, 4, before))]).0, [100]);
        assert_eq!(
            plan(&[1], 4, &[(0, image(450, 4, before))]),
            (vec![150], vec![(0, 50)])
        );
        // Never more than a share.
        let long_ago = NOW.plus(-3_600_000);
        assert_eq!(plan(&[1], 4, &[(0, image(500, 4, long_ago))]).0, [400]);
        // Nothing before the latest of them.
        let two = [(0, image(400, 4, before)), (1, image(400, 4, NOW))];
        assert_eq!(plan(&[3], 4, &two).0, [0]);
    }

    /// Half as large since the last refill, which a clock that is behind has not seen.
    #[test]
    fn a_clock_that_is_behind_does_not_divide_by_a_window_that_is_over() {
        let refilled_at = NOW.plus(-17_000);
        let mut item = item(900, 2, refilled_at);
        item.insert("sched".into(), Value::text("1m43-59s500"));
        let relative = Arc::new(Bucket::decode(&item).unwrap());
        let limit = BucketLimit::clone(relative.limit("rpm").unwrap());
        let siblings = Shards::from([(0, Arc::clone(&relative))]);
        let limits = [NewLimit::held(&relative, &limit, 2)];
        let births = births(&[1], 2, &siblings, &limits, refilled_at.plus(-2000));
        assert_eq!(births.newborns[0].balances[0].tokens, Millitokens(400_000));
        assert_eq!(births.newborns[0].refilled_at, refilled_at);
        assert_eq!(births.given(0, "rpm"), Millitokens(400_000));
    }

    #[test]
    fn only_the_shard_that_was_given_a_slice_gives_its_tokens() {
        for marked in [false, true] {
            // Shard 1 was given the part of shard 3, and has spent it.
            let two = [(0, born(1200, 4, 1, marked)), (1, born(400, 4, 2, false))];
            assert_eq!(plan(&[3], 4, &two), (vec![0], vec![]), "{marked}");
            let two = [(0, born(400, 4, 1, false)), (1, born(700, 4, 2, marked))];
            assert_eq!(plan(&[3], 4, &two), (vec![300], vec![(1, 300)]), "{marked}");
            // Shard 1 was created after the doubling.
            let two = [(0, born(1200, 4, 1, marked)), (1, born(800, 4, 4, !marked))];
            assert_eq!(plan(&[3], 4, &two), (vec![400], vec![(0, 400)]), "{marked}");
            // A first shard that was created beside others begins with its share.
            assert_eq!(plan(&[1], 2, &[(0, born(1600, 2, 2, marked))]).0, [0], "{marked}");
        }
    }

    #[test]
    fn a_slice_earns_by_the_parameters_of_its_holder() {
        // 400 or 100 a minute for each of four, 15 seconds ago.
        let before = NOW.plus(-15_000);
        let with_rate = |tokens: i64, count, of, rate: Option<i64>| {
            let mut item = item(tokens, count, before);
            item.insert(FENCE.into(), Value::S(first_fence(&birth_mark(7, of, None))));
            match rate {
                Some(rate) => drop(item.insert("b_rpm_ra".into(), Value::int(rate * 1000))),
                None => item.retain(|name, _| !name.starts_with("b_rpm")),
            }
            Arc::new(Bucket::decode(&item).unwrap())
        };
        for (root, (count, born_of, rate), earned) in [
            // Shard 1 holds the part of shard 3, with or without the count of the doubling.
            (1600, (2, 2, Some(400)), 25),
            (400, (4, 2, Some(1600)), 100),
            // It lacks the limit, so those of the new shard count.
            (400, (2, 2, None), 100),
            (3200, (2, 2, None), 100),
            // Shard 0 holds it.
            (1600, (4, 4, Some(400)), 100),
            (400, (4, 4, Some(1600)), 25),
        ] {
            let two = [
                (0, with_rate(400, 4, 1, Some(root))),
                (1, with_rate(400, count, born_of, rate)),
            ];
            assert_eq!(
                plan(&[3], 4, &two).0,
                [earned],
                "{root}, {count}, {born_of}, {rate:?}"
            );
        }
    }

    #[test]
    fn where_it_is_not_known_who_holds_a_slice_no_surplus_that_may_be_cut_is_moved() {
        let marked = |tokens, count| {
            let mut item = item(tokens, count, NOW);
            item.insert("vu".into(), Value::int(0));
            Arc::new(Bucket::decode(&item).unwrap())
        };
        let two = [(0, marked(1200, 4)), (1, marked(800, 4))];
        assert_eq!(plan(&[3], 4, &two), (vec![0], vec![]));
        let two = [(0, marked(1200, 4)), (1, image(500, 4, NOW))];
        assert_eq!(plan(&[3], 4, &two), (vec![100], vec![(1, 100)]));
        // Of shard 2, shard 0 is the only relative; and shard 1 still earns the part of 3.
        let two = [(0, marked(1200, 4)), (1, marked(800, 2))];
        assert_eq!(plan(&[2, 3], 4, &two), (vec![400, 400], vec![(0, 400), (1, 400)]));
    }
}
