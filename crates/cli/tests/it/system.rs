//! `system`.

use std::io::Read as _;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{World, assert_transcript, embedded_only, ended};

#[test]
fn defaults_are_set_shown_and_deleted() {
    let mut world = World::new();
    world.run("system get-defaults");
    world.run("system set-defaults -l tpm:10000 -l rpm:100 --on-unavailable allow");
    world.run("system get-defaults");
    // They are replaced as a whole, the policy too.
    world.run("system set-defaults -l rpm:100:250");
    world.run("system get-defaults");
    world.run("system set-defaults -l rpm:100 --on-unavailable block");
    world.run("system get-defaults");
    world.run("system delete-defaults --yes");
    world.run("system delete-defaults -y");
    world.run("system get-defaults");
    world.run("audit list -e '$SYSTEM'");
    assert_transcript!(world);
}

#[test]
fn defaults_as_json() {
    let mut world = World::new();
    world.run("system get-defaults --output json");
    world.run("system set-defaults -l tpm:10000 -l rpm:100 --on-unavailable allow --output json");
    world.run("system get-defaults --output json");
    world.run("system set-defaults -l rpm:100 --output json");
    world.run("system delete-defaults --yes --output json");
    world.run("system delete-defaults --yes --output json");
    assert_transcript!(world);
}

#[test]
fn the_cascade_depth_is_set_and_shown_and_entities_beyond_it_are_named() {
    embedded_only!("functions could work on a table of a server, and their version is not recorded");
    let mut world = World::new();
    world.run("system get-cascade-depth");
    world.run("system set-defaults -l rpd:100/day");
    world.run("entity create org");
    world.run("entity create project --parent org --cascade");
    world.run("entity create key-1 --parent project --cascade");
    world.run("acquire key-1 -r gpt-4 -c rpd:60");
    world.run("available org -r gpt-4");
    world.run("system set-cascade-depth 3");
    world.run("acquire key-1 -r gpt-4 -c rpd:30");
    world.run("available org -r gpt-4");
    // Of the project one more, so that not both waits are the longest.
    world.run("acquire project -r gpt-4 -c rpd:1");
    world.run("available key-1 -r gpt-4 -c rpd:20 --output json");
    world.run("acquire key-1 -r gpt-4 -c rpd:20");
    // More than the organisation has.
    world.run("entity set-limits org -r gpt-4 -l rpd:50/day");
    world.run("entity set-limits key-1 -r gpt-4 -l rpd:60/day");
    world.run("entity show key-1");
    world.run("entity create other-key --parent key-1 --cascade");
    world.run("entity set-parent other-key --parent project");
    world.run("system set-cascade-depth 9");
    world.run("system set-cascade-depth 1 --output json");
    world.run("system set-cascade-depth 2 --output json");
    world.run("system get-cascade-depth --output json");
    world.run("audit list -e '$SYSTEM'");
    assert_transcript!(world);
}

#[test]
fn deleting_defaults_asks() {
    let mut world = World::new();
    world.run("system set-defaults -l rpm:100");
    world.answer("system delete-defaults", "n\n");
    world.answer("system delete-defaults", "\n");
    world.answer("system delete-defaults", "1\n2\nN\n");
    world.answer("system delete-defaults", "");
    world.answer("system delete-defaults", "garbage, and then nothing");
    world.answer("system delete-defaults --output json", "n\n");
    world.run("system get-defaults");
    world.answer("system delete-defaults --output json", "y\n");
    world.run("system get-defaults");
    world.run("system set-defaults -l rpm:100");
    world.answer("system delete-defaults", "garbage\ny\n");
    world.run("system get-defaults");
    assert_transcript!(world);
}

/// Ctrl-C at the question does not count as an answer.
#[test]
fn interrupted_at_the_question() {
    let mut world = World::new();
    world.run("system set-defaults -l rpm:100");
    let mut command = world.connected(&["system", "delete-defaults"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut asked = vec![0; "Delete all system-wide defaults? [y/N]: ".len()];
    child.stdout.as_mut().unwrap().read_exact(&mut asked).unwrap();
    assert_eq!(asked, b"Delete all system-wide defaults? [y/N]: ");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    // The question gets no answer, and standard input stays open.
    let answers = child.stdin.take();
    kill(pid, Signal::SIGINT).unwrap();
    let ran = ended(child);
    drop(answers);
    world.note("system delete-defaults", "   # interrupted", &ran);
    world.run("system get-defaults");
    assert_transcript!(world);
}

/// The namespaces of one table are isolated from each other.
#[test]
fn defaults_of_another_namespace() {
    let mut world = World::new();
    world.run("system get-defaults -N tenant-a");
    world.run("system set-defaults --namespace tenant-a -l rpm:5000");
    world.run("system get-defaults -N tenant-a");
    world.run("system get-defaults");
    world.run("namespace list");
    assert_transcript!(world);
}
