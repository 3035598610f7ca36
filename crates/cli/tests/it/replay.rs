//! Replays of recorded traffic. They need neither a table nor AWS.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Ran, World};

const LIMITS: &str = "namespace: default
resources:
  gpt-4:
    limits:
      rpm: {capacity: 240}
      tpm: {capacity: 200000, refill_amount: 500000}
";

/// A directory with a manifest, a smaller one, a bad one, and traces.
fn furnished() -> World {
    let world = World::without_table();
    let write = |name: &str, text: &str| fs::write(world.path().join(name), text).unwrap();
    write("limits.yaml", LIMITS);
    write(
        "smaller.yaml",
        &LIMITS.replace("200000", "60000").replace("240", "30"),
    );
    write(
        "bad.yaml",
        "namespace: default\nresources:\n  gpt-4:\n    limits:\n      rpm: {capacity: many}\n",
    );
    write(
        "requests.csv",
        "timestamp,entity,tpm\n2026-01-15 09:30:00,key-1,10\n2026-01-15 09:30:01,key-1,many\n",
    );
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/sample-trace.csv");
    fs::copy(sample, world.path().join("sample.csv")).unwrap();
    world
}

fn run(world: &World, line: &str) -> Ran {
    let args: Vec<&str> = line.split(' ').collect();
    // Where a table would be: it must not be asked for.
    let mut command = world.command(&args);
    command
        .env("ZAEL_ENDPOINT", "http://127.0.0.1:1")
        .env("AWS_REGION", "us-east-1");
    Ran::of(command.output().unwrap())
}

#[test]
fn the_sample_trace() {
    let world = furnished();
    let line = "replay -m limits.yaml --compare smaller.yaml -e key-1 --html page.html sample.csv";
    let ran = run(&world, line);
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(ran.stdout) });
    // The same again, and no other file was made.
    assert_eq!(run(&world, line).stdout, ran.stdout);
    let mut files: Vec<_> = fs::read_dir(world.path())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            "bad.yaml",
            "limits.yaml",
            "page.html",
            "requests.csv",
            "sample.csv",
            "smaller.yaml"
        ]
    );
    let page = fs::read_to_string(world.path().join("page.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n") && !page.contains("<script"));
}

#[test]
fn json_for_programs() {
    let world = furnished();
    let found = run(&world, "replay -m limits.yaml -e key-1 --output json sample.csv").json();
    assert_eq!(found["trace"]["requests"], 563);
    let run_of = &found["runs"][0];
    assert_eq!(
        run_of["admitted"].as_u64().unwrap() + run_of["refused"].as_u64().unwrap(),
        563
    );
    assert_eq!(
        (&run_of["limits"][0]["level"], &found["comparison"]),
        (&"resource".into(), &serde_json::Value::Null)
    );
}

#[test]
fn requests_that_fail_are_told_from_those_that_are_refused() {
    let world = furnished();
    fs::write(
        world.path().join("tokens.yaml"),
        "{namespace: default, system: {limits: {tpm: {capacity: 9}}}, resources: {gpt-4: {limits: {rpm: {capacity: 9}}}}}",
    )
    .unwrap();
    fs::write(
        world.path().join("one.csv"),
        "time,entity,tpm\n2026-01-15 09:30:00,key-1,1\n",
    )
    .unwrap();
    let ran = run(&world, "replay -m tokens.yaml one.csv");
    assert!(
        ran.stdout
            .contains("tokens.yaml: 0 admitted, 0 refused (0.0 %), 1 failed"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("  failures  █  at most 1 in 1 s") && !ran.stdout.contains("  refusals  "),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("Requests fail, for instance of key-1: "),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_trace_from_standard_input() {
    let world = furnished();
    let mut child = world
        .command(&["replay", "-m", "limits.yaml", "-e", "key-1", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let text = fs::read(world.path().join("sample.csv")).unwrap();
    child.stdin.take().unwrap().write_all(&text).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stdout.starts_with("Replay of <stdin>: 563 requests, "),
        "{}",
        ran.stdout
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of wrong command lines")]
fn what_is_wrong_is_said() {
    let world = furnished();
    for (line, code, expected) in [
        (
            "replay -m limits.yaml requests.csv",
            1,
            "Error: requests.csv:3: column 'tpm' is 'many': must be a whole number from 0 to",
        ),
        (
            "replay -m limits.yaml sample.csv",
            1,
            "Error: sample.csv:1: the first line has no column for the entity",
        ),
        ("replay -m bad.yaml -e a sample.csv", 1, "Error: bad.yaml:5:23: "),
        (
            "replay -m limits.yaml -c bad.yaml -e a sample.csv",
            1,
            "Error: bad.yaml:5:23: ",
        ),
        (
            "replay -m limits.yaml -c gone.yaml -e a sample.csv",
            2,
            "error: invalid value 'gone.yaml' for '--compare <FILE>'",
        ),
        (
            "replay -m limits.yaml gone.csv",
            2,
            "error: invalid value 'gone.csv' for '<TRACE>'",
        ),
        (
            "replay -m - -",
            2,
            "Error: Only one of TRACE, --manifest and --compare can be '-'.",
        ),
        (
            "replay -m limits.yaml -e a#b sample.csv",
            2,
            "Error: --entity: Invalid entity_id 'a#b': ",
        ),
        (
            "replay -m limits.yaml -r 1a sample.csv",
            2,
            "Error: --resource: Invalid resource '1a': ",
        ),
        (
            "replay -m limits.yaml -e a --tz Mars/Base sample.csv",
            2,
            "Error: --tz 'Mars/Base' is not the name of a time zone",
        ),
        (
            "replay -m limits.yaml -e a --retries 2 sample.csv",
            2,
            "Error: --retries requires '--on-refusal retry'.",
        ),
        (
            "replay -m limits.yaml -e a --html ./sample.csv sample.csv",
            2,
            "Error: --html would overwrite sample.csv, which is read.",
        ),
        (
            "replay -m limits.yaml -e a --html ./limits.yaml sample.csv",
            2,
            "Error: --html would overwrite limits.yaml",
        ),
        (
            "replay -m limits.yaml -e a --html gone/page.html sample.csv",
            1,
            "Error: Cannot write gone/page.html: ",
        ),
        (
            "replay -m limits.yaml -e a --requests-limit rps sample.csv",
            1,
            "Error: sample.csv: --requests-limit is 'rps', which",
        ),
        (
            "replay -m limits.yaml -e a --every 1ms sample.csv",
            2,
            "Error: --every: Invalid every '1 ms': makes more than 10000 parts",
        ),
        (
            "replay -m limits.yaml -e a --skip-status 42 sample.csv",
            2,
            "error: invalid value '42' for '--skip-status <STATUS>'",
        ),
        (
            "replay -m limits.yaml -e a --column tpm sample.csv",
            2,
            "error: invalid value 'tpm' for '--column <ROLE=NAME>'",
        ),
        (
            "replay -m limits.yaml -e a --format log sample.csv",
            1,
            "Error: sample.csv:1: is not a line of the Common",
        ),
        (
            "replay -m limits.yaml -e a --pattern ( sample.csv",
            1,
            "Error: sample.csv: --pattern is not a regular expression",
        ),
    ] {
        let ran = run(&world, line);
        assert_eq!(
            (ran.code, &*ran.stdout),
            (Some(code), ""),
            "{line}\n{}",
            ran.stderr
        );
        assert!(ran.stderr.starts_with(expected), "{line}\n{}", ran.stderr);
    }
    // What is read is as it was.
    assert_eq!(
        fs::read_to_string(world.path().join("limits.yaml")).unwrap(),
        LIMITS
    );
    let ran = run(&world, "replay -m limits.yaml --output json requests.csv");
    assert!(
        ran.failure().starts_with("requests.csv:3: column 'tpm'"),
        "{}",
        ran.stderr
    );
}

#[test]
fn names_of_files_cannot_move_the_cursor() {
    let world = furnished();
    fs::copy(
        world.path().join("sample.csv"),
        world.path().join("a\u{1b}[2J.csv"),
    )
    .unwrap();
    let ran = Ran::of(
        world
            .command(&["replay", "-m", "limits.yaml", "-e", "a", "a\u{1b}[2J.csv"])
            .output()
            .unwrap(),
    );
    assert_eq!(ran.code, Some(0));
    assert!(
        !ran.stdout.contains('\u{1b}') && ran.stdout.contains("a\\u{1b}[2J.csv"),
        "{}",
        ran.stdout
    );
}

#[test]
fn output_without_a_reader_is_not_a_failure() {
    let world = furnished();
    for format in ["text", "json"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = world.command(&[
            "replay",
            "-m",
            "limits.yaml",
            "-e",
            "a",
            "--output",
            format,
            "sample.csv",
        ]);
        let ran = Ran::of(command.stdout(writer).output().unwrap());
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{format}");
    }
}

#[test]
fn ctrl_c_ends_a_replay_that_waits_for_its_trace() {
    let world = furnished();
    let mut child = world
        .command(&["replay", "-m", "limits.yaml", "-e", "a", "--skip-bad", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // More than is read ahead: when it is taken, the program is at work.
    let row = "2026-01-15 09:30:00,1,1\n";
    input
        .write_all(b"TIMESTAMP,ContextTokens,GeneratedTokens\n")
        .unwrap();
    input.write_all(row.repeat(100_000).as_bytes()).unwrap();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let errors: Vec<String> = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{errors:?}");
    drop(input);
}
