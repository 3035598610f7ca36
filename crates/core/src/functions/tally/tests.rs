//! Whatever becomes of a stream on its way, the snapshots come out as if it had been read once, in order.

use proptest::prelude::*;

use super::*;
use crate::memory::MemoryTable;
use crate::name::{EntityId, NamespaceId, ResourceName};
use crate::schema::key_item;
use crate::table::{Answer, Op};

const WINDOWS: [Window; 3] = [Window::Hourly, Window::Daily, Window::Monthly];

/// 2026-11-30, half an hour before a new hour, day and month.
const START: i64 = 1_796_081_400_000;

fn bucket() -> BucketId {
    BucketId {
        namespace: NamespaceId::new("dSkXlbmmfyU").unwrap(),
        entity: EntityId::new("key-1").unwrap(),
        resource: ResourceName::new("gpt-4").unwrap(),
    }
}

/// What happens to a shard: net milliunits of two limits, and whether it was an acquire.
#[derive(Debug, Clone)]
enum Event {
    Spend { shard: u32, rpm: i128, tpm: i128 },
    Expire { shard: u32 },
}

/// The records of a history, as the stream has them.
fn records(events: &[(i64, Event)]) -> Vec<StreamRecord> {
    let mut shards: BTreeMap<u32, Item> = BTreeMap::new();
    let mut at = START;
    let mut records = Vec::new();
    for (number, (pause, event)) in events.iter().enumerate() {
        at += pause;
        let (shard, old, new) = match event {
            Event::Spend { shard, rpm, tpm } => {
                let old = shards.get(shard).cloned();
                let mut new = old.clone().unwrap_or_else(|| key_item(&bucket().key(*shard)));
                let mut add = |attr: &str, delta: i128| {
                    let was = new.get(attr).and_then(Value::as_int).unwrap_or(0);
                    new.insert(attr.into(), Value::int(was + delta));
                };
                add("b_rpm_tc", *rpm);
                add("b_tpm_tc", *tpm);
                // Corrections do not count as writes.
                add("b_wcu_tc", i128::from(*rpm > 0) * 1000);
                (*shard, old, Some(new))
            }
            Event::Expire { shard } => (*shard, shards.get(shard).cloned(), None),
        };
        let change = match (&old, &new) {
            (None, Some(_)) => Change::Insert,
            (Some(_), Some(_)) => Change::Modify,
            (Some(_), None) => Change::Remove,
            (None, None) => continue,
        };
        match &new {
            Some(new) => drop(shards.insert(shard, new.clone())),
            None => drop(shards.remove(&shard)),
        }
        // With gaps, as in a stream that other items share.
        let name = format!("{}", 998 + 3 * number);
        records.push(StreamRecord {
            change,
            sequence: Sequence::parse(&name).unwrap(),
            name,
            at: EpochMillis(at - at % 1000),
            old,
            new,
        });
    }
    records
}

/// Delivers a batch; each write's answer may be lost, or another function may get in between.
fn deliver(table: &mut MemoryTable, batch: &[StreamRecord], lost: bool) {
    let mut tally = Tally::default();
    for record in batch {
        tally.add(record, &WINDOWS);
    }
    for addition in tally.finish() {
        let mut stored = None;
        while let Some(update) = addition.write(stored.as_ref(), 90) {
            match table.call(&Op::Update(update.clone())).unwrap() {
                Answer::Applied(_) if lost => {
                    // The answer is lost: the same write is sent once more.
                    let again = table.call(&Op::Update(update)).unwrap();
                    assert!(matches!(again, Answer::Refused(_)));
                    break;
                }
                Answer::Refused(image) => stored = image,
                _ => break,
            }
        }
    }
}

/// The snapshots, without the marks of what was counted.
fn snapshots(table: &MemoryTable) -> Vec<Item> {
    let plain = |item: &Item| {
        let facts = item.iter().filter(|(name, _)| !name.starts_with("applied#"));
        facts.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    table.items().map(|(_, item)| plain(item)).collect()
}

fn longest_mark(table: &MemoryTable) -> usize {
    let marks = table.items().flat_map(|(_, item)| item.iter());
    let marks = marks.filter(|(name, _)| name.starts_with("applied#"));
    marks
        .map(|(_, mark)| mark.as_text().unwrap().split(' ').count())
        .max()
        .unwrap_or(0)
}

fn event() -> impl Strategy<Value = (i64, Event)> {
    let pause = prop_oneof![4 => 0_i64..3000, 1 => 0_i64..1_200_000];
    let spend = (0_u32..3, 1_i128..5, -3_i128..2000).prop_map(|(shard, rpm, tpm)| Event::Spend {
        shard,
        rpm: rpm * 1000,
        tpm: tpm * 1000,
    });
    // Corrections, which are not acquires, some of less than a token.
    let correct = (0_u32..3, -4000_i128..=0, -999_999_i128..999_999)
        .prop_map(|(shard, rpm, tpm)| Event::Spend { shard, rpm, tpm });
    let expire = (0_u32..3).prop_map(|shard| Event::Expire { shard });
    (pause, prop_oneof![8 => spend, 3 => correct, 1 => expire])
}

/// Cuts `records` at random, delivers some pieces twice and all in any order.
fn pieces() -> impl Strategy<Value = Vec<(usize, usize, bool)>> {
    prop::collection::vec((0_usize..60, 1_usize..40, any::<bool>()), 0..8)
}

proptest! {
    #[test]
    fn order_duplication_and_splitting_change_nothing(
        events in prop::collection::vec(event(), 1..60),
        size in 5_usize..30,
        shuffle in prop::collection::vec(any::<u32>(), 24),
        extra in pieces(),
    ) {
        let records = records(&events);
        let mut once = MemoryTable::new();
        deliver(&mut once, &records, false);

        let mut batches: Vec<(&[StreamRecord], bool)> =
            records.chunks(size).map(|chunk| (chunk, false)).collect();
        for (from, length, lost) in extra {
            let from = from.min(records.len());
            let to = (from + length).min(records.len());
            batches.push((&records[from..to], lost));
        }
        let mut order: Vec<usize> = (0..batches.len()).collect();
        order.sort_by_key(|number| shuffle.get(*number).copied().unwrap_or(0));
        let mut table = MemoryTable::new();
        for number in order {
            let (batch, lost) = batches[number];
            deliver(&mut table, batch, lost);
            prop_assert!(longest_mark(&table) <= MAX_RUNS);
        }
        prop_assert_eq!(snapshots(&table), snapshots(&once));
    }

    #[test]
    fn in_order_there_is_a_run_for_each_life_of_a_shard(
        events in prop::collection::vec(event(), 1..60),
        size in 1_usize..10,
    ) {
        let events: Vec<_> = events
            .into_iter()
            .filter(|(_, event)| matches!(event, Event::Spend { rpm, .. } if *rpm > 0))
            .collect();
        let records = records(&events);
        let mut once = MemoryTable::new();
        deliver(&mut once, &records, false);
        let mut table = MemoryTable::new();
        for (number, batch) in records.chunks(size).enumerate() {
            deliver(&mut table, batch, number % 2 == 1);
            // The last batch again, cut in two.
            let (one, two) = batch.split_at(batch.len() / 2);
            deliver(&mut table, one, false);
            deliver(&mut table, two, false);
        }
        prop_assert_eq!(snapshots(&table), snapshots(&once));
        prop_assert!(longest_mark(&table) <= 1);
    }

    #[test]
    fn marks_read_back_and_damaged_ones_do_no_harm(text in "[0-9a-f:\\- ]{0,60}") {
        let runs = Runs::parse(&text);
        prop_assert_eq!(Runs::parse(&runs.to_text()), runs);
    }
}

#[test]
fn the_acquire_that_creates_a_bucket_counts() {
    let spend = Event::Spend {
        shard: 0,
        rpm: 1000,
        tpm: 250_000,
    };
    let mut table = MemoryTable::new();
    deliver(&mut table, &records(&[(0, spend)]), false);
    let keys: Vec<_> = table.items().map(|(key, _)| key.sk.to_string()).collect();
    assert_eq!(
        keys,
        [
            "#USAGE#gpt-4#2026-11-01T00:00:00Z#monthly",
            "#USAGE#gpt-4#2026-11-30T00:00:00Z#daily",
            "#USAGE#gpt-4#2026-11-30T23:00:00Z",
        ]
    );
    for (_, item) in table.items() {
        assert_eq!(item["rpm"], Value::int(1));
        assert_eq!(item["tpm"], Value::int(250));
        assert_eq!(item["total_events"], Value::int(2));
    }
}

#[test]
fn the_three_windows_of_a_first_midnight_are_three_items() {
    let spend = Event::Spend {
        shard: 0,
        rpm: 1000,
        tpm: 0,
    };
    // 2026-12-01T00:00:00Z.
    let mut table = MemoryTable::new();
    deliver(&mut table, &records(&[(1_800_000, spend)]), false);
    let found: Vec<_> = snapshots(&table)
        .iter()
        .map(|item| {
            (
                item["window"].clone(),
                item["window_start"].clone(),
                item["rpm"].clone(),
            )
        })
        .collect();
    let start = Value::text("2026-12-01T00:00:00Z");
    assert_eq!(
        found,
        ["hourly", "daily", "monthly"].map(|window| (Value::text(window), start.clone(), Value::int(1)))
    );
}

#[test]
fn of_very_many_gaps_the_oldest_are_given_up() {
    let spend = |_| {
        (
            0,
            Event::Spend {
                shard: 0,
                rpm: 1000,
                tpm: 0,
            },
        )
    };
    let records = records(&(0..60).map(spend).collect::<Vec<_>>());
    let mut table = MemoryTable::new();
    // Every other record, then the rest: more gaps than are kept.
    for record in records.iter().step_by(2) {
        deliver(&mut table, std::slice::from_ref(record), false);
    }
    assert_eq!(longest_mark(&table), MAX_RUNS);
    for record in &records {
        deliver(&mut table, std::slice::from_ref(record), false);
    }
    let item = &snapshots(&table)[0];
    let counted = item["rpm"].as_int().unwrap();
    // Never more than there was.
    assert!((45..60).contains(&counted), "{counted}");
}

#[test]
fn limits_that_a_snapshot_cannot_hold_are_told() {
    let mut new = key_item(&bucket().key(0));
    new.insert("b_ttl_tc".into(), Value::int(5000));
    new.insert("b_rpm_tc".into(), Value::int(1000));
    new.insert("b_odd name_tc".into(), Value::int(1000));
    let record = StreamRecord {
        change: Change::Insert,
        sequence: Sequence::parse("1").unwrap(),
        name: "1".into(),
        at: EpochMillis(START),
        old: None,
        new: Some(new),
    };
    let mut tally = Tally::default();
    tally.add(&record, &WINDOWS);
    assert_eq!(tally.take_unusable().len(), 2);
    assert_eq!(tally.changes(), 1);
    let update = tally.finish()[0].write(None, 90).unwrap();
    assert_eq!(update.add, [("rpm".into(), 1), ("total_events".into(), 1)]);
}

#[test]
fn debits_that_leave_a_soft_limit_in_debt_are_counted() {
    let item = |consumed: i64, held: i64, soft: Option<Value>| {
        let mut item = key_item(&bucket().key(0));
        item.insert("b_rpm_tc".into(), Value::int(consumed));
        item.insert("b_rpm_tk".into(), Value::int(held));
        item.extend(soft.map(|soft| ("b_rpm_soft".to_owned(), soft)));
        item
    };
    let count = |old: Item, new: Item| {
        let mut tally = Tally::default();
        let record = StreamRecord {
            change: Change::Modify,
            sequence: Sequence::parse("1").unwrap(),
            name: "1".into(),
            at: EpochMillis(START),
            old: Some(old),
            new: Some(new),
        };
        tally.add(&record, &[Window::Hourly]);
        let update = tally.finish().remove(0).write(None, 30).unwrap();
        let mut add = update.add.iter();
        add.find(|(attr, _)| attr == "rpm#od").map(|(_, times)| *times)
    };
    let soft = || Some(Value::int(5));
    assert_eq!(count(item(0, 1000, soft()), item(2000, -1000, soft())), Some(1));
    assert_eq!(count(item(0, 1000, soft()), item(1000, 0, soft())), None);
    // Hard, or given back.
    assert_eq!(count(item(0, 1000, None), item(2000, -1000, None)), None);
    assert_eq!(count(item(5000, -4000, soft()), item(4000, -3000, soft())), None);
    // A mark of an early version.
    assert_eq!(
        count(item(0, 0, None), item(1000, -1000, Some(Value::Bool(true)))),
        Some(1)
    );
}
