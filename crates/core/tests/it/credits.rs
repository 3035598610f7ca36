//! Refunds and charges happen once, whatever becomes of their answers.

use proptest::prelude::*;
use zae_limiter_core::acquire::{Acquire, Ask, Decision, Grant, Reply};
use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError, Value};
use zae_limiter_core::{Bucket, EpochMillis};

use crate::drive::{Desk, per_minute};

fn lost() -> TableError {
    TableError::new(FailureKind::Timeout, Applied::Unknown, "no answer")
}

/// A bucket with 100 tokens of which a lease holds 60.
fn lease() -> (Desk, Grant) {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    let grant = desk.admitted("u", &[("rpm", 60)]).remove(0);
    (desk, grant)
}

#[test]
fn a_refund_costs_one_write() {
    let (mut desk, grant) = lease();
    assert!(matches!(desk.credit(&grant, &[("rpm", 60)]), CreditEnd::Applied));
    assert_eq!(desk.ops.len(), 1);
    assert_eq!(
        (desk.int("u", 0, "b_rpm_tk"), desk.int("u", 0, "b_rpm_tc")),
        (100_000, 0)
    );
    assert!(matches!(desk.credit(&grant, &[("rpm", 0)]), CreditEnd::Applied));
    assert!(desk.ops.is_empty(), "nothing to do costs nothing");
}

#[test]
fn a_charge_may_go_into_debt() {
    let (mut desk, grant) = lease();
    assert!(matches!(desk.credit(&grant, &[("rpm", -70)]), CreditEnd::Applied));
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), -30_000);
    let why = desk.rejected("u", &[("rpm", 1)]);
    assert_eq!(why.retry_after().unwrap().as_millis(), 18_600);
}

#[test]
fn above_the_ceiling_a_refund_waits_for_a_pass_that_cuts_it() {
    let (mut desk, grant) = lease();
    desk.now += 60_000;
    desk.admitted("u", &[("rpm", 50)]);
    let grant = Grant { ..grant };
    assert!(matches!(desk.credit(&grant, &[("rpm", 60)]), CreditEnd::Applied));
    assert_eq!(
        desk.item("u", 0).get("vu"),
        Some(&Value::int(0)).filter(|_| desk.int("u", 0, "b_rpm_tk") > 100_000)
    );
    desk.admitted("u", &[("rpm", 1)]);
    assert!(desk.int("u", 0, "b_rpm_tk") <= 99_000);
    assert!(!desk.item("u", 0).contains_key("vu"));
}

#[test]
fn a_refund_to_a_bucket_that_is_gone_creates_nothing() {
    let (mut desk, grant) = lease();
    let key = desk.id("u").key(0);
    desk.table.remove(&key);
    assert!(matches!(desk.credit(&grant, &[("rpm", 60)]), CreditEnd::Gone));
    assert!(desk.table.get(&key).is_none());
    let (mut desk, grant) = lease();
    assert!(
        matches!(desk.credit(&grant, &[("tpm", 60)]), CreditEnd::Gone),
        "nor a limit"
    );
    assert!(!desk.item("u", 0).contains_key("b_tpm_tk"));
}

/// The bucket was deleted, or had expired, and was created again: what was taken from the first is not owed by the
/// second.
#[test]
fn what_was_taken_from_a_former_bucket_is_not_corrected_on_a_later_one() {
    for (deltas, owner) in [(60, None), (-500, None), (60, Some("p")), (-500, Some("p"))] {
        let mut desk = Desk::with(&[per_minute("rpm", 100)]);
        if let Some(parent) = owner {
            desk.entity("u", Some(parent), false);
        }
        let grant = desk.admitted("u", &[("rpm", 60)]).remove(0);
        desk.table.remove(&desk.id("u").key(0));
        desk.now += 1000;
        desk.admitted("u", &[("rpm", 100)]);
        assert!(matches!(desk.credit(&grant, &[("rpm", deltas)]), CreditEnd::Gone));
        let (left, counted) = (desk.int("u", 0, "b_rpm_tk"), desk.int("u", 0, "b_rpm_tc"));
        assert_eq!((left, counted), (0, 100_000), "{deltas} under {owner:?}");
        assert_eq!(desk.ops.len(), 1);
    }
}

/// Other clients leave no mark when they create an item; the entity's incarnation tells.
#[test]
fn buckets_of_other_clients_are_told_apart_by_the_incarnation() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.entity("u", None, false);
    desk.admitted("u", &[("rpm", 1)]);
    let strip = |desk: &mut Desk| {
        let mut item = desk.item("u", 0).clone();
        item.remove("cf");
        desk.table.insert(item).unwrap();
    };
    strip(&mut desk);
    let grant = desk.admitted("u", &[("rpm", 60)]).remove(0);
    assert!(matches!(desk.credit(&grant, &[("rpm", 10)]), CreditEnd::Applied));
    desk.table.remove(&desk.id("u").key(0));
    desk.entity_of("u", None, false, (9, "another life"));
    desk.forget();
    desk.admitted("u", &[("rpm", 100)]);
    strip(&mut desk);
    assert!(matches!(desk.credit(&grant, &[("rpm", 50)]), CreditEnd::Gone));
    assert!(matches!(desk.credit(&grant, &[("rpm", -50)]), CreditEnd::Gone));
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), 0);
}

/// The entity was created after its bucket, or moved to another parent: the bucket is the same.
#[test]
fn a_refund_is_not_lost_because_the_bucket_was_stamped() {
    for is_ours in [true, false] {
        let mut desk = Desk::with(&[per_minute("rpm", 100)]);
        desk.admitted("u", &[("rpm", 1)]);
        if !is_ours {
            let mut item = desk.item("u", 0).clone();
            item.remove("cf");
            desk.table.insert(item).unwrap();
        }
        let grant = desk.admitted("u", &[("rpm", 60)]).remove(0);
        let stamp = [
            ("pgen", Value::int(7)),
            ("pinc", Value::text("80729c5437a39750")),
            ("parent_id", Value::text("p")),
        ];
        desk.poke("u", 0, &stamp);
        assert!(matches!(desk.credit(&grant, &[("rpm", 20)]), CreditEnd::Applied));
        desk.poke(
            "u",
            0,
            &[("pgen", Value::int(8)), ("parent_id", Value::text("q"))],
        );
        assert!(matches!(desk.credit(&grant, &[("rpm", 40)]), CreditEnd::Applied));
        assert_eq!(desk.int("u", 0, "b_rpm_tc"), 1000);
        // With too little consumption for what is given back, it is another bucket.
        let end = desk.credit(&grant, &[("rpm", 2)]);
        assert!(matches!(end, CreditEnd::Applied) == is_ours, "{end:?}");
    }
}

/// Others repeat credits, which changes the fence, but not the life.
#[test]
fn a_refund_follows_the_fence_of_its_item() {
    let (mut desk, grant) = lease();
    desk.meddle = Some(Box::new(|call, _, _| (call == 0).then(|| Err(lost()))));
    assert!(matches!(desk.credit(&grant, &[("rpm", 20)]), CreditEnd::Applied));
    desk.meddle = None;
    assert!(matches!(desk.credit(&grant, &[("rpm", 40)]), CreditEnd::Applied));
    assert_eq!(desk.ops.len(), 2, "refused by the fence, and sent again");
    assert_eq!(desk.int("u", 0, "b_rpm_tc"), 0);
}

/// Another program's values where the marks should be.
#[test]
fn marks_of_any_type_do_not_stop_a_refund() {
    for mark in [Value::int(5), Value::Bool(true), Value::Null, Value::text("")] {
        for attrs in [["cf"].as_slice(), &["cr"], &["cf", "cr"]] {
            for loses in [false, true] {
                let (mut desk, _) = lease();
                let marks: Vec<_> = attrs.iter().map(|attr| (*attr, mark.clone())).collect();
                desk.poke("u", 0, &marks);
                let grant = desk.admitted("u", &[("rpm", 10)]).remove(0);
                if loses {
                    desk.meddle = Some(Box::new(|call, op, table| {
                        (call == 0).then(|| {
                            table.call(op).unwrap();
                            Err(lost())
                        })
                    }));
                }
                let end = desk.credit(&grant, &[("rpm", 10)]);
                assert!(matches!(end, CreditEnd::Applied), "{mark:?} {attrs:?}: {end:?}");
                assert_eq!(desk.int("u", 0, "b_rpm_tc"), 60_000, "{mark:?} {attrs:?}");
            }
        }
    }
}

/// Binary values and sets of numbers cannot be compared: the refund is sent, and not repeated.
#[test]
fn a_mark_that_cannot_be_compared_does_not_stop_a_refund() {
    for attr in ["cf", "cr"] {
        let (mut desk, grant) = lease();
        let mut item = desk.item("u", 0).clone();
        item.insert(attr.into(), Value::Other);
        let image = Bucket::decode(&item).unwrap().into();
        desk.poke("u", 0, &[(attr, Value::text("what stands for it"))]);
        let grant = Grant { image, ..grant };
        assert!(matches!(desk.credit(&grant, &[("rpm", 10)]), CreditEnd::Applied));
        assert_eq!(desk.ops.len(), 1);
        desk.meddle = Some(Box::new(|_, _, _| Some(Err(lost()))));
        assert!(matches!(
            desk.credit(&grant, &[("rpm", 10)]),
            CreditEnd::InDoubt(_)
        ));
        assert_eq!(desk.ops.len(), 1);
    }
}

#[test]
fn a_lost_answer_is_found_again_by_its_mark() {
    let (mut desk, grant) = lease();
    desk.meddle = Some(Box::new(|call, op, table| {
        (call == 0).then(|| {
            table.call(op).unwrap();
            Err(lost())
        })
    }));
    assert!(matches!(desk.credit(&grant, &[("rpm", 60)]), CreditEnd::Applied));
    assert_eq!(desk.ops.len(), 2);
    assert_eq!(desk.int("u", 0, "b_rpm_tc"), 0);
}

#[test]
fn a_lost_request_is_sent_again() {
    let (mut desk, grant) = lease();
    desk.meddle = Some(Box::new(|call, _, _| (call == 0).then(|| Err(lost()))));
    assert!(matches!(desk.credit(&grant, &[("rpm", 60)]), CreditEnd::Applied));
    assert_eq!(desk.int("u", 0, "b_rpm_tc"), 0);
}

/// The request arrives after its repetition, and after a credit of another process has replaced the mark.
#[test]
fn a_late_request_cannot_happen_after_its_repetition() {
    let (mut desk, grant) = lease();
    desk.meddle = Some(Box::new(|call, _, _| (call == 0).then(|| Err(lost()))));
    assert!(matches!(desk.credit(&grant, &[("rpm", 20)]), CreditEnd::Applied));
    let late = desk.ops[0].clone();
    desk.meddle = None;
    let fresh = Grant {
        image: Bucket::decode(desk.item("u", 0)).unwrap().into(),
        ..grant
    };
    assert!(matches!(desk.credit(&fresh, &[("rpm", 10)]), CreditEnd::Applied));
    let answer = desk.table.call(&late).unwrap();
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    assert_eq!(desk.int("u", 0, "b_rpm_tc"), 30_000);
}

#[test]
fn with_a_strangers_mark_nobody_can_tell() {
    let (mut desk, grant) = lease();
    let key = desk.id("u").key(0);
    desk.meddle = Some(Box::new(move |call, _, table| {
        (call == 0).then(|| {
            let mut item = table.get(&key).unwrap().clone();
            item.insert("cr".into(), Value::text("someone else's"));
            table.insert(item).unwrap();
            Err(lost())
        })
    }));
    assert!(matches!(
        desk.credit(&grant, &[("rpm", 60)]),
        CreditEnd::InDoubt(_)
    ));
    assert_eq!(desk.int("u", 0, "b_rpm_tc"), 60_000, "rather lost than doubled");
}

#[test]
fn a_bucket_with_a_schedule_takes_refunds_only_below_its_ceiling() {
    let (mut desk, grant) = lease();
    let valid = [
        ("sched", Value::text("1h0")),
        ("vu", Value::int(desk.now + 60_000)),
    ];
    desk.poke("u", 0, &valid);
    assert!(matches!(desk.credit(&grant, &[("rpm", 10)]), CreditEnd::Applied));
    let end = desk.credit(&grant, &[("rpm", 60)]);
    assert!(matches!(end, CreditEnd::Refused(_)), "{end:?}");
    assert_eq!(
        desk.int("u", 0, "vu"),
        i128::from(desk.now + 60_000),
        "its next boundary is not ours to move"
    );
}

#[test]
fn tokens_taken_after_the_caller_gave_up_come_back() {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.entity("child", Some("parent"), true);
    desk.admitted("child", &[("rpm", 1)]);
    for give_up_at in 0..6 {
        let mut acquire = Acquire::new(desk.request("child", &[("rpm", 10)]));
        let now = EpochMillis(desk.now);
        let mut calls = acquire.start(&|_, _| None, now, &mut desk.dice);
        let mut answered = 0;
        while !calls.is_empty() {
            if answered == give_up_at {
                acquire.abandon();
            }
            let call = calls.remove(0);
            let reply = match call.ask {
                Ask::Table(op) => Reply::Table(desk.call(&op)),
                Ask::Debit(debit) => Reply::Table(desk.debit(&debit)),
                Ask::Config { entity, fresh, .. } => Reply::Config(desk.config(&entity, fresh)),
                Ask::Wait => Reply::Waited,
                Ask::GiveBack(grant) => desk.give_back(&grant),
            };
            calls.extend(acquire.answer(call.id, reply, now, &mut desk.dice));
            answered += 1;
        }
        let decision = acquire.finish();
        let kept = matches!(decision, Some(Decision::Admitted(_)));
        assert_eq!(
            kept,
            answered <= give_up_at,
            "given up after {give_up_at}: {decision:?}"
        );
        if !kept {
            assert_eq!(desk.int("child", 0, "b_rpm_tc"), 1000);
            assert_eq!(desk.int("parent", 0, "b_rpm_tc"), 1000);
        }
        if kept {
            return;
        }
    }
    panic!("never ran to its end");
}

proptest! {
    /// Each sending of a credit may be lost before or after it happened, or happen at the very end.
    #[test]
    fn a_credit_happens_once_or_says_that_nobody_knows(
        fates in prop::collection::vec(0_u8..5, 1..6),
        strangers in prop::collection::vec(any::<bool>(), 1..6),
        back in -50_i64..=60,
    ) {
        let (mut desk, grant) = lease();
        let key = desk.id("u").key(0);
        let late = std::rc::Rc::new(std::cell::RefCell::new(Vec::<Op>::new()));
        let held = std::rc::Rc::clone(&late);
        desk.meddle = Some(Box::new(move |call, op, table| {
            if strangers.get(call) == Some(&true) {
                let mut item = table.get(&key).unwrap().clone();
                item.insert("cr".into(), Value::text(format!("stranger {call}")));
                table.insert(item).unwrap();
            }
            match fates.get(call).copied().unwrap_or(0) {
                0 => None,
                1 => Some(Err(TableError::new(FailureKind::Throttled, Applied::No, "busy"))),
                2 => Some(Err(lost())),
                3 => {
                    let _ = table.call(op);
                    Some(Err(lost()))
                }
                _ => {
                    held.borrow_mut().push(op.clone());
                    Some(Err(lost()))
                }
            }
        }));
        let end = desk.credit(&grant, &[("rpm", back)]);
        desk.meddle = None;
        for op in late.borrow().iter() {
            let _ = desk.table.call(op);
        }
        let (held, none) = (60_000 - 1000 * i128::from(back), 60_000);
        let counted = desk.int("u", 0, "b_rpm_tc");
        match end {
            CreditEnd::Applied => prop_assert_eq!(counted, held),
            CreditEnd::InDoubt(_) => prop_assert!(counted == held || counted == none, "{}", counted),
            _ => prop_assert_eq!(counted, none),
        }
    }
}
