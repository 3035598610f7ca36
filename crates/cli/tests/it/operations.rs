//! `entity reset` and `entity top-up`.

use crate::world::{World, assert_transcript, embedded_only};

/// Rates so slow that nothing is earned while it runs.
#[test]
fn reset() {
    let mut world = World::new();
    world.run("resource set-defaults gpt-4 -l rpd:40/365day -l rph:5/365day");
    world.run("entity reset user-1 -r gpt-4");
    world.run("acquire user-1 -r gpt-4 -c rpd:30 -c rph:5");
    world.run("acquire user-1 -r gpt-4 -c rpd:30");
    world.run("entity reset user-1 -r gpt-4 -l rpd --idempotency-key ticket:4711");
    world.run("acquire user-1 -r gpt-4 -c rpd:30");
    world.run("entity reset user-1 -r gpt-4 -l rpd --idempotency-key ticket:4711");
    world.run("acquire user-1 -r gpt-4 -c rpd:30");
    world.run("entity reset user-1 --resource gpt-4 --limit rpd --limit rph --output json");
    world.run("acquire user-1 -r gpt-4 -c rpd:40 -c rph:5");
    world.run("audit list --entity-id user-1 --output json --limit 1");
    // Mistakes.
    world.run("entity reset user-1 -r gpt-4 -l nope");
    world.run("entity reset user-1 -r gpt-4 -l 'a b'");
    world.run("entity reset 'no good' -r gpt-4");
    world.run("entity reset user-1 -r ''");
    world.run("entity reset user-1 -r gpt-4 --idempotency-key 'a#b'");
    world.run("entity reset user-1 -r claude-3");
    world.run("entity top-up user-1 -r gpt-4 -a rph:1 --idempotency-key ticket:4711");
    assert_transcript!(world);
}

#[test]
fn topped_up_at_a_rate() {
    let mut world = World::new();
    world.run("resource set-defaults gpt-4 -l rpd:40/365day");
    world.run("entity top-up user-1 -r gpt-4 -a rpd:10");
    world.run("acquire user-1 -r gpt-4 -c rpd:40");
    world.run("entity top-up user-1 -r gpt-4 -a rpd:20");
    world.run("entity top-up user-1 -r gpt-4 -a rpd:90 --idempotency-key order-17 --output json");
    world.run("acquire user-1 -r gpt-4 -c rpd:40");
    // Mistakes.
    world.run("entity top-up user-1 -r gpt-4 -a rpd");
    world.run("entity top-up user-1 -r gpt-4 -a rpd:0");
    world.run("entity top-up user-1 -r gpt-4 -a rpd:-5");
    world.run("entity top-up user-1 -r gpt-4 -a rpd:1000000000000001");
    world.run("entity top-up user-1 -r gpt-4 -a nope:1");
    assert_transcript!(world);
}

#[test]
fn topped_up_above_a_quota() {
    embedded_only!("functions could work on a table of a server, and their version is not recorded");
    let mut world = World::new();
    world.run("resource set-defaults gpt-4 --quota 'rpy:1000@0 0 1 1 *' --session msgs:5/5hour");
    world.run("entity top-up user-1 -r gpt-4 -a rpy:200 -a msgs:3 --idempotency-key order-17");
    world.run("entity top-up user-1 -r gpt-4 -a rpy:200 -a msgs:3 --idempotency-key order-17");
    world.run("available user-1 -r gpt-4 -c rpy:1 -c msgs:1");
    world.run("acquire user-1 -r gpt-4 -c rpy:1200 -c msgs:8");
    world.run("acquire user-1 -r gpt-4 -c msgs:1");
    world.run("entity top-up user-1 -r gpt-4 -a rpy:50 --output json");
    world.run("entity reset user-1 -r gpt-4");
    world.run("acquire user-1 -r gpt-4 -c rpy:1000 -c msgs:5");
    world.run("audit list --entity-id user-1 --output json");
    assert_transcript!(world);
}
