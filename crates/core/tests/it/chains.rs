//! Entities above each other: organisation, team, project and key.

use std::collections::BTreeMap;

use zae_limiter_core::acquire::{AcquireError, Decision};
use zae_limiter_core::depth::CascadeDepth;
use zae_limiter_core::schema::depth_key;
use zae_limiter_core::table::{Op, Value};
use zae_limiter_core::{InvalidInput, RecordError};

use crate::drive::{Desk, per_minute};

/// Four entities above each other, where `key` spends.
fn desk(depth: u32) -> Desk {
    let mut desk = Desk::with(&[per_minute("rpm", 100)]);
    desk.entity("org", None, false);
    desk.entity("team", Some("org"), true);
    desk.entity("project", Some("team"), true);
    desk.entity("key", Some("project"), true);
    set_depth(&mut desk, depth);
    desk
}

fn set_depth(desk: &mut Desk, depth: u32) {
    let put = CascadeDepth::new(depth).unwrap().put(&desk.namespace);
    desk.table.insert(put.item).unwrap();
    desk.forget();
}

/// Whole tokens taken, by entity.
#[track_caller]
fn taken(decision: &Decision) -> BTreeMap<String, i64> {
    let Decision::Admitted(grants) = decision else {
        panic!("{decision:?}");
    };
    let of = |grant: &zae_limiter_core::acquire::Grant| {
        let sum = grant.amounts.iter().map(|(_, amount)| amount.floor_tokens());
        (grant.id.entity.to_string(), sum.sum())
    };
    grants.iter().map(of).collect()
}

#[track_caller]
fn check(desk: &Desk, left: &[(&str, i128)]) {
    for (entity, tokens) in left {
        assert_eq!(desk.int(entity, 0, "b_rpm_tk"), tokens * 1000, "{entity}");
    }
}

#[test]
fn every_level_is_debited_with_one_write_in_one_round_trip() {
    let mut desk = desk(4);
    desk.remembers = true;
    let all = ["key", "project", "team", "org"];
    assert_eq!(
        taken(&desk.acquire("key", &[("rpm", 5)])),
        all.map(|entity| (entity.to_owned(), 5)).into()
    );
    desk.ops.clear();
    desk.configs_read = 0;
    desk.admitted("key", &[("rpm", 5)]);
    assert_eq!((desk.ops.len(), desk.configs_read), (4, 0));
    assert!(desk.ops.iter().all(|op| matches!(op, Op::Update(_))));
    check(&desk, &all.map(|entity| (entity, 90)));
}

#[test]
fn the_depth_of_the_namespace_ends_the_chain() {
    for (depth, debited) in [(2, 2), (3, 3), (4, 4), (8, 4)] {
        let mut desk = desk(depth);
        assert_eq!(taken(&desk.acquire("key", &[("rpm", 1)])).len(), debited);
    }
    // As the Python library.
    let mut desk = desk(4);
    desk.table.remove(&depth_key(&desk.namespace));
    assert_eq!(taken(&desk.acquire("key", &[("rpm", 1)])).len(), 2);
}

#[test]
fn a_chain_ends_at_an_entity_that_does_not_cascade() {
    let mut desk = desk(8);
    desk.entity("project", Some("team"), false);
    desk.forget();
    assert_eq!(taken(&desk.acquire("key", &[("rpm", 1)])).len(), 2);
}

#[test]
fn entities_above_themselves_are_debited_once() {
    let mut desk = desk(8);
    desk.entity("org", Some("project"), true);
    desk.forget();
    for _ in 0..2 {
        let taken = taken(&desk.acquire("key", &[("rpm", 1)]));
        assert_eq!(taken.into_values().collect::<Vec<_>>(), [1, 1, 1, 1]);
    }
}

#[test]
fn if_any_level_refuses_all_get_their_tokens_back() {
    for (at, entity) in ["key", "project", "team", "org"].into_iter().enumerate() {
        let mut desk = desk(4);
        desk.configure_entity(entity, &[per_minute("rpm", 10)]);
        desk.admitted("key", &[("rpm", 1)]);
        let why = desk.rejected("key", &[("rpm", 10)]);
        let exceeded: Vec<_> = why.violations().map(|status| status.entity.as_str()).collect();
        assert_eq!(exceeded, [entity]);
        assert_eq!(why.statuses().len(), 4);
        for (other, entity) in ["key", "project", "team", "org"].into_iter().enumerate() {
            check(&desk, &[(entity, if other == at { 9 } else { 99 })]);
        }
    }
}

#[test]
fn a_refusal_from_memory_knows_all_levels() {
    let mut desk = desk(4);
    desk.remembers = true;
    desk.configure_entity("org", &[per_minute("rpm", 10)]);
    desk.admitted("key", &[("rpm", 10)]);
    desk.ops.clear();
    let why = desk.rejected("key", &[("rpm", 1)]);
    assert_eq!(why.statuses().len(), 4);
    assert_eq!(desk.ops.len(), 0);
}

#[test]
fn an_entity_that_is_disabled_disables_all_below() {
    let mut desk = desk(4);
    desk.admitted("key", &[("rpm", 1)]);
    desk.poke("org", 0, &[("disabled", Value::Bool(true))]);
    let Decision::Disabled { bucket, .. } = desk.acquire("key", &[("rpm", 1)]) else {
        panic!();
    };
    assert_eq!(bucket.entity.as_str(), "org");
    check(&desk, &[("key", 99), ("project", 99), ("team", 99), ("org", 99)]);
}

/// The bucket of the project is stamped with its new team, which another process still knows by the old one.
#[test]
fn a_move_in_the_middle_is_followed_at_the_next_request() {
    let mut desk = desk(4);
    desk.remembers = true;
    desk.admitted("key", &[("rpm", 1)]);
    desk.entity("other-org", None, false);
    desk.entity("other-team", Some("other-org"), true);
    desk.entity_of("project", Some("other-team"), true, (8, "80729c5437a39750"));
    desk.poke(
        "project",
        0,
        &[("parent_id", Value::text("other-team")), ("pgen", Value::int(8))],
    );
    let taken = taken(&desk.acquire("key", &[("rpm", 1)]));
    assert_eq!(
        taken.into_keys().collect::<Vec<_>>(),
        ["key", "other-org", "other-team", "project"]
    );
    check(&desk, &[("key", 98), ("project", 98), ("team", 99), ("org", 99)]);
    check(&desk, &[("other-team", 99), ("other-org", 99)]);
}

/// The organisation has tokens for one request only. It is above the key before and after the move, on another level.
#[test]
fn an_entity_that_comes_nearer_or_farther_is_debited_once() {
    for (moved, parent) in [("key", "org"), ("project", "org"), ("key", "project")] {
        let mut desk = desk(4);
        if parent == "project" {
            desk.entity("key", Some("org"), true);
        }
        desk.remembers = true;
        desk.admitted("key", &[("rpm", 40)]);
        desk.entity_of(moved, Some(parent), true, (8, "80729c5437a39750"));
        desk.poke(
            moved,
            0,
            &[("parent_id", Value::text(parent)), ("pgen", Value::int(8))],
        );
        desk.ops.clear();
        desk.admitted("key", &[("rpm", 60)]);
        check(&desk, &[("key", 0), ("org", 0)]);
        let of_org = desk
            .ops
            .iter()
            .filter(|op| format!("{op:?}").contains("BUCKET#org#"));
        assert_eq!(of_org.count(), 1, "{moved} below {parent}");
    }
}

/// The last answer, of the project, says that the team is above it, whose tokens were taken already; and above the team is the
/// organisation.
#[test]
fn an_entity_that_is_found_again_leads_to_those_above_it() {
    let mut desk = desk(4);
    desk.entity("key", Some("team"), true);
    desk.entity("project", Some("org"), true);
    desk.remembers = true;
    desk.admitted("key", &[("rpm", 40)]);
    desk.admitted("project", &[("rpm", 0)]);
    for (moved, parent) in [("key", "project"), ("project", "team")] {
        desk.entity_of(moved, Some(parent), true, (8, "80729c5437a39750"));
        let stamp = [("parent_id", Value::text(parent)), ("pgen", Value::int(8))];
        desk.poke(moved, 0, &stamp);
    }
    assert_eq!(taken(&desk.acquire("key", &[("rpm", 60)])).len(), 4);
    check(&desk, &[("key", 0), ("project", 40), ("team", 0), ("org", 0)]);
}

#[test]
fn a_depth_that_is_not_known_admits_nothing() {
    for depth in [
        Value::int(9),
        Value::int(1),
        Value::text("4"),
        Value::int(1_i64 << 40),
    ] {
        let mut desk = desk(4);
        let mut item = CascadeDepth::MAX.put(&desk.namespace).item;
        item.insert("depth".into(), depth);
        desk.table.insert(item).unwrap();
        let err = desk.failed("key", &[("rpm", 1)]);
        let AcquireError::Record(RecordError::Corrupt(err)) = err else {
            panic!("{err:?}");
        };
        assert!(
            err.to_string().contains("#CASCADE_DEPTH: attribute 'depth'"),
            "{err}"
        );
    }
    let err: InvalidInput = CascadeDepth::new(9).unwrap_err();
    assert_eq!(err.to_string(), "invalid cascade_depth '9': must be from 2 to 8");
}
