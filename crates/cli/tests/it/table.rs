//! `deploy`, `version` and `check`.

use zae_limiter::table::TableExt as _;
use zae_limiter_core::schema::version_key;
use zae_limiter_core::table::{Condition, Delete, Update, Value};

use crate::world::{World, assert_transcript, block_on, embedded_only, names_in};

/// Changes the table's version record.
fn change(world: &World, attributes: &[(&str, Option<&str>)]) {
    let mut update = Update::new(version_key());
    for (name, text) in attributes {
        match text {
            Some(text) => update.set.push(((*name).into(), Value::text(*text))),
            None => update.remove.push((*name).into()),
        }
    }
    assert!(block_on(world.table().update(update)).unwrap().is_applied());
}

fn version_and_check(world: &mut World) {
    for line in ["version", "check", "version --output json", "check --output json"] {
        world.run(line);
    }
}

#[test]
fn deployed_once_and_again() {
    embedded_only!();
    let mut world = World::without_table();
    world.run("deploy");
    world.run("system set-defaults -l rpm:7");
    world.run("deploy");
    world.run("deploy --output json");
    world.run("system get-defaults");
    world.run("namespace list");
    world.plainly("deploy --endpoint-url embedded:./new/and/deep -n other-app --output json");
    world.plainly("version --endpoint-url embedded:./new/and/deep -n other-app");
    // Tables of other stacks may share the directory.
    world.plainly("deploy --endpoint-url embedded:./db");
    world.plainly("system get-defaults --endpoint-url embedded:./db");
    assert_transcript!(world);
}

#[test]
fn deployed_where_it_cannot_be() {
    let mut world = World::without_table();
    world.plainly("deploy --endpoint-url embedded:");
    world.plainly("deploy --endpoint-url embedded:/dev/null/x");
    world.plainly("deploy -n bad_name --endpoint-url embedded:./x");
    assert_transcript!(world);
    assert_eq!(names_in(world.path()), [""; 0]);
}

#[test]
fn compatible() {
    let mut world = World::new();
    version_and_check(&mut world);
    change(&world, &[("lambda_version", Some("0.16.0"))]);
    version_and_check(&mut world);
    change(&world, &[("lambda_version", Some("0.17.0"))]);
    world.run("check");
    assert_transcript!(world);
}

#[test]
fn functions_that_are_out_of_date() {
    let mut world = World::new();
    change(&world, &[("lambda_version", Some("0.9.0"))]);
    version_and_check(&mut world);
    change(&world, &[("lambda_version", Some("new\u{1b}[31m"))]);
    world.run("version");
    world.run("check");
    // It can still be used.
    world.run("system get-defaults");
    assert_transcript!(world);
}

#[test]
fn a_table_that_demands_a_newer_client() {
    let mut world = World::new();
    change(
        &world,
        &[
            ("client_min_version", Some("9.0.0")),
            ("lambda_version", Some("0.17.0")),
        ],
    );
    version_and_check(&mut world);
    for line in [
        "system get-defaults",
        "system set-defaults -l rpm:1",
        "entity create u",
        "entity show u",
        "namespace list",
        "namespace register team-a",
        "acquire u -r r -c rpm:1",
    ] {
        world.run(line);
    }
    change(&world, &[("client_min_version", Some("0.0.0"))]);
    world.run("namespace list");
    world.run("system get-defaults");
    assert_transcript!(world);
}

#[test]
fn a_table_of_another_format() {
    let mut world = World::new();
    change(&world, &[("schema_version", Some("1.0.0"))]);
    version_and_check(&mut world);
    world.run("system get-defaults");
    world.run("system set-defaults -l rpm:1");
    change(&world, &[("schema_version", Some("one\u{1b}[2J"))]);
    version_and_check(&mut world);
    world.run("system get-defaults");
    change(&world, &[("schema_version", None)]);
    world.run("check");
    assert_transcript!(world);
}

#[test]
fn a_table_without_a_version_record() {
    let mut world = World::new();
    let delete = Delete {
        key: version_key(),
        condition: Condition::ALWAYS,
    };
    assert!(block_on(world.table().delete(delete)).unwrap().is_applied());
    version_and_check(&mut world);
    // Reads do without it, and leave it so.
    world.run("system get-defaults");
    world.run("check");
    // A write makes one.
    world.run("system set-defaults -l rpm:1");
    world.run("check");
    assert_transcript!(world);
}

#[test]
fn no_table() {
    let mut world = World::without_table();
    version_and_check(&mut world);
    assert_transcript!(world);
    assert_eq!(names_in(world.path()), [""; 0]);
}
