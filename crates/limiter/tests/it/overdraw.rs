//! Calls that no limit refuses: what is not there becomes debt.

use std::time::Duration;

use zae_limiter::table::TableExt as _;
use zae_limiter::{ALL_RESOURCES, Access, Error, Limit, NewEntity, Prefetch};
use zae_limiter_core::Bucket;
use zae_limiter_core::table::Value;

use crate::world::World;

/// Charges the tokens, and says what is left then.
async fn charge(w: &World, entity: &str, tokens: u64) -> i64 {
    let call = w.limiter.acquire(entity, "r").consume("tpm", tokens).overdraw();
    call.await.unwrap().commit().await.unwrap();
    left(w, entity).await
}

async fn left(w: &World, entity: &str) -> i64 {
    w.limiter.available(entity, "r").await.unwrap()["tpm"]
}

async fn ask(w: &World, entity: &str, tokens: u64) -> bool {
    match w.limiter.acquire(entity, "r").consume("tpm", tokens).await {
        Ok(lease) => {
            lease.commit().await.unwrap();
            true
        }
        Err(Error::RateLimitExceeded(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_is_not_there_becomes_debt_and_is_repaid() {
    let w = World::configured().await;
    // The first use creates the bucket.
    assert_eq!(charge(&w, "k", 1500).await, -500);
    assert_eq!(charge(&w, "k", 2000).await, -2500);
    for tokens in [0, 1] {
        assert!(!ask(&w, "k", tokens).await);
    }
    // 1000 a minute.
    w.clock.advance(Duration::from_secs(149));
    assert!(!ask(&w, "k", 0).await);
    w.clock.advance(Duration::from_secs(1));
    assert!(ask(&w, "k", 0).await && !ask(&w, "k", 1).await);
    w.clock.advance(Duration::from_mins(10));
    assert_eq!(left(&w, "k").await, 1000);
    // A rest that covers it is debited as usual, and one that does not is not kept from others.
    assert_eq!(charge(&w, "k", 300).await, 700);
    assert!(ask(&w, "k", 700).await);
    assert_eq!(w.consumed("k", "r", "tpm").await, 4_500_000);
}

#[tokio::test]
async fn a_parent_is_charged_as_well_and_a_rollback_gives_back() {
    let w = World::configured().await;
    let admin = w.repo.admin();
    admin.create_entity(NewEntity::new("p")).await.unwrap();
    admin
        .create_entity(NewEntity::new("k").parent("p").cascade(true))
        .await
        .unwrap();
    admin
        .set_entity_limits("p", "r", [Limit::per_minute("tpm", 100)])
        .await
        .unwrap();
    // Of both, the least is left.
    assert_eq!(charge(&w, "k", 400).await, -300);
    let balances = async || {
        let (own, above) = (w.balance("k", "r", "tpm").await, w.balance("p", "r", "tpm").await);
        (own / 1000, above / 1000)
    };
    assert_eq!(balances().await, (600, -300));
    assert!(!ask(&w, "k", 1).await);
    let lease = w
        .limiter
        .acquire("k", "r")
        .consume("tpm", 5000)
        .overdraw()
        .await
        .unwrap();
    assert_eq!(balances().await, (-4400, -5300));
    lease.rollback().await.unwrap();
    assert_eq!(balances().await, (600, -300));
}

#[tokio::test]
async fn it_refuses_what_no_wait_and_no_debt_would_change() {
    let w = World::configured().await;
    let admin = w.repo.admin();
    admin
        .set_entity_access("off", ALL_RESOURCES, Access::Disabled)
        .await
        .unwrap();
    let call = |entity: &str| w.limiter.acquire(entity, "r").consume("tpm", 1).overdraw();
    assert!(matches!(call("off").await, Err(Error::Disabled { .. })));
    let unknown = w.limiter.acquire("k", "r").consume("none", 1).overdraw().await;
    assert!(matches!(unknown, Err(Error::InvalidInput(_))));
    admin.set_system_concurrency(1).await.unwrap();
    let _held = w.limiter.acquire("k", "r").in_flight().await.unwrap();
    assert!(matches!(
        call("k").in_flight().await,
        Err(Error::ConcurrencyExceeded(_))
    ));
    // It does not wait.
    charge(&w, "k", 10_000).await;
    call("k")
        .wait(Duration::from_hours(1))
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
}

#[tokio::test]
async fn limits_of_a_call_and_tokens_taken_ahead() {
    let w = World::with(|builder| builder.prefetch(Prefetch::calls(100))).await;
    w.configure().await;
    assert!(ask(&w, "k", 1).await);
    assert_eq!(charge(&w, "k", 2000).await, -1001);
    // A call that brings its limit.
    let own = || Limit::per_day("own", 10);
    let of_own = |tokens| {
        w.limiter
            .acquire("k", "other")
            .limits([own()])
            .consume("own", tokens)
    };
    of_own(25).overdraw().await.unwrap().commit().await.unwrap();
    assert!(matches!(of_own(1).await, Err(Error::RateLimitExceeded(_))));
}

/// The balances of all shards together.
async fn total(w: &World) -> i128 {
    let mut total = 0;
    for shard in 0..8 {
        let item = w.repo.table().get(w.id("k", "r").key(shard), true).await.unwrap();
        let bucket = item.map(|item| Bucket::decode(&item).unwrap());
        total += bucket.map_or(0, |bucket| bucket.limit("tpm").unwrap().balance.0 / 1000);
    }
    total
}

/// Several processes charge and ask, also on buckets that split: all that was taken is missing, and nothing else.
#[tokio::test]
async fn sums_are_those_of_a_model() {
    for seed in 0..12_u64 {
        let mut random = seed;
        let mut below = |bound: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let w = World::new().await;
        // Nothing is gained within the test.
        let limit = Limit::per_day("tpm", 100_000);
        w.repo.admin().set_system_defaults([limit], None).await.unwrap();
        let other = w.another().await;
        let splits = seed % 2 == 0;
        let mut sum = 0_i64;
        for step in 0..60 {
            let process = if below(2) == 0 { &w } else { &other };
            let tokens = below(6_000);
            let amount = tokens.cast_signed();
            let rest = 100_000 - sum;
            if below(3) == 0 {
                let call = process
                    .limiter
                    .acquire("k", "r")
                    .consume("tpm", tokens)
                    .overdraw();
                call.await.unwrap().commit().await.unwrap();
                sum += amount;
            } else if ask(process, "k", tokens).await {
                // Debt of one shard does not keep what another one holds.
                assert!(amount <= rest || splits, "seed {seed}, step {step}");
                sum += amount;
            } else {
                assert!(rest < amount, "seed {seed}, step {step}: {tokens} of {rest}");
            }
            if step == 20 && splits {
                w.poke("k", "r", &[("b_wcu_tk", Some(Value::int(0)))]).await;
            }
            assert_eq!(
                total(&w).await,
                i128::from(100_000 - sum),
                "seed {seed}, step {step}"
            );
        }
        assert!(sum > 100_000, "seed {seed}: {sum}");
    }
}

/// At the same time: what is charged counts in full, and what is asked is admitted up to the rest.
#[tokio::test(flavor = "multi_thread")]
async fn charges_and_questions_at_the_same_time() {
    let w = World::new().await;
    let limit = Limit::per_day("tpm", 1000);
    w.repo.admin().set_system_defaults([limit], None).await.unwrap();
    let mut all = tokio::task::JoinSet::new();
    for number in 0..200_u64 {
        let limiter = w.limiter.clone();
        all.spawn(async move {
            let call = limiter.acquire("k", "r").consume("tpm", 20);
            let is_charge = number % 4 == 0;
            let call = if is_charge { call.overdraw() } else { call };
            match call.await {
                Ok(lease) => {
                    lease.commit().await.unwrap();
                    20
                }
                Err(Error::RateLimitExceeded(_)) if !is_charge => 0,
                Err(other) => panic!("{other}"),
            }
        });
    }
    let taken: i64 = all.join_all().await.into_iter().sum();
    assert!(taken >= 50 * 20);
    assert_eq!(left(&w, "k").await, 1000 - taken);
    // Only charges make debt: all 50 are 1000.
    assert!((0..=1000).contains(&(taken - 1000)), "{taken}");
}
