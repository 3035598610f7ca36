//! Limits with schedules, quotas and session limits: stored, kept, shown, and not taken from yet.

use std::time::Duration;

use zae_limiter::schedule::ScheduleEntry;
use zae_limiter::table::TableExt as _;
use zae_limiter::{Error, Limit, LimitBuilder};
use zae_limiter_core::schema::{resource_config_key, version_key};
use zae_limiter_core::table::{Update, Value};
use zae_limiter_core::{EpochMillis, ResourceName, VersionRecord};

use crate::world::{START, World};

fn quota() -> LimitBuilder {
    Limit::quota("rpd", 10_000).resets("0 0 * * *", "Europe/Berlin")
}

fn scheduled() -> LimitBuilder {
    let nights = ScheduleEntry::on("* 0-6 * * *").zone("Europe/Berlin").scale(0.5);
    Limit::per_minute("rpm", 100).scheduled([nights])
}

/// Writes attributes of the resource's level.
async fn store(w: &World, attrs: &[(&str, Value)]) {
    let key = resource_config_key(w.repo.namespace_id(), &ResourceName::new("r").unwrap());
    let mut update = Update::new(key);
    update
        .set
        .extend(attrs.iter().map(|(attr, value)| ((*attr).into(), value.clone())));
    assert!(w.repo.table().update(update).await.unwrap().is_applied());
}

#[track_caller]
fn check_unsupported<T>(result: Result<T, Error>, attribute: &str) {
    match result {
        Err(Error::Unsupported(feature)) => assert_eq!(feature.attribute, attribute),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn limits_with_shapes_are_kept_when_others_are_changed() {
    let w = World::new().await;
    let admin = w.repo.admin();
    admin
        .set_resource_defaults("r", [quota(), scheduled()])
        .await
        .unwrap();
    let mut limits = admin.resource_defaults("r").await.unwrap();
    limits.push(Limit::per_hour("rph", 5).build().unwrap());
    admin.set_resource_defaults("r", &limits).await.unwrap();
    let mut read = admin.effective_limits("k", "r").await.unwrap();
    read.sort_by(|a, b| a.name().cmp(b.name()));
    let mut expected = vec![quota().build().unwrap(), scheduled().build().unwrap()];
    expected.extend(limits.pop());
    expected.sort_by(|a, b| a.name().cmp(b.name()));
    assert_eq!(read, expected);
}

#[tokio::test]
async fn a_quota_is_taken_from_shown_and_given_back() {
    let w = World::new().await;
    w.repo
        .admin()
        .set_resource_defaults("r", [quota()])
        .await
        .unwrap();
    let lease = w.limiter.acquire("k", "r").consume("rpd", 4000).await.unwrap();
    lease.commit().await.unwrap();
    let lease = w.limiter.acquire("k", "r").consume("rpd", 6000).await.unwrap();
    let err = w.limiter.acquire("k", "r").consume("rpd", 1).await.unwrap_err();
    let Error::RateLimitExceeded(refused) = err else {
        panic!("{err}")
    };
    let reset = refused.worst().unwrap().resets_at.unwrap();
    let wait = refused.retry_after().unwrap();
    assert_eq!(reset.since(EpochMillis(START)), wait.as_millis() as i64);
    lease.rollback().await.unwrap();
    assert_eq!(w.limiter.available("k", "r").await.unwrap()["rpd"], 6000);
    w.clock.advance(wait);
    let lease = w.limiter.acquire("k", "r").consume("rpd", 10_000).await.unwrap();
    lease.commit().await.unwrap();
    // A quota that comes with a call alone has no period.
    let with_the_call = w.limiter.acquire("k", "r").consume("rpd", 1).limits([quota()]);
    check_unsupported(with_the_call.await, "reset_schedule");
}

#[tokio::test]
async fn live_buckets_are_given_the_shapes() {
    let w = World::new().await;
    let admin = w.repo.admin();
    let plain = [Limit::per_minute("rpm", 100), Limit::per_day("rpd", 10_000)];
    admin.set_entity_limits("k", "r", plain.clone()).await.unwrap();
    let lease = w.limiter.acquire("k", "r").consume("rpm", 1).await.unwrap();
    lease.commit().await.unwrap();
    admin
        .set_entity_limits("k", "r", [quota(), scheduled()])
        .await
        .unwrap();
    let key = w.id("k", "r").key(0);
    let item = w.repo.table().get(key, true).await.unwrap().unwrap();
    for (attr, value) in [
        ("b_rpd_ra", Value::int(0)),
        ("b_rpd_sched", Value::text("-")),
        ("b_rpm_rsched", Value::text("-")),
        ("sched", Value::text("1h0-6s500")),
        ("rsched", Value::text("1m0h0")),
        ("sched_tz", Value::text("Europe/Berlin")),
        ("vu", Value::int(0)),
    ] {
        assert_eq!(item.get(attr), Some(&value), "{attr}");
    }
    // And are plain again afterwards.
    admin.set_entity_limits("k", "r", plain).await.unwrap();
    w.repo.invalidate_caches();
    let lease = w.limiter.acquire("k", "r").consume("rpm", 1).await.unwrap();
    lease.commit().await.unwrap();
}

#[tokio::test]
async fn session_limits_can_be_set() {
    let w = World::new().await;
    let admin = w.repo.admin();
    let session = Limit::session("s", 50, Duration::from_hours(5));
    admin.set_resource_defaults("r", [session]).await.unwrap();
    let lease = w.limiter.acquire("k", "r").consume("s", 50).await.unwrap();
    lease.commit().await.unwrap();
    let version = VersionRecord::decode(&w.repo.table().get(version_key(), true).await.unwrap().unwrap());
    assert_eq!(version.unwrap().client_minimum, "0.15.0");
    // Another process opens the table.
    let other = w.another().await;
    let err = other.limiter.acquire("k", "r").consume("s", 1).await.unwrap_err();
    assert!(matches!(err, Error::RateLimitExceeded(_)), "{err}");
}

#[tokio::test]
async fn soft_limits_count_and_do_not_refuse() {
    let w = World::new().await;
    let admin = w.repo.admin();
    let soft = Limit::per_minute("rpm", 5).soft();
    admin.set_resource_defaults("r", [soft.clone()]).await.unwrap();
    let version = VersionRecord::decode(&w.repo.table().get(version_key(), true).await.unwrap().unwrap());
    assert_eq!(version.unwrap().client_minimum, "0.17.0");
    // Another process opens the table.
    let other = w.another().await;
    let lease = other.limiter.acquire("k", "r").consume("rpm", 9).await.unwrap();
    assert_eq!(lease.overdrawn(), ["rpm"]);
    lease.commit().await.unwrap();
    assert_eq!(w.limiter.available("k", "r").await.unwrap()["rpm"], -4);

    // With limits of every kind beside it, as another client stores them.
    store(
        &w,
        &[
            ("w_s_cp", Value::int(50)),
            ("w_s_ra", Value::int(0)),
            ("w_s_rp", Value::int(1)),
            ("w_s_rsa", Value::int(18_000)),
        ],
    )
    .await;
    let session = Limit::session("s", 50, Duration::from_hours(5));
    let limits = admin.resource_defaults("r").await.unwrap();
    assert_eq!(limits, [soft.build().unwrap(), session.build().unwrap()]);
}

#[tokio::test]
async fn a_limit_that_is_not_soft_any_more_loses_its_stamps() {
    let (soft, hard) = (Limit::per_minute("rpm", 5).soft(), Limit::per_minute("rpm", 5));
    for level in ["resource", "deleted resource", "system", "deleted system"] {
        let w = World::new().await;
        let admin = w.repo.admin();
        if level.ends_with("resource") {
            admin.set_system_defaults([hard.clone()], None).await.unwrap();
            admin.set_resource_defaults("r", [soft.clone()]).await.unwrap();
        } else {
            admin.set_system_defaults([soft.clone()], None).await.unwrap();
        }
        admin.set_entity_limits("own", "r", [soft.clone()]).await.unwrap();
        for entity in ["k", "own"] {
            let lease = w.limiter.acquire(entity, "r").consume("rpm", 9).await.unwrap();
            lease.commit().await.unwrap();
            // As a client of the Python library renews it.
            let until = Value::int(START + 60_000);
            w.poke(entity, "r", &[("b_rpm_soft", Some(until))]).await;
        }
        match level {
            "resource" => admin.set_resource_defaults("r", [hard.clone()]).await.unwrap(),
            "deleted resource" => assert!(admin.delete_resource_defaults("r").await.unwrap()),
            "system" => admin.set_system_defaults([hard.clone()], None).await.unwrap(),
            _ => {
                // Nothing says any more that the limit is hard, and nothing refuses.
                assert!(admin.delete_system_defaults().await.unwrap());
            }
        }
        for (entity, is_kept) in [("k", level == "deleted system"), ("own", true)] {
            let bucket = w.bucket(entity, "r").await.unwrap();
            assert_eq!(bucket.limits[0].is_soft, is_kept, "{level}: {entity}");
        }
    }
}

#[tokio::test]
async fn limits_that_cannot_be_read_are_not_left_out() {
    let w = World::new().await;
    let admin = w.repo.admin();
    admin
        .set_resource_defaults("r", [quota(), scheduled()])
        .await
        .unwrap();
    store(&w, &[("l_rpd_rsched", Value::text("2m0h0"))]).await;
    check_unsupported(admin.resource_defaults("r").await, "l_rpd_rsched");
    check_unsupported(admin.effective_limits("k", "r").await, "l_rpd_rsched");
    admin.set_resource_defaults("r", [quota()]).await.unwrap();
    assert_eq!(admin.resource_defaults("r").await.unwrap().len(), 1);
}
