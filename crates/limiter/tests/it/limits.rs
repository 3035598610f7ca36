//! Limits at the four levels, caches, and changes that reach live buckets.

use std::time::{Duration, SystemTime};

use zae_limiter::{ALL_RESOURCES, Error, InputKind, Limit, NewEntity, OnUnavailable, Percent, Repository};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::table::Value;

use crate::world::World;

fn rpm(rate: u64) -> [zae_limiter::LimitBuilder; 1] {
    [Limit::per_minute("rpm", rate)]
}

#[tokio::test]
async fn the_most_specific_level_answers_as_a_whole() {
    let w = World::new().await;
    let effective = async || {
        w.repo
            .admin()
            .effective_limits("k", "r")
            .await
            .map(|limits| limits[0].capacity())
    };
    assert!(matches!(effective().await, Err(Error::NotConfigured { .. })));
    w.repo.admin().set_system_defaults(rpm(1), None).await.unwrap();
    assert_eq!(effective().await.unwrap(), 1);
    w.repo.admin().set_resource_defaults("r", rpm(2)).await.unwrap();
    assert_eq!(effective().await.unwrap(), 2);
    w.repo
        .admin()
        .set_entity_limits("k", ALL_RESOURCES, rpm(3))
        .await
        .unwrap();
    assert_eq!(effective().await.unwrap(), 3);
    w.repo.admin().set_entity_limits("k", "r", rpm(4)).await.unwrap();
    assert_eq!(effective().await.unwrap(), 4);
    assert!(w.repo.admin().delete_entity_limits("k", "r").await.unwrap());
    assert!(!w.repo.admin().delete_entity_limits("k", "r").await.unwrap());
    assert!(
        w.repo
            .admin()
            .delete_entity_limits("k", ALL_RESOURCES)
            .await
            .unwrap()
    );
    assert!(w.repo.admin().delete_resource_defaults("r").await.unwrap());
    assert_eq!(effective().await.unwrap(), 1);
    assert!(w.repo.admin().delete_system_defaults().await.unwrap());
    assert!(effective().await.is_err());
}

#[tokio::test]
async fn setting_a_level_replaces_it_and_reads_back() {
    let w = World::new().await;
    let two = [Limit::per_minute("rpm", 5), Limit::per_hour("tpm", 10).burst(20)];
    w.repo.admin().set_entity_limits("k", "r", two).await.unwrap();
    w.repo
        .admin()
        .set_entity_limits("k", "r", [Limit::custom("tpm", 7, 3, Duration::from_secs(11))])
        .await
        .unwrap();
    let limits = w.repo.admin().entity_limits("k", "r").await.unwrap();
    assert_eq!(
        limits,
        [Limit::custom("tpm", 7, 3, Duration::from_secs(11))
            .build()
            .unwrap()]
    );
    assert!(
        w.repo
            .admin()
            .entity_limits("k", ALL_RESOURCES)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn registries_count_entities_and_list_resources() {
    use zae_limiter::table::TableExt as _;
    use zae_limiter_core::schema::{entity_registry_key, resource_registry_key};
    let w = World::new().await;
    let ns = w.repo.namespace_id().clone();
    let count = async || {
        let item = w
            .repo
            .table()
            .get(entity_registry_key(&ns), true)
            .await
            .unwrap()
            .unwrap();
        item.get("r").and_then(Value::as_int)
    };
    for entity in ["a", "b", "a"] {
        w.repo
            .admin()
            .set_entity_limits(entity, "r", rpm(5))
            .await
            .unwrap();
    }
    assert_eq!(count().await, Some(2));
    w.repo.admin().delete_entity_limits("a", "r").await.unwrap();
    assert_eq!(count().await, Some(1));
    w.repo.admin().delete_entity_limits("b", "r").await.unwrap();
    assert_eq!(count().await, None);
    w.repo.admin().set_resource_defaults("r", rpm(5)).await.unwrap();
    let item = w
        .repo
        .table()
        .get(resource_registry_key(&ns), true)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(item["resources"], Value::Ss(["r".to_owned()].into()));
}

#[tokio::test]
async fn an_entity_limit_reaches_its_live_bucket_at_once() {
    let w = World::configured().await;
    let take = |n| w.limiter.acquire("k", "r").consume("rpm", n);
    take(1).await.unwrap().commit().await.unwrap();
    w.repo.admin().set_entity_limits("k", "r", rpm(4)).await.unwrap();
    let bucket = w.bucket("k", "r").await.unwrap();
    assert_eq!(bucket.limit("rpm").unwrap().params.capacity, 4000);
    assert_eq!(
        (bucket.ttl, bucket.valid_until),
        (None, Some(0)),
        "kept for ever, and cut before it is spent"
    );
    take(4).await.unwrap().commit().await.unwrap();
    assert!(take(1).await.is_err());
    // Deleted, the bucket goes back to the defaults, and expires again.
    w.repo.admin().delete_entity_limits("k", "r").await.unwrap();
    let bucket = w.bucket("k", "r").await.unwrap();
    assert_eq!(bucket.limit("rpm").unwrap().params.capacity, 10_000);
    assert!(bucket.ttl.is_some());
}

#[tokio::test]
async fn limits_for_all_resources_reach_each_live_bucket() {
    let w = World::configured().await;
    w.repo
        .admin()
        .set_resource_defaults("own", rpm(50))
        .await
        .unwrap();
    w.repo
        .admin()
        .set_entity_limits("k", "own", rpm(60))
        .await
        .unwrap();
    for resource in ["a", "b", "own"] {
        w.limiter
            .acquire("k", resource)
            .consume("rpm", 1)
            .await
            .unwrap()
            .commit()
            .await
            .unwrap();
    }
    w.repo
        .admin()
        .set_entity_limits("k", ALL_RESOURCES, rpm(7))
        .await
        .unwrap();
    for (resource, capacity) in [("a", 7000), ("b", 7000), ("own", 60_000)] {
        let bucket = w.bucket("k", resource).await.unwrap();
        assert_eq!(
            bucket.limit("rpm").unwrap().params.capacity,
            capacity,
            "{resource}"
        );
    }
}

#[tokio::test]
async fn a_changed_default_reaches_a_busy_bucket_of_another_process_within_the_cache_time() {
    let w = World::configured().await;
    let other = w.another().await;
    let take = || other.limiter.acquire("k", "r").consume("rpm", 1);
    take().await.unwrap().commit().await.unwrap();
    w.repo.admin().set_resource_defaults("r", rpm(3)).await.unwrap();
    take().await.unwrap().commit().await.unwrap();
    other.repo.drain().await;
    assert_eq!(
        w.bucket("k", "r")
            .await
            .unwrap()
            .limit("rpm")
            .unwrap()
            .params
            .capacity,
        10_000
    );
    w.clock.advance(Duration::from_mins(1));
    take().await.unwrap().commit().await.unwrap();
    other.repo.drain().await;
    assert_eq!(
        w.bucket("k", "r")
            .await
            .unwrap()
            .limit("rpm")
            .unwrap()
            .params
            .capacity,
        3000
    );
    // A process with older knowledge does not put the old limits back.
    let stale = w.another().await;
    let _ = stale.limiter.acquire("k", "r").consume("rpm", 1).await.map(drop);
    stale.repo.drain().await;
    assert_eq!(
        w.bucket("k", "r")
            .await
            .unwrap()
            .limit("rpm")
            .unwrap()
            .params
            .capacity,
        3000
    );
}

#[tokio::test]
async fn configuration_is_read_once_per_cache_time() {
    let w = World::with(|builder| builder.config_cache_ttl(Duration::from_secs(10))).await;
    w.configure().await;
    let take = || w.limiter.acquire("k", "r").consume("rpm", 1);
    take().await.unwrap().commit().await.unwrap();
    for (millis, batches) in [(0, 0), (9_999, 0), (1, 1), (0, 0)] {
        w.clock.advance(Duration::from_millis(millis));
        let (lease, usage) = w.cost(take().send()).await;
        lease.unwrap().commit().await.unwrap();
        assert_eq!(usage.batch_gets, batches, "after {millis} ms");
    }
    w.repo.invalidate_caches();
    let (lease, usage) = w.cost(take().send()).await;
    lease.unwrap().commit().await.unwrap();
    assert_eq!(usage.batch_gets, 1);
    assert!(w.repo.cache_stats().hits >= 3);
    assert!(w.repo.cache_stats().misses >= 3);
}

#[tokio::test]
async fn entities_have_parents_and_children() {
    let w = World::new().await;
    let new = NewEntity::new("key")
        .name("Key")
        .parent("proj")
        .cascade(true)
        .metadata("tier", "gold");
    let created = w.repo.admin().create_entity(new.clone()).await.unwrap();
    assert_eq!(w.repo.admin().entity("key").await.unwrap(), Some(created.clone()));
    assert_eq!(
        created.created_at,
        EpochMillis::parse("2027-01-15T08:00:00Z").map(SystemTime::from)
    );
    assert!(matches!(
        w.repo.admin().create_entity(new).await,
        Err(Error::EntityExists(_))
    ));
    w.repo
        .admin()
        .create_entity(NewEntity::new("key2").parent("proj"))
        .await
        .unwrap();
    let children = w.repo.admin().children("proj").await.unwrap();
    assert_eq!(
        children.iter().map(|child| child.id.as_str()).collect::<Vec<_>>(),
        ["key", "key2"]
    );
    assert_eq!(w.repo.admin().entity("proj").await.unwrap(), None);
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let w = World::configured().await;
    w.repo.register_namespace("tenant").await.unwrap();
    let tenant = w.repo.namespace("tenant").await.unwrap();
    assert!(tenant.admin().system_defaults().await.unwrap().0.is_empty());
    assert_ne!(tenant.namespace_id(), w.repo.namespace_id());
    assert!(matches!(
        w.repo.namespace("nobody").await,
        Err(Error::NamespaceNotFound(_))
    ));
}

/// The field and the value that an error names.
fn field(err: Error) -> (String, String) {
    match err {
        Error::InvalidInput(input) => (input.field().to_owned(), input.value().to_owned()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_value_of_a_request_is_told_from_one_of_the_configuration() {
    let w = World::configured().await;
    let kind = |err: Error| match err {
        Error::InvalidInput(input) => input.kind(),
        other => panic!("{other:?}"),
    };
    let call = |entity: &str, limit: &str, tokens| w.limiter.acquire(entity, "r").consume(limit, tokens);
    for refused in [
        call("a#b", "rpm", 1),
        call("k", "wcu", 1),
        call("k", "typo", 1),
        call("k", "rpm", u64::MAX),
        w.limiter.acquire("k", "9r").consume("rpm", 1),
        w.limiter.acquire("k", "r"),
    ] {
        assert_eq!(kind(refused.await.unwrap_err()), InputKind::Request);
    }
    // Of these, only the one that is spelled correctly is unknown.
    for (limit, tokens, is_unknown) in [("wcu", 1, false), ("typo", 1, true), ("rpm", u64::MAX, false)] {
        let refused = call("k", limit, tokens).await.unwrap_err();
        assert!(
            matches!(&refused, Error::InvalidInput(input) if input.is_unknown() == is_unknown),
            "{refused}"
        );
    }
    let mut lease = call("k", "tpm", 5).await.unwrap();
    assert_eq!(kind(lease.adjust("tpm", -6).unwrap_err()), InputKind::Request);
    assert_eq!(kind(lease.adjust("rpm", 1).unwrap_err()), InputKind::Request);
    lease.commit().await.unwrap();
    let unknown = w.repo.namespace("_").await.unwrap_err();
    assert_eq!(kind(unknown), InputKind::Request);

    for limit in [
        Limit::per_minute("rpm", 0),
        Limit::per_minute("9r", 1),
        Limit::custom("rpm", 1, 1, Duration::ZERO),
    ] {
        let own = call("k", "rpm", 1).limits([limit.clone()]);
        assert_eq!(kind(own.await.unwrap_err()), InputKind::Configuration);
        let set = w.repo.admin().set_resource_defaults("r", [limit]).await;
        assert_eq!(kind(set.unwrap_err()), InputKind::Configuration);
    }
    for builder in [
        Repository::builder().stack("my_app"),
        Repository::builder().namespace("_"),
        Repository::builder().principal("a b"),
        Repository::builder().max_in_flight(0),
    ] {
        let err = builder.in_memory().open().await.unwrap_err();
        assert_eq!(kind(err), InputKind::Configuration);
    }
}

fn pair(field: &str, value: &str) -> (String, String) {
    (field.to_owned(), value.to_owned())
}

#[tokio::test]
async fn bad_input_is_refused_by_field_and_value_before_anything_is_written() {
    let w = World::configured().await;
    w.limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let admin = w.repo.admin();
    let before = w.repo.request_cost();
    let take = |entity: &str, resource: &str, limit: &str, n| {
        let call = w.limiter.acquire(entity, resource).consume(limit, n);
        async { field(call.await.unwrap_err()) }
    };
    assert_eq!(take("a#b", "r", "rpm", 1).await, pair("entity_id", "a#b"));
    assert_eq!(take("k", "9r", "rpm", 1).await, pair("resource", "9r"));
    assert_eq!(take("k", "r", "wcu", 1).await, pair("consume", "wcu"));
    for amount in [1_000_000_000_000_001, u64::MAX] {
        assert_eq!(
            take("k", "r", "rpm", amount).await,
            pair("consume.rpm", &amount.to_string())
        );
    }
    assert_eq!(take("k", "r", "typo", 1).await, pair("consume.typo", "1"));
    let nothing = w.limiter.acquire("k", "r").await.unwrap_err();
    assert_eq!(field(nothing), pair("consume", "nothing"));
    let twice = w
        .limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .consume("rpm", 1)
        .await
        .unwrap_err();
    assert_eq!(field(twice), pair("consume", "rpm"));
    let empty: [Limit; 0] = [];
    assert_eq!(
        field(admin.set_resource_defaults("r", empty).await.unwrap_err()).0,
        "limits"
    );
    assert_eq!(
        field(admin.set_system_defaults(rpm(0), None).await.unwrap_err()),
        pair("rpm.capacity", "0")
    );
    for period in [Duration::ZERO, Duration::from_millis(1500)] {
        let odd = [Limit::custom("rpm", 1, 1, period)];
        assert_eq!(
            field(admin.set_resource_defaults("r", odd).await.unwrap_err()).0,
            "rpm.refill_period"
        );
    }
    let half = OnUnavailable::Degrade(Percent::new(50).unwrap());
    assert_eq!(
        field(admin.set_system_defaults(rpm(1), Some(half)).await.unwrap_err()).0,
        "on_unavailable"
    );
    assert_eq!(
        field(admin.set_entity_limits("k", "PK", rpm(1)).await.unwrap_err()),
        pair("resource", "PK")
    );
    let orphan = NewEntity::new("x").cascade(true);
    assert_eq!(field(admin.create_entity(orphan).await.unwrap_err()).0, "cascade");
    let own = NewEntity::new("x").parent("x");
    assert_eq!(field(admin.create_entity(own).await.unwrap_err()).0, "parent_id");
    let spent = w.repo.request_cost().since(&before);
    assert_eq!(
        (spent.updates, spent.puts, spent.transactions),
        (0, 0, 0),
        "nothing was written"
    );
}

#[tokio::test]
async fn bad_input_of_a_lease_and_of_a_builder_is_refused_by_field_and_value() {
    let w = World::configured().await;
    let mut lease = w.limiter.acquire("k", "r").consume("tpm", 5).await.unwrap();
    assert_eq!(field(lease.adjust("rpm", 1).unwrap_err()).0, "adjust.rpm");
    assert_eq!(
        field(lease.adjust("tpm", -6).unwrap_err()),
        pair("adjust.tpm", "-6")
    );
    assert_eq!(
        field(lease.release("tpm", 6).unwrap_err()),
        pair("release.tpm", "6")
    );
    let most = u64::MAX.to_string();
    assert_eq!(
        field(lease.release("tpm", u64::MAX).unwrap_err()),
        pair("release.tpm", &most)
    );
    assert_eq!(
        field(lease.adjust_to("tpm", u64::MAX).unwrap_err()),
        pair("adjust.tpm", &most)
    );
    assert_eq!(
        field(lease.consume("tpm", u64::MAX).await.unwrap_err()),
        pair("consume.tpm", &most)
    );
    lease.commit().await.unwrap();

    let stack = Repository::builder()
        .stack("my_app")
        .in_memory()
        .open()
        .await
        .unwrap_err();
    assert_eq!(field(stack), pair("name", "my_app"));
    let namespace = Repository::builder()
        .namespace("_")
        .in_memory()
        .open()
        .await
        .unwrap_err();
    assert_eq!(field(namespace), pair("namespace", "_"));
}

/// Replacing a level takes the limits that it loses from its buckets, which would otherwise be refilled indefinitely.
#[tokio::test]
async fn a_limit_that_a_level_loses_leaves_its_buckets() {
    let w = World::new().await;
    let both = [Limit::per_minute("rpm", 5), Limit::per_minute("tpm", 100)];
    w.repo.admin().set_entity_limits("k", "r", both).await.unwrap();
    let take = w.limiter.acquire("k", "r").consume("rpm", 1).consume("tpm", 1);
    take.await.unwrap().commit().await.unwrap();
    w.repo.admin().set_entity_limits("k", "r", rpm(7)).await.unwrap();
    let bucket = w.bucket("k", "r").await.unwrap();
    let names: Vec<_> = bucket.limits.iter().map(|limit| limit.name.as_str()).collect();
    assert_eq!(names, ["rpm"]);
    assert_eq!(bucket.limits[0].params.capacity, 7000);
}

/// Other clients store as many limits in a level as they like, and buckets take them over.
#[tokio::test]
async fn a_level_of_very_many_limits_can_be_replaced_and_deleted() {
    use zae_limiter::table::TableExt as _;
    use zae_limiter_core::ResourceScope;
    use zae_limiter_core::config::limit_attributes;
    use zae_limiter_core::schema::{entity_config_key, key_item};
    use zae_limiter_core::table::{Condition, Item, Put};
    let many: Vec<_> = (0..150)
        .map(|n| Limit::per_minute(format!("limit-{n}"), 5).build().unwrap())
        .collect();
    for replaces in [true, false] {
        let w = World::new().await;
        w.repo.admin().set_system_defaults(rpm(9), None).await.unwrap();
        w.limiter
            .acquire("k", "r")
            .consume("rpm", 1)
            .await
            .unwrap()
            .commit()
            .await
            .unwrap();
        let id = w.id("k", "r");
        let key = entity_config_key(
            &id.namespace,
            &id.entity,
            &ResourceScope::One(id.resource.clone()),
        );
        let mut item: Item = key_item(&key);
        item.insert("disabled".into(), Value::Bool(false));
        let attributes = limit_attributes(&many);
        item.extend(
            attributes
                .into_iter()
                .map(|(name, value)| (name.to_string(), value)),
        );
        let condition = Condition::ALWAYS;
        assert!(
            w.repo
                .table()
                .put(Put { item, condition })
                .await
                .unwrap()
                .is_applied()
        );
        for n in 0..150 {
            let parts = ["tk", "tc", "cp", "ra", "rp"].map(|part| format!("b_limit-{n}_{part}"));
            let attrs = parts
                .each_ref()
                .map(|part| (part.as_str(), Some(Value::int(5000))));
            w.poke("k", "r", &attrs).await;
        }
        w.repo.invalidate_caches();
        if replaces {
            w.repo.admin().set_entity_limits("k", "r", rpm(7)).await.unwrap();
        } else {
            assert!(w.repo.admin().delete_entity_limits("k", "r").await.unwrap());
        }
        assert_eq!(
            w.bucket("k", "r").await.unwrap().limits.len(),
            1,
            "replaces: {replaces}"
        );
        let record = w.repo.table().get(key, true).await.unwrap().unwrap();
        assert_eq!(record.get("disabled"), Some(&Value::Bool(false)), "flags stay");
        w.clock.advance(Duration::from_mins(1));
        w.limiter
            .acquire("k", "r")
            .consume("rpm", 1)
            .await
            .unwrap()
            .commit()
            .await
            .unwrap();
    }
}

/// A changed default leaves the old limits on live buckets. Where they become many, they go once they are full.
#[tokio::test]
async fn limits_that_no_level_defines_leave_a_bucket_that_holds_many() {
    let w = World::new().await;
    w.repo.admin().set_resource_defaults("r", rpm(9)).await.unwrap();
    let take = async || {
        let taken = w.limiter.acquire("k", "r").consume("rpm", 1).await;
        taken.unwrap().commit().await.unwrap();
        w.repo.drain().await;
    };
    take().await;
    for n in 0..20 {
        let name = |part: &str| format!("b_old-{n}_{part}");
        // The last one is in use: it fills within an hour.
        let balance = if n == 19 { 0 } else { 60_000 };
        let attrs = [
            ("tk", balance),
            ("tc", 0),
            ("cp", 60_000),
            ("ra", 60_000),
            ("rp", 3_600_000),
        ];
        let attrs = attrs.map(|(part, value)| (name(part), Some(Value::int(value))));
        let attrs: Vec<_> = attrs
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        w.poke("k", "r", &attrs).await;
    }
    w.repo.invalidate_images();
    take().await;
    let names = async || {
        let limits = w.bucket("k", "r").await.unwrap().limits;
        limits
            .iter()
            .map(|limit| limit.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["old-19", "rpm"]);
    take().await;
}
