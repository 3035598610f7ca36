//! Group commit: acquires of one bucket that share writes.

use std::collections::BTreeSet;
use std::fmt;
use std::future::IntoFuture as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use zae_limiter::table::{Table, TableFuture};
use zae_limiter::{Error, Limit, RateLimiter, Repository, RepositoryBuilder};
use zae_limiter_core::table::{Applied, FailureKind, Op, TableError, Value};

use crate::world::World;

/// A table that answers after a while, loses answers by their numbers, and counts writes.
#[derive(Clone)]
pub(crate) struct Slow {
    inner: Arc<dyn Table>,
    millis: u64,
    lost: Arc<Mutex<BTreeSet<usize>>>,
    hangs: Arc<Mutex<BTreeSet<usize>>>,
    writes: Arc<Mutex<usize>>,
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slow")
    }
}

impl Slow {
    pub(crate) fn writes(&self) -> usize {
        *self.writes.lock().unwrap()
    }

    /// The write after so many more is not executed, and its answer never comes.
    pub(crate) fn hang(&self, after: usize) {
        self.hangs.lock().unwrap().insert(self.writes() + after);
    }

    /// The write after so many more is executed, and its answer is lost.
    pub(crate) fn lose(&self, after: usize) {
        self.lost.lock().unwrap().insert(self.writes() + after);
    }
}

impl Table for Slow {
    fn call(&self, op: Op) -> TableFuture {
        let table = self.clone();
        Box::pin(async move {
            let number = {
                let mut writes = table.writes.lock().unwrap();
                let number = *writes;
                *writes += usize::from(matches!(op, Op::Update(_)));
                number
            };
            let is_lost = matches!(op, Op::Update(_)) && table.lost.lock().unwrap().remove(&number);
            tokio::time::sleep(Duration::from_millis(table.millis)).await;
            if matches!(op, Op::Update(_)) && table.hangs.lock().unwrap().remove(&number) {
                std::future::pending::<()>().await;
            }
            let answer = table.inner.call(op).await;
            if is_lost {
                let (kind, applied) = (FailureKind::Timeout, Applied::Unknown);
                return Err(TableError::new(kind, applied, "as the test ordered"));
            }
            answer
        })
    }
}

/// A bucket of so many requests a day (tokens are ample), and a limiter over a table that answers after 20 ms.
pub(crate) async fn bucket(
    requests: u64,
    options: impl FnOnce(RepositoryBuilder) -> RepositoryBuilder,
) -> (World, Slow, RateLimiter) {
    let world = World::new().await;
    world
        .repo
        .admin()
        .set_system_defaults(
            [Limit::per_day("rpd", requests), Limit::per_day("tpd", 1_000_000)],
            None,
        )
        .await
        .unwrap();
    let table = Slow {
        inner: world.repo.table(),
        millis: 20,
        lost: Arc::default(),
        hangs: Arc::default(),
        writes: Arc::default(),
    };
    let builder = Repository::builder()
        .custom_table(Arc::new(table.clone()))
        .clock(world.clock.clone());
    let limiter = RateLimiter::new(options(builder).open().await.unwrap());
    // The bucket exists from now on.
    limiter
        .acquire("k", "r")
        .consume("rpd", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    (world, table, limiter)
}

async fn take(limiter: &RateLimiter, limit: &str, tokens: u64) -> Result<(), Error> {
    let lease = limiter.acquire("k", "r").consume(limit, tokens).await?;
    lease.commit().await
}

#[tokio::test(start_paused = true)]
async fn many_callers_need_few_writes_and_exactly_what_there_is_is_admitted() {
    let (world, table, limiter) = bucket(1 + 180, |builder| builder).await;
    let before = table.writes();
    let ends = join_all((0..256).map(|_| take(&limiter, "rpd", 1))).await;
    let admitted = ends.iter().filter(|end| end.is_ok()).count();
    let refused = |end: &&Result<(), Error>| matches!(end, Err(Error::RateLimitExceeded(_)));
    assert_eq!((admitted, ends.iter().filter(refused).count()), (180, 76));
    assert_eq!(world.balance("k", "r", "rpd").await, 0);
    let writes = table.writes() - before;
    assert!(writes <= 5, "{writes} writes for 256 acquires");
}

/// The first caller sends its debit by itself, and the others ask for all that the last image shows, which includes that debit.
#[tokio::test(start_paused = true)]
async fn as_many_callers_as_there_are_tokens_or_a_few_more_get_them_all() {
    for (tokens, callers) in [(127, 128), (128, 128), (100, 128), (110, 128), (255, 256)] {
        let (world, table, limiter) = bucket(1 + tokens, |builder| builder).await;
        let before = table.writes();
        let ends = join_all((0..callers).map(|_| take(&limiter, "rpd", 1))).await;
        let admitted = ends.iter().filter(|end| end.is_ok()).count() as u64;
        assert_eq!(admitted, tokens, "of {callers} callers");
        assert_eq!(world.balance("k", "r", "rpd").await, 0);
        let writes = table.writes() - before;
        assert!(writes <= 24, "{writes} writes for {callers} acquires");
    }
}

#[tokio::test(start_paused = true)]
async fn without_it_each_acquire_writes() {
    let (_world, table, limiter) = bucket(1000, |builder| builder.group_commit(false)).await;
    let before = table.writes();
    join_all((0..50).map(|_| take(&limiter, "rpd", 1))).await;
    assert_eq!(table.writes() - before, 50);
}

#[tokio::test(start_paused = true)]
async fn a_caller_alone_does_not_wait() {
    let (_world, table, limiter) = bucket(1000, |builder| builder).await;
    let (begun, before) = (tokio::time::Instant::now(), table.writes());
    for _ in 0..10 {
        take(&limiter, "rpd", 1).await.unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::from_millis(10 * 20));
    assert_eq!(table.writes() - before, 10);
}

#[tokio::test(start_paused = true)]
async fn a_short_limit_refuses_only_requests_that_name_it() {
    let (world, _table, limiter) = bucket(4, |builder| builder).await;
    let calls = (0..40).map(|i| {
        let limiter = &limiter;
        async move { (i, take(limiter, if i % 2 == 0 { "rpd" } else { "tpd" }, 1).await) }
    });
    let ends = join_all(calls).await;
    let (requests, tokens): (Vec<_>, Vec<_>) = ends.into_iter().partition(|(i, _)| i % 2 == 0);
    assert!(tokens.iter().all(|(_, end)| end.is_ok()), "{tokens:?}");
    assert_eq!(requests.iter().filter(|(_, end)| end.is_ok()).count(), 3);
    assert_eq!(world.balance("k", "r", "tpd").await, 1_000_000_000 - 20_000);
}

#[tokio::test(start_paused = true)]
async fn a_large_request_does_not_stand_in_the_way_of_small_ones() {
    let (world, _table, limiter) = bucket(1 + 10, |builder| builder).await;
    let calls = [1, 1, 50, 8, 1].map(|tokens| take(&limiter, "rpd", tokens));
    let ends = join_all(calls).await;
    let admitted: Vec<bool> = ends.iter().map(Result::is_ok).collect();
    assert_eq!(admitted, [true, true, false, true, false]);
    assert_eq!(world.balance("k", "r", "rpd").await, 0);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_before_the_write_takes_nothing_and_who_gives_up_after_it_gets_it_back() {
    let (world, table, limiter) = bucket(1 + 1000, |builder| builder).await;
    let before = table.writes();
    let from = |start: u64, tokens: u64, patience: u64| {
        let limiter = &limiter;
        async move {
            tokio::time::sleep(Duration::from_millis(start)).await;
            let call = limiter.acquire("k", "r").consume("rpd", tokens);
            let lease = call.timeout(Duration::from_millis(patience)).await?;
            lease.commit().await
        }
    };
    // The first two are sent at once: one alone, one by a sender, whose next write leaves after 20 ms and is answered after 40.
    let (first, second, early, late, patient) = tokio::join!(
        from(0, 1, 1000),
        from(0, 1, 1000),
        from(1, 100, 10),
        from(1, 10, 30),
        from(1, 5, 1000)
    );
    for end in [first, second, patient] {
        end.unwrap();
    }
    let (early, late) = (early.unwrap_err(), late.unwrap_err());
    assert!(!early.in_doubt() && late.in_doubt(), "{early}; {late}");
    limiter.repository().drain().await;
    assert_eq!(world.balance("k", "r", "rpd").await, (1000 - 1 - 1 - 5) * 1000);
    // The last gives back.
    assert_eq!(table.writes() - before, 4);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_all_of_a_write_in_doubt_and_charges_it_once() {
    let (world, table, limiter) = bucket(1 + 1000, |builder| builder).await;
    // The second write carries all but the first call.
    table.lose(1);
    let calls = (0..20).map(|_| {
        let call = limiter.acquire("k", "r").consume("rpd", 1);
        call.timeout(Duration::from_secs(1)).into_future()
    });
    let ends = join_all(calls).await;
    let doubtful = ends
        .iter()
        .filter(|end| end.as_ref().is_err_and(Error::in_doubt))
        .count();
    assert!(ends[0].is_ok());
    assert_eq!(doubtful, 19);
    drop(ends);
    limiter.repository().drain().await;
    // The first was given back, since it was dropped.
    assert_eq!(world.balance("k", "r", "rpd").await, (1000 - 19) * 1000);
}

#[tokio::test(start_paused = true)]
async fn limits_of_a_call_are_not_shared() {
    let (_world, table, limiter) = bucket(1000, |builder| builder).await;
    let before = table.writes();
    let calls = (0..10).map(|_| {
        let call = limiter.acquire("k", "r").consume("rpd", 1);
        call.limits([Limit::per_day("rpd", 1000)]).into_future()
    });
    for end in join_all(calls).await {
        end.unwrap().commit().await.unwrap();
    }
    assert!(table.writes() - before >= 10);
}

#[tokio::test(start_paused = true)]
async fn thousands_that_give_up_at_once_get_everything_back() {
    let (world, table, limiter) = bucket(1 + 10_000, |builder| builder).await;
    let before = table.writes();
    let calls = (0..6000).map(|_| {
        let call = limiter.acquire("k", "r").consume("rpd", 1);
        call.timeout(Duration::from_millis(10)).into_future()
    });
    let ends = join_all(calls).await;
    assert!(ends.iter().all(|end| end.as_ref().is_err_and(Error::in_doubt)));
    assert!(limiter.repository().drain().await.is_complete());
    assert_eq!(world.balance("k", "r", "rpd").await, 10_000_000);
    let writes = table.writes() - before;
    assert!(writes <= 6, "{writes} writes");
}

#[tokio::test(start_paused = true)]
async fn requests_of_many_limits_share_writes_too() {
    let (world, table, limiter) = bucket(10, |builder| builder).await;
    let names: Vec<String> = (0..24).map(|n| format!("l{n:02}")).collect();
    let limits = names.iter().map(|name| Limit::per_day(name.as_str(), 1000));
    world
        .repo
        .admin()
        .set_entity_limits("many", "r", limits)
        .await
        .unwrap();
    let take = || {
        let call = names.iter().fold(limiter.acquire("many", "r"), |call, name| {
            call.consume(name.as_str(), 1)
        });
        async move { call.await?.commit().await }
    };
    take().await.unwrap();
    let before = table.writes();
    for end in join_all((0..300).map(|_| take())).await {
        end.unwrap();
    }
    assert!(table.writes() - before <= 5);
    assert_eq!(world.balance("many", "r", "l23").await, (1000 - 301) * 1000);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_the_bucket_lacks_is_not_overtaken() {
    let (world, _table, limiter) = bucket(1_000_000, |builder| builder).await;
    let limits = ["rpd", "tpd", "new"].map(|name| Limit::per_day(name, 1_000_000));
    world
        .repo
        .admin()
        .set_system_defaults(limits, None)
        .await
        .unwrap();
    limiter.repository().invalidate_caches();
    // Twenty others ask again and again.
    let others = join_all((0..20).map(|_| async {
        loop {
            take(&limiter, "rpd", 1).await.unwrap();
        }
    }));
    let new = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = tokio::time::Instant::now();
        take(&limiter, "new", 1).await.unwrap();
        begun.elapsed()
    };
    tokio::select! {
        _ = others => unreachable!("they do not end"),
        // The writes before it, one that shows the item, and one that adds the limit.
        elapsed = new => assert!(elapsed <= Duration::from_millis(6 * 20), "{elapsed:?}"),
    }
}

/// A task that sends for others can stand still with its runtime.
#[test]
fn a_runtime_that_stands_still_holds_up_no_caller_of_another() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (still, other) = (runtime(), runtime());
    let (_world, limiter) = still.block_on(async {
        let (world, _table, limiter) = bucket(1000, |builder| builder).await;
        // The second call starts a sender on this runtime. Both are given up before it has sent anything.
        let calls = join_all((0..2).map(|_| take(&limiter, "rpd", 1)));
        let _ = tokio::time::timeout(Duration::from_millis(1), calls).await;
        (world, limiter)
    });
    other.block_on(async {
        for _ in 0..3 {
            tokio::time::timeout(Duration::from_secs(4), take(&limiter, "rpd", 1))
                .await
                .expect("a sender of this runtime")
                .unwrap();
        }
    });
}

#[test]
fn senders_that_stand_still_hold_up_no_caller_however_many() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (home, other) = (runtime(), runtime());
    let (_world, limiter) = home.block_on(async {
        let (world, _table, limiter) = bucket(10_000, |builder| builder).await;
        (world, limiter)
    });
    let mut parked = Vec::new();
    for patience in [1, 5000] {
        for _ in 0..10 {
            let runtime = runtime();
            runtime.block_on(async {
                let calls = join_all((0..3).map(|_| take(&limiter, "rpd", 1)));
                let _ = tokio::time::timeout(Duration::from_millis(patience), calls).await;
            });
            parked.push(runtime);
        }
    }
    other.block_on(async {
        for _ in 0..3 {
            take(&limiter, "rpd", 1).await.unwrap();
        }
    });
    drop(parked);
    other.block_on(async {
        assert!(limiter.repository().drain().await.is_complete());
    });
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_from_an_item_that_cannot_be_read_goes_back_although_the_callers_have_gone() {
    let (world, _table, limiter) = bucket(1000, |builder| builder).await;
    let before = world.balance("k", "r", "tpd").await;
    world
        .poke("k", "r", &[("shard_count", Some(Value::text("many")))])
        .await;
    let calls: Vec<_> = [5, 70, 900]
        .map(|tokens| {
            let call = limiter.acquire("k", "r").consume("tpd", tokens).send();
            tokio::spawn(call)
        })
        .into_iter()
        .collect();
    // The write of the first is on its way, and that of the others.
    tokio::time::sleep(Duration::from_millis(10)).await;
    for call in calls {
        call.abort();
        assert!(call.await.is_err());
    }
    assert!(limiter.repository().drain().await.is_complete());
    world
        .poke("k", "r", &[("shard_count", Some(Value::int(1)))])
        .await;
    assert_eq!(world.balance("k", "r", "tpd").await, before);
}
