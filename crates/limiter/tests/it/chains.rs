//! Entities above each other: what callers see, what it costs, and what goes back.

use std::time::Duration;

use zae_limiter::{Error, Limit, NewEntity, Prefetch, RateLimiter, Repository};

use crate::world::World;

const ALL: [&str; 4] = ["key", "project", "team", "org"];

/// Four entities above each other that have 100 tokens a day each.
async fn world(depth: u32) -> World {
    let world = World::new().await;
    let admin = world.repo.admin();
    admin
        .set_resource_defaults("r", [Limit::per_day("rpd", 100)])
        .await
        .unwrap();
    admin.create_entity(NewEntity::new("org")).await.unwrap();
    for (id, parent) in [("team", "org"), ("project", "team"), ("key", "project")] {
        let new = NewEntity::new(id).parent(parent).cascade(true);
        admin.create_entity(new).await.unwrap();
    }
    admin.set_cascade_depth(depth).await.unwrap();
    world
}

async fn left(world: &World) -> [i128; 4] {
    let mut left = [0; 4];
    for (left, entity) in left.iter_mut().zip(ALL) {
        *left = world.balance(entity, "r", "rpd").await / 1000;
    }
    left
}

async fn take(limiter: &RateLimiter, tokens: u64) -> Result<zae_limiter::Lease, Error> {
    limiter.acquire("key", "r").consume("rpd", tokens).await
}

#[tokio::test]
async fn leases_settle_with_every_level() {
    let world = world(4).await;
    let mut lease = take(&world.limiter, 10).await.unwrap();
    assert_eq!(left(&world).await, [90; 4]);
    lease.adjust_to("rpd", 30).unwrap();
    lease.commit().await.unwrap();
    assert_eq!(left(&world).await, [70; 4]);
    take(&world.limiter, 5).await.unwrap().rollback().await.unwrap();
    drop(take(&world.limiter, 5).await.unwrap());
    assert!(world.repo.drain().await.is_complete());
    assert_eq!(left(&world).await, [70; 4]);
    let refused = take(&world.limiter, 71).await.unwrap_err();
    let Error::RateLimitExceeded(why) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(why.violations().count(), 4);
    assert!(world.repo.drain().await.is_complete());
    assert_eq!(left(&world).await, [70; 4]);
}

#[tokio::test]
async fn warm_levels_cost_one_write_each_and_no_read() {
    let world = world(4).await;
    drop(take(&world.limiter, 1).await.unwrap().commit().await);
    let (lease, cost) = world.cost(take(&world.limiter, 1)).await;
    assert_eq!((cost.updates, cost.reads(), cost.write_units), (4, 0, 8.0));
    lease.unwrap().commit().await.unwrap();
}

/// Another process has cached the configuration before the depth was raised.
#[tokio::test]
async fn other_processes_follow_within_the_time_of_their_cache() {
    let world = world(2).await;
    let other = world.another().await;
    take(&other.limiter, 1).await.unwrap().commit().await.unwrap();
    assert_eq!(other.repo.admin().cascade_depth().await.unwrap(), 2);
    assert_eq!(world.repo.admin().set_cascade_depth(4).await.unwrap(), 2);
    other.clock.advance(Duration::from_mins(1));
    take(&other.limiter, 1).await.unwrap().commit().await.unwrap();
    assert_eq!(world.balance("org", "r", "rpd").await, 99_000);
}

#[tokio::test]
async fn a_look_shows_all_levels() {
    let world = world(4).await;
    let admin = world.repo.admin();
    admin
        .set_entity_limits("org", "r", [Limit::per_day("rpd", 20)])
        .await
        .unwrap();
    for consistent in [false, true] {
        let check = world.limiter.check("key", "r").needed("rpd", 21);
        let check = if consistent { check.consistent() } else { check };
        let found = check.await.unwrap();
        let entities: Vec<_> = found
            .statuses
            .iter()
            .map(|status| status.entity.as_str())
            .collect();
        assert_eq!(entities, ALL);
        assert_eq!((found.available()["rpd"], found.retry_after()), (20, None));
        take(&world.limiter, 1).await.unwrap().rollback().await.unwrap();
    }
    admin
        .set_entity_access("org", "r", zae_limiter::Access::Disabled)
        .await
        .unwrap();
    let found = world.limiter.check("key", "r").await.unwrap();
    assert_eq!(found.disabled.unwrap().entity.as_str(), "org");
    let err = take(&world.limiter, 1).await.unwrap_err();
    assert!(matches!(err, Error::Disabled { .. }), "{err:?}");
}

#[tokio::test]
async fn places_are_held_of_every_level_that_has_a_limit() {
    let world = world(4).await;
    let admin = world.repo.admin();
    admin.set_entity_concurrency("key", "r", 5).await.unwrap();
    admin.set_entity_concurrency("org", "r", 1).await.unwrap();
    let call = || world.limiter.acquire("key", "r").consume("rpd", 1).in_flight();
    let lease = call().await.unwrap();
    let Err(Error::ConcurrencyExceeded(full)) = call().await else {
        panic!("the organisation has one place");
    };
    assert_eq!((full.entity.as_str(), full.limit), ("org", 1));
    lease.commit().await.unwrap();
    call().await.unwrap().commit().await.unwrap();
    assert!(world.repo.drain().await.is_complete());
    assert_eq!(left(&world).await, [98; 4]);
    // As for tokens.
    admin.set_cascade_depth(3).await.unwrap();
    let leases = [call().await.unwrap(), call().await.unwrap()];
    drop(leases);
    admin
        .set_entity_access("team", "r", zae_limiter::Access::Disabled)
        .await
        .unwrap();
    // Also without tokens.
    let place = world.limiter.acquire("key", "r").in_flight().await;
    let Err(Error::Disabled { entity, .. }) = place else {
        panic!("{place:?}");
    };
    assert_eq!(entity, "team");
}

/// Tokens of more than two levels are not taken ahead, and each level pays for itself.
#[tokio::test(start_paused = true)]
async fn nothing_is_taken_ahead() {
    let first = world(4).await;
    let builder = Repository::builder()
        .custom_table(first.repo.table())
        .clock(first.clock.clone());
    let repo = builder.prefetch(Prefetch::calls(10)).open().await.unwrap();
    let limiter = RateLimiter::new(repo.clone());
    for _ in 0..20 {
        take(&limiter, 1).await.unwrap().commit().await.unwrap();
    }
    assert!(repo.drain().await.is_complete());
    assert_eq!(left(&first).await, [80; 4]);
}

#[tokio::test]
async fn limits_that_an_ancestor_keeps_from_being_reached_are_found() {
    let world = world(3).await;
    let admin = world.repo.admin();
    for (entity, most) in [("key", 90), ("project", 95), ("team", 80), ("org", 10)] {
        let limit = Limit::per_day("rpd", most);
        admin.set_entity_limits(entity, "r", [limit]).await.unwrap();
    }
    let found = admin.limits_above_parent("key", "r").await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|above| (above.parent.as_str(), above.distance, above.parents.capacity()))
        .collect();
    // With a depth of 3, the organisation is not debited.
    assert_eq!(found, [("team", 2, 80)]);
    admin.set_cascade_depth(4).await.unwrap();
    let found = admin.all_limits_above_parent("key").await.unwrap();
    assert_eq!(found.len(), 2);
    admin.set_entity_cascade("team", "r", false).await.unwrap();
    let found = admin.all_limits_above_parent("key").await.unwrap();
    assert_eq!(found.len(), 1);
    let above = admin.ancestors("key").await.unwrap();
    assert_eq!(
        above.iter().map(|entity| entity.id.as_str()).collect::<Vec<_>>(),
        ALL[1..]
    );
}

#[tokio::test]
async fn other_depths_are_refused_before_anything_is_written() {
    let world = world(2).await;
    for depth in [0, 1, 9, u32::MAX] {
        let err = world.repo.admin().set_cascade_depth(depth).await.unwrap_err();
        assert!(matches!(err, Error::InvalidInput(_)), "{err:?}");
    }
    assert_eq!(world.repo.admin().cascade_depth().await.unwrap(), 2);
}
