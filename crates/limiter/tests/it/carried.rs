//! Corrections of leases that wait for a debit which carries them.

use std::time::Duration;

use tokio::time::Instant;
use zae_limiter::{Error, Lease, NewEntity, RateLimiter, Repository};

use crate::groups::bucket;

const DELAY: Duration = Duration::from_secs(5);

/// Takes tokens of the bucket `k`, `r`.
async fn lease(limiter: &RateLimiter, tokens: u64) -> Lease {
    limiter.acquire("k", "r").consume("tpd", tokens).await.unwrap()
}

/// Ends a lease with so many tokens used. It returns once the correction waits.
async fn used(mut lease: Lease, tokens: u64) -> tokio::task::JoinHandle<Result<(), Error>> {
    lease.adjust_to("tpd", tokens).unwrap();
    let ending = tokio::spawn(lease.commit());
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    ending
}

#[tokio::test(start_paused = true)]
async fn the_next_debit_carries_the_corrections_of_all_leases_that_have_ended() {
    let (world, table, limiter) = bucket(1000, |builder| builder.correction_delay(DELAY)).await;
    let before = table.writes();
    let leases = [
        lease(&limiter, 500).await,
        lease(&limiter, 500).await,
        lease(&limiter, 500).await,
    ];
    assert_eq!(table.writes() - before, 3);
    let mut endings = Vec::new();
    // The second has used more than it took.
    for (lease, tokens) in leases.into_iter().zip([100, 900, 0]) {
        endings.push(used(lease, tokens).await);
    }
    assert_eq!(world.balance("k", "r", "tpd").await, 1_000_000_000 - 1_500_000);
    let began = Instant::now();
    let last = lease(&limiter, 50).await;
    assert_eq!(began.elapsed(), Duration::from_millis(20));
    assert_eq!(table.writes() - before, 4, "one write does all");
    for ending in endings {
        ending.await.unwrap().unwrap();
    }
    assert_eq!(began.elapsed(), Duration::from_millis(20));
    last.commit().await.unwrap();
    assert_eq!(table.writes() - before, 4);
    assert_eq!(world.balance("k", "r", "tpd").await, 1_000_000_000 - 1_050_000);
    assert_eq!(world.consumed("k", "r", "tpd").await, 1_050_000);
}

#[tokio::test(start_paused = true)]
async fn without_a_debit_it_is_sent_after_the_delay() {
    let (world, table, limiter) = bucket(1000, |builder| builder.correction_delay(DELAY)).await;
    let mut held = lease(&limiter, 500).await;
    held.adjust_to("tpd", 100).unwrap();
    let (before, began) = (table.writes(), Instant::now());
    held.commit().await.unwrap();
    assert_eq!(began.elapsed(), DELAY + Duration::from_millis(20));
    assert_eq!(table.writes() - before, 1);
    assert_eq!(world.balance("k", "r", "tpd").await, 1_000_000_000 - 100_000);
    // Rolled back and dropped leases, too.
    lease(&limiter, 500).await.rollback().await.unwrap();
    drop(lease(&limiter, 500).await);
    tokio::time::sleep(DELAY + Duration::from_secs(1)).await;
    assert_eq!(world.balance("k", "r", "tpd").await, 1_000_000_000 - 100_000);
}

#[tokio::test(start_paused = true)]
async fn draining_ends_the_delay() {
    let (world, _table, limiter) = bucket(1000, |builder| builder.correction_delay(DELAY)).await;
    let repo = limiter.repository().clone();
    let early = used(lease(&limiter, 500).await, 100).await;
    let began = Instant::now();
    assert!(repo.drain().await.is_complete());
    early.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::from_millis(20));
    assert_eq!(world.balance("k", "r", "tpd").await, 1_000_000_000 - 100_000);
    // Later ones wait again.
    let late = used(lease(&limiter, 500).await, 100).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!late.is_finished());
    late.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_the_debit_in_doubt_and_the_correction_happens_once() {
    let (world, table, limiter) = bucket(1000, |builder| builder.correction_delay(DELAY)).await;
    let ending = used(lease(&limiter, 500).await, 100).await;
    table.lose(0);
    let failed = limiter.acquire("k", "r").consume("tpd", 70).await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    ending.await.unwrap().unwrap();
    // The debit counts as consumed.
    assert_eq!(world.balance("k", "r", "tpd").await, 1_000_000_000 - 170_000);
    assert_eq!(world.consumed("k", "r", "tpd").await, 170_000);
}

#[tokio::test(start_paused = true)]
async fn a_debit_that_is_refused_does_not_hold_the_correction_up() {
    let (world, table, limiter) = bucket(1000, |builder| builder.correction_delay(DELAY)).await;
    // All but 100 tokens are taken, as this process does not know.
    let other = RateLimiter::new(world.repo.clone());
    let ending = used(lease(&limiter, 500).await, 200).await;
    other
        .acquire("k", "r")
        .consume("tpd", 999_400)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let (before, began) = (table.writes(), Instant::now());
    // Too much without what is given back.
    let refused = limiter.acquire("k", "r").consume("tpd", 150).await;
    assert!(matches!(refused, Err(Error::RateLimitExceeded(_))), "{refused:?}");
    ending.await.unwrap().unwrap();
    assert!(began.elapsed() < DELAY, "{:?}", began.elapsed());
    assert_eq!(world.balance("k", "r", "tpd").await, 100_000 + 300_000);
    assert!(table.writes() - before <= 3, "{}", table.writes() - before);
}

#[tokio::test(start_paused = true)]
async fn what_a_refill_has_filled_is_not_filled_above_the_capacity() {
    let (world, _table, limiter) = bucket(1000, |builder| builder.correction_delay(DELAY)).await;
    let ending = used(lease(&limiter, 500_000).await, 100).await;
    // The bucket is full again, and the next write refills it.
    world.clock.advance(Duration::from_hours(48));
    lease(&limiter, 1_000).await.commit().await.unwrap();
    ending.await.unwrap().unwrap();
    let left = limiter.available("k", "r").await.unwrap();
    assert!(left["tpd"] <= 1_000_000, "{left:?}");
    lease(&limiter, 1_000_000 - 1_000).await.commit().await.unwrap();
    let more = limiter.acquire("k", "r").consume("tpd", 1_001).await;
    assert!(matches!(more, Err(Error::RateLimitExceeded(_))), "{more:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_has_gone_does_not_take_the_correction_along() {
    let (world, _table, limiter) = bucket(1000, |builder| builder.correction_delay(DELAY)).await;
    let ending = used(lease(&limiter, 500).await, 100).await;
    let call = limiter.acquire("k", "r").consume("tpd", 70).send();
    // It has sent the write by then.
    assert!(
        tokio::time::timeout(Duration::from_millis(10), call)
            .await
            .is_err()
    );
    ending.await.unwrap().unwrap();
    assert!(limiter.repository().drain().await.is_complete());
    assert_eq!(world.balance("k", "r", "tpd").await, 1_000_000_000 - 100_000);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_does_not_wait_for_its_refund() {
    let (world, _table, limiter) = bucket(10, |builder| builder.correction_delay(DELAY)).await;
    let admin = world.repo.admin();
    admin.create_entity(NewEntity::new("project")).await.unwrap();
    let child = NewEntity::new("key").parent("project").cascade(true);
    admin.create_entity(child).await.unwrap();
    let call = |tokens| limiter.acquire("key", "r").consume("rpd", tokens);
    call(1).await.unwrap().commit().await.unwrap();
    let of_project = limiter.acquire("project", "r").consume("rpd", 9).await.unwrap();
    of_project.commit().await.unwrap();
    let began = Instant::now();
    // The key has tokens, the project has none.
    assert!(matches!(call(3).await, Err(Error::RateLimitExceeded(_))));
    assert!(
        began.elapsed() < Duration::from_millis(200),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(world.balance("key", "r", "rpd").await, 9_000);
}

#[tokio::test]
async fn delays_that_cannot_be_kept_are_refused() {
    let open = async |delay, groups| {
        let builder = Repository::builder().in_memory().group_commit(groups);
        builder.correction_delay(delay).open().await
    };
    for (delay, groups, why) in [
        (Duration::from_millis(60_001), true, "must be from 0 to 60 s"),
        (Duration::from_secs(1), false, "needs group commit"),
    ] {
        let Err(Error::InvalidInput(err)) = open(delay, groups).await else {
            panic!("{delay:?} is not refused");
        };
        assert_eq!(err.field(), "correction_delay");
        assert!(err.to_string().contains(why), "{err}");
    }
    open(Duration::ZERO, false).await.unwrap();
    open(Duration::from_mins(1), true).await.unwrap();
}
