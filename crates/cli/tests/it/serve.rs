//! `serve`: what it refuses to start with, and how it ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::acquire::pid;
use crate::world::{World, embedded_only, ended, finish};

const RULES: &str = "version: 1\ndomains:\n  gateway:\n    rules:\n      - match: {api_key: '*'}\n        entity: '{api_key}'\n        \
                     resource: api\n        consume: {rpm: 1}\n";

/// The command with free ports.
fn serving(world: &World, more: &[&str]) -> Command {
    let rules = world.path().join("rules.yaml");
    if !rules.exists() {
        fs::write(&rules, RULES).unwrap();
    }
    let mut args = vec!["serve", "--config", "rules.yaml"];
    args.extend(["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    args.extend(more);
    let mut command = world.connected(&args);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A server that is ready, its log, and the address of its HTTP port.
fn started(mut command: Command) -> (Child, BufReader<ChildStderr>, String) {
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let line = logged(&mut log, "ready");
    let address = line.split("http=").nth(1).unwrap().trim().to_owned();
    (child, log, address)
}

/// The next line of a log that has a text.
fn logged(log: &mut BufReader<ChildStderr>, text: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "no line with '{text}' in\n{seen}"
        );
        if line.contains(text) {
            return line;
        }
        seen.push_str(&line);
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_serves_reloads_and_ends_with_0() {
    embedded_only!("this uses a directory");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let world = World::new();
        let (child, mut log, address) = started(serving(&world, &[]));
        assert!(get(&address, "/readyz").starts_with("HTTP/1.1 200"));
        assert!(get(&address, "/v1/rules").contains(r#""consume":{"rpm":1}"#));
        let metrics = get(&address, "/metrics");
        assert!(
            metrics.contains("zae_limiter_server_requests_total{"),
            "{metrics}"
        );
        assert!(metrics.contains("zae_limiter_table_seconds_bucket{"), "{metrics}");

        let rules = world.path().join("rules.yaml");
        fs::write(&rules, RULES.replace("rpm: 1", "rpm: 2")).unwrap();
        kill(pid(&child), Signal::SIGHUP).unwrap();
        logged(&mut log, "in force");
        assert!(get(&address, "/v1/rules").contains(r#""consume":{"rpm":2}"#));
        fs::write(&rules, RULES.replace("consume", "consum")).unwrap();
        kill(pid(&child), Signal::SIGHUP).unwrap();
        let line = logged(&mut log, "not put in force");
        assert!(
            line.contains("line 8, column 9") && line.contains("did you mean 'consume'"),
            "{line}"
        );
        assert!(get(&address, "/v1/rules").contains(r#""consume":{"rpm":2}"#));

        kill(pid(&child), signal).unwrap();
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        let ran = ended(child);
        assert_eq!((ran.code, &*ran.stdout), (Some(0), ""), "{signal}: {rest}");
    }
}

#[test]
fn files_are_checked_without_a_table() {
    let world = World::without_table();
    let rules = world.path().join("rules.yaml");
    fs::write(&rules, RULES).unwrap();
    let check = || finish(&mut world.command(&["serve", "--check", "rules.yaml"]), None);
    let ran = check();
    assert_eq!(
        (ran.code, &*ran.stdout),
        (Some(0), "✓ rules.yaml is valid (domains: 1)\n"),
        "{ran:?}"
    );
    fs::write(&rules, RULES.replace("match", "mach")).unwrap();
    let ran = check();
    assert_eq!((ran.code, &*ran.stdout), (Some(1), ""));
    assert!(
        ran.stderr.contains(
            "Error: rules.yaml:5:9: domains.gateway.rules.0.mach is unknown; did you mean 'match'?\n"
        ),
        "{ran:?}"
    );
    fs::remove_file(&rules).unwrap();
    let ran = check();
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .starts_with("Error: Cannot use rules.yaml (the rules): No such file"),
        "{ran:?}"
    );

    let schema = finish(&mut world.command(&["serve", "--schema"]), None).json();
    assert_eq!(schema["title"], "zae-limiter rules");
}

#[test]
fn what_cannot_work_does_not_start() {
    embedded_only!("this uses a directory");
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let world_without = World::without_table();
    for (world, more, code, expected) in [
        (&world_without, vec![], 4, "Error: "),
        (
            &world,
            vec!["--http-listen", &taken],
            1,
            "Stop what uses the port, or choose another one",
        ),
        (
            &world,
            vec!["--grpc-listen", "0.0.0.0:0"],
            2,
            "--grpc-listen 0.0.0.0:0 is not a loopback address",
        ),
        (
            &world,
            vec!["--http-listen", "[::]:0"],
            2,
            "--http-listen [::]:0 is not a loopback address",
        ),
        (
            &world,
            vec!["--token-file", "missing"],
            1,
            "Error: Cannot use missing (--token-file): No such file",
        ),
        (
            &world,
            vec!["--tls-cert", "missing", "--tls-key", "missing"],
            1,
            "(--tls-cert): No such file",
        ),
        (
            &world,
            vec!["--tls-cert", "rules.yaml", "--tls-key", "rules.yaml"],
            1,
            "it has no certificate in PEM",
        ),
        (
            &world,
            vec!["--namespace", "other"],
            1,
            "Namespace 'other' not found",
        ),
    ] {
        let ran = finish(&mut serving(world, &more), None);
        assert_eq!((ran.code, &*ran.stdout), (Some(code), ""), "{more:?}: {ran:?}");
        assert!(ran.stderr.contains(expected), "{more:?}: {ran:?}");
    }
}

#[test]
fn the_log_can_be_json() {
    embedded_only!("this uses a directory");
    let world = World::new();
    let mut child = serving(&world, &["--log-format", "json"]).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let line = logged(&mut log, "ready");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["message"], &line["level"]),
        (&"ready".into(), &"INFO".into())
    );
    assert!(line["grpc"].as_str().unwrap().starts_with("127.0.0.1:"));
    kill(pid(&child), Signal::SIGTERM).unwrap();
    drop(log);
    assert_eq!(ended(child).code, Some(0));
}
