//! Administrators that are killed in the middle of a change of many buckets, and repeated by another process.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use zae_limiter::{ALL_RESOURCES, Access, EntityId, Error, Limit, NewEntity, OnUnavailable, Repository};

use crate::admin::{Admin, rpm};
use crate::declare::{Dying, assert_same, state, without};
use crate::world::START;

/// A change, and what it is called.
type Change = (&'static str, fn(Repository) -> Call);

type Call = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A key below a project below a team, with buckets for two resources, of which one has soft limits; and one more entity.
async fn used() -> Admin {
    let a = Admin::new().await;
    a.functions_of("0.17.0").await;
    let admin = a.repo.admin();
    admin.set_system_defaults(rpm(9), None).await.unwrap();
    let soft = [Limit::per_minute("rpm", 9).soft()];
    admin.set_resource_defaults("soft", soft).await.unwrap();
    admin.set_entity_limits("key", "gpt-4", rpm(5)).await.unwrap();
    for (entity, parent) in [
        ("team", None),
        ("project", Some("team")),
        ("key", Some("project")),
        ("other", None),
    ] {
        let new = NewEntity::new(entity).cascade(parent.is_some());
        let new = match parent {
            Some(parent) => new.parent(parent),
            None => new,
        };
        admin.create_entity(new).await.unwrap();
    }
    for (entity, resource) in [("key", "gpt-4"), ("key", "soft"), ("other", "gpt-4")] {
        let acquire = a.limiter.acquire(entity, resource).consume("rpm", 1);
        acquire.await.unwrap().commit().await.unwrap();
    }
    a.repo.drain().await;
    a
}

/// What is changed, in a table as [`used`] leaves it.
fn changes() -> Vec<Change> {
    macro_rules! change {
        ($name:literal, $admin:ident, $call:expr) => {
            ($name, |repo: Repository| -> Call {
                Box::pin(async move {
                    let $admin = repo.admin();
                    $call.await.map(drop)
                })
            })
        };
    }
    vec![
        change!(
            "disable a resource",
            admin,
            admin.set_resource_access("gpt-4", Access::Disabled)
        ),
        change!(
            "bypass an entity",
            admin,
            admin.set_entity_access("key", ALL_RESOURCES, Access::Bypass)
        ),
        change!(
            "take no cascade",
            admin,
            admin.set_resource_cascade("gpt-4", false)
        ),
        change!(
            "cascade of an entity",
            admin,
            admin.set_entity_cascade("key", "gpt-4", false)
        ),
        change!(
            "move",
            admin,
            admin.set_parent("key", EntityId::new("other").unwrap())
        ),
        change!("orphan", admin, admin.set_parent("key", None)),
        change!("raise", admin, admin.set_entity_limits("key", "gpt-4", rpm(50))),
        change!(
            "soften",
            admin,
            admin.set_entity_limits("key", "gpt-4", [Limit::per_minute("rpm", 5).soft()])
        ),
        change!("harden", admin, admin.set_resource_defaults("soft", rpm(9))),
        change!(
            "no limits of its own",
            admin,
            admin.delete_entity_limits("key", "gpt-4")
        ),
        change!("no defaults", admin, admin.delete_resource_defaults("soft")),
        change!(
            "defaults",
            admin,
            admin.set_system_defaults(rpm(2), Some(OnUnavailable::Allow))
        ),
        change!("depth", admin, admin.set_cascade_depth(4)),
        change!("places", admin, admin.set_entity_concurrency("key", "gpt-4", 5)),
        change!("deletion", admin, admin.delete_entity("key")),
    ]
}

/// Repeating the call of a process that was killed after any of its writes finishes it, and leaves what an undisturbed one leaves.
#[tokio::test(start_paused = true)]
async fn a_change_that_was_killed_anywhere_is_finished_by_the_same_call() {
    for (what, change) in changes() {
        let undisturbed = used().await;
        let table = Arc::new(Dying::new(undisturbed.repo.table(), true));
        let repo = undisturbed.over(Arc::clone(&table), |builder| builder).await;
        let before = table.writes();
        change(repo).await.unwrap();
        let writes = table.writes() - before;
        assert!(writes >= 2, "{what}: {writes} writes");
        let wanted = kept(&undisturbed).await;
        for k in 0..writes {
            let a = used().await;
            let table = Arc::new(Dying::new(a.repo.table(), true));
            let dying = a.over(Arc::clone(&table), |builder| builder).await;
            table.dies_after(k);
            let killed = change(dying).await;
            assert!(table.is_dead(), "{what}: {k} of {writes} writes");
            let repeated = change(a.another().await.repo).await;
            let what = format!("{what}: killed after write {k} ({killed:?})");
            assert!(repeated.is_ok(), "{what}: {repeated:?}");
            assert_same(&kept(&a).await, &wanted, &what);
        }
    }
}

/// Without the events, of which each call that got so far writes one, and the ends of stamps: those of a bypass are drawn, and those of
/// soft limits are over. A count of nothing goes with the next change.
async fn kept(a: &Admin) -> BTreeMap<String, String> {
    let mut kept = without(state(a).await, "/AUDIT#");
    let over = format!(", \"b_rpm_soft\": N(\"{START}\")");
    for item in kept.values_mut() {
        if let Some((before, after)) = item.split_once("\"bypass\": N(\"") {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            *item = format!("{before}\"bypass\": N(\"{after}");
        }
        *item = item.replace(&over, "").replace(", \"gpt-4\": N(\"0\")", "");
    }
    kept
}
