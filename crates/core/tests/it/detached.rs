//! Leases that another process ends: once, however answers are lost and processes are killed.

use std::time::Duration;

use zae_limiter_core::acquire::Grant;
use zae_limiter_core::credit::Credit;
use zae_limiter_core::detached::record::{Due, LeaseRecord, due, found};
use zae_limiter_core::detached::{DetachedLease, LeaseEnd, OnExpiry, Settled, Settlement};
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::table::{Answer, Applied, Condition, FailureKind, Item, Op, Part, TableError};
use zae_limiter_core::{EntityId, EpochMillis, InvalidInput, Limit};

use crate::drive::{Desk, per_minute};
use crate::shapes::{daily, scheduled, session};

const MINUTE: Duration = Duration::from_mins(1);

/// A key below a project, both with 100 a minute of each limit.
fn desk() -> Desk {
    let mut desk = Desk::with(&[per_minute("rpm", 100), per_minute("tpm", 100)]);
    desk.entity("key", Some("project"), true);
    desk.entity("project", None, false);
    desk
}

fn detach(desk: &Desk, consume: &[(&str, u64)], grants: Vec<Grant>, on_expiry: OnExpiry) -> DetachedLease {
    let amounts = consume.iter().map(|(name, n)| (name.parse().unwrap(), *n));
    let taken = vec![(desk.resource.clone(), amounts.collect())];
    let owner = (desk.namespace.clone(), EntityId::new("key").unwrap());
    let id = format!("l{}", desk.dice.0).into();
    DetachedLease::new(
        id,
        owner,
        taken,
        grants,
        on_expiry,
        (MINUTE, EpochMillis(desk.now)),
    )
    .unwrap()
}

/// A lease of 10 requests and 40 tokens, as another process reads it, recorded if it has to be.
fn lease(desk: &mut Desk, on_expiry: OnExpiry) -> DetachedLease {
    let grants = desk.admitted("key", &[("rpm", 10), ("tpm", 40)]);
    let lease = detach(desk, &[("rpm", 10), ("tpm", 40)], grants, on_expiry);
    if let Some(put) = lease.record() {
        assert!(matches!(desk.table.call(&Op::Put(put)), Ok(Answer::Applied(_))));
    }
    DetachedLease::decode(&lease.encode()).unwrap()
}

fn used(lease: &DetachedLease, tokens: u64) -> LeaseEnd {
    lease.commit([(None, "tpm", tokens)]).unwrap()
}

/// Drives a settlement to its end. `None` if it was killed: `limit` is how many requests it may send.
fn drive(desk: &mut Desk, settlement: &mut Settlement, limit: usize) -> Option<Settled> {
    let mut sent = 0;
    let mut next = settlement.start(EpochMillis(desk.now), &mut desk.dice);
    while let Some(send) = next {
        if sent == limit {
            return None;
        }
        sent += 1;
        assert!(sent < 200, "no end");
        let answer = desk.call(&send.op);
        next = settlement.answer(answer, EpochMillis(desk.now), &mut desk.dice);
    }
    Some(settlement.outcome().cloned().expect("it has ended"))
}

fn settle(desk: &mut Desk, lease: &DetachedLease, end: LeaseEnd) -> Settled {
    let mut settlement = Settlement::new(lease.clone(), end, &mut desk.dice);
    drive(desk, &mut settlement, usize::MAX).unwrap()
}

fn balances(desk: &Desk) -> [i128; 4] {
    let balance = |entity, limit: &str| desk.int(entity, 0, &format!("b_{limit}_tk")) / 1000;
    [
        balance("key", "rpm"),
        balance("key", "tpm"),
        balance("project", "rpm"),
        balance("project", "tpm"),
    ]
}

fn record(desk: &Desk, lease: &DetachedLease) -> Option<Item> {
    desk.table.get(&lease.key()).cloned()
}

#[track_caller]
fn is_done(settled: &Settled, repeated: bool) {
    assert!(
        matches!(settled, Settled::Done { is_repeated, unread: None } if *is_repeated == repeated),
        "{settled:?}"
    );
}

#[test]
fn the_first_end_holds_and_can_be_repeated() {
    for on_expiry in [OnExpiry::Keep, OnExpiry::GiveBack] {
        let mut desk = desk();
        let lease = lease(&mut desk, on_expiry);
        assert_eq!(balances(&desk), [90, 60, 90, 60]);
        let end = used(&lease, 25);
        is_done(&settle(&mut desk, &lease, end.clone()), false);
        assert_eq!(balances(&desk), [90, 75, 90, 75]);
        is_done(&settle(&mut desk, &lease, end), true);
        for other in [LeaseEnd::Rollback, used(&lease, 24)] {
            let settled = settle(&mut desk, &lease, other);
            assert!(
                matches!(&settled, Settled::Other(end) if end == "commit"),
                "{settled:?}"
            );
        }
        // More than was taken: the rest is charged, and may be owed.
        let second = self::lease(&mut desk, on_expiry);
        is_done(&settle(&mut desk, &second, used(&second, 200)), false);
        assert_eq!(balances(&desk), [80, -125, 80, -125]);
        desk.now += 3_600_000;
        let third = self::lease(&mut desk, on_expiry);
        is_done(&settle(&mut desk, &third, LeaseEnd::Rollback), false);
        assert_eq!(balances(&desk), [100, 100, 100, 100]);
    }
}

#[test]
fn a_commit_without_corrections_is_an_end() {
    let mut desk = desk();
    let lease = lease(&mut desk, OnExpiry::Keep);
    assert_eq!(record(&desk, &lease), None, "nothing is written before the end");
    desk.ops.clear();
    is_done(&settle(&mut desk, &lease, used(&lease, 40)), false);
    assert_eq!(desk.ops.len(), 1);
    assert!(matches!(
        settle(&mut desk, &lease, LeaseEnd::Rollback),
        Settled::Other(_)
    ));
    assert_eq!(balances(&desk), [90, 60, 90, 60]);
}

/// If any request of a settlement is lost, before or after it has happened, and if it is killed after any: asked for again, or found
/// by a sweep, it comes to its end once.
#[test]
fn every_correction_happens_once() {
    let mut cases = 0;
    for on_expiry in [OnExpiry::Keep, OnExpiry::GiveBack] {
        for end in [
            |lease: &DetachedLease| used(lease, 25),
            |lease: &DetachedLease| used(lease, 90),
            |_: &DetachedLease| LeaseEnd::Rollback,
        ] {
            let mut expected = None;
            for killed_after in 0..8 {
                for lost in 0..16_usize {
                    let mut desk = desk();
                    let lease = lease(&mut desk, on_expiry);
                    let wanted = end(&lease);
                    desk.ops.clear();
                    // Bit 0: whether the loss is before it happens; the rest: which request is lost.
                    desk.meddle = Some(Box::new(move |at, op, table: &mut MemoryTable| {
                        let is_lost = lost / 2 == at && matches!(op, Op::Transact(_) | Op::Update(_));
                        is_lost.then(|| {
                            if lost % 2 == 1 {
                                let _ = table.call(op);
                            }
                            Err(TableError::new(FailureKind::Timeout, Applied::Unknown, "lost"))
                        })
                    }));
                    let mut first = Settlement::new(lease.clone(), wanted.clone(), &mut desk.dice);
                    drive(&mut desk, &mut first, killed_after);
                    desk.meddle = None;
                    let again = settle(&mut desk, &lease, wanted);
                    assert!(matches!(again, Settled::Done { .. }), "{again:?}");
                    let expected = *expected.get_or_insert(balances(&desk));
                    assert_eq!(
                        balances(&desk),
                        expected,
                        "killed after {killed_after}, lost {lost}"
                    );
                    let item = record(&desk, &lease).unwrap();
                    assert_eq!(found(&item, EpochMillis(desk.now)).unwrap(), Due::Complete);
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 2 * 3 * 8 * 16);
}

/// Two processes end a lease at the same time, in the same way or in different ways, step by step in every order.
#[test]
fn of_two_ends_at_the_same_time_one_holds() {
    for order in 0..64_u32 {
        for ends in 0..2 {
            let mut desk = desk();
            let lease = lease(&mut desk, OnExpiry::Keep);
            let second = if ends == 0 {
                used(&lease, 25)
            } else {
                LeaseEnd::Rollback
            };
            let now = EpochMillis(desk.now);
            let mut both =
                [used(&lease, 25), second].map(|end| Settlement::new(lease.clone(), end, &mut desk.dice));
            let mut next = both
                .each_mut()
                .map(|settlement| settlement.start(now, &mut desk.dice));
            for step in 0..40 {
                let turn = ((order >> (step % 6)) & 1) as usize;
                let turn = if next[turn].is_some() { turn } else { 1 - turn };
                let Some(send) = next[turn].take() else { break };
                let answer = desk.call(&send.op);
                next[turn] = both[turn].answer(answer, now, &mut desk.dice);
            }
            let outcomes = both.each_ref().map(|settlement| settlement.outcome().unwrap());
            let done = outcomes
                .iter()
                .filter(|outcome| matches!(outcome, Settled::Done { .. }));
            assert_eq!(done.count(), 2 - ends, "{outcomes:?}");
            let was_rolled_back = ends == 1 && matches!(outcomes[1], Settled::Done { .. });
            let expected = if was_rolled_back {
                [100; 4]
            } else {
                [90, 75, 90, 75]
            };
            assert_eq!(balances(&desk), expected, "order {order}, {outcomes:?}");
        }
    }
}

/// What a sweep of the slot of a lease finds up to `now`.
fn sweep(desk: &mut Desk, lease: &DetachedLease) -> Vec<Item> {
    let slot = lease.key().pk.rsplit_once('#').unwrap().1.parse().unwrap();
    match desk.table.call(&Op::Query(due(
        &desk.namespace,
        slot,
        None,
        EpochMillis(desk.now),
    ))) {
        Ok(Answer::Page { items, next: None }) => items,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_expired_lease_gives_back_or_keeps_as_it_says() {
    let mut desk = desk();
    let keeps = lease(&mut desk, OnExpiry::Keep);
    let gives = lease(&mut desk, OnExpiry::GiveBack);
    assert_eq!(sweep(&mut desk, &gives), []);
    desk.now = gives.expires_at().0;
    for lease in [&keeps, &gives] {
        // Too late: a sweep may be at work.
        for end in [LeaseEnd::Rollback, used(lease, 40)] {
            assert!(matches!(settle(&mut desk, lease, end), Settled::Over));
        }
    }
    assert_eq!(sweep(&mut desk, &keeps), []);
    let items = sweep(&mut desk, &gives);
    let Due::Unsettled(unsettled) = found(&items[0], EpochMillis(desk.now)).unwrap() else {
        panic!("{items:?}")
    };
    assert_eq!(*unsettled, (gives.clone(), LeaseRecord::Open(gives.expires_at())));
    let held = balances(&desk);
    is_done(&settle(&mut desk, &gives, LeaseEnd::Expired), false);
    // Two sweeps may find it.
    is_done(&settle(&mut desk, &gives, LeaseEnd::Expired), true);
    let after = balances(&desk);
    let back: Vec<_> = after.iter().zip(held).map(|(now, before)| now - before).collect();
    assert_eq!(back, [10, 40, 10, 40]);
    let settled = settle(&mut desk, &gives, LeaseEnd::Rollback);
    assert!(
        matches!(&settled, Settled::Other(end) if end == "expired"),
        "{settled:?}"
    );
}

#[test]
fn an_extended_lease_can_be_ended_until_then() {
    for on_expiry in [OnExpiry::Keep, OnExpiry::GiveBack] {
        let mut desk = desk();
        let lease = lease(&mut desk, on_expiry);
        let until = lease.expires_at().plus(60_000);
        let extend = |desk: &mut Desk| {
            let update = lease.extend(until, EpochMillis(desk.now));
            matches!(desk.table.call(&Op::Update(update)), Ok(Answer::Applied(_)))
        };
        assert!(extend(&mut desk));
        desk.now = until.0 - 1;
        assert!(matches!(
            settle(&mut desk, &lease, LeaseEnd::Expired),
            Settled::Over
        ));
        let items = sweep(&mut desk, &lease);
        assert_eq!(
            found(&items[0], EpochMillis(desk.now)).unwrap(),
            Due::Extended(until)
        );
        assert!(extend(&mut desk), "again");
        is_done(&settle(&mut desk, &lease, LeaseEnd::Rollback), false);
        assert!(!extend(&mut desk), "it has ended");
        assert_eq!(balances(&desk), [100; 4]);
        // A sweep finds what a killed process has left, and nothing else.
        let item = record(&desk, &lease).unwrap();
        assert_eq!(found(&item, EpochMillis(desk.now)).unwrap(), Due::Complete);
    }
}

/// A process was killed between the corrections of the key and of the project.
#[test]
fn a_sweep_goes_on_where_a_killed_process_has_ended() {
    let mut desk = desk();
    let lease = lease(&mut desk, OnExpiry::Keep);
    let mut killed = Settlement::new(lease.clone(), LeaseEnd::Rollback, &mut desk.dice);
    assert!(drive(&mut desk, &mut killed, 1).is_none());
    assert_eq!(balances(&desk), [100, 100, 90, 60]);
    desk.now = lease.expires_at().0;
    let items = sweep(&mut desk, &lease);
    let Due::Unsettled(unsettled) = found(&items[0], EpochMillis(desk.now)).unwrap() else {
        panic!("{items:?}")
    };
    let LeaseRecord::Ended(ended) = unsettled.1 else {
        panic!()
    };
    assert_eq!((ended.kind(), ended.is_complete()), ("rollback", false));
    let mut settlement = Settlement::resume(unsettled.0, ended, &mut desk.dice);
    is_done(&drive(&mut desk, &mut settlement, usize::MAX).unwrap(), true);
    assert_eq!(desk.int("project", 0, "b_rpm_tk"), 100_000);
}

/// It is not known whether the record was written: the lease is given back, once, and a record that arrives later is refused.
#[test]
fn a_lease_that_may_not_be_recorded_is_withdrawn() {
    for was_recorded in [false, true] {
        let mut desk = desk();
        let grants = desk.admitted("key", &[("rpm", 10)]);
        let lease = detach(&desk, &[("rpm", 10)], grants, OnExpiry::GiveBack);
        let put = Op::Put(lease.record().unwrap());
        if was_recorded {
            let _ = desk.table.call(&put);
        }
        let mut settlement = Settlement::withdraw(lease.clone(), &mut desk.dice);
        is_done(&drive(&mut desk, &mut settlement, usize::MAX).unwrap(), false);
        assert!(matches!(desk.table.call(&put), Ok(Answer::Refused(_))));
        assert_eq!(desk.int("key", 0, "b_rpm_tk"), 100_000);
        desk.now = lease.expires_at().0;
        assert!(matches!(
            settle(&mut desk, &lease, LeaseEnd::Expired),
            Settled::Other(_)
        ));
        assert_eq!(desk.int("key", 0, "b_rpm_tk"), 100_000);
    }
}

/// The text of a lease has all of an image that a correction depends on.
#[test]
fn a_correction_is_the_same_by_the_text_of_a_lease() {
    let limits: [Vec<Limit>; 5] = [
        vec![per_minute("rpm", 100)],
        vec![scheduled().build().unwrap(), per_minute("tpm", 50)],
        vec![daily().build().unwrap(), scheduled().build().unwrap()],
        vec![session().build().unwrap(), per_minute("rpm", 100)],
        vec![per_minute("tpm", 50), session().soft().build().unwrap()],
    ];
    for limits in limits {
        let mut desk = Desk::with(&limits);
        desk.now = crate::shapes::at("2027-03-10T12:00:00Z");
        let asked: Vec<_> = limits.iter().map(|limit| (limit.name().as_str(), 3)).collect();
        desk.admitted("key", &asked);
        let grants = desk.admitted("key", &asked);
        let taken: Vec<_> = asked.iter().map(|(name, n)| (*name, n.unsigned_abs())).collect();
        let lease = detach(&desk, &taken, grants.clone(), OnExpiry::Keep);
        let read = DetachedLease::decode(&lease.encode()).unwrap();
        assert_eq!(read.encode(), lease.encode());
        let (end, now) = (LeaseEnd::Rollback, EpochMillis(desk.now));
        let first = |lease: &DetachedLease| {
            Settlement::new(lease.clone(), end.clone(), &mut crate::drive::Dice(1))
                .start(now, &mut crate::drive::Dice(2))
        };
        assert_eq!(first(&read), first(&lease));
        // As a lease in its own process gives back, apart from the receipt.
        let Some(Op::Transact(parts)) = first(&read).map(|send| send.op) else {
            panic!()
        };
        let Part::Update(update) = &parts[0] else { panic!() };
        let all = grants[0].amounts.iter().map(|(name, n)| (name.to_smol(), *n));
        let mut credit = Credit::new(
            grants[0].id.clone(),
            0,
            all,
            grants[0].image.clone(),
            &mut crate::drive::Dice(3),
        );
        let Some(Op::Update(own)) = credit.start(now).map(|send| send.op) else {
            panic!()
        };
        let sorted = |condition: &Condition| {
            let Condition::All(parts) = condition else {
                panic!("{condition:?}")
            };
            let mut parts: Vec<_> = parts.iter().map(|part| format!("{part:?}")).collect();
            parts.sort();
            parts
        };
        assert_eq!(sorted(&update.condition), sorted(&own.condition));
    }
}

#[test]
fn texts_that_are_no_leases_are_refused() {
    let mut desk = desk();
    let lease = lease(&mut desk, OnExpiry::Keep);
    let text = lease.encode();
    for wrong in [
        "",
        "{}",
        "[1]",
        "null",
        &text[1..],
        &text.replace("\"v\":1", "\"v\":2"),
    ] {
        assert!(DetachedLease::decode(wrong).is_err(), "{wrong}");
    }
    // With any character missing.
    for at in 0..text.len() {
        if text.is_char_boundary(at) {
            let _ = DetachedLease::decode(&format!("{}{}", &text[..at], &text[(at + 1).min(text.len())..]));
        }
    }
}

#[test]
fn a_commit_names_limits_of_the_lease() {
    let mut desk = desk();
    let lease = lease(&mut desk, OnExpiry::Keep);
    let refused = |actual: &[(Option<&str>, &str, u64)]| -> InvalidInput {
        lease.commit(actual.iter().copied()).unwrap_err()
    };
    assert_eq!(refused(&[(None, "cents", 1)]).field(), "actual.cents");
    assert!(
        refused(&[(None, "cents", 1)])
            .reason()
            .contains("gpt-4 rpm, gpt-4 tpm")
    );
    assert_eq!(refused(&[(Some("other"), "tpm", 1)]).field(), "actual.other.tpm");
    assert_eq!(
        refused(&[(None, "tpm", 1), (Some("gpt-4"), "tpm", 2)]).reason(),
        "is given twice"
    );
    assert_eq!(
        refused(&[(None, "tpm", 1_000_000_000_000_001)]).field(),
        "actual.tpm"
    );
    assert_eq!(
        lease.commit([]).unwrap(),
        LeaseEnd::Commit(std::collections::BTreeMap::new())
    );
}

/// A bucket that was deleted and created again owes nothing, and the lease ends.
#[test]
fn what_is_gone_owes_nothing() {
    let mut desk = desk();
    let lease = lease(&mut desk, OnExpiry::GiveBack);
    let key = desk.id("key").key(0);
    desk.table.remove(&key);
    desk.forget();
    desk.admitted("key", &[("rpm", 1), ("tpm", 1)]);
    is_done(&settle(&mut desk, &lease, LeaseEnd::Rollback), false);
    assert_eq!(balances(&desk), [99, 99, 99, 99]);
}
