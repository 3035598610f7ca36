//! What a history of one bucket has reported, when its records are delivered as streams deliver them.

use super::*;
use crate::memory::MemoryTable;
use crate::name::{EntityId, NamespaceId, ResourceName};
use crate::table::{Answer, Op};
use crate::units::Millitokens;

/// 2026-11-30T12:00:00Z.
const NOON: EpochMillis = EpochMillis(1_796_040_000_000);
const HOUR: i64 = 3_600_000;

fn bucket() -> BucketId {
    BucketId {
        namespace: NamespaceId::new("dSkXlbmmfyU").unwrap(),
        entity: EntityId::new("proj-1").unwrap(),
        resource: ResourceName::new("gpt-4").unwrap(),
    }
}

/// A bucket of 1000 tokens, of which `left` are there, with further attributes.
fn item(rf: EpochMillis, left: i64, more: &[(&str, Value)]) -> Item {
    let mut item = bucket().key_attributes(0);
    let numbers = [
        ("rf", rf.0),
        ("shard_count", 1),
        ("b_tpd_tk", left * 1000),
        ("b_tpd_cp", 1_000_000),
        ("b_tpd_rp", 86_400_000),
    ];
    item.extend(numbers.map(|(name, value)| (name.to_owned(), Value::int(value))));
    item.extend(
        more.iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    item
}

/// A quota that is whole again at midnight.
fn quota(rf: EpochMillis, left: i64) -> Item {
    item(
        rf,
        left,
        &[
            ("b_tpd_ra", Value::int(0)),
            ("b_tpd_rsched", Value::text("1m0h0")),
        ],
    )
}

/// A session of five hours.
fn session(start: EpochMillis, left: i64) -> Item {
    let numbers = [("b_tpd_ra", 0), ("b_tpd_rsa", 18_000), ("b_tpd_ws", start.0)];
    item(
        start,
        left,
        &numbers.map(|(name, value)| (name, Value::int(value))),
    )
}

/// A limit that is full again after a day.
fn rate(rf: EpochMillis, left: i64) -> Item {
    item(rf, left, &[("b_tpd_ra", Value::int(1_000_000))])
}

/// The states of an item, and when it got into them, as records.
#[derive(Default)]
struct History {
    last: Option<Item>,
    records: Vec<StreamRecord>,
}

impl History {
    fn of(states: impl IntoIterator<Item = (EpochMillis, Item)>) -> Vec<StreamRecord> {
        let mut history = Self::default();
        for (at, new) in states {
            let old = history.last.replace(new.clone());
            let name = format!("{}", 998 + 3 * history.records.len());
            history.records.push(StreamRecord {
                change: old.as_ref().map_or(Change::Insert, |_| Change::Modify),
                sequence: Sequence::parse(&name).unwrap(),
                name,
                at: EpochMillis(at.secs() * 1000),
                old,
                new: Some(new),
            });
        }
        history.records
    }
}

/// Delivers records to a function; returns what it reports.
fn deliver(table: &mut MemoryTable, records: &[StreamRecord]) -> Vec<u8> {
    let crossings = records
        .iter()
        .flat_map(|record| crossings(record, &Thresholds::default()));
    let mut reported = Vec::new();
    for crossing in crossings {
        match table.call(&Op::Update(crossing.mark("mine"))).unwrap() {
            Answer::Applied(_) => reported.push(crossing.percent),
            Answer::Refused(Some(mark)) => {
                let period = crossing.reported(&mark).unwrap();
                assert!(!crossing.period.follows(&period), "both go by the same rule");
            }
            other => panic!("{other:?}"),
        }
    }
    reported
}

#[track_caller]
fn check(states: impl IntoIterator<Item = (EpochMillis, Item)>, expected: &[u8]) {
    let records = History::of(states);
    let mut table = MemoryTable::new();
    assert_eq!(deliver(&mut table, &records), expected);
    // Delivered again, in whole or in part, it reports nothing.
    assert_eq!(deliver(&mut table, &records), [] as [u8; 0]);
    for from in 0..records.len() {
        assert_eq!(deliver(&mut table, &records[from..]), [] as [u8; 0]);
    }
}

#[test]
fn each_threshold_is_reported_once_however_often_it_is_crossed() {
    let at = |hours| NOON.plus(hours * HOUR);
    let states = [1000, 500, 200, 199, 60, 50, 1, 0, -10];
    let states = states.map(|left| (at(1), quota(NOON, left)));
    check(states, &[80, 95, 100]);
    // Refunds in between.
    let states = [1000, 150, 400, 150, 20, 900, 20, 0];
    let states = states.map(|left| (at(1), quota(NOON, left)));
    check(states, &[80, 95, 100]);
    // Several at once, by the acquire that creates the bucket.
    check([(NOON, quota(NOON, 30))], &[80, 95]);
    check([(NOON, quota(NOON, 201))], &[]);
}

#[test]
fn a_reset_begins_another_period() {
    let midnight = NOON.plus(12 * HOUR);
    let states = [
        (NOON, quota(NOON, 100)),
        // The write of the first use of the next day, which uses 85 % of it at once.
        (midnight.plus(1), quota(midnight.plus(1), 150)),
        (midnight.plus(2), quota(midnight.plus(1), 140)),
    ];
    check(states, &[80, 80]);
    // An operator has reset it in between: the same day counts anew.
    let mut restored = quota(NOON, 1000);
    restored.insert("b_tpd_rn".into(), Value::int(1));
    let mut used_again = quota(NOON, 180);
    used_again.insert("b_tpd_rn".into(), Value::int(1));
    let states = [
        (NOON, quota(NOON, 100)),
        (NOON.plus(1), restored),
        (NOON.plus(2), used_again),
    ];
    check(states, &[80, 80]);
}

#[test]
fn records_of_an_earlier_period_are_not_reported_after_one_of_a_later() {
    let midnight = NOON.plus(12 * HOUR);
    let states = [
        (NOON, quota(NOON, 1000)),
        (NOON, quota(NOON, 100)),
        (midnight, quota(midnight, 100)),
    ];
    let records = History::of(states);
    let mut table = MemoryTable::new();
    assert_eq!(deliver(&mut table, &records[2..]), [80]);
    assert_eq!(deliver(&mut table, &records), [] as [u8; 0]);
}

#[test]
fn a_session_is_a_period() {
    let second = NOON.plus(6 * HOUR);
    let states = [
        (NOON, session(NOON, 900)),
        (NOON.plus(HOUR), session(NOON, 150)),
        (NOON.plus(2 * HOUR), session(NOON, 300)),
        (NOON.plus(3 * HOUR), session(NOON, 140)),
        (second, session(second, 100)),
    ];
    check(states, &[80, 80]);
}

#[test]
fn a_limit_that_is_refilled_is_reported_again_after_the_time_in_which_it_fills() {
    let at = |hours| NOON.plus(hours * HOUR);
    // Each pair is a write that refills, and a debit.
    let states = [
        (at(0), rate(at(0), 210)),
        (at(0), rate(at(0), 150)),
        (at(12), rate(at(12), 650)),
        (at(12), rate(at(12), 190)),
        (at(23), rate(at(23), 600)),
        (at(23), rate(at(23), 199)),
        (at(24), rate(at(24), 240)),
        (at(24), rate(at(24), 199)),
    ];
    check(states, &[80, 80]);
}

#[test]
fn what_was_earned_by_the_time_of_a_debit_counts() {
    // 100 tokens are stored, and another 500 were earned since: 45 % are used.
    let later = NOON.plus(12 * HOUR);
    check([(later, rate(NOON, 1000)), (later, rate(NOON, 100))], &[]);
    check([(NOON, rate(NOON, 1000)), (NOON, rate(NOON, 100))], &[80]);
}

#[test]
fn what_is_not_a_use_is_not_reported() {
    let with = |name: &str, value: Value| {
        let mut item = quota(NOON, 0);
        item.insert(name.into(), value);
        item
    };
    for (name, value) in [
        ("from_the_future", Value::int(1)),
        ("rf", Value::text("soon")),
        ("b_tpd_rsched", Value::text("2m0")),
        ("SK", Value::text("#OP#1")),
        ("b_tpd_cp", Value::int(0)),
    ] {
        check([(NOON, with(name, value))], &[]);
    }
    // A quota without times of reset may hold anything.
    let mut unknown = quota(NOON, 0);
    unknown.remove("b_tpd_rsched");
    check([(NOON, unknown)], &[]);
    // A new shard begins with what the others have beyond their shares.
    let mut shard = rate(NOON, 0);
    shard.extend(bucket().key_attributes(1));
    check([(NOON, shard)], &[]);
    // A bucket that goes.
    let mut records = History::of([(NOON, quota(NOON, 900)), (NOON, quota(NOON, 0))]);
    (records[1].change, records[1].new) = (Change::Remove, None);
    assert_eq!(deliver(&mut MemoryTable::new(), &records), [] as [u8; 0]);
    // No thresholds.
    let none = Thresholds::parse("", "none").unwrap();
    let record = &History::of([(NOON, quota(NOON, 0))])[0];
    assert_eq!(crossings(record, &none), []);
}

#[test]
fn a_crossing_says_what_is_left() {
    let mut records = History::of([(NOON, quota(NOON, 900)), (NOON, quota(NOON, 40))]);
    records[1].at = NOON.plus(5000);
    let found = crossings(&records[1], &Thresholds::new("", [90]).unwrap());
    let [crossing] = &found[..] else {
        panic!("{found:?}")
    };
    let midnight = NOON.plus(12 * HOUR);
    assert_eq!((crossing.percent, crossing.shard, crossing.shards), (90, 0, 1));
    assert_eq!(crossing.used.available, Millitokens::from_tokens(40));
    assert_eq!(crossing.used.capacity, Millitokens::from_tokens(1000));
    assert_eq!(crossing.resets_at, Some(midnight));
    assert!(crossing.is_quota);
    assert_eq!(crossing.at, NOON.plus(5000));
    assert_eq!(crossing.sequence, records[1].sequence);
    let key = crossing.id.key();
    assert_eq!(key.pk, "dSkXlbmmfyU/ENTITY#proj-1");
    assert_eq!(key.sk, "#ALERT#gpt-4#tpd");
    let mut mark = Item::new();
    crossing.mark("mine").apply(&mut mark);
    assert_eq!(mark["until90"], Value::int(midnight.0));
    assert_eq!(mark["ttl"], Value::int(midnight.secs() + 86_400));
    assert_eq!(mark["GSI4SK"], Value::text("dSkXlbmmfyU/ENTITY#proj-1"));
    assert!(crossing.is_marked_by(&mark, "mine") && !crossing.is_marked_by(&mark, "theirs"));
}
