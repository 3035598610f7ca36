//! The simulator itself: it is deterministic, and finds faults.

use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::table::{Item, Key, Value};
use zae_limiter_sim::judge::check::Check;
use zae_limiter_sim::plan::Clocks;
use zae_limiter_sim::rows::change::{Change, Source};
use zae_limiter_sim::{Plan, Stats, plans, run, run_and_tell};

#[test]
fn a_seed_replays_to_the_last_event() {
    for plan in [1, 2, 3].into_iter().flat_map(plans) {
        let (one, two) = (run_and_tell(&plan), run_and_tell(&plan));
        assert_eq!(one.log, two.log);
        assert_eq!((one.stats, one.table), (two.stats, two.table));
        assert_eq!(run(&plan).stats, one.stats, "telling changes nothing");
    }
}

#[test]
fn different_seeds_are_different() {
    assert_ne!(run(&Plan::of(0)).table, run(&Plan::of(6)).table);
}

fn bucket(attrs: &[(&str, i128)]) -> Item {
    let mut item = Item::from([
        ("PK".into(), Value::text("dSkXlbmmfyU/BUCKET#u#r#0")),
        ("SK".into(), Value::text("#STATE")),
    ]);
    let base = [
        ("rf", i128::from(zae_limiter_sim::time::EPOCH_MS)),
        ("shard_count", 1),
        ("b_rpm_tk", 50_000),
        ("b_rpm_tc", 50_000),
        ("b_rpm_cp", 100_000),
        ("b_rpm_ra", 100_000),
        ("b_rpm_rp", 60_000),
    ];
    for (name, value) in base.iter().chain(attrs) {
        item.insert((*name).to_owned(), Value::int(*value));
    }
    item
}

/// Judges one write by an acquire, 6 seconds into the run.
fn judged(changed: &[(&str, i128)]) -> Result<(), String> {
    let key = Key {
        pk: "dSkXlbmmfyU/BUCKET#u#r#0".into(),
        sk: "#STATE".into(),
    };
    let mut table = MemoryTable::new();
    table.insert(bucket(&[])).map_err(|err| err.to_string())?;
    let mut check = Check::new(Clocks::default(), table.items())?;
    let change = Change {
        key,
        old: Some(bucket(&[])),
        new: Some(bucket(changed)),
    };
    check.wrote(6_000_000, Source::Acquire(0), &[change], &mut Stats::default())
}

#[test]
fn the_account_allows_what_is_earned_and_nothing_else() {
    let later = i128::from(zae_limiter_sim::time::EPOCH_MS + 6000);
    let refused = |changed: &[(&str, i128)], why: &str| {
        let err = judged(changed).unwrap_err();
        assert!(err.contains(why), "{err}");
    };
    judged(&[("b_rpm_tk", 40_000), ("b_rpm_tc", 60_000)]).unwrap();
    judged(&[("rf", later), ("b_rpm_tk", 60_000)]).unwrap();
    refused(&[("b_rpm_tk", 50_001)], "more than time earned");
    refused(&[("rf", later), ("b_rpm_tk", 60_001)], "more than time earned");
    refused(&[("b_rpm_tk", 40_000)], "lost");
    refused(&[("b_rpm_tk", -1000), ("b_rpm_tc", 101_000)], "left rpm at");
    refused(&[("b_rpm_cp", 200_000)], "parameters");
    refused(&[("b_tpm_tk", 1)], "without parameters");
    refused(&[("rf", later - 6001)], "rf fell");
    refused(&[("rf", later + 1)], "ahead of every clock");
}
