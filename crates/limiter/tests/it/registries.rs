//! Levels and the registries that list them: throttled, in a race, and with flags of other clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use zae_limiter::table::TableExt as _;
use zae_limiter::{ALL_RESOURCES, EntityId, Error, Limit, Repository, ResourceName};
use zae_limiter_core::ResourceScope;
use zae_limiter_core::schema::{
    entity_config_key, entity_registry_key, resource_config_key, resource_registry_key, system_config_key,
};
use zae_limiter_core::table::{Item, Key, Op, Value};

use crate::admin::{Admin, Meanwhile, rpm};
use crate::support::{set, set_of};
use crate::world::{Fault, START};

fn entity_key(a: &Admin, entity: &str, scope: &str) -> Key {
    let (entity, scope) = (EntityId::new(entity).unwrap(), ResourceScope::new(scope).unwrap());
    entity_config_key(a.repo.namespace_id(), &entity, &scope)
}

fn resource_key(a: &Admin, resource: &str) -> Key {
    resource_config_key(a.repo.namespace_id(), &ResourceName::new(resource).unwrap())
}

/// A level with flags and without limits, and its entry in the registry, as other clients write them.
async fn flag_entity(a: &Admin, entity: &str, scope: &str) -> Item {
    let (ns, key) = (a.repo.namespace_id(), entity_key(a, entity, scope));
    let index = Value::S(format!("{ns}/ENTITY_CONFIG#{scope}"));
    let attrs = [
        ("entity_id", Value::text(entity)),
        ("resource", Value::text(scope)),
        ("disabled", Value::Bool(false)),
        ("cascade", Value::Bool(true)),
        ("of_the_future", Value::text("x")),
        ("GSI3PK", index),
        ("GSI3SK", Value::text(entity)),
        ("GSI4PK", Value::text(ns.as_str())),
        ("GSI4SK", Value::text(&key.pk)),
    ];
    a.write(&key.pk, &key.sk, attrs).await;
    let count = crate::support::add(&entity_registry_key(ns), scope, 1);
    assert!(a.repo.table().update(count).await.unwrap().is_applied());
    a.item(key).await.unwrap()
}

async fn flag_resource(a: &Admin, resource: &str) -> Item {
    let (ns, key) = (a.repo.namespace_id(), resource_key(a, resource));
    let attrs = [
        ("resource", Value::text(resource)),
        ("disabled", Value::text("bypass")),
        ("of_the_future", set_of(&["x"])),
        ("GSI4PK", Value::text(ns.as_str())),
        ("GSI4SK", Value::text(&key.pk)),
    ];
    a.write(&key.pk, &key.sk, attrs).await;
    let mut list = zae_limiter_core::table::Update::new(resource_registry_key(ns));
    list.add_to_set.push(("resources".into(), resource.into()));
    assert!(a.repo.table().update(list).await.unwrap().is_applied());
    a.item(key).await.unwrap()
}

fn without_limits(item: &Item) -> Item {
    let mut item = item.clone();
    item.retain(|name, _| !name.starts_with("l_") && name != "config_version");
    item
}

async fn actions(repo: &Repository, subject: &str) -> Vec<String> {
    let events = repo
        .admin()
        .audit_events(subject, None)
        .unwrap()
        .all()
        .await
        .unwrap();
    events.into_iter().rev().map(|event| event.action).collect()
}

#[tokio::test]
async fn listings_tell_what_is_configured_where() {
    let a = Admin::new().await;
    assert!(a.repo.admin().resources_with_defaults().await.unwrap().is_empty());
    assert!(
        a.repo
            .admin()
            .resources_with_entity_limits()
            .await
            .unwrap()
            .is_empty()
    );
    for (entity, scope) in [
        ("b", "gpt-4"),
        ("a", "gpt-4"),
        ("a", ALL_RESOURCES),
        ("a", "gpt-4"),
    ] {
        a.repo
            .admin()
            .set_entity_limits(entity, scope, rpm(5))
            .await
            .unwrap();
    }
    for resource in ["z/1:b", "gpt-4", "z/1:b"] {
        a.repo
            .admin()
            .set_resource_defaults(resource, rpm(5))
            .await
            .unwrap();
    }
    let counts = a.repo.admin().resources_with_entity_limits().await.unwrap();
    let expected = BTreeMap::from([(ALL_RESOURCES.to_owned(), 1), ("gpt-4".to_owned(), 2)]);
    assert_eq!(counts, expected);
    assert_eq!(
        a.repo.admin().resources_with_defaults().await.unwrap(),
        ["gpt-4", "z/1:b"]
    );
    let entities = a
        .repo
        .admin()
        .entities_with_limits("gpt-4")
        .unwrap()
        .all()
        .await
        .unwrap();
    assert_eq!(entities, ["a", "b"]);
    for resource in ["z/1:b", "gpt-4"] {
        assert!(a.repo.admin().delete_resource_defaults(resource).await.unwrap());
    }
    assert!(a.repo.admin().resources_with_defaults().await.unwrap().is_empty());
}

/// Clients that write level and registry apart leave a name or miss one when they are killed.
#[tokio::test]
async fn what_another_client_left_half_done_is_set_right_by_doing_it_again() {
    let a = Admin::new().await;
    let (ns, table) = (a.repo.namespace_id(), a.repo.table());
    let mut stray = zae_limiter_core::table::Update::new(resource_registry_key(ns));
    stray.add_to_set.push(("resources".into(), "stray".into()));
    assert!(table.update(stray).await.unwrap().is_applied());
    assert!(!a.repo.admin().delete_resource_defaults("stray").await.unwrap());
    assert!(a.repo.admin().resources_with_defaults().await.unwrap().is_empty());

    let key = resource_key(&a, "missed");
    let limit = |attr: &'static str| (attr, Value::int(5));
    let attrs = [limit("l_rpm_cp"), limit("l_rpm_ra"), limit("l_rpm_rp")];
    a.write(&key.pk, &key.sk, attrs).await;
    a.repo
        .admin()
        .set_resource_defaults("missed", rpm(6))
        .await
        .unwrap();
    assert_eq!(
        a.repo.admin().resources_with_defaults().await.unwrap(),
        ["missed"]
    );
}

#[tokio::test]
async fn flags_of_a_level_outlive_its_limits() {
    let a = Admin::new().await;
    for scope in ["gpt-4", ALL_RESOURCES] {
        let flags = flag_entity(&a, "k", scope).await;
        let key = entity_key(&a, "k", scope);
        for rate in [5, 6] {
            a.repo
                .admin()
                .set_entity_limits("k", scope, rpm(rate))
                .await
                .unwrap();
            assert_eq!(without_limits(&a.item(key.clone()).await.unwrap()), flags);
            assert_eq!(
                a.repo.admin().entity_limits("k", scope).await.unwrap()[0].capacity(),
                rate
            );
        }
        assert!(a.repo.admin().delete_entity_limits("k", scope).await.unwrap());
        assert_eq!(without_limits(&a.item(key).await.unwrap()), flags);
        assert!(a.repo.admin().entity_limits("k", scope).await.unwrap().is_empty());
        let counts = a.repo.admin().resources_with_entity_limits().await.unwrap();
        assert_eq!(counts[scope], 1, "the level is still there, and counted");
    }
    let flags = flag_resource(&a, "gpt-4").await;
    a.repo
        .admin()
        .set_resource_defaults("gpt-4", rpm(5))
        .await
        .unwrap();
    assert_eq!(
        without_limits(&a.item(resource_key(&a, "gpt-4")).await.unwrap()),
        flags
    );
    assert!(a.repo.admin().delete_resource_defaults("gpt-4").await.unwrap());
    assert_eq!(
        without_limits(&a.item(resource_key(&a, "gpt-4")).await.unwrap()),
        flags
    );
    assert_eq!(a.repo.admin().resources_with_defaults().await.unwrap(), ["gpt-4"]);
}

#[tokio::test]
async fn a_level_that_has_flags_only_has_no_limits_to_delete() {
    let a = Admin::new().await;
    let flags = flag_entity(&a, "k", "gpt-4").await;
    assert!(!a.repo.admin().delete_entity_limits("k", "gpt-4").await.unwrap());
    assert_eq!(a.item(entity_key(&a, "k", "gpt-4")).await, Some(flags));
    assert!(actions(&a.repo, "k").await.is_empty());
    let flags = flag_resource(&a, "gpt-4").await;
    assert!(!a.repo.admin().delete_resource_defaults("gpt-4").await.unwrap());
    assert_eq!(a.item(resource_key(&a, "gpt-4")).await, Some(flags));
    assert_eq!(a.repo.admin().resources_with_defaults().await.unwrap(), ["gpt-4"]);

    let key = system_config_key(a.repo.namespace_id());
    a.write(&key.pk, &key.sk, [("audit_retention_days", Value::int(7))])
        .await;
    assert!(!a.repo.admin().delete_system_defaults().await.unwrap());
    a.repo.admin().set_system_defaults(rpm(5), None).await.unwrap();
    assert!(a.repo.admin().delete_system_defaults().await.unwrap());
    assert!(!a.repo.admin().delete_system_defaults().await.unwrap());
    assert_eq!(a.item(key).await.unwrap()["audit_retention_days"], Value::int(7));
}

/// A level whose flag comes while its limits are being deleted.
#[tokio::test]
async fn a_flag_set_during_the_deletion_of_limits_is_not_lost() {
    for flag in ["disabled", "cascade"] {
        let a = Admin::new().await;
        a.repo
            .admin()
            .set_entity_limits("k", "gpt-4", rpm(5))
            .await
            .unwrap();
        let (table, key) = (a.repo.table(), entity_key(&a, "k", "gpt-4"));
        let flagged = key.clone();
        let late = Meanwhile::new(&a, |op| matches!(op, Op::Transact(_)), async move {
            let update = set(&flagged, flag, Value::Bool(true));
            assert!(table.update(update).await.unwrap().is_applied());
        });
        let repo = a.over(late, |builder| builder).await;
        assert!(repo.admin().delete_entity_limits("k", "gpt-4").await.unwrap());
        let left = a
            .item(key)
            .await
            .expect("the level was deleted with its new flag");
        assert_eq!(left[flag], Value::Bool(true));
        assert!(!left.contains_key("l_rpm_cp"));
        assert_eq!(
            a.repo.admin().resources_with_entity_limits().await.unwrap()["gpt-4"],
            1
        );
    }
}

/// Another client sets other limits between read and write: the result is one of the two.
#[tokio::test]
async fn a_level_replaced_between_look_and_write_is_replaced_as_a_whole() {
    let a = Admin::new().await;
    a.repo
        .admin()
        .set_entity_limits("k", "gpt-4", rpm(5))
        .await
        .unwrap();
    let first = a.repo.clone();
    let late = Meanwhile::new(&a, |op| matches!(op, Op::Transact(_)), async move {
        let both = [Limit::per_minute("rpm", 5), Limit::per_minute("tpm", 7)];
        first.admin().set_entity_limits("k", "gpt-4", both).await.unwrap();
    });
    let repo = a.over(late, |builder| builder).await;
    repo.admin()
        .set_entity_limits("k", "gpt-4", rpm(6))
        .await
        .unwrap();
    let limits = a.repo.admin().entity_limits("k", "gpt-4").await.unwrap();
    assert_eq!(limits, [Limit::per_minute("rpm", 6).build().unwrap()]);
}

/// A third of all requests is throttled.
#[tokio::test]
async fn limits_are_set_and_deleted_although_the_table_is_throttled() {
    let a = Admin::new().await;
    let calls = AtomicI64::new(0);
    let shaky = a.ruled(move |_| match calls.fetch_add(1, Ordering::SeqCst) % 3 {
        2 => Fault::Throttled,
        _ => Fault::None,
    });
    let repo = shaky.await;
    a.configure().await;
    let take = a.limiter.acquire("k", "gpt-4").consume("rpm", 1);
    take.await.unwrap().commit().await.unwrap();
    repo.admin()
        .set_entity_limits("k", "gpt-4", rpm(5))
        .await
        .unwrap();
    let bucket = a.bucket("k", "gpt-4").await.unwrap();
    assert_eq!(bucket.limit("rpm").unwrap().params.capacity, 5000);
    repo.admin().set_resource_defaults("gpt-4", rpm(6)).await.unwrap();
    repo.admin().set_system_defaults(rpm(7), None).await.unwrap();
    assert_eq!(
        a.repo.admin().resources_with_entity_limits().await.unwrap()["gpt-4"],
        1
    );
    assert!(repo.admin().delete_entity_limits("k", "gpt-4").await.unwrap());
    assert!(repo.admin().delete_resource_defaults("gpt-4").await.unwrap());
    assert!(repo.admin().delete_system_defaults().await.unwrap());
    for subject in ["k", "$RESOURCE:gpt-4"] {
        let mut logged = actions(&a.repo, subject).await;
        logged.sort();
        assert_eq!(logged, ["limits_deleted", "limits_set"], "{subject}");
    }
    assert!(
        a.repo
            .admin()
            .resources_with_entity_limits()
            .await
            .unwrap()
            .is_empty()
    );
    assert!(a.repo.admin().resources_with_defaults().await.unwrap().is_empty());
}

/// What operators have changed, by subject: successful sets, and deletions that found something.
type Changes = BTreeMap<String, [usize; 2]>;

async fn operate(repo: Repository, seed: u32) -> Changes {
    let mut changes = Changes::new();
    for step in 0..6 {
        let number = seed * 7 + step * 3;
        let (entity, set) = (["a", "b", "flagged"][number as usize % 3], number & 4 == 0);
        let (level, done) = match (number % 4, set) {
            (0 | 1, true) => {
                let limits = [Limit::per_minute("rpm", 1 + u64::from(number))];
                (
                    entity.to_owned(),
                    repo.admin()
                        .set_entity_limits(entity, "gpt-4", limits)
                        .await
                        .map(|()| true),
                )
            }
            (0 | 1, false) => (
                entity.to_owned(),
                repo.admin().delete_entity_limits(entity, "gpt-4").await,
            ),
            (2, true) => {
                let set = repo
                    .admin()
                    .set_resource_defaults("gpt-4", rpm(number.into()))
                    .await;
                ("$RESOURCE:gpt-4".into(), set.map(|()| true))
            }
            (2, false) => {
                // Logged even if there was nothing.
                let deleted = repo.admin().delete_resource_defaults("gpt-4").await;
                ("$RESOURCE:gpt-4".into(), deleted.map(|_| true))
            }
            (_, true) => {
                let set = repo
                    .admin()
                    .set_resource_defaults("flagged", rpm(number.into()))
                    .await;
                ("$RESOURCE:flagged".into(), set.map(|()| true))
            }
            (_, false) => {
                let deleted = repo.admin().delete_resource_defaults("flagged").await;
                ("$RESOURCE:flagged".into(), deleted.map(|_| true))
            }
        };
        // Too many others at once is an honest answer.
        if let Ok(true) = done {
            changes.entry(level).or_default()[usize::from(!set)] += 1;
        }
    }
    changes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operators_at_once_leave_a_log_and_registries_that_are_right() {
    let a = Admin::new().await;
    let other = a.another().await;
    let entity_flags = flag_entity(&a, "flagged", "gpt-4").await;
    let resource_flags = flag_resource(&a, "flagged").await;
    let operators = (0..24).map(|n| {
        let repo = if n % 2 == 0 { &a.repo } else { &other.repo };
        tokio::spawn(operate(repo.clone(), n))
    });
    let mut changes = Changes::new();
    for operator in operators.collect::<Vec<_>>() {
        for (subject, [set, deleted]) in operator.await.unwrap() {
            let sum = changes.entry(subject).or_default();
            *sum = [sum[0] + set, sum[1] + deleted];
        }
    }
    assert_eq!(changes.len(), 5, "{changes:?}");
    assert!(
        changes.values().all(|[set, deleted]| *set > 0 && *deleted > 0),
        "{changes:?}"
    );
    for (subject, [set, deleted]) in changes {
        let logged = actions(&a.repo, &subject).await;
        let count = |action: &str| logged.iter().filter(|logged| *logged == action).count();
        assert_eq!(
            [count("limits_set"), count("limits_deleted")],
            [set, deleted],
            "{subject}"
        );
    }

    let (mut entities, mut resources) = (BTreeSet::new(), BTreeSet::new());
    for (pk, sk) in a.dump(None).await.into_keys() {
        if sk == "#CONFIG#gpt-4" {
            entities.insert(pk.rsplit('#').next().unwrap().to_owned());
        } else if let Some((_, resource)) = pk.split_once("/RESOURCE#") {
            resources.insert(resource.to_owned());
        }
    }
    let counts = a.repo.admin().resources_with_entity_limits().await.unwrap();
    assert_eq!(
        counts.get("gpt-4").copied(),
        u64::try_from(entities.len()).ok(),
        "{entities:?}"
    );
    let listed = a
        .repo
        .admin()
        .entities_with_limits("gpt-4")
        .unwrap()
        .all()
        .await
        .unwrap();
    assert_eq!(
        listed.iter().map(ToString::to_string).collect::<BTreeSet<_>>(),
        entities
    );
    let listed = a.repo.admin().resources_with_defaults().await.unwrap();
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), resources);
    let kept = a.item(entity_key(&a, "flagged", "gpt-4")).await.unwrap();
    assert_eq!(without_limits(&kept), entity_flags);
    let kept = a.item(resource_key(&a, "flagged")).await.unwrap();
    assert_eq!(without_limits(&kept), resource_flags);
}

/// The first shard of a split bucket has the count, and so must not expire.
#[tokio::test]
async fn only_the_first_shard_of_a_split_bucket_keeps_from_expiring_when_limits_are_deleted() {
    let a = Admin::new().await;
    a.repo
        .admin()
        .set_resource_defaults("gpt-4", rpm(100))
        .await
        .unwrap();
    a.repo
        .admin()
        .set_entity_limits("k", "gpt-4", rpm(9))
        .await
        .unwrap();
    a.repo
        .admin()
        .set_entity_limits("whole", "gpt-4", rpm(9))
        .await
        .unwrap();
    let (split, whole) = (a.id("k", "gpt-4"), a.id("whole", "gpt-4"));
    let shards = (0..4).map(|shard| crate::admin::bucket(&split, shard, 4, 9, 2));
    let shards: Vec<_> = shards.chain([crate::admin::bucket(&whole, 0, 1, 9, 2)]).collect();
    crate::admin::put_all(&*a.repo.table(), shards).await;
    for entity in ["k", "whole"] {
        assert!(
            a.repo
                .admin()
                .delete_entity_limits(entity, "gpt-4")
                .await
                .unwrap()
        );
    }
    let expiry = Some(Value::int(START / 1000 + 420));
    for (id, shard) in [(&split, 0), (&split, 1), (&split, 2), (&split, 3), (&whole, 0)] {
        let item = a.item(id.key(shard)).await.unwrap();
        assert_eq!(item["b_rpm_cp"], Value::int(100_000), "shard {shard} was told");
        assert_eq!(
            (&item["b_rpm_tk"], &item["vu"]),
            (&Value::int(2000), &Value::int(0))
        );
        let expected = if id == &split && shard == 0 {
            None
        } else {
            expiry.clone()
        };
        assert_eq!(item.get("ttl").cloned(), expected, "{} {shard}", id.entity);
    }
    // Limits of its own again: nothing of it expires.
    a.repo
        .admin()
        .set_entity_limits("k", "gpt-4", rpm(9))
        .await
        .unwrap();
    for shard in 0..4 {
        assert!(!a.item(split.key(shard)).await.unwrap().contains_key("ttl"));
    }
}

/// A bucket that is split between the query and its update.
#[tokio::test]
async fn a_bucket_split_meanwhile_is_told_without_an_expiry() {
    let a = Admin::new().await;
    a.repo
        .admin()
        .set_resource_defaults("gpt-4", rpm(100))
        .await
        .unwrap();
    a.repo
        .admin()
        .set_entity_limits("k", "gpt-4", rpm(9))
        .await
        .unwrap();
    let id = a.id("k", "gpt-4");
    crate::admin::put_all(&*a.repo.table(), [crate::admin::bucket(&id, 0, 1, 9, 2)]).await;
    let (table, key) = (a.repo.table(), id.key(0));
    let of_bucket = |op: &Op| matches!(op, Op::Update(update) if update.key.sk == "#STATE");
    let late = Meanwhile::new(&a, of_bucket, async move {
        let split = set(&key, "shard_count", Value::int(2));
        assert!(table.update(split).await.unwrap().is_applied());
    });
    let repo = a.over(late, |builder| builder).await;
    assert!(repo.admin().delete_entity_limits("k", "gpt-4").await.unwrap());
    let item = a.item(id.key(0)).await.unwrap();
    assert_eq!((&item["b_rpm_cp"], item.get("ttl")), (&Value::int(100_000), None));
}

/// The answer to the update of a bucket is lost; the update is repeated.
#[tokio::test]
async fn every_shard_is_told_although_answers_are_lost() {
    let a = Admin::new().await;
    let id = a.id("k", "gpt-4");
    let shards = (0..8).map(|shard| crate::admin::bucket(&id, shard, 8, 9, 1));
    crate::admin::put_all(&*a.repo.table(), shards).await;
    let told = Arc::new(AtomicI64::new(0));
    let count = Arc::clone(&told);
    let lossy = a.ruled(move |op| match op {
        Op::Update(update) if update.key.sk == "#STATE" => match count.fetch_add(1, Ordering::SeqCst) % 3 {
            0 => Fault::LostAfter,
            1 => Fault::LostBefore,
            _ => Fault::None,
        },
        _ => Fault::None,
    });
    lossy
        .await
        .admin()
        .set_entity_limits("k", "gpt-4", rpm(50))
        .await
        .unwrap();
    for shard in 0..8 {
        assert_eq!(
            a.item(id.key(shard)).await.unwrap()["b_rpm_cp"],
            Value::int(50_000)
        );
    }
    assert_eq!(actions(&a.repo, "k").await, ["limits_set"]);
}

/// The update of a bucket fails permanently: the change is still logged, and repeating the call finishes it.
#[tokio::test]
async fn an_incomplete_change_is_logged_and_ended_by_repeating_it() {
    let a = Admin::new().await;
    a.repo
        .admin()
        .set_resource_defaults("gpt-4", rpm(100))
        .await
        .unwrap();
    let id = a.id("k", "gpt-4");
    let shards = (0..4).map(|shard| crate::admin::bucket(&id, shard, 4, 9, 1));
    crate::admin::put_all(&*a.repo.table(), shards).await;
    let second = id.key(2);
    let broken = a.ruled(move |op| match op {
        Op::Update(update) if update.key == second => Fault::Denied,
        _ => Fault::None,
    });
    let broken = broken.await;
    let incomplete = |result: Result<(), Error>| {
        let Err(Error::FanoutIncomplete { done, total, .. }) = result else {
            panic!("{result:?}")
        };
        assert_eq!((done, total), (2, 4));
    };
    let capacities = async || {
        let mut capacities = BTreeSet::new();
        for shard in 0..4 {
            let item = a.item(id.key(shard)).await.unwrap();
            capacities.insert(item["b_rpm_cp"].as_int().unwrap());
        }
        capacities
    };
    incomplete(broken.admin().set_entity_limits("k", "gpt-4", rpm(50)).await);
    assert_eq!(actions(&a.repo, "k").await, ["limits_set"]);
    assert_eq!(capacities().await, BTreeSet::from([9000, 50_000]));
    a.repo
        .admin()
        .set_entity_limits("k", "gpt-4", rpm(50))
        .await
        .unwrap();
    assert_eq!(capacities().await, BTreeSet::from([50_000]));

    a.clock.advance(Duration::from_secs(1));
    incomplete(broken.admin().delete_entity_limits("k", "gpt-4").await.map(drop));
    assert_eq!(actions(&a.repo, "k").await.len(), 3);
    assert_eq!(capacities().await, BTreeSet::from([50_000, 100_000]));
    assert!(
        !a.repo.admin().delete_entity_limits("k", "gpt-4").await.unwrap(),
        "the level itself is gone"
    );
    assert_eq!(capacities().await, BTreeSet::from([100_000]));
    assert_eq!(actions(&a.repo, "k").await.len(), 3);
}

/// Limits of the next level that only newer clients can evaluate: their buckets are left to them.
#[tokio::test]
async fn a_bucket_that_falls_to_limits_not_understood_is_left_alone() {
    let a = Admin::new().await;
    let key = resource_key(&a, "gpt-4");
    let limit = |attr: &'static str| (attr, Value::int(5));
    let schedule = ("l_rpm_sched", Value::text("2h0-6s500"));
    let attrs = [limit("l_rpm_cp"), limit("l_rpm_ra"), limit("l_rpm_rp"), schedule];
    a.write(&key.pk, &key.sk, attrs).await;
    a.repo
        .admin()
        .set_entity_limits("k", "gpt-4", rpm(9))
        .await
        .unwrap();
    let id = a.id("k", "gpt-4");
    let mut scheduled = crate::admin::bucket(&id, 0, 1, 9, 1);
    scheduled.insert("sched".into(), Value::text("2h0-6s500"));
    crate::admin::put_all(&*a.repo.table(), [scheduled.clone()]).await;
    assert!(a.repo.admin().delete_entity_limits("k", "gpt-4").await.unwrap());
    assert_eq!(a.item(id.key(0)).await, Some(scheduled));
}
