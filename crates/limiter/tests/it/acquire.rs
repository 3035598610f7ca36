//! Taking tokens: several limits at once, cascades, refusals, overrides, shards.

use std::time::Duration;

use zae_limiter::{ALL_RESOURCES, Error, Limit, NewEntity, RateLimitExceeded, Wait};
use zae_limiter_core::table::Value;

use crate::world::World;

fn refused(result: Result<zae_limiter::Lease, Error>) -> RateLimitExceeded {
    match result {
        Err(Error::RateLimitExceeded(refused)) => refused,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn several_limits_are_taken_at_once_or_not_at_all() {
    let w = World::configured().await;
    w.limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .consume("tpm", 900)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let no = refused(
        w.limiter
            .acquire("k", "r")
            .consume("rpm", 1)
            .consume("tpm", 200)
            .await,
    );
    assert_eq!(no.worst().unwrap().limit_name, "tpm");
    assert_eq!(no.statuses().len(), 2, "every limit checked is named");
    assert_eq!(no.passed().next().unwrap().limit_name, "rpm");
    // 100 of 200 tokens are missing; 1000 come a minute.
    assert_eq!(no.retry_after(), Some(Duration::from_secs(6)));
    assert_eq!(w.balance("k", "r", "rpm").await, 9000);
    assert_eq!(w.balance("k", "r", "tpm").await, 100_000);
}

#[tokio::test]
async fn a_promised_wait_is_true_to_the_millisecond() {
    let w = World::configured().await;
    w.limiter
        .acquire("k", "r")
        .consume("tpm", 999)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let wait = refused(w.limiter.acquire("k", "r").consume("tpm", 7).await)
        .retry_after()
        .unwrap();
    let millis = i64::try_from(wait.as_millis()).unwrap();
    w.clock
        .advance(Duration::from_millis((millis - 1).unsigned_abs()));
    let still = refused(w.limiter.acquire("k", "r").consume("tpm", 7).await);
    assert_eq!(still.retry_after(), Some(Duration::from_millis(1)));
    w.clock.advance(Duration::from_millis(1));
    w.limiter
        .acquire("k", "r")
        .consume("tpm", 7)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
}

#[tokio::test]
async fn never_is_told_apart_from_not_yet() {
    let w = World::configured().await;
    for _ in 0..2 {
        // Before the bucket exists, and when it does.
        let never = refused(w.limiter.acquire("k", "r").consume("tpm", 1001).await);
        assert!(never.is_never());
        assert_eq!(never.worst().unwrap().wait, Wait::Never);
        w.limiter
            .acquire("k", "r")
            .consume("tpm", 1)
            .await
            .unwrap()
            .commit()
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_slow_limit_beside_a_busy_one_still_refills() {
    let w = World::new().await;
    w.repo
        .admin()
        .set_system_defaults([Limit::per_second("busy", 1), Limit::per_day("slow", 1)], None)
        .await
        .unwrap();
    w.limiter
        .acquire("k", "r")
        .consume("busy", 1)
        .consume("slow", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    for _ in 0..300 {
        w.clock.advance(Duration::from_millis(1007));
        w.limiter
            .acquire("k", "r")
            .consume("busy", 1)
            .await
            .unwrap()
            .commit()
            .await
            .unwrap();
    }
    // 302,100 ms at a token a day are 3 millitokens and a half; no single pass earns a whole one.
    assert_eq!(w.balance("k", "r", "slow").await, 3);
}

#[tokio::test]
async fn what_a_child_takes_its_parent_pays_too() {
    let w = World::configured().await;
    w.repo
        .admin()
        .create_entity(NewEntity::new("proj"))
        .await
        .unwrap();
    w.repo
        .admin()
        .create_entity(NewEntity::new("key").parent("proj").cascade(true))
        .await
        .unwrap();
    w.repo
        .admin()
        .set_entity_limits("proj", ALL_RESOURCES, [Limit::per_minute("tpm", 1500)])
        .await
        .unwrap();
    let take = || {
        w.limiter
            .acquire("key", "r")
            .consume("rpm", 1)
            .consume("tpm", 400)
    };
    let lease = take().await.unwrap();
    assert_eq!(lease.consumed("tpm"), 400);
    lease.commit().await.unwrap();
    // The parent has no `rpm` of its own level, so only `tpm` is its business.
    assert_eq!(w.balance("proj", "r", "tpm").await, 1_100_000);
    assert!(w.bucket("proj", "r").await.unwrap().limit("rpm").is_none());

    // Another child empties the parent; this one is then refused by it, and gets its own debit back.
    w.repo
        .admin()
        .create_entity(NewEntity::new("key2").parent("proj").cascade(true))
        .await
        .unwrap();
    w.limiter
        .acquire("key2", "r")
        .consume("tpm", 1000)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    w.repo.invalidate_caches();
    let no = refused(take().await);
    assert_eq!(no.worst().unwrap().entity.as_str(), "proj");
    assert_eq!(no.statuses().len(), 3);
    assert!(
        no.statuses()[..2].iter().all(|status| !status.exceeded),
        "the child had enough: {no:?}"
    );
    assert_eq!(w.balance("key", "r", "tpm").await, 600_000);
    assert_eq!(w.consumed("key", "r", "tpm").await, 400_000);
}

#[tokio::test]
async fn an_entity_created_after_its_bucket_is_learnt_of() {
    let w = World::configured().await;
    w.limiter
        .acquire("key", "r")
        .consume("rpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    w.repo
        .admin()
        .create_entity(NewEntity::new("key").parent("proj").cascade(true))
        .await
        .unwrap();
    w.limiter
        .acquire("key", "r")
        .consume("rpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    assert_eq!(w.balance("proj", "r", "rpm").await, 9000);
    w.repo.drain().await;
    let owner = w.bucket("key", "r").await.unwrap().owner;
    assert!(
        owner.cascade && owner.is_authoritative(),
        "the bucket was stamped: {owner:?}"
    );
}

#[tokio::test]
async fn limits_given_with_the_call_are_enforced_on_an_existing_bucket() {
    let w = World::configured().await;
    w.limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let strict = || {
        w.limiter
            .acquire("k", "r")
            .limits([Limit::per_minute("rpm", 3)])
            .consume("rpm", 1)
    };
    for _ in 0..3 {
        strict().await.unwrap().commit().await.unwrap();
    }
    assert_eq!(refused(strict().await).worst().unwrap().capacity, 3);
}

#[tokio::test]
async fn limits_given_with_the_call_need_no_stored_ones() {
    let w = World::new().await;
    let limits = [
        Limit::per_minute("rpm", 100),
        Limit::per_minute("tpm", 10_000).burst(50_000),
    ];
    let call = w
        .limiter
        .acquire("k", "r")
        .limits(limits)
        .consume("rpm", 1)
        .consume("tpm", 50_000);
    call.await.unwrap().commit().await.unwrap();
    let none = w.limiter.acquire("k2", "r").consume("rpm", 1).await;
    assert!(matches!(none, Err(Error::NotConfigured { .. })), "{none:?}");
}

#[tokio::test]
async fn a_limit_added_later_is_seeded_on_the_live_bucket() {
    let w = World::configured().await;
    w.limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let more = [
        Limit::per_minute("rpm", 10),
        Limit::per_minute("tpm", 1000),
        Limit::per_hour("gpu", 50),
    ];
    w.repo.admin().set_resource_defaults("r", more).await.unwrap();
    w.limiter
        .acquire("k", "r")
        .consume("gpu", 20)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    assert_eq!(w.balance("k", "r", "gpu").await, 30_000);
}

#[tokio::test]
async fn names_with_odd_characters_work_throughout() {
    let w = World::new().await;
    let (entity, resource, limit) = ("user:42@ex.am-ple_1", "a/b.c-d:8b", "tok.en-s_x");
    w.repo
        .admin()
        .create_entity(NewEntity::new(entity).parent("0.p").cascade(true))
        .await
        .unwrap();
    w.repo
        .admin()
        .set_entity_limits(entity, resource, [Limit::per_minute(limit, 5)])
        .await
        .unwrap();
    w.repo
        .admin()
        .set_entity_limits("0.p", resource, [Limit::per_minute(limit, 8)])
        .await
        .unwrap();
    w.limiter
        .acquire(entity, resource)
        .consume(limit, 4)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    assert_eq!(
        refused(w.limiter.acquire(entity, resource).consume(limit, 4).await)
            .statuses()
            .len(),
        2
    );
    assert_eq!(w.balance("0.p", resource, limit).await, 4000);
}

#[tokio::test]
async fn numbers_at_the_bounds_of_the_format_are_exact() {
    let w = World::new().await;
    let max = 1_000_000_000_000_000_u64;
    w.repo
        .admin()
        .set_resource_defaults(
            "r",
            [Limit::custom("big", max, max, Duration::from_secs(1_000_000_000))],
        )
        .await
        .unwrap();
    let mut lease = w.limiter.acquire("k", "r").consume("big", max).await.unwrap();
    lease.adjust_to("big", 2 * max).unwrap_err();
    lease.adjust("big", max.cast_signed()).unwrap();
    assert_eq!(lease.consumed("big"), 2 * max);
    lease.commit().await.unwrap();
    assert_eq!(w.balance("k", "r", "big").await, -1_000_000_000_000_000_000);
    let wait = refused(w.limiter.acquire("k", "r").consume("big", max).await)
        .retry_after()
        .unwrap();
    assert_eq!(wait.as_secs(), 2_000_000_000);
}

#[tokio::test]
async fn a_bucket_is_kept_until_it_has_paid_its_debt() {
    let w = World::configured().await;
    let mut lease = w.limiter.acquire("k", "r").consume("tpm", 1000).await.unwrap();
    lease.adjust("tpm", 9000).unwrap();
    lease.commit().await.unwrap();
    let ttl = w.bucket("k", "r").await.unwrap().ttl.unwrap();
    // A minute to fill, half of one more, and nine minutes for the debt, rounded up.
    assert_eq!(ttl, 1_800_000_000 + 92 + 541);
    // Nine minutes later the debt is paid, and nothing is left.
    w.clock.advance(Duration::from_mins(9));
    let no = refused(w.limiter.acquire("k", "r").consume("tpm", 1).await);
    assert_eq!(no.retry_after(), Some(Duration::from_millis(60)));
    w.clock.advance(Duration::from_millis(60));
    w.limiter
        .acquire("k", "r")
        .consume("tpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    assert!(w.bucket("k", "r").await.unwrap().ttl.unwrap() > ttl);
}

#[tokio::test]
async fn flags_and_kinds_of_newer_clients_are_honoured_or_refused() {
    let w = World::configured().await;
    let take = || w.limiter.acquire("k", "r").consume("rpm", 1);
    take().await.unwrap().commit().await.unwrap();

    w.poke("k", "r", &[("disabled", Some(Value::Bool(true)))]).await;
    assert!(matches!(
        take().await,
        Err(Error::Disabled { level: "bucket", .. })
    ));
    w.poke("k", "r", &[("disabled", None)]).await;

    // A surplus under `vu` = 0 is cut before it can be spent.
    w.poke(
        "k",
        "r",
        &[
            ("vu", Some(Value::int(0))),
            ("b_rpm_tk", Some(Value::int(50_000))),
        ],
    )
    .await;
    take().await.unwrap().commit().await.unwrap();
    let bucket = w.bucket("k", "r").await.unwrap();
    assert_eq!(
        (bucket.limit("rpm").unwrap().balance.0, bucket.valid_until),
        (9000, None)
    );

    // An item with a schedule may be spent while it is valid, and no further.
    w.poke(
        "k",
        "r",
        &[
            ("sched", Some(Value::text("1h0"))),
            ("vu", Some(Value::int(1_800_000_060_000_i64))),
        ],
    )
    .await;
    take().await.unwrap().commit().await.unwrap();
    w.clock.advance(Duration::from_mins(1));
    assert!(matches!(take().await, Err(Error::Unsupported(_))));
    let bucket = w.bucket("k", "r").await.unwrap();
    assert_eq!(bucket.valid_until, Some(1_800_000_060_000), "nobody advanced it");
}

#[tokio::test]
async fn a_disabled_resource_gets_no_bucket() {
    use zae_limiter::table::TableExt as _;
    use zae_limiter_core::{schema::resource_config_key, table::Update};
    let w = World::configured().await;
    let mut flag = Update::new(resource_config_key(
        w.repo.namespace_id(),
        &w.id("k", "r").resource,
    ));
    flag.set.push(("disabled".into(), Value::Bool(true)));
    assert!(w.repo.table().update(flag).await.unwrap().is_applied());
    let no = w.limiter.acquire("k", "r").consume("rpm", 1).await;
    assert!(
        matches!(
            no,
            Err(Error::Disabled {
                level: "resource",
                ..
            })
        ),
        "{no:?}"
    );
    // Replacing the limits keeps the flag.
    w.repo
        .admin()
        .set_resource_defaults("r", [Limit::per_minute("rpm", 5)])
        .await
        .unwrap();
    w.repo.invalidate_caches();
    assert!(w.limiter.acquire("k", "r").consume("rpm", 1).await.is_err());
}

#[tokio::test]
async fn a_corrupt_or_future_row_is_an_error() {
    let w = World::configured().await;
    let take = || w.limiter.acquire("k", "r").consume("tpm", 1000);
    take().await.unwrap().commit().await.unwrap();
    w.repo.invalidate_caches();
    for (attr, value) in [
        ("b_tpm_rp", Value::int(0)),
        ("rf", Value::text("x")),
        ("b_tpm_ra", Value::N("1.5".into())),
    ] {
        let old = zae_limiter::table::TableExt::get(&*w.repo.table(), w.id("k", "r").key(0), true);
        let old = old.await.unwrap().unwrap()[attr].clone();
        w.poke("k", "r", &[(attr, Some(value))]).await;
        let err = take().await.unwrap_err();
        assert!(
            matches!(&err, Error::Corrupt(corrupt) if corrupt.attribute == attr),
            "{err:?}"
        );
        w.poke("k", "r", &[(attr, Some(old))]).await;
    }
    w.poke("k", "r", &[("quantum", Some(Value::int(1)))]).await;
    w.clock.advance(Duration::from_mins(1));
    let err = take().await.unwrap_err();
    assert!(
        matches!(&err, Error::Unsupported(feature) if feature.attribute == "quantum"),
        "{err:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_together_never_pass_the_limit() {
    let w = World::new().await;
    w.repo
        .admin()
        .set_system_defaults([Limit::per_day("rpm", 100)], None)
        .await
        .unwrap();
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let other = w.another().await;
        tasks.push(tokio::spawn(async move {
            let mut admitted = 0;
            for _ in 0..40 {
                match other.limiter.acquire("hot", "r").consume("rpm", 1).await {
                    Ok(lease) => {
                        lease.commit().await.unwrap();
                        admitted += 1;
                    }
                    Err(Error::RateLimitExceeded(_)) => {}
                    Err(err) => panic!("{err}"),
                }
            }
            admitted
        }));
    }
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    assert_eq!(admitted, 100);
    assert_eq!(w.consumed("hot", "r", "rpm").await, 100_000);
}

#[tokio::test]
async fn a_bucket_out_of_write_units_is_split_without_minting_tokens() {
    let w = World::new().await;
    w.repo
        .admin()
        .set_system_defaults([Limit::per_day("rpm", 1000)], None)
        .await
        .unwrap();
    let mut admitted = 0;
    let mut max_shards = 1;
    for _ in 0..400 {
        // The clock stands still: no shard gains write units, so this forces a split.
        if admitted == 10 || admitted == 20 {
            for shard in 0..max_shards {
                let key = w.id("hot", "r").key(shard);
                let mut update = zae_limiter_core::table::Update::new(key);
                update.set.push(("b_wcu_tk".into(), Value::int(0)));
                update.condition = zae_limiter_core::table::Condition::Exists("PK".into());
                let _ = zae_limiter::table::TableExt::update(&*w.repo.table(), update)
                    .await
                    .unwrap();
            }
        }
        match w.limiter.acquire("hot", "r").consume("rpm", 3).await {
            Ok(lease) => {
                admitted += 1;
                lease.commit().await.unwrap();
            }
            Err(Error::RateLimitExceeded(_)) => {}
            Err(err) => panic!("{err}"),
        }
        max_shards = max_shards.max(w.bucket("hot", "r").await.unwrap().shard_count);
    }
    assert!(max_shards >= 2, "the bucket was split");
    assert!(admitted <= 333, "{admitted} times 3 of 1000");
    assert!(
        admitted >= 320,
        "only {admitted} times 3 of 1000 despite {max_shards} shards"
    );
}

#[tokio::test]
async fn limits_that_only_the_entity_or_only_its_parent_has() {
    let w = World::new().await;
    let admin = w.repo.admin();
    let entity = NewEntity::new("key").parent("proj").cascade(true);
    admin.create_entity(entity).await.unwrap();
    let limits = [Limit::per_minute("rpm", 10)];
    admin
        .set_entity_limits("key", ALL_RESOURCES, limits)
        .await
        .unwrap();
    let acquire = |limit| w.limiter.acquire("key", "r").consume(limit, 4);
    let check = |limit| w.limiter.check("key", "r").needed(limit, 4);
    // A parent without any limits is a fault of the configuration, for both calls.
    let lacking = |err: Error| matches!(err, Error::NotConfigured { entity, .. } if entity == "proj");
    assert!(lacking(acquire("rpm").await.unwrap_err()));
    assert!(lacking(check("rpm").await.unwrap_err()));

    let limits = [Limit::per_minute("tpm", 10)];
    admin
        .set_entity_limits("proj", ALL_RESOURCES, limits)
        .await
        .unwrap();
    w.repo.invalidate_caches();
    acquire("rpm").await.unwrap().commit().await.unwrap();
    assert_eq!(w.balance("key", "r", "rpm").await, 6_000);
    assert!(w.bucket("proj", "r").await.is_none());
    let unknown = |err: Error, field| matches!(err, Error::InvalidInput(bad) if bad.field() == field);
    assert!(unknown(acquire("tpm").await.unwrap_err(), "consume.tpm"));
    assert!(unknown(check("tpm").await.unwrap_err(), "needed.tpm"));
}

#[tokio::test]
async fn an_unknown_key_is_refused_from_the_cache() {
    let w = World::new().await;
    let call = || async { w.limiter.acquire("who", "r").consume("rpm", 1).await };
    assert!(matches!(call().await, Err(Error::NotConfigured { .. })));
    let (again, cost) = w.cost(call()).await;
    assert!(matches!(again, Err(Error::NotConfigured { .. })));
    assert_eq!(cost.requests(), 0);
}
