//! Settings beside levels: read, written, managed and planned.

use super::*;
use crate::concurrency::MOST_IN_FLIGHT;
use crate::manifest::settings::{self, SettingsPlan};
use crate::name::{EntityId, ResourceName, ResourceScope};
use crate::table::Key;

fn of_resource(name: &str) -> Setting {
    Setting::Concurrency(Target::Resource(ResourceName::new(name).unwrap()))
}

fn of_entity(id: &str, scope: &str) -> Setting {
    Setting::Concurrency(Target::Entity(
        EntityId::new(id).unwrap(),
        ResourceScope::new(scope).unwrap(),
    ))
}

const OF_SYSTEM: Setting = Setting::Concurrency(Target::System);

#[test]
fn they_are_read_beside_levels_and_without_them() {
    let manifest = read(&json!({
        "namespace": "d",
        "system": { "concurrency": 100, "cascade_depth": 4 },
        "resources": {
            "a": { "concurrency": 50, "limits": { "rpm": { "capacity": 1 } } },
            "b": { "concurrency": 1 },
            "c": { "concurrency": 2, "limits": null },
            "d": { "concurrency": null },
        },
        "entities": {
            "u": { "resources": { "_default_": { "concurrency": 5 }, "a": { "concurrency": 2, "disabled": true } } },
            "v": { "resources": { "a": { "concurrency": 3 } } },
        },
    }));
    let found: Vec<_> = manifest
        .settings
        .iter()
        .map(|(setting, value)| (setting.clone(), value))
        .collect();
    assert_eq!(
        found,
        [
            (OF_SYSTEM, 100),
            (of_resource("a"), 50),
            (of_resource("b"), 1),
            (of_resource("c"), 2),
            (of_entity("u", "_default_"), 5),
            (of_entity("u", "a"), 2),
            (of_entity("v", "a"), 3),
            (Setting::CascadeDepth, 4),
        ]
    );
    // A level that has nothing else is not declared: limits that are stored for it stay.
    assert_eq!(manifest.system, None);
    let levels: Vec<_> = plan::declared(&manifest)
        .into_iter()
        .map(|(target, _)| target.to_string())
        .collect();
    assert_eq!(levels, ["a", "c", "u/a"]);
    assert_eq!(Managed::of(&manifest).entities.len(), 1);
    assert_eq!(
        manifest.to_json()["resources"],
        json!({
            "a": { "concurrency": 50, "limits": { "rpm": { "capacity": 1, "refill_amount": 1, "refill_period": 60 } } },
            "b": { "concurrency": 1 },
            "c": { "concurrency": 2, "limits": {} },
        })
    );
    assert_eq!(Manifest::from_json(&manifest.to_json()), Ok(manifest.clone()));
    assert_eq!(Manifest::from_properties(&manifest.to_properties()), Ok(manifest));
    // With an empty level, the system level is declared as well.
    let empty = read(&json!({ "namespace": "d", "system": { "limits": {}, "cascade_depth": 2 } }));
    assert_eq!(empty.system, Some(SystemLevel::default()));
    assert_eq!(
        empty.to_properties()["System"],
        json!({ "Limits": {}, "CascadeDepth": 2 })
    );
}

#[test]
fn properties_come_as_texts() {
    let manifest = Manifest::from_properties(&json!({
        "Namespace": "d",
        "System": { "Concurrency": "100", "CascadeDepth": "8" },
        "Resources": { "r": { "Concurrency": "7" }, "s": { "Concurrency": "" } },
        "Entities": { "u": { "Resources": { "r": { "Concurrency": 1 } } } },
    }))
    .unwrap();
    let found: Vec<_> = manifest.settings.iter().map(|(_, value)| value).collect();
    assert_eq!(found, [100, 7, 1, 8]);
    assert_eq!((manifest.levels(), manifest.resources.len()), (0, 0));
    let wrong = json!({ "System": { "Concurrency": "1.5", "CascadeDepth": "9" }, "Resources": { "r": { "CascadeDepth": "3" } } });
    assert_eq!(
        Manifest::from_properties(&wrong).unwrap_err().to_string(),
        "System.Concurrency is '1.5': it must be a whole number from 1 to 1000\n\
         System.CascadeDepth is '9': it must be a whole number from 2 to 8\n\
         Resources.r.CascadeDepth is one for the whole namespace; it belongs to the system level"
    );
}

#[test]
fn what_is_wrong_is_told() {
    check_refused(
        &json!({
            "namespace": "d",
            "system": { "concurrency": 0, "cascade_depth": 1, "cascade_deph": 4 },
            "resources": { "r": { "concurrency": 1001, "cascade_depth": 4 }, "s": { "concurrency": "5" } },
            "entities": { "u": { "cascade_depth": 2, "concurrency": 5, "resources": { "r": { "concurrency": true } } } },
        }),
        &[
            "system.cascade_deph is unknown; did you mean 'cascade_depth'?",
            "system.concurrency is 0: it must be a whole number from 1 to 1000",
            "system.cascade_depth is 1: it must be a whole number from 2 to 8",
            "resources.r.cascade_depth is one for the whole namespace; it belongs to the system level",
            "resources.r.concurrency is 1001: it must be a whole number from 1 to 1000",
            "resources.s.concurrency is '5': it must be a whole number from 1 to 1000",
            "entities.u.cascade_depth is one for the whole namespace; it belongs to the system level",
            "entities.u.concurrency belongs to a resource of the entity; under '_default_' it is for all resources that have \
             none of their own",
            "entities.u.resources.r.concurrency is true: it must be a whole number from 1 to 1000",
        ],
    );
    let mut settings = Settings::default();
    assert!(settings.set(OF_SYSTEM, 0).is_err() && settings.set(OF_SYSTEM, MOST_IN_FLIGHT + 1).is_err());
    assert!(settings.set(Setting::CascadeDepth, 9).is_err());
    assert!(settings.is_empty());
}

#[test]
fn the_schema_has_the_same_ranges() {
    let schema: Json = serde_json::from_str(Manifest::SCHEMA).unwrap();
    let part = |level: &str, name: &str| schema["$defs"][level]["properties"][name].clone();
    for level in ["system", "level"] {
        let concurrency = part(level, "concurrency");
        assert_eq!(
            (&concurrency["minimum"], &concurrency["maximum"]),
            (&json!(1), &json!(MOST_IN_FLIGHT))
        );
    }
    let depth = part("system", "cascade_depth");
    assert_eq!((&depth["minimum"], &depth["maximum"]), (&json!(2), &json!(8)));
    assert_eq!(part("level", "cascade_depth"), Json::Null);
}

/// A table that holds these values.
fn stored(values: &[(Setting, u32)]) -> BTreeMap<Key, Item> {
    let ns = namespace();
    let item = |(setting, value): &(Setting, u32)| match setting.write(&ns, Some(*value), None) {
        Ok(Some(Part::Put(put))) => (setting.key(&ns), put.item),
        other => panic!("{setting:?}: {other:?}"),
    };
    values.iter().map(item).collect()
}

fn lines(plan: &SettingsPlan) -> Vec<String> {
    let line = |change: &SettingChange| {
        let old = change.old.as_ref().map(|old| old.value);
        format!(
            "{} {} {}: {old:?} {:?}",
            change.action.symbol(),
            change.setting.as_str(),
            change.setting.target(),
            change.new
        )
    };
    plan.changes.iter().map(line).collect()
}

#[test]
fn a_plan_compares_each() {
    let mut declared = Settings::default();
    for (setting, value) in [
        (OF_SYSTEM, 10),
        (Setting::CascadeDepth, 3),
        (of_resource("kept"), 5),
        (of_resource("taken-over"), 6),
        (of_resource("new"), 7),
        (of_entity("u", "by-hand"), 8),
    ] {
        declared.set(setting, value).unwrap();
    }
    let managed = ManagedSettings::of(&[
        OF_SYSTEM,
        of_resource("kept"),
        of_resource("gone"),
        of_entity("u", "a"),
        Setting::CascadeDepth,
    ]);
    let table = stored(&[
        (OF_SYSTEM, 9),
        (of_resource("kept"), 5),
        (of_resource("taken-over"), 6),
        (of_entity("u", "by-hand"), 1),
        (of_resource("gone"), 4),
        (of_resource("foreign"), 4),
    ]);
    let ns = namespace();
    let found = settings::plan(&ns, &declared, &managed, &table, false);
    assert_eq!(
        lines(&found),
        [
            "~ concurrency (system defaults): Some(Some(9)) Some(10)",
            "+ cascade_depth (system defaults): None Some(3)",
            "+ concurrency new: None Some(7)",
            "- concurrency gone: Some(Some(4)) None",
            "+ concurrency u/by-hand: Some(Some(1)) Some(8)",
            "- concurrency u/a: None None",
        ]
    );
    assert_eq!((found.unchanged, found.adopted), (2, 1));
    assert_eq!(
        found.changes[0].to_full_json(),
        json!({
            "action": "update", "level": "system", "target": null, "setting": "concurrency",
            "old": { "concurrency": 9 }, "new": { "concurrency": 10 },
        })
    );
    assert_eq!(settings::keys(&ns, &declared, &managed).len(), 8);
    let all = settings::plan(&ns, &declared, &managed, &table, true);
    assert_eq!((all.changes.len(), all.unchanged), (8, 0));
}

#[test]
fn a_value_that_cannot_be_read_is_replaced() {
    let ns = namespace();
    let mut declared = Settings::default();
    declared.set(Setting::CascadeDepth, 3).unwrap();
    let mut table = stored(&[(Setting::CascadeDepth, 3)]);
    let item = table.get_mut(&Setting::CascadeDepth.key(&ns)).unwrap();
    for damaged in [Value::int(9), Value::text("3"), Value::Other] {
        item.insert("depth".into(), damaged);
        let table = BTreeMap::from([(Setting::CascadeDepth.key(&ns), item.clone())]);
        let found = settings::plan(&ns, &declared, &ManagedSettings::default(), &table, false);
        assert_eq!(
            lines(&found),
            ["+ cascade_depth (system defaults): Some(None) Some(3)"]
        );
        let old = found.changes[0].to_full_json()["old"]["note"].clone();
        assert!(old.as_str().unwrap().contains("cascade depth"), "{old}");
        let part = Setting::CascadeDepth.write(&ns, Some(3), Some(item)).unwrap();
        let Some(Part::Put(put)) = part else {
            panic!("{part:?}")
        };
        assert_eq!(put.item["depth"], Value::int(3));
    }
}

#[test]
fn a_write_guards_what_was_read() {
    let ns = namespace();
    for (setting, other) in [(of_entity("u", "r"), 5), (Setting::CascadeDepth, 5)] {
        let item = |value| {
            stored(&[(setting.clone(), value)])
                .remove(&setting.key(&ns))
                .unwrap()
        };
        let (old, theirs) = (item(4), item(other));
        assert_eq!(setting.read(&old), Ok(4));
        let condition = |value: Option<u32>, old: Option<&Item>| match setting.write(&ns, value, old).unwrap()
        {
            Some(Part::Put(put)) => put.condition,
            Some(Part::Delete(delete)) => delete.condition,
            part => panic!("{part:?}"),
        };
        for value in [None, Some(3)] {
            let condition = condition(value, Some(&old));
            assert!(condition.holds(Some(&old)));
            assert!(!condition.holds(Some(&theirs)) && !condition.holds(None));
        }
        let condition = condition(Some(3), None);
        assert!(condition.holds(None) && !condition.holds(Some(&old)));
        assert_eq!(setting.write(&ns, None, None), Ok(None));
        assert!(setting.write(&ns, Some(1001), None).is_err());
    }
}

#[test]
fn the_record_of_managed_settings_round_trips() {
    let all = [
        of_resource("a/b"),
        of_entity("u", "_default_"),
        Setting::CascadeDepth,
    ];
    let managed = ManagedSettings::of(&all);
    assert_eq!(managed.settings(), all);
    let mut item = managed.put(&namespace(), None).item;
    assert_eq!(
        crate::schema::key_of(&item),
        Some(ManagedSettings::key(&namespace()))
    );
    assert_eq!(item["GSI4SK"], Value::text("dSkXlbmmfyU/SYSTEM#"));
    assert_eq!(ManagedSettings::decode(&item), Ok(managed.clone()));
    assert_eq!(
        ManagedSettings::decode(&Item::new()),
        Ok(ManagedSettings::default())
    );
    item.insert("newer".into(), Value::int(1));
    let mut fewer = managed.clone();
    for setting in &all {
        assert!(fewer.contains(setting));
        fewer.remove(setting);
        assert!(!fewer.contains(setting));
    }
    assert_eq!(fewer, ManagedSettings::default());
    fewer.add(&managed);
    assert_eq!(fewer, managed);
    let again = fewer.put(&namespace(), Some(&item));
    assert_eq!(again.item["newer"], Value::int(1));
    assert!(again.condition.holds(Some(&item)));
    let theirs = managed.put(&namespace(), Some(&item)).item;
    assert!(!again.condition.holds(Some(&theirs)) && !again.condition.holds(None));
    for damaged in ["managed_resources", "managed_cascade_depth"] {
        let mut item = item.clone();
        item.insert(damaged.into(), Value::int(1));
        assert!(ManagedSettings::decode(&item).is_err(), "{damaged}");
    }
}
