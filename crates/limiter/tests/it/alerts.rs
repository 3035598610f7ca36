//! What is called when the use of a limit reaches a threshold, and when a limit refuses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use zae_limiter::AlertReason::{Refused, Used};
use zae_limiter::{Alert, AlertReason, Error, Limit, LimitBuilder, NewEntity, Prefetch, RepositoryBuilder};

use crate::groups::bucket;
use crate::world::World;

/// The alerts of a repository.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Alert>>>);

impl Heard {
    fn listen(&self, builder: RepositoryBuilder) -> RepositoryBuilder {
        let heard = Arc::clone(&self.0);
        builder.on_alert([95, 80], move |alert| heard.lock().unwrap().push(alert.clone()))
    }

    /// Entity, limit and reason of those since the last call.
    fn take(&self) -> Vec<(String, String, AlertReason)> {
        let alerts = std::mem::take(&mut *self.0.lock().unwrap());
        let what = |alert: Alert| {
            (
                alert.entity.to_string(),
                alert.limit_name.to_string(),
                alert.reason,
            )
        };
        alerts.into_iter().map(what).collect()
    }

    #[track_caller]
    fn check(&self, expected: &[(&str, &str, AlertReason)]) {
        let expected = expected
            .iter()
            .map(|(entity, limit, reason)| ((*entity).to_owned(), (*limit).to_owned(), *reason));
        assert_eq!(self.take(), expected.collect::<Vec<_>>());
    }
}

/// A world whose every resource has these limits, and its alerts.
async fn world<const N: usize>(limits: [LimitBuilder; N]) -> (World, Heard) {
    let heard = Heard::default();
    let world = World::with(|builder| heard.listen(builder)).await;
    world
        .repo
        .admin()
        .set_system_defaults(limits, None)
        .await
        .unwrap();
    (world, heard)
}

/// 1000 tokens for each day in UTC. The tests' clock starts at 8:00.
fn quota() -> LimitBuilder {
    Limit::quota("tpd", 1000).resets("0 0 * * *", "UTC")
}

async fn take(world: &World, entity: &str, limit: &str, tokens: u64) -> Result<(), Error> {
    let call = world.limiter.acquire(entity, "r").consume(limit, tokens);
    call.await?.commit().await
}

#[tokio::test]
async fn a_quota_is_reported_once_until_it_is_reset() {
    let (w, heard) = world([quota()]).await;
    take(&w, "k", "tpd", 790).await.unwrap();
    heard.check(&[]);
    take(&w, "k", "tpd", 10).await.unwrap();
    let first = heard.0.lock().unwrap()[0].clone();
    assert_eq!((first.available, first.capacity, first.shards), (200, 1000, 1));
    assert_eq!(first.resets_at, Some(first.at.plus(16 * 3_600_000)));
    assert_eq!(first.to_string(), "k/r: tpd has used 80 %, 200 of 1000 left");
    heard.check(&[("k", "tpd", Used(80))]);
    take(&w, "k", "tpd", 10).await.unwrap();
    heard.check(&[]);
    take(&w, "k", "tpd", 180).await.unwrap();
    heard.check(&[("k", "tpd", Used(95))]);
    for _ in 0..3 {
        take(&w, "k", "tpd", 11).await.unwrap_err();
    }
    heard.check(&[("k", "tpd", Refused)]);
    // A refund does not let it be reported again.
    let lease = w.limiter.acquire("other", "r").consume("tpd", 900).await.unwrap();
    heard.check(&[("other", "tpd", Used(80))]);
    lease.rollback().await.unwrap();
    take(&w, "other", "tpd", 900).await.unwrap();
    heard.check(&[]);
    // The next day.
    w.clock.advance(Duration::from_hours(16));
    take(&w, "k", "tpd", 960).await.unwrap();
    take(&w, "k", "tpd", 960).await.unwrap_err();
    heard.check(&[
        ("k", "tpd", Used(80)),
        ("k", "tpd", Used(95)),
        ("k", "tpd", Refused),
    ]);
}

#[tokio::test]
async fn a_limit_that_is_refilled_is_reported_again_after_it_could_fill() {
    let (w, heard) = world([
        Limit::per_minute("rpm", 100),
        Limit::custom("tpd", 1000, 1000, Duration::from_hours(24)),
    ])
    .await;
    take(&w, "k", "rpm", 90).await.unwrap();
    take(&w, "k", "tpd", 900).await.unwrap();
    take(&w, "k", "rpm", 90).await.unwrap_err();
    take(&w, "k", "tpd", 900).await.unwrap_err();
    heard.check(&[
        ("k", "rpm", Used(80)),
        ("k", "tpd", Used(80)),
        ("k", "rpm", Refused),
        ("k", "tpd", Refused),
    ]);
    // Full again, but reported less than an hour ago.
    w.clock.advance(Duration::from_mins(59));
    take(&w, "k", "rpm", 90).await.unwrap();
    heard.check(&[]);
    w.clock.advance(Duration::from_mins(1));
    take(&w, "k", "rpm", 90).await.unwrap();
    take(&w, "k", "rpm", 90).await.unwrap_err();
    heard.check(&[("k", "rpm", Used(80)), ("k", "rpm", Refused)]);
    w.clock.advance(Duration::from_hours(23));
    take(&w, "k", "tpd", 900).await.unwrap();
    heard.check(&[("k", "tpd", Used(80))]);
}

#[tokio::test]
async fn a_session_is_reported_once() {
    let (w, heard) = world([Limit::session("messages", 10, Duration::from_hours(5))]).await;
    for _ in 0..2 {
        for _ in 0..10 {
            take(&w, "k", "messages", 1).await.unwrap();
        }
        take(&w, "k", "messages", 1).await.unwrap_err();
        heard.check(&[
            ("k", "messages", Used(80)),
            ("k", "messages", Used(95)),
            ("k", "messages", Refused),
        ]);
        w.clock.advance(Duration::from_hours(5));
    }
}

#[tokio::test]
async fn a_parent_is_reported_as_itself() {
    let (w, heard) = world([quota()]).await;
    let admin = w.repo.admin();
    admin.create_entity(NewEntity::new("proj")).await.unwrap();
    for key in ["a", "b"] {
        let key = NewEntity::new(key).parent("proj").cascade(true);
        admin.create_entity(key).await.unwrap();
    }
    take(&w, "a", "tpd", 500).await.unwrap();
    take(&w, "b", "tpd", 400).await.unwrap();
    take(&w, "b", "tpd", 400).await.unwrap_err();
    heard.check(&[("proj", "tpd", Used(80)), ("proj", "tpd", Refused)]);
}

#[tokio::test]
async fn refusals_from_memory_are_reported_and_impossible_ones_are_not() {
    let (w, heard) = world([quota()]).await;
    take(&w, "k", "tpd", 1001).await.unwrap_err();
    heard.check(&[]);
    // The bucket is known from the acquire, so that the refusal is made without a request.
    take(&w, "k", "tpd", 500).await.unwrap();
    let (refused, cost) = w.cost(take(&w, "k", "tpd", 600)).await;
    refused.unwrap_err();
    assert_eq!(cost.requests(), 0);
    heard.check(&[("k", "tpd", Refused)]);
}

#[tokio::test(start_paused = true)]
async fn calls_that_share_a_write_report_once() {
    let heard = Heard::default();
    let (_world, table, limiter) = bucket(1 + 180, |builder| heard.listen(builder)).await;
    let before = table.writes();
    let call = || async { limiter.acquire("k", "r").consume("rpd", 1).await?.commit().await };
    let ends = join_all((0..256).map(|_| call())).await;
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 180);
    assert!(table.writes() - before <= 5, "they share writes");
    let mut all = heard.take();
    all.sort_by_key(|(.., reason)| format!("{reason:?}"));
    let expected = [Refused, Used(80), Used(95)].map(|reason| ("k".to_owned(), "rpd".to_owned(), reason));
    assert_eq!(all, expected);
}

#[tokio::test]
async fn tokens_taken_ahead_count_as_used() {
    let heard = Heard::default();
    let w = World::with(|builder| heard.listen(builder).prefetch(Prefetch::calls(50))).await;
    let limits = [Limit::per_day("rpd", 1000)];
    w.repo.admin().set_system_defaults(limits, None).await.unwrap();
    for _ in 0..900 {
        take(&w, "k", "rpd", 1).await.unwrap();
    }
    heard.check(&[("k", "rpd", Used(80))]);
    w.repo.drain().await;
}

#[tokio::test]
async fn a_function_that_panics_does_not_end_the_acquire() {
    let w = World::with(|builder| builder.on_alert([1], |_| panic!("as the test ordered"))).await;
    w.configure().await;
    for _ in 0..2 {
        take(&w, "k", "rpm", 1).await.unwrap();
    }
    assert_eq!(w.balance("k", "r", "rpm").await, 8000);
}

#[tokio::test]
async fn percentages_are_checked_when_it_is_opened() {
    for (percents, value) in [(vec![0], "0"), (vec![80, 101], "101"), ((1..=11).collect(), "11")] {
        let builder = zae_limiter::Repository::builder().in_memory();
        match builder.on_alert(percents, |_| ()).open().await {
            Err(Error::InvalidInput(err)) => {
                assert_eq!((err.field(), err.value()), ("on_alert.percents", value));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(feature = "blocking")]
#[test]
fn the_blocking_facade_has_it() {
    let heard = Heard::default();
    let builder = heard.listen(zae_limiter::Repository::builder().in_memory());
    let repo = zae_limiter::blocking::Repository::from_builder(builder).unwrap();
    repo.admin().set_system_defaults([quota()], None).unwrap();
    let limiter = zae_limiter::blocking::RateLimiter::new(repo);
    let take = |tokens| limiter.acquire("k", "r").consume("tpd", tokens).send();
    take(850).unwrap().commit().unwrap();
    take(200).unwrap_err();
    heard.check(&[("k", "tpd", Used(80)), ("k", "tpd", Refused)]);
}
