//! Whatever a row holds, nothing panics, every acquire ends, and nothing is spent that was not there.

use proptest::prelude::*;
use zae_limiter_core::acquire::Decision;
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::config::Config;
use zae_limiter_core::entity::MetaRecord;
use zae_limiter_core::table::{Item, Value};
use zae_limiter_core::{EpochMillis, Millitokens};

use crate::drive::{Desk, NOW, per_minute};

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<i128>().prop_map(|n| n.to_string()),
        (-5_i64..5).prop_map(|n| n.to_string()),
        Just(NOW.to_string()),
        prop::sample::select(vec![
            "1.5",
            "1E+100",
            "-0",
            "007",
            "99999999999999999999999999999999999999"
        ])
        .prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => number().prop_map(|digits| Value::N(digits.into())),
        1 => "[-#:/a-z0-9 ]{0,12}".prop_map(Value::S),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => Just(Value::Null),
        1 => Just(Value::L(vec![Value::Null])),
    ]
}

fn attribute() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "rf", "shard_count", "cascade", "parent_id", "ttl", "vu", "disabled", "pgen", "pinc", "fr", "cr", "cf",
            "sched", "rsched", "sched_tz", "bypass", "b_rpm_tk", "b_rpm_cp", "b_rpm_ra", "b_rpm_rp", "b_rpm_tc",
            "b_rpm_sched", "b_rpm_rsched", "b_rpm_soft", "b_rpm_ws", "b_tpm_tk", "b_tpm_cp", "b_wcu_tk", "b_wcu_cp",
            "b_wcu_ra", "b_wcu_rp", "b__tk", "b_tk", "l_rpm_cp", "l_rpm_ra", "l_rpm_rp", "l_tpm_cp", "l_rpm_sched",
            "w_s_cp", "created_at", "entity_id", "name", "metadata", "on_unavailable", "audit_retention_days",
        ]).prop_map(str::to_owned),
        1 => "[a-z_]{1,8}",
    ]
}

/// `None` removes the attribute.
fn damage() -> impl Strategy<Value = Vec<(String, Option<Value>)>> {
    prop::collection::vec((attribute(), prop::option::weighted(0.8, value())), 1..5)
}

fn damaged(item: &Item, damage: &[(String, Option<Value>)]) -> Item {
    let mut item = item.clone();
    for (name, value) in damage {
        match value {
            Some(value) => drop(item.insert(name.clone(), value.clone())),
            None => drop(item.remove(name)),
        }
    }
    item
}

/// A bucket of a cascading entity with 60 of 100 tokens left, and its parent's.
fn desk() -> Desk {
    let mut desk = Desk::with(&[per_minute("rpm", 100), per_minute("tpm", 100)]);
    desk.entity("u", Some("p"), true);
    desk.admitted("u", &[("rpm", 40), ("tpm", 40)]);
    desk
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_damaged_bucket_never_panics_and_never_overspends(
        damage in damage(),
        parent: bool,
        ask in 0_i64..120,
        later in 0_i64..100_000,
        back in -10_i64..60,
        overridden: bool,
    ) {
        let mut desk = desk();
        desk.now += later;
        let who = if parent { "p" } else { "u" };
        let item = damaged(desk.item(who, 0), &damage);
        if desk.table.insert(item.clone()).is_err() {
            return Ok(());
        }
        if overridden {
            desk.limits = Some(vec![per_minute("rpm", 50), per_minute("tpm", 50)]);
        }
        let before = Bucket::decode(&item).ok();
        if let Decision::Admitted(grants) = desk.acquire("u", &[("rpm", ask), ("tpm", 1)]) {
            for grant in &grants {
                if grant.id.entity.as_str() == who {
                    check_covered(before.as_ref(), ask, desk.now)?;
                }
                let _ = desk.credit(grant, &[("rpm", back), ("tpm", 1)]);
            }
        }
        desk.meddle = None;
        desk.acquire("u", &[("rpm", 1)]);
    }

    #[test]
    fn damaged_configuration_never_panics(damage in damage(), slot in 0_usize..2, cold: bool) {
        let mut desk = desk();
        if cold {
            for who in ["u", "p"] {
                let key = desk.id(who).key(0);
                desk.table.remove(&key);
            }
        }
        let namespace = &desk.namespace;
        let key = match slot {
            0 => zae_limiter_core::schema::resource_config_key(namespace, &desk.resource),
            _ => zae_limiter_core::schema::meta_key(namespace, &desk.id("u").entity),
        };
        let item = damaged(desk.table.get(&key).unwrap(), &damage);
        let _ = (Config::decode(&item), MetaRecord::decode(&item), Bucket::decode(&item));
        if desk.table.insert(item).is_ok() {
            desk.acquire("u", &[("rpm", 1), ("tpm", 1)]);
            desk.acquire("u", &[("rpm", 70)]);
        }
    }
}

/// What was taken was there: on the item as it was, refilled to now.
fn check_covered(before: Option<&Bucket>, ask: i64, now: i64) -> Result<(), TestCaseError> {
    let Some(image) = before else { return Ok(()) };
    prop_assert!(!image.disabled);
    let Some(limit) = image.limit("rpm") else {
        return Ok(());
    };
    // A request that the shard does not cover may take from the others of a split bucket, which have earned the rest.
    let shards = if image.shard_count > 1 {
        1
    } else {
        image.shard_count
    };
    let now = EpochMillis(now);
    let most = image
        .terms_among(limit, shards)
        .refilled(image.balance(limit, now), now)
        .tokens
        .max(limit.balance);
    prop_assert!(
        most >= Millitokens::from_tokens(ask),
        "{most} covers {ask}? {image:?}"
    );
    Ok(())
}
