//! Gauges: what they show, and when they are refreshed.

use std::time::Duration;

use zae_limiter::telemetry::{Kind, METRICS};
use zae_limiter::{Prefetch, RateLimiter, blocking};

use super::recorder::Recorded;
use crate::world::{Fault, Faulty, World};

#[tokio::test(start_paused = true)]
async fn gauges_show_queues_and_caches() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let faulty = Faulty::over(&world);
    let limiter = faulty
        .limiter(&world, |builder| {
            builder.max_in_flight(7).prefetch(Prefetch::calls(10))
        })
        .await;
    let repo = limiter.repository();
    let gauge = |name: &str| {
        repo.record_gauges();
        recorded.gauge(&format!("zae_limiter_{name}"), &[]).unwrap()
    };
    assert_eq!(gauge("cached_images"), 0);
    assert_eq!(gauge("requests_in_flight_max"), 7);
    let call = |tokens| limiter.acquire("k", "r").exact().consume("tpm", tokens);
    let lease = call(900).await.unwrap();
    assert_eq!(gauge("cached_images"), 1);
    assert!(gauge("cached_configs") >= 4);
    assert_eq!(gauge("corrections_waiting"), 0);

    // Two calls wait; one of them asks first.
    let waiting = [0, 1].map(|_| {
        let limiter = limiter.clone();
        tokio::spawn(async move {
            let call = limiter.acquire("k", "r").exact().consume("tpm", 500);
            call.until_ready().await.unwrap().commit().await.unwrap();
        })
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(gauge("calls_waiting"), 2);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(gauge("calls_waiting"), 0);

    // A refund that is not answered.
    faulty.next(&[Fault::Late(5_000)]);
    drop(lease);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((gauge("corrections_waiting"), gauge("background_tasks")), (1, 0));
    assert!(repo.drain().await.is_complete());
    assert_eq!(gauge("corrections_waiting"), 0);

    // A request on its way.
    faulty.next(&[Fault::Late(1_000)]);
    let asks = tokio::spawn(call(1).into_future());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(gauge("requests_in_flight"), 1);
    asks.await.unwrap().unwrap().commit().await.unwrap();
    assert_eq!(gauge("requests_in_flight"), 0);

    let place = limiter.acquire("k", "jobs").in_flight_at_most(3).await.unwrap();
    assert_eq!(gauge("places_held"), 1);
    place.commit().await.unwrap();
    assert_eq!(gauge("places_held"), 0);

    // Tokens ahead, and none once they are returned.
    for _ in 0..20 {
        let lease = limiter.acquire("k", "r").consume("tpm", 1).await.unwrap();
        lease.commit().await.unwrap();
    }
    let ahead = repo.prefetched().tokens["tpm"];
    assert!(ahead > 0);
    assert_eq!(gauge("tokens_ahead").unsigned_abs(), ahead);
    assert!(repo.drain().await.is_complete());
    assert_eq!(gauge("tokens_ahead"), 0);

    assert_eq!(gauge("breaker_open"), 0);
    let lookups = recorded.counts_by("zae_limiter_config_lookups_total", "result");
    let stats = repo.cache_stats();
    assert_eq!(
        lookups,
        [("hit".to_owned(), stats.hits), ("miss".to_owned(), stats.misses)].into()
    );
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_shows_and_its_openings_are_counted_once() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let faulty = Faulty::over(&world);
    let limiter = faulty.limiter(&world, |builder| builder).await;
    limiter.repository().register_namespace("other").await.unwrap();
    let other = limiter.repository().namespace("other").await.unwrap();
    let take = async || limiter.acquire("k", "r").consume("rpm", 1).await;
    take().await.unwrap().commit().await.unwrap();
    faulty.always(Fault::LostBefore);
    for _ in 0..12 {
        take().await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let shown = || {
        // Both namespaces share the breaker.
        limiter.repository().record_gauges();
        other.record_gauges();
        (
            recorded.gauge("zae_limiter_breaker_open", &[]).unwrap(),
            recorded.count("zae_limiter_breaker_openings_total", &[]),
        )
    };
    assert_eq!(shown(), (1, 1));
    faulty.always(Fault::None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    take().await.unwrap().commit().await.unwrap();
    assert_eq!(shown(), (0, 1));
}

#[tokio::test]
async fn calls_refresh_gauges_once_a_second() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let images = || recorded.gauge("zae_limiter_cached_images", &[]);
    let take = async |entity: &str| {
        let lease = world
            .limiter
            .acquire(entity, "r")
            .consume("rpm", 1)
            .await
            .unwrap();
        lease.commit().await.unwrap();
    };
    assert_eq!(images(), None);
    take("a").await;
    assert_eq!(images(), Some(1));
    world.clock.advance(Duration::from_millis(999));
    take("b").await;
    assert_eq!(images(), Some(1));
    world.clock.advance(Duration::from_millis(1));
    take("c").await;
    assert_eq!(images(), Some(3));
}

#[tokio::test]
async fn a_namespace_that_is_closed_leaves_no_gauge_above_zero() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let labels = [("namespace", "tenant")];
    {
        world.repo.register_namespace("tenant").await.unwrap();
        let repo = world.repo.namespace("tenant").await.unwrap();
        world.repo.record_gauges();
        let images = recorded.gauge("zae_limiter_cached_images", &labels);
        assert_eq!(
            images, None,
            "a namespace has series once its gauges were recorded"
        );
        let limiter = RateLimiter::new(repo);
        let limits = [zae_limiter::Limit::per_minute("rpm", 10)];
        let lease = limiter
            .acquire("k", "r")
            .consume("rpm", 1)
            .limits(limits)
            .await
            .unwrap();
        lease.commit().await.unwrap();
        assert_eq!(recorded.gauge("zae_limiter_cached_images", &labels), Some(1));
    }
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Gauge) {
        let left = recorded.gauge(metric.name, &labels);
        assert!(left.is_none_or(|left| left == 0), "{}: {left:?}", metric.name);
    }
}

#[test]
fn blocking_repositories_record_gauges() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let repo = blocking::Repository::in_memory().unwrap();
    repo.record_gauges();
    assert_eq!(
        recorded.gauge("zae_limiter_requests_in_flight_max", &[]),
        Some(1024)
    );
}
