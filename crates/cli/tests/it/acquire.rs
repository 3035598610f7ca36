//! `acquire` and `available`. Limits fill up within a day or more, so that no token comes back while a test looks.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value as Json;
use zae_limiter::Refusal;

use crate::world::{Ran, World, assert_transcript, embedded_only, ended, finish};

/// A table on which every entity has some tokens of each limit.
pub(crate) fn limited(limits: &[&str]) -> World {
    let world = World::new();
    let mut args = vec!["system", "set-defaults"];
    for limit in limits {
        args.extend(["-l", limit]);
    }
    assert_eq!(world.silently(&args, None).code, Some(0));
    world
}

/// How many tokens of a limit an entity has.
#[track_caller]
pub(crate) fn left(world: &World, entity: &str, limit: &str) -> i64 {
    let found = world.json(&format!("available {entity} -r gpt-4"));
    found["available"][limit].as_i64().unwrap()
}

#[test]
fn taken_and_refused() {
    let mut world = limited(&["rpm:10/day", "tpm:1000/10day:2000"]);
    world.run("acquire user-1 -r gpt-4 -c rpm:4 -c tpm:1,500");
    world.run("available user-1 -r gpt-4");
    world.run("acquire user-1 --resource gpt-4 --consume tpm:500 --output json");
    // All or nothing.
    world.run("acquire user-1 -r gpt-4 -c rpm:1 -c tpm:100");
    world.run("acquire user-1 -r gpt-4 -c rpm:7");
    world.run("acquire user-1 -r gpt-4 -c rpm:7 -c tpm:300");
    world.run("acquire user-1 -r gpt-4 -c rpm:7 --output json");
    world.run("available user-1 -r gpt-4 --output json");
    // Others have tokens of their own, and so has another resource.
    world.run("acquire user-2 -r gpt-4 -c rpm:10");
    world.run("acquire user-1 -r claude-3 -c rpm:10");
    world.run("acquire user-1 -r gpt-4 -c rpm:6");
    world.run("acquire user-1 -r gpt-4 -c rpm:0");
    world.run("acquire user-1 -r gpt-4 -c rpm:1");
    assert_transcript!(world);
}

#[test]
fn never_possible() {
    let mut world = limited(&["rpm:10/day"]);
    world.run("acquire user-1 -r gpt-4 -c rpm:11");
    world.run("acquire user-1 -r gpt-4 -c rpm:11 --output json");
    world.run("acquire user-1 -r gpt-4 -c rpm:11 --wait 1h");
    world.run("acquire user-1 -r gpt-4 -c rpm:9_223_372_036_854_775_807");
    world.run("available user-1 -r gpt-4 -c rpm:11");
    world.run("available user-1 -r gpt-4 -c rpm:11 --output json");
    world.run("available user-1 -r gpt-4");
    assert_transcript!(world);
}

#[test]
fn the_schema_of_refusals() {
    let world = World::without_table();
    let schema = finish(&mut world.command(&["refusal-schema"]), None).json();
    assert_eq!(schema, serde_json::from_str::<Json>(Refusal::SCHEMA).unwrap());
}

/// Refuses a connection, so that there is no answer.
#[test]
fn a_table_that_does_not_answer() {
    let world = World::without_table();
    let arguments = "acquire user-1 -r gpt-4 -c rpm:1 --timeout 300ms --output json --endpoint-url http://127.0.0.1:1 --region eu-west-1";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let ran = finish(&mut world.command(&arguments), None);
    let body = Refusal::unavailable(false).into_body();
    let printed: Json = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, printed), (Some(3), body), "{}", ran.stderr);
}

#[test]
fn limits_that_nobody_set() {
    let mut world = World::new();
    world.run("acquire user-1 -r gpt-4 -c rpm:1");
    world.run("available user-1 -r gpt-4");
    world.run("system set-defaults -l rpm:10/day");
    world.run("acquire user-1 -r gpt-4 -c rpm:1 -c tpm:1");
    world.run("acquire user-1 -r gpt-4 -c 'bad name:1'");
    world.run("available user-1 -r gpt-4 -c tpm:1");
    world.run("available user-1 -r gpt-4");
    assert_transcript!(world);
}

#[test]
fn looked_at_without_taking() {
    let mut world = limited(&["rpm:10/day", "tpm:20000/365day"]);
    world.run("available user-1 -r gpt-4");
    world.run("available user-1 -r gpt-4 -c rpm:1 -c tpm:20_000");
    world.run("acquire user-1 -r gpt-4 -c rpm:10 -c tpm:5");
    world.run("available user-1 -r gpt-4 -c rpm:1");
    world.run("available user-1 -r gpt-4 -c rpm:5 --output json");
    world.run("available user-1 -r gpt-4 -c rpm:0");
    world.run("available user-1 -r gpt-4");
    assert_transcript!(world);
}

/// What an entity takes, its parent pays too.
#[test]
fn a_parent_pays_and_refuses() {
    let mut world = limited(&["rpm:10/day"]);
    world.run("entity create org-456");
    world.run("entity create kid-1 --parent org-456 --cascade");
    world.run("entity create kid-2 --parent org-456 --cascade");
    world.run("entity create guest --parent org-456");
    world.run("acquire kid-1 -r gpt-4 -c rpm:6");
    world.run("available kid-2 -r gpt-4");
    world.run("acquire kid-2 -r gpt-4 -c rpm:5");
    world.run("acquire kid-2 -r gpt-4 -c rpm:5 --output json");
    world.run("acquire guest -r gpt-4 -c rpm:10");
    world.run("available org-456 -r gpt-4");
    world.run("available kid-2 -r gpt-4 --output json");
    assert_transcript!(world);
}

#[test]
fn wrong_ways_to_ask() {
    let mut world = World::without_table();
    for line in [
        "acquire",
        "acquire u",
        "acquire u -r gpt-4",
        "acquire u -c rpm:1",
        "acquire u -r gpt-4 -c rpm",
        "acquire u -r gpt-4 -c :1",
        "acquire u -r gpt-4 -c rpm:-1",
        "acquire u -r gpt-4 -c rpm:1.5",
        "acquire u -r gpt-4 -c rpm:x",
        "acquire u -r gpt-4 -c rpm:9223372036854775808",
        "acquire u -r gpt-4 -c rpm:1 -c rpm:2",
        "acquire u -r gpt-4 -c rpm:1 --wait soon",
        "acquire u -r gpt-4 -c rpm:1 --wait 9999999h",
        "acquire u -r gpt-4 -c rpm:1 --timeout 0",
        "acquire u -r gpt-4 -c rpm:1 --on-unavailable maybe",
        "acquire u -r gpt-4 -c rpm:1 true",
        "available u",
        "available u -r gpt-4 -c rpm:1 -c rpm:1",
    ] {
        world.plainly(line);
    }
    assert_transcript!(world);
}

#[test]
fn a_command_decides_what_becomes_of_the_tokens() {
    let mut world = limited(&["rpm:10/day"]);
    world.run("acquire user-1 -r gpt-4 -c rpm:1 -- echo Hello there -n --name x");
    world.run("available user-1 -r gpt-4");
    world.run("acquire user-1 -r gpt-4 -c rpm:1 -- sh -c 'echo worked; echo but >&2; exit 3'");
    world.run("available user-1 -r gpt-4");
    world.run("acquire user-1 -r gpt-4 -c rpm:1 --output json -- echo its own output only");
    world.answer("acquire user-1 -r gpt-4 -c rpm:1 -- cat", "what it reads\n");
    world.run("available user-1 -r gpt-4");
    // It is not run if there are no tokens for it.
    world.run("acquire user-1 -r gpt-4 -c rpm:8 -- echo 'This must not be seen'");
    world.run("acquire user-1 -r gpt-4 -c rpm:8 --output json -- echo 'This must not be seen'");
    // Nor may it be taken for a refusal.
    world.run("acquire user-1 -r gpt-4 -c rpm:1 -- sh -c 'exit 75'");
    world.run("acquire user-1 -r gpt-4 -c rpm:1 -- sh -c 'exit 255'");
    world.run("available user-1 -r gpt-4");
    assert_transcript!(world);
}

#[test]
fn a_command_that_is_killed_gives_its_tokens_back() {
    let mut world = limited(&["rpm:10/day"]);
    world.run("acquire user-1 -r gpt-4 -c rpm:1");
    for signal in ["KILL", "TERM", "SEGV"] {
        world.run(&format!(
            "acquire user-1 -r gpt-4 -c rpm:5 -- sh -c 'kill -{signal} $$'"
        ));
        world.run("available user-1 -r gpt-4");
    }
    assert_transcript!(world);
}

#[test]
fn a_command_that_cannot_be_run_gives_its_tokens_back() {
    let mut world = limited(&["rpm:10/day"]);
    fs::write(world.path().join("script"), "#!/bin/sh\necho no\n").unwrap();
    fs::create_dir(world.path().join("directory")).unwrap();
    world.run("acquire user-1 -r gpt-4 -c rpm:1");
    world.run("acquire user-1 -r gpt-4 -c rpm:5 -- no-such-command --help");
    world.run("acquire user-1 -r gpt-4 -c rpm:5 -- ./no-such-file");
    world.run("acquire user-1 -r gpt-4 -c rpm:5 -- ./script");
    world.run("acquire user-1 -r gpt-4 -c rpm:5 -- ./directory");
    world.run("acquire user-1 -r gpt-4 -c rpm:5 -- ''");
    world.run("available user-1 -r gpt-4");
    assert_transcript!(world);
}

/// Starts `acquire` with a shell script in a process group of its own, and waits until the script runs.
fn running(world: &World, script: &str) -> Child {
    let script = format!("echo started; {script}");
    let args = [
        "acquire", "user-1", "-r", "gpt-4", "-c", "rpm:4", "--", "sh", "-c", &script,
    ];
    started(world.connected(&args).process_group(0))
}

pub(crate) fn started(command: &mut Command) -> Child {
    let mut child = command.spawn().unwrap();
    assert_eq!(line_of(&mut child), "started");
    child
}

/// The next line of what a running program prints, and not a byte more.
pub(crate) fn line_of(child: &mut Child) -> String {
    let stdout = child.stdout.as_mut().unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    String::from_utf8(line).unwrap()
}

pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

#[test]
fn signals_reach_the_command_and_tokens_come_back() {
    let world = limited(&["rpm:10/day"]);
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let child = running(&world, "exec sleep 600");
        kill(pid(&child), signal).unwrap();
        assert_eq!(ended(child).code, Some(128 + signal as i32));
        assert_eq!(left(&world, "user-1", "rpm"), 10, "{signal}");
    }
    // What a terminal sends to all its processes.
    let child = running(&world, "exec sleep 600");
    killpg(pid(&child), Signal::SIGINT).unwrap();
    assert_eq!(ended(child).code, Some(128 + Signal::SIGINT as i32));
    assert_eq!(left(&world, "user-1", "rpm"), 10);
}

/// A command may have its own idea of what to do about a signal; its end counts.
#[test]
fn a_command_that_survives_a_signal_keeps_its_tokens() {
    let world = limited(&["rpm:10/day"]);
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT")] {
        // The shell tells that the trap is set, and then waits for a child of its own.
        let script = "sleep 600 & child=$!; trap 'kill $child 2> /dev/null; exit 0' NAME; echo ready; wait";
        let mut child = running(&world, &script.replace("NAME", name));
        assert_eq!(line_of(&mut child), "ready");
        killpg(pid(&child), signal).unwrap();
        assert_eq!(ended(child).code, Some(0), "{signal}");
    }
    assert_eq!(left(&world, "user-1", "rpm"), 2);
}

/// Without a terminal an interrupt is meant for the program alone, which hands it on.
#[test]
fn an_interrupt_that_no_terminal_sent_is_handed_on() {
    let world = limited(&["rpm:10/day"]);
    let script = "echo started; exec sleep 600";
    let args = [
        "acquire", "user-1", "-r", "gpt-4", "-c", "rpm:4", "--", "sh", "-c", script,
    ];
    let program = world.connected(&args);
    // A session of its own has no terminal.
    let mut setsid = Command::new("setsid");
    setsid
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(world.path())
        .env_clear()
        .envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if Command::new("setsid").arg("true").status().is_err() {
        println!("skipped: there is no setsid");
        return;
    }
    let child = started(&mut setsid);
    kill(pid(&child), Signal::SIGINT).unwrap();
    assert_eq!(ended(child).code, Some(128 + Signal::SIGINT as i32));
    assert_eq!(left(&world, "user-1", "rpm"), 10);
}

#[test]
fn waited_for() {
    let mut world = limited(&["rps:10/sec", "rpm:10/day"]);
    world.run("acquire user-1 -r gpt-4 -c rps:10 -c rpm:10");
    // A second, and no more.
    world.run("acquire user-1 -r gpt-4 -c rps:10 --wait 10m");
    world.run("acquire user-1 -r gpt-4 -c rps:10 --wait 600 -- echo 'Waited for'");
    // Longer than one is ready to wait: told at once.
    world.run("acquire user-1 -r gpt-4 -c rpm:5 --wait 10m");
    world.run("acquire user-1 -r gpt-4 -c rpm:5 --wait 0 -- echo 'This must not be seen'");
    assert_transcript!(world);
}

/// Many at once get exactly what there is, on a directory that one process uses at a time.
#[test]
fn twenty_at_once() {
    embedded_only!("some servers for tests do not keep conditional writes apart");
    let world = limited(&["rpm:10/day"]);
    let args = ["acquire", "user-1", "-r", "gpt-4", "-c", "rpm:1"];
    let all: Vec<Child> = (0..20).map(|_| world.connected(&args).spawn().unwrap()).collect();
    let all: Vec<Ran> = all.into_iter().map(ended).collect();
    let ended_with = |code| all.iter().filter(|ran| ran.code == Some(code)).count();
    assert_eq!((ended_with(0), ended_with(75)), (10, 10), "{all:?}");
    assert_eq!(left(&world, "user-1", "rpm"), 0);
}

/// The policy for outages is for outages: it does not turn a refusal into an admission.
#[test]
fn an_outage_may_be_let_pass() {
    let mut world = limited(&["rpm:10/day"]);
    world.run("acquire user-1 -r gpt-4 -c rpm:10 --on-unavailable allow");
    world.run("acquire user-1 -r gpt-4 -c rpm:1 --on-unavailable allow");
    world.run("acquire user-1 -r gpt-4 -c rpm:1 --on-unavailable block --timeout 30s");
    assert_transcript!(world);
}

/// An entity's own limits come before those of the resource, and these before the system's.
#[test]
fn limits_of_every_level() {
    let mut world = limited(&["rpm:1/day"]);
    world.run("resource set-defaults gpt-4 -l rpm:2/day");
    world.run("entity set-limits special -l rpm:3/day");
    world.run("entity set-limits special -r gpt-4 -l rpm:4/day -l tpm:5/day");
    for (entity, resource) in [
        ("user", "other"),
        ("user", "gpt-4"),
        ("special", "other"),
        ("special", "gpt-4"),
    ] {
        world.run(&format!("available {entity} -r {resource}"));
    }
    world.run("acquire special -r gpt-4 -c rpm:1");
    world.run("entity set-limits special -r gpt-4 -l rpm:40/day");
    world.run("available special -r gpt-4");
    world.run("entity delete-limits special -r gpt-4 -y");
    world.run("available special -r gpt-4");
    assert_transcript!(world);
}
