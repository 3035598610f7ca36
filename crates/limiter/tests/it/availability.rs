//! Looks at limits: what they tell is what an acquire then finds.

use std::time::Duration;

use zae_limiter::schedule::ScheduleEntry;
use zae_limiter::{ALL_RESOURCES, Access, Availability, EntityId, Error, Limit, NewEntity};
use zae_limiter_core::table::Value;

use crate::world::World;

/// As on a stack whose functions are of this release, which bypasses and moves ask for.
async fn with_functions() -> World {
    let w = World::configured().await;
    w.functions_of("0.17.0").await;
    w
}

async fn take(w: &World, entity: &str, limit: &str, tokens: u64) -> Result<(), Error> {
    let lease = w.limiter.acquire(entity, "r").consume(limit, tokens).await?;
    lease.commit().await
}

async fn look(w: &World, entity: &str, limit: &str, tokens: u64) -> Availability {
    w.limiter.check(entity, "r").needed(limit, tokens).await.unwrap()
}

/// Looks, then acquires: both must say the same.
async fn check(w: &World, entity: &str, limit: &str, tokens: u64) -> Availability {
    let found = look(w, entity, limit, tokens).await;
    // Without images that may refuse for a second what another process has let through.
    w.repo.invalidate_images();
    let taken = take(w, entity, limit, tokens).await;
    match &taken {
        Ok(()) => assert!(found.is_admitted(), "{found:?}"),
        Err(Error::RateLimitExceeded(refused)) => {
            assert_eq!(
                refused.retry_after(),
                found.retry_after(),
                "{refused:?} {found:?}"
            );
            assert!(!found.is_admitted() && found.disabled.is_none(), "{found:?}");
        }
        Err(Error::Disabled { entity, level, .. }) => {
            let by = found.disabled.as_ref().unwrap();
            assert_eq!((by.entity.as_str(), by.level.as_str()), (entity.as_str(), *level));
            assert_eq!((found.is_admitted(), found.retry_after()), (false, None));
        }
        Err(other) => panic!("{other}"),
    }
    found
}

#[tokio::test]
async fn what_no_write_has_applied_yet() {
    let w = World::new().await;
    let nights = ScheduleEntry::on("* 0-6 * * *").scale(0.5);
    let limits = [
        Limit::quota("rpd", 100).resets("0 0 * * *", "UTC"),
        Limit::session("ses", 50, Duration::from_hours(5)),
        Limit::per_minute("rpm", 100).scheduled([nights]),
    ];
    w.repo.admin().set_system_defaults(limits, None).await.unwrap();
    for (limit, tokens) in [("rpd", 90), ("ses", 40), ("rpm", 95)] {
        take(&w, "k", limit, tokens).await.unwrap();
    }
    // It is 08:00.
    let found = check(&w, "k", "rpd", 20).await;
    assert_eq!(
        found.available(),
        [("rpd".into(), 10), ("rpm".into(), 5), ("ses".into(), 10)].into()
    );
    assert_eq!(found.needed(), [("rpd".into(), 20)].into());
    assert_eq!(found.deficit(), [("rpd".into(), 10)].into());
    assert_eq!(found.exceeded().count(), 1);
    let resets = found.resets_at();
    assert_eq!(resets.keys().collect::<Vec<_>>(), ["rpd", "ses"]);
    assert_eq!(resets["rpd"], found.checked_at + Duration::from_hours(16));
    assert_eq!(resets["ses"], found.checked_at + Duration::from_hours(5));
    assert_eq!(found.configured.len(), 3);
    assert_eq!(found.status("rpd").unwrap().capacity, 100);
    assert!(found.status("tpm").is_none());

    // The session is over, the day is not.
    w.clock.advance(Duration::from_hours(5));
    assert_eq!(check(&w, "k", "ses", 50).await.available()["ses"], 50);
    assert_eq!(look(&w, "k", "rpd", 11).await.deficit()["rpd"], 1);
    // It is midnight: the quota is whole, and half of the rate applies.
    w.clock.advance(Duration::from_hours(11));
    assert_eq!(check(&w, "k", "rpd", 100).await.available()["rpd"], 100);
    let found = check(&w, "k", "rpm", 51).await;
    assert_eq!(
        (found.available()["rpm"], found.status("rpm").unwrap().capacity),
        (50, 50)
    );
    // The capacity of the day covers it, at seven.
    assert!(found.retry_after().unwrap() >= Duration::from_hours(7));
    assert_eq!(check(&w, "k", "rpm", 101).await.retry_after(), None, "never");
}

#[tokio::test]
async fn debts() {
    let w = World::new().await;
    let limits = [
        Limit::per_minute("rpm", 10),
        Limit::per_minute("tpm", 10),
        Limit::per_minute("cpm", 10).soft(),
    ];
    w.repo.admin().set_system_defaults(limits, None).await.unwrap();
    let request = w.limiter.acquire("k", "r").consume("tpm", 0).consume("cpm", 30);
    let mut lease = request.await.unwrap();
    lease.adjust("tpm", 30).unwrap();
    lease.commit().await.unwrap();
    // Limits that are not asked for do not matter, and 0 tokens of one that owes are refused.
    let found = check(&w, "k", "rpm", 1).await;
    assert_eq!(found.retry_after(), Some(Duration::ZERO));
    assert_eq!((found.available()["tpm"], found.available()["cpm"]), (-20, -20));
    assert!(!check(&w, "k", "tpm", 0).await.is_admitted());
    assert!(check(&w, "k", "cpm", 100).await.is_admitted());
    let all = w.limiter.check("k", "r").await.unwrap();
    assert_eq!(
        (all.is_admitted(), all.needed().len(), all.deficit().len()),
        (true, 0, 0)
    );
}

#[tokio::test]
async fn what_is_disabled() {
    let w = World::configured().await;
    let admin = w.repo.admin();
    admin
        .create_entity(NewEntity::new("k").parent("p").cascade(true))
        .await
        .unwrap();
    let other = w.another().await;
    let elsewhere = other.repo.admin();
    for (entity, is_used) in [("k", true), ("new", false), ("used", true)] {
        // The configuration is cached before another process changes it.
        look(&w, entity, "rpm", 1).await;
        if is_used {
            take(&w, entity, "rpm", 1).await.unwrap();
        }
        elsewhere
            .set_resource_access("r", Access::Disabled)
            .await
            .unwrap();
        let found = check(&w, entity, "rpm", 1).await;
        assert_eq!(
            found.disabled.unwrap().level,
            if is_used { "bucket" } else { "resource" }
        );
        elsewhere
            .set_entity_access(entity, "r", Access::Enabled)
            .await
            .unwrap();
        let found = check(&w, entity, "rpm", 1).await;
        // Its parent is still disabled.
        assert_eq!(
            found.disabled.map(|by| by.entity.to_string()),
            (entity == "k").then(|| "p".to_owned())
        );
        elsewhere.set_resource_access("r", None).await.unwrap();
        assert_eq!(check(&w, entity, "rpm", 1).await.disabled, None);
    }
    elsewhere
        .set_entity_access("p", ALL_RESOURCES, Access::Disabled)
        .await
        .unwrap();
    let found = check(&w, "k", "rpm", 1).await;
    assert_eq!(found.disabled.unwrap().entity.as_str(), "p");
}

#[tokio::test]
async fn what_is_under_a_bypass() {
    let w = with_functions().await;
    let admin = w.repo.admin();
    admin
        .create_entity(NewEntity::new("k").parent("p").cascade(true))
        .await
        .unwrap();
    let other = w.another().await;
    let elsewhere = other.repo.admin();
    look(&w, "k", "rpm", 1).await;
    elsewhere
        .set_entity_access("k", "r", Access::Bypass)
        .await
        .unwrap();
    // Without a bucket, that of the configuration counts.
    let found = check(&w, "k", "rpm", 8).await;
    assert_eq!((found.is_bypassed(), found.bypassed.len()), (true, 1));
    take(&w, "p", "rpm", 2).await.unwrap();
    // The parent has none left, and is under none.
    let found = check(&w, "k", "rpm", 5).await;
    assert_eq!((found.is_bypassed(), found.deficit()["rpm"]), (true, 5));
    assert_eq!(
        found
            .exceeded()
            .map(|status| status.entity.as_str())
            .collect::<Vec<_>>(),
        ["p"]
    );
    elsewhere
        .set_entity_access("p", "r", Access::Bypass)
        .await
        .unwrap();
    // What was read in the very millisecond in which an acquire begins counts as read by it.
    w.clock.advance(Duration::from_millis(1));
    let found = check(&w, "k", "rpm", 10).await;
    assert_eq!((found.bypassed.len(), found.is_admitted()), (2, true));
    assert!(check(&w, "p", "rpm", 10).await.is_bypassed());
    // The stamps are older than a minute: the configuration decides.
    w.clock.advance(Duration::from_mins(2));
    assert!(check(&w, "k", "rpm", 10).await.is_bypassed());
    assert!(check(&w, "p", "rpm", 10).await.is_bypassed());
    elsewhere.set_entity_access("p", "r", None).await.unwrap();
    elsewhere.set_entity_access("k", "r", None).await.unwrap();
    let found = check(&w, "k", "rpm", 50).await;
    assert_eq!((found.is_bypassed(), found.retry_after()), (false, None));
}

#[tokio::test]
async fn a_parent_that_another_process_gives() {
    let w = with_functions().await;
    let admin = w.repo.admin();
    for entity in ["a", "b"] {
        admin.create_entity(NewEntity::new(entity)).await.unwrap();
    }
    admin
        .create_entity(NewEntity::new("k").parent("a").cascade(true))
        .await
        .unwrap();
    take(&w, "k", "rpm", 1).await.unwrap();
    take(&w, "b", "rpm", 6).await.unwrap();
    let other = w.another().await;
    other
        .repo
        .admin()
        .set_parent("k", EntityId::new("b").unwrap())
        .await
        .unwrap();
    let found = check(&w, "k", "rpm", 5).await;
    assert_eq!(
        found
            .exceeded()
            .map(|status| status.entity.as_str())
            .collect::<Vec<_>>(),
        ["b"]
    );
    other.repo.admin().set_parent("k", None).await.unwrap();
    let found = check(&w, "k", "rpm", 5).await;
    assert_eq!(found.statuses.len(), 2, "{found:?}");
}

/// However many resources there are, the shards of one are read.
#[tokio::test]
async fn costs() {
    let w = World::configured().await;
    let admin = w.repo.admin();
    admin.create_entity(NewEntity::new("p")).await.unwrap();
    admin
        .create_entity(NewEntity::new("k").parent("p").cascade(true))
        .await
        .unwrap();
    for resource in ["r", "r2", "r3", "r4", "r5"] {
        for entity in ["k", "single"] {
            let lease = w
                .limiter
                .acquire(entity, resource)
                .consume("rpm", 1)
                .await
                .unwrap();
            lease.commit().await.unwrap();
        }
    }
    let cost = async |w: &World, entity: &str| {
        let (_, usage) = w.cost(look(w, entity, "rpm", 1)).await;
        assert_eq!(usage.requests(), usage.reads(), "{usage:?}");
        (usage.reads(), usage.read_units)
    };
    assert_eq!(cost(&w, "single").await, (1, 0.5));
    assert_eq!(cost(&w, "k").await, (1, 1.0), "with its parent");
    // The configuration in a batch, which an acquire reads, too.
    w.repo.invalidate_caches();
    assert_eq!(cost(&w, "single").await, (2, 3.5));
    // Without a bucket, what the configuration says of access is read again.
    look(&w, "new", "rpm", 1).await;
    assert_eq!(cost(&w, "new").await, (2, 6.5));
    let (_, usage) = w
        .cost(async { w.limiter.check("single", "r").consistent().await.unwrap() })
        .await;
    assert_eq!((usage.reads(), usage.read_units), (2, 7.0));
    // Places: the records of four levels, which are cached, and the entity's places.
    w.repo.admin().set_system_concurrency(5).await.unwrap();
    for (reads, units) in [(3, 3.0), (2, 1.0)] {
        let (_, usage) = w
            .cost(async { w.limiter.check("single", "r").in_flight().await.unwrap() })
            .await;
        assert_eq!((usage.reads(), usage.read_units), (reads, units));
    }

    // Split into two shards: what is not known is read in a second batch.
    w.poke("single", "r", &[("b_wcu_tk", Some(Value::int(0)))]).await;
    take(&w, "single", "rpm", 1).await.unwrap();
    assert_eq!(w.bucket("single", "r").await.unwrap().shard_count, 2);
    assert_eq!(cost(&w, "single").await, (1, 1.0));
    w.repo.invalidate_images();
    assert_eq!(cost(&w, "single").await, (2, 1.0));
}
