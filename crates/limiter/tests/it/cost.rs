//! What the meter counts, against what the engine reports.

use std::sync::Arc;

use zae_limiter::table::{DynamoTable, EmbeddedEngine, Meter, TableExt as _};
use zae_limiter_core::table::{Condition, Part, Put, Update, Value};

use crate::support::{add, item, key, put, table_of};

async fn metered() -> (DynamoTable, Arc<Meter>) {
    let meter = Arc::new(Meter::new());
    let table = table_of(&EmbeddedEngine::memory().unwrap()).await;
    (table.with_meter(Arc::clone(&meter)), meter)
}

/// Units are multiples of a half, which floating point numbers hold exactly.
#[track_caller]
fn check_units(counted: f64, expected: f64) {
    assert_eq!(
        counted.to_bits(),
        expected.to_bits(),
        "{counted} rather than {expected} units"
    );
}

#[tokio::test]
async fn an_update_costs_one_unit_and_a_refused_one_does_too() {
    let (table, meter) = metered().await;
    let k = key("p", "s");
    assert!(table.update(add(&k, "n", 1)).await.unwrap().is_applied());
    let first = meter.snapshot();
    assert_eq!(
        (first.updates, first.refused, first.write_units, first.read_units),
        (1, 0, 1.0, 0.0)
    );

    let refused = Update {
        condition: Condition::AtLeast("n".into(), 5),
        ..add(&k, "n", 1)
    };
    assert!(!table.update(refused).await.unwrap().is_applied());
    let second = meter.snapshot().since(&first);
    assert_eq!(
        (
            second.updates,
            second.refused,
            second.write_units,
            second.read_units
        ),
        (1, 1, 1.0, 0.0)
    );
}

#[tokio::test]
async fn reads_come_in_halves() {
    let (table, meter) = metered().await;
    let k = key("p", "s");
    table.get(k.clone(), false).await.unwrap();
    check_units(meter.snapshot().read_units, 0.5);
    table.get(k.clone(), true).await.unwrap();
    table.batch_get(vec![k, key("p", "t")], false).await.unwrap();
    let usage = meter.snapshot();
    assert_eq!((usage.read_units, usage.reads(), usage.requests()), (2.5, 3, 3));
}

/// The engine does report what an applied write costs, so items around each kilobyte show whether the size
/// of a stored item is worked out as it does.
#[tokio::test]
async fn refused_writes_are_sized_as_the_engine_sizes_applied_ones() {
    let (table, meter) = metered().await;
    let numbers = [
        "0",
        "-1",
        "1795290198636",
        "1.25",
        "0.001",
        "-120000",
        "12345678901234567890",
    ];
    for length in (900..1100).chain(2000..2060).step_by(7) {
        let k = key("p", &length.to_string());
        let mut stored = item(
            &k,
            [
                (
                    "list",
                    Value::L(numbers.iter().map(|n| Value::N((*n).into())).collect()),
                ),
                ("set", crate::support::set_of(&["a", "bc"])),
                ("yes", Value::Bool(true)),
                ("pad", Value::text("")),
            ],
        );
        stored.insert("pad".into(), Value::text("x".repeat(length)));
        let before = meter.snapshot();
        assert!(table.put(put(stored.clone())).await.unwrap().is_applied());
        let applied = meter.snapshot().since(&before).write_units;
        let before = meter.snapshot();
        let again = Put {
            item: stored,
            condition: Condition::Absent("PK".into()),
        };
        assert!(!table.put(again).await.unwrap().is_applied());
        check_units(meter.snapshot().since(&before).write_units, applied);
    }
}

#[tokio::test]
async fn transactions_cost_twice() {
    let (table, meter) = metered().await;
    let parts = ["a", "b"]
        .map(|sk| Part::Update(add(&key("p", sk), "n", 1)))
        .to_vec();
    let _ = table.transact(parts).await.unwrap();
    let first = meter.snapshot();
    assert_eq!((first.transactions, first.write_units), (1, 4.0));
    let check = Part::Check(key("p", "none"), Condition::Exists("PK".into()));
    let _ = table
        .transact(vec![check, Part::Update(add(&key("p", "a"), "n", 1))])
        .await
        .unwrap();
    let second = meter.snapshot().since(&first);
    assert_eq!((second.refused, second.write_units), (1, 4.0));
}
