//! Flags that manifests declare: stored, carried to live buckets, taken away, and finished after a kill.

use futures_util::future::join_all;
use zae_limiter::{Access, NewEntity};
use zae_limiter_core::schema::version_key;

use super::*;

/// A child and its parent with buckets, and an entity by itself, on a stack whose functions are of this release.
async fn used() -> Admin {
    let a = Admin::new().await;
    a.functions_of("0.17.0").await;
    let admin = a.repo.admin();
    admin.set_system_defaults(rpm(9), None).await.unwrap();
    admin.create_entity(NewEntity::new("parent")).await.unwrap();
    let child = NewEntity::new("child").parent("parent").cascade(true);
    admin.create_entity(child).await.unwrap();
    for entity in ["child", "other"] {
        let acquire = a.limiter.acquire(entity, "gpt-4").consume("rpm", 1);
        acquire.await.unwrap().commit().await.unwrap();
    }
    a.repo.drain().await;
    a
}

/// Whether the bucket refuses, and whether it debits the parent.
async fn stamps(a: &Admin, entity: &str) -> (bool, bool) {
    let bucket = a.bucket(entity, "gpt-4").await.unwrap();
    (bucket.disabled, bucket.owner.cascade)
}

async fn level(a: &Admin, target: &str) -> Option<Item> {
    let (kind, name) = target.split_once(' ').unwrap();
    let target = Target::parse(kind, name).unwrap();
    a.item(target.key(a.repo.namespace_id())).await
}

fn flagged() -> Manifest {
    manifest(json!({
        "resources": { "gpt-4": { "disabled": true, "cascade": false, "limits": { "rpm": { "capacity": 5 } } } },
        "entities": { "other": { "resources": { "_default_": { "disabled": false } } } },
    }))
}

#[tokio::test]
async fn they_reach_live_buckets_and_go_with_their_line() {
    let a = used().await;
    assert_eq!(stamps(&a, "child").await, (false, true));
    let declared = flagged();
    let seen = a.repo.admin().plan_limits(&declared, ApplyOptions::default());
    let seen = seen.await.unwrap().to_json();
    assert_eq!(seen["changes"][0]["new"]["disabled"], true);
    assert_eq!(seen["changes"][0]["new"]["cascade"], false);
    apply(&a.repo, &flagged()).await;
    assert_eq!(plan(&a.repo, &flagged()).await, Vec::<String>::new());
    assert_eq!(stamps(&a, "child").await, (true, false));
    assert_eq!(stamps(&a, "parent").await, (true, false));
    // What the entity says comes before.
    assert!(!stamps(&a, "other").await.0);
    let item = level(&a, "entity other/_default_").await.unwrap();
    assert_eq!(
        (&item["disabled"], item.contains_key("l_rpm_cp")),
        (&Value::Bool(false), false)
    );
    let call = a.limiter.acquire("child", "gpt-4").consume("rpm", 1).await;
    assert!(matches!(call, Err(Error::Disabled { .. })), "{call:?}");
    let events = a.repo.admin().audit_events("$RESOURCE:gpt-4", None).unwrap();
    let event = &events.all().await.unwrap()[0];
    assert_eq!(event.details["disabled"], Value::Bool(true));

    // Without the lines, the limits stay.
    let limits_only = manifest(json!({ "resources": { "gpt-4": limits(&[("rpm", 5)]) } }));
    assert_eq!(
        plan(&a.repo, &limits_only).await,
        ["~ resource gpt-4", "- entity other/_default_"]
    );
    apply(&a.repo, &limits_only).await;
    assert_eq!(stamps(&a, "child").await, (false, true));
    let item = level(&a, "resource gpt-4").await.unwrap();
    assert!(!item.contains_key("disabled") && !item.contains_key("cascade") && item.contains_key("l_rpm_cp"));
    assert_eq!(level(&a, "entity other/_default_").await, None);

    // A flag that was set by hand on a managed level is what the manifest does not declare.
    a.repo
        .admin()
        .set_resource_access("gpt-4", Access::Disabled)
        .await
        .unwrap();
    assert_eq!(plan(&a.repo, &limits_only).await, ["~ resource gpt-4"]);
    apply(&a.repo, &limits_only).await;
    assert!(!stamps(&a, "child").await.0);
    // A level goes with its flags, and buckets learn of it.
    apply(&a.repo, &flagged()).await;
    apply(&a.repo, &Manifest::empty("default".parse().unwrap())).await;
    assert_eq!(
        (level(&a, "resource gpt-4").await, stamps(&a, "child").await),
        (None, (false, true))
    );
}

#[tokio::test]
async fn a_bypass_admits_until_its_line_goes() {
    let a = used().await;
    let declared = manifest(json!({ "resources": { "gpt-4": { "disabled": "bypass" } } }));
    apply(&a.repo, &declared).await;
    let lease = a
        .limiter
        .acquire("other", "gpt-4")
        .consume("rpm", 50)
        .await
        .unwrap();
    assert!(lease.is_bypassed());
    lease.commit().await.unwrap();
    let version = a.item(version_key()).await.unwrap();
    assert_eq!(version["client_min_version"], Value::text("0.17.0"));
    apply(&a.repo, &Manifest::empty("default".parse().unwrap())).await;
    let call = a.limiter.acquire("other", "gpt-4").consume("rpm", 50).await;
    assert!(matches!(call, Err(Error::RateLimitExceeded(_))), "{call:?}");
}

/// Functions that do not honour a flag, and nothing written.
#[tokio::test]
async fn gates_are_checked_before_any_write() {
    let a = used().await;
    for (level, version) in [
        (json!({ "disabled": "bypass" }), "0.16.0"),
        (json!({ "cascade": true }), "0.15.0"),
    ] {
        a.functions_of(version).await;
        let before = without(state(&a).await, "#TURN");
        let declared = manifest(json!({
            "resources": { "a": limits(&[("rpm", 5)]) },
            "entities": { "child": { "resources": { "gpt-4": level } } },
        }));
        let planned = a
            .repo
            .admin()
            .plan_limits(&declared, ApplyOptions::default())
            .await;
        assert!(matches!(planned, Err(Error::VersionMismatch(_))), "{planned:?}");
        let applied = a
            .repo
            .admin()
            .apply_limits(&declared, ApplyOptions::default())
            .await;
        assert!(matches!(applied, Err(Error::VersionMismatch(_))), "{applied:?}");
        assert_same(&without(state(&a).await, "#TURN"), &before, version);
    }
    // A flag that is not gated needs no functions.
    a.functions_of("0.10.0").await;
    apply(
        &a.repo,
        &manifest(json!({ "resources": { "gpt-4": { "disabled": true } } })),
    )
    .await;
}

/// Also between the write of a level and that of the buckets.
#[tokio::test]
async fn an_apply_that_was_killed_anywhere_is_finished_by_the_next() {
    let undisturbed = used().await;
    let table = Arc::new(Dying::new(undisturbed.repo.table(), false));
    apply(
        &undisturbed.over(Arc::clone(&table), |builder| builder).await,
        &flagged(),
    )
    .await;
    let wanted = state(&undisturbed).await;
    let writes = table.writes();
    let killed = async |k: i64, after: bool| {
        let a = used().await;
        let table = Arc::new(Dying::new(a.repo.table(), after));
        let dying = a.over(Arc::clone(&table), |builder| builder).await;
        table.dies_after(k);
        let _ = dying
            .admin()
            .apply_limits(&flagged(), ApplyOptions::default())
            .await;
        let what = format!("{} write {k}", if after { "after" } else { "before" });
        assert!(table.is_dead(), "{what}");
        let again = apply(&a.repo, &flagged()).await;
        assert_eq!(again.errors, Vec::<String>::new(), "{what}");
        assert_eq!(stamps(&a, "child").await, (true, false), "{what}");
        // Then the dead one's records go, too.
        a.clock.advance(Duration::from_mins(20));
        assert_eq!(apply(&a.repo, &flagged()).await.pending, 0, "{what}");
        assert_same(
            &without_instants(state(&a).await),
            &without_instants(wanted.clone()),
            &what,
        );
    };
    assert!(writes >= 8, "only {writes} writes");
    let points = (0..writes).flat_map(|k| [(k, false), (k, true)]);
    join_all(points.map(|(k, after)| Box::pin(killed(k, after)))).await;
}

/// Without the record of what is managed, whose revision counts applies, and the marks of turns.
fn without_instants(state: BTreeMap<String, String>) -> BTreeMap<String, String> {
    without(without(state, "#PROVISIONER"), "/AUDIT#")
}

/// Kinds of work that the original has left behind.
#[tokio::test]
async fn work_of_other_clients_is_done() {
    let a = used().await;
    let ns = a.repo.namespace_id().to_string();
    // The original had written the levels, and died before it stamped the buckets.
    let at = Target::parse("resource", "gpt-4")
        .unwrap()
        .key(a.repo.namespace_id());
    let attrs = [("disabled", Value::Bool(true)), ("cascade", Value::Bool(false))];
    a.write(&at.pk, &at.sk, attrs).await;
    for kind in ["disabled", "cascade"] {
        let owner = Item::from([
            ("lease".into(), Value::int(5)),
            ("full".into(), Value::Bool(false)),
        ]);
        let attrs = [
            ("kind", Value::text(kind)),
            ("level", Value::text("resource")),
            ("target", Value::text("gpt-4")),
            ("written_ms", Value::int(1)),
            ("GSI4PK", Value::text(&ns)),
            ("GSI4SK", Value::S(format!("{ns}/SYSTEM#"))),
            (
                "owners",
                Value::M(Item::from([("0".repeat(32), Value::M(owner))])),
            ),
        ];
        let sk = format!("#PROVISIONER#PENDING#{kind}#resource#gpt-4");
        a.write(&format!("{ns}/SYSTEM#"), &sk, attrs).await;
    }
    let none = manifest(json!({}));
    assert_eq!(
        a.repo
            .admin()
            .plan_limits(&none, ApplyOptions::default())
            .await
            .unwrap()
            .pending,
        2
    );
    assert_eq!(apply(&a.repo, &none).await.pending, 0);
    assert_eq!(stamps(&a, "child").await, (true, false));
    assert_eq!(
        a.traces(|_, sk| sk.contains("#PENDING#")).await,
        Vec::<String>::new()
    );
}

/// A limit that ceases to be soft by a manifest, on buckets that another client has stamped.
#[tokio::test]
async fn limits_that_are_hard_again_lose_their_stamps() {
    for level in ["resource", "system"] {
        let a = used().await;
        let declared = |soft: bool| {
            let limits = json!({ "limits": { "rpm": { "capacity": 9, "soft": soft } } });
            manifest(match level {
                "resource" => json!({ "resources": { "gpt-4": limits } }),
                _ => json!({ "system": limits }),
            })
        };
        apply(&a.repo, &declared(true)).await;
        let stamped = async |entity: &str| {
            let bucket = a.bucket(entity, "gpt-4").await.unwrap();
            bucket.limits.iter().any(|limit| limit.is_soft)
        };
        for entity in ["child", "other"] {
            let until = Value::int(i64::MAX);
            a.poke(entity, "gpt-4", &[("b_rpm_soft", Some(until))]).await;
            assert!(stamped(entity).await);
        }
        let done = apply(&a.repo, &declared(false)).await;
        assert_eq!((done.errors.len(), done.pending), (0, 0), "{level}");
        for entity in ["child", "other"] {
            assert!(!stamped(entity).await, "{level}: {entity}");
        }
        let left = a.traces(|_, sk| sk.contains("#PENDING#")).await;
        assert_eq!(left, Vec::<String>::new());
    }
}

/// A flag of a level whose limits cannot be read.
#[tokio::test]
async fn a_damaged_level_goes_with_its_flag() {
    let a = used().await;
    let at = Target::parse("resource", "gpt-4")
        .unwrap()
        .key(a.repo.namespace_id());
    a.repo
        .admin()
        .set_resource_access("gpt-4", Access::Disabled)
        .await
        .unwrap();
    assert!(stamps(&a, "child").await.0);
    let attrs = [("disabled", Value::Bool(true)), ("l_rpm_cp", Value::int(-1))];
    a.write(&at.pk, &at.sk, attrs).await;
    apply(
        &a.repo,
        &manifest(json!({ "resources": { "gpt-4": limits(&[("rpm", 5)]) } })),
    )
    .await;
    assert!(!stamps(&a, "child").await.0);
}
