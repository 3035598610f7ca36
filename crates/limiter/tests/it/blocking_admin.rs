//! Administration without async.

use std::collections::BTreeMap;
use std::sync::Mutex;

use zae_limiter::blocking::{RateLimiter, Repository, Stack};
use zae_limiter::{
    ALL_RESOURCES, ApplyOptions, CapacityOf, Cursor, Error, NamespaceStatus, NewEntity, UsageQuery,
    UsageSummary,
};
use zae_limiter_core::manifest::Manifest;

use crate::admin::{FURNISHED, furnish, rpm};

#[test]
fn manifests_are_planned_and_applied() -> Result<(), Error> {
    let repo = Repository::in_memory()?;
    let declared = serde_json::json!({ "namespace": "default", "resources": { "a": {
        "limits": { "rpm": { "capacity": 5 } },
    } } });
    let manifest = Manifest::from_json(&declared).unwrap();
    repo.admin().set_resource_defaults("b", rpm(1))?;
    assert_eq!(
        repo.admin()
            .plan_limits(&manifest, ApplyOptions::default())?
            .changes
            .len(),
        1
    );
    assert_eq!(
        repo.admin()
            .apply_limits(&manifest, ApplyOptions::default())?
            .created,
        1
    );
    assert_eq!(repo.admin().resource_defaults("a")?[0].capacity(), 5);
    let by_hand = repo.admin().hand_made_limits(&manifest)?;
    assert_eq!(by_hand.iter().map(ToString::to_string).collect::<Vec<_>>(), ["b"]);
    let id = repo.as_async().namespace_id().to_string();
    assert_eq!(
        repo.stack_handle()
            .connect_id(&id)?
            .admin()
            .resource_defaults("a")?
            .len(),
        1
    );
    Ok(())
}

#[test]
fn namespaces_live_and_die() -> Result<(), Error> {
    let stack = Repository::in_memory()?.stack_handle();
    let ids = stack.register_namespaces(["b", "a"])?;
    assert_eq!(stack.register_namespace("a")?, ids["a"]);
    let names: Vec<_> = stack
        .namespaces()?
        .into_iter()
        .map(|record| record.name)
        .collect();
    assert_eq!(names, ["a", "b", "default"]);
    assert_eq!(stack.namespace("a")?.unwrap().status, NamespaceStatus::Active);
    stack.open("a")?.admin().set_system_defaults(rpm(5), None)?;
    assert_eq!(stack.connect("a")?.admin().system_defaults()?.0.len(), 1);
    assert!(matches!(stack.connect("c"), Err(Error::NamespaceNotFound(_))));

    let id = ids["a"].as_str();
    assert!(stack.delete_namespace("a")?);
    assert!(!stack.delete_namespace("a")?);
    assert_eq!(stack.orphans()?[0].id, ids["a"]);
    assert_eq!(stack.recover_namespace(id)?, "a");
    assert_eq!(stack.connect("a")?.admin().system_defaults()?.0.len(), 1);
    assert!(stack.delete_namespace("a")?);
    let progress = Mutex::new(0);
    let told = |n| *progress.lock().unwrap() = n;
    let purged = stack.purge_namespace(id, &told)?;
    assert!(purged > 0 && purged == *progress.lock().unwrap());
    assert!(stack.orphans()?.is_empty());
    assert!(matches!(
        stack.recover_namespace(id),
        Err(Error::NamespaceIdNotFound(_))
    ));
    Ok(())
}

#[test]
fn a_stack_of_a_builder_tells_its_version() -> Result<(), Error> {
    let repo = Repository::in_memory()?;
    let table = repo.as_async().table();
    let stack = Stack::from_builder(zae_limiter::Repository::builder().custom_table(table))?;
    stack.check_compatible()?;
    assert_eq!(stack.version()?.unwrap().schema, "0.10.0");
    // A table that was never opened has none.
    let new = Stack::from_builder(zae_limiter::Repository::builder().in_memory())?;
    assert!(matches!(new.version(), Err(Error::InfrastructureNotFound { .. })));
    Ok(())
}

#[test]
fn results_are_read_page_by_page() -> Result<(), Error> {
    let repo = Repository::in_memory()?;
    for n in 0..5 {
        repo.admin().set_entity_limits(format!("e{n}"), "gpt-4", rpm(5))?;
    }
    let all: Vec<_> = repo
        .admin()
        .entities_with_limits("gpt-4")?
        .collect::<Result<_, _>>()?;
    assert_eq!(all, ["e0", "e1", "e2", "e3", "e4"]);
    for size in 1..=6 {
        let pages = repo.admin().entities_with_limits("gpt-4")?.page_size(size);
        assert_eq!(pages.collect::<Result<Vec<_>, _>>()?, all);
    }
    let mut pages = repo.admin().entities_with_limits("gpt-4")?.page_size(2);
    assert_eq!(pages.cursor(), None);
    assert_eq!(pages.next().unwrap()?, "e0");
    // The second of the page has been read, though not yet taken.
    let cursor: Cursor = pages.cursor().unwrap().to_string().parse()?;
    let rest = repo.admin().entities_with_limits("gpt-4")?.after(&cursor);
    assert_eq!(rest.collect::<Result<Vec<_>, _>>()?, all[2..]);
    let events = repo.admin().audit_events("e0", None)?.page_size(1);
    assert_eq!(events.count(), 1);
    let Err(Error::InvalidInput(input)) = repo.admin().audit_events("e0", Some("x")) else {
        panic!("accepted")
    };
    assert_eq!(input.field(), "start_event_id");
    Ok(())
}

#[test]
fn entities_are_listed_measured_and_deleted() -> Result<(), Error> {
    let repo = Repository::in_memory()?;
    repo.admin().set_resource_defaults("gpt-4", rpm(10))?;
    repo.admin().create_entity(NewEntity::new("top"))?;
    repo.admin().set_entity_limits("top", ALL_RESOURCES, rpm(20))?;
    let limiter = RateLimiter::new(repo.clone());
    for entity in ["top", "ghost"] {
        limiter
            .acquire(entity, "gpt-4")
            .consume("rpm", 4)
            .send()?
            .commit()?;
    }
    let of = |of| repo.admin().resource_capacity("gpt-4", "rpm", of);
    assert_eq!(of(CapacityOf::Everybody)?.total_capacity(), 30);
    assert_eq!(of(CapacityOf::TopLevel)?.total_capacity(), 20);
    assert_eq!(repo.admin().resources_with_defaults()?, ["gpt-4"]);
    let counts = BTreeMap::from([(ALL_RESOURCES.to_owned(), 1)]);
    assert_eq!(repo.admin().resources_with_entity_limits()?, counts);
    assert_eq!(
        repo.admin().usage_summary(UsageQuery::entity("top"))?,
        UsageSummary::default()
    );
    assert_eq!(
        repo.admin()
            .usage_snapshots(UsageQuery::of_resource("gpt-4"))?
            .count(),
        0
    );

    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(furnish(repo.as_async(), "key-1"));
    let usage = repo
        .admin()
        .usage_summary(UsageQuery::entity("key-1").resource("gpt-4"))?;
    assert_eq!((usage.snapshots, usage.limits["rpm"].total), (2, 6));
    let progress = Mutex::new(0);
    let told = |n| *progress.lock().unwrap() = n;
    assert_eq!(
        repo.admin().delete_entity_with_progress("key-1", &told)?,
        FURNISHED
    );
    assert_eq!(*progress.lock().unwrap(), FURNISHED);
    assert_eq!(repo.admin().delete_entity("top")?, 3);
    assert_eq!(repo.admin().delete_entity("top")?, 0);
    Ok(())
}
