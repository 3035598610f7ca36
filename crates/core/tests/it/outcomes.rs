//! Answers that do not show what they claim: the outcome is unknown, and nothing is given back for them.

use zae_limiter_core::acquire::AcquireError;
use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Item, Op, TableError, Value};

use crate::drive::{Desk, per_minute};

/// A bucket with 60 of 100 tokens left.
fn desk() -> Desk {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.admitted("u", &[("rpm", 40)]);
    desk
}

/// Answers the first request with `answer`, which the table does not see.
fn answer_first(desk: &mut Desk, answer: Answer) {
    desk.meddle = Some(Box::new(move |number, op, _| {
        (number == 0 && matches!(op, Op::Update(_))).then(|| Ok(answer.clone()))
    }));
}

#[track_caller]
fn check_in_doubt(err: &AcquireError) {
    assert!(
        matches!(err, AcquireError::Table(err) if err.kind == FailureKind::Internal && err.applied == Applied::Unknown),
        "{err:?}"
    );
}

#[test]
fn a_debit_whose_answer_lacks_the_item_is_in_doubt_and_nothing_is_given_back() {
    let without_key = |desk: &Desk| {
        let mut item = desk.item("u", 0).clone();
        item.remove("PK");
        item.remove("rf");
        item
    };
    let of_another = |desk: &Desk| {
        let mut item = desk.item("u", 0).clone();
        item.insert("PK".into(), Value::text("another"));
        item.insert("rf".into(), Value::text("unreadable"));
        item
    };
    let overdrawn = |desk: &Desk| {
        let mut item = desk.item("u", 0).clone();
        item.insert("b_rpm_tk".into(), Value::int(-1));
        item.insert("rf".into(), Value::text("unreadable"));
        item
    };
    let items = [
        None,
        Some(Item::new()),
        Some(without_key(&desk())),
        Some(of_another(&desk())),
        Some(overdrawn(&desk())),
    ];
    for item in items {
        let mut desk = desk();
        answer_first(&mut desk, Answer::Applied(item.clone()));
        let err = desk.failed("u", &[("rpm", 10)]);
        check_in_doubt(&err);
        assert_eq!(desk.ops.len(), 1, "{item:?}: nothing follows");
        assert_eq!(desk.int("u", 0, "b_rpm_tk"), 60_000, "{item:?}");
    }
}

#[test]
fn a_debit_of_an_item_that_cannot_be_read_is_undone_if_the_answer_shows_it() {
    let mut desk = desk();
    desk.poke("u", 0, &[("shard_count", Value::text("many"))]);
    let err = desk.failed("u", &[("rpm", 10)]);
    assert!(matches!(err, AcquireError::Record(_)), "{err:?}");
    assert_eq!(desk.ops.len(), 2, "a debit and its undoing");
    assert_eq!(desk.int("u", 0, "b_rpm_tk"), 60_000);
}

#[test]
fn a_refund_whose_answer_does_not_show_it_happens_once() {
    for forwarded in [false, true] {
        let mut desk = Desk::with(&[per_minute("rpm", 100)]);
        let grant = desk.admitted("u", &[("rpm", 60)]).remove(0);
        desk.ops.clear();
        desk.meddle = Some(Box::new(move |number, op, table| {
            if number > 0 {
                return None;
            }
            if forwarded {
                assert!(table.call(op).is_ok());
            }
            Some(Ok(Answer::Applied(Some(Item::new()))))
        }));
        let end = desk.credit(&grant, &[("rpm", 60)]);
        assert!(matches!(end, CreditEnd::Applied), "{end:?}");
        assert_eq!(desk.int("u", 0, "b_rpm_tk"), 100_000, "forwarded: {forwarded}");
    }
}

#[test]
fn a_request_that_keeps_meeting_transactions_is_told_to_come_back() {
    let mut desk = desk();
    desk.meddle = Some(Box::new(|_, op, _| {
        let error = || TableError::new(FailureKind::Conflict, Applied::No, "a transaction holds the item");
        matches!(op, Op::Update(_)).then(|| Err(error()))
    }));
    let why = desk.rejected("u", &[("rpm", 1)]);
    assert!(why.is_contended(), "{why}");
    assert_eq!(why.retry_after().unwrap().as_millis(), 100);
    assert_eq!(desk.int("u", 0, "b_rpm_tc"), 40_000, "nothing was taken");
}
