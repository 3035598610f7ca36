//! The sample outputs of the reference page, from the data that they show.

use std::path::Path;

use zae_limiter::clock::ManualClock;
use zae_limiter::table::TableExt as _;
use zae_limiter::{Limit, NewEntity, Repository};
use zae_limiter_core::schema::version_key;
use zae_limiter_core::table::{Update, Value};

use crate::usage::snapshot;
use crate::world::{World, block_on, independent};

/// Runs a line that succeeds, and compares what it prints.
#[track_caller]
fn check(world: &mut World, line: &str, expected: &str) {
    let ran = world.run(line);
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{line}");
    assert_eq!(ran.stdout, expected, "{line}\n{}", ran.stdout);
}

fn clock(instant: &str) -> ManualClock {
    let instant: jiff::Timestamp = instant.parse().unwrap();
    ManualClock::at(instant.into())
}

/// The namespace `default` as `admin` uses it at a given instant.
fn admin(world: &World, instant: &str) -> Repository {
    let builder = Repository::builder()
        .custom_table(world.table())
        .principal("admin")
        .clock(clock(instant));
    block_on(builder.open()).unwrap()
}

#[test]
fn audit_list() {
    let mut world = World::new();
    let repo = admin(&world, "2026-01-15T10:25:00Z");
    block_on(repo.admin().create_entity(NewEntity::new("user-123"))).unwrap();
    drop(repo);
    let repo = admin(&world, "2026-01-15T10:30:00Z");
    block_on(
        repo.admin()
            .set_entity_limits("user-123", "gpt-4", [Limit::per_minute("rpm", 1)]),
    )
    .unwrap();
    drop(repo);
    let expected = "
Audit Events for: user-123

Timestamp                Action         Principal   Resource
───────────────────────  ─────────────  ──────────  ────────
2026-01-15T10:30:00Z     limits_set     admin       gpt-4
2026-01-15T10:25:00Z     entity_created admin       -

Total: 2 events
";
    check(&mut world, "audit list --entity-id user-123", expected);
    check(&mut world, "audit list --entity-id user-123 --limit 10", expected);
}

#[test]
fn check_and_version() {
    let mut world = World::new();
    let mut update = Update::new(version_key());
    for (name, text) in [
        ("schema_version", "0.6.0"),
        ("lambda_version", "0.17.0"),
        ("client_min_version", "0.5.0"),
    ] {
        update.set.push((name.into(), Value::text(text)));
    }
    assert!(block_on(world.table().update(update)).unwrap().is_applied());
    check(
        &mut world,
        "check",
        "
Compatibility Check
====================

Client:      0.17.0
Schema:      0.6.0
Lambda:      0.17.0

Result: COMPATIBLE

Client and infrastructure are fully compatible.
",
    );
    check(
        &mut world,
        "version",
        "
zae-limiter Infrastructure Version
====================================

Client Version:     0.17.0
Schema Version:     0.10.0

Infra Schema:       0.6.0
Lambda Version:     0.17.0
Min Client Version: 0.5.0

Status: COMPATIBLE
",
    );
}

#[test]
fn entity_limits() {
    let mut world = World::new();
    world.run("entity set-limits user-premium -r gpt-4 -l tpm:100000 -l rpm:1000");
    check(
        &mut world,
        "entity get-limits user-premium --resource gpt-4",
        "Limits for entity 'user-premium' on resource 'gpt-4':
  rpm: 1000/min
  tpm: 100000/min
",
    );
    world.run("entity set-limits api-key-123 -r claude-3 -l tph:50000/hour");
    // In order, which the page's sample is not.
    check(
        &mut world,
        "entity list-resources",
        "Resources with entity-level custom limits:
  claude-3
  gpt-4
",
    );
}

#[test]
fn entity_show() {
    let mut world = World::new();
    let repo = admin(&world, "2026-01-15T10:30:00Z");
    let entity = NewEntity::new("user-123")
        .name("Alice Smith")
        .parent("org-456")
        .cascade(true)
        .metadata("tier", "premium");
    block_on(repo.admin().create_entity(entity)).unwrap();
    drop(repo);
    check(
        &mut world,
        "entity show user-123",
        "Entity: user-123
  Name:       Alice Smith
  Parent:     org-456
  Cascade:    True
  Created:    2026-01-15T10:30:00Z
  Metadata:   {'tier': 'premium'}
",
    );
}

#[test]
fn resource_defaults() {
    let mut world = World::new();
    world.run("resource set-defaults gpt-4 -l tpm:50000 -l rpm:500");
    check(
        &mut world,
        "resource get-defaults gpt-4",
        "Defaults for resource 'gpt-4':
  rpm: 500/min
  tpm: 50000/min
",
    );
    world.run("resource set-defaults claude-3 -l rpm:1");
    world.run("resource set-defaults gpt-3.5-turbo -l rpm:1");
    check(
        &mut world,
        "resource list",
        "Resources with configured defaults:
  claude-3
  gpt-3.5-turbo
  gpt-4
",
    );
}

#[test]
fn system_defaults() {
    let mut world = World::new();
    world.run("system set-defaults -l tpm:100000 -l rpm:1000 --on-unavailable allow");
    check(
        &mut world,
        "system get-defaults",
        "System-wide defaults:
  Limits:
    rpm: 1000/min
    tpm: 100000/min
  on_unavailable: allow
",
    );
}

#[test]
fn usage_list() {
    let mut world = World::new();
    let namespace = world.namespace_id("default");
    world.put(
        [("10", 42, 15_000), ("09", 38, 12_500)].map(|(hour, events, tpm)| {
            let start = format!("2026-01-15T{hour}:00:00Z");
            let mut item = snapshot(&namespace, "user-123", "gpt-4", "hourly", &start, &[("tpm", tpm)]);
            item.insert("total_events".into(), Value::int(events));
            item
        }),
    );
    let expected = "
Usage Snapshots

Window Start          Type    Resource  Entity    Events  Counters
────────────────────  ──────  ────────  ────────  ──────  ────────────────
2026-01-15T10:00:00Z  hourly  gpt-4     user-123  42      tpm=15,000
2026-01-15T09:00:00Z  hourly  gpt-4     user-123  38      tpm=12,500

Total: 2 snapshots
";
    check(&mut world, "usage list --entity-id user-123", expected);
    check(
        &mut world,
        "usage list --resource gpt-4 --window hourly",
        expected,
    );
}

#[test]
fn usage_summary() {
    let mut world = World::new();
    let namespace = world.namespace_id("default");
    world.put((0..24).map(|number| {
        let (day, hour) = (14 + number / 12, 2 * (number % 12) + number / 23);
        let start = format!("2026-01-{day}T{hour:02}:00:00Z");
        let rpm = if number == 0 { 53 } else { 39 };
        let counters = [("rpm", rpm), ("tpm", 18_750)];
        snapshot(&namespace, "user-123", "gpt-4", "hourly", &start, &counters)
    }));
    check(
        &mut world,
        "usage summary --entity-id user-123 --resource gpt-4",
        "
Usage Summary

Entity:     user-123
Resource:   gpt-4
Snapshots:  24
Time Range: 2026-01-14T00:00:00Z to 2026-01-15T23:00:00Z

Limit  Total     Average
─────  ────────  ─────────
rpm        950      39.58
tpm    450,000  18,750.00

",
    );
}

/// Every command line of the page is accepted by the parser.
#[test]
fn every_example_of_the_page_is_understood() {
    let mut world = World::new();
    let id = world.id_of("default");
    for line in [
        "system set-defaults -l tpm:10000 -l rpm:100",
        "system set-defaults -l tpm:10000 --on-unavailable allow",
        "system get-defaults",
        "resource set-defaults gpt-4 -l tpm:100000 -l rpm:1000",
        "resource set-defaults gpt-4 -l rpm:1000/min -l tph:50000/hour",
        "resource get-defaults gpt-4",
        "resource list",
        "entity create user-123",
        "entity create api-key-abc --display-name 'Production API'",
        "entity create user-456 --parent org-456 --cascade",
        "entity show user-123",
        "entity set-limits user-premium -r gpt-4 -l tpm:100000 -l rpm:1000",
        "entity set-limits api-key-123 -r claude-3 -l tph:50000/hour",
        "entity get-limits user-premium --resource gpt-4",
        "entity get-limits api-key-123 -r claude-3",
        "entity list --with-custom-limits gpt-4",
        "entity list --with-custom-limits claude-3 --limit 10",
        "entity list-resources",
        "entity delete-limits user-premium -r gpt-4 --yes",
        "resource delete-defaults gpt-4 --yes",
        "system delete-defaults --yes",
        "audit list --entity-id user-123",
        "audit list --entity-id user-123 --limit 10",
        "usage list --entity-id user-123",
        "usage list --resource gpt-4 --window hourly",
        "usage list --entity-id user-123 --plot",
        "usage summary --entity-id user-123",
        "usage summary --resource gpt-4 --window daily",
        "namespace register tenant-alpha tenant-beta",
        "namespace list",
        "namespace show tenant-alpha",
        "namespace delete tenant-alpha --yes",
        "namespace orphans",
        "namespace purge aB3x_9Qw --yes",
        "entity set-limits user-123 --namespace tenant-alpha -l rpm:1000",
        "system set-defaults --namespace tenant-alpha -l rpm:5000",
        "usage list --namespace tenant-alpha -e user-123",
        "audit list --namespace tenant-alpha -e user-123",
        "check",
        "version",
    ] {
        let ran = world.run(line);
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{line}");
    }
    assert_eq!(world.id_of("default"), id);
    assert!(independent().is_some() || Path::new(&world.directory()).exists());
}
