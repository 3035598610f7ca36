//! Deleting an entity with everything of its own.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zae_limiter::table::TableExt as _;
use zae_limiter::{ALL_RESOURCES, AuditEvent, EntityId, Error, NewEntity, Repository, ResourceName};
use zae_limiter_core::table::{Op, Value};

use crate::admin::{Admin, FURNISHED, Meanwhile, bucket, furnish, put_all, rpm, snapshot};
use crate::world::{Fault, World};

/// What was logged of deletions of an entity, oldest first: records, and whether it was complete.
async fn deletions(repo: &Repository, entity: &str) -> Vec<(i128, bool)> {
    let mut events = repo
        .admin()
        .audit_events(entity, None)
        .unwrap()
        .all()
        .await
        .unwrap();
    events.reverse();
    let of = |event: &AuditEvent| {
        let (records, complete) = (
            event.details.get("records_deleted")?,
            event.details.get("complete")?,
        );
        (event.action == "entity_deleted").then_some((records.as_int()?, complete.as_bool()?))
    };
    events.iter().filter_map(of).collect()
}

async fn counts(repo: &Repository) -> Vec<(String, u64)> {
    let counts = repo.admin().resources_with_entity_limits().await.unwrap();
    counts.into_iter().collect()
}

#[tokio::test]
async fn everything_of_the_entity_goes_and_its_log_stays() {
    let a = Admin::new().await;
    furnish(&a.repo, "key-1").await;
    a.repo
        .admin()
        .set_entity_limits("other", "gpt-4", rpm(1))
        .await
        .unwrap();
    let logged = a
        .repo
        .admin()
        .audit_events("key-1", None)
        .unwrap()
        .all()
        .await
        .unwrap();
    assert_eq!(logged.len(), 4);
    let all = ["_default_", "a/b:c", "gpt-4"].map(str::to_owned);
    assert_eq!(
        counts(&a.repo).await,
        all.into_iter().zip([1, 1, 2]).collect::<Vec<_>>()
    );
    assert_eq!(a.repo.admin().children("proj").await.unwrap().len(), 1);

    a.clock.advance(Duration::from_secs(1));
    let progress = Mutex::new(Vec::new());
    let told = |n| progress.lock().unwrap().push(n);
    assert_eq!(
        a.repo
            .admin()
            .delete_entity_with_progress("key-1", &told)
            .await
            .unwrap(),
        FURNISHED
    );
    assert_eq!(a.traces_of_entity("key-1").await, [""; 0]);
    let progress = progress.into_inner().unwrap();
    assert!(
        progress.is_sorted() && progress.last() == Some(&FURNISHED),
        "{progress:?}"
    );

    // Counted out of the registry, which drops a resource without entities.
    assert_eq!(counts(&a.repo).await, [("gpt-4".to_owned(), 1)]);
    let registry = zae_limiter_core::schema::entity_registry_key(a.repo.namespace_id());
    let registry = a.item(registry).await.unwrap();
    assert!(
        !registry.contains_key("a/b:c") && !registry.contains_key(ALL_RESOURCES),
        "{registry:?}"
    );
    assert!(a.repo.admin().children("proj").await.unwrap().is_empty());
    assert_eq!(a.repo.admin().entity("key-1").await.unwrap(), None);

    let now = a
        .repo
        .admin()
        .audit_events("key-1", None)
        .unwrap()
        .all()
        .await
        .unwrap();
    assert_eq!(now[1..], logged[..], "what was logged stays");
    assert_eq!(
        (now[0].action.as_str(), &now[0].resource),
        ("entity_deleted", &None)
    );
    assert_eq!(deletions(&a.repo, "key-1").await, [(i128::from(FURNISHED), true)]);
}

#[tokio::test]
async fn entities_whose_ids_begin_the_same_are_not_touched() {
    let a = Admin::new().await;
    for entity in ["key", "key-1", "key-10", "key-1:a"] {
        furnish(&a.repo, entity).await;
    }
    let others = |dump: crate::admin::Dump| {
        let mut dump = dump;
        dump.retain(|(pk, sk), _| {
            let own = pk.ends_with("/ENTITY#key-1") || pk.contains("/BUCKET#key-1#");
            !own && !pk.ends_with("AUDIT#key-1") && sk != "#ENTITY_CONFIG_RESOURCES"
        });
        dump
    };
    let before = others(a.dump(None).await);
    assert!(before.len() as u64 > 3 * FURNISHED);
    assert_eq!(a.repo.admin().delete_entity("key-1").await.unwrap(), FURNISHED);
    assert_eq!(others(a.dump(None).await), before);
    assert_eq!(a.traces_of_entity("key-1").await, [""; 0]);
    assert!(counts(&a.repo).await.iter().all(|(_, count)| *count == 3));
}

#[tokio::test]
async fn the_same_entity_of_another_namespace_stays() {
    let a = Admin::new().await;
    let other = a.repo.stack_handle().open("other").await.unwrap();
    for repo in [&a.repo, &other] {
        furnish(repo, "key-1").await;
    }
    let id = a.repo.namespace_id().as_str();
    let before = a.others(id).await;
    a.repo.admin().delete_entity("key-1").await.unwrap();
    assert_eq!(a.others(id).await, before);
}

#[tokio::test]
async fn an_entity_that_was_never_there_is_no_deletion() {
    let a = Admin::new().await;
    let before = a.dump(None).await;
    assert_eq!(a.repo.admin().delete_entity("nobody").await.unwrap(), 0);
    assert_eq!(a.dump(None).await, before, "and nothing is logged");
    let Err(Error::InvalidInput(input)) = a.repo.admin().delete_entity("no#body").await else {
        panic!("accepted")
    };
    assert_eq!(input.field(), "entity_id");
}

#[tokio::test]
async fn what_was_spent_or_limited_without_being_created_goes_too() {
    let a = Admin::new().await;
    a.configure().await;
    let take = a.limiter.acquire("ghost", "gpt-4").consume("rpm", 1);
    take.await.unwrap().commit().await.unwrap();
    a.repo
        .admin()
        .set_entity_limits("ghost", "gpt-4", rpm(3))
        .await
        .unwrap();
    assert_eq!(a.repo.admin().delete_entity("ghost").await.unwrap(), 2);
    assert_eq!(a.traces_of_entity("ghost").await, [""; 0]);
    // Spending again starts afresh, under the defaults: no cache has the deleted limits.
    let take = a.limiter.acquire("ghost", "gpt-4").consume("rpm", 10);
    take.await.unwrap().commit().await.unwrap();
}

/// Stops the deletion after each number of writes in turn; the next one finishes it.
#[tokio::test]
async fn a_deletion_that_was_interrupted_is_finished_by_the_next() {
    for writes in 0.. {
        let a = Admin::new().await;
        furnish(&a.repo, "key-1").await;
        a.repo
            .admin()
            .set_entity_limits("other", "gpt-4", rpm(1))
            .await
            .unwrap();
        let left = AtomicI64::new(writes);
        let failing = a.ruled(move |op| match op {
            Op::BatchDelete(_) | Op::Transact(_) if left.fetch_sub(1, Ordering::SeqCst) <= 0 => Fault::Denied,
            _ => Fault::None,
        });
        let first = failing.await.admin().delete_entity("key-1").await;
        let logged = deletions(&a.repo, "key-1").await;
        if first.is_ok() {
            assert!(writes >= 6, "it was interrupted in {writes} places only");
            assert_eq!(logged, [(i128::from(FURNISHED), true)]);
            return;
        }
        assert!(matches!(first, Err(Error::PermissionDenied { .. })), "{first:?}");
        assert!(
            a.repo.admin().entity("key-1").await.unwrap().is_some(),
            "it goes last ({writes} writes)"
        );
        let done = logged.first().map_or(0, |(records, _)| *records);
        assert_eq!(logged, if writes == 0 { vec![] } else { vec![(done, false)] });
        a.clock.advance(Duration::from_secs(1));
        let rest = a.repo.admin().delete_entity("key-1").await.unwrap();
        assert_eq!(
            done + i128::from(rest),
            i128::from(FURNISHED),
            "after {writes} writes"
        );
        assert_eq!(
            deletions(&a.repo, "key-1").await.last(),
            Some(&(i128::from(rest), true))
        );
        assert_eq!(
            a.traces_of_entity("key-1").await,
            [""; 0],
            "after {writes} writes"
        );
        assert_eq!(counts(&a.repo).await, [("gpt-4".to_owned(), 1)]);
    }
}

/// A third of all requests is throttled, and the answer of every second deletion is lost.
#[tokio::test]
async fn a_deletion_waits_out_throttling_and_lost_answers() {
    let a = Admin::new().await;
    furnish(&a.repo, "key-1").await;
    let (calls, deletions_sent) = (AtomicI64::new(0), AtomicI64::new(0));
    let shaky = a.ruled(move |op| {
        if calls.fetch_add(1, Ordering::SeqCst) % 3 == 2 {
            Fault::Throttled
        } else if matches!(op, Op::BatchDelete(_)) && deletions_sent.fetch_add(1, Ordering::SeqCst) % 2 == 0 {
            Fault::LostAfter
        } else {
            Fault::None
        }
    });
    assert_eq!(
        shaky.await.admin().delete_entity("key-1").await.unwrap(),
        FURNISHED
    );
    assert_eq!(a.traces_of_entity("key-1").await, [""; 0]);
    assert_eq!(counts(&a.repo).await, []);
    assert_eq!(deletions(&a.repo, "key-1").await, [(i128::from(FURNISHED), true)]);
}

/// A bucket comes to be while the entity is deleted: it is found by looking again.
#[tokio::test]
async fn a_bucket_created_during_the_deletion_goes_as_well() {
    let a = Admin::new().await;
    furnish(&a.repo, "key-1").await;
    let (table, id) = (a.repo.table(), a.id("key-1", "late"));
    // Between the buckets and the limits.
    let table = Meanwhile::new(&a, |op| matches!(op, Op::Transact(_)), async move {
        put_all(&*table, [bucket(&id, 0, 1, 9, 3)]).await;
    });
    let repo = a.over(table, |builder| builder).await;
    assert_eq!(repo.admin().delete_entity("key-1").await.unwrap(), FURNISHED + 1);
    assert_eq!(a.traces_of_entity("key-1").await, [""; 0]);
}

/// A bucket is split between the read of its count and its deletion. A shard that stayed would be spent beside those of
/// the next bucket of this id.
#[tokio::test]
async fn a_bucket_that_is_split_during_the_deletion_goes_with_all_its_shards() {
    let a = Admin::new().await;
    let (table, id) = (a.repo.table(), a.id("key-1", "hot"));
    put_all(&*table, [bucket(&id, 0, 1, 9, 3)]).await;
    let is_deleted = |op: &Op| matches!(op, Op::Delete(delete) if delete.key.pk.ends_with("#hot#0"));
    let was_split = Arc::new(AtomicBool::new(false));
    let splits = Arc::clone(&was_split);
    let table = Meanwhile::new(&a, is_deleted, async move {
        put_all(&*table, [bucket(&id, 0, 2, 9, 3), bucket(&id, 1, 2, 9, 3)]).await;
        splits.store(true, Ordering::Relaxed);
    });
    let repo = a.over(table, |builder| builder).await;
    assert_eq!(repo.admin().delete_entity("key-1").await.unwrap(), 1);
    assert!(was_split.load(Ordering::Relaxed));
    assert_eq!(a.traces_of_entity("key-1").await, [""; 0]);
}

/// A bucket comes to be just before the entity's record goes: it carries the entity's stamp, and would hand the parent
/// on to an entity that is created later under the same id. Buckets without a stamp belong to no entity.
#[tokio::test]
async fn a_bucket_created_as_the_entity_goes_does_not_keep_its_parent() {
    let a = Admin::new().await;
    furnish(&a.repo, "key-1").await;
    let (table, id, free) = (a.repo.table(), a.id("key-1", "late"), a.id("key-1", "free"));
    let kept = free.clone();
    let is_meta = |op: &Op| matches!(op, Op::BatchDelete(keys) if keys.iter().any(|key| key.sk == "#META"));
    let table = Meanwhile::new(&a, is_meta, async move {
        let mut late = bucket(&id, 0, 1, 9, 3);
        late.extend([
            ("cascade".to_owned(), Value::Bool(true)),
            ("parent_id".to_owned(), Value::text("proj")),
            ("pgen".to_owned(), Value::int(1)),
            ("pinc".to_owned(), Value::text("80729c5437a39750")),
        ]);
        put_all(&*table, [late, bucket(&free, 0, 1, 9, 3)]).await;
    });
    let repo = a.over(table, |builder| builder).await;
    assert_eq!(repo.admin().delete_entity("key-1").await.unwrap(), FURNISHED + 1);
    let traces = a.traces_of_entity("key-1").await;
    assert!(
        !traces.is_empty() && traces.iter().all(|trace| trace.contains("BUCKET#key-1#free#0")),
        "{traces:?}"
    );
    assert!(a.item(kept.key(0)).await.is_some());
}

/// The bucket of a deleted entity survived, and the entity was created again under another parent.
#[tokio::test]
async fn an_entity_created_again_debits_its_new_parent() {
    let a = Admin::new().await;
    a.configure().await;
    let other = a.another().await;
    let create = |parent| NewEntity::new("k").parent(parent).cascade(true);
    let take = async |world: &World| {
        let taken = world.limiter.acquire("k", "gpt-4").consume("rpm", 1).await;
        taken.unwrap().commit().await.unwrap();
        world.repo.drain().await;
    };
    a.repo.admin().create_entity(create("old")).await.unwrap();
    take(&a).await;
    let meta = zae_limiter_core::schema::meta_key(a.repo.namespace_id(), &EntityId::new("k").unwrap());
    a.repo.table().delete_all(vec![meta]).await.unwrap();
    other.repo.admin().create_entity(create("new")).await.unwrap();
    for world in [&other, &other, &a] {
        take(world).await;
    }
    assert_eq!(a.consumed("old", "gpt-4", "rpm").await, 1000);
    assert_eq!(a.consumed("new", "gpt-4", "rpm").await, 3000);
    let stamp = a.bucket("k", "gpt-4").await.unwrap().owner;
    assert_eq!(stamp.parent.unwrap().as_str(), "new", "stamped anew");
}

#[tokio::test]
async fn thousands_of_records_go_in_one_call() {
    let a = Admin::new().await;
    let ns = a.repo.namespace_id().as_str();
    furnish(&a.repo, "key-1").await;
    let instants = (0..2200).map(|n| {
        format!(
            "2027-{:02}-{:02}T{:02}:00:00Z",
            1 + n / 672,
            1 + n / 24 % 28,
            n % 24
        )
    });
    let usage =
        instants.map(|start| snapshot((ns, "key-1", "gpt-4"), ("hourly", &start, "x"), &[("rpm", 1)]));
    put_all(&*a.repo.table(), usage).await;
    let buckets = (0..40).flat_map(|n| {
        let mut id = a.id("key-1", "r");
        id.resource = ResourceName::new(format!("r{n}")).unwrap();
        id.entity = EntityId::new("key-1").unwrap();
        (0..4).map(move |shard| bucket(&id, shard, 4, 9, 3))
    });
    put_all(&*a.repo.table(), buckets).await;
    let expected = FURNISHED + 2200 + 160;
    let progress = Mutex::new(Vec::new());
    let told = |n| progress.lock().unwrap().push(n);
    assert_eq!(
        a.repo
            .admin()
            .delete_entity_with_progress("key-1", &told)
            .await
            .unwrap(),
        expected
    );
    assert_eq!(a.traces_of_entity("key-1").await, [""; 0]);
    assert_eq!(deletions(&a.repo, "key-1").await, [(i128::from(expected), true)]);
    let progress = progress.into_inner().unwrap();
    assert!(progress.len() > 50 && progress.is_sorted(), "told step by step");
}

/// Records of other clients in the entity's partition belong to the entity.
#[tokio::test]
async fn records_that_are_not_understood_go_with_the_entity() {
    let a = Admin::new().await;
    let pk = format!("{}/ENTITY#key-1", a.repo.namespace_id());
    a.write(&pk, "#BUCKET#gpt-4", [("n", Value::int(1))]).await;
    a.write(&pk, "#CONFIG#not a scope", [("n", Value::int(1))]).await;
    a.write(&pk, "#OF_THE_FUTURE", [("n", Value::int(1))]).await;
    assert_eq!(a.repo.admin().delete_entity("key-1").await.unwrap(), 3);
    assert_eq!(a.traces_of_entity("key-1").await, [""; 0]);
    assert_eq!(counts(&a.repo).await, []);
}

#[tokio::test]
async fn an_entity_is_deleted_with_all_entities_below_it() {
    let a = Admin::new().await;
    a.configure().await;
    for (id, parent) in [
        ("team", "org"),
        ("key-1", "team"),
        ("key-2", "team"),
        ("other", "elsewhere"),
        ("org", "key-1"),
    ] {
        a.repo
            .admin()
            .create_entity(NewEntity::new(id).parent(parent))
            .await
            .unwrap();
        let take = a.limiter.acquire(id, "gpt-4").consume("rpm", 1);
        take.await.unwrap().commit().await.unwrap();
    }
    let progress = Mutex::new(Vec::new());
    let told = |n| progress.lock().unwrap().push(n);
    assert_eq!(
        a.repo
            .admin()
            .delete_entity_with_children("org", &told)
            .await
            .unwrap(),
        8
    );
    assert!(progress.into_inner().unwrap().is_sorted());
    for id in ["org", "team", "key-1", "key-2"] {
        assert_eq!(a.traces_of_entity(id).await, [""; 0]);
    }
    assert!(a.repo.admin().entity("other").await.unwrap().is_some());
    assert_eq!(
        a.repo
            .admin()
            .delete_entity_with_children("org", &|_| ())
            .await
            .unwrap(),
        0
    );
}

/// A project is deleted, its key stays: the key still debits the project's bucket, under the shared limits.
#[tokio::test]
async fn a_child_of_a_deleted_parent_is_under_the_limits_of_the_resource() {
    let a = Admin::new().await;
    a.repo
        .admin()
        .create_entity(NewEntity::new("key").parent("proj").cascade(true))
        .await
        .unwrap();
    a.repo
        .admin()
        .create_entity(NewEntity::new("proj"))
        .await
        .unwrap();
    a.repo.admin().set_system_defaults(rpm(9), None).await.unwrap();
    a.repo
        .admin()
        .set_entity_limits("key", ALL_RESOURCES, rpm(100))
        .await
        .unwrap();
    a.repo
        .admin()
        .set_entity_limits("proj", ALL_RESOURCES, rpm(2))
        .await
        .unwrap();
    let take = async |n| {
        let taken = a.limiter.acquire("key", "gpt-4").consume("rpm", n).await;
        taken?.commit().await.unwrap();
        Ok::<_, Error>(())
    };
    take(2).await.unwrap();
    take(1).await.unwrap_err();
    assert_eq!(
        a.repo
            .admin()
            .limits_above_parent("key", "gpt-4")
            .await
            .unwrap()
            .len(),
        0,
        "none for this resource"
    );
    let above = a
        .repo
        .admin()
        .limits_above_parent("key", ALL_RESOURCES)
        .await
        .unwrap();
    assert_eq!(
        (
            above.len(),
            above[0].parent.as_str(),
            above[0].limit.capacity(),
            above[0].parents.capacity()
        ),
        (1, "proj", 100, 2)
    );
    assert_eq!(
        a.repo.admin().all_limits_above_parent("key").await.unwrap(),
        above
    );
    assert_eq!(a.repo.admin().all_limits_above_parent("proj").await.unwrap(), []);
    a.repo.admin().delete_entity("proj").await.unwrap();
    a.clock.advance(Duration::from_millis(1));
    take(9).await.unwrap();
    take(1).await.unwrap_err();
    assert_eq!(a.consumed("proj", "gpt-4", "rpm").await, 9000);
    let above = a
        .repo
        .admin()
        .limits_above_parent("key", ALL_RESOURCES)
        .await
        .unwrap();
    assert_eq!(above[0].parents.capacity(), 9);
}

/// If the event cannot be logged, the entity is still reported as created.
#[tokio::test]
async fn an_entity_is_created_even_if_it_cannot_be_logged() {
    let a = Admin::new().await;
    let failing = a.ruled(|op| match op {
        Op::Put(put) if put.item.contains_key("action") => Fault::Denied,
        _ => Fault::None,
    });
    let entity = failing
        .await
        .admin()
        .create_entity(NewEntity::new("k"))
        .await
        .unwrap();
    assert_eq!(a.repo.admin().entity("k").await.unwrap(), Some(entity));
    assert_eq!(
        a.repo
            .admin()
            .audit_events("k", None)
            .unwrap()
            .all()
            .await
            .unwrap()
            .len(),
        0
    );
}
