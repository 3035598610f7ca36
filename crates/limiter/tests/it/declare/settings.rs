//! Concurrency limits and the cascade depth in manifests.

use zae_limiter_core::manifest::{ManagedSettings, Setting};

use super::*;

fn of_entity(id: &str, scope: &str) -> Setting {
    let target = Target::parse("entity", &format!("{id}/{scope}")).unwrap();
    Setting::Concurrency(target)
}

async fn changes(repo: &Repository, manifest: &Manifest) -> Vec<String> {
    let plan = repo
        .admin()
        .plan_limits(manifest, ApplyOptions::default())
        .await
        .unwrap();
    let line = |change: &zae_limiter_core::manifest::SettingChange| {
        let (setting, old) = (&change.setting, change.old.as_ref().and_then(|old| old.value));
        let (symbol, name, target) = (change.action.symbol(), setting.as_str(), setting.target());
        format!("{symbol} {name} {target} {old:?} {:?}", change.new)
    };
    plan.settings.iter().map(line).collect()
}

fn none() -> Manifest {
    Manifest::empty("default".parse().unwrap())
}

/// With levels, and without.
fn declared() -> Manifest {
    manifest(json!({
        "system": { "concurrency": 100, "cascade_depth": 4 },
        "resources": {
            "gpt-4": { "concurrency": 50, "limits": { "rpm": { "capacity": 5 } } }, "gpt-5": { "concurrency": 40 },
        },
        "entities": { "u": { "resources": { "_default_": { "concurrency": 5 }, "gpt-4": { "concurrency": 2 } } } },
    }))
}

/// One more, one other, and two fewer.
fn changed() -> Manifest {
    manifest(json!({
        "system": { "concurrency": 90 },
        "resources": { "gpt-4": { "concurrency": 50, "limits": { "rpm": { "capacity": 6 } } } },
        "entities": {
            "u": { "resources": { "_default_": { "concurrency": 6 }, "gpt-4": { "concurrency": 2 } } },
            "v": { "resources": { "gpt-4": { "concurrency": 3 } } },
        },
    }))
}

#[tokio::test]
async fn an_apply_leaves_what_single_calls_leave() {
    let (declared_in, called) = (Admin::new().await, Admin::new().await);
    let applied = apply(&declared_in.repo, &declared()).await;
    assert_eq!(
        (applied.created, applied.unchanged, applied.settings.len()),
        (7, 0, 6)
    );
    let admin = called.repo.admin();
    admin.set_system_concurrency(100).await.unwrap();
    admin.set_cascade_depth(4).await.unwrap();
    admin.set_resource_defaults("gpt-4", rpm(5)).await.unwrap();
    admin.set_resource_concurrency("gpt-4", 50).await.unwrap();
    admin.set_resource_concurrency("gpt-5", 40).await.unwrap();
    admin.set_entity_concurrency("u", ALL_RESOURCES, 5).await.unwrap();
    admin.set_entity_concurrency("u", "gpt-4", 2).await.unwrap();
    assert_same(
        &without(state(&declared_in).await, "#PROVISIONER"),
        &state(&called).await,
        "set",
    );
    let by_manifest = declared_in.repo.admin();
    let effective = async |entity: &'static str, resource: &'static str| {
        by_manifest.effective_concurrency(entity, resource).await.unwrap()
    };
    assert_eq!(effective("u", "gpt-4").await, Some(2));
    assert_eq!(effective("u", "gpt-5").await, Some(5));
    assert_eq!(effective("v", "gpt-5").await, Some(40));
    assert_eq!(effective("v", "other").await, Some(100));
    assert_eq!(by_manifest.cascade_depth().await.unwrap(), 4);
    assert_eq!(
        changes(&declared_in.repo, &declared()).await,
        Vec::<String>::new()
    );
    let again = apply(&declared_in.repo, &declared()).await;
    assert_eq!((again.unchanged, again.adopted, again.changes.len()), (7, 0, 0));

    // And deleted.
    let applied = apply(&declared_in.repo, &none()).await;
    assert_eq!((applied.deleted, applied.created), (7, 0));
    for target in ["gpt-4", "gpt-5"] {
        assert!(admin.delete_resource_concurrency(target).await.unwrap());
    }
    assert!(admin.delete_system_concurrency().await.unwrap());
    assert!(admin.delete_entity_concurrency("u", ALL_RESOURCES).await.unwrap());
    assert!(admin.delete_entity_concurrency("u", "gpt-4").await.unwrap());
    admin.delete_resource_defaults("gpt-4").await.unwrap();
    admin.set_cascade_depth(2).await.unwrap();
    // By a command the depth stays stored, with the effect of none.
    assert_same(
        &without(state(&declared_in).await, "#PROVISIONER"),
        &without(state(&called).await, "#CASCADE_DEPTH"),
        "deleted",
    );
    assert_eq!(by_manifest.cascade_depth().await.unwrap(), 2);
    assert_eq!(changes(&declared_in.repo, &none()).await, Vec::<String>::new());
}

#[tokio::test]
async fn requests_go_by_what_is_applied() {
    let a = Admin::new().await;
    let one = manifest(
        json!({ "resources": { "gpt-4": { "concurrency": 1, "limits": { "rpm": { "capacity": 9 } } } } }),
    );
    apply(&a.repo, &one).await;
    let call = async || {
        a.limiter
            .acquire("u", "gpt-4")
            .consume("rpm", 1)
            .in_flight()
            .await
    };
    let lease = call().await.unwrap();
    assert!(matches!(call().await, Err(Error::ConcurrencyExceeded(_))));
    // This process reads the limit again after its own apply.
    let two = manifest(
        json!({ "resources": { "gpt-4": { "concurrency": 2, "limits": { "rpm": { "capacity": 9 } } } } }),
    );
    apply(&a.repo, &two).await;
    let second = call().await.unwrap();
    for lease in [lease, second] {
        lease.commit().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_set_by_hand_is_left_alone() {
    let a = Admin::new().await;
    let (repo, admin) = (&a.repo, a.repo.admin());
    admin.set_resource_defaults("gpt-5", rpm(9)).await.unwrap();
    admin.set_system_concurrency(100).await.unwrap();
    admin.set_cascade_depth(3).await.unwrap();
    admin.set_entity_concurrency("u", "gpt-4", 9).await.unwrap();
    admin.set_entity_concurrency("by-hand", "gpt-4", 9).await.unwrap();
    // A level without the key says nothing of it, and a level that has nothing else nothing of limits.
    let silent = manifest(
        json!({ "system": limits(&[("rpm", 5)]), "entities": { "u": { "resources": { "gpt-4": {} } } } }),
    );
    apply(repo, &silent).await;
    assert_eq!(admin.system_concurrency().await.unwrap(), Some(100));
    assert_eq!(admin.entity_concurrency("u", "gpt-4").await.unwrap(), Some(9));
    assert_eq!(admin.cascade_depth().await.unwrap(), 3);
    // Declared as stored, it is taken over; declared otherwise, it is replaced.
    let found = changes(repo, &declared()).await;
    assert_eq!(
        found,
        [
            "+ cascade_depth (system defaults) Some(3) Some(4)",
            "+ concurrency gpt-4 None Some(50)",
            "+ concurrency gpt-5 None Some(40)",
            "+ concurrency u/_default_ None Some(5)",
            "+ concurrency u/gpt-4 Some(9) Some(2)",
        ]
    );
    let applied = apply(repo, &declared()).await;
    assert_eq!((applied.adopted, applied.unchanged), (1, 1));
    assert_eq!(admin.resource_defaults("gpt-5").await.unwrap().len(), 1);
    // From then on it is managed, also if a command changes it.
    admin.set_entity_concurrency("u", "gpt-4", 8).await.unwrap();
    assert_eq!(
        changes(repo, &declared()).await,
        ["~ concurrency u/gpt-4 Some(8) Some(2)"]
    );
    apply(repo, &none()).await;
    assert_eq!(admin.system_concurrency().await.unwrap(), None);
    assert_eq!(admin.entity_concurrency("u", "gpt-4").await.unwrap(), None);
    assert_eq!(admin.cascade_depth().await.unwrap(), 2);
    assert_eq!(
        admin.entity_concurrency("by-hand", "gpt-4").await.unwrap(),
        Some(9)
    );
    assert_eq!(admin.resource_defaults("gpt-5").await.unwrap().len(), 1);
}

/// A table with the first manifest applied.
async fn prepared() -> Admin {
    let a = Admin::new().await;
    apply(&a.repo, &declared()).await;
    a
}

#[tokio::test]
async fn an_apply_that_was_killed_anywhere_is_finished_by_the_next() {
    let undisturbed = prepared().await;
    apply(&undisturbed.repo, &changed()).await;
    let wanted = state(&undisturbed).await;
    let survives = async |a: Admin, what: &str| {
        // A setting that was written is managed.
        let key = ManagedSettings::key(a.repo.namespace_id());
        let managed = ManagedSettings::decode(&a.item(key).await.unwrap()).unwrap();
        let new = a.repo.admin().entity_concurrency("v", "gpt-4").await.unwrap();
        assert!(
            new.is_none() || managed.contains(&of_entity("v", "gpt-4")),
            "{what}"
        );
        let again = apply(&a.repo, &changed()).await;
        assert_eq!(again.errors, Vec::<String>::new(), "{what}");
        assert_same(&state(&a).await, &wanted, what);
        assert_eq!(changes(&a.repo, &changed()).await, Vec::<String>::new(), "{what}");
    };
    let points = killed_anywhere(prepared, &changed(), survives).await;
    // The turn taken and ended, three records, and five changes.
    assert!(points >= 2 * 9, "only {points} points were tried");
}

#[tokio::test]
async fn answers_that_are_lost_lose_nothing() {
    let undisturbed = prepared().await;
    apply(&undisturbed.repo, &changed()).await;
    let wanted = without(state(&undisturbed).await, "/AUDIT#");
    for k in 0..12 {
        let a = prepared().await;
        let _ = losing_answer(&a, k)
            .await
            .admin()
            .apply_limits(&changed(), ApplyOptions::default())
            .await;
        apply(&a.repo, &changed()).await;
        assert_same(
            &without(state(&a).await, "/AUDIT#"),
            &wanted,
            &format!("write {k} lost"),
        );
    }
}

#[tokio::test]
async fn an_apply_of_the_original_does_not_make_them_unmanaged() {
    let a = Admin::new().await;
    apply(&a.repo, &declared()).await;
    let record = provisioner_key(a.repo.namespace_id());
    let attrs = [
        ("managed_system", Value::Bool(false)),
        ("managed_resources", Value::L(Vec::new())),
        ("managed_entities", Value::M(Item::new())),
        ("last_applied", Value::text("2026-11-30T10:00:00.000000+00:00")),
        ("applied_hash", Value::text("sha256:0")),
    ];
    a.write(&record.pk, &record.sk, attrs).await;
    assert_eq!(changes(&a.repo, &declared()).await, Vec::<String>::new());
    let applied = apply(&a.repo, &none()).await;
    assert_eq!((applied.deleted, applied.settings.len()), (6, 6));
    assert_eq!(a.repo.admin().cascade_depth().await.unwrap(), 2);
    assert_eq!(
        a.traces(|_, sk| sk.starts_with("#CONCURRENCY")).await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn withdrawing_deletes_what_is_declared_and_managed() {
    let a = Admin::new().await;
    apply(&a.repo, &declared()).await;
    let admin = a.repo.admin();
    admin.set_resource_concurrency("by-hand", 1).await.unwrap();
    let part = manifest(json!({
        "resources": { "gpt-5": { "concurrency": 1 }, "by-hand": { "concurrency": 1 } },
        "entities": { "u": { "resources": { "_default_": { "concurrency": 1 } } } },
    }));
    let withdrawn = admin
        .withdraw_limits(&part, ApplyOptions::default())
        .await
        .unwrap();
    assert_eq!((withdrawn.deleted, withdrawn.errors.len()), (2, 0));
    assert_eq!(admin.resource_concurrency("gpt-5").await.unwrap(), None);
    assert_eq!(admin.resource_concurrency("by-hand").await.unwrap(), Some(1));
    // The others are managed as before.
    assert_eq!(
        changes(&a.repo, &none()).await,
        [
            "- concurrency (system defaults) Some(100) None",
            "- cascade_depth (system defaults) Some(4) None",
            "- concurrency gpt-4 Some(50) None",
            "- concurrency u/gpt-4 Some(2) None",
        ]
    );
}

#[tokio::test]
async fn of_two_applies_the_one_that_began_last_holds() {
    let a = Admin::new().await;
    let (mine, theirs) = (
        manifest(json!({ "system": { "cascade_depth": 3 }, "resources": { "mine": { "concurrency": 1 } } })),
        manifest(
            json!({ "system": { "cascade_depth": 5 }, "resources": { "theirs": { "concurrency": 1 } } }),
        ),
    );
    let admin = a.repo.admin();
    let first = admin.begin_limits(&mine, ApplyOptions::default()).await.unwrap();
    apply(&a.repo, &theirs).await;
    let told = first.finish().await.unwrap();
    assert_eq!((told.created, told.settings.len()), (0, 2));
    assert_eq!(told.errors.len(), 1, "{:?}", told.errors);
    assert!(
        told.errors[0].starts_with("2 change(s) were not made: another apply"),
        "{:?}",
        told.errors
    );
    assert_eq!(admin.cascade_depth().await.unwrap(), 5);
    // Both are at work, and the first is in the middle of a write when the second looks.
    let first = admin.begin_limits(&mine, ApplyOptions::default()).await.unwrap();
    let second = admin
        .begin_limits(&theirs, ApplyOptions::default())
        .await
        .unwrap();
    admin.set_cascade_depth(3).await.unwrap();
    admin.set_resource_concurrency("theirs", 7).await.unwrap();
    assert_eq!(second.finish().await.unwrap().errors, Vec::<String>::new());
    assert_eq!(first.finish().await.unwrap().errors.len(), 1);
    assert_eq!(admin.cascade_depth().await.unwrap(), 5);
    assert_eq!(admin.resource_concurrency("theirs").await.unwrap(), Some(1));
    assert_eq!(admin.resource_concurrency("mine").await.unwrap(), None);
    // What the first had listed and not created is planned as gone, and leaves the record.
    apply(&a.repo, &theirs).await;
    assert_eq!(changes(&a.repo, &theirs).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_setting_that_changes_between_look_and_write_is_written_as_it_is_then() {
    let a = Admin::new().await;
    let admin = a.repo.admin();
    apply(&a.repo, &declared()).await;
    let changed = changed();
    let begun = admin
        .begin_limits(&changed, ApplyOptions::default())
        .await
        .unwrap();
    admin.set_system_concurrency(1).await.unwrap();
    admin.set_entity_concurrency("v", "gpt-4", 8).await.unwrap();
    admin.delete_resource_concurrency("gpt-5").await.unwrap();
    admin.set_cascade_depth(7).await.unwrap();
    let applied = begun.finish().await.unwrap();
    assert_eq!(
        (applied.errors.len(), applied.created, applied.deleted),
        (0, 1, 2)
    );
    assert_eq!(admin.system_concurrency().await.unwrap(), Some(90));
    assert_eq!(admin.entity_concurrency("v", "gpt-4").await.unwrap(), Some(3));
    assert_eq!(admin.cascade_depth().await.unwrap(), 2);
    assert_eq!(changes(&a.repo, &changed).await, Vec::<String>::new());
}

#[tokio::test]
async fn failures_are_told_and_repeated_by_the_next_apply() {
    let a = Admin::new().await;
    let is_setting = |op: &Op| match op {
        Op::Transact(parts) => format!("{parts:?}").contains("max_in_flight"),
        _ => false,
    };
    // One that is refused for good does not keep the others from it.
    let refused = a
        .ruled(move |op| {
            let is_of_system = is_setting(op) && format!("{op:?}").contains("N(100)");
            if is_of_system || format!("{op:?}").contains("\"100\"") && is_setting(op) {
                Fault::Denied
            } else {
                Fault::None
            }
        })
        .await;
    let told = refused
        .admin()
        .apply_limits(&declared(), ApplyOptions::default())
        .await
        .unwrap();
    assert_eq!((told.created, told.errors.len()), (6, 1), "{:?}", told.errors);
    assert!(
        told.errors[0].starts_with("create system concurrency: "),
        "{:?}",
        told.errors
    );
    assert_eq!(a.repo.admin().system_concurrency().await.unwrap(), None);
    let applied = apply(&a.repo, &declared()).await;
    assert_eq!((applied.created, applied.unchanged), (1, 6));
    // While the table fails, the rest is not tried.
    let many = (0..100).map(|n| (format!("r{n}"), json!({ "concurrency": 1 })));
    let many = json!({ "resources": many.collect::<serde_json::Map<_, _>>() });
    let failing = a
        .ruled(move |op| {
            if is_setting(op) {
                Fault::LostBefore
            } else {
                Fault::None
            }
        })
        .await;
    let told = failing
        .admin()
        .apply_limits(&manifest(many), ApplyOptions::default())
        .await
        .unwrap();
    let last = told.errors.last().unwrap();
    assert!(
        last.contains("further change(s) were not tried"),
        "{:?}",
        told.errors
    );
    assert!(told.errors.len() < 40, "{}", told.errors.len());
}

#[tokio::test]
async fn an_apply_writes_nothing_into_a_namespace_that_was_deleted_meanwhile() {
    let a = Admin::new().await;
    let declared = manifest(json!({ "resources": { "r": { "concurrency": 1 } } }));
    let begun = a
        .repo
        .admin()
        .begin_limits(&declared, ApplyOptions::default())
        .await
        .unwrap();
    a.repo.stack_handle().delete_namespace("default").await.unwrap();
    let told = begun.finish().await.unwrap();
    assert_eq!(
        told.errors,
        ["1 change(s) were not made: the namespace was deleted meanwhile."]
    );
    assert_eq!(
        a.traces(|_, sk| sk.starts_with("#CONCURRENCY")).await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_full_apply_writes_all_and_logs_what_differs() {
    let a = Admin::new().await;
    apply(&a.repo, &declared()).await;
    let key = of_entity("u", "gpt-4").key(a.repo.namespace_id());
    let before = state(&a).await;
    // Without the index, a purge of the namespace would not find it.
    let limit = a.item(key.clone()).await.unwrap()["max_in_flight"].clone();
    a.write(&key.pk, &key.sk, [("max_in_flight", limit)]).await;
    assert_eq!(changes(&a.repo, &declared()).await, Vec::<String>::new());
    let full = ApplyOptions {
        full: true,
        ..ApplyOptions::default()
    };
    let applied = a.repo.admin().apply_limits(&declared(), full).await.unwrap();
    assert_eq!(
        (applied.updated, applied.errors.len(), applied.settings.len()),
        (7, 0, 6)
    );
    assert_same(
        &without(state(&a).await, "$RESOURCE:gpt-4"),
        &without(before, "$RESOURCE:gpt-4"),
        "full",
    );
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_written() {
    let a = Admin::new().await;
    let entities = (0..9000).map(|n| {
        let scope = json!({ "resources": { "gpt-4": { "concurrency": 1 } } });
        (format!("{n:0>50}"), scope)
    });
    let large = manifest(json!({ "entities": entities.collect::<serde_json::Map<_, _>>() }));
    let before = state(&a).await;
    let admin = a.repo.admin();
    for err in [
        admin.plan_limits(&large, ApplyOptions::default()).await.err(),
        admin.apply_limits(&large, ApplyOptions::default()).await.err(),
    ] {
        let text = err.unwrap().to_string();
        assert!(
            text.contains("9000 settings") && text.contains("managed concurrency limits"),
            "{text}"
        );
    }
    assert_same(&state(&a).await, &before, "refused");
}

#[tokio::test]
async fn a_damaged_value_is_replaced_and_a_damaged_record_of_them_is_an_error() {
    let a = Admin::new().await;
    let key = Setting::CascadeDepth.key(a.repo.namespace_id());
    a.write(&key.pk, &key.sk, [("depth", Value::int(99))]).await;
    apply(&a.repo, &declared()).await;
    assert_eq!(a.repo.admin().cascade_depth().await.unwrap(), 4);
    a.write(&key.pk, &key.sk, [("depth", Value::text("x"))]).await;
    apply(&a.repo, &none()).await;
    assert_eq!(a.item(key).await, None);
    let record = ManagedSettings::key(a.repo.namespace_id());
    a.write(&record.pk, &record.sk, [("managed_cascade_depth", Value::int(1))])
        .await;
    let err = a
        .repo
        .admin()
        .apply_limits(&none(), ApplyOptions::default())
        .await;
    assert!(matches!(err, Err(Error::Corrupt(_))), "{err:?}");
}
