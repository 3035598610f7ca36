//! What every path of an acquire costs in requests and capacity units, as the engine counts them.
//!
//! These numbers are promises: `docs/costs.md` shows the same table. A refused conditional write is billed
//! by DynamoDB like one that happened; every change of a bucket also writes the index GSI2, which projects
//! all attributes.

use std::time::Duration;

use zae_limiter::table::{RequestCost, TableExt as _};
use zae_limiter::{BucketReset, Error, Limit, NewEntity, TopUp};
use zae_limiter_core::flight::flight_key;

use crate::world::World;

/// Requests that write, of those refused, requests that read, read units, write units.
#[track_caller]
fn check(usage: RequestCost, writes: u64, refused: u64, reads: u64, read_units: f64, write_units: f64) {
    let requests = usage.updates + usage.transactions + usage.puts;
    let got = (
        requests,
        usage.refused,
        usage.reads(),
        usage.read_units,
        usage.write_units,
    );
    assert_eq!(
        got,
        (writes, refused, reads, read_units, write_units),
        "{usage:?}"
    );
}

async fn take(w: &World, entity: &str, tokens: u64) -> Result<zae_limiter::Lease, Error> {
    w.limiter
        .acquire(entity, "r")
        .consume("rpm", 1)
        .consume("tpm", tokens)
        .await
}

async fn spend(w: &World, entity: &str, tokens: u64) {
    take(w, entity, tokens).await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn created() {
    let w = World::configured().await;
    // The configuration in one batch of five keys; a refused debit; a transaction of the bucket (two units,
    // and one for each of its three indexes) and a check of META (two units).
    let ((), usage) = w.cost(spend(&w, "k", 100)).await;
    check(usage, 2, 1, 1, 3.0, 8.0);
}

#[tokio::test]
async fn admitted() {
    let w = World::configured().await;
    spend(&w, "k", 100).await;
    let ((), usage) = w.cost(spend(&w, "k", 100)).await;
    check(usage, 1, 0, 0, 0.0, 2.0);
}

#[tokio::test]
async fn refill_due() {
    let w = World::configured().await;
    spend(&w, "k", 1000).await;
    w.clock.advance(Duration::from_secs(20));
    // No other client has changed it.
    let ((), usage) = w.cost(spend(&w, "k", 100)).await;
    check(usage, 1, 0, 0, 0.0, 2.0);
    // Its image is not known, or no longer true.
    w.clock.advance(Duration::from_secs(20));
    w.repo.invalidate_images();
    let ((), usage) = w.cost(spend(&w, "k", 100)).await;
    check(usage, 2, 1, 0, 0.0, 3.0);
}

#[tokio::test]
async fn rejected_then_rejected_again() {
    let w = World::configured().await;
    spend(&w, "k", 1000).await;
    w.repo.invalidate_caches();
    let _ = w.limiter.available("k", "r").await.unwrap();
    let (refused, usage) = w.cost(take(&w, "k", 100)).await;
    assert!(matches!(refused, Err(Error::RateLimitExceeded(_))));
    check(usage, 1, 1, 0, 0.0, 1.0);
    let (refused, usage) = w.cost(take(&w, "k", 100)).await;
    assert!(matches!(refused, Err(Error::RateLimitExceeded(_))));
    check(usage, 0, 0, 0, 0.0, 0.0);
    assert_eq!(w.repo.cache_stats().local_rejections, 1);
}

#[tokio::test]
async fn cascade_cold_and_warm() {
    let w = World::configured().await;
    w.repo
        .admin()
        .create_entity(NewEntity::new("proj"))
        .await
        .unwrap();
    w.repo
        .admin()
        .create_entity(NewEntity::new("key").parent("proj").cascade(true))
        .await
        .unwrap();
    spend(&w, "key", 100).await;
    w.repo.invalidate_caches();
    // Two batches for the configuration of child and parent, which share the cached levels.
    let ((), usage) = w.cost(spend(&w, "key", 100)).await;
    check(usage, 2, 0, 2, 4.5, 4.0);
    let ((), usage) = w.cost(spend(&w, "key", 100)).await;
    check(usage, 2, 0, 0, 0.0, 4.0);
}

#[tokio::test]
async fn child_refunded_when_the_parent_refuses() {
    let w = World::configured().await;
    w.repo
        .admin()
        .create_entity(NewEntity::new("key").parent("proj").cascade(true))
        .await
        .unwrap();
    spend(&w, "key", 100).await;
    w.another()
        .await
        .limiter
        .acquire("proj", "r")
        .consume("tpm", 900)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let (refused, usage) = w.cost(take(&w, "key", 100)).await;
    assert!(matches!(refused, Err(Error::RateLimitExceeded(_))));
    check(usage, 3, 1, 0, 0.0, 5.0);
}

#[tokio::test]
async fn adjusted_and_rolled_back() {
    let w = World::configured().await;
    spend(&w, "k", 100).await;
    let mut lease = take(&w, "k", 100).await.unwrap();
    lease.adjust("tpm", -50).unwrap();
    let (done, usage) = w.cost(lease.commit()).await;
    done.unwrap();
    check(usage, 1, 0, 0, 0.0, 2.0);
    let lease = take(&w, "k", 100).await.unwrap();
    let (done, usage) = w.cost(lease.rollback()).await;
    done.unwrap();
    check(usage, 1, 0, 0, 0.0, 2.0);
    let lease = take(&w, "k", 100).await.unwrap();
    let (done, usage) = w.cost(lease.commit()).await;
    done.unwrap();
    check(usage, 0, 0, 0, 0.0, 0.0);
}

#[tokio::test]
async fn divided_over_shards() {
    let w = World::configured().await;
    spend(&w, "k", 10).await;
    let dry = [("b_wcu_tk", Some(zae_limiter_core::table::Value::int(0)))];
    w.poke("k", "r", &dry).await;
    spend(&w, "k", 10).await;
    assert_eq!(w.bucket("k", "r").await.unwrap().shard_count, 2);
    w.clock.advance(Duration::from_secs(30));
    // A share is 500. A read of two shards; a transaction of two updates, each two units for the item and one for the
    // index.
    let (lease, usage) = w.cost(take(&w, "k", 600)).await;
    check(usage, 1, 0, 1, 2.0, 6.0);
    let (done, usage) = w.cost(lease.unwrap().rollback()).await;
    done.unwrap();
    check(usage, 2, 0, 0, 0.0, 4.0);
    // What they do not hold together is refused after one read, and then without any.
    spend(&w, "k", 700).await;
    let (refused, usage) = w.cost(take(&w, "k", 600)).await;
    assert!(matches!(refused, Err(Error::RateLimitExceeded(_))));
    check(usage, 0, 0, 0, 0.0, 0.0);
    w.clock.advance(Duration::from_millis(1500));
    let (refused, usage) = w.cost(take(&w, "k", 600)).await;
    let Err(Error::RateLimitExceeded(refused)) = refused else {
        panic!("{refused:?}")
    };
    // 300 were missing of 1000 a minute.
    assert_eq!(refused.retry_after().unwrap().as_millis(), 16_500);
    check(usage, 0, 0, 1, 2.0, 0.0);
    let available = w.limiter.check("k", "r").needed("tpm", 600).await.unwrap();
    assert_eq!(available.retry_after().unwrap().as_millis(), 16_500);
    assert_eq!(available.available()["tpm"], 325);
    let never = take(&w, "k", 1001).await.unwrap_err();
    assert!(
        never
            .to_string()
            .contains("1001 asked of a bucket that holds 1000"),
        "{never}"
    );
}

#[tokio::test]
async fn a_refund_to_a_bucket_that_was_split_meanwhile_is_divided() {
    let w = World::configured().await;
    let lease = take(&w, "k", 900).await.unwrap();
    let dry = [("b_wcu_tk", Some(zae_limiter_core::table::Value::int(0)))];
    w.poke("k", "r", &dry).await;
    spend(&w, "k", 10).await;
    assert_eq!(w.bucket("k", "r").await.unwrap().shard_count, 2);
    // A refused write, a read of two shards, a part for the other shard, and the rest.
    let (done, usage) = w.cost(lease.rollback()).await;
    done.unwrap();
    check(usage, 3, 1, 1, 2.0, 5.0);
    assert_eq!(w.limiter.available("k", "r").await.unwrap()["tpm"], 990);
    spend(&w, "k", 990).await;
}

/// A lease that took more after the split still knows that it was debited before.
#[tokio::test]
async fn a_refund_is_divided_although_its_lease_took_more_after_the_split() {
    let w = World::configured().await;
    let mut lease = take(&w, "k", 900).await.unwrap();
    let dry = [("b_wcu_tk", Some(zae_limiter_core::table::Value::int(0)))];
    w.poke("k", "r", &dry).await;
    spend(&w, "k", 10).await;
    for _ in 0..5 {
        lease.consume("tpm", 1).await.unwrap();
    }
    lease.rollback().await.unwrap();
    assert_eq!(w.limiter.available("k", "r").await.unwrap()["tpm"], 990);
    take(&w, "k", 990).await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn a_lease_of_several_shards_is_adjusted_and_finished_on_each() {
    let w = World::configured().await;
    spend(&w, "k", 10).await;
    let dry = [("b_wcu_tk", Some(zae_limiter_core::table::Value::int(0)))];
    w.poke("k", "r", &dry).await;
    spend(&w, "k", 10).await;
    w.clock.advance(Duration::from_mins(1));
    let held = || async { w.limiter.available("k", "r").await.unwrap()["tpm"] };
    let mut lease = take(&w, "k", 900).await.unwrap();
    assert_eq!(held().await, 100);
    // More than any of the two shards gave.
    lease.adjust("tpm", -700).unwrap();
    lease.commit().await.unwrap();
    assert_eq!(held().await, 800);
    let mut lease = take(&w, "k", 700).await.unwrap();
    lease.consume("tpm", 50).await.unwrap();
    assert_eq!(held().await, 50);
    lease.rollback().await.unwrap();
    assert_eq!(held().await, 800);
    let mut lease = take(&w, "k", 800).await.unwrap();
    lease.adjust("tpm", 30).unwrap();
    lease.commit().await.unwrap();
    assert!(held().await <= 0);
    drop(take(&w, "k", 0).await);
}

/// Writes (deletions, batches of them, transactions, the audit event), requests that read, read units, write units of a
/// deletion.
#[track_caller]
fn check_deletion(usage: RequestCost, writes: [u64; 4], reads: u64, read_units: f64, write_units: f64) {
    let requests = [usage.deletes, usage.batch_deletes, usage.transactions, usage.puts];
    let got = (requests, usage.reads(), usage.read_units, usage.write_units);
    assert_eq!(got, (writes, reads, read_units, write_units), "{usage:?}");
}

#[tokio::test]
async fn an_entity_is_deleted() {
    let w = World::configured().await;
    spend(&w, "k", 100).await;
    // One unit for the bucket and one for each of its three indexes; the event and its index.
    let (_, usage) = w.cost(w.repo.admin().delete_entity("k")).await;
    check_deletion(usage, [1, 0, 0, 1], 12, 10.0, 6.0);
}

#[tokio::test]
async fn an_entity_with_a_split_bucket_is_deleted() {
    let w = World::configured().await;
    spend(&w, "k", 10).await;
    let dry = [("b_wcu_tk", Some(zae_limiter_core::table::Value::int(0)))];
    w.poke("k", "r", &dry).await;
    spend(&w, "k", 10).await;
    w.clock.advance(Duration::from_mins(1));
    spend(&w, "k", 900).await;
    // In a transaction each shard costs two units, and one for each of its three indexes.
    let (_, usage) = w.cost(w.repo.admin().delete_entity("k")).await;
    check_deletion(usage, [0, 0, 1, 1], 12, 11.0, 12.0);
}

#[tokio::test]
async fn an_entity_without_a_bucket_is_deleted() {
    let w = World::configured().await;
    w.repo.admin().create_entity(NewEntity::new("k")).await.unwrap();
    let (_, usage) = w.cost(w.repo.admin().delete_entity("k")).await;
    check_deletion(usage, [0, 1, 0, 1], 9, 7.5, 4.0);
}

async fn take_two(w: &World, usd: u64) -> Result<zae_limiter::Lease, Error> {
    let call = w.limiter.acquire("k", "r").consume("rpm", 1).consume("tpm", 100);
    call.also("budget", [("rpm", 1), ("tpm", usd)]).await
}

#[tokio::test]
async fn two_resources() {
    let w = World::configured().await;
    // Each resource as if it were alone, except that records of configuration are shared as far as they were read before.
    let (lease, usage) = w.cost(take_two(&w, 100)).await;
    lease.unwrap().commit().await.unwrap();
    check(usage, 4, 2, 2, 4.0, 16.0);
    let (lease, usage) = w.cost(take_two(&w, 100)).await;
    lease.unwrap().commit().await.unwrap();
    check(usage, 2, 0, 0, 0.0, 4.0);
    let other = w.another().await;
    let spent = other.limiter.acquire("k", "budget").consume("tpm", 750);
    spent.await.unwrap().commit().await.unwrap();
    let (refused, usage) = w.cost(take_two(&w, 100)).await;
    assert!(matches!(refused, Err(Error::RateLimitExceeded(_))));
    check(usage, 3, 1, 0, 0.0, 5.0);
}

/// Requests that write, requests that read, read units, write units of a reset or a top-up.
#[track_caller]
fn check_operation(usage: RequestCost, reads: u64, read_units: f64, write_units: f64) {
    check(usage, 1, 0, reads, read_units, write_units);
}

#[tokio::test]
async fn a_bucket_is_reset_and_topped_up() {
    let w = World::configured().await;
    spend(&w, "k", 100).await;
    let admin = w.repo.admin();
    let reset = || BucketReset::new("k", "r");
    // The configuration; the days for which events are kept; the index; the bucket. In the transaction the bucket costs two units
    // and one for an index, and so do the record and the event, which are in one index each.
    let (done, usage) = w.cost(admin.reset_bucket(reset())).await;
    done.unwrap();
    check_operation(usage, 4, 8.5, 9.0);
    let (done, usage) = w.cost(admin.reset_bucket(reset().idempotency_key("a"))).await;
    done.unwrap();
    check_operation(usage, 5, 9.5, 9.0);
    let (done, usage) = w.cost(admin.reset_bucket(reset().idempotency_key("a"))).await;
    done.unwrap();
    check(usage, 0, 0, 2, 7.0, 0.0);
    let (done, usage) = w.cost(admin.reset_bucket(BucketReset::new("none", "r"))).await;
    done.unwrap();
    check(usage, 0, 0, 3, 7.5, 0.0);
    let quota = Limit::quota("rpd", 10).resets("0 0 * * *", "UTC");
    admin.set_resource_defaults("q", [quota]).await.unwrap();
    let order = || TopUp::new("k", "q").add("rpd", 5);
    // The gate is a read more, and the first one a write. The bucket is created: with three indexes, and a check of META.
    let (done, usage) = w.cost(admin.top_up(order())).await;
    done.unwrap();
    check(usage, 2, 0, 5, 9.5, 14.0);
    let (done, usage) = w.cost(admin.top_up(order())).await;
    done.unwrap();
    check_operation(usage, 5, 9.5, 9.0);
}

async fn place(w: &World) -> Result<zae_limiter::Lease, Error> {
    w.limiter.acquire("k", "r").in_flight().await
}

#[tokio::test]
async fn places_in_flight() {
    let w = World::configured().await;
    w.repo.admin().set_resource_concurrency("r", 1).await.unwrap();
    // Six keys, read consistently, and four keys; the item and its entry in the index of the namespace, and a write without an index.
    let ((), usage) = w
        .cost(async { place(&w).await.unwrap().commit().await.unwrap() })
        .await;
    check(usage, 2, 0, 2, 8.0, 3.0);
    let (lease, usage) = w.cost(place(&w)).await;
    check(usage, 1, 0, 1, 6.0, 1.0);
    let (refused, usage) = w.cost(place(&w)).await;
    assert!(matches!(refused, Err(Error::ConcurrencyExceeded(_))));
    check(usage, 1, 1, 1, 6.0, 1.0);
    let (ended, usage) = w.cost(lease.unwrap().commit()).await;
    ended.unwrap();
    check(usage, 1, 0, 0, 0.0, 1.0);
    // Of an entity and resource that nothing is stored of, but with the limits cached.
    w.repo
        .table()
        .delete_all(vec![flight_key(&w.id("k", "r"))])
        .await
        .unwrap();
    let ((), usage) = w
        .cost(async { place(&w).await.unwrap().commit().await.unwrap() })
        .await;
    check(usage, 2, 0, 1, 6.0, 3.0);
    // With tokens.
    spend(&w, "k", 100).await;
    let call = || w.limiter.acquire("k", "r").consume("rpm", 1).in_flight();
    let ((), usage) = w
        .cost(async { call().await.unwrap().commit().await.unwrap() })
        .await;
    check(usage, 3, 0, 0, 0.0, 4.0);
}

#[tokio::test]
async fn expired_places_in_flight() {
    let w = World::configured().await;
    w.repo.admin().set_resource_concurrency("r", 1).await.unwrap();
    let lease = place(&w).await.unwrap();
    // Its holder does not renew it: the clock has jumped.
    w.clock.advance(Duration::from_secs(66));
    let (next, usage) = w.cost(place(&w)).await;
    check(usage, 2, 1, 2, 8.0, 2.0);
    assert!(!lease.holds_place());
    lease.commit().await.unwrap();
    assert!(next.unwrap().holds_place());
}

/// All holders are in one item.
#[tokio::test]
async fn many_places_in_flight() {
    let w = World::configured().await;
    // Zeros at the end of a number take no space.
    w.clock.advance(Duration::from_millis(123_456_789));
    let call = || w.limiter.acquire("k", "r").in_flight_at_most(1000);
    let mut held = Vec::new();
    for (holders, units) in [(30, 1.0), (100, 3.0), (400, 11.0)] {
        while held.len() < holders {
            held.push(call().await.unwrap());
        }
        let (lease, usage) = w.cost(call().send()).await;
        check(usage, 1, 0, 1, 6.0, units);
        held.push(lease.unwrap());
    }
}
