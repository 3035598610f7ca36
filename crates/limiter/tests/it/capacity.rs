//! Who has what left of a resource.

use std::time::Duration;

use zae_limiter::{CapacityOf, Error, NewEntity, ResourceCapacity};
use zae_limiter_core::table::{Item, Value};

use crate::admin::{Admin, bucket, put_all, rpm};

async fn put_bucket(a: &Admin, entity: &str, shards: &[i64], capacity: i64) {
    let (id, count) = (a.id(entity, "gpt-4"), shards.len() as u32);
    let items = (0..)
        .zip(shards)
        .map(|(shard, tokens)| bucket(&id, shard, count, capacity, *tokens));
    put_all(&*a.repo.table(), items).await;
}

async fn capacity(a: &Admin, of: CapacityOf) -> ResourceCapacity {
    a.repo
        .admin()
        .resource_capacity("gpt-4", "rpm", of)
        .await
        .unwrap()
}

/// By entity: the most it can hold, and what it holds.
fn brief(capacity: &ResourceCapacity) -> Vec<(&str, u64, i64)> {
    let entities = capacity.entities.iter();
    entities
        .map(|one| (one.entity.as_str(), one.capacity, one.available))
        .collect()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[tokio::test]
async fn shards_of_an_entity_are_added_up() {
    let a = Admin::new().await;
    put_bucket(&a, "whole", &[60], 100).await;
    put_bucket(&a, "split", &[20, 25, 0, 5], 100).await;
    put_bucket(&a, "key-1", &[1], 10).await;
    put_bucket(&a, "key-10", &[2], 10).await;
    let all = capacity(&a, CapacityOf::Everybody).await;
    let expected = [
        ("key-1", 10, 1),
        ("key-10", 10, 2),
        ("split", 100, 50),
        ("whole", 100, 60),
    ];
    assert_eq!(brief(&all), expected);
    assert_eq!((all.total_capacity(), all.total_available()), (220, 113));
    assert!(near(all.utilization_percent(), 107.0 / 220.0 * 100.0));
    assert!(near(all.entities[3].utilization_percent(), 40.0));
    assert_eq!((all.resource.as_str(), all.limit.as_str()), ("gpt-4", "rpm"));
}

#[tokio::test]
async fn time_fills_buckets_up_to_their_capacity() {
    let a = Admin::new().await;
    put_bucket(&a, "one", &[0], 100).await;
    put_bucket(&a, "two", &[0, 50], 100).await;
    a.clock.advance(Duration::from_secs(30));
    let half = capacity(&a, CapacityOf::Everybody).await;
    assert_eq!(brief(&half), [("one", 100, 50), ("two", 100, 75)]);
    a.clock.advance(Duration::from_hours(1));
    let full = capacity(&a, CapacityOf::Everybody).await;
    assert_eq!(brief(&full), [("one", 100, 100), ("two", 100, 100)]);
    assert!(near(full.utilization_percent(), 0.0));
    // Not even before the others have noticed that they were split.
    put_bucket(&a, "three", &[100], 100).await;
    let mut stale = bucket(&a.id("three", "gpt-4"), 1, 2, 100, 50);
    stale.insert("shard_count".into(), Value::int(2));
    put_all(&*a.repo.table(), [stale]).await;
    let all = capacity(&a, CapacityOf::Everybody).await;
    assert_eq!(brief(&all)[1], ("three", 100, 100));
}

#[tokio::test]
async fn debt_is_negative_and_counts() {
    let a = Admin::new().await;
    put_bucket(&a, "debtor", &[-30], 100).await;
    put_bucket(&a, "saver", &[50], 100).await;
    let all = capacity(&a, CapacityOf::Everybody).await;
    assert_eq!(brief(&all), [("debtor", 100, -30), ("saver", 100, 50)]);
    assert_eq!(all.total_available(), 20);
    assert!(near(all.entities[0].utilization_percent(), 130.0));
    assert!(near(all.utilization_percent(), 90.0));
}

#[tokio::test]
async fn what_the_limiter_took_is_missing() {
    let a = Admin::new().await;
    a.repo
        .admin()
        .set_resource_defaults("gpt-4", rpm(10))
        .await
        .unwrap();
    for (entity, tokens) in [("a", 3), ("b", 10)] {
        let take = a.limiter.acquire(entity, "gpt-4").consume("rpm", tokens);
        take.await.unwrap().commit().await.unwrap();
    }
    let all = capacity(&a, CapacityOf::Everybody).await;
    assert_eq!(brief(&all), [("a", 10, 7), ("b", 10, 0)]);
}

#[tokio::test]
async fn children_and_the_never_created_are_not_top_level() {
    let a = Admin::new().await;
    for new in [
        NewEntity::new("proj"),
        NewEntity::new("key").parent("proj").cascade(true),
        NewEntity::new("loner"),
        NewEntity::new("idle"),
    ] {
        a.repo.admin().create_entity(new).await.unwrap();
    }
    for entity in ["proj", "key", "loner", "ghost", "damaged"] {
        put_bucket(&a, entity, &[4], 10).await;
    }
    let pk = format!("{}/ENTITY#damaged", a.repo.namespace_id());
    a.write(&pk, "#META", [("parent_id", Value::int(1))]).await;
    let top = capacity(&a, CapacityOf::TopLevel).await;
    assert_eq!(brief(&top), [("loner", 10, 4), ("proj", 10, 4)]);
    assert_eq!(capacity(&a, CapacityOf::Everybody).await.entities.len(), 5);
}

#[tokio::test]
async fn very_many_entities_are_all_looked_at() {
    let a = Admin::new().await;
    let ids = (0..250).map(|n| a.id(&format!("e{n:03}"), "gpt-4"));
    put_all(&*a.repo.table(), ids.map(|id| bucket(&id, 0, 1, 10, 4))).await;
    for n in [0, 120, 249] {
        let new = NewEntity::new(format!("e{n:03}"));
        a.repo.admin().create_entity(new).await.unwrap();
    }
    assert_eq!(capacity(&a, CapacityOf::Everybody).await.total_available(), 1000);
    let top = capacity(&a, CapacityOf::TopLevel).await;
    assert_eq!(brief(&top), [("e000", 10, 4), ("e120", 10, 4), ("e249", 10, 4)]);
}

#[tokio::test]
async fn a_damaged_bucket_does_not_hide_others() {
    let a = Admin::new().await;
    for entity in ["good", "too"] {
        put_bucket(&a, entity, &[4], 10).await;
    }
    let harm = |n: usize, harm: fn(&mut Item)| {
        let mut item = bucket(&a.id(&format!("bad-{n}"), "gpt-4"), 0, 1, 10, 4);
        harm(&mut item);
        item
    };
    let damaged = [
        harm(0, |item| drop(item.remove("rf"))),
        harm(1, |item| drop(item.insert("b_rpm_cp".into(), Value::text("ten")))),
        harm(2, |item| drop(item.insert("b_rpm_rp".into(), Value::int(0)))),
        harm(3, |item| drop(item.insert("shard_count".into(), Value::int(0)))),
        // Debris of an old client: a balance without parameters.
        harm(4, |item| {
            item.retain(|name, _| !matches!(name.as_str(), "b_rpm_cp" | "b_rpm_ra" | "b_rpm_rp"));
        }),
        // Another limit is no `rpm`.
        harm(5, |item| item.retain(|name, _| !name.starts_with("b_rpm"))),
    ];
    put_all(&*a.repo.table(), damaged).await;
    let mut stray = bucket(&a.id("stray", "gpt-4"), 0, 1, 10, 4);
    stray.insert("PK".into(), Value::text("no/key/of/ours"));
    put_all(&*a.repo.table(), [stray]).await;
    let all = capacity(&a, CapacityOf::Everybody).await;
    assert_eq!(brief(&all), [("good", 10, 4), ("too", 10, 4)]);
}

#[tokio::test]
async fn usage_and_other_resources_are_no_buckets_of_this_one() {
    let a = Admin::new().await;
    let ns = a.repo.namespace_id().as_str();
    let of = (ns, "u", "gpt-4");
    let usage = crate::admin::snapshot(of, ("hourly", "2027-01-15T08:00:00Z", ""), &[("rpm", 1)]);
    let other = bucket(&a.id("u", "gpt-4o"), 0, 1, 10, 4);
    put_all(&*a.repo.table(), [usage, other]).await;
    let none = capacity(&a, CapacityOf::Everybody).await;
    assert!(none.entities.is_empty());
    assert_eq!((none.total_capacity(), none.total_available()), (0, 0));
    assert!(near(none.utilization_percent(), 0.0));
    let field = |result: Result<ResourceCapacity, Error>| match result {
        Err(Error::InvalidInput(input)) => input.field().to_owned(),
        other => panic!("{other:?}"),
    };
    let everybody = CapacityOf::Everybody;
    assert_eq!(
        field(a.repo.admin().resource_capacity("9", "rpm", everybody).await),
        "resource"
    );
    assert_ne!(
        field(a.repo.admin().resource_capacity("gpt-4", "wcu", everybody).await),
        "resource"
    );
}
