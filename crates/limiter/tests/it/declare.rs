//! Declared limits: planned, applied, interrupted at every point, applied twice at once.

mod flags;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use zae_limiter::table::{Table, TableExt as _, TableFuture};
use zae_limiter::{ALL_RESOURCES, ApplyOptions, Error, Limit, OnUnavailable, Repository, ResourceName};
use zae_limiter_core::manifest::turn::turn_key;
use zae_limiter_core::manifest::{Managed, Manifest, Target};
use zae_limiter_core::schema::{key_of, provisioner_key, resource_config_key};
use zae_limiter_core::table::{Item, Key, Op, Update, Value};

use crate::admin::{Admin, rpm};
use crate::support::key;
use crate::world::{Fault, suffer};

fn manifest(value: Json) -> Manifest {
    let mut value = value;
    value["namespace"] = json!("default");
    Manifest::from_json(&value).unwrap_or_else(|err| panic!("{err}"))
}

fn limits(limits: &[(&str, i64)]) -> Json {
    let limits = limits
        .iter()
        .map(|(name, capacity)| ((*name).to_owned(), json!({ "capacity": capacity })));
    json!({ "limits": limits.collect::<serde_json::Map<_, _>>() })
}

async fn apply(repo: &Repository, manifest: &Manifest) -> zae_limiter::LimitsApplied {
    let applied = repo
        .admin()
        .apply_limits(manifest, ApplyOptions::default())
        .await
        .unwrap();
    assert_eq!(applied.errors, Vec::<String>::new());
    applied
}

async fn plan(repo: &Repository, manifest: &Manifest) -> Vec<String> {
    let plan = repo
        .admin()
        .plan_limits(manifest, ApplyOptions::default())
        .await
        .unwrap();
    let line = |change: &zae_limiter_core::manifest::Change| {
        format!(
            "{} {} {}",
            change.action.symbol(),
            change.target.level(),
            change.target
        )
    };
    plan.changes.iter().map(line).collect()
}

/// All that the table holds, apart from instants, ids and marks that differ from run to run.
pub(crate) async fn state(a: &Admin) -> BTreeMap<String, String> {
    let ns = a.repo.namespace_id().to_string();
    let mut state = BTreeMap::new();
    for (pk, sk) in a.dump(None).await.into_keys() {
        let at = key(&pk, &sk);
        let mut item = a.item(at).await.unwrap();
        for name in [
            "last_applied",
            "revision",
            "event_id",
            "timestamp",
            "ttl",
            "updated_at",
            "created_at",
            "cf",
            "pinc",
        ] {
            item.remove(name);
        }
        let mut name = format!("{pk} {sk}");
        if pk.contains("/AUDIT#") {
            item.remove("SK");
            name = format!("{pk} {item:?}");
        }
        let count = state
            .keys()
            .filter(|known: &&String| known.starts_with(&name))
            .count();
        state.insert(
            format!("{name} {count}").replace(&ns, "NS"),
            format!("{item:?}").replace(&ns, "NS"),
        );
    }
    state
}

#[track_caller]
pub(crate) fn assert_same(found: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>, what: &str) {
    for (name, item) in wanted {
        assert_eq!(found.get(name), Some(item), "{what}: {name}");
    }
    let more: Vec<_> = found.keys().filter(|name| !wanted.contains_key(*name)).collect();
    assert_eq!(more, Vec::<&String>::new(), "{what}");
}

pub(crate) fn without(mut state: BTreeMap<String, String>, part: &str) -> BTreeMap<String, String> {
    state.retain(|name, _| !name.contains(part));
    state
}

#[tokio::test]
async fn an_apply_leaves_what_single_calls_leave() {
    let (declared, called) = (Admin::new().await, Admin::new().await);
    let manifest = manifest(json!({
        "system": { "on_unavailable": "allow", "limits": { "rpm": { "capacity": 9 } } },
        "resources": { "gpt-4": limits(&[("rpm", 5), ("tpm", 1000)]) },
        "entities": { "u": { "resources": { "gpt-4": limits(&[("rpm", 3)]), "_default_": limits(&[("rpm", 4)]) } } },
    }));
    let applied = apply(&declared.repo, &manifest).await;
    assert_eq!(
        (applied.created, applied.updated, applied.deleted, applied.pending),
        (4, 0, 0, 0)
    );
    let repo = &called.repo;
    let tpm = [Limit::per_minute("rpm", 5), Limit::per_minute("tpm", 1000)];
    repo.admin()
        .set_system_defaults(rpm(9), Some(OnUnavailable::Allow))
        .await
        .unwrap();
    repo.admin().set_resource_defaults("gpt-4", tpm).await.unwrap();
    repo.admin()
        .set_entity_limits("u", ALL_RESOURCES, rpm(4))
        .await
        .unwrap();
    repo.admin()
        .set_entity_limits("u", "gpt-4", rpm(3))
        .await
        .unwrap();
    assert_same(
        &without(state(&declared).await, "#PROVISIONER"),
        &state(&called).await,
        "set",
    );

    // And deleted.
    apply(&declared.repo, &Manifest::empty("default".parse().unwrap())).await;
    repo.admin().delete_system_defaults().await.unwrap();
    repo.admin().delete_resource_defaults("gpt-4").await.unwrap();
    repo.admin()
        .delete_entity_limits("u", ALL_RESOURCES)
        .await
        .unwrap();
    repo.admin().delete_entity_limits("u", "gpt-4").await.unwrap();
    assert_same(
        &without(state(&declared).await, "#PROVISIONER"),
        &state(&called).await,
        "deleted",
    );
}

#[tokio::test]
async fn only_what_is_managed_is_deleted_and_the_rest_is_listed() {
    let a = Admin::new().await;
    let repo = &a.repo;
    repo.admin()
        .set_resource_defaults("by-hand", rpm(1))
        .await
        .unwrap();
    repo.admin()
        .set_entity_limits("u", "by-hand", rpm(1))
        .await
        .unwrap();
    repo.admin()
        .set_entity_limits("u", ALL_RESOURCES, rpm(1))
        .await
        .unwrap();
    repo.admin().set_system_defaults(rpm(1), None).await.unwrap();
    let first = manifest(json!({ "resources": { "a": limits(&[("rpm", 1)]), "b": limits(&[("rpm", 1)]) } }));
    assert_eq!(plan(repo, &first).await, ["+ resource a", "+ resource b"]);
    apply(repo, &first).await;
    assert_eq!(plan(repo, &first).await, Vec::<String>::new());
    // Changed by hand, it is a difference; declared as stored, it is not one, and managed from then on.
    repo.admin().set_resource_defaults("a", rpm(7)).await.unwrap();
    assert_eq!(plan(repo, &first).await, ["~ resource a"]);
    let second = manifest(json!({ "resources": { "by-hand": limits(&[("rpm", 1)]) } }));
    assert_eq!(plan(repo, &second).await, ["- resource a", "- resource b"]);
    let found = repo.admin().hand_made_limits(&second).await.unwrap();
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["(system defaults)", "u/_default_", "u/by-hand"]);
    let applied = apply(repo, &second).await;
    assert_eq!((applied.deleted, applied.unchanged), (2, 1));
    assert_eq!(repo.admin().resources_with_defaults().await.unwrap(), ["by-hand"]);
    let none = Manifest::empty("default".parse().unwrap());
    assert_eq!(plan(repo, &none).await, ["- resource by-hand"]);
    apply(repo, &none).await;
    assert!(repo.admin().resources_with_defaults().await.unwrap().is_empty());
    assert_eq!(repo.admin().entity_limits("u", "by-hand").await.unwrap().len(), 1);
    assert_eq!(repo.admin().system_defaults().await.unwrap().0.len(), 1);
}

#[tokio::test]
async fn flags_that_are_not_declared_go_and_foreign_limits_are_replaced() {
    let a = Admin::new().await;
    let repo = &a.repo;
    let resource = ResourceName::new("r").unwrap();
    let at = resource_config_key(repo.namespace_id(), &resource);
    let attrs = [
        ("disabled", Value::Bool(true)),
        ("l_rpm_cp", Value::int(5)),
        ("l_rpm_ra", Value::int(0)),
        ("l_rpm_rp", Value::int(60)),
        ("l_rpm_rsched", Value::text("1m0")),
        ("sched_tz", Value::text("UTC")),
    ];
    a.write(&at.pk, &at.sk, attrs).await;
    let declared = manifest(json!({ "resources": { "r": limits(&[("rpm", 5)]) } }));
    let seen = repo
        .admin()
        .plan_limits(&declared, ApplyOptions::default())
        .await
        .unwrap();
    let old = seen.changes[0].old.as_ref().unwrap();
    assert_eq!((&old.note, old.limits[0].is_quota()), (&None, true));
    apply(repo, &declared).await;
    let item = a.item(at.clone()).await.unwrap();
    assert!(!item.contains_key("disabled"));
    assert!(!item.contains_key("l_rpm_rsched") && !item.contains_key("sched_tz"));
    apply(repo, &Manifest::empty("default".parse().unwrap())).await;
    assert_eq!(a.item(at).await, None);
    // The level is gone as far as a manifest goes.
    let none = Manifest::empty("default".parse().unwrap());
    assert_eq!(plan(repo, &none).await, Vec::<String>::new());
    // Also where a flag was set by hand meanwhile, which goes with its level.
    let of_entity = manifest(json!({ "entities": { "u": { "resources": { "r": limits(&[("rpm", 5)]) } } } }));
    apply(repo, &of_entity).await;
    let target = Target::parse("entity", "u/r").unwrap();
    let at = target.key(repo.namespace_id());
    let item = a.item(at.clone()).await.unwrap();
    let kept = |name: &'static str| (name, item[name].clone());
    let attrs = [
        ("disabled", Value::Bool(true)),
        kept("l_rpm_cp"),
        kept("l_rpm_ra"),
        kept("l_rpm_rp"),
        kept("GSI3PK"),
        kept("GSI3SK"),
        kept("entity_id"),
        kept("resource"),
    ];
    a.write(&at.pk, &at.sk, attrs).await;
    apply(repo, &none).await;
    assert_eq!(a.item(at).await, None);
    assert_eq!(
        repo.admin().hand_made_limits(&none).await.unwrap(),
        Vec::<Target>::new()
    );
}

#[tokio::test]
async fn live_buckets_take_over_what_is_declared() {
    let a = Admin::new().await;
    let both = manifest(json!({
        "resources": { "gpt-4": limits(&[("rpm", 50)]) },
        "entities": { "u": { "resources": { "gpt-4": limits(&[("rpm", 5), ("tpm", 100)]) } } },
    }));
    apply(&a.repo, &both).await;
    let lease = a
        .limiter
        .acquire("u", "gpt-4")
        .consume("rpm", 1)
        .consume("tpm", 10);
    lease.await.unwrap().commit().await.unwrap();
    let fewer = manifest(json!({
        "resources": { "gpt-4": limits(&[("rpm", 50)]) },
        "entities": { "u": { "resources": { "gpt-4": limits(&[("rpm", 7)]) } } },
    }));
    let applied = apply(&a.repo, &fewer).await;
    assert_eq!((applied.updated, applied.unchanged, applied.pending), (1, 1, 0));
    let bucket = a.bucket("u", "gpt-4").await.unwrap();
    assert_eq!(bucket.limit("rpm").unwrap().params.capacity, 7000);
    assert!(bucket.limit("tpm").is_none());
    let none = manifest(json!({ "resources": { "gpt-4": limits(&[("rpm", 50)]) } }));
    apply(&a.repo, &none).await;
    let item = a.item(a.id("u", "gpt-4").key(0)).await.unwrap();
    assert_eq!(item["b_rpm_cp"], Value::int(50_000));
    assert!(item.contains_key("ttl"));
}

#[tokio::test]
async fn a_change_costs_what_it_changes() {
    let a = Admin::new().await;
    let entity = |n: usize| format!("user-{n:03}");
    let all = |capacity: i64| {
        let entities = (0..100).map(|n| {
            (
                entity(n),
                json!({ "resources": { "r": limits(&[("rpm", capacity)]) } }),
            )
        });
        json!({ "entities": entities.collect::<serde_json::Map<_, _>>() })
    };
    let writes = Arc::new(AtomicU64::new(0));
    let reads = Arc::new(AtomicU64::new(0));
    let (w, r) = (Arc::clone(&writes), Arc::clone(&reads));
    let repo = a
        .ruled(move |op| {
            let count = if is_write(op) { &w } else { &r };
            count.fetch_add(1, Ordering::Relaxed);
            Fault::None
        })
        .await;
    let counted = async |manifest: &Manifest| {
        writes.store(0, Ordering::Relaxed);
        reads.store(0, Ordering::Relaxed);
        let applied = apply(&repo, manifest).await;
        (
            applied.created + applied.updated,
            writes.load(Ordering::Relaxed),
            reads.load(Ordering::Relaxed),
        )
    };
    // The mark of the turn and the record twice, four transactions, and the record of what is owed for each entity taken
    // back; buckets are looked for twice each, the mark before each transaction, beside eight reads.
    let (changed, writes_made, reads_made) = counted(&manifest(all(5))).await;
    assert_eq!((changed, writes_made), (100, 2 + 2 + 4 + 100));
    assert!(reads_made <= 2 * 100 + 4 + 8, "{reads_made}");
    // Nothing differs: the mark and the record alone, and no read for each level.
    let (changed, writes_made, reads_made) = counted(&manifest(all(5))).await;
    assert_eq!((changed, writes_made), (0, 2 + 1));
    assert!(reads_made <= 6, "{reads_made}");
    let mut one = all(5);
    one["entities"]["user-050"]["resources"]["r"] = limits(&[("rpm", 6)]);
    let (changed, writes_made, _) = counted(&manifest(one)).await;
    assert_eq!((changed, writes_made), (1, 2 + 3));
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_before_anything_is_written() {
    let a = Admin::new().await;
    let before = state(&a).await;
    let other = Manifest::empty("another".parse().unwrap());
    let err = a
        .repo
        .admin()
        .apply_limits(&other, ApplyOptions::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&err, Error::InvalidInput(err) if err.field() == "namespace"),
        "{err}"
    );
    let long = "x".repeat(240);
    let entities = (0..1800).map(|n| (format!("{long}{n}"), json!({ "resources": { "r": {} } })));
    let many = manifest(json!({ "entities": entities.collect::<serde_json::Map<_, _>>() }));
    for full in [false, true] {
        let options = ApplyOptions {
            full,
            ..ApplyOptions::default()
        };
        for err in [
            a.repo.admin().apply_limits(&many, options).await.unwrap_err(),
            a.repo.admin().plan_limits(&many, options).await.unwrap_err(),
        ] {
            let text = err.to_string();
            assert!(
                text.contains("more than the 409600 that fit one item; declare fewer entities"),
                "{text}"
            );
        }
    }
    assert_same(&state(&a).await, &before, "refused");
    // Two that fit, each by itself: the second one must delete first.
    let entities = |range: std::ops::Range<i32>| {
        let levels = range.map(|n| (format!("{long}{n}"), json!({ "resources": { "r": {} } })));
        manifest(json!({ "entities": levels.collect::<serde_json::Map<_, _>>() }))
    };
    apply(&a.repo, &entities(0..900)).await;
    let err = a
        .repo
        .admin()
        .plan_limits(&entities(900..1800), ApplyOptions::default())
        .await
        .unwrap_err();
    assert!(
        err.to_string()
            .contains("apply it without the new entities first"),
        "{err}"
    );
}

fn is_write(op: &Op) -> bool {
    matches!(
        op,
        Op::Put(_) | Op::Update(_) | Op::Delete(_) | Op::Transact(_) | Op::BatchDelete(_)
    )
}

/// A table whose client dies with its k-th write: before the write, or after it and before its answer.
pub(crate) struct Dying {
    inner: Arc<dyn Table>,
    left: AtomicI64,
    after: bool,
}

impl Dying {
    pub(crate) fn new(inner: Arc<dyn Table>, after: bool) -> Self {
        let left = AtomicI64::new(i64::MAX);
        Self { inner, left, after }
    }

    /// Lets so many more writes through.
    pub(crate) fn dies_after(&self, writes: i64) {
        self.left.store(writes, Ordering::SeqCst);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    /// How many writes there were since this was created.
    pub(crate) fn writes(&self) -> i64 {
        i64::MAX - self.left.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Dying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dying")
    }
}

impl Table for Dying {
    fn call(&self, op: Op) -> TableFuture {
        let left = if is_write(&op) {
            self.left.fetch_sub(1, Ordering::SeqCst)
        } else {
            self.left.load(Ordering::SeqCst)
        };
        if left > 0 || (left == 0 && !is_write(&op) && self.left.load(Ordering::SeqCst) >= 0) {
            return suffer(&self.inner, Fault::None, op);
        }
        if left == 0 && self.after {
            let (inner, op) = (Arc::clone(&self.inner), op);
            return Box::pin(async move {
                let _ = inner.call(op.clone()).await;
                suffer(&inner, Fault::Denied, op).await
            });
        }
        suffer(&self.inner, Fault::Denied, op)
    }
}

fn first() -> Manifest {
    manifest(json!({
        "system": limits(&[("rpm", 100)]),
        "resources": { "gpt-4": limits(&[("rpm", 50)]), "old": limits(&[("rpm", 1)]) },
        "entities": {
            "gone": { "resources": { "gpt-4": limits(&[("rpm", 5), ("tpm", 9)]) } },
            "kept": { "resources": { "gpt-4": limits(&[("rpm", 5), ("tpm", 9)]), "_default_": limits(&[("rpm", 2)]) } },
        },
    }))
}

fn second() -> Manifest {
    manifest(json!({
        "system": { "on_unavailable": "allow", "limits": {} },
        "resources": { "gpt-4": limits(&[("rpm", 60)]), "new": limits(&[("rpm", 1)]) },
        "entities": {
            "kept": { "resources": { "gpt-4": limits(&[("rpm", 7)]) } },
            "new": { "resources": { "gpt-4": limits(&[("rpm", 8)]) } },
        },
    }))
}

/// A table with the first manifest applied, and buckets of all that have limits.
async fn prepared() -> Admin {
    let a = Admin::new().await;
    apply(&a.repo, &first()).await;
    for entity in ["gone", "kept", "new"] {
        let acquire = a.limiter.acquire(entity, "gpt-4").consume("rpm", 1);
        acquire.await.unwrap().commit().await.unwrap();
    }
    a.repo.drain().await;
    a
}

/// Kills an apply before and after each of its writes, each time on a new table, and hands the table over. Returns how many points
/// there were.
async fn killed_anywhere(
    prepared: impl AsyncFn() -> Admin,
    manifest: &Manifest,
    survives: impl AsyncFn(Admin, &str),
) -> usize {
    let mut points = 0;
    for after in [false, true] {
        for k in 0.. {
            let a = prepared().await;
            let table = Arc::new(Dying::new(a.repo.table(), after));
            let dying = a.over(Arc::clone(&table), |builder| builder).await;
            table.dies_after(k);
            let died = dying
                .admin()
                .apply_limits(manifest, ApplyOptions::default())
                .await;
            if !table.is_dead() {
                assert_eq!(died.unwrap().errors, Vec::<String>::new());
                break;
            }
            points += 1;
            let what = format!("{} write {k}", if after { "after" } else { "before" });
            survives(a, &what).await;
        }
    }
    points
}

/// A repository over this table that does not hear of one of its writes.
async fn losing_answer(a: &Admin, k: i64) -> Repository {
    let count = AtomicI64::new(0);
    let rule = move |op: &Op| {
        let lost = is_write(op) && count.fetch_add(1, Ordering::SeqCst) == k;
        if lost { Fault::LostAfter } else { Fault::None }
    };
    a.ruled(rule).await
}

#[tokio::test]
async fn an_apply_that_was_killed_anywhere_is_finished_by_the_next() {
    let undisturbed = prepared().await;
    apply(&undisturbed.repo, &second()).await;
    let wanted = state(&undisturbed).await;
    let survives = async |a: Admin, what: &str| {
        // Each level that was written is managed.
        let record = a.item(provisioner_key(a.repo.namespace_id())).await.unwrap();
        let managed = Managed::decode(&record).unwrap();
        for resource in a.repo.admin().resources_with_defaults().await.unwrap() {
            assert!(managed.resources.contains(&resource), "{what}: {resource}");
        }
        // The next apply finishes it at once, though the lease of the dead one has not run out.
        let again = a
            .repo
            .admin()
            .apply_limits(&second(), ApplyOptions::default())
            .await
            .unwrap();
        assert_eq!(again.errors, Vec::<String>::new(), "{what}");
        assert_same(&without(state(&a).await, "#PENDING#"), &wanted, what);
        assert!(plan(&a.repo, &second()).await.is_empty(), "{what}");
        // Then the dead one's records go, too.
        a.clock.advance(Duration::from_mins(20));
        assert_eq!(apply(&a.repo, &second()).await.pending, 0, "{what}");
        assert_same(&state(&a).await, &wanted, what);
    };
    let points = killed_anywhere(prepared, &second(), survives).await;
    assert!(points >= 16, "only {points} points were tried");
}

#[tokio::test]
async fn a_table_that_fails_for_a_while_loses_nothing() {
    let undisturbed = prepared().await;
    apply(&undisturbed.repo, &second()).await;
    let wanted = state(&undisturbed).await;
    for k in 0..12 {
        let a = prepared().await;
        // It may fail as a whole, tell of single failures, or get over it.
        let _ = losing_answer(&a, k)
            .await
            .admin()
            .apply_limits(&second(), ApplyOptions::default())
            .await;
        a.clock.advance(Duration::from_mins(20));
        apply(&a.repo, &second()).await;
        let what = format!("write {k} lost");
        let found = state(&a).await;
        assert_same(
            &without(found, "/AUDIT#"),
            &without(wanted.clone(), "/AUDIT#"),
            &what,
        );
    }
}

#[tokio::test]
async fn buckets_that_could_not_be_told_are_told_by_the_next_apply() {
    let a = prepared().await;
    let repo = a
        .ruled(|op| match op {
            Op::Update(update) if update.key.pk.contains("/BUCKET#kept") => Fault::Denied,
            _ => Fault::None,
        })
        .await;
    let applied = repo
        .admin()
        .apply_limits(&second(), ApplyOptions::default())
        .await
        .unwrap();
    // The level that is gone and the one that is left.
    assert_eq!((applied.errors.len(), applied.pending), (2, 2));
    assert!(
        applied.errors[0].starts_with("live buckets of entity kept/"),
        "{:?}",
        applied.errors
    );
    let seen = a
        .repo
        .admin()
        .plan_limits(&second(), ApplyOptions::default())
        .await
        .unwrap();
    assert_eq!((seen.changes.len(), seen.pending), (0, 2));
    // The lease was ended, so no apply waits.
    let again = apply(&a.repo, &second()).await;
    assert_eq!((again.updated, again.pending), (0, 0));
    let undisturbed = prepared().await;
    apply(&undisturbed.repo, &second()).await;
    assert_same(&state(&a).await, &state(&undisturbed).await, "told later");
}

#[tokio::test]
async fn a_level_that_fails_does_not_keep_the_others_from_it() {
    let a = prepared().await;
    let repo = a
        .ruled(|op| match op {
            Op::Transact(parts) if format!("{parts:?}").contains("RESOURCE#old") => Fault::LostBefore,
            _ => Fault::None,
        })
        .await;
    let applied = repo
        .admin()
        .apply_limits(&second(), ApplyOptions::default())
        .await
        .unwrap();
    assert!(
        applied.errors[0].starts_with("delete resource old: "),
        "{:?}",
        applied.errors
    );
    // Not deleted, so still managed, and deleted by the next.
    assert!(
        plan(&a.repo, &second())
            .await
            .contains(&"- resource old".to_owned())
    );
    apply(&a.repo, &second()).await;
    assert!(plan(&a.repo, &second()).await.is_empty());
}

#[tokio::test]
async fn work_that_the_original_left_behind_is_done_and_released() {
    let a = prepared().await;
    let ns = a.repo.namespace_id().to_string();
    // A bucket that is behind its level, and records of an apply that died.
    a.poke("kept", "gpt-4", &[("b_rpm_cp", Some(Value::int(1)))])
        .await;
    let pending = async |kind: &str, level: &str, target: &str, lease: i64| {
        let owner = Value::M(Item::from([
            ("lease".into(), Value::int(lease)),
            ("full".into(), Value::Bool(false)),
        ]));
        let attrs = [
            ("kind", Value::text(kind)),
            ("level", Value::text(level)),
            ("target", Value::text(target)),
            ("written_ms", Value::int(1)),
            ("GSI4PK", Value::text(&ns)),
            ("GSI4SK", Value::S(format!("{ns}/SYSTEM#"))),
            ("owners", Value::M(Item::from([("0".repeat(32), owner)]))),
        ];
        let sk = format!("#PROVISIONER#PENDING#{kind}#{level}#{target}");
        a.write(&format!("{ns}/SYSTEM#"), &sk, attrs).await;
    };
    pending("sync", "entity", "kept/gpt-4", 5).await;
    pending("sync", "entity", "gone/gpt-4", i64::MAX).await;
    pending("soft", "resource", "gpt-4", 5).await;
    pending("newer", "resource", "gpt-4", 5).await;
    let applied = apply(&a.repo, &first()).await;
    // What another apply still holds stays with it, and kinds that are not known stay, too.
    assert_eq!(applied.pending, 2);
    assert_eq!(
        a.bucket("kept", "gpt-4")
            .await
            .unwrap()
            .limit("rpm")
            .unwrap()
            .params
            .capacity,
        5000
    );
    let left = a.traces(|_, sk| sk.contains("#PENDING#")).await;
    assert_eq!(
        left.iter().filter(|one| one.starts_with("table ")).count(),
        2,
        "{left:?}"
    );
}

#[tokio::test]
async fn a_full_apply_repairs_what_a_plan_does_not_compare() {
    let a = prepared().await;
    a.poke("kept", "gpt-4", &[("b_rpm_cp", Some(Value::int(1)))])
        .await;
    let full = ApplyOptions {
        full: true,
        ..ApplyOptions::default()
    };
    let plain = apply(&a.repo, &first()).await;
    assert_eq!(plain.unchanged, 6);
    assert_eq!(
        a.bucket("kept", "gpt-4")
            .await
            .unwrap()
            .limit("rpm")
            .unwrap()
            .params
            .capacity,
        1
    );
    let applied = a.repo.admin().apply_limits(&first(), full).await.unwrap();
    assert_eq!((applied.updated, applied.unchanged, applied.pending), (6, 0, 0));
    assert_eq!(
        a.bucket("kept", "gpt-4")
            .await
            .unwrap()
            .limit("rpm")
            .unwrap()
            .params
            .capacity,
        5000
    );
    // After one that was killed while it told the buckets, the next one rewrites all again: of what the dead one had
    // not come to, there is no word anywhere.
    let repo = a
        .ruled(|op| match op {
            Op::Query(query) if query.hash.contains("/ENTITY#") => Fault::Hangs,
            _ => Fault::None,
        })
        .await;
    let manifest = first();
    let killed = repo.admin().apply_limits(&manifest, full);
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(300), killed)
            .await
            .is_err()
    );
    let seen = a.repo.admin().plan_limits(&first(), full).await.unwrap();
    assert_eq!((seen.changes.len(), seen.pending, seen.of_others), (6, 3, 3));
    // As long as the dead one may be alive, its records stay, and none of them is anything to do.
    let told = a
        .repo
        .admin()
        .apply_limits(&first(), ApplyOptions::default())
        .await
        .unwrap();
    assert_eq!((told.pending, told.of_others), (3, 3));
    a.clock.advance(Duration::from_mins(20));
    let seen = a.repo.admin().plan_limits(&first(), full).await.unwrap();
    assert_eq!((seen.pending, seen.of_others), (3, 0));
    let again = a.repo.admin().apply_limits(&first(), full).await.unwrap();
    assert_eq!((again.updated, again.pending), (6, 0));
}

#[tokio::test]
async fn what_was_set_by_hand_is_managed_only_once_it_is_as_declared() {
    let declared =
        manifest(json!({ "entities": { "u": { "resources": { "gpt-4": limits(&[("rpm", 9)]) } } } }));
    let none = Manifest::empty("default".parse().unwrap());
    for after in [false, true] {
        let a = Admin::new().await;
        a.repo
            .admin()
            .set_entity_limits("u", "gpt-4", rpm(7))
            .await
            .unwrap();
        // An apply that is stopped before its first write of a level, or that fails at it.
        let fault = if after { Fault::Denied } else { Fault::Hangs };
        let repo = a
            .ruled(move |op| match op {
                Op::Transact(_) => fault,
                _ => Fault::None,
            })
            .await;
        let stopped = repo.admin().apply_limits(&declared, ApplyOptions::default());
        let stopped = tokio::time::timeout(std::time::Duration::from_millis(300), stopped).await;
        assert_eq!(stopped.is_ok(), after);
        // The manifest is given up, and what was set by hand is what it was.
        let applied = apply(&a.repo, &none).await;
        assert_eq!(applied.deleted, 0);
        assert_eq!(
            a.repo.admin().entity_limits("u", "gpt-4").await.unwrap()[0].capacity(),
            7
        );
        // Replaced, it is managed.
        apply(&a.repo, &declared).await;
        assert_eq!(apply(&a.repo, &none).await.deleted, 1);
    }
}

#[tokio::test]
async fn taking_over_is_something_to_do() {
    let a = Admin::new().await;
    a.repo.admin().set_resource_defaults("r", rpm(7)).await.unwrap();
    let declared = manifest(json!({ "resources": { "r": limits(&[("rpm", 7)]) } }));
    let seen = a
        .repo
        .admin()
        .plan_limits(&declared, ApplyOptions::default())
        .await
        .unwrap();
    assert_eq!((seen.changes.len(), seen.unchanged, seen.adopted), (0, 1, 1));
    assert_eq!(apply(&a.repo, &declared).await.adopted, 1);
    assert_eq!(apply(&a.repo, &declared).await.adopted, 0);
}

#[tokio::test]
async fn withdrawing_deletes_what_is_declared_and_managed() {
    let a = prepared().await;
    a.repo
        .admin()
        .set_resource_defaults("by-hand", rpm(1))
        .await
        .unwrap();
    let part = manifest(json!({
        "resources": { "gpt-4": limits(&[("rpm", 1)]), "by-hand": limits(&[("rpm", 1)]) },
        "entities": { "kept": { "resources": { "gpt-4": {} } }, "never": { "resources": { "gpt-4": {} } } },
    }));
    let withdrawn = a
        .repo
        .admin()
        .withdraw_limits(&part, ApplyOptions::default())
        .await
        .unwrap();
    let gone: Vec<_> = withdrawn
        .changes
        .iter()
        .map(|change| change.target.to_string())
        .collect();
    assert_eq!(gone, ["gpt-4", "kept/gpt-4"]);
    assert_eq!((withdrawn.deleted, withdrawn.errors.len()), (2, 0));
    assert_eq!(
        a.repo.admin().resources_with_defaults().await.unwrap(),
        ["by-hand", "old"]
    );
    // The others are managed as before.
    let none = Manifest::empty("default".parse().unwrap());
    assert_eq!(
        plan(&a.repo, &none).await,
        [
            "- system (system defaults)",
            "- resource old",
            "- entity gone/gpt-4",
            "- entity kept/_default_"
        ]
    );
}

#[tokio::test]
async fn of_two_applies_the_one_that_began_last_holds() {
    let a = prepared().await;
    let (mine, theirs) = (
        manifest(json!({ "resources": { "gpt-4": limits(&[("rpm", 5)]), "mine": limits(&[("rpm", 5)]) } })),
        manifest(json!({ "resources": { "gpt-4": limits(&[("rpm", 7)]), "theirs": limits(&[("rpm", 7)]) } })),
    );
    let admin = a.repo.admin();
    // One that was interrupted goes on in its function, and comes to its first write when the other has ended.
    let first = admin.begin_limits(&mine, ApplyOptions::default()).await.unwrap();
    apply(&a.repo, &theirs).await;
    let told = first.finish().await.unwrap();
    assert_eq!((told.created, told.updated, told.deleted), (0, 0, 0));
    assert_eq!(told.errors.len(), 1, "{:?}", told.errors);
    assert!(
        told.errors[0].contains("another apply of this namespace has begun"),
        "{:?}",
        told.errors
    );
    assert!(plan(&a.repo, &theirs).await.is_empty());
    // Both are at work, and the first is in the middle of a write when the second looks.
    let first = admin.begin_limits(&mine, ApplyOptions::default()).await.unwrap();
    let second = admin
        .begin_limits(&theirs, ApplyOptions::default())
        .await
        .unwrap();
    admin.set_resource_defaults("gpt-4", rpm(5)).await.unwrap();
    assert_eq!(second.finish().await.unwrap().errors, Vec::<String>::new());
    assert_eq!(first.finish().await.unwrap().errors.len(), 1);
    assert!(plan(&a.repo, &theirs).await.is_empty());
    // Nothing is left of their turns.
    apply(&a.repo, &theirs).await;
    let mark = turn_key(a.repo.namespace_id());
    assert_eq!(a.repo.table().get(mark, true).await.unwrap(), None);
}

#[tokio::test]
async fn an_apply_whose_record_cannot_be_written_says_what_is_changed() {
    let a = prepared().await;
    let record = provisioner_key(a.repo.namespace_id());
    let denied = a.ruled(move |op| match op {
        Op::Put(put) if key_of(&put.item).as_ref() == Some(&record) => Fault::Denied,
        _ => Fault::None,
    });
    // Nothing is created, so the record is written only at the end.
    let wanted = manifest(json!({ "resources": { "gpt-4": limits(&[("rpm", 60)]) } }));
    let denied = denied.await;
    let told = denied
        .admin()
        .apply_limits(&wanted, ApplyOptions::default())
        .await
        .unwrap();
    assert_eq!((told.created, told.updated), (0, 1));
    assert_eq!(told.changes.len(), told.updated + told.deleted);
    assert!(
        told.errors[0].starts_with("the record of managed levels could not be written, so apply again: "),
        "{:?}",
        told.errors
    );
    apply(&a.repo, &wanted).await;
    assert!(plan(&a.repo, &wanted).await.is_empty());
}

#[tokio::test]
async fn an_apply_writes_nothing_into_a_namespace_that_was_deleted_meanwhile() {
    for is_purged in [false, true] {
        let a = prepared().await;
        let stack = a.repo.stack_handle();
        let id = a.repo.namespace_id();
        let admin = a.repo.admin();
        let wanted = second();
        let begun = admin
            .begin_limits(&wanted, ApplyOptions::default())
            .await
            .unwrap();
        assert!(stack.delete_namespace("default").await.unwrap());
        if is_purged {
            stack.purge_namespace(id.as_str(), &|_| ()).await.unwrap();
        }
        let mark = turn_key(id);
        let mark = (mark.pk.clone(), mark.sk.to_string());
        let mut before = a.dump(None).await;
        let told = begun.finish().await.unwrap();
        assert_eq!((told.created, told.updated, told.deleted), (0, 0, 0));
        assert_eq!(told.errors.len(), 1, "{:?}", told.errors);
        assert!(
            told.errors[0].starts_with(&told.changes.len().to_string()),
            "{:?}",
            told.errors
        );
        assert!(told.errors[0].ends_with("change(s) were not made: the namespace was deleted meanwhile."));
        before.remove(&mark);
        assert_eq!(a.dump(None).await, before);
    }
}

#[tokio::test]
async fn two_applies_at_once_lose_no_managed_level() {
    for round in 0..20_i64 {
        let a = prepared().await;
        let other = a.another().await;
        let theirs = manifest(json!({
            "resources": { "gpt-4": limits(&[("rpm", 70)]), "theirs": limits(&[("rpm", 1)]) },
            "entities": { "theirs": { "resources": { "gpt-4": limits(&[("rpm", round + 1)]) } } },
        }));
        let ours = second();
        let (x, y) = tokio::join!(
            a.repo.admin().apply_limits(&ours, ApplyOptions::default()),
            other.repo.admin().apply_limits(&theirs, ApplyOptions::default()),
        );
        // The one that began first may find that the other has begun.
        let errors: Vec<_> = [x, y]
            .into_iter()
            .flat_map(|applied| applied.unwrap().errors)
            .collect();
        assert!(errors.len() <= 1, "{errors:?}");
        assert!(
            errors.iter().all(|error| error.contains("another apply")),
            "{errors:?}"
        );
        // All stored levels are managed: none was set by hand.
        let none = Manifest::empty("default".parse().unwrap());
        assert_eq!(
            a.repo.admin().hand_made_limits(&none).await.unwrap(),
            Vec::<Target>::new()
        );
        // And the same applies, one after the other, end where they should.
        apply(&a.repo, &ours).await;
        assert!(plan(&a.repo, &ours).await.is_empty());
        apply(&a.repo, &none).await;
        assert!(a.repo.admin().resources_with_defaults().await.unwrap().is_empty());
        assert!(
            a.repo
                .admin()
                .resources_with_entity_limits()
                .await
                .unwrap()
                .is_empty()
        );
    }
}

#[tokio::test]
async fn a_level_that_changes_between_look_and_write_is_written_as_it_is_then() {
    let a = prepared().await;
    let hand = a.another().await;
    let deed = async move {
        hand.repo
            .admin()
            .set_resource_defaults("gpt-4", rpm(99))
            .await
            .unwrap();
        hand.repo
            .admin()
            .set_entity_limits("kept", "gpt-4", rpm(98))
            .await
            .unwrap();
    };
    let table = crate::admin::Meanwhile::new(&a, |op| matches!(op, Op::Transact(_)), deed);
    let repo = a.over(table, |builder| builder).await;
    apply(&repo, &second()).await;
    assert!(plan(&a.repo, &second()).await.is_empty());
    assert_eq!(
        a.bucket("kept", "gpt-4")
            .await
            .unwrap()
            .limit("rpm")
            .unwrap()
            .params
            .capacity,
        7000
    );
}

#[tokio::test]
async fn levels_that_only_a_careless_client_writes_are_deleted_with_the_rest() {
    let a = prepared().await;
    let ns = a.repo.namespace_id().to_string();
    let odd = key(&format!("{ns}/RESOURCE#no name"), "#CONFIG");
    a.write(&odd.pk, &odd.sk, [("l_rpm_cp", Value::int(1))]).await;
    let mut update = Update::new(provisioner_key(a.repo.namespace_id()));
    update
        .set
        .push(("managed_resources".into(), Value::L(vec![Value::text("no name")])));
    assert!(a.repo.table().update(update).await.unwrap().is_applied());
    apply(&a.repo, &first()).await;
    assert_eq!(a.item(odd).await, None);
    let record: Key = provisioner_key(a.repo.namespace_id());
    let managed = Managed::decode(&a.item(record).await.unwrap()).unwrap();
    assert!(!managed.resources.contains("no name"));
}

#[tokio::test]
async fn namespaces_are_opened_by_id() {
    let a = Admin::new().await;
    let stack = a.repo.stack_handle();
    let id = stack.register_namespace("tenant").await.unwrap();
    let repo = stack.connect_id(id.as_str()).await.unwrap();
    assert_eq!((repo.namespace_name(), repo.namespace_id()), ("tenant", &id));
    for unknown in ["", "dSkXlbmmfyU"] {
        let err = stack.connect_id(unknown).await.unwrap_err();
        assert!(matches!(err, Error::NamespaceIdNotFound(_)), "{err}");
    }
    stack.delete_namespace("tenant").await.unwrap();
    let err = stack.connect_id(id.as_str()).await.unwrap_err();
    assert!(
        matches!(err, Error::NamespaceState { state: "deleted", .. }),
        "{err}"
    );
}
