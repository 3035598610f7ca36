//! Tokens that are taken ahead of the calls that spend them.

use std::sync::Arc;

use proptest::prelude::*;
use zae_limiter_core::acquire::{Acquire, Ahead, Decision, ForSlices, Grant, Request, Slice, split};
use zae_limiter_core::config::Resolved;
use zae_limiter_core::table::{Answer, Op};
use zae_limiter_core::{EntityId, EpochMillis, Limit, LimitName, Millitokens};

use crate::drive::Desk;

fn day(name: &str, tokens: u64) -> Limit {
    Limit::per_day(name, tokens).build().unwrap()
}

fn amounts(of: &[(&str, i64)]) -> Vec<(LimitName, Millitokens)> {
    of.iter()
        .map(|(name, tokens)| (LimitName::new(name).unwrap(), Millitokens::from_tokens(*tokens)))
        .collect()
}

fn ahead(calls: u32, of: &[(&str, i64)]) -> Ahead {
    Ahead {
        calls,
        per_call: amounts(of),
        held: Vec::new(),
    }
}

fn for_child(ahead: Ahead) -> ForSlices {
    ForSlices {
        child: Some(ahead),
        ..ForSlices::default()
    }
}

/// A bucket with 1,000 `rpd` and 100,000 `tpd` whose image is remembered.
fn desk() -> Desk {
    let mut desk = Desk::with(&[day("rpd", 1000), day("tpd", 100_000)]);
    desk.remembers = true;
    desk.admitted("k", &[("rpd", 1), ("tpd", 1)]);
    desk
}

fn config(desk: &mut Desk) -> Arc<Resolved> {
    desk.config(&EntityId::new("k").unwrap(), false).unwrap().config
}

/// Runs an acquire with what slices ask of it.
fn acquire(desk: &mut Desk, consume: &[(&str, i64)], slices: ForSlices) -> (Decision, bool) {
    let request = Request {
        slices: Some(Box::new(slices)),
        ..desk.request("k", consume)
    };
    let mut acquire = Acquire::new(request);
    let decision = desk.drive(&mut acquire);
    let is_paid = acquire.is_paid();
    (decision, is_paid)
}

fn taken(decision: &Decision) -> Vec<(String, i128)> {
    let Decision::Admitted(grants) = decision else {
        panic!("{decision:?}")
    };
    let of = |grant: &Grant| {
        let amounts = grant.amounts.clone().into_iter();
        amounts
            .map(|(name, amount)| (name.to_string(), amount.0))
            .collect::<Vec<_>>()
    };
    grants.iter().flat_map(of).collect()
}

#[test]
fn the_first_write_takes_ahead_what_a_quarter_of_the_balance_allows() {
    let wanted = [
        // All of it.
        (9, [("rpd", 1), ("tpd", 100)], 9),
        // 999 and 99,999 are left: 248 and 24,899 may be taken ahead.
        (500, [("rpd", 1), ("tpd", 10)], 248),
        (500, [("rpd", 1), ("tpd", 1_000)], 24),
        // Not even one call.
        (500, [("rpd", 1), ("tpd", 25_000)], 0),
    ];
    for (calls, per_call, taken_for) in wanted {
        let mut desk = desk();
        let slices = for_child(ahead(calls, &per_call));
        let (decision, _) = acquire(&mut desk, &[("rpd", 1), ("tpd", 100)], slices);
        let of = |at: usize, need: i64| i128::from(need + per_call[at].1 * taken_for) * 1000;
        let expected = [("rpd".to_owned(), of(0, 1)), ("tpd".to_owned(), of(1, 100))];
        assert_eq!(taken(&decision), expected, "{calls} {per_call:?}");
        assert_eq!(desk.ops.len(), 1);
    }
}

#[test]
fn a_call_that_is_refused_what_it_takes_ahead_takes_what_it_needs() {
    let mut desk = desk();
    // Another process has taken nearly all, as the image does not show.
    desk.poke(
        "k",
        0,
        &[("b_tpd_tk", zae_limiter_core::table::Value::int(150_000))],
    );
    let slices = for_child(ahead(9, &[("tpd", 100)]));
    let (decision, _) = acquire(&mut desk, &[("tpd", 100)], slices);
    assert_eq!(taken(&decision), [("tpd".to_owned(), 100_000)]);
    assert_eq!(desk.int("k", 0, "b_tpd_tk"), 50_000);
}

#[test]
fn without_an_image_nothing_is_taken_ahead() {
    let mut desk = desk();
    desk.remembers = false;
    let slices = for_child(ahead(9, &[("tpd", 100)]));
    let (decision, _) = acquire(&mut desk, &[("tpd", 100)], slices);
    assert_eq!(taken(&decision), [("tpd".to_owned(), 100_000)]);
}

#[test]
fn a_parent_that_is_paid_is_not_debited_as_long_as_it_is_the_parent() {
    let mut desk = Desk::with(&[day("tpd", 100_000)]);
    desk.remembers = true;
    for parent in ["old", "new"] {
        desk.entity(parent, None, false);
    }
    desk.entity("k", Some("old"), true);
    desk.admitted("k", &[("tpd", 10)]);
    desk.admitted("k", &[("tpd", 10)]);
    let paid = |parent: &str| ForSlices {
        paid: Some(EntityId::new(parent).unwrap()),
        ..ForSlices::default()
    };
    let (decision, is_paid) = acquire(&mut desk, &[("tpd", 10)], paid("old"));
    assert_eq!((taken(&decision).len(), is_paid), (1, true));
    assert_eq!(desk.int("old", 0, "b_tpd_tc"), 20_000);
    // Tokens of another parent do not count.
    let (decision, is_paid) = acquire(&mut desk, &[("tpd", 10)], paid("new"));
    assert_eq!((taken(&decision).len(), is_paid), (2, false));
    // The key has moved, as its item shows; the cached configuration does not.
    let key = desk.id("k").key(0);
    let stamp = [
        ("parent_id", zae_limiter_core::table::Value::text("new")),
        ("pgen", zae_limiter_core::table::Value::int(99)),
    ];
    let mut item = desk.table.get(&key).unwrap().clone();
    item.extend(stamp.map(|(name, value)| (name.to_owned(), value)));
    desk.table.insert(item).unwrap();
    desk.entity_of("k", Some("new"), true, (99, "80729c5437a39750"));
    let (decision, is_paid) = acquire(&mut desk, &[("tpd", 10)], paid("old"));
    assert_eq!((taken(&decision).len(), is_paid), (2, false));
    assert_eq!(desk.int("old", 0, "b_tpd_tc"), 30_000);
    assert_eq!(desk.int("new", 0, "b_tpd_tc"), 10_000);
}

#[test]
fn the_number_of_calls_follows_the_rate() {
    let mut desk = desk();
    let config = config(&mut desk);
    let (mut slice, need) = (Slice::default(), amounts(&[("tpd", 100)]));
    let mut calls = Vec::new();
    for at in 0..8 {
        let now = EpochMillis(desk.now + at);
        slice.note(&need);
        let ahead = slice.fill(&need, now, 1000, 50);
        calls.push(ahead.as_ref().map_or(0, |ahead| ahead.calls));
        if ahead.is_some() {
            assert!(slice.fill(&need, now, 1000, 50).is_none(), "one call fills it");
            slice.filled(Vec::new(), &config, now);
        }
    }
    assert_eq!(calls, [0, 1, 3, 7, 15, 31, 49, 49]);
    slice.was_idle();
    let now = EpochMillis(desk.now + 500);
    assert_eq!(slice.fill(&need, now, 1000, 50).unwrap().calls, 49);
    slice.not_filled();
    // A call after a pause is alone.
    assert!(
        slice
            .fill(&need, EpochMillis(desk.now + 5000), 1000, 50)
            .is_none()
    );
}

#[test]
fn a_slice_belongs_to_one_configuration_and_a_time() {
    let mut desk = desk();
    let grants = desk.admitted("k", &[("tpd", 500)]);
    let config = config(&mut desk);
    let again = Arc::new((*config).clone());
    let other = Arc::new(Resolved {
        limits: vec![day("tpd", 7)],
        ..(*config).clone()
    });
    let mut slice = Slice::default();
    let at = |millis| EpochMillis(desk.now + millis);
    assert!(slice.filled(grants.clone(), &config, at(0)).is_empty());
    assert!(slice.is_valid(&config, at(999), 1000) && !slice.is_valid(&other, at(0), 1000));
    assert!(slice.is_valid(&again, at(0), 1000), "it was read again");
    assert!(!slice.is_valid(&config, at(1000), 1000) && !slice.is_valid(&config, at(-1), 1000));
    assert!(slice.covers(&amounts(&[("tpd", 500)])) && !slice.covers(&amounts(&[("tpd", 501)])));
    assert!(
        !slice.covers(&amounts(&[("tpd", 0)])),
        "whether the limit is in debt is not known"
    );
    assert!(!slice.covers(&amounts(&[("tpd", 1), ("rpd", 1)])));
    let stale = slice.filled(Vec::new(), &other, at(0));
    assert_eq!(stale, grants);
    assert!(slice.is_empty());
}

proptest! {
    /// Each token that is put in leaves a slice once, in any order of steps.
    #[test]
    fn tokens_are_neither_lost_nor_made(steps in prop::collection::vec((0..4_u8, 1..400_i64, 1..60_i64), 1..60)) {
        let mut desk = desk();
        let config = config(&mut desk);
        let now = EpochMillis(desk.now);
        let mut slice = Slice::default();
        let sum = |grants: &[Grant]| -> i128 {
            grants.iter().flat_map(|grant| &grant.amounts).map(|(_, amount)| amount.0).sum()
        };
        let (mut put, mut out) = (0, 0);
        let mut spent: Vec<Grant> = Vec::new();
        for (kind, tpd, rpd) in steps {
            let need = amounts(&[("tpd", tpd), ("rpd", rpd)]);
            match kind {
                0 => {
                    let Decision::Admitted(grants) = desk.acquire("k", &[("tpd", tpd), ("rpd", rpd)]) else { continue };
                    put += sum(&grants);
                    prop_assert!(slice.filled(grants, &config, now).is_empty());
                }
                1 | 2 => {
                    let before = sum(slice.pieces());
                    if slice.covers(&need) {
                        let grants = slice.spend(&need, now);
                        prop_assert_eq!(sum(&grants), i128::from(tpd + rpd) * 1000);
                        prop_assert_eq!(sum(slice.pieces()), before - sum(&grants));
                        out += sum(&grants);
                        spent = grants;
                    }
                }
                _ => {
                    out -= sum(&spent);
                    slice.put_back(std::mem::take(&mut spent));
                }
            }
            prop_assert_eq!(sum(slice.pieces()), put - out);
        }
        let left = slice.take_all();
        prop_assert_eq!(sum(&left), put - out);
        prop_assert!(slice.is_empty());
    }

    /// What was taken is divided without a rest, and not more than is wanted is given.
    #[test]
    fn grants_are_divided_exactly(taken in 1..900_i64, wanted in 0..1_000_i64) {
        let mut desk = desk();
        let grants = desk.admitted("k", &[("tpd", taken), ("rpd", 1)]);
        let (ours, rest) = split(grants, &amounts(&[("tpd", wanted)]));
        let of = |grants: &[Grant], limit: &str| -> i128 {
            let all = grants.iter().flat_map(|grant| &grant.amounts);
            all.filter(|(name, _)| name.as_str() == limit).map(|(_, amount)| amount.0).sum()
        };
        prop_assert_eq!(of(&ours, "tpd"), i128::from(wanted.min(taken)) * 1000);
        prop_assert_eq!(of(&ours, "tpd") + of(&rest, "tpd"), i128::from(taken) * 1000);
        prop_assert_eq!((of(&ours, "rpd"), of(&rest, "rpd")), (0, 1000));
    }
}

#[test]
fn a_limit_of_which_nothing_was_taken_stays_named_on_whatever_shard_it_was() {
    let mut desk = desk();
    let [grant] = desk.admitted("k", &[("tpd", 5)]).try_into().unwrap();
    let of = |shard: u32, named: &[(&str, i64)]| Grant {
        shard,
        amounts: amounts(named),
        ..grant.clone()
    };
    let grants = vec![of(0, &[("tpd", 5)]), of(1, &[("rpd", 0)]), of(2, &[("rpd", 0)])];
    let (ours, rest) = split(grants.clone(), &amounts(&[("tpd", 5), ("rpd", 0)]));
    // A lease could not be charged for it otherwise.
    assert_eq!(ours, grants[..2]);
    assert!(rest.is_empty());
}

#[test]
fn the_write_of_what_is_taken_ahead_is_an_ordinary_debit() {
    let mut desk = desk();
    let slices = for_child(ahead(3, &[("tpd", 100)]));
    acquire(&mut desk, &[("tpd", 100)], slices);
    let Some(Op::Update(update)) = desk.ops.last().cloned() else {
        panic!("{:?}", desk.ops)
    };
    assert!(update.set.is_empty() && update.remove.is_empty());
    let again = desk.table.call(&Op::Update(update));
    assert!(matches!(again, Ok(Answer::Applied(Some(_)))), "{again:?}");
    assert_eq!(desk.int("k", 0, "b_tpd_tc"), 801_000);
}

#[test]
fn what_is_held_is_not_taken_again() {
    let mut desk = desk();
    let slices = ForSlices {
        child: Some(Ahead {
            calls: 9,
            per_call: amounts(&[("rpd", 1), ("tpd", 100)]),
            held: amounts(&[("rpd", 7), ("tpd", 2_000)]),
        }),
        ..ForSlices::default()
    };
    let (decision, _) = acquire(&mut desk, &[("rpd", 1), ("tpd", 100)], slices);
    assert_eq!(
        taken(&decision),
        [("rpd".to_owned(), 3_000), ("tpd".to_owned(), 100_000)]
    );
}

#[test]
fn a_lease_gives_back_only_what_was_taken_under_the_same_limits_from_the_same_item() {
    let mut desk = desk();
    let need = amounts(&[("tpd", 100)]);
    let config = config(&mut desk);
    let mut slice = Slice::default();
    let grants = desk.admitted("k", &[("tpd", 100)]);
    for at in 0..3 {
        slice.note(&need);
        slice.fill(&need, EpochMillis(desk.now + at), 1000, 50);
        slice.filled(Vec::new(), &config, EpochMillis(desk.now + at));
    }
    slice.filled(grants.clone(), &config, EpochMillis(desk.now));
    let (limit, amount) = need[0].clone();
    assert!(slice.has_room(&grants[0], &limit, amount));
    assert!(
        !slice.has_room(&grants[0], &limit, Millitokens::from_tokens(301)),
        "for four calls"
    );
    let lowered = Arc::new(Resolved {
        limits: vec![day("rpd", 1000), day("tpd", 10)],
        ..(*config).clone()
    });
    slice.filled(grants.clone(), &lowered, EpochMillis(desk.now));
    assert!(!slice.has_room(&grants[0], &limit, Millitokens::from_tokens(1)));
    // The bucket was deleted and created again.
    slice.filled(grants.clone(), &config, EpochMillis(desk.now));
    let key = desk.id("k").key(0);
    desk.table.remove(&key);
    desk.remembers = false;
    let later = desk.admitted("k", &[("tpd", 100)]);
    assert!(!slice.has_room(&later[0], &limit, Millitokens::from_tokens(1)));
}
