//! Schedules, quotas, session limits and soft limits in manifests.

use serde_json::{Value as Json, json};

use super::{check_refused, namespace, read};
use crate::limit::{Limit, Recovery};
use crate::manifest::{Action, LevelState, Managed, Manifest, Target, limit_from_json, plan};
use crate::name::ResourceName;
use crate::table::{Item, Value};

/// A manifest with these limits of one resource.
fn with(limits: &Json) -> Json {
    json!({ "namespace": "d", "resources": { "r": { "limits": limits } } })
}

/// The limits of the resource, as they are written with all defaults.
fn written(limits: &Json) -> Json {
    let json = read(&with(limits)).to_json();
    assert_eq!(read(&json).to_json(), json);
    json["resources"]["r"]["limits"].clone()
}

/// Checks that a limit is refused with exactly these lines, less the path to it.
#[track_caller]
fn check_limit(limit: &Json, lines: &[&str]) {
    let lines: Vec<String> = lines
        .iter()
        .map(|line| format!("resources.r.limits.x.{line}"))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    check_refused(&with(&json!({ "x": limit })), &lines);
}

#[test]
fn shapes_are_read_and_written_in_canonical_form() {
    let berlin = "Europe/Berlin";
    let found = written(&json!({
        "rpm": { "capacity": 100, "schedule": [
            { "cron": "*  9-17 * * mon-fri", "tz": berlin, "scale": 0.5 },
            { "cron": "* 0-6 * * *", "tz": berlin, "capacity": 50, "refill_amount": 5, "refill_period_seconds": 30 },
        ] },
        "rpd": { "capacity": 10_000, "reset_schedule": [{ "cron": "0 0 * * *", "tz": berlin }], "soft": true },
        "s": { "capacity": 50, "refill_amount": 0, "reset_after_seconds": 18_000, "soft": false },
        "plain": { "capacity": 5, "schedule": [], "reset_schedule": null, "reset_after_seconds": null, "soft": null },
    }));
    let expected = json!({
        "rpm": { "capacity": 100, "refill_amount": 100, "refill_period": 60, "schedule": [
            { "cron": "* 9-17 * * MON-FRI", "tz": berlin, "scale": 0.5 },
            { "cron": "* 0-6 * * *", "tz": berlin, "capacity": 50, "refill_amount": 5, "refill_period_seconds": 30 },
        ] },
        "rpd": { "capacity": 10_000, "refill_amount": 0, "refill_period": 1,
            "reset_schedule": [{ "cron": "0 0 * * *", "tz": berlin }], "soft": true },
        "s": { "capacity": 50, "refill_amount": 0, "refill_period": 1, "reset_after_seconds": 18_000 },
        "plain": { "capacity": 5, "refill_amount": 5, "refill_period": 60 },
    });
    assert_eq!(found, expected);
}

#[test]
fn properties_with_shapes_come_as_texts() {
    let properties = json!({ "Namespace": "d", "Resources": { "r": { "Limits": {
        "rpm": { "Capacity": "100", "Soft": "True", "ResetSchedule": "", "Schedule": [
            { "Cron": "* 9-17 * * *", "Tz": "", "Scale": "0.5", "Capacity": "" },
            { "Cron": "* 0-6 * * *", "Capacity": "50", "RefillAmount": "5", "RefillPeriodSeconds": "30" },
        ] },
        "rpd": { "Capacity": "10", "RefillAmount": "0", "ResetSchedule": [{ "Cron": "0 0 * * *" }] },
        "s": { "Capacity": 50, "ResetAfterSeconds": "18000" },
    } } } });
    let manifest = Manifest::from_properties(&properties).unwrap_or_else(|err| panic!("{err}"));
    let utc = "UTC";
    assert_eq!(
        manifest.to_properties()["Resources"]["r"]["Limits"],
        json!({
            "rpm": { "Capacity": 100, "Soft": true, "Schedule": [
                { "Cron": "* 9-17 * * *", "Tz": utc, "Scale": 0.5 },
                { "Cron": "* 0-6 * * *", "Tz": utc, "Capacity": 50, "RefillAmount": 5, "RefillPeriodSeconds": 30 },
            ] },
            "rpd": { "Capacity": 10, "ResetSchedule": [{ "Cron": "0 0 * * *", "Tz": utc }] },
            "s": { "Capacity": 50, "ResetAfterSeconds": 18_000 },
        })
    );
    assert_eq!(Manifest::from_properties(&manifest.to_properties()), Ok(manifest));
    let wrong = json!({ "Namespace": "d", "Resources": { "r": { "Limits": { "x": {
        "Capacity": "1", "RefillAmount": "5", "ResetAfterSeconds": "1h", "Soft": "yes",
        "ResetSchedule": [{ "Cron": "0 0 * * *", "Scale": "2" }], "Schedule": [{ "cron": "x" }, { "Cron": "* 1 * * *", "Scale": "fast" }],
    } } } } });
    let err = Manifest::from_properties(&wrong).unwrap_err().to_string();
    let at = |line: &str| format!("Resources.r.Limits.x.{line}");
    assert_eq!(
        err,
        [
            at("ResetAfterSeconds is '1h': it must be a whole number from 1 to 1000000000"),
            at("Soft is 'yes': it must be true or false"),
            at("RefillAmount is '5': it must be 0 or absent: a limit with 'ResetSchedule' or 'ResetAfterSeconds' gains \
                nothing over time"),
            at("Schedule.0.cron is unknown; did you mean 'Cron'?"),
            at("Schedule.0.Cron must be given: 5 fields in quotes, such as '0 0 * * *' for midnight"),
            at("Schedule.0.Scale must be given, or at least one of 'Capacity', 'RefillAmount', 'RefillPeriodSeconds'"),
            at("Schedule.1.Scale is 'fast': it must be a number above 0 and at most 1000000"),
            at("ResetSchedule.0.Scale is unknown; known here: Cron, Tz"),
        ]
        .join("\n")
    );
}

#[test]
fn a_limit_is_refilled_or_reset() {
    let reset = json!([{ "cron": "0 0 * * *" }]);
    check_limit(
        &json!({ "capacity": 5, "refill_amount": 5, "reset_schedule": reset }),
        &[
            "refill_amount is 5: it must be 0 or absent: a limit with 'reset_schedule' or 'reset_after_seconds' gains \
           nothing over time",
        ],
    );
    check_limit(
        &json!({ "capacity": 5, "refill_amount": 0 }),
        &["refill_amount is 0: it must be a whole number from 1 to 1000000000000000"],
    );
    check_limit(
        &json!({ "capacity": 5, "reset_schedule": reset, "reset_after_seconds": 60 }),
        &["reset_after_seconds is 60: it cannot stand beside 'reset_schedule'; give it or that"],
    );
    check_limit(
        &json!({ "capacity": 5, "burst": 7, "reset_after_seconds": 60 }),
        &[
            "burst is 7: it cannot be given for a limit that is not refilled over time; give the amount as its capacity",
        ],
    );
    for (key, value) in [("refill_amount", 7), ("refill_period_seconds", 60)] {
        check_limit(
            &json!({ "capacity": 5, "reset_schedule": reset, "schedule": [{ "cron": "* 1 * * *", key: value }] }),
            &[&format!(
                "schedule.0.{key} is {value}: it cannot be given for a limit that is not refilled over time; give a \
                 capacity or a scale"
            )],
        );
    }
    check_limit(
        &json!({ "capacity": 5, "reset_schedule": [{ "cron": "* * * * *" }] }),
        &[
            "reset_schedule is a list of 1: it matches always, so that the quota would never be reset; give a time, such \
           as '0 0 * * *'",
        ],
    );
    // The capacity of a quota can change by local time.
    let quota = json!({ "x": { "capacity": 5, "reset_schedule": reset, "schedule": [{ "cron": "* 1 * * *", "scale": 2 }] } });
    let limit = &read(&with(&quota)).resources.into_values().next().unwrap().limits[0];
    assert!(matches!(limit.recovery(), Recovery::Resets(_)));
    assert_eq!(limit.schedule().unwrap().encode(), "1h1s2000");
}

#[test]
fn parts_of_shapes_are_refused_by_name() {
    let one = |entry: Json| json!({ "capacity": 5, "schedule": [entry] });
    let missing = "schedule.0.scale must be given, or at least one of 'capacity', 'refill_amount', 'refill_period_seconds'";
    for (limit, lines) in [
        (one(json!({ "cron": "* 1 * * *" })), &[missing][..]),
        (
            one(json!({ "cron": "* 1 * * *", "scale": 2, "capacity": 7 })),
            &[
                "schedule.0.scale is 2: it cannot stand beside 'capacity', 'refill_amount', 'refill_period_seconds'; give it \
               or these",
            ],
        ),
        (
            one(json!({ "cron": "* 24 * * *", "scale": 1.5, "timezone": "UTC" })),
            &[
                "schedule.0.timezone is unknown; known here: cron, tz, scale, capacity, refill_amount, refill_period_seconds",
                "schedule.0.cron.hour is '24': '24' must be 0 to 23",
            ],
        ),
        (
            one(json!({ "cron": "@daily", "scale": 0 })),
            &[
                "schedule.0.cron is '@daily': names of patterns are not supported; write the 5 fields, such as '0 0 * * *' \
                 for every day",
                "schedule.0.scale is 0: it must be a number above 0 and at most 1000000",
            ],
        ),
        (
            one(json!({ "cron": 5, "tz": "Berlin", "scale": "2" })),
            &[
                "schedule.0.cron is 5: it must be a text of 5 fields in quotes, such as '0 0 * * *'",
                "schedule.0.tz is 'Berlin': it is not in the IANA time zone database; give a name such as 'UTC' or \
                 'Europe/Berlin'",
                "schedule.0.scale is '2': it must be a number above 0 and at most 1000000",
            ],
        ),
        (
            one(json!({ "tz": 5, "capacity": 5.0, "refill_amount": true, "refill_period_seconds": 1e10 })),
            &[
                "schedule.0.cron must be given: 5 fields in quotes, such as '0 0 * * *' for midnight",
                "schedule.0.tz is 5: it must be the name of a time zone, such as 'Europe/Berlin'",
                "schedule.0.capacity is 5.0: it must be a whole number from 1 to 1000000000000000",
                "schedule.0.refill_amount is true: it must be a whole number from 1 to 1000000000000000",
                "schedule.0.refill_period_seconds is 10000000000.0: it must be a whole number from 1 to 1000000000",
            ],
        ),
        (
            one(Json::Null),
            &["schedule.0 is empty: it must be a mapping with 'cron'"],
        ),
        (
            json!({ "capacity": 5, "schedule": { "cron": "* 1 * * *" } }),
            &["schedule is a mapping of 1: it must be a list of mappings with 'cron'"],
        ),
        (
            json!({ "capacity": 5, "soft": "true", "reset_after_seconds": 0 }),
            &[
                "reset_after_seconds is 0: it must be a whole number from 1 to 1000000000",
                "soft is 'true': it must be true or false",
            ],
        ),
        (
            json!({ "capacity": 5, "reset_schedule": [{ "cron": "0 0 30 2 *" }, "0 0 * * *"] }),
            &[
                "reset_schedule.1 is '0 0 * * *': it must be a mapping with 'cron'",
                "reset_schedule.0.cron.day_of_month is '30': no month of '2' has such a day",
            ],
        ),
        (
            json!({ "capacity": 5, "reset_shedule": [] }),
            &["reset_shedule is unknown; did you mean 'reset_schedule'?"],
        ),
    ] {
        check_limit(&limit, lines);
    }
}

#[test]
fn a_level_has_one_time_zone() {
    let entry = |tz: Json| json!([{ "cron": "0 8 * * *", "tz": tz }]);
    let why = "as that of 'a': the schedules of a level have one time zone";
    check_refused(
        &with(&json!({
            "a": { "capacity": 5, "reset_schedule": entry("Asia/Tokyo".into()) },
            "b": { "capacity": 5, "reset_schedule": entry("UTC".into()) },
            "c": { "capacity": 5, "reset_schedule": entry(Json::Null) },
        })),
        &[
            &format!("resources.r.limits.b.reset_schedule.0.tz is 'UTC': it must be 'Asia/Tokyo', {why}"),
            &format!(
                "resources.r.limits.c.reset_schedule.0.tz is not given, which stands for UTC; it must be 'Asia/Tokyo', {why}"
            ),
        ],
    );
    // Other levels can have others.
    let level =
        |tz: &str| json!({ "limits": { "a": { "capacity": 5, "reset_schedule": entry(tz.into()) } } });
    let _ =
        read(&json!({ "namespace": "d", "system": level("UTC"), "resources": { "r": level("Asia/Tokyo") } }));
}

#[cfg(feature = "yaml")]
#[test]
fn problems_of_shapes_have_their_places() {
    let text = "namespace: d\nsystem:\n  limits:\n    x:\n      capacity: 5\n      schedule:\n      - cron: '* 25 * * *'\n        scale: .5\n      \
                - {cron: 0 8 * * *, tz: berlin, scale: 2.25}\n";
    assert_eq!(
        Manifest::from_yaml(text.as_bytes()).unwrap_err().to_string(),
        "line 7, column 15: system.limits.x.schedule.0.cron.hour is '25': '25' must be 0 to 23\n\
         line 9, column 31: system.limits.x.schedule.1.tz is 'berlin': it is not in the IANA time zone database; give a \
         name such as 'UTC' or 'Europe/Berlin'"
    );
    // Without quotes, YAML reads a `*` as an alias.
    let text = "namespace: d\nsystem:\n  limits:\n    x:\n      capacity: 5\n      schedule:\n      - cron: CRON\n        scale: 2\n";
    for cron in ["* 9 * * *", "*/5 * * * *"] {
        let err = Manifest::from_yaml(text.replace("CRON", cron).as_bytes())
            .unwrap_err()
            .to_string();
        assert!(err.starts_with("line 7, column "), "{err}");
        assert!(
            err.ends_with("put a text that begins with '*' in quotes"),
            "{err}"
        );
    }
}

#[test]
fn a_change_of_the_shape_alone_is_a_change() {
    let quota = |cron: &str, tz: &str| {
        read(&with(
            &json!({ "x": { "capacity": 5, "reset_schedule": [{ "cron": cron, "tz": tz }] } }),
        ))
    };
    let declared = quota("0 0 * * sun", "Europe/Berlin");
    let target = Target::Resource(ResourceName::new("r").unwrap());
    let limits = &declared.resources.values().next().unwrap().limits;
    let item: Item = crate::config::limit_attributes(limits)
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect();
    let key = target.key(&namespace());
    let plan = |manifest: &Manifest, item: &Item| {
        let stored = [(key.clone(), item.clone())].into();
        plan::plan(&namespace(), manifest, &Managed::of(&declared), &stored, false)
    };
    // Other words for the same pattern do not count as a change, nor does a period in which nothing is gained.
    assert_eq!(plan(&quota(" 0 0 * * 7", "Europe/Berlin"), &item).unchanged, 1);
    let mut of_others = item.clone();
    of_others.insert("l_x_rp".into(), Value::int(60));
    assert_eq!(plan(&declared, &of_others).unchanged, 1);
    for other in [
        quota("0 1 * * SUN", "Europe/Berlin"),
        quota("0 0 * * SUN", "UTC"),
        read(&with(
            &json!({ "x": { "capacity": 5, "reset_after_seconds": 60 } }),
        )),
        read(&with(&json!({ "x": { "capacity": 5 } }))),
    ] {
        let found = plan(&other, &item);
        assert_eq!(
            (found.changes.len(), found.changes[0].action),
            (1, Action::Update)
        );
        assert_ne!(found.changes[0].old, found.changes[0].new);
    }
    let shown = LevelState::of(&item).to_json();
    assert_eq!(
        shown["limits"]["x"]["reset_schedule"],
        json!([{ "cron": "0 0 * * SUN", "tz": "Europe/Berlin" }])
    );
    assert_eq!(shown.get("note"), None);
}

#[test]
fn one_limit_reads_back() {
    for limit in [
        Limit::quota("a.b", 5).resets("0 0 * * *", "Asia/Tokyo").soft(),
        Limit::session("a.b", 5, std::time::Duration::from_secs(7)),
        Limit::per_minute("a.b", 5).burst(9),
    ] {
        let limit = limit.build().unwrap();
        let json = crate::manifest::normalised(std::slice::from_ref(&limit));
        assert_eq!(limit_from_json("a.b", &json["a.b"]), Ok(limit));
    }
    let err = limit_from_json("wcu", &json!({ "capacity": 0, "kind": 1 })).unwrap_err();
    assert_eq!(err.len(), 3);
}
