//! Calls that wait for tokens: when they ask again, in which order they are admitted, and when they give up.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use zae_limiter::clock::Clock;
use zae_limiter::{Error, Lease, Limit, RateLimiter, Repository};
use zae_limiter_core::EpochMillis;

use crate::world::START;

/// The clock of tokio, which a test with paused time advances whenever everything waits.
#[derive(Debug)]
struct Following(Instant);

impl Clock for Following {
    fn now(&self) -> SystemTime {
        SystemTime::from(EpochMillis(START)) + self.0.elapsed()
    }
}

/// A limiter with this limit for everything, in time that is advanced by itself.
async fn limiter(limit: Limit) -> RateLimiter {
    let clock = Following(Instant::now());
    let repo = Repository::builder()
        .in_memory()
        .clock(clock)
        .open()
        .await
        .unwrap();
    repo.admin().set_system_defaults([limit], None).await.unwrap();
    RateLimiter::new(repo)
}

fn per_second(rate: u64) -> Limit {
    Limit::per_second("n", rate).build().unwrap()
}

async fn take(limiter: &RateLimiter, tokens: u64) -> Result<Lease, Error> {
    limiter.acquire("k", "r").consume("n", tokens).await
}

/// Starts a call for each of these amounts, one after another, and returns the order in which they were admitted.
async fn order(limiter: &RateLimiter, amounts: &[u64]) -> Vec<usize> {
    let admitted = Arc::new(Mutex::new(Vec::new()));
    let mut calls = Vec::new();
    for (number, tokens) in amounts.iter().enumerate() {
        let call = limiter.acquire("k", "r").consume("n", *tokens).until_ready();
        let admitted = Arc::clone(&admitted);
        calls.push(tokio::spawn(async move {
            keep(call.await).await;
            admitted.lock().unwrap().push(number);
        }));
        tokio::task::yield_now().await;
    }
    for call in calls {
        call.await.unwrap();
    }
    admitted.lock().unwrap().clone()
}

async fn keep(lease: Result<Lease, Error>) {
    lease.unwrap().commit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_asks_again_when_the_tokens_are_there_and_not_earlier() {
    let limiter = limiter(per_second(10)).await;
    keep(take(&limiter, 10).await).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let began = Instant::now();
    let call = limiter
        .acquire("k", "r")
        .consume("n", 5)
        .wait(Duration::from_secs(1));
    let call = call.on_wait({
        let told = Arc::clone(&told);
        move |refused, wait| told.lock().unwrap().push((refused.is_never(), wait))
    });
    keep(call.await).await;
    let waited = began.elapsed();
    assert_eq!(*told.lock().unwrap(), [(false, Duration::from_millis(500))]);
    assert!(waited >= Duration::from_millis(500), "{waited:?}");
    assert!(waited <= Duration::from_millis(560), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_in_time_or_ever_is_refused_at_once() {
    let limiter = limiter(per_second(10)).await;
    keep(take(&limiter, 10).await).await;
    let began = Instant::now();
    let call = |tokens| limiter.acquire("k", "r").consume("n", tokens);
    for refused in [
        call(5).wait(Duration::from_millis(499)).await,
        call(11).wait(Duration::from_hours(1)).await,
        call(11).until_ready().await,
        call(5).wait(Duration::ZERO).await,
    ] {
        assert!(matches!(refused, Err(Error::RateLimitExceeded(_))), "{refused:?}");
    }
    assert!(began.elapsed() < Duration::from_millis(400));
    keep(call(5).wait(Duration::MAX).await).await;
    keep(call(10).until_ready().await).await;
}

#[tokio::test(start_paused = true)]
async fn calls_are_admitted_in_the_order_in_which_they_came() {
    let limiter = limiter(per_second(10)).await;
    keep(take(&limiter, 10).await).await;
    // The first asks for much; the others could be admitted long before.
    let admitted = order(&limiter, &[8, 1, 1, 3, 1, 2, 1, 1]).await;
    assert_eq!(admitted, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test(start_paused = true)]
async fn one_that_gives_up_or_runs_out_of_time_does_not_delay_the_others() {
    let limiter = limiter(per_second(10)).await;
    keep(take(&limiter, 10).await).await;
    let call = |tokens| limiter.acquire("k", "r").consume("n", tokens);
    let first = tokio::spawn(call(10).until_ready());
    tokio::time::sleep(Duration::from_millis(1)).await;
    // It never comes to its turn: the refusal tells how the limits stand.
    let Err(Error::RateLimitExceeded(refused)) = call(2).wait(Duration::from_millis(50)).await else {
        panic!("the first call comes first");
    };
    assert_eq!(refused.worst().unwrap().requested, 2);
    let last = tokio::spawn(call(1).until_ready());
    tokio::time::sleep(Duration::from_millis(100)).await;
    first.abort();
    assert!(first.await.is_err());
    keep(last.await.unwrap()).await;
}

/// Ten times as many calls as a second has tokens: no call asks more often than it must, and none overtakes the limit.
#[tokio::test(start_paused = true)]
async fn many_calls_share_what_the_limit_gives() {
    let limiter = limiter(per_second(100)).await;
    let began = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let call = limiter.acquire("k", "r").consume("n", 1).until_ready();
        calls.spawn(async move { keep(call.await).await });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    let took = began.elapsed().as_secs_f64();
    assert!((5.0..8.0).contains(&took), "{took} s");
}

/// A process that has never seen the bucket: nothing is refused from memory, so that all calls ask the table.
#[tokio::test(start_paused = true)]
async fn a_large_call_is_not_overtaken_in_a_process_that_knows_nothing_yet() {
    let first = limiter(Limit::per_second("n", 100).build().unwrap()).await;
    keep(take(&first, 60).await).await;
    let cold = Repository::builder()
        .custom_table(first.repository().table())
        .clock(Following(Instant::now()))
        .reject_cache_ttl(Duration::ZERO)
        .open()
        .await
        .unwrap();
    let cold = RateLimiter::new(cold);
    let admitted = order(&cold, &[100, 1, 1, 1, 1, 1, 1, 1]).await;
    assert_eq!(admitted[0], 0);
}

#[tokio::test]
async fn no_duration_is_too_long() {
    let limiter = limiter(per_second(1000)).await;
    let call = limiter.acquire("k", "r").consume("n", 1);
    keep(call.timeout(Duration::MAX).wait(Duration::MAX).await).await;
}
