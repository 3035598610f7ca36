//! Several resources in one acquire: what callers see, what it costs, and what goes back.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use zae_limiter::table::{Table, TableFuture};
use zae_limiter::testing::TestTable;
use zae_limiter::{
    Acquire, Error, Lease, Limit, NewEntity, OnUnavailable, Percent, Prefetch, RateLimiter, Repository,
};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Op, Value};

use crate::world::{Fault, World, suffer};

/// A table that fails the writes of one resource.
#[derive(Clone)]
struct Picky {
    inner: Arc<dyn Table>,
    resource: &'static str,
    fault: Arc<Mutex<Fault>>,
}

impl fmt::Debug for Picky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Picky")
    }
}

impl Picky {
    fn over(world: &World, resource: &'static str) -> Self {
        Self {
            inner: world.repo.table(),
            resource,
            fault: Arc::new(Mutex::new(Fault::None)),
        }
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }
}

impl Table for Picky {
    fn call(&self, op: Op) -> TableFuture {
        let is_its = match &op {
            Op::Update(update) => {
                BucketId::parse(&update.key).is_some_and(|(id, _)| id.resource.as_str() == self.resource)
            }
            _ => false,
        };
        let fault = if is_its {
            *self.fault.lock().unwrap()
        } else {
            Fault::None
        };
        suffer(&self.inner, fault, op)
    }
}

async fn configure(repo: &Repository) {
    let admin = repo.admin();
    let model = [Limit::per_minute("rpm", 100), Limit::per_minute("tpm", 10_000)];
    admin.set_resource_defaults("gpt-4", model).await.unwrap();
    admin
        .set_resource_defaults("budget", [Limit::per_minute("usd", 60)])
        .await
        .unwrap();
}

async fn world() -> World {
    let world = World::new().await;
    configure(&world.repo).await;
    world
}

/// One request, and so much of the budget.
fn call(limiter: &RateLimiter, entity: &str, usd: u64) -> Acquire {
    limiter
        .acquire(entity, "gpt-4")
        .consume("rpm", 1)
        .also("budget", [("usd", usd)])
}

async fn spend(limiter: &RateLimiter, entity: &str, usd: u64) {
    call(limiter, entity, usd).await.unwrap().commit().await.unwrap();
}

/// Whole tokens of the two buckets.
async fn left(w: &World, entity: &str) -> (i128, i128) {
    let rpm = w.balance(entity, "gpt-4", "rpm").await;
    (rpm / 1000, w.balance(entity, "budget", "usd").await / 1000)
}

#[tokio::test]
async fn warm_resources_cost_one_write_each_and_nothing_else() {
    let w = world().await;
    // Two batches of five records, the second one without the entity's and the system's, which are cached by then if it is read
    // later; two refused debits and two transactions.
    let ((), cold) = w.cost(spend(&w.limiter, "k", 1)).await;
    assert_eq!(
        (cold.updates, cold.refused, cold.transactions),
        (2, 2, 2),
        "{cold:?}"
    );
    assert_eq!(cold.reads(), 2, "{cold:?}");
    let ((), warm) = w.cost(spend(&w.limiter, "k", 1)).await;
    assert_eq!(
        (warm.updates, warm.refused, warm.requests()),
        (2, 0, 2),
        "{warm:?}"
    );
    assert_eq!(warm.write_units.to_bits(), 4.0_f64.to_bits());
    assert_eq!(left(&w, "k").await, (98, 58));
}

#[tokio::test(start_paused = true)]
async fn the_writes_of_all_resources_are_sent_in_one_round_trip() {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    configure(&repo).await;
    repo.admin()
        .set_resource_defaults("gpu", [Limit::per_minute("sec", 60)])
        .await
        .unwrap();
    let limiter = RateLimiter::new(repo);
    let three = || call(&limiter, "k", 1).also("gpu", [("sec", 3)]);
    three().await.unwrap().commit().await.unwrap();
    table.delay(Duration::from_millis(20));
    let (before, began) = (table.requests(), Instant::now());
    three().await.unwrap().commit().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_millis(20));
    assert_eq!(table.requests().since(&before).requests(), 3);
}

#[tokio::test]
async fn what_the_second_resource_refuses_is_given_back_to_the_first() {
    let w = world().await;
    spend(&w.limiter, "k", 50).await;
    // Another process sees it first in the table, and then in its cache.
    let other = w.another().await;
    for is_cached in [false, true] {
        let refused = other
            .limiter
            .acquire("k", "gpt-4")
            .consume("rpm", 3)
            .consume("tpm", 700);
        let refused = refused.also("budget", [("usd", 20)]).await;
        let Err(Error::RateLimitExceeded(why)) = refused else {
            panic!("{refused:?}");
        };
        let named: Vec<_> = why
            .statuses()
            .iter()
            .map(|s| (s.resource.as_str(), s.limit_name.as_str()))
            .collect();
        assert_eq!(named, [("gpt-4", "rpm"), ("gpt-4", "tpm"), ("budget", "usd")]);
        assert_eq!(why.violations().count(), 1);
        // 10 of 60 come in 10 seconds.
        assert_eq!(why.retry_after().unwrap().as_secs(), 10);
        assert_eq!(left(&w, "k").await, (99, 10), "cached: {is_cached}");
        assert_eq!(w.balance("k", "gpt-4", "tpm").await, 10_000_000);
        assert_eq!(w.consumed("k", "gpt-4", "rpm").await, 1000);
    }
    assert_eq!(other.repo.cache_stats().local_rejections, 1);
}

#[tokio::test]
async fn a_disabled_resource_is_the_error_and_nothing_stays_taken() {
    let w = world().await;
    spend(&w.limiter, "k", 1).await;
    w.poke("k", "budget", &[("disabled", Some(Value::Bool(true)))])
        .await;
    match call(&w.limiter, "k", 1).await {
        Err(Error::Disabled {
            entity,
            resource,
            level,
        }) => {
            assert_eq!(
                (entity.as_str(), resource.as_str(), level),
                ("k", "budget", "bucket")
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(left(&w, "k").await, (99, 59));
}

#[tokio::test]
async fn parents_are_debited_for_each_resource() {
    let w = world().await;
    let admin = w.repo.admin();
    admin.create_entity(NewEntity::new("proj")).await.unwrap();
    admin
        .create_entity(NewEntity::new("key").parent("proj").cascade(true))
        .await
        .unwrap();
    spend(&w.limiter, "key", 7).await;
    let ((), warm) = w.cost(spend(&w.limiter, "key", 7)).await;
    assert_eq!((warm.updates, warm.requests()), (4, 4));
    assert_eq!(
        (left(&w, "key").await, left(&w, "proj").await),
        ((98, 46), (98, 46))
    );
    call(&w.limiter, "key", 1)
        .await
        .unwrap()
        .rollback()
        .await
        .unwrap();
    assert_eq!(
        (left(&w, "key").await, left(&w, "proj").await),
        ((98, 46), (98, 46))
    );
}

#[tokio::test]
async fn a_lease_adjusts_each_resource_for_itself() {
    let w = world().await;
    let lease = w
        .limiter
        .acquire("k", "gpt-4")
        .consume("rpm", 1)
        .consume("tpm", 500);
    let mut lease = lease.also("budget", [("usd", 10)]).await.unwrap();
    let named: Vec<_> = lease.resources().iter().map(ToString::to_string).collect();
    assert_eq!(
        (lease.resource().as_str(), named),
        ("gpt-4", vec!["gpt-4".to_owned(), "budget".to_owned()])
    );
    lease.adjust_to("tpm", 620).unwrap();
    let mut budget = lease.on("budget").unwrap();
    assert_eq!(
        (budget.resource().as_str(), budget.consumed("usd")),
        ("budget", 10)
    );
    budget.release("usd", 4).unwrap();
    budget.adjust("usd", 1).unwrap();
    budget.consume("usd", 2).await.unwrap();
    assert_eq!((budget.consumed("usd"), budget.consumed("tpm")), (9, 0));
    assert!(!budget.is_bypassed() && budget.overdrawn().is_empty());
    assert_eq!((lease.consumed("tpm"), lease.consumed("usd")), (620, 0));
    // Neither is a limit of the other resource, and there is no third.
    for (wrong, field) in [
        (lease.adjust("usd", 1), "adjust.usd"),
        (lease.on("budget").unwrap().adjust("tpm", 1), "adjust.tpm"),
        (lease.on("gpu").map(|_| ()), "resource"),
    ] {
        assert!(
            matches!(&wrong, Err(Error::InvalidInput(err)) if err.field() == field),
            "{wrong:?}"
        );
    }
    let (ended, cost) = w.cost(lease.commit()).await;
    ended.unwrap();
    assert_eq!(cost.updates, 2, "one write for each bucket that changes");
    assert_eq!(
        (left(&w, "k").await, w.balance("k", "gpt-4", "tpm").await),
        ((99, 51), 9_380_000)
    );
}

#[tokio::test]
async fn a_rollback_or_a_drop_gives_all_resources_back() {
    let w = world().await;
    spend(&w.limiter, "k", 1).await;
    call(&w.limiter, "k", 5).await.unwrap().rollback().await.unwrap();
    assert_eq!(left(&w, "k").await, (99, 59));
    drop(call(&w.limiter, "k", 5).await.unwrap());
    assert!(w.repo.drain().await.is_complete());
    assert_eq!(left(&w, "k").await, (99, 59));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_keeps_nothing() {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    configure(&repo).await;
    let limiter = RateLimiter::new(repo.clone());
    spend(&limiter, "k", 1).await;
    table.delay(Duration::from_millis(20));
    for millis in [0, 5, 19, 21] {
        let attempt = tokio::time::timeout(Duration::from_millis(millis), call(&limiter, "k", 5).send());
        drop(attempt.await);
        assert!(repo.drain().await.is_complete());
        let both = (
            limiter.available("k", "gpt-4").await.unwrap(),
            limiter.available("k", "budget").await.unwrap(),
        );
        assert!(
            both.0["rpm"] >= 99 && both.1["usd"] >= 59,
            "after {millis} ms: {both:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_for_all_resources_and_in_turn_with_calls_for_one() {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    configure(&repo).await;
    let limiter = RateLimiter::new(repo);
    spend(&limiter, "k", 60).await;
    let began = Instant::now();
    let told = Arc::new(Mutex::new(Vec::new()));
    let waiting = call(&limiter, "k", 30).on_wait({
        let told = Arc::clone(&told);
        move |_, wait| told.lock().unwrap().push(wait.as_secs())
    });
    let waiting = tokio::spawn(waiting.until_ready());
    tokio::time::sleep(Duration::from_millis(5)).await;
    // One for the model alone is not held up by it; one for the budget waits behind it; and one for both waits for it.
    let alone = limiter
        .acquire("k", "gpt-4")
        .consume("rpm", 1)
        .wait(Duration::from_secs(1));
    alone.await.unwrap().commit().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    let behind = limiter
        .acquire("k", "budget")
        .consume("usd", 1)
        .wait(Duration::from_secs(2));
    assert!(matches!(behind.await, Err(Error::RateLimitExceeded(_))));
    let other_order = limiter
        .acquire("k", "budget")
        .consume("usd", 10)
        .also("gpt-4", [("rpm", 1)]);
    let other_order = tokio::spawn(other_order.until_ready());
    waiting.await.unwrap().unwrap().commit().await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 30);
    other_order.await.unwrap().unwrap().commit().await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 40);
    let told = told.lock().unwrap();
    assert!(
        !told.is_empty() && told.iter().all(|secs| (29..=30).contains(secs)),
        "{told:?}"
    );
}

/// A limiter whose budget's writes fail in this way, with both buckets in its cache.
async fn failing(w: &World, fault: Fault, policy: OnUnavailable) -> (RateLimiter, Picky) {
    let table = Picky::over(w, "budget");
    let builder = Repository::builder()
        .custom_table(Arc::new(table.clone()))
        .clock(w.clock.clone())
        .acquire_timeout(Duration::from_millis(200))
        .on_unavailable(policy);
    let limiter = RateLimiter::new(builder.open().await.unwrap());
    spend(&limiter, "k", 1).await;
    table.set(fault);
    (limiter, table)
}

#[tokio::test(start_paused = true)]
async fn the_outage_of_one_resource_is_that_of_the_call() {
    for fault in [Fault::LostBefore, Fault::Throttled] {
        let w = world().await;
        let (limiter, _) = failing(&w, fault, OnUnavailable::Block).await;
        let refused = call(&limiter, "k", 5).await;
        match refused {
            Err(Error::Unavailable(down)) => {
                assert!(down.in_doubt() || fault == Fault::Throttled, "{fault:?}: {down}");
            }
            other => panic!("{fault:?}: {other:?}"),
        }
        limiter.repository().drain_within(Duration::from_secs(5)).await;
        assert_eq!(
            left(&w, "k").await,
            (99, 59),
            "{fault:?}: the other resource is given back"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn missing_permissions_for_one_resource_are_no_outage() {
    let w = world().await;
    let (limiter, _) = failing(&w, Fault::Denied, OnUnavailable::Allow).await;
    let refused = call(&limiter, "k", 5).await;
    assert!(
        matches!(refused, Err(Error::PermissionDenied { .. })),
        "{refused:?}"
    );
    assert_eq!(left(&w, "k").await, (99, 59));
}

#[tokio::test(start_paused = true)]
async fn a_policy_admits_all_resources_without_the_table() {
    let w = world().await;
    let (limiter, table) = failing(&w, Fault::LostBefore, OnUnavailable::Allow).await;
    let mut lease = call(&limiter, "k", 5).await.unwrap();
    assert!(lease.is_degraded());
    lease.on("budget").unwrap().adjust("usd", 1).unwrap();
    lease.commit().await.unwrap();
    limiter.repository().drain().await;
    assert_eq!(left(&w, "k").await, (99, 59));
    table.set(Fault::None);
}

#[tokio::test(start_paused = true)]
async fn limits_in_memory_hold_for_each_resource() {
    let w = world().await;
    let half = OnUnavailable::Degrade(Percent::new(50).unwrap());
    let (limiter, _table) = failing(&w, Fault::LostBefore, half).await;
    let degraded = async |usd: u64| -> Result<Lease, Error> {
        let lease = call(&limiter, "k", usd).await?;
        assert!(lease.is_degraded());
        Ok(lease)
    };
    let mut lease = degraded(20).await.unwrap();
    // Half of 60: 10 are left, and 5 of them are given back.
    lease.on("budget").unwrap().release("usd", 5).unwrap();
    lease.on("budget").unwrap().consume("usd", 1).await.unwrap();
    lease.commit().await.unwrap();
    match degraded(15).await {
        Err(Error::RateLimitExceeded(why)) => {
            let worst = why.worst().unwrap();
            assert_eq!((worst.resource.as_str(), worst.available), ("budget", 14));
            assert_eq!(why.statuses().len(), 2);
        }
        other => panic!("{other:?}"),
    }
    degraded(14).await.unwrap().rollback().await.unwrap();
    degraded(14).await.unwrap().commit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_at_once_take_exactly_what_there_is() {
    let w = world().await;
    for delay in [Duration::ZERO, Duration::from_millis(50)] {
        let builder = Repository::builder()
            .custom_table(w.repo.table())
            .clock(w.clock.clone());
        let limiter = RateLimiter::new(builder.correction_delay(delay).open().await.unwrap());
        let entity = format!("k{}", delay.as_millis());
        spend(&limiter, &entity, 0).await;
        // 60 of the budget, and 99 requests: twenty calls of three can be admitted.
        let calls = join_all((0..40).map(|_| call(&limiter, &entity, 3).send())).await;
        let mut admitted = 0;
        for lease in calls.into_iter().flatten() {
            lease.commit().await.unwrap();
            admitted += 1;
        }
        assert!(limiter.repository().drain().await.is_complete());
        assert_eq!(admitted, 20);
        assert_eq!(left(&w, &entity).await, (79, 0), "with a delay of {delay:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_call_carries_the_corrections_of_each_resource() {
    let w = world().await;
    let builder = Repository::builder()
        .custom_table(w.repo.table())
        .clock(w.clock.clone());
    let repo = builder
        .correction_delay(Duration::from_secs(5))
        .open()
        .await
        .unwrap();
    let limiter = RateLimiter::new(repo);
    spend(&limiter, "k", 0).await;
    let mut lease = call(&limiter, "k", 10).await.unwrap();
    lease.release("rpm", 1).unwrap();
    lease.on("budget").unwrap().release("usd", 8).unwrap();
    let before = w.repo.request_cost();
    let ending = tokio::spawn(lease.commit());
    tokio::task::yield_now().await;
    let next = call(&limiter, "k", 1).await.unwrap();
    ending.await.unwrap().unwrap();
    next.commit().await.unwrap();
    assert_eq!(w.repo.request_cost().since(&before).requests(), 2);
    assert_eq!(left(&w, "k").await, (98, 57));
}

#[tokio::test(start_paused = true)]
async fn tokens_taken_ahead_are_left_alone_but_are_not_missing() {
    let w = world().await;
    let builder = Repository::builder()
        .custom_table(w.repo.table())
        .clock(w.clock.clone());
    let repo = builder.prefetch(Prefetch::calls(50)).open().await.unwrap();
    let limiter = RateLimiter::new(repo.clone());
    for _ in 0..12 {
        let lease = limiter.acquire("k", "gpt-4").consume("rpm", 1).await.unwrap();
        lease.commit().await.unwrap();
    }
    let held = repo.prefetched().tokens["rpm"];
    assert!(held > 0);
    spend(&limiter, "k", 1).await;
    assert_eq!(repo.prefetched().tokens["rpm"], held);
    // What the process holds would be missing: it goes back first.
    let rest = limiter
        .acquire("k", "gpt-4")
        .consume("rpm", 87)
        .also("budget", [("usd", 1)]);
    rest.await.unwrap().commit().await.unwrap();
    assert!(repo.drain().await.is_complete());
    assert_eq!(left(&w, "k").await, (0, 58));
}

#[tokio::test]
async fn mistakes_are_told_before_anything_is_sent() {
    let w = world().await;
    let base = || w.limiter.acquire("k", "gpt-4").consume("rpm", 1);
    let none: [(&str, u64); 0] = [];
    let many = (1..=16).fold(base(), |call, n| call.also(format!("resource-{n}"), [("n", 1)]));
    let fifteen = (1..=15).fold(base(), |call, n| call.also(format!("resource-{n}"), [("n", 1)]));
    let cases = [
        (base().also("gpt-4", [("rpm", 1)]), "also", "gpt-4"),
        (
            base().also("budget", [("usd", 1)]).also("budget", [("usd", 1)]),
            "also",
            "budget",
        ),
        (base().also("bad/#", [("usd", 1)]), "also", "bad/#"),
        (base().also("", [("usd", 1)]), "also", ""),
        (base().also("budget", none), "also.budget", "nothing"),
        (
            base().also("budget", [("usd", 1), ("usd", 2)]),
            "also.budget",
            "usd",
        ),
        (base().also("budget", [("", 1)]), "also.budget", ""),
        (
            base().also("budget", [("usd", u64::MAX)]),
            "also.budget.usd",
            "18446744073709551615",
        ),
        (
            base()
                .also("budget", [("usd", 1)])
                .limits([Limit::per_day("rpm", 4)]),
            "also",
            "budget",
        ),
        (many, "also", "resource-16"),
        (base().also("budget", [("eur", 1)]), "also.budget.eur", "1"),
    ];
    for (call, field, value) in cases {
        let (result, cost) = w.cost(call.send()).await;
        match result {
            Err(Error::InvalidInput(err)) => assert_eq!((err.field(), err.value()), (field, value), "{err}"),
            other => panic!("{field} {value}: {other:?}"),
        }
        assert_eq!(cost.updates + cost.transactions, 0);
    }
    match fifteen.await {
        Err(Error::NotConfigured { entity, resource }) => {
            assert_eq!((entity.as_str(), resource.as_str()), ("k", "resource-1"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_blocking_lease_has_its_resources() {
    use zae_limiter::blocking;
    let repo = blocking::Repository::in_memory().unwrap();
    repo.admin()
        .set_system_defaults([Limit::per_day("n", 10)], None)
        .unwrap();
    let limiter = blocking::RateLimiter::new(repo);
    let mut lease = limiter
        .acquire("k", "a")
        .consume("n", 1)
        .also("b", [("n", 4)])
        .send()
        .unwrap();
    assert_eq!(lease.resources().len(), 2);
    let mut part = lease.on("b").unwrap();
    part.consume("n", 1).unwrap();
    part.release("n", 3).unwrap();
    part.adjust("n", 1).unwrap();
    part.adjust_to("n", 6).unwrap();
    assert_eq!((part.resource().as_str(), part.consumed("n")), ("b", 6));
    assert!(part.overdrawn().is_empty() && !part.is_bypassed());
    lease.commit().unwrap();
    assert_eq!(limiter.available("k", "a").unwrap()["n"], 9);
    assert_eq!(limiter.available("k", "b").unwrap()["n"], 4);
}
