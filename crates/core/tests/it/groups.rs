//! Group commit: which debits one write carries, and what each of them hears.

use std::sync::Arc;

use zae_limiter_core::acquire::{Acquire, Ask, Batch, Debit, Group, Outcome, Reply};
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError};
use zae_limiter_core::{EntityId, EpochMillis, Limit};

use crate::drive::Desk;

fn day(name: &str, tokens: u64) -> Limit {
    Limit::per_day(name, tokens).build().unwrap()
}

/// A bucket with 100 `rpd` and 1,000 `tpd`, as full as it is after a request of one.
fn desk() -> Desk {
    let mut desk = Desk::with(&[day("rpd", 100), day("tpd", 1000)]);
    desk.remembers = true;
    desk.admitted("k", &[("rpd", 1), ("tpd", 1)]);
    desk
}

/// The first debit of a request, as it would be sent now.
fn debit(desk: &mut Desk, amounts: &[(&str, i64)]) -> Debit {
    let mut acquire = Acquire::new(desk.request("k", amounts));
    let found = desk.config(&EntityId::new("k").unwrap(), false).unwrap();
    let now = EpochMillis(desk.now);
    let calls = acquire.start(&|_, _| Some(found.clone()), now, &mut desk.dice);
    match calls.into_iter().next().map(|call| call.ask) {
        Some(Ask::Debit(debit)) => *debit,
        other => panic!("{other:?}"),
    }
}

fn latest(desk: &Desk) -> Arc<Bucket> {
    Arc::new(Bucket::decode(desk.item("k", 0)).unwrap())
}

/// Puts requests into a group and takes the first batch out, with the numbers of those that it carries.
fn batch(desk: &mut Desk, requests: &[&[(&str, i64)]]) -> (Group<usize>, Batch<usize>, Vec<usize>) {
    let mut group = Group::default();
    for (number, amounts) in requests.iter().enumerate() {
        group.push(debit(desk, amounts), number);
    }
    let latest = latest(desk);
    let batch = group.next(Some(&latest), EpochMillis(desk.now)).unwrap();
    let carried = batch.members().map(|(_, number)| *number).collect();
    (group, batch, carried)
}

fn send(desk: &mut Desk, group: &mut Group<usize>, batch: Batch<usize>) -> Vec<(usize, Option<Outcome>)> {
    let op = batch.op().clone();
    let answer = desk.call(&op);
    let replies = group.answer(batch, &answer);
    let outcome = |reply| match reply {
        Reply::Debited(outcome, _) => Some(outcome),
        _ => None,
    };
    replies
        .into_iter()
        .map(|(_, number, reply)| (number, outcome(reply)))
        .collect()
}

#[test]
fn one_write_takes_for_all_that_fit_and_leaves_out_the_others() {
    let mut desk = desk();
    let requests: [&[(&str, i64)]; 5] = [
        &[("rpd", 50), ("tpd", 10)],
        &[("rpd", 60)],
        &[("tpd", 900)],
        &[("rpd", 49)],
        &[("rpd", 1)],
    ];
    let (mut group, batch, carried) = batch(&mut desk, &requests);
    assert_eq!(carried, [0, 2, 3], "99 rpd and 999 tpd are left");
    assert_eq!(group.len(), 2, "they wait for the answer");
    let heard = send(&mut desk, &mut group, batch);
    let (taken, left_out) = (Some(Outcome::Taken), Some(Outcome::LeftOut));
    assert_eq!(
        heard,
        [(0, taken), (2, taken), (3, taken), (1, left_out), (4, left_out)]
    );
    assert_eq!(
        (desk.int("k", 0, "b_rpd_tk"), desk.int("k", 0, "b_tpd_tk")),
        (0, 89_000)
    );
    assert_eq!(
        (desk.int("k", 0, "b_rpd_tc"), desk.int("k", 0, "b_tpd_tc")),
        (100_000, 911_000)
    );
}

/// The write goes by the configuration of the last, which does not name a quota any more.
#[test]
fn a_write_takes_of_limits_that_only_some_requests_know() {
    let quota = Limit::quota("rpm", 50)
        .resets("0 * * * *", "UTC")
        .build()
        .unwrap();
    let both = [day("rpd", 100), quota];
    let mut desk = Desk::with(&both);
    desk.admitted("k", &[("rpd", 1), ("rpm", 10)]);
    let image = latest(&desk);
    // Over the reset.
    desk.now += 1_800_000;
    let mut group = Group::default();
    group.push(debit_after(&mut desk, &image, &[("rpd", 1), ("rpm", 1)]), 0);
    desk.configure_resource(&both[..1]);
    group.push(debit_after(&mut desk, &image, &[("rpd", 1)]), 1);
    let batch = group.next(Some(&image), EpochMillis(desk.now)).unwrap();
    assert_eq!(batch.members().count(), 2);
    let heard = send(&mut desk, &mut group, batch);
    assert_eq!(heard, [(0, Some(Outcome::Taken)), (1, Some(Outcome::Taken))]);
    assert_eq!(desk.int("k", 0, "b_rpm_tk"), 49_000);
}

#[test]
fn a_write_that_is_refused_takes_for_none() {
    let mut desk = desk();
    let requests: [&[(&str, i64)]; 2] = [&[("rpd", 50)], &[("rpd", 49)]];
    let (mut group, batch, carried) = batch(&mut desk, &requests);
    assert_eq!(carried, [0, 1]);
    // Another process was faster.
    desk.remembers = false;
    desk.admitted("k", &[("rpd", 1)]);
    let heard = send(&mut desk, &mut group, batch);
    assert_eq!(heard, [(0, Some(Outcome::Refused)), (1, Some(Outcome::Refused))]);
    assert_eq!(desk.int("k", 0, "b_rpd_tk"), 98_000);
}

#[test]
fn what_no_image_covers_is_sent_alone() {
    let mut desk = desk();
    // What is left was not seen yet.
    let full = latest(&desk);
    desk.admitted("k", &[("rpd", 99)]);
    let empty = latest(&desk);
    desk.poke(
        "k",
        0,
        &[("b_rpd_tk", zae_limiter_core::table::Value::int(50_000))],
    );
    let mut group = Group::default();
    for number in 0..3 {
        group.push(debit_after(&mut desk, &full, &[("rpd", 10)]), number);
    }
    let batch = group.next(Some(&empty), EpochMillis(desk.now)).unwrap();
    assert_eq!(
        batch.members().map(|(_, number)| *number).collect::<Vec<_>>(),
        [0]
    );
    let heard = send(&mut desk, &mut group, batch);
    let left_out = Some(Outcome::LeftOut);
    assert_eq!(heard, [(0, Some(Outcome::Taken)), (1, left_out), (2, left_out)]);
}

/// A debit by a caller that has seen this image.
fn debit_after(desk: &mut Desk, image: &Arc<Bucket>, amounts: &[(&str, i64)]) -> Debit {
    let mut acquire = Acquire::new(desk.request("k", amounts));
    let mut found = desk.config(&EntityId::new("k").unwrap(), false).unwrap();
    found.hint.images = vec![(0, Arc::clone(image))];
    let calls = acquire.start(&|_, _| Some(found.clone()), EpochMillis(desk.now), &mut desk.dice);
    match calls.into_iter().next().map(|call| call.ask) {
        Some(Ask::Debit(debit)) => *debit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refill_that_is_due_is_made_for_all() {
    let mut desk = desk();
    desk.admitted("k", &[("rpd", 99)]);
    // A quarter of a day earns 25.
    desk.now += 6 * 3_600_000;
    let requests: [&[(&str, i64)]; 3] = [&[("rpd", 20)], &[("tpd", 100)], &[("rpd", 5)]];
    let (mut group, batch, carried) = batch(&mut desk, &requests);
    assert_eq!(carried, [0, 1, 2]);
    let taken = Some(Outcome::Taken);
    assert_eq!(
        send(&mut desk, &mut group, batch),
        [(0, taken), (1, taken), (2, taken)]
    );
    assert_eq!(desk.int("k", 0, "b_rpd_tk"), 0);
    assert_eq!(desk.int("k", 0, "rf"), i128::from(desk.now));
}

#[test]
fn debits_under_other_parameters_wait_for_a_write_of_their_own() {
    let mut desk = desk();
    let before = debit(&mut desk, &[("rpd", 1)]);
    desk.configure_resource(&[day("rpd", 200), day("tpd", 1000)]);
    let after = debit(&mut desk, &[("rpd", 1)]);
    let mut group = Group::default();
    group.push(before, 0);
    group.push(after, 1);
    let now = EpochMillis(desk.now);
    let first = group.next(None, now).unwrap();
    let second = group.next(None, now).unwrap();
    let carried = |batch: &Batch<usize>| batch.members().map(|(_, number)| *number).collect::<Vec<_>>();
    assert_eq!((carried(&first), carried(&second)), (vec![0], vec![1]));
    assert!(group.next(None, now).is_none());
}

#[test]
fn a_write_names_as_many_limits_as_a_level_may_have() {
    let names: Vec<String> = (0..24).map(|n| format!("l{n:02}")).collect();
    let limits: Vec<Limit> = names.iter().map(|name| day(name, 10)).collect();
    let mut desk = Desk::with(&limits);
    desk.remembers = true;
    let all: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    desk.admitted("k", &all);
    let (mut group, batch, carried) = batch(&mut desk, &[&all, &all[..3], &all]);
    assert_eq!(carried, [0, 1, 2]);
    let taken = Some(Outcome::Taken);
    assert_eq!(
        send(&mut desk, &mut group, batch),
        [(0, taken), (1, taken), (2, taken)]
    );
}

#[test]
fn a_debit_that_is_put_off_leads_the_next_write() {
    let mut desk = desk();
    desk.configure_resource(&[day("rpd", 100), day("tpd", 1000), day("new", 5)]);
    // The item does not have the limit yet.
    let mut group = Group::default();
    let new = debit(&mut desk, &[("new", 1)]);
    group.push(debit(&mut desk, &[("rpd", 1)]), 0);
    group.push(new, 1);
    let (image, now) = (latest(&desk), EpochMillis(desk.now));
    let carried = |batch: &Batch<usize>| batch.members().map(|(_, number)| *number).collect::<Vec<_>>();
    let first = group.next(Some(&image), now).unwrap();
    assert_eq!(carried(&first), [0]);
    group.push(debit(&mut desk, &[("rpd", 1)]), 2);
    let second = group.next(Some(&image), now).unwrap();
    assert_eq!(carried(&second)[0], 1);
}

#[test]
fn what_was_left_out_waits_for_another_write_too() {
    let mut desk = desk();
    let requests: [&[(&str, i64)]; 2] = [&[("rpd", 90)], &[("rpd", 50)]];
    let (mut group, stuck, carried) = batch(&mut desk, &requests);
    assert_eq!(carried, [0]);
    // The first write makes no progress, and another process has given tokens back.
    desk.poke(
        "k",
        0,
        &[("b_rpd_tk", zae_limiter_core::table::Value::int(60_000))],
    );
    let next = group.next(Some(&latest(&desk)), EpochMillis(desk.now)).unwrap();
    assert_eq!(next.members().map(|(_, number)| *number).collect::<Vec<_>>(), [1]);
    assert_eq!(send(&mut desk, &mut group, next), [(1, Some(Outcome::Taken))]);
    assert_eq!(send(&mut desk, &mut group, stuck), [(0, Some(Outcome::Refused))]);
}

#[test]
fn an_unknown_outcome_is_that_of_those_that_were_sent() {
    let mut desk = desk();
    let requests: [&[(&str, i64)]; 3] = [&[("rpd", 90)], &[("rpd", 50)], &[("tpd", 1)]];
    let (mut group, batch, carried) = batch(&mut desk, &requests);
    assert_eq!(carried, [0, 2]);
    let lost = TableError::new(FailureKind::Timeout, Applied::Unknown, "lost");
    let replies = group.answer(batch, &Err(lost));
    assert_eq!(replies.len(), 2);
    for (_, number, reply) in &replies {
        let is_unknown = matches!(reply, Reply::Table(Err(err)) if err.applied == Applied::Unknown);
        assert!(is_unknown && *number != 1, "{number}: {reply:?}");
    }
    let next = group.next(None, EpochMillis(desk.now)).unwrap();
    assert_eq!(next.members().map(|(_, number)| *number).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_debit_that_is_taken_back_is_in_no_write() {
    let mut desk = desk();
    let mut group = Group::default();
    for number in 0..4 {
        group.push(debit(&mut desk, &[("rpd", 1)]), number);
    }
    assert!(group.withdraw(|number| *number == 2).is_some());
    assert!(group.withdraw(|number| *number == 2).is_none());
    group.retain(|number| *number != 0);
    let batch = group.next(None, EpochMillis(desk.now)).unwrap();
    assert_eq!(
        batch.members().map(|(_, number)| *number).collect::<Vec<_>>(),
        [1, 3]
    );
    let Op::Update(update) = batch.op() else { panic!() };
    assert!(update.add.contains(&("b_rpd_tk".into(), -2000)));
    let answer = Ok(Answer::Refused(None));
    let replies = group.answer(batch, &answer);
    let is_missing = |reply: &Reply| matches!(reply, Reply::Table(Ok(Answer::Refused(None))));
    assert!(replies.iter().all(|(_, _, reply)| is_missing(reply)));
}

/// Another client takes one token before each write, as a caller does that sends its debit by itself. If each batch asked for all that
/// the last image shows, none would ever be accepted.
#[test]
fn a_batch_that_was_too_large_is_halved() {
    let mut desk = desk();
    let mut group = Group::default();
    for number in 0..99 {
        let debit = debit(&mut desk, &[("rpd", 1)]);
        group.push(debit, number);
    }
    let mut taken = 0;
    for writes in 1.. {
        assert!(writes <= 16, "{taken} were admitted");
        let seen = latest(&desk);
        let left = desk.int("k", 0, "b_rpd_tk");
        if left == 0 {
            break;
        }
        desk.poke(
            "k",
            0,
            &[("b_rpd_tk", zae_limiter_core::table::Value::int(left - 1000))],
        );
        let Some(batch) = group.next(Some(&seen), EpochMillis(desk.now)) else {
            break;
        };
        for (number, outcome) in send(&mut desk, &mut group, batch) {
            match outcome {
                Some(Outcome::Taken) => taken += 1,
                // It asks again.
                Some(Outcome::Refused) => {
                    let debit = debit(&mut desk, &[("rpd", 1)]);
                    group.push(debit, number);
                }
                _ => {}
            }
        }
    }
    assert!(taken >= 85, "{taken}");
}
