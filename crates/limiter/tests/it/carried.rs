//! Corrections of leases that wait for a debit which carries them.

use std::time::Duration;

use tokio::time::Instant;
use zae_limiter::{Error, Lease, Limit, NewEntity, RateLimiter, Repository};

use crate::groups::bucket;
use crate::world::World;

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

/// Requests whose estimates are far too high, on a bucket that is full again before each of them.
#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_nearly_full_gets_its_corrections_with_debits() {
    let world = World::with(|builder| builder.correction_delay(2 * DELAY)).await;
    let limits = [Limit::per_minute("tpm", 60_000)];
    let admin = world.repo.admin();
    admin.set_system_defaults(limits, None).await.unwrap();
    let (repo, limiter) = (world.repo.clone(), world.limiter.clone());
    let call = || limiter.acquire("k", "r").consume("tpm", 4_000);
    call().await.unwrap().commit().await.unwrap();
    let before = repo.request_cost();
    let mut endings = Vec::new();
    for _ in 0..50 {
        let mut lease = call().await.unwrap();
        lease.adjust_to("tpm", 500).unwrap();
        endings.push(tokio::spawn(lease.commit()));
        world.clock.advance(Duration::from_secs(4));
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert!(repo.drain().await.is_complete());
    let cost = repo.request_cost().since(&before);
    assert!((50..=53).contains(&cost.updates), "{cost:?}");
    assert!(cost.refused <= 1, "{cost:?}");
    for ending in endings {
        ending.await.unwrap().unwrap();
    }
    assert_eq!(world.consumed("k", "r", "tpm").await, 4_000_000 + 50 * 500_000);
}

#[tokio::test(start_paused = true)]
async fn corrections_that_do_not_go_together_wait_for_one_delay() {
    let world = World::new().await;
    let limits: Vec<_> = (0..24).map(|i| Limit::per_day(format!("l{i}"), 1000)).collect();
    world
        .repo
        .admin()
        .set_system_defaults(limits, None)
        .await
        .unwrap();
    let builder = Repository::builder()
        .custom_table(world.repo.table())
        .clock(world.clock.clone());
    let limiter = RateLimiter::new(builder.correction_delay(2 * DELAY).open().await.unwrap());
    let mut endings = Vec::new();
    for first in [0, 10, 0, 10, 0, 10] {
        let names = (first..first + 14).map(|i| format!("l{i}"));
        let call = names.fold(limiter.acquire("k", "r"), |call, name| call.consume(name, 1));
        endings.push(call.await.unwrap());
    }
    let began = Instant::now();
    let endings: Vec<_> = endings
        .into_iter()
        .map(|lease| tokio::spawn(lease.rollback()))
        .collect();
    for ending in endings {
        ending.await.unwrap().unwrap();
    }
    assert!(
        began.elapsed() < 2 * DELAY + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_charge_is_written_before_its_bucket_can_expire() {
    let world = World::new().await;
    // Kept for seven seconds.
    world
        .repo
        .admin()
        .set_system_defaults([Limit::per_second("rps", 10)], None)
        .await
        .unwrap();
    let builder = Repository::builder()
        .custom_table(world.repo.table())
        .clock(world.clock.clone());
    let limiter = RateLimiter::new(
        builder
            .correction_delay(Duration::from_mins(1))
            .open()
            .await
            .unwrap(),
    );
    let mut lease = limiter.acquire("k", "r").consume("rps", 10).await.unwrap();
    lease.adjust_to("rps", 5_000).unwrap();
    let began = Instant::now();
    lease.commit().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let bucket = world.bucket("k", "r").await.unwrap();
    assert!(bucket.ttl.unwrap() > 1_800_000_000 + 400, "{bucket:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_sent_what_is_to_be_given_back() {
    let (_world, _table, limiter) = bucket(1000, |builder| builder.correction_delay(DELAY)).await;
    let ending = used(lease(&limiter, 1_000_000).await, 100).await;
    let began = Instant::now();
    let refused = limiter.acquire("k", "r").consume("tpd", 500).await;
    assert!(matches!(refused, Err(Error::RateLimitExceeded(_))), "{refused:?}");
    ending.await.unwrap().unwrap();
    lease(&limiter, 500).await.commit().await.unwrap();
    assert!(
        began.elapsed() < Duration::from_millis(200),
        "{:?}",
        began.elapsed()
    );
}

/// A runtime with one thread stands still while nothing blocks on it, and its task waits for a debit.
#[test]
fn a_runtime_that_stands_still_does_not_hold_up_the_corrections_of_others() {
    let one_thread = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (still, other) = (one_thread(), one_thread());
    let delay = Duration::from_millis(300);
    let limiter = still.block_on(async {
        let repo = Repository::builder()
            .in_memory()
            .correction_delay(delay)
            .open()
            .await
            .unwrap();
        let limits = [Limit::per_day("tpd", 1_000_000)];
        repo.admin().set_system_defaults(limits, None).await.unwrap();
        let limiter = RateLimiter::new(repo);
        let mut lease = limiter.acquire("k", "r").consume("tpd", 500).await.unwrap();
        lease.adjust_to("tpd", 100).unwrap();
        tokio::spawn(lease.commit());
        tokio::time::sleep(Duration::from_millis(50)).await;
        limiter
    });
    other.block_on(async {
        for _ in 0..3 {
            let mut lease = limiter.acquire("k", "r").consume("tpd", 500).await.unwrap();
            lease.adjust_to("tpd", 100).unwrap();
            lease.commit().await.unwrap();
        }
        // The first one was sent with the others. Some tokens are refilled in a second.
        let left = limiter.available("k", "r").await.unwrap()["tpd"];
        assert!((999_600..999_800).contains(&left), "{left}");
    });
    drop((still, other));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_does_not_hold_up_later_corrections() {
    let (world, table, limiter) = bucket(1000, |builder| builder.correction_delay(DELAY)).await;
    let carried = used(lease(&limiter, 500).await, 100).await;
    table.hang(0);
    let hanging = tokio::spawn(limiter.acquire("k", "r").consume("tpd", 70).send());
    let failed = carried.await.unwrap();
    assert!(
        failed.is_ok() || matches!(failed, Err(Error::Unavailable(_))),
        "{failed:?}"
    );
    let began = Instant::now();
    let later = used(lease(&limiter, 500).await, 100).await;
    later.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    hanging.abort();
    let consumed = world.consumed("k", "r", "tpd").await;
    assert!((200_000..=600_000).contains(&consumed), "{consumed}");
}
