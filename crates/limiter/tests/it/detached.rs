//! Leases that another process ends, on a table that loses answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use zae_limiter::clock::{Clock as _, ManualClock};
use zae_limiter::table::{Table, TableFuture};
use zae_limiter::testing::{Fault, TestTable};
use zae_limiter::{
    ALL_RESOURCES, DetachedLease, Error, Lease, LeaseEnd, Limit, NewEntity, OnExpiry, OnUnavailable,
    RateLimiter, Repository, Swept,
};
use zae_limiter_core::table::{Answer, Op};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// A key below a project, with limits that earn next to nothing while a test runs.
async fn open() -> (TestTable, Repository, RateLimiter) {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    let limits = [
        Limit::quota("rpd", 1_000).resets("0 0 * * *", "UTC"),
        Limit::quota("tpd", 1_000).resets("0 0 * * *", "UTC"),
    ];
    repo.admin().set_system_defaults(limits, None).await.unwrap();
    repo.admin().create_entity(NewEntity::new("proj")).await.unwrap();
    repo.admin()
        .create_entity(NewEntity::new("key").parent("proj").cascade(true))
        .await
        .unwrap();
    let limiter = RateLimiter::new(repo.clone());
    (table, repo, limiter)
}

async fn lease(limiter: &RateLimiter) -> Lease {
    let call = limiter
        .acquire("key", "gpt-4")
        .consume("rpd", 1)
        .consume("tpd", 100);
    call.await.unwrap()
}

async fn left(limiter: &RateLimiter) -> [i64; 4] {
    let mut left = [0; 4];
    for (at, entity) in ["key", "proj"].into_iter().enumerate() {
        let available = limiter.available(entity, "gpt-4").await.unwrap();
        (left[2 * at], left[2 * at + 1]) = (available["rpd"], available["tpd"]);
    }
    left
}

/// As another process reads it from a client.
fn sent(lease: &DetachedLease) -> DetachedLease {
    DetachedLease::decode(&lease.encode()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn another_process_ends_a_lease_once() {
    let (table, repo, limiter) = open().await;
    let other = table.open().await.unwrap();
    let lease = sent(
        &lease(&limiter)
            .await
            .detach(MINUTE, OnExpiry::Keep)
            .await
            .unwrap(),
    );
    assert_eq!(left(&limiter).await, [999, 900, 999, 900]);
    let used = lease.commit([(None, "tpd", 30)]).unwrap();
    assert!(!other.end_lease(&lease, used.clone()).await.unwrap().is_repeated);
    assert!(repo.end_lease(&lease, used).await.unwrap().is_repeated);
    let err = repo.end_lease(&lease, LeaseEnd::Rollback).await.unwrap_err();
    assert!(
        matches!(&err, Error::LeaseEnded(Some(how)) if how == "commit"),
        "{err:?}"
    );
    assert_eq!(
        err.to_string(),
        "the lease has ended already (commit); its first end holds"
    );
    assert_eq!(left(&limiter).await, [999, 970, 999, 970]);
}

/// Fifty callers of several processes, each with one of two ends, over a table that loses requests and answers.
#[tokio::test(start_paused = true)]
async fn of_many_ends_at_the_same_time_one_holds() {
    for faults in [
        [Fault::AnswerLost, Fault::Throttled],
        [Fault::RequestLost, Fault::AnswerLost],
        [Fault::Internal, Fault::Unreachable],
    ] {
        let (table, _, limiter) = open().await;
        let lease = sent(
            &lease(&limiter)
                .await
                .detach(HOUR, OnExpiry::GiveBack)
                .await
                .unwrap(),
        );
        let mut calls = tokio::task::JoinSet::new();
        for at in 0..50 {
            let (repo, lease) = (table.open().await.unwrap(), lease.clone());
            let end = if at % 2 == 0 {
                LeaseEnd::Rollback
            } else {
                lease.commit([(None, "tpd", 30)]).unwrap()
            };
            calls.spawn(async move { (at % 2, repo.end_lease(&lease, end).await) });
        }
        table.fail_next(20, faults[0]);
        tokio::task::yield_now().await;
        table.fail_next(20, faults[1]);
        let mut held = [0; 2];
        while let Some(ended) = calls.join_next().await {
            match ended.unwrap() {
                (kind, Ok(_)) => held[kind] += 1,
                (_, Err(Error::LeaseEnded(_))) => {}
                (_, Err(err)) => assert!(err.in_doubt(), "{err:?}"),
            }
        }
        assert!(held[0] == 0 || held[1] == 0, "{held:?}");
        let repo = table.open().await.unwrap();
        let is_rolled_back = match repo.end_lease(&lease, LeaseEnd::Rollback).await {
            Ok(_) => true,
            Err(Error::LeaseEnded(_)) => false,
            Err(err) => panic!("{err:?}"),
        };
        let expected = if is_rolled_back {
            [1_000; 4]
        } else {
            [999, 970, 999, 970]
        };
        assert_eq!(left(&limiter).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_gives_back_what_expires() {
    let (table, repo, limiter) = open().await;
    let kept = lease(&limiter)
        .await
        .detach(MINUTE, OnExpiry::Keep)
        .await
        .unwrap();
    let given = lease(&limiter)
        .await
        .detach(MINUTE, OnExpiry::GiveBack)
        .await
        .unwrap();
    let extended = lease(&limiter)
        .await
        .detach(MINUTE, OnExpiry::GiveBack)
        .await
        .unwrap();
    repo.extend_lease(&extended, HOUR).await.unwrap();
    let until = repo.extend_lease(&kept, HOUR).await.unwrap();
    // A request that arrives late does not shorten it.
    assert_eq!(repo.extend_lease(&kept, MINUTE / 2).await.unwrap(), until);
    assert_eq!(repo.extend_lease(&kept, 2 * MINUTE).await.unwrap(), until);
    assert_eq!(repo.sweep_leases().await.unwrap(), Swept::default());
    tokio::time::advance(MINUTE).await;
    // Two processes sweep at the same time.
    let other = table.open().await.unwrap();
    let (one, two) = tokio::join!(repo.sweep_leases(), other.sweep_leases());
    assert_eq!(one.unwrap().given_back + two.unwrap().given_back, 1);
    assert_eq!(left(&limiter).await, [998, 800, 998, 800]);
    assert!(matches!(
        repo.end_lease(&given, LeaseEnd::Rollback).await,
        Err(Error::LeaseEnded(Some(how))) if how == "expired"
    ));
    // An extended one can be ended for longer, also one that keeps its tokens.
    repo.end_lease(&kept, LeaseEnd::Rollback).await.unwrap();
    tokio::time::advance(HOUR).await;
    assert!(matches!(
        repo.end_lease(&extended, LeaseEnd::Rollback).await,
        Err(Error::LeaseExpired)
    ));
    let swept = repo.sweep_leases().await.unwrap();
    assert_eq!((swept.given_back, swept.failed), (1, 0));
    assert_eq!(left(&limiter).await, [1_000; 4]);
    // Records of ended leases go some minutes later.
    tokio::time::advance(HOUR).await;
    let deleted = repo.sweep_leases().await.unwrap().deleted;
    assert!(deleted + swept.deleted == 3, "{deleted} {swept:?}");
    assert_eq!(repo.sweep_leases().await.unwrap(), Swept::default());
}

/// So many leases of several keys that expire after a minute.
async fn expire(limiter: &RateLimiter, leases: usize) {
    for at in 0..leases {
        let lease = limiter
            .acquire(format!("key-{}", at % 20), "gpt-4")
            .consume("tpd", 1)
            .await
            .unwrap();
        lease.detach(MINUTE, OnExpiry::GiveBack).await.unwrap();
    }
    tokio::time::advance(MINUTE).await;
}

/// A table that counts the items of ranges that are read.
#[derive(Debug)]
struct Counting(TestTable, Arc<AtomicUsize>);

impl Table for Counting {
    fn call(&self, op: Op) -> TableFuture {
        let (answer, read) = (self.0.call(op), Arc::clone(&self.1));
        Box::pin(async move {
            let answer = answer.await?;
            if let Answer::Page { items, .. } = &answer {
                read.fetch_add(items.len(), Ordering::Relaxed);
            }
            Ok(answer)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_is_not_read_by_every_sweep() {
    let (table, _, limiter) = open().await;
    let read = Arc::new(AtomicUsize::new(0));
    let counting = Counting(table.clone(), Arc::clone(&read));
    let repo = table
        .builder()
        .custom_table(Arc::new(counting))
        .open()
        .await
        .unwrap();
    expire(&limiter, 200).await;
    assert_eq!(repo.sweep_leases().await.unwrap().given_back, 200);
    let reads = async || {
        read.store(0, Ordering::Relaxed);
        assert_eq!(repo.sweep_leases().await.unwrap(), Swept::default());
        read.load(Ordering::Relaxed)
    };
    // Just expired: a record can be written late.
    assert_eq!(reads().await, 200);
    tokio::time::advance(2 * MINUTE).await;
    assert_eq!(reads().await, 200);
    assert_eq!(reads().await, 0);
    // From the beginning now and then, and until they are deleted.
    tokio::time::advance(3 * MINUTE).await;
    assert_eq!(reads().await, 200);
    assert_eq!(reads().await, 0);
    tokio::time::advance(6 * MINUTE).await;
    assert_eq!(repo.sweep_leases().await.unwrap().deleted, 200);
    assert_eq!(reads().await, 0);
}

/// The process that has issued a lease has a slow clock: its record lies before those that are settled.
#[tokio::test(start_paused = true)]
async fn a_record_that_comes_late_is_found() {
    let (table, repo, limiter) = open().await;
    expire(&limiter, 200).await;
    assert_eq!(repo.sweep_leases().await.unwrap().given_back, 200);
    tokio::time::advance(4 * MINUTE).await;
    assert_eq!(repo.sweep_leases().await.unwrap(), Swept::default());
    let slow = ManualClock::at(table.clock().now() - 6 * MINUTE);
    let slow = RateLimiter::new(table.builder().clock(slow).open().await.unwrap());
    let late = slow.acquire("late", "gpt-4").consume("tpd", 1).await.unwrap();
    late.detach(MINUTE, OnExpiry::GiveBack).await.unwrap();
    assert_eq!(limiter.available("late", "gpt-4").await.unwrap()["tpd"], 999);
    let soon = repo.sweep_leases().await.unwrap().given_back;
    tokio::time::advance(MINUTE).await;
    let later = repo.sweep_leases().await.unwrap().given_back;
    assert_eq!(soon + later, 1);
    repo.invalidate_images();
    assert_eq!(limiter.available("late", "gpt-4").await.unwrap()["tpd"], 1_000);
}

/// A process is killed after the first of two corrections.
#[tokio::test(start_paused = true)]
async fn a_sweep_finishes_what_a_killed_process_has_begun() {
    let (table, repo, limiter) = open().await;
    let lease = lease(&limiter)
        .await
        .detach(MINUTE, OnExpiry::Keep)
        .await
        .unwrap();
    table.delay(Duration::from_millis(20));
    let end = repo.end_lease(&lease, LeaseEnd::Rollback);
    assert!(
        tokio::time::timeout(Duration::from_millis(10), end)
            .await
            .is_err()
    );
    table.delay(Duration::ZERO);
    tokio::time::advance(MINUTE).await;
    let other = table.open().await.unwrap();
    let swept = other.sweep_leases().await.unwrap();
    assert_eq!((swept.finished, swept.failed), (1, 0), "{swept:?}");
    assert_eq!(left(&RateLimiter::new(other)).await, [1_000; 4]);
}

/// The record cannot be written, or it is not known whether it was: the tokens go back, once.
#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_recorded_is_given_back() {
    for fault in [
        Fault::AccessDenied,
        Fault::RequestLost,
        Fault::AnswerLost,
        Fault::Throttled,
    ] {
        let (table, repo, limiter) = open().await;
        let lease = lease(&limiter).await;
        table.fail(fault);
        let err = lease.detach(MINUTE, OnExpiry::GiveBack).await.unwrap_err();
        assert!(!matches!(err, Error::InvalidInput(_)), "{err:?}");
        table.recover();
        assert!(repo.drain().await.is_complete());
        tokio::time::advance(MINUTE).await;
        let swept = repo.sweep_leases().await.unwrap();
        assert_eq!(swept.given_back, 0, "{fault:?}");
        assert_eq!(left(&limiter).await, [1_000; 4], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_detached_is_refused_and_given_back() {
    let (table, repo, limiter) = open().await;
    for ttl in [
        Duration::ZERO,
        Duration::from_millis(999),
        Duration::from_hours(25),
    ] {
        let err = lease(&limiter)
            .await
            .detach(ttl, OnExpiry::Keep)
            .await
            .unwrap_err();
        assert!(
            matches!(&err, Error::InvalidInput(err) if err.field() == "ttl"),
            "{err:?}"
        );
    }
    let mut adjusted = lease(&limiter).await;
    adjusted.adjust("tpd", 5).unwrap();
    assert!(matches!(
        adjusted.detach(MINUTE, OnExpiry::Keep).await,
        Err(Error::InvalidInput(_))
    ));
    let call = limiter
        .acquire("key", "gpt-4")
        .consume("rpd", 1)
        .in_flight_at_most(3);
    let placed = call
        .await
        .unwrap()
        .detach(MINUTE, OnExpiry::Keep)
        .await
        .unwrap_err();
    assert!(
        matches!(&placed, Error::InvalidInput(err) if err.field() == "in_flight"),
        "{placed:?}"
    );
    assert!(repo.drain().await.is_complete());
    assert_eq!(left(&limiter).await, [1_000; 4]);
    // Of another namespace.
    let lease = lease(&limiter)
        .await
        .detach(MINUTE, OnExpiry::Keep)
        .await
        .unwrap();
    let other = table.builder().namespace("other").open().await.unwrap();
    let err = other.end_lease(&lease, LeaseEnd::Rollback).await.unwrap_err();
    assert!(
        matches!(&err, Error::InvalidInput(err) if err.field() == "lease"),
        "{err:?}"
    );
    assert!(matches!(
        repo.end_lease(&lease, LeaseEnd::Expired).await,
        Err(Error::InvalidInput(_))
    ));
    for ttl in [Duration::from_millis(10), Duration::from_hours(24) + 2 * MINUTE] {
        assert!(matches!(
            repo.extend_lease(&lease, ttl).await,
            Err(Error::InvalidInput(_))
        ));
    }
    repo.end_lease(&lease, LeaseEnd::Rollback).await.unwrap();
    assert!(matches!(
        repo.extend_lease(&lease, HOUR).await,
        Err(Error::LeaseEnded(_))
    ));
}

/// Granted without the table: there is nothing to correct there.
#[tokio::test(start_paused = true)]
async fn a_lease_of_an_outage_ends_without_the_table() {
    let (table, _, limiter) = open().await;
    lease(&limiter).await.commit().await.unwrap();
    table.fail(Fault::Unreachable);
    let call = limiter
        .acquire("key", "gpt-4")
        .consume("tpd", 100)
        .on_unavailable(OnUnavailable::Allow);
    let granted = call.await.unwrap();
    assert!(granted.is_degraded());
    let lease = sent(&granted.detach(MINUTE, OnExpiry::GiveBack).await.unwrap());
    assert!(lease.is_degraded());
    let repo = table.builder().open().await;
    assert!(repo.is_err(), "the table cannot be reached");
    table.recover();
    let repo = table.open().await.unwrap();
    repo.end_lease(&lease, LeaseEnd::Rollback).await.unwrap();
    assert_eq!(left(&limiter).await, [999, 900, 999, 900]);
}

/// Several resources, and a bucket that was split while the lease was held.
#[tokio::test(start_paused = true)]
async fn all_resources_end_together() {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    let admin = repo.admin();
    admin
        .set_resource_defaults("gpt-4", [Limit::per_day("tpd", 1_000)])
        .await
        .unwrap();
    admin
        .set_resource_defaults("budget", [Limit::per_day("cents", 500)])
        .await
        .unwrap();
    admin
        .set_entity_limits(
            "key",
            ALL_RESOURCES,
            [Limit::per_day("tpd", 1_000), Limit::per_day("cents", 500)],
        )
        .await
        .unwrap();
    let limiter = RateLimiter::new(repo.clone());
    let call = limiter
        .acquire("key", "gpt-4")
        .consume("tpd", 800)
        .also("budget", [("cents", 5)]);
    let lease = sent(&call.await.unwrap().detach(MINUTE, OnExpiry::Keep).await.unwrap());
    let taken: Vec<_> = lease
        .taken()
        .map(|(resource, limit, n)| format!("{resource} {limit} {n}"))
        .collect();
    assert_eq!(taken, ["gpt-4 tpd 800", "budget cents 5"]);
    let end = lease
        .commit([(None, "tpd", 620), (Some("budget"), "cents", 4)])
        .unwrap();
    repo.end_lease(&lease, end).await.unwrap();
    assert_eq!(limiter.available("key", "gpt-4").await.unwrap()["tpd"], 380);
    assert_eq!(limiter.available("key", "budget").await.unwrap()["cents"], 496);
}
