//! Manifests as JSON: what is read, what is refused, and that reading what was written changes nothing.

mod settings;
mod shapes;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::managed::{Applied, MOST_BYTES, size_of};
use super::pending::{Kind, Pending, Share, key as pending_key, owe};
use super::*;
use crate::config::Access;
use crate::limit::MAX_LIMITS;
use crate::name::NamespaceId;
use crate::schedule::ScheduleEntry;
use crate::table::{Item, Part, Value};
use crate::units::{EpochMillis, MAX_PERIOD_SECS, MAX_TOKENS};

fn namespace() -> NamespaceId {
    NamespaceId::new("dSkXlbmmfyU").unwrap()
}

fn read(value: &Json) -> Manifest {
    Manifest::from_json(value).unwrap_or_else(|err| panic!("{value}: {err}"))
}

/// Checks that a manifest is refused with exactly these lines.
#[track_caller]
fn check_refused(value: &Json, lines: &[&str]) {
    let err = Manifest::from_json(value).unwrap_err();
    assert_eq!(err.to_string(), lines.join("\n"));
}

#[test]
fn only_the_capacity_is_required_and_an_old_burst_replaces_it() {
    let manifest = read(&json!({
        "namespace": "default",
        "system": { "limits": {
            "plain": { "capacity": 10 },
            "burst": { "capacity": 10, "burst": 30, "refill_period": 1 },
            "slow": { "capacity": 10, "refill_amount": 3, "refill_period": 3600 },
        } },
    }));
    let system = manifest.system.unwrap();
    let numbers = |limit: &Limit| {
        let name = limit.name().to_string();
        (
            name,
            limit.capacity(),
            limit.refill_amount(),
            limit.refill_period().as_secs(),
        )
    };
    let found: Vec<_> = system.limits.iter().map(numbers).collect();
    assert_eq!(
        found,
        [
            ("burst".into(), 30, 30, 1),
            ("plain".into(), 10, 10, 60),
            ("slow".into(), 10, 3, 3600)
        ]
    );
}

#[test]
fn empty_sections_are_sections() {
    let manifest = read(&json!({
        "namespace": "default", "system": null, "resources": null,
        "entities": { "user-1": null, "user-2": { "resources": { "gpt-4": null } } },
    }));
    assert_eq!(manifest.system, Some(SystemLevel::default()));
    let managed = Managed::of(&manifest);
    assert!(managed.system && managed.entities["user-1"].is_empty());
    assert_eq!(managed.entities["user-2"].len(), 1);
    assert_eq!(manifest.levels(), 2);
}

#[test]
fn every_problem_is_told_with_its_path_and_value() {
    check_refused(
        &json!({
            "namespace": "",
            "sytem": {},
            "resources": { "gpt 4": { "limits": { "tpm": { "capacity": -5, "refill_period": 0.5 } } } },
            "entities": { "user-1": { "resources": { "gpt-4": { "limits": { "wcu": { "capacity": true } } } } } },
        }),
        &[
            "sytem is unknown; did you mean 'system'?",
            "namespace is '': it must not be empty",
            "resources.gpt 4 is 'gpt 4': it must not contain ' '; letters, digits and _.-/: are allowed",
            "resources.gpt 4.limits.tpm.capacity is -5: it must be a whole number from 1 to 1000000000000000",
            "resources.gpt 4.limits.tpm.refill_period is 0.5: it must be a whole number from 1 to 1000000000",
            "entities.user-1.resources.gpt-4.limits.wcu is 'wcu': it is reserved for the table's write ceiling",
            "entities.user-1.resources.gpt-4.limits.wcu.capacity is true: it must be a whole number from 1 to \
             1000000000000000",
        ],
    );
}

#[test]
fn flags_of_resources_and_entities() {
    let level = |level: Json| json!({ "namespace": "d", "resources": { "r": level } });
    let manifest = read(&json!({
        "namespace": "d",
        "resources": { "a": { "disabled": true }, "b": { "disabled": false, "cascade": true }, "c": { "disabled": "bypass" } },
        "entities": { "u": { "resources": { "_default_": { "cascade": false, "limits": {} }, "a": {} } } },
    }));
    let flags: Vec<_> = plan::declared(&manifest)
        .into_iter()
        .map(|(target, state)| (target.to_string(), state.access, state.cascade))
        .collect();
    assert_eq!(
        flags,
        [
            ("a".into(), Some(Access::Disabled), None),
            ("b".into(), Some(Access::Enabled), Some(true)),
            ("c".into(), Some(Access::Bypass), None),
            ("u/_default_".into(), None, Some(false)),
            ("u/a".into(), None, None),
        ]
    );
    let text = json!({ "Namespace": "d", "Resources": { "r": { "Disabled": "TRUE", "Cascade": "false" }, "s": { "Disabled": "" } } });
    let read = Manifest::from_properties(&text).unwrap();
    let levels: Vec<_> = read
        .resources
        .values()
        .map(|level| (level.access, level.cascade))
        .collect();
    assert_eq!(levels, [(Some(Access::Disabled), Some(false)), (None, None)]);
    check_refused(
        &level(json!({ "cascade": "on", "disabled": "Bypass" })),
        &[
            "resources.r.disabled is 'Bypass': it must be true, false or 'bypass'",
            "resources.r.cascade is 'on': it must be true or false",
        ],
    );
    check_refused(
        &level(json!({ "cascade": 1, "disabled": "true" })),
        &[
            "resources.r.disabled is 'true': it must be true, false or 'bypass'",
            "resources.r.cascade is 1: it must be true or false",
        ],
    );
    check_refused(
        &json!({ "namespace": "d", "system": { "disabled": true } }),
        &[
            "system.disabled has no effect at the system level; it belongs to a resource, or to a resource of an entity",
        ],
    );
    assert!(Manifest::from_json(&level(json!({ "disabled": null, "cascade": null }))).is_ok());
}

#[test]
fn what_is_no_manifest_is_refused() {
    check_refused(
        &Json::Null,
        &["the manifest is empty; it must at least name its namespace"],
    );
    check_refused(
        &json!([]),
        &["the manifest is a list of 0: it must be a mapping of names to values"],
    );
    check_refused(&json!({}), &["namespace is missing"]);
    check_refused(
        &json!({ "namespace": 12 }),
        &["namespace is 12: it must be a text; put it in quotes if it looks like something else"],
    );
    check_refused(
        &json!({ "namespace": "d", "system": { "on_unavailable": "degrade" } }),
        &["system.on_unavailable is 'degrade': it must be 'allow' or 'block'"],
    );
    let many: Map<_, _> = (0..=MAX_LIMITS)
        .map(|n| (format!("l{n}"), json!({ "capacity": 1 })))
        .collect();
    check_refused(
        &json!({ "namespace": "d", "resources": { "r": { "limits": many } } }),
        &[
            "resources.r.limits is a mapping of 25: it must hold at most 24 limits, so that one write can change them all",
        ],
    );
    check_refused(
        &json!({ "namespace": "d", "resources": { "r": { "limits": { "x": {} } } } }),
        &["resources.r.limits.x.capacity must be given: a whole number from 1 to 1000000000000000"],
    );
}

#[test]
fn the_fingerprint_is_that_of_other_clients() {
    let manifest = read(&json!({
        "namespace": "täglich", "resources": { "gpt-4": { "limits": { "tpm": { "capacity": 5 } } } },
    }));
    // sha256 of {"namespace": "t\u00e4glich", "resources": {"gpt-4": {"limits": {"tpm": {"capacity": 5, ...}}}}}
    assert_eq!(
        manifest.hash(),
        "sha256:a064e8887523324a0c170658af621f96ab70f1749bf68090a08ae16b3b7d4ba2"
    );
}

#[test]
fn properties_come_as_texts() {
    let manifest = Manifest::from_properties(&json!({
        "ServiceToken": "arn", "TableName": "t", "Namespace": "default", "FullApply": "true",
        "System": { "OnUnavailable": "allow", "Limits": { "rpm": { "Capacity": "1000", "RefillPeriod": "" } } },
        "Entities": { "u": { "Resources": { "_default_": { "Limits": {
            "rpm": { "Capacity": 5, "RefillAmount": " 7 ", "Soft": "False", "Schedule": [] },
        } } } } },
    }));
    let manifest = manifest.unwrap_or_else(|err| panic!("{err}"));
    assert_eq!(
        manifest,
        read(&json!({
            "namespace": "default",
            "system": { "on_unavailable": "allow", "limits": { "rpm": { "capacity": 1000 } } },
            "entities": { "u": { "resources": { "_default_": { "limits": {
                "rpm": { "capacity": 5, "refill_amount": 7 },
            } } } } },
        }))
    );
    let err = Manifest::from_properties(&json!({
        "Resources": { "r": { "Limits": { "x": { "Capacity": "" }, "y": { "Capacity": "1.5", "Burst": 1 } } } },
    }));
    assert_eq!(
        err.unwrap_err().to_string(),
        "Resources.r.Limits.x.Capacity is '': it must be a whole number from 1 to 1000000000000000\n\
         Resources.r.Limits.y.Burst is unknown; known here: Capacity, RefillAmount, RefillPeriod, Schedule, ResetSchedule, \
         ResetAfterSeconds, Soft\n\
         Resources.r.Limits.y.Capacity is '1.5': it must be a whole number from 1 to 1000000000000000"
    );
    // What is misspelt would otherwise count as not declared, and be deleted.
    let err = Manifest::from_properties(&json!({ "ServiceToken": "arn", "Entites": {}, "Namspace": "n" }));
    assert_eq!(
        err.unwrap_err().to_string(),
        "Entites is unknown; did you mean 'Entities'?\nNamspace is unknown; did you mean 'Namespace'?"
    );
    assert_eq!(flag(&json!({ "FullApply": "TRUE" }), "FullApply"), Ok(Some(true)));
    assert_eq!(flag(&json!({}), "FullApply"), Ok(None));
    let err = flag(&json!({ "FullApply": "1" }), "FullApply").unwrap_err();
    assert_eq!(err.to_string(), "FullApply is '1': it must be true or false");
}

#[test]
fn a_plan_lists_only_what_differs_in_order() {
    let manifest = read(&json!({
        "namespace": "d",
        "system": { "limits": { "rpm": { "capacity": 1 } } },
        "resources": { "b": { "limits": { "rpm": { "capacity": 2 } } }, "a": {} },
        "entities": { "u": { "resources": {
            "_default_": { "limits": { "rpm": { "capacity": 3 } } }, "Z": {}, "b": {},
        } } },
    }));
    let mut managed = Managed::of(&manifest);
    managed.resources.extend(["c".to_owned(), "bad name".to_owned()]);
    managed.resources.remove("a");
    managed.entities.insert("gone".into(), ["b".to_owned()].into());
    let (ns, target) = (namespace(), Target::System);
    let level = LevelState {
        limits: manifest.system.clone().unwrap().limits,
        ..LevelState::default()
    };
    let mut item: Item = crate::config::limit_attributes(&level.limits)
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect();
    item.insert("audit_retention_days".into(), Value::int(7));
    let mut stored = BTreeMap::from([(target.key(&ns), item.clone())]);
    let lines = |plan: &Plan| {
        let line = |change: &Change| format!("{} {}", change.action.symbol(), change.target);
        plan.changes.iter().map(line).collect::<Vec<_>>()
    };
    let of_resource = |name: &str| Target::Resource(crate::name::ResourceName::new(name).unwrap());
    stored.insert(of_resource("b").key(&ns), item.clone());
    let found = plan::plan(&ns, &manifest, &managed, &stored, false);
    assert_eq!(found.unchanged, 1);
    // What is listed as managed and not stored is what an interrupted apply did not come to.
    assert_eq!(
        lines(&found),
        ["+ a", "~ b", "- c", "+ u/Z", "+ u/_default_", "+ u/b", "- gone/b"]
    );
    assert_eq!(
        found.changes[1].to_json(),
        json!({ "action": "update", "level": "resource", "target": "b" })
    );
    // Anything more or other on the limits is a difference.
    for (name, value) in [
        ("l_rpm_cp", Value::int(2)),
        ("l_rpm_soft", Value::Bool(true)),
        ("l_tpm_cp", Value::int(2)),
        ("w_rpm_cp", Value::int(2)),
        ("on_unavailable", Value::text("allow")),
    ] {
        let mut other = item.clone();
        other.insert(name.into(), value);
        stored.insert(target.key(&ns), other);
        let found = plan::plan(&ns, &manifest, &managed, &stored, false);
        assert_eq!(lines(&found)[0], "~ (system defaults)", "{name}");
    }
    stored.insert(target.key(&ns), item);
    let all = plan::plan(&ns, &manifest, &managed, &stored, true);
    assert_eq!((all.changes.len(), all.unchanged), (8, 0));
}

#[test]
fn the_record_of_managed_levels_round_trips_and_keeps_what_it_does_not_know() {
    let manifest = read(&json!({
        "namespace": "d", "resources": { "a/b": {} }, "entities": { "u": { "resources": { "_default_": {} } }, "v": {} },
    }));
    let managed = Managed::of(&manifest);
    let applied = Applied {
        at: "2026-11-21T19:43:18.636000+00:00",
        hash: &manifest.hash(),
    };
    let mut item = managed.put(&namespace(), None, Some(&applied)).item;
    assert_eq!(Managed::decode(&item).unwrap(), managed);
    assert_eq!(item["GSI4SK"], Value::text("dSkXlbmmfyU/SYSTEM#"));
    assert_eq!(
        item["managed_entities"],
        Value::M(Item::from([
            ("u".into(), Value::L(vec![Value::text("_default_")])),
            ("v".into(), Value::L(Vec::new())),
        ]))
    );
    item.insert("newer".into(), Value::int(1));
    let again = Managed::default().put(&namespace(), Some(&item), None);
    assert_eq!(again.item["newer"], Value::int(1));
    assert_eq!(again.item["applied_hash"], item["applied_hash"]);
    assert!(again.condition.holds(Some(&item)));
    // A concurrent write, with or without a revision, is noticed.
    let theirs = managed.put(&namespace(), Some(&item), None).item;
    assert!(!again.condition.holds(Some(&theirs)));
    assert!(!again.condition.holds(None));
    for damaged in ["managed_resources", "managed_entities", "managed_system"] {
        let mut item = item.clone();
        item.insert(damaged.into(), Value::int(1));
        assert!(Managed::decode(&item).is_err(), "{damaged}");
    }
}

#[test]
fn impossible_names_leave_the_record_by_their_keys() {
    let mut managed = Managed {
        system: false,
        resources: ["ok".to_owned(), "not ok".to_owned()].into(),
        entities: [
            ("u".to_owned(), ["r".to_owned(), "r r".to_owned()].into()),
            ("u u".to_owned(), ["r".to_owned()].into()),
        ]
        .into(),
    };
    assert_eq!(managed.targets().len(), 2);
    let keys = managed.take_impossible(&namespace());
    let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
    assert_eq!(
        keys,
        [
            "dSkXlbmmfyU/RESOURCE#not ok #CONFIG",
            "dSkXlbmmfyU/ENTITY#u #CONFIG#r r",
            "dSkXlbmmfyU/ENTITY#u u #CONFIG#r"
        ]
    );
    assert_eq!(managed.entities.len(), 1);
}

#[test]
fn sizes_are_counted_as_dynamodb_does() {
    let item = Item::from([
        ("abc".into(), Value::text("äb")),
        ("n".into(), Value::int(1234)),
        ("l".into(), Value::L(vec![Value::text("xy"), Value::Bool(true)])),
    ]);
    assert_eq!(size_of(&item), (3 + 3) + (1 + 4) + (1 + 3 + 3 + 2));
    assert_eq!(MOST_BYTES, 409_600);
}

#[test]
fn shares_are_taken_back_by_their_owners_or_when_they_have_run_out() {
    let (ns, now) = (namespace(), EpochMillis(1_000_000));
    let target = Target::parse("entity", "u/gpt/4").unwrap();
    assert_eq!(
        pending_key(&ns, Kind::Sync, &target).sk,
        "#PROVISIONER#PENDING#sync#entity#u/gpt/4"
    );
    let share = |token: &str, lease| Share {
        token: token.into(),
        lease: Some(lease),
        full: token == "full",
    };
    let ours = owe(
        &ns,
        (Kind::Sync, &target),
        &share("ours", 2_000_000),
        &["old".into()],
        None,
        now,
    );
    assert!(ours.condition.holds(None) && !ours.condition.holds(Some(&ours.item)));
    let found = Pending::decode(ours.item.clone()).unwrap();
    assert_eq!(
        (found.work(), found.stale()),
        (Some((Kind::Sync, target.clone())), vec!["old".into()])
    );
    assert!(!found.is_releasable("theirs", now));
    // Alone, the record goes with the share.
    let Some(Part::Delete(delete)) = found.release("ours", now) else {
        panic!()
    };
    assert!(delete.condition.holds(Some(&ours.item)));
    // With others, it stays for them.
    let theirs = owe(
        &ns,
        (Kind::Sync, &target),
        &share("full", 3_000_000),
        &["older".into()],
        Some(&found),
        now,
    );
    assert!(theirs.condition.holds(Some(&ours.item)) && !delete.condition.holds(Some(&theirs.item)));
    let both = Pending::decode(theirs.item.clone()).unwrap();
    assert_eq!(both.stale().len(), 2);
    let Some(Part::Put(put)) = both.release("ours", now) else {
        panic!()
    };
    let left = Pending::decode(put.item).unwrap();
    assert!(!left.is_owned_by("ours") && left.is_owned_by("full"));
    assert!(left.is_of_others(now) && !left.is_of_others(EpochMillis(3_000_001)));
    // Once a lease has expired, the apply that did the work ends it.
    assert!(matches!(
        left.release("me", EpochMillis(3_000_001)),
        Some(Part::Delete(_))
    ));
    let expired = Pending::decode(left.expire("full", now).item).unwrap();
    assert!(expired.is_releasable("me", now) && !expired.is_of_others(now));
}

#[test]
fn records_of_older_forms_and_of_other_kinds_are_understood() {
    let ns = namespace();
    let target = Target::parse("entity", "u/r").unwrap();
    let key = pending_key(&ns, Kind::Sync, &target);
    let mut item = crate::schema::key_item(&key);
    for (name, value) in [
        ("kind", "sync"),
        ("level", "entity"),
        ("target", "u/r"),
        ("token", "old"),
    ] {
        item.insert(name.into(), Value::text(value));
    }
    item.insert("lease_until_ms".into(), Value::int(5));
    item.insert("full".into(), Value::Bool(true));
    let single = Pending::decode(item.clone()).unwrap();
    assert!(!single.is_of_others(EpochMillis(6)) && !single.is_releasable("me", EpochMillis(5)));
    assert!(matches!(
        single.release("me", EpochMillis(6)),
        Some(Part::Delete(_))
    ));
    let work = |name: &str, other| {
        let mut item = item.clone();
        item.insert(name.into(), Value::text(other));
        Pending::decode(item).unwrap().work()
    };
    for (name, other) in [("kind", "soft"), ("level", "resource"), ("target", "no such")] {
        assert_eq!(work(name, other), None);
    }
    for kind in [Kind::Sync, Kind::Disabled, Kind::Cascade] {
        assert_eq!(work("kind", kind.as_str()), Some((kind, target.clone())));
    }
}

fn limits() -> impl Strategy<Value = BTreeMap<String, (u64, u64, u64)>> {
    let number = |max: u64| prop_oneof![1..=max, 1..100_u64, Just(max)];
    let numbers = (number(MAX_TOKENS), number(MAX_TOKENS), number(MAX_PERIOD_SECS));
    prop::collection::btree_map("[a-zA-Z][a-zA-Z0-9_.-]{0,8}", numbers, 0..4)
        .prop_map(|limits| limits.into_iter().filter(|(name, _)| name != "wcu").collect())
}

fn level(limits: &BTreeMap<String, (u64, u64, u64)>) -> Vec<Limit> {
    let mut limits: Vec<Limit> = limits
        .iter()
        .map(|(name, (cp, ra, rp))| {
            let period = Duration::from_secs(*rp);
            let entry = ScheduleEntry::on(format!("{} * * * *", rp % 60));
            let limit = match rp % 8 {
                0 => Limit::quota(name, *cp).resets(format!("0 {} * * *", rp % 24), "UTC"),
                1 => Limit::session(name, *cp, period),
                2 => Limit::custom(name, *cp, *ra, period).scheduled([entry.scale(*rp as f64 / 1e4)]),
                3 => Limit::custom(name, *cp, *ra, period)
                    .scheduled([entry.clone().refill_amount(*ra), entry.capacity(*cp)]),
                _ => Limit::custom(name, *cp, *ra, period),
            };
            let limit = if ra % 8 == 0 { limit.soft() } else { limit };
            limit.build().unwrap()
        })
        .collect();
    limits.sort_by(|a, b| a.name().cmp(b.name()));
    limits
}

/// A level with flags, which depend on its limits.
fn declared(limits: &BTreeMap<String, (u64, u64, u64)>) -> Level {
    let draw = limits
        .values()
        .map(|(cp, ra, rp)| cp ^ ra ^ rp)
        .fold(limits.len() as u64, u64::wrapping_add);
    Level {
        limits: level(limits),
        access: [
            None,
            Some(Access::Enabled),
            Some(Access::Disabled),
            Some(Access::Bypass),
        ][(draw % 4) as usize],
        cascade: [None, Some(false), Some(true)][(draw % 3) as usize],
    }
}

fn policy() -> impl Strategy<Value = Option<OnUnavailable>> {
    prop::sample::select(vec![None, Some(OnUnavailable::Allow), Some(OnUnavailable::Block)])
}

prop_compose! {
    fn manifests()(
        namespace in "[^\\p{Cc}]{1,20}".prop_filter("reserved", |name| name != "_"),
        system in prop::option::of((limits(), policy())),
        resources in prop::collection::btree_map("[a-zA-Z][a-zA-Z0-9_./:-]{0,8}", limits(), 0..4),
        entities in prop::collection::btree_map(
            "[a-zA-Z0-9][a-zA-Z0-9_.:@-]{0,8}",
            prop::collection::btree_map("_default_|r[a-zA-Z0-9_./:-]{0,8}", limits(), 0..3),
            0..4,
        ),
        depth in prop::option::of(2..=8_u32),
        concurrency in prop::option::of(1..=1000_u32),
        alone in prop::collection::btree_map("alone-only-[a-z]", 1..=1000_u32, 0..3),
    ) -> Manifest {
        let mut manifest = Manifest {
            namespace: NamespaceName::new(namespace).unwrap(),
            system: system.map(|(limits, on_unavailable)| SystemLevel { limits: level(&limits), on_unavailable }),
            resources: resources.iter().map(|(name, limits)| (ResourceName::new(name).unwrap(), declared(limits))).collect(),
            entities: entities.iter().map(|(id, scopes)| {
                let scopes = scopes.iter().map(|(name, limits)| (ResourceScope::new(name).unwrap(), declared(limits)));
                (EntityId::new(id).unwrap(), scopes.collect())
            }).collect(),
            settings: Settings::default(),
        };
        manifest.settings = settings(&manifest, depth, concurrency, &alone);
        manifest
    }
}

/// Settings of the namespace, of some of the declared levels, and of levels that are not declared.
fn settings(
    manifest: &Manifest,
    depth: Option<u32>,
    of_levels: Option<u32>,
    alone: &BTreeMap<String, u32>,
) -> Settings {
    let mut settings = Settings::default();
    let mut set = |setting, value| settings.set(setting, value).unwrap();
    if let Some(depth) = depth {
        set(Setting::CascadeDepth, depth);
    }
    if let Some(limit) = of_levels {
        for (target, _) in plan::declared(manifest).into_iter().step_by(2) {
            set(Setting::Concurrency(target), limit);
        }
    }
    for (name, limit) in alone {
        let target = match limit % 3 {
            0 => Target::System,
            1 => Target::Resource(ResourceName::new(name).unwrap()),
            _ => Target::Entity(EntityId::new(name).unwrap(), ResourceScope::All),
        };
        set(Setting::Concurrency(target), *limit);
    }
    settings
}

/// Any JSON, with a liking for what manifests contain.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "\\PC{0,6}".prop_map(Json::from),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        let key = prop_oneof![
            prop::sample::select(vec![
                "namespace",
                "system",
                "resources",
                "entities",
                "limits",
                "capacity",
                "burst",
                "refill_amount",
                "on_unavailable",
                "disabled",
                "cascade",
                "concurrency",
                "cascade_depth",
                "schedule",
                "Namespace",
                "Resources",
                "Limits",
                "Capacity",
            ])
            .prop_map(str::to_owned),
            "\\PC{0,6}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(key, inner, 0..5)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(manifest in manifests()) {
        prop_assert_eq!(Manifest::from_json(&manifest.to_json()), Ok(manifest.clone()));
        prop_assert_eq!(Manifest::from_properties(&manifest.to_properties()), Ok(manifest.clone()));
        #[cfg(feature = "yaml")]
        {
            // JSON is YAML.
            let text = manifest.to_json().to_string();
            prop_assert_eq!(Manifest::from_yaml(text.as_bytes()), Ok(manifest));
        }
    }

    #[test]
    fn what_is_stored_as_declared_is_no_change(manifest in manifests(), other in manifests()) {
        let ns = namespace();
        let item = |(target, state): (Target, LevelState)| {
            let mut item: Item = crate::config::limit_attributes(&state.limits)
                .into_iter()
                .map(|(name, value)| (name.to_string(), value))
                .collect();
            if let Some(policy) = policy_text(state.on_unavailable) {
                item.insert("on_unavailable".into(), Value::text(policy));
            }
            item.extend(state.access.map(|access| ("disabled".to_owned(), access.value())));
            item.extend(state.cascade.map(|cascade| ("cascade".to_owned(), Value::Bool(cascade))));
            (target.key(&ns), item)
        };
        let stored: BTreeMap<_, _> = plan::declared(&manifest).into_iter().map(item).collect();
        let managed = Managed::of(&manifest);
        let same = plan::plan(&ns, &manifest, &managed, &stored, false);
        prop_assert_eq!((same.changes.len(), same.unchanged), (0, manifest.levels()));
        // Another manifest changes each of its levels that differs, and deletes each that it does not declare.
        let found = plan::plan(&ns, &other, &managed, &stored, false);
        let gone = managed.targets().iter().filter(|target| !Managed::of(&other).contains(target)).count();
        let deleted = found.changes.iter().filter(|change| change.action == Action::Delete).count();
        prop_assert_eq!(deleted, gone);
        prop_assert_eq!(found.changes.len() - deleted + found.unchanged, other.levels());
    }

    #[test]
    fn nothing_panics_and_what_is_refused_is_told(value in any_json()) {
        for result in [Manifest::from_json(&value), Manifest::from_properties(&value)] {
            if let Err(problems) = result {
                prop_assert!(problems.len() > 0 && !problems.to_string().is_empty());
            }
        }
    }
}

#[test]
fn of_two_turns_the_later_one_holds() {
    use super::turn::{begin, end, is_of, turn_key};
    let ns = namespace();
    let now = crate::units::EpochMillis(5);
    let first = begin(&ns, "a", now, None);
    assert_eq!(crate::schema::key_of(&first.item), Some(turn_key(&ns)));
    assert!(first.condition.holds(None) && !first.condition.holds(Some(&first.item)));
    // One that has read another mark meanwhile does not replace it.
    let second = begin(&ns, "b", now, Some(&first.item));
    let third = begin(&ns, "c", now, Some(&first.item));
    assert!(second.condition.holds(Some(&first.item)));
    assert!(!third.condition.holds(Some(&second.item)));
    assert!(is_of(Some(&second.item), "b") && !is_of(Some(&second.item), "a") && !is_of(None, "a"));
    assert!(!end(&ns, "a").condition.holds(Some(&second.item)));
    assert!(end(&ns, "b").condition.holds(Some(&second.item)));
}
