//! Commands of `resource` and `entity` that refuse, let through, and move.

use crate::world::{World, assert_transcript, embedded_only};

const CALL: &str = "acquire user-1 -r gpt-4 -c rpm:1";

#[test]
fn disabled_and_enabled() {
    let mut world = World::new();
    world.run("resource set-defaults gpt-4 -l rpm:5/day");
    world.run(CALL);
    world.run("resource disable gpt-4");
    world.run(CALL);
    world.run("acquire user-2 -r gpt-4 -c rpm:1");
    world.run("acquire user-2 -r gpt-4 -c rpm:1 --output json");
    world.run("available user-1 -r gpt-4 -c rpm:1");
    world.run("available user-2 -r gpt-4 -c rpm:1 --output json");
    world.run("resource get-defaults gpt-4");
    world.run("entity enable user-1 -r gpt-4");
    world.run(CALL);
    world.run("entity get-limits user-1 -r gpt-4");
    world.run("entity get-limits user-1 -r gpt-4 --output json");
    world.run("entity disable user-1");
    world.run(CALL);
    world.run("entity create user-1");
    world.run("entity show user-1");
    world.run("entity show user-1 --output json");
    world.run("entity clear-disabled user-1 --resource gpt-4");
    world.run(CALL);
    world.run("entity clear-disabled user-1");
    world.run("resource clear-disabled gpt-4");
    world.run(CALL);
    world.run("resource get-defaults gpt-4");
    world.run("resource clear-disabled gpt-4 --output json");
    world.run("resource disable gpt-4 --output json");
    world.run("entity bypass 'no good' -r gpt-4");
    world.run("resource disable ''");
    world.run("entity disable usr-1 -r gpt-4");
    world.run("entity clear-disabled usr-1 -r gpt-4");
    assert_transcript!(world);
}

#[test]
fn bypassed() {
    embedded_only!("functions could work on a table of a server, and their version is not recorded");
    let mut world = World::new();
    world.run("resource set-defaults gpt-4 -l rpm:1/day");
    world.run(CALL);
    world.run(CALL);
    world.run("resource bypass gpt-4");
    world.run(CALL);
    world.run(CALL);
    world.run("available user-1 -r gpt-4 -c rpm:1");
    world.run("available user-1 -r gpt-4 --output json");
    world.run("resource get-defaults gpt-4");
    world.run("resource clear-disabled gpt-4");
    world.run(CALL);
    world.run("entity bypass user-1 --output json");
    world.run(CALL);
    world.run("audit list --entity-id user-1 --limit 1 --output json");
    assert_transcript!(world);
}

#[test]
fn cascading_and_moved() {
    embedded_only!("functions could work on a table of a server, and their version is not recorded");
    let mut world = World::new();
    world.run("system set-defaults -l rpm:5/day");
    for project in ["a", "b"] {
        world.run(&format!("entity create {project}"));
    }
    world.run("entity create user-1 --parent a --cascade");
    world.run(CALL);
    world.run("available a -r gpt-4 -c rpm:5");
    world.run("entity set-cascade user-1 off -r gpt-4");
    world.run("entity get-limits user-1 -r gpt-4");
    world.run(CALL);
    world.run("available a -r gpt-4 -c rpm:4");
    world.run("entity clear-cascade user-1 -r gpt-4");
    world.run("resource set-cascade gpt-4 off --output json");
    world.run("resource get-defaults gpt-4");
    world.run("resource clear-cascade gpt-4");
    world.run("entity set-parent user-1 --parent b");
    world.run("entity set-parent user-1 --parent b");
    world.run(CALL);
    world.run("available a -r gpt-4 -c rpm:4");
    world.run("available b -r gpt-4 -c rpm:5");
    world.run("entity show user-1");
    world.run("entity set-parent b --parent user-1");
    world.run("entity set-parent b --parent b");
    world.run("entity set-parent b --parent nobody");
    world.run("entity set-parent nobody --parent b");
    world.run("entity set-parent user-1 --none --output json");
    world.run("entity children b");
    world.run("entity set-parent user-1");
    world.run("entity set-parent user-1 --none --parent a");
    world.run("entity set-cascade user-1 maybe");
    assert_transcript!(world);
}
