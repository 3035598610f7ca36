//! `usage`.

use zae_limiter::NamespaceId;
use zae_limiter_core::schema::add_namespace_index;
use zae_limiter_core::table::{Item, Value};

use crate::world::{World, assert_transcript, embedded_only};

/// A snapshot as the stack's aggregator stores it.
pub(crate) fn snapshot(
    namespace: &NamespaceId,
    entity: &str,
    resource: &str,
    window: &str,
    start: &str,
    counters: &[(&str, i64)],
) -> Item {
    let pk = format!("{namespace}/ENTITY#{entity}");
    let mut item = Item::from([
        ("PK".to_owned(), Value::text(&pk)),
        ("SK".to_owned(), Value::text(format!("#USAGE#{resource}#{start}"))),
        ("entity_id".to_owned(), Value::text(entity)),
        ("resource".to_owned(), Value::text(resource)),
        ("window".to_owned(), Value::text(window)),
        ("window_start".to_owned(), Value::text(start)),
        ("total_events".to_owned(), Value::int(counters.len() as i128)),
        ("ttl".to_owned(), Value::int(4_000_000_000_i64)),
        (
            "GSI2PK".to_owned(),
            Value::text(format!("{namespace}/RESOURCE#{resource}")),
        ),
        (
            "GSI2SK".to_owned(),
            Value::text(format!("USAGE#{start}#{entity}")),
        ),
    ]);
    for (name, tokens) in counters {
        item.insert((*name).to_owned(), Value::int(*tokens));
    }
    add_namespace_index(&mut item, namespace.as_str(), &pk);
    item
}

/// Some usage of two entities on two resources.
fn some_usage() -> World {
    let world = World::new();
    let namespace = world.namespace_id("default");
    let item = |entity, resource, window, start, counters: &[(&str, i64)]| {
        snapshot(&namespace, entity, resource, window, start, counters)
    };
    world.put([
        item(
            "user-9",
            "gpt-4",
            "hourly",
            "2026-01-15T02:00:00Z",
            &[("tpm", 508), ("rpm", 5)],
        ),
        item(
            "user-9",
            "gpt-4",
            "hourly",
            "2026-01-15T01:00:00Z",
            &[("tpm", 1_234_567), ("rpm", 10)],
        ),
        item(
            "user-9",
            "gpt-4",
            "daily",
            "2026-01-03T00:00:00Z",
            &[("tpm", -15)],
        ),
        item("user-9", "gpt-4", "daily", "2026-01-01T00:00:00Z", &[]),
        item(
            "user-9",
            "claude-3",
            "hourly",
            "2026-01-16T00:00:00Z",
            &[("rpm", 1)],
        ),
        item(
            "user-10",
            "gpt-4",
            "hourly",
            "2026-01-15T01:00:00Z",
            &[("tpm", 7)],
        ),
        item(
            "user-10",
            "gpt-4",
            "monthly",
            "2026-02-01T00:00:00Z",
            &[("tpm", 70)],
        ),
        // Of a soft limit; the overdrawn amount is not a counter.
        item(
            "soft",
            "gpt-5",
            "hourly",
            "2026-01-15T01:00:00Z",
            &[("rpm", 3), ("rpm#od", 2)],
        ),
    ]);
    world
}

#[test]
fn of_an_entity_of_a_resource_and_of_both() {
    let mut world = some_usage();
    world.run("usage list --entity-id user-9");
    world.run("usage list -e user-9 -r gpt-4");
    world.run("usage list --resource gpt-4");
    world.run("usage list -e soft");
    world.run("usage list -e user-9 --output json");
    world.run("usage summary --entity-id user-9");
    world.run("usage summary -e user-9 -r gpt-4");
    world.run("usage summary --resource gpt-4");
    world.run("usage summary -e user-9 -r gpt-4 --output json");
    assert_transcript!(world);
}

#[test]
fn of_one_kind_of_window() {
    let mut world = some_usage();
    world.run("usage list -e user-9 -w daily");
    world.run("usage list -r gpt-4 --window hourly");
    world.run("usage list -e user-9 -w monthly");
    world.plainly("usage list -e user-9 -w weekly");
    world.run("usage summary -e user-9 -w daily");
    world.run("usage summary -r gpt-4 -w hourly --output json");
    assert_transcript!(world);
}

#[test]
fn of_a_span_of_time() {
    let mut world = some_usage();
    // Both ends belong to it.
    world.run("usage list -e user-9 -r gpt-4 --start 2026-01-03T00:00:00Z --end 2026-01-15T01:00:00Z");
    world.run("usage list -e user-9 --start 2026-01-15");
    world.run("usage list -r gpt-4 --end 2026-01-15");
    world.run("usage list -e user-9 -r gpt-4 --start 2026-01-15T03:00:00+02:00 --end 2026-01-15T01:00:00.5Z");
    world.run("usage list -e user-9 --start 2027-01-01");
    world.run("usage list -e user-9 --start 2026-01-16 --end 2026-01-01");
    world.run("usage summary -e user-9 -r gpt-4 --start 2026-01-02 --end 2026-01-15T01:00:00Z");
    world.run("usage list -e user-9 --start yesterday");
    world.run("usage summary -e user-9 --end 31.1.2026");
    assert_transcript!(world);
}

#[test]
fn so_many_at_most() {
    let mut world = some_usage();
    world.run("usage list -e user-9 -r gpt-4 --limit 2");
    world.run("usage list -e user-9 -r gpt-4 -l 4");
    world.run("usage list -e user-9 -w daily -l 1");
    world.run("usage list -e user-9 -l 1 --output json");
    world.plainly("usage list -e user-9 -l 0");
    assert_transcript!(world);
}

#[test]
fn of_all_entities() {
    let mut world = World::new();
    world.run("usage list");
    let mut world = some_usage();
    world.run("entity create user-9");
    world.run("usage list");
    world.run("usage list --limit 3");
    world.run("usage list --window daily --output json");
    world.run("usage list --window daily --limit 1");
    world.run("usage list --start 2026-01-15 --end 2026-01-15T01:00:00Z");
    world.run("usage list --plot --window monthly");
    assert_transcript!(world);
}

#[test]
fn nothing_found_and_wrong_ways_to_ask() {
    let mut world = some_usage();
    world.run("usage list -e nobody");
    world.run("usage list -e nobody --plot");
    world.run("usage list -e nobody --output json");
    world.run("usage list -r nothing");
    world.run("usage list -e user-9 -r nothing");
    world.run("usage summary -e nobody");
    world.run("usage summary -e nobody -r gpt-4 --output json");
    world.run("usage summary");
    world.run("usage summary --window daily");
    world.run("usage list -e 'bad#e'");
    world.run("usage list -r _default_");
    world.run("usage summary -r ''");
    assert_transcript!(world);
}

#[test]
fn plotted() {
    let mut world = World::new();
    let namespace = world.namespace_id("default");
    // A day with a busy morning.
    let rpm = [
        5, 5, 5, 5, 6, 8, 10, 16, 24, 36, 46, 51, 51, 46, 36, 24, 16, 10, 8, 6, 5, 5, 5, 5,
    ];
    world.put(rpm.iter().enumerate().map(|(hour, rpm)| {
        let start = format!("2026-01-15T{hour:02}:00:00Z");
        let counters = [("rpm", *rpm), ("tpm", rpm * 100)];
        snapshot(&namespace, "user-123", "gpt-4", "hourly", &start, &counters)
    }));
    world.run("usage list --entity-id user-123 --plot");
    world.run("usage list -r gpt-4 -p -l 6");
    world.run("usage list -e user-123 -p -l 1");
    world.run("usage list -e user-123 --plot -l 1 --output json");
    assert_transcript!(world);
}

#[test]
fn plots_of_odd_data() {
    let mut world = World::new();
    let namespace = world.namespace_id("default");
    let at = |entity: &str, hour: usize, counters: &[(&str, i64)]| {
        let start = format!("2026-01-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24);
        snapshot(&namespace, entity, "gpt-4", "hourly", &start, counters)
    };
    // More points than columns, three limits, one of which is not always there.
    world.put((0..130).zip(0..).map(|(hour, up)| {
        let mut counters = vec![("tpm", up * 1000), ("down", -up)];
        if hour >= 100 {
            counters.push(("rpm", 7));
        }
        at("long", hour, &counters)
    }));
    world.put((0..5).map(|hour| at("flat", hour, &[("rpm", 42)])));
    world.put((0..3).map(|hour| at("none", hour, &[])));
    world.run("usage list -e long --plot --limit 1000");
    world.run("usage list -e flat --plot");
    world.run("usage list -e none --plot");
    assert_transcript!(world);
}

/// More than fit one page of the table's answers, which hold a thousand at most.
#[test]
fn more_than_a_page() {
    embedded_only!("a server for tests may take too long for so many items");
    let mut world = World::new();
    let namespace = world.namespace_id("default");
    world.put((0..1200).map(|hour| {
        let start = format!(
            "2026-{:02}-{:02}T{:02}:00:00Z",
            1 + hour / 672,
            1 + hour / 24 % 28,
            hour % 24
        );
        snapshot(&namespace, "busy", "gpt-4", "hourly", &start, &[("rpm", hour)])
    }));
    let listed = world.json("usage list -e busy -l 1100");
    assert_eq!(listed["snapshots"].as_array().map(Vec::len), Some(1100));
    assert_eq!(listed["more"], true);
    let listed = world.json("usage list -r gpt-4 -l 1200");
    assert_eq!(listed["snapshots"].as_array().map(Vec::len), Some(1200));
    assert_eq!(listed["more"], false);
    world.run("usage summary -e busy");
    world.run("usage summary -r gpt-4 --start 2026-02-01 --end 2026-02-28");
    assert_transcript!(world);
}
