//! A batch of debits that carries a correction of its shard.

use std::sync::Arc;

use zae_limiter_core::acquire::{Acquire, Ask, Batch, Debit, Grant, Group};
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::credit::{Credit, CreditEnd};
use zae_limiter_core::table::{Answer, Applied, FailureKind, TableError};
use zae_limiter_core::{EntityId, EpochMillis, Limit, Millitokens};

use crate::drive::Desk;

fn day(name: &str, tokens: u64) -> Limit {
    Limit::per_day(name, tokens).build().unwrap()
}

/// A bucket with 1,000 `tpd`, of which a lease holds 600.
fn lease() -> (Desk, Grant) {
    let mut desk = Desk::with(&[day("tpd", 1000)]);
    desk.remembers = true;
    let grant = desk.admitted("k", &[("tpd", 600)]).remove(0);
    (desk, grant)
}

/// Gives back (positive) or charges `tokens` of `tpd`.
fn credit(desk: &mut Desk, grant: &Grant, tokens: i64) -> Credit {
    let deltas = [("tpd".into(), Millitokens::from_tokens(tokens))];
    Credit::new(
        grant.id.clone(),
        0,
        deltas,
        Arc::clone(&grant.image),
        &mut desk.dice,
    )
}

fn latest(desk: &Desk) -> Arc<Bucket> {
    Arc::new(Bucket::decode(desk.item("k", 0)).unwrap())
}

/// A batch with the debit of one request.
fn batch(desk: &mut Desk, amounts: &[(&str, i64)]) -> Batch<()> {
    let mut acquire = Acquire::new(desk.request("k", amounts));
    let mut found = desk.config(&EntityId::new("k").unwrap(), false).unwrap();
    found.hint.images = vec![(0, latest(desk))];
    let now = EpochMillis(desk.now);
    let calls = acquire.start(&|_, _| Some(found.clone()), now, &mut desk.dice);
    let debit: Debit = match calls.into_iter().next().map(|call| call.ask) {
        Some(Ask::Debit(debit)) => *debit,
        other => panic!("{other:?}"),
    };
    let mut group = Group::default();
    group.push(debit, ());
    group.next(Some(&latest(desk)), now).unwrap()
}

/// What one write of both leaves: the balance and the counter of `tpd`. `None` if one write cannot do both.
fn joined(desk: &mut Desk, taken: i64, credit: &mut Credit) -> Option<(i128, i128)> {
    let now = EpochMillis(desk.now);
    let mut batch = batch(desk, &[("tpd", taken)]);
    if !batch.carry(&credit.rider(now).unwrap(), now) {
        return None;
    }
    let answer = desk.call(batch.op());
    assert!(credit.answer(answer, now, &mut desk.dice).is_none());
    assert!(matches!(credit.end(), Some(CreditEnd::Applied)), "{credit:?}");
    Some((desk.int("k", 0, "b_tpd_tk"), desk.int("k", 0, "b_tpd_tc")))
}

#[test]
fn one_write_takes_and_gives_back() {
    let (mut desk, grant) = lease();
    let mut back = credit(&mut desk, &grant, 350);
    assert_eq!(joined(&mut desk, 100, &mut back), Some((650_000, 350_000)));
    // As much is taken as is given back: the balance stays, and the mark is left.
    let (mut desk, grant) = lease();
    let mut back = credit(&mut desk, &grant, 100);
    assert_eq!(joined(&mut desk, 100, &mut back), Some((400_000, 600_000)));
}

#[test]
fn a_charge_may_go_into_debt_but_the_debit_may_not() {
    let (mut desk, grant) = lease();
    let mut charge = credit(&mut desk, &grant, -500);
    assert_eq!(joined(&mut desk, 100, &mut charge), Some((-200_000, 1_200_000)));
    // What is given back does not count for the debit: no image covers it, so nothing is sent together.
    let (mut desk, grant) = lease();
    let back = credit(&mut desk, &grant, 500);
    let now = EpochMillis(desk.now);
    let seen = latest(&desk);
    let mut batch = batch(&mut desk, &[("tpd", 300)]);
    assert!(batch.carry(&back.rider(now).unwrap(), now));
    // Another process takes most of it in between.
    desk.remembers = false;
    desk.admitted("k", &[("tpd", 200)]);
    let answer = desk.call(batch.op());
    assert!(matches!(answer, Ok(Answer::Refused(Some(_)))), "{answer:?}");
    assert_eq!(desk.int("k", 0, "b_tpd_tk"), 200_000);
    assert_eq!(seen.limits[0].balance, Millitokens::from_tokens(400));
}

#[test]
fn a_refill_that_fills_the_bucket_carries_only_what_fits_beside_the_debit() {
    for (taken, given, fits) in [
        (600, 600, true),
        (599, 600, false),
        (1, 600, false),
        (1, -600, true),
    ] {
        let (mut desk, grant) = lease();
        desk.now += 2 * 86_400_000;
        let mut correction = credit(&mut desk, &grant, given);
        let left = joined(&mut desk, taken, &mut correction);
        let expected = (1_000 - taken + given) * 1000;
        assert_eq!(
            left.map(|(balance, _)| balance),
            fits.then_some(expected.into()),
            "{taken}, {given}"
        );
        assert!(left.is_none_or(|(balance, _)| balance <= 1_000_000));
    }
}

#[test]
fn a_lost_answer_is_made_good_whether_the_write_happened_or_not() {
    for happens in [true, false] {
        let (mut desk, grant) = lease();
        let mut back = credit(&mut desk, &grant, 350);
        let now = EpochMillis(desk.now);
        let mut batch = batch(&mut desk, &[("tpd", 100)]);
        assert!(batch.carry(&back.rider(now).unwrap(), now));
        if happens {
            desk.call(batch.op()).unwrap();
        }
        let lost = TableError::new(FailureKind::Timeout, Applied::Unknown, "no answer");
        let mut next = back.answer(Err(lost), now, &mut desk.dice);
        assert!(back.rider(now).is_none(), "a repetition goes alone");
        while let Some(send) = next {
            let answer = desk.call(&send.op);
            next = back.answer(answer, now, &mut desk.dice);
        }
        assert!(matches!(back.end(), Some(CreditEnd::Applied)));
        let left = if happens { 650_000 } else { 750_000 };
        assert_eq!(desk.int("k", 0, "b_tpd_tk"), left);
        if !happens {
            // It arrives late: the repetition has changed the fence.
            assert!(matches!(desk.call(batch.op()), Ok(Answer::Refused(_))));
            assert_eq!(desk.int("k", 0, "b_tpd_tk"), left);
        }
    }
}

#[test]
fn a_condition_that_would_be_too_long_carries_nothing() {
    let limits: Vec<Limit> = (0..24).map(|i| day(&format!("l{i}"), 1000)).collect();
    let mut desk = Desk::with(&limits);
    desk.remembers = true;
    let names: Vec<String> = (0..24).map(|i| format!("l{i}")).collect();
    let all: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 10)).collect();
    let grant = desk.admitted("k", &all).remove(0);
    let deltas = names
        .iter()
        .map(|name| (name.as_str().into(), Millitokens::from_tokens(5)));
    let back = Credit::new(
        grant.id.clone(),
        0,
        deltas,
        Arc::clone(&grant.image),
        &mut desk.dice,
    );
    let now = EpochMillis(desk.now);
    let rider = back.rider(now).unwrap();
    let mut of_all = batch(&mut desk, &all);
    let alone = of_all.op().clone();
    assert!(!of_all.carry(&rider, now));
    assert_eq!(of_all.op(), &alone);
    let mut of_one = batch(&mut desk, &all[..1]);
    assert!(of_one.carry(&rider, now), "a short one does");
}

#[test]
fn another_shard_is_not_corrected() {
    let (mut desk, grant) = lease();
    let now = EpochMillis(desk.now);
    let deltas = [("tpd".into(), Millitokens::from_tokens(5))];
    let other = Credit::new(
        grant.id.clone(),
        1,
        deltas,
        Arc::clone(&grant.image),
        &mut desk.dice,
    );
    let mut batch = batch(&mut desk, &[("tpd", 1)]);
    assert!(!batch.carry(&other.rider(now).unwrap(), now));
}
