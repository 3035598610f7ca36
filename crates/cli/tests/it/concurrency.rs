//! Concurrency limits, and commands that hold a place in flight.

use crate::world::{World, assert_transcript};

#[test]
fn limits_of_each_level() {
    let mut world = World::new();
    for whose in ["system", "resource", "entity"] {
        let name = match whose {
            "system" => "",
            "resource" => " gpt-4",
            _ => " user-1",
        };
        world.run(&format!("{whose} get-concurrency{name}"));
        world.run(&format!("{whose} set-concurrency{name} 5"));
        world.run(&format!("{whose} set-concurrency{name} 1 --output json"));
        world.run(&format!("{whose} get-concurrency{name}"));
        world.run(&format!("{whose} get-concurrency{name} --output json"));
    }
    world.run("entity create user-1");
    world.run("entity show user-1");
    world.run("entity show user-1 --output json");
    world.run("entity set-concurrency user-1 3 -r gpt-4");
    world.run("entity in-flight user-1 -r gpt-4");
    world.run("entity in-flight user-1 -r claude-3 --output json");
    world.run("audit list --entity-id user-1");
    for whose in ["system", "resource", "entity"] {
        let name = match whose {
            "system" => "",
            "resource" => " gpt-4",
            _ => " user-1 -r gpt-4",
        };
        world.run(&format!("{whose} delete-concurrency{name} --yes"));
        world.run(&format!("{whose} delete-concurrency{name} --yes --output json"));
    }
    world.run("entity delete-concurrency user-1 --yes");
    world.run("entity in-flight user-1 -r gpt-4");
    // Mistakes.
    world.run("entity set-concurrency user-1 0");
    world.run("entity set-concurrency user-1 1001");
    world.run("entity set-concurrency user-1 -5");
    world.run("entity set-concurrency 'no good' 5");
    world.run("resource set-concurrency gpt-4");
    world.run("entity in-flight user-1");
    assert_transcript!(world);
}

#[test]
fn a_command_holds_its_place() {
    let mut world = World::new();
    world.run("system set-defaults -l rpd:40/365day");
    world.run("acquire user-1 -r gpt-4 -c rpd:1 --in-flight -- true");
    world.run("system set-concurrency 1");
    world.run("acquire user-1 -r gpt-4 -c rpd:1 --in-flight -- true");
    world.run("acquire user-1 -r gpt-4 --in-flight --in-flight-ttl 5s -- false");
    world.run("acquire user-1 -r gpt-4 --in-flight-at-most 7 -- true");
    world.run("entity in-flight user-1 -r gpt-4");
    world.run("available user-1 -r gpt-4");
    world.run("available user-1 -r gpt-4 --in-flight");
    world.run("available user-1 -r gpt-4 --in-flight --output json");
    // Mistakes.
    world.run("acquire user-1 -r gpt-4");
    world.run("acquire user-1 -r gpt-4 --in-flight");
    world.run("acquire user-1 -r gpt-4 --in-flight --in-flight-at-most 5 -- true");
    world.run("acquire user-1 -r gpt-4 --in-flight-at-most 0 -- true");
    world.run("acquire user-1 -r gpt-4 -c rpd:1 --in-flight-ttl 30s -- true");
    world.run("acquire user-1 -r gpt-4 --in-flight --in-flight-ttl 4s -- true");
    assert_transcript!(world);
}

#[test]
fn places_along_a_chain_can_be_looked_at() {
    let mut world = World::new();
    world.run("available key -r gpt-4 --in-flight");
    world.run("system set-concurrency 4");
    world.run("available key -r gpt-4");
    world.run("available key -r gpt-4 --in-flight");
    world.run("system set-cascade-depth 4");
    world.run("entity create org");
    world.run("entity create team --parent org --cascade");
    world.run("entity create project --parent team --cascade");
    world.run("entity create key --parent project --cascade");
    for entity in ["org", "project"] {
        world.run(&format!("entity set-concurrency {entity} 100"));
    }
    world.run("system set-defaults -l rpd:40/365day");
    world.run("available key -r gpt-4 --in-flight -c rpd:41");
    assert_transcript!(world);
}
