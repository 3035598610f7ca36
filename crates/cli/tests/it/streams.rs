//! Closed output, and colours.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::usage::snapshot;
use crate::world::{PROGRAM, Ran, World, embedded_only};

/// A table with something of everything.
fn furnished() -> World {
    let world = World::new();
    for line in [
        "system set-defaults -l rpm:100/day",
        "resource set-defaults gpt-4 -l rpm:100/day",
        "entity create user-1 --parent org-1",
        "entity set-limits user-1 -r gpt-4 -l rpm:100/day",
        "namespace register team-a",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        assert_eq!(world.silently(&args, None).code, Some(0), "{line}");
    }
    let namespace = world.namespace_id("default");
    world.put([1, 2].map(|hour| {
        let start = format!("2026-01-15T0{hour}:00:00Z");
        snapshot(&namespace, "user-1", "gpt-4", "hourly", &start, &[("rpm", hour)])
    }));
    world
}

/// Standard output whose reader is closed.
fn nobody() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

const READS: [&str; 18] = [
    "entity show user-1",
    "entity children org-1",
    "entity get-limits user-1 -r gpt-4",
    "entity list --with-custom-limits gpt-4",
    "entity list --with-custom-limits gpt-4 --output json",
    "entity list-resources",
    "resource get-defaults gpt-4",
    "resource list",
    "system get-defaults",
    "namespace list",
    "namespace show default",
    "audit list -e user-1",
    "usage list -e user-1",
    "usage list -e user-1 --plot",
    "usage summary -e user-1 --output json",
    "available user-1 -r gpt-4",
    "version",
    "check",
];

#[test]
fn output_that_nobody_reads_is_no_failure() {
    let world = furnished();
    let acquired = [
        "acquire user-1 -r gpt-4 -c rpm:1",
        "acquire user-1 -r gpt-4 -c rpm:1 --output json",
        "entity set-limits user-1 -l rpm:7",
        "deploy",
    ];
    for line in READS.iter().chain(&acquired) {
        if *line == "deploy" && crate::world::independent().is_some() {
            continue;
        }
        let args: Vec<&str> = line.split(' ').collect();
        let output = world.connected(&args).stdout(nobody()).output().unwrap();
        let ran = Ran::of(output);
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{line}");
    }
    for line in ["--help", "entity --help", "--version", "completions bash", "man"] {
        let args: Vec<&str> = line.split(' ').collect();
        let output = world.command(&args).stdout(nobody()).output().unwrap();
        let ran = Ran::of(output);
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{line}");
    }
    // What was to be done was done.
    let found = world.json("entity get-limits user-1");
    assert_eq!(found["limits"][0]["capacity"], 7);
    let found = world.json("available user-1 -r gpt-4");
    assert_eq!(found["available"]["rpm"], 98);
}

/// A failure keeps its exit code although standard output is closed.
#[test]
fn a_refusal_that_nobody_reads_is_still_one() {
    let world = furnished();
    for (line, code) in [
        ("acquire user-1 -r gpt-4 -c rpm:100", 0),
        ("acquire user-1 -r gpt-4 -c rpm:1", 75),
        ("acquire user-1 -r gpt-4 -c rpm:1 --output json", 75),
        ("acquire user-1 -r gpt-4 -c rpm:101 --output json", 1),
        ("entity show nobody", 1),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let output = world.connected(&args).stdout(nobody()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}");
    }
}

/// Closed standard error does not cause a panic.
#[test]
fn errors_that_nobody_reads() {
    let world = World::without_table();
    for (line, code) in [
        ("entity show nobody", 4),
        ("entity show", 2),
        ("entity show a#b", 2),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let status = world
            .connected(&args)
            .stdout(nobody())
            .stderr(nobody())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{line}");
    }
}

/// As `| head -1` does it: one line is read of output that is larger than a pipe.
#[test]
fn a_reader_that_goes_away() {
    embedded_only!("a server for tests may take too long for so many items");
    let world = World::new();
    let namespace = world.namespace_id("default");
    world.put((0..700).map(|hour| {
        let start = format!(
            "2026-{:02}-{:02}T{:02}:00:00Z",
            1 + hour / 672,
            1 + hour / 24 % 28,
            hour % 24
        );
        let resource = format!("{}-{hour}", "resource".repeat(7));
        snapshot(&namespace, "busy", &resource, "hourly", &start, &[("rpm", hour)])
    }));
    for line in [
        "usage list -e busy --limit 700",
        "usage list -e busy --limit 700 --output json",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let mut child = world.connected(&args).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        assert!(first.ends_with('\n'));
        drop(stdout);
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{line}");
    }
}

/// Piped output has no escape sequences, which every run of the harness checks. They can be asked for, and the
/// wish for none comes first.
#[test]
fn colours_are_for_those_who_want_them() {
    let world = furnished();
    let run = |line: &str, variables: &[(&str, &str)]| -> Ran {
        let args: Vec<&str> = line.split(' ').collect();
        let mut command: Command = world.connected(&args);
        command.envs(variables.iter().copied());
        Ran::of(command.output().unwrap())
    };
    let escaped = |ran: &Ran| [&ran.stdout, &ran.stderr].map(|text| text.contains('\u{1b}'));
    let failing = [
        "entity show a#b",
        "entity show",
        "entity bogus",
        "entity show user-9",
    ];
    for line in READS.iter().step_by(3).chain(&failing) {
        for variables in [
            &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")],
            &[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")],
        ] {
            let ran = run(line, variables);
            assert_eq!(escaped(&ran), [false, false], "{line} {variables:?}");
        }
        // Results are the same with colours and without.
        let forced = run(line, &[("CLICOLOR_FORCE", "1"), ("TERM", "xterm")]);
        let plain = run(line, &[]);
        assert_eq!(forced.stdout, plain.stdout, "{line}");
        assert_eq!(forced.code, plain.code, "{line}");
    }
    for line in ["entity show a#b", "entity show"] {
        let ran = run(line, &[("CLICOLOR_FORCE", "1"), ("TERM", "xterm")]);
        assert_eq!(escaped(&ran), [false, true], "{line}: {ran:?}");
    }
    let help = Command::new(PROGRAM)
        .arg("--help")
        .env_clear()
        .env("CLICOLOR_FORCE", "1")
        .output();
    assert!(escaped(&Ran::of(help.unwrap()))[0]);
}
