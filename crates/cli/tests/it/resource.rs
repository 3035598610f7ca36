//! `resource`.

use crate::world::{World, assert_transcript, embedded_only};

#[test]
fn defaults_are_set_shown_listed_and_deleted() {
    let mut world = World::new();
    world.run("resource get-defaults gpt-4");
    world.run("resource list");
    world.run("resource set-defaults gpt-4 -l tpm:100000 -l rpm:1000");
    world.run("resource set-defaults claude-3 -l rpm:1000/min -l tph:50000/hour");
    world.run("resource set-defaults gpt-3.5-turbo -l rpm:10/5min:50");
    world.run("resource get-defaults gpt-4");
    world.run("resource get-defaults claude-3");
    world.run("resource get-defaults gpt-3.5-turbo");
    world.run("resource list");
    // They are replaced as a whole.
    world.run("resource set-defaults gpt-4 -l rpm:7");
    world.run("resource get-defaults gpt-4");
    world.run("resource delete-defaults gpt-4 --yes");
    world.run("resource delete-defaults gpt-4 -y");
    world.run("resource get-defaults gpt-4");
    world.run("resource list");
    world.run("audit list -e '$RESOURCE:gpt-4'");
    assert_transcript!(world);
}

#[test]
fn defaults_as_json() {
    let mut world = World::new();
    world.run("resource get-defaults gpt-4 --output json");
    world.run("resource list --output json");
    world.run("resource set-defaults gpt-4 -l tpm:100000 -l rpm:1000 --output json");
    world.run("resource set-defaults claude-3 -l rpm:1 --output json");
    world.run("resource get-defaults gpt-4 --output json");
    world.run("resource list --output json");
    world.run("resource delete-defaults gpt-4 --yes --output json");
    world.run("resource delete-defaults gpt-4 --yes --output json");
    assert_transcript!(world);
}

#[test]
fn deleting_defaults_asks() {
    let mut world = World::new();
    world.run("resource set-defaults gpt-4 -l rpm:1000");
    world.answer("resource delete-defaults gpt-4", "n\n");
    world.answer("resource delete-defaults gpt-4", "\n");
    world.answer("resource delete-defaults gpt-4", "ja\nn");
    world.answer("resource delete-defaults gpt-4", "");
    world.answer("resource delete-defaults gpt-4 --output json", "");
    world.answer("resource delete-defaults gpt-4 --output json", "n\n");
    world.run("resource list");
    world.answer("resource delete-defaults gpt-4", "ja\ny\n");
    world.run("resource list");
    assert_transcript!(world);
}

#[test]
fn defaults_with_shapes() {
    let mut world = World::new();
    let quota = "resource set-defaults gpt-4 --quota rpd:10000/day --tz Europe/Berlin";
    for more in [
        "",
        " --schedule 'rpd@* 0-6 * * *:refill 5'",
        " --schedule 'rph@* 0-6 * * *:x2'",
        " -l rpd:5",
        " --tz berlin",
        " --soft tpm",
        " -l rpm:100 --schedule 'rpm@* 9-17 * * MON-FRI:x0.5' --schedule 'rpm@* 0-6 * * *:capacity 500'",
    ] {
        world.run(&format!("{quota}{more}"));
    }
    world.run("resource get-defaults gpt-4");
    world.run("resource get-defaults gpt-4 --output json");
    world.run("resource set-defaults gpt-4 --tz UTC -l rpm:5");
    assert_transcript!(world);
}

#[test]
fn sessions_and_soft_limits() {
    embedded_only!("functions could work on a table of a server, and their version is not recorded");
    let mut world = World::new();
    world.run("resource set-defaults gpt-4 --session messages:50/5hour");
    world.run("resource get-defaults gpt-4");
    world.run("system set-defaults -l rpm:5 --soft rpm");
    world.run("entity set-limits user-1 -l rpm:5 --soft rpm");
    assert_transcript!(world);
}
