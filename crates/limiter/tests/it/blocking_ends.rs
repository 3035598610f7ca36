//! Blocking handles: what their end waits for, and what they do inside async code.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use zae_limiter::blocking::{Lease, RateLimiter, Repository};
use zae_limiter::table::TableExt as _;
use zae_limiter::{Error, Limit, UsageQuery};
use zae_limiter_core::{EntityId, ResourceName, schema::BucketId};

use crate::world::{Fault, Faulty, World};

/// A blocking limiter with a lease of 400 tokens on `k`, on a table that is throttled for a while from now on.
fn held(w: &World, faulty: &Faulty) -> (RateLimiter, Lease) {
    let builder = zae_limiter::Repository::builder()
        .custom_table(Arc::new(faulty.clone()))
        .clock(w.clock.clone());
    let limiter = RateLimiter::new(Repository::from_builder(builder).unwrap());
    let lease = limiter.acquire("k", "r").consume("tpm", 400).send().unwrap();
    faulty.next(&[Fault::Throttled; 5]);
    (limiter, lease)
}

/// The table and another process's view of it, on a runtime of their own.
fn with_table(test: impl FnOnce(&tokio::runtime::Runtime, &World, &Faulty)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let w = runtime.block_on(World::configured());
    test(&runtime, &w, &Faulty::over(&w));
}

#[test]
fn dropping_the_last_handle_waits_for_refunds() {
    with_table(|runtime, w, faulty| {
        for lease_is_last in [true, false] {
            let (limiter, lease) = held(w, faulty);
            assert_eq!(runtime.block_on(w.consumed("k", "r", "tpm")), 400_000);
            if lease_is_last {
                drop(limiter);
                drop(lease);
            } else {
                drop(lease);
                drop(limiter);
            }
            assert_eq!(runtime.block_on(w.consumed("k", "r", "tpm")), 0);
        }
    });
}

#[test]
fn dropped_in_async_code_a_handle_neither_panics_nor_loses_refunds() {
    with_table(|runtime, w, faulty| {
        let (limiter, lease) = held(w, faulty);
        let inside = async move {
            drop(lease);
            drop(limiter);
        };
        // The runtime of the task is gone before the refund is sent.
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(inside);
        let mut left = 400_000;
        for _ in 0..500 {
            left = runtime.block_on(w.consumed("k", "r", "tpm"));
            if left == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(left, 0);
    });
}

#[test]
fn the_result_of_the_work_survives_a_commit_that_fails() {
    with_table(|runtime, w, faulty| {
        let builder = zae_limiter::Repository::builder()
            .custom_table(Arc::new(faulty.clone()))
            .clock(w.clock.clone());
        let limiter = RateLimiter::new(Repository::from_builder(builder).unwrap());
        let done = limiter.acquire("k", "r").consume("tpm", 100).run(|lease| {
            lease.adjust("tpm", -50)?;
            faulty.next(&[Fault::Denied]);
            Ok::<_, Error>(7)
        });
        assert_eq!(done.unwrap(), 7);
        assert_eq!(runtime.block_on(w.consumed("k", "r", "tpm")), 100_000);
    });
}

#[tokio::test]
async fn calls_in_async_code_return_an_error() {
    assert!(matches!(Repository::in_memory(), Err(Error::AsyncContext)));
    let opened = tokio::task::spawn_blocking(|| {
        let repo = Repository::in_memory().unwrap();
        repo.admin()
            .set_system_defaults([Limit::per_day("tpm", 1000)], None)
            .unwrap();
        let limiter = RateLimiter::new(repo);
        let leases = [1, 2, 3].map(|n| limiter.acquire("k", "r").consume("tpm", n * 10).send().unwrap());
        (limiter, leases)
    });
    let (limiter, [mut more, less, plain]) = opened.await.unwrap();
    let repo = limiter.repository().clone();
    let refused = [
        limiter.acquire("k", "r").consume("tpm", 1).send().map(drop),
        limiter.acquire("k", "r").consume("tpm", 1).run(|_| Ok(())),
        limiter.available("k", "r").map(drop),
        more.consume("tpm", 1),
        repo.drain().map(drop),
        repo.admin().entity("k").map(drop),
        repo.namespace("default").map(drop),
        repo.stack_handle().version().map(drop),
        repo.admin()
            .usage_snapshots(UsageQuery::entity("k"))
            .unwrap()
            .next()
            .unwrap()
            .map(drop),
    ];
    for result in refused {
        assert!(matches!(result, Err(Error::AsyncContext)), "{result:?}");
    }
    assert!(!repo.is_available(Duration::from_secs(1)));

    // The corrections of a lease are still written, possibly before the call returns.
    let has_begun = |result: Result<(), Error>| matches!(result, Ok(()) | Err(Error::AsyncContext));
    more.adjust("tpm", 100).unwrap();
    assert!(has_begun(more.commit()));
    assert!(has_begun(less.rollback()));
    plain.commit().unwrap();
    let done = tokio::task::spawn_blocking(move || {
        assert!(repo.drain().unwrap().is_complete());
        limiter.available("k", "r").unwrap()["tpm"]
    });
    assert_eq!(done.await.unwrap(), 1000 - 110 - 30);
}

#[test]
fn an_async_repository_outlives_the_blocking_one() {
    with_table(|runtime, w, _| {
        let builder = zae_limiter::Repository::builder()
            .custom_table(w.repo.table())
            .clock(w.clock.clone());
        let blocking = Repository::from_builder(builder).unwrap();
        let repo = blocking.as_async().clone();
        drop(blocking);
        runtime.block_on(async {
            let limiter = zae_limiter::RateLimiter::new(repo.clone());
            drop(limiter.acquire("k", "r").consume("tpm", 400).await.unwrap());
            assert!(repo.drain().await.is_complete());
            let id = BucketId {
                namespace: repo.namespace_id().clone(),
                entity: EntityId::new("k").unwrap(),
                resource: ResourceName::new("r").unwrap(),
            };
            let item = repo.table().get(id.key(0), true).await.unwrap().unwrap();
            let bucket = zae_limiter_core::Bucket::decode(&item).unwrap();
            assert_eq!(bucket.limit("tpm").unwrap().consumed.unwrap().0, 0);
        });
    });
}

#[test]
fn corrections_do_not_wait_for_a_debit_when_the_last_handle_goes() {
    with_table(|runtime, w, faulty| {
        let builder = zae_limiter::Repository::builder()
            .custom_table(Arc::new(faulty.clone()))
            .clock(w.clock.clone())
            .correction_delay(Duration::from_mins(1));
        let limiter = RateLimiter::new(Repository::from_builder(builder).unwrap());
        let lease = limiter.acquire("k", "r").consume("tpm", 400).send().unwrap();
        drop(lease);
        // It returns when they are written.
        drop(limiter);
        assert_eq!(runtime.block_on(w.consumed("k", "r", "tpm")), 0);
    });
}
