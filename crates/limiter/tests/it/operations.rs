//! Resets and top-ups of live buckets: what callers see, and what is left by those that are killed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use zae_limiter::table::{Table, TableExt as _, TableFuture};
use zae_limiter::{
    ALL_RESOURCES, Access, BucketReset, Error, Limit, LimitBuilder, NewEntity, OperationResult, Prefetch,
    RateLimiter, Repository, TopUp,
};
use zae_limiter_core::table::{FailureKind, Index, Item, Op, Query, TableError, Update, Value};

use crate::world::{Fault, Faulty, START, World, suffer};

fn quota() -> LimitBuilder {
    Limit::quota("rpd", 100).resets("0 0 * * *", "UTC")
}

async fn with(limits: impl IntoIterator<Item = LimitBuilder>) -> World {
    let w = World::new().await;
    // For repositories that reach the table by themselves, as they do a stack's.
    w.functions_of("0.17.0").await;
    let admin = w.repo.admin();
    admin.set_system_defaults(limits, None).await.unwrap();
    w
}

async fn take(limiter: &RateLimiter, limit: &str, tokens: u64) -> Result<(), Error> {
    let lease = limiter.acquire("k", "r").consume(limit, tokens).await?;
    lease.commit().await
}

#[track_caller]
fn is_refused(result: Result<(), Error>) -> bool {
    match result {
        Ok(()) => false,
        Err(Error::RateLimitExceeded(_)) => true,
        Err(other) => panic!("{other}"),
    }
}

fn amounts(result: &OperationResult) -> BTreeMap<&str, i64> {
    let amounts = result.amounts.iter();
    amounts.map(|(limit, amount)| (limit.as_str(), *amount)).collect()
}

/// What the partition of the bucket's first shard holds beside the bucket.
async fn operations(w: &World) -> Vec<Item> {
    let query = Query::new(Index::Primary, w.id("k", "r").key(0).pk).prefix("#OP#");
    w.repo.table().query_all(query).await.unwrap()
}

#[tokio::test]
async fn a_process_sees_what_it_has_reset_at_its_next_call() {
    let w = with([quota()]).await;
    take(&w.limiter, "rpd", 100).await.unwrap();
    assert!(is_refused(take(&w.limiter, "rpd", 1).await));
    let before = w.repo.cache_stats().local_rejections;
    let reset = BucketReset::new("k", "r");
    let done = w.repo.admin().reset_bucket(reset).await.unwrap();
    assert_eq!((done.shards, amounts(&done)), (1, BTreeMap::from([("rpd", 100)])));
    take(&w.limiter, "rpd", 100).await.unwrap();
    assert_eq!(w.repo.cache_stats().local_rejections, before);
    assert!(is_refused(take(&w.limiter, "rpd", 1).await));
    let more = TopUp::new("k", "r").add("rpd", 3).add("rpd", 4);
    assert_eq!(w.repo.admin().top_up(more).await.unwrap().amounts.len(), 1);
    assert_eq!(w.limiter.available("k", "r").await.unwrap()["rpd"], 7);
    take(&w.limiter, "rpd", 7).await.unwrap();
    assert!(is_refused(take(&w.limiter, "rpd", 1).await));
}

#[tokio::test]
async fn tokens_taken_ahead_go_back_first() {
    let w = World::with(|builder| builder.prefetch(Prefetch::calls(50))).await;
    let admin = w.repo.admin();
    admin
        .set_system_defaults([Limit::per_day("tpd", 1000)], None)
        .await
        .unwrap();
    for _ in 0..30 {
        take(&w.limiter, "tpd", 1).await.unwrap();
    }
    let held = i64::try_from(w.repo.prefetched().tokens["tpd"]).unwrap();
    assert!(held > 0);
    let done = admin.reset_bucket(BucketReset::new("k", "r")).await.unwrap();
    assert_eq!(
        amounts(&done)["tpd"],
        30,
        "what the process held was not given twice"
    );
    assert_eq!(w.repo.prefetched().tokens.len(), 0);
    let mut admitted = 0;
    while take(&w.limiter, "tpd", 1).await.is_ok() {
        admitted += 1;
    }
    assert_eq!(admitted, 1000);
    w.repo.drain().await;
}

#[tokio::test]
async fn the_same_key_counts_once_in_turn_and_at_once() {
    let w = with([quota()]).await;
    take(&w.limiter, "rpd", 100).await.unwrap();
    let other = w.another().await;
    let order = || {
        TopUp::new("k", "r")
            .add("rpd", 10)
            .idempotency_key("order:17.a_b-c")
    };
    let first = w.repo.admin().top_up(order()).await.unwrap();
    for repo in [&w.repo, &other.repo] {
        assert_eq!(repo.admin().top_up(order()).await.unwrap(), first);
        // What is asked for later does not matter: the key names what was done.
        let more = TopUp::new("k", "r")
            .add("rpd", 99)
            .idempotency_key("order:17.a_b-c");
        assert_eq!(repo.admin().top_up(more).await.unwrap(), first);
    }
    assert_eq!(w.balance("k", "r", "rpd").await, 10_000);
    let reset = BucketReset::new("k", "r").idempotency_key("order:17.a_b-c");
    let err = w.repo.admin().reset_bucket(reset).await.unwrap_err();
    let Error::InvalidInput(err) = err else {
        panic!("{err}")
    };
    assert_eq!(err.field(), "idempotency_key");
    for round in 0..20 {
        let order = || {
            TopUp::new("k", "r")
                .add("rpd", 1)
                .idempotency_key(format!("round-{round}"))
        };
        let (one, two) = (w.repo.admin(), other.repo.admin());
        let calls = [&one, &two, &one, &two].map(|admin| admin.top_up(order()));
        for done in join_all(calls).await {
            assert_eq!(amounts(&done.unwrap()), BTreeMap::from([("rpd", 1)]));
        }
    }
    assert_eq!(w.balance("k", "r", "rpd").await, 30_000);
    assert_eq!(operations(&w).await.len(), 21);
}

#[tokio::test]
async fn without_a_key_each_call_counts() {
    let w = with([quota()]).await;
    take(&w.limiter, "rpd", 100).await.unwrap();
    for _ in 0..3 {
        w.repo
            .admin()
            .top_up(TopUp::new("k", "r").add("rpd", 5))
            .await
            .unwrap();
    }
    assert_eq!(w.balance("k", "r", "rpd").await, 15_000);
}

/// Stops at a request: the request is lost, or done, and its caller hears nothing any more.
#[derive(Clone)]
struct Killer {
    inner: Arc<dyn Table>,
    left: Arc<AtomicUsize>,
    is_done: bool,
}

impl fmt::Debug for Killer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Killer")
    }
}

impl Table for Killer {
    fn call(&self, op: Op) -> TableFuture {
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(left.saturating_sub(1))
            });
        if left != Ok(0) {
            return self.inner.call(op);
        }
        let (inner, is_done) = (Arc::clone(&self.inner), self.is_done);
        Box::pin(async move {
            if is_done {
                let _ = inner.call(op).await;
            }
            std::future::pending().await
        })
    }
}

/// A bucket in two shards of which the second does not exist yet, under limits that were changed since.
async fn behind() -> World {
    let w = with([Limit::per_day("tpd", 1000)]).await;
    take(&w.limiter, "tpd", 900).await.unwrap();
    w.poke("k", "r", &[("shard_count", Some(Value::int(2)))]).await;
    let admin = w.repo.admin();
    admin
        .set_system_defaults([Limit::per_day("tpd", 2000)], None)
        .await
        .unwrap();
    w
}

async fn all_balances(w: &World) -> (Vec<i128>, i128) {
    let (mut balances, mut consumed) = (Vec::new(), 0);
    for shard in 0..2 {
        let key = w.id("k", "r").key(shard);
        let Some(item) = w.repo.table().get(key, true).await.unwrap() else {
            continue;
        };
        balances.extend(
            ["b_rpd_tk", "b_tpd_tk"]
                .iter()
                .filter_map(|attr| item.get(*attr)?.as_int()),
        );
        for attr in ["b_rpd_tc", "b_tpd_tc"] {
            consumed += item.get(attr).and_then(Value::as_int).unwrap_or(0);
        }
    }
    (balances, consumed)
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_killed_at_any_request_is_finished_by_the_same_call() {
    for is_split in [false, true] {
        for is_done in [false, true] {
            let mut steps = 0;
            loop {
                let w = if is_split {
                    behind().await
                } else {
                    let w = with([quota()]).await;
                    take(&w.limiter, "rpd", 90).await.unwrap();
                    w
                };
                let killer = Killer {
                    inner: w.repo.table(),
                    left: Arc::new(AtomicUsize::new(usize::MAX)),
                    is_done,
                };
                let builder = Repository::builder()
                    .custom_table(Arc::new(killer.clone()))
                    .clock(w.clock.clone());
                let repo = builder.open().await.unwrap();
                killer.left.store(steps, Ordering::SeqCst);
                let admin = repo.admin();
                let call = async {
                    if is_split {
                        let reset = BucketReset::new("k", "r").idempotency_key("ticket-1");
                        admin.reset_bucket(reset).await
                    } else {
                        let order = TopUp::new("k", "r").add("rpd", 25).idempotency_key("ticket-1");
                        admin.top_up(order).await
                    }
                };
                let ended = tokio::time::timeout(Duration::from_mins(10), call).await;
                killer.left.store(usize::MAX, Ordering::SeqCst);
                // Two more calls, of another process.
                let mut results = Vec::new();
                for _ in 0..2 {
                    let admin = w.repo.admin();
                    results.push(if is_split {
                        let reset = BucketReset::new("k", "r").idempotency_key("ticket-1");
                        admin.reset_bucket(reset).await.unwrap()
                    } else {
                        let order = TopUp::new("k", "r").add("rpd", 25).idempotency_key("ticket-1");
                        admin.top_up(order).await.unwrap()
                    });
                }
                assert_eq!(results[0], results[1]);
                // A read that is never answered ends with an error by itself.
                let first = ended.ok().and_then(Result::ok);
                if let Some(first) = &first {
                    assert_eq!(first, &results[0]);
                }
                let expected = if is_split {
                    (vec![1_000_000, 1_000_000], 900_000)
                } else {
                    (vec![35_000], 90_000)
                };
                assert_eq!(
                    all_balances(&w).await,
                    expected,
                    "killed at request {steps} of {is_split} {is_done}"
                );
                assert_eq!(operations(&w).await.len(), 1);
                let events = w
                    .repo
                    .admin()
                    .audit_events("k", None)
                    .unwrap()
                    .all()
                    .await
                    .unwrap();
                let action = if is_split {
                    "bucket_reset"
                } else {
                    "bucket_topped_up"
                };
                let logged = events.iter().filter(|event| event.action == action).count();
                assert_eq!(logged, 1);
                if first.is_some() {
                    break;
                }
                steps += 1;
            }
            assert!(steps >= 6, "{steps} requests");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_looked_up() {
    for fault in [Fault::LostAfter, Fault::LostBefore, Fault::Throttled] {
        let w = with([quota()]).await;
        take(&w.limiter, "rpd", 100).await.unwrap();
        let table = Faulty::over(&w);
        let limiter = table.limiter(&w, |builder| builder).await;
        // The gate has been passed.
        let admin = limiter.repository().admin();
        admin.top_up(TopUp::new("k", "r").add("rpd", 1)).await.unwrap();
        table.next(&[fault]);
        let done = admin.top_up(TopUp::new("k", "r").add("rpd", 5)).await.unwrap();
        assert_eq!(amounts(&done)["rpd"], 5, "{fault:?}");
        assert_eq!(w.balance("k", "r", "rpd").await, 6_000, "{fault:?}");
    }
    // If it cannot be looked up either, it is in doubt.
    let w = with([quota()]).await;
    take(&w.limiter, "rpd", 100).await.unwrap();
    let table = Faulty::over(&w);
    let limiter = table.limiter(&w, |builder| builder).await;
    let admin = limiter.repository().admin();
    admin.top_up(TopUp::new("k", "r").add("rpd", 1)).await.unwrap();
    table.next(&[Fault::LostBefore; 4]);
    let order = || TopUp::new("k", "r").add("rpd", 5).idempotency_key("a");
    let err = admin.top_up(order()).await.unwrap_err();
    assert!(err.in_doubt(), "{err}");
    admin.top_up(order()).await.unwrap();
    assert_eq!(w.balance("k", "r", "rpd").await, 6_000);
}

/// Changes the bucket just before each transaction is executed.
#[derive(Clone)]
struct Busy {
    inner: Arc<dyn Table>,
    change: Update,
    transactions: Arc<AtomicUsize>,
}

impl fmt::Debug for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Busy")
    }
}

impl Table for Busy {
    fn call(&self, op: Op) -> TableFuture {
        let busy = self.clone();
        Box::pin(async move {
            if matches!(op, Op::Transact(_)) {
                busy.transactions.fetch_add(1, Ordering::SeqCst);
                let changed = busy.inner.update(busy.change).await?;
                if !changed.is_applied() {
                    return Err(TableError::new(
                        FailureKind::BadRequest,
                        zae_limiter_core::table::Applied::No,
                        "the test is wrong",
                    ));
                }
            }
            suffer(&busy.inner, Fault::None, op).await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn after_four_attempts_a_bucket_that_keeps_changing_is_an_error() {
    let w = with([quota()]).await;
    take(&w.limiter, "rpd", 100).await.unwrap();
    let mut change = Update::new(w.id("k", "r").key(0));
    change.add.push(("rf".into(), 1));
    let busy = Busy {
        inner: w.repo.table(),
        change,
        transactions: Arc::default(),
    };
    let builder = Repository::builder()
        .custom_table(Arc::new(busy.clone()))
        .clock(w.clock.clone());
    let repo = builder.open().await.unwrap();
    busy.transactions.store(0, Ordering::SeqCst);
    let err = repo
        .admin()
        .reset_bucket(BucketReset::new("k", "r"))
        .await
        .unwrap_err();
    assert!(
        matches!(&err, Error::Unavailable(down) if !down.in_doubt() && down.is_retryable()),
        "{err}"
    );
    assert_eq!(busy.transactions.load(Ordering::SeqCst), 4);
    assert_eq!(w.balance("k", "r", "rpd").await, 0);
}

/// Deletes the entity and creates it again just before the first transaction.
#[derive(Clone)]
struct Recreates {
    inner: Arc<dyn Table>,
    admin: zae_limiter::Admin,
    transactions: Arc<AtomicUsize>,
}

impl fmt::Debug for Recreates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recreates")
    }
}

impl Table for Recreates {
    fn call(&self, op: Op) -> TableFuture {
        let this = self.clone();
        Box::pin(async move {
            if matches!(op, Op::Transact(_)) && this.transactions.fetch_add(1, Ordering::SeqCst) == 0 {
                this.admin.delete_entity("k").await.unwrap();
                this.admin.create_entity(NewEntity::new("k")).await.unwrap();
            }
            suffer(&this.inner, Fault::None, op).await
        })
    }
}

#[tokio::test]
async fn an_attempt_after_the_entity_was_created_again_is_one_of_its_new_life() {
    let w = with([quota()]).await;
    w.repo.admin().create_entity(NewEntity::new("k")).await.unwrap();
    take(&w.limiter, "rpd", 100).await.unwrap();
    let recreates = Recreates {
        inner: w.repo.table(),
        admin: w.repo.admin().clone(),
        transactions: Arc::default(),
    };
    let builder = Repository::builder()
        .custom_table(Arc::new(recreates.clone()))
        .clock(w.clock.clone());
    let repo = builder.open().await.unwrap();
    recreates.transactions.store(0, Ordering::SeqCst);
    let order = || TopUp::new("k", "r").add("rpd", 50).idempotency_key("order-17");
    repo.admin().top_up(order()).await.unwrap();
    assert_eq!(recreates.transactions.load(Ordering::SeqCst), 2);
    // A repetition finds it.
    repo.admin().top_up(order()).await.unwrap();
    assert_eq!(recreates.transactions.load(Ordering::SeqCst), 2);
    assert_eq!(w.balance("k", "r", "rpd").await, 150_000);
}

#[tokio::test]
async fn missing_shards_get_their_part_of_a_reset() {
    let w = behind().await;
    let done = w
        .repo
        .admin()
        .reset_bucket(BucketReset::new("k", "r"))
        .await
        .unwrap();
    assert_eq!((done.shards, amounts(&done)["tpd"]), (2, 1900));
    assert_eq!(w.limiter.available("k", "r").await.unwrap()["tpd"], 2000);
    take(&w.limiter, "tpd", 2000).await.unwrap();
    assert!(is_refused(take(&w.limiter, "tpd", 1).await));
}

#[tokio::test]
async fn a_bucket_goes_by_limits_that_were_changed_since() {
    let w = with([quota()]).await;
    take(&w.limiter, "rpd", 60).await.unwrap();
    let admin = w.repo.admin();
    let wider = Limit::quota("rpd", 500).resets("0 0 * * *", "UTC");
    admin.set_system_defaults([wider], None).await.unwrap();
    let done = admin.reset_bucket(BucketReset::new("k", "r")).await.unwrap();
    assert_eq!(amounts(&done)["rpd"], 460);
    take(&w.limiter, "rpd", 500).await.unwrap();
    // Another kind of limit under the same name.
    admin
        .set_system_defaults([Limit::per_day("rpd", 50)], None)
        .await
        .unwrap();
    admin.reset_bucket(BucketReset::new("k", "r")).await.unwrap();
    take(&w.limiter, "rpd", 50).await.unwrap();
    assert!(is_refused(take(&w.limiter, "rpd", 1).await));
}

#[tokio::test]
async fn a_bucket_that_is_missing_is_reset_by_nothing_and_topped_up_by_creating_it() {
    let w = with([quota(), Limit::per_day("tpd", 10)]).await;
    let admin = w.repo.admin();
    let none = admin.reset_bucket(BucketReset::new("k", "r")).await.unwrap();
    assert_eq!((none.shards, none.amounts.len()), (0, 2));
    assert!(w.bucket("k", "r").await.is_none());
    assert!(operations(&w).await.is_empty(), "nothing was written");
    // With a key, that nothing was there is what the first call did.
    let ticket = || BucketReset::new("k", "r").limit("rpd").idempotency_key("t");
    assert_eq!(admin.reset_bucket(ticket()).await.unwrap().shards, 0);
    take(&w.limiter, "rpd", 100).await.unwrap();
    assert_eq!(admin.reset_bucket(ticket()).await.unwrap().shards, 0);
    assert!(is_refused(take(&w.limiter, "rpd", 1).await));

    let w = with([quota(), Limit::per_day("tpd", 10)]).await;
    let admin = w.repo.admin();
    let full = admin.top_up(TopUp::new("k", "r").add("tpd", 5)).await.unwrap();
    assert_eq!((full.shards, amounts(&full)["tpd"]), (0, 0));
    let order = TopUp::new("k", "r")
        .add("tpd", 5)
        .add("rpd", 20)
        .idempotency_key("o");
    let done = admin.top_up(order.clone()).await.unwrap();
    assert_eq!(
        (done.shards, amounts(&done)),
        (1, BTreeMap::from([("rpd", 20), ("tpd", 0)]))
    );
    assert_eq!(admin.top_up(order).await.unwrap(), done);
    assert_eq!(w.limiter.available("k", "r").await.unwrap()["rpd"], 120);
    take(&w.limiter, "rpd", 120).await.unwrap();
    assert!(is_refused(take(&w.limiter, "rpd", 1).await));
}

#[tokio::test]
async fn a_disabled_entity_is_reset_and_has_no_bucket_created() {
    let w = with([quota()]).await;
    let admin = w.repo.admin();
    take(&w.limiter, "rpd", 100).await.unwrap();
    admin.set_resource_access("r", Access::Disabled).await.unwrap();
    admin.reset_bucket(BucketReset::new("k", "r")).await.unwrap();
    assert!(matches!(
        take(&w.limiter, "rpd", 1).await,
        Err(Error::Disabled { .. })
    ));
    let order = TopUp::new("other", "r").add("rpd", 1);
    let err = admin.top_up(order).await.unwrap_err();
    assert!(
        matches!(
            err,
            Error::Disabled {
                level: "resource",
                ..
            }
        ),
        "{err}"
    );
    admin.set_resource_access("r", None).await.unwrap();
    take(&w.limiter, "rpd", 100).await.unwrap();
}

#[tokio::test]
async fn what_was_added_outlives_the_bucket_s_expiry() {
    let w = with([Limit::session("ses", 5, Duration::from_hours(5))]).await;
    let admin = w.repo.admin();
    admin.top_up(TopUp::new("k", "r").add("ses", 2)).await.unwrap();
    let begun = START / 1000;
    assert!(w.bucket("k", "r").await.unwrap().ttl.unwrap() >= begun + 5 * 3600);
    w.clock.advance(Duration::from_hours(30));
    admin.top_up(TopUp::new("k", "r").add("ses", 2)).await.unwrap();
    assert!(w.bucket("k", "r").await.unwrap().ttl.unwrap() >= begun + 35 * 3600);
    // Under limits of its own it does not expire.
    let own = Limit::session("ses", 5, Duration::from_hours(5));
    admin.set_entity_limits("k", ALL_RESOURCES, [own]).await.unwrap();
    w.poke("k", "r", &[("ttl", Some(Value::int(begun + 40 * 3600)))])
        .await;
    admin.top_up(TopUp::new("k", "r").add("ses", 2)).await.unwrap();
    assert_eq!(w.bucket("k", "r").await.unwrap().ttl, None);
}

#[tokio::test]
async fn a_key_belongs_to_one_life_of_the_entity() {
    let w = with([quota()]).await;
    let admin = w.repo.admin();
    let order = || TopUp::new("k", "r").add("rpd", 10).idempotency_key("order-1");
    admin.create_entity(NewEntity::new("k")).await.unwrap();
    take(&w.limiter, "rpd", 100).await.unwrap();
    admin.top_up(order()).await.unwrap();
    let kept = operations(&w).await;
    admin.delete_entity("k").await.unwrap();
    assert!(operations(&w).await.is_empty(), "they go with the entity");
    // One that was not found when the entity was deleted.
    admin.create_entity(NewEntity::new("k")).await.unwrap();
    take(&w.limiter, "rpd", 100).await.unwrap();
    let put = zae_limiter_core::table::Put {
        item: kept[0].clone(),
        condition: zae_limiter_core::table::Condition::ALWAYS,
    };
    assert!(w.repo.table().put(put).await.unwrap().is_applied());
    admin.top_up(order()).await.unwrap();
    admin.top_up(order()).await.unwrap();
    assert_eq!(w.balance("k", "r", "rpd").await, 10_000);
}

#[tokio::test]
async fn functions_that_would_cut_what_is_added_keep_it_from_being_added() {
    let w = with([quota(), Limit::per_day("tpd", 10)]).await;
    take(&w.limiter, "rpd", 10).await.unwrap();
    take(&w.limiter, "tpd", 10).await.unwrap();
    w.functions_of("0.16.0").await;
    let admin = w.repo.admin();
    let order = || TopUp::new("k", "r").add("rpd", 1).idempotency_key("o");
    let err = admin.top_up(order()).await.unwrap_err();
    let Error::VersionMismatch(why) = err else {
        panic!("{err}")
    };
    assert!(
        why.contains("'top_up'") && why.contains("predate 0.17.0"),
        "{why}"
    );
    assert!(operations(&w).await.is_empty());
    // A rate and a reset need no version.
    admin.top_up(TopUp::new("k", "r").add("tpd", 1)).await.unwrap();
    admin.reset_bucket(BucketReset::new("k", "r")).await.unwrap();
    let minimum = async || {
        w.repo
            .stack_handle()
            .version()
            .await
            .unwrap()
            .unwrap()
            .client_minimum
    };
    assert_eq!(minimum().await, "0.0.0");
    w.functions_of("0.17.0").await;
    admin.top_up(order()).await.unwrap();
    assert_eq!(minimum().await, "0.17.0");
}

#[tokio::test]
async fn each_is_in_the_audit_log() {
    let w = World::with(|builder| builder.principal("support@example.com")).await;
    let admin = w.repo.admin();
    admin.set_system_defaults([quota()], None).await.unwrap();
    take(&w.limiter, "rpd", 10).await.unwrap();
    admin.top_up(TopUp::new("k", "r").add("rpd", 5)).await.unwrap();
    w.clock.advance(Duration::from_secs(1));
    admin
        .reset_bucket(BucketReset::new("k", "r").idempotency_key("t"))
        .await
        .unwrap();
    let events = admin.audit_events("k", None).unwrap().all().await.unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event.action.as_str(),
                event.principal.as_deref(),
                event.resource.as_deref(),
                &event.details,
            )
        })
        .collect();
    let details = |amount: i64| {
        Item::from([
            (
                "amounts".into(),
                Value::M(Item::from([("rpd".into(), Value::int(amount))])),
            ),
            ("shards".into(), Value::int(1)),
        ])
    };
    let who = Some("support@example.com");
    assert_eq!(
        told,
        [
            ("bucket_reset", who, Some("r"), &details(5)),
            ("bucket_topped_up", who, Some("r"), &details(5)),
        ]
    );
}

#[tokio::test]
async fn bad_calls_name_the_field_and_write_nothing() {
    let w = with([quota()]).await;
    take(&w.limiter, "rpd", 10).await.unwrap();
    let admin = w.repo.admin();
    let field = |err: Error| match err {
        Error::InvalidInput(err) => err.field().to_owned(),
        other => panic!("{other}"),
    };
    let table = w.repo.table();
    let before = table.get(w.id("k", "r").key(0), true).await.unwrap();
    for (reset, named) in [
        (BucketReset::new("k#", "r"), "entity_id"),
        (BucketReset::new("k", ""), "resource"),
        (BucketReset::new("k", "r").limit("a b"), "limits"),
        (BucketReset::new("k", "r").limit("nope"), "limits"),
        (
            BucketReset::new("k", "r").idempotency_key("a#b"),
            "idempotency_key",
        ),
    ] {
        assert_eq!(field(admin.reset_bucket(reset).await.unwrap_err()), named);
    }
    for (order, named) in [
        (TopUp::new("k", "r"), "amounts"),
        (TopUp::new("k", "r").add("rpd", 0), "amounts.rpd"),
        (TopUp::new("k", "r").add("rpd", u64::MAX), "amounts.rpd"),
        (TopUp::new("k", "r").add("a b", 1), "amounts"),
        (TopUp::new("k", "r").add("nope", 1), "amounts"),
        (
            TopUp::new("k", "r").add("rpd", 1).idempotency_key(""),
            "idempotency_key",
        ),
    ] {
        assert_eq!(field(admin.top_up(order).await.unwrap_err()), named);
    }
    assert_eq!(table.get(w.id("k", "r").key(0), true).await.unwrap(), before);
    let err = World::new()
        .await
        .repo
        .admin()
        .reset_bucket(BucketReset::new("k", "r"))
        .await;
    assert!(matches!(err, Err(Error::NotConfigured { .. })));
}
