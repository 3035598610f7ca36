//! What applications test with: a table that fails on demand, and a clock that follows tokio's.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use zae_limiter::clock::Clock as _;
use zae_limiter::table::{RequestCost, Table as _, TableExt as _};
use zae_limiter::testing::{Fault, TestTable};
use zae_limiter::{Acquire, Error, Limit, OnUnavailable, Percent, RateLimiter, RepositoryBuilder, blocking};
use zae_limiter_core::table::{Applied, FailureKind, Op, Value};

use crate::support::{add, key};

const EVERY_FAULT: [Fault; 6] = [
    Fault::Throttled,
    Fault::Unreachable,
    Fault::Internal,
    Fault::AccessDenied,
    Fault::RequestLost,
    Fault::AnswerLost,
];

/// The stored number, by a table that works.
async fn stored(table: &TestTable) -> Option<i128> {
    let item = table.get(key("p", "s"), true).await.unwrap()?;
    item.get("n").and_then(Value::as_int)
}

/// A limiter with 10 `rph` for everything, which has seen the bucket of `k`.
async fn limiter(
    table: &TestTable,
    options: impl FnOnce(RepositoryBuilder) -> RepositoryBuilder,
) -> RateLimiter {
    let repo = options(table.builder()).open().await.unwrap();
    let limits = [Limit::per_hour("rph", 10)];
    repo.admin().set_system_defaults(limits, None).await.unwrap();
    let limiter = RateLimiter::new(repo);
    one(&limiter).await.unwrap().commit().await.unwrap();
    limiter
}

fn one(limiter: &RateLimiter) -> Acquire {
    limiter.acquire("k", "r").consume("rph", 1)
}

async fn left(limiter: &RateLimiter) -> i64 {
    limiter.available("k", "r").await.unwrap()["rph"]
}

#[tokio::test]
async fn each_fault_says_of_a_write_what_is_known_and_changes_what_it_says() {
    let expected = [
        (FailureKind::Throttled, Applied::No, None),
        (FailureKind::Unreachable, Applied::No, None),
        (FailureKind::Internal, Applied::Unknown, None),
        (FailureKind::AccessDenied, Applied::No, None),
        (FailureKind::Timeout, Applied::Unknown, None),
        (FailureKind::Timeout, Applied::Unknown, Some(1)),
    ];
    for (fault, (kind, applied, n)) in EVERY_FAULT.into_iter().zip(expected) {
        let table = TestTable::new();
        table.fail_next(1, fault);
        let err = table.update(add(&key("p", "s"), "n", 1)).await.unwrap_err();
        assert_eq!((err.kind, err.applied), (kind, applied), "{fault:?}");
        assert_eq!(stored(&table).await, n, "{fault:?}");
        // A read that fails has written nothing.
        table.fail_next(1, fault);
        let err = table.get(key("p", "s"), false).await.unwrap_err();
        assert_eq!((err.kind, err.applied), (kind, Applied::No), "{fault:?}");
    }
}

#[tokio::test]
async fn faults_come_in_their_order_and_the_lasting_one_after_them() {
    let table = TestTable::new();
    let kinds = async |requests: usize| {
        let mut kinds = Vec::new();
        for _ in 0..requests {
            kinds.push(table.get(key("p", "s"), false).await.err().map(|err| err.kind));
        }
        kinds
    };
    table.fail(Fault::Unreachable);
    table.fail_next(0, Fault::AccessDenied);
    table.fail_next(2, Fault::Throttled);
    table.fail_next(1, Fault::Internal);
    let (throttled, unreachable) = (Some(FailureKind::Throttled), Some(FailureKind::Unreachable));
    let internal = Some(FailureKind::Internal);
    assert_eq!(
        kinds(5).await,
        [throttled, throttled, internal, unreachable, unreachable]
    );
    table.fail_next(1, Fault::Throttled);
    table.recover();
    assert_eq!(kinds(2).await, [None, None]);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_request_is_executed_at_once_and_answered_later() {
    let table = TestTable::new();
    table.delay(Duration::from_hours(1));
    for fault in [None, Some(Fault::Throttled)] {
        if let Some(fault) = fault {
            table.fail_next(1, fault);
        }
        let begun = Instant::now();
        let answer = table.update(add(&key("p", "s"), "n", 1)).await;
        assert_eq!(begun.elapsed(), Duration::from_hours(1), "{answer:?}");
        assert_eq!(answer.is_err(), fault.is_some());
    }
    let write = table.update(add(&key("p", "s"), "n", 1));
    assert!(tokio::time::timeout(Duration::from_secs(1), write).await.is_err());
    table.recover();
    let begun = Instant::now();
    assert_eq!(stored(&table).await, Some(2));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn every_request_is_counted_when_it_is_sent() {
    let table = TestTable::new();
    drop(table.call(Op::Update(add(&key("p", "s"), "n", 1))));
    assert_eq!(table.requests(), RequestCost::default());
    table.fail_next(1, Fault::Throttled);
    table.get(key("p", "s"), false).await.unwrap_err();
    let never = zae_limiter_core::table::Update {
        condition: zae_limiter_core::table::Condition::Exists("n".into()),
        ..add(&key("p", "s"), "n", 1)
    };
    assert!(!table.update(never).await.unwrap().is_applied());
    let counted = RequestCost {
        gets: 1,
        updates: 1,
        refused: 1,
        ..RequestCost::default()
    };
    assert_eq!(table.requests(), counted);
    assert_eq!(table.clone().requests().requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_is_admitted_by_paused_time_alone() {
    let table = TestTable::new();
    let limiter = limiter(&table, |builder| builder).await;
    limiter
        .acquire("k", "r")
        .consume("rph", 9)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let begun = Instant::now();
    // Ten an hour are one in six minutes.
    let lease = one(&limiter).wait(Duration::from_hours(1)).await.unwrap();
    lease.commit().await.unwrap();
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_mins(6), "{waited:?}");
    assert!(
        waited < Duration::from_mins(6) + Duration::from_millis(300),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn processes_on_one_table_share_its_clock_and_its_buckets() {
    let table = TestTable::new();
    let first = limiter(&table, |builder| builder).await;
    tokio::time::advance(Duration::from_secs(30)).await;
    let second = RateLimiter::new(table.clone().open().await.unwrap());
    one(&second).await.unwrap().commit().await.unwrap();
    assert_eq!(left(&first).await, 8);
    let start = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    assert_eq!(table.clock().now(), start + Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn the_policies_for_outages_decide_while_the_table_fails() {
    let half = OnUnavailable::Degrade(Percent::new(50).unwrap());
    for (policy, admitted) in [(OnUnavailable::Block, 0), (OnUnavailable::Allow, 20), (half, 5)] {
        for fault in EVERY_FAULT {
            let table = TestTable::new();
            let limiter = limiter(&table, |builder| builder.on_unavailable(policy)).await;
            table.fail(fault);
            let mut leases = Vec::new();
            for _ in 0..20 {
                leases.extend(one(&limiter).await.ok());
            }
            let expected = if fault == Fault::AccessDenied { 0 } else { admitted };
            assert_eq!(leases.len(), expected, "{policy:?} {fault:?}");
            assert!(leases.iter().all(zae_limiter::Lease::is_degraded));
            table.recover();
            // A probe of the circuit breaker succeeds. The bucket is full: debits whose answer was lost were executed.
            let mut probes = 0;
            let recovers = loop {
                tokio::time::sleep(Duration::from_hours(1)).await;
                probes += 1;
                let is_back = one(&limiter).await.is_ok_and(|lease| !lease.is_degraded());
                if is_back || probes == 10 {
                    break is_back;
                }
            };
            assert!(recovers, "{policy:?} {fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refund_whose_answer_is_lost_is_paid_once() {
    for lost in [Fault::AnswerLost, Fault::RequestLost] {
        let table = TestTable::new();
        let limiter = limiter(&table, |builder| builder).await;
        let lease = one(&limiter).await.unwrap();
        table.fail_next(1, lost);
        lease.rollback().await.unwrap();
        assert_eq!(left(&limiter).await, 9, "{lost:?}");
    }
}

#[test]
fn the_blocking_api_works_on_it() -> Result<(), Error> {
    let table = TestTable::new();
    let repo = blocking::Repository::from_builder(table.builder())?;
    repo.admin()
        .set_system_defaults([Limit::per_day("rpd", 2)], None)?;
    let limiter = blocking::RateLimiter::new(repo);
    let call = |n| limiter.acquire("k", "r").consume("rpd", n).send();
    call(1)?.commit()?;
    table.fail_next(1, Fault::AccessDenied);
    assert!(matches!(call(1), Err(Error::PermissionDenied { .. })));
    assert!(matches!(call(2), Err(Error::RateLimitExceeded(_))));
    assert_eq!(limiter.available("k", "r")?["rpd"], 1);
    Ok(())
}
