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

/// The request arrives after its repetition, and after somebody else's credit has replaced the mark.
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
        let mut calls = acquire.start(now, &mut desk.dice);
        let mut answered = 0;
        while !calls.is_empty() {
            if answered == give_up_at {
                acquire.abandon();
            }
            let call = calls.remove(0);
            let reply = match call.ask {
                Ask::Table(op) => Reply::Table(desk.call(&op)),
                Ask::Config { entity, fresh } => Reply::Config(desk.config(&entity, fresh)),
                Ask::Wait => Reply::Waited,
            };
            calls.extend(acquire.answer(call.id, reply, now, &mut desk.dice));
            answered += 1;
        }
        let (decision, _) = acquire.finish();
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
