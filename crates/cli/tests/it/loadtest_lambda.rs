//! Load from a function: what the command says about one that answers as a test wants.

use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value as Json, json};
use zae_limiter_loadtest::figures::Figures;
use zae_limiter_loadtest::{Event, Report, Stats};

use crate::acquire::pid;
use crate::functions::{Answers, Described, STACK, Server};
use crate::world::{Ran, World, embedded_only, finish, words};

const FUNCTION: &str = "limits-load-worker";

fn described(runtime: &str) -> Described {
    Described::As(json!({
        "FunctionName": FUNCTION, "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:f",
        "Runtime": runtime, "Timeout": 300, "MemorySize": 1769, "LastUpdateStatus": "Successful",
    }))
}

fn server() -> Server {
    Server::with(FUNCTION, described("provided.al2023"))
}

pub(crate) fn command(world: &World, url: &str, stack: &str, line: &str) -> Command {
    let place = format!("loadtest {line} -n {stack} --region us-east-1 --endpoint-url {url}");
    let mut command = world.command(&words(&place));
    command
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test");
    command
}

fn ran(world: &World, server: &Server, line: &str) -> Ran {
    finish(&mut command(world, &server.url, STACK, line), None)
}

/// An answer with these latencies in milliseconds, a hundred calls for each, after ten seconds.
fn answer(event: &Json, latencies: &[u64]) -> Json {
    let config = &event["config"];
    let mut stats = Stats::default();
    for latency in latencies {
        for _ in 0..100 {
            stats.add(Event::Acquire, "api", Duration::from_millis(*latency), None);
        }
    }
    let users = usize::try_from(config["users"].as_u64().unwrap()).unwrap();
    let report = Report {
        elapsed: Duration::from_secs(10),
        interrupted: false,
        users,
        user_time: stats.total().sum(),
        cpu: Some(Duration::from_secs(3)),
        stats,
        ..Report::of_nothing()
    };
    let mut answer = json!(Figures::of(&report.stats.total(), report.elapsed));
    answer["ran"] = json!({
        "scenario": "max_rps", "user_classes": ["MaxRpsUser"], "shape": null, "users": users,
        "rate": config["rate"], "duration_seconds": config["duration_seconds"].as_f64().unwrap_or(3600.0), "seed": config["seed"],
    });
    answer["report"] = json!(report);
    answer["timeline"] = json!([]);
    answer["memory_mb"] = json!(1769);
    for (key, value) in [
        ("names_joined", json!(false)),
        ("stopped_early", json!(false)),
        ("left_namespace", Json::Null),
    ] {
        answer[key] = value;
    }
    answer
}

#[test]
fn a_run_is_told_as_the_python_tool_does() {
    embedded_only!();
    let (world, server) = (World::without_table(), server());
    server.answer(Answers::From(|event| answer(event, &[4, 47, 47, 121])));
    let run = ran(
        &world,
        &server,
        "run -f locustfiles/max_rps.py MaxRpsUser --duration 280 --seed 5",
    );
    assert_eq!(
        run.stderr,
        "Warning: duration (280s) exceeds Lambda effective timeout (270s with 10% buffer). Test will stop early.\n"
    );
    let expected = "
Lambda Run: limits-load-worker
  Memory: 1769 MB (~1.00 vCPU)
  Timeout: 300s
  Locustfile: locustfiles/max_rps.py
  Users: 20, Duration: 280s, Spawn Rate: 10/s

Invoking Lambda (this may take a while)...

Results:
  Requests: 400
  RPS: 40.0
  Failures: 0 (0.0%)
  Avg: 55ms
  Min: 4ms / Max: 121ms
  p50: 47ms
  p95: 121ms
  p99: 121ms
  Refused: 0 (0.0% of 400 acquires)
";
    assert_eq!(run.code, Some(0), "{run:?}");
    let rest = run.stdout.strip_prefix(expected);
    let rest = rest.unwrap_or_else(|| panic!("{}", run.stdout));
    assert!(
        rest.contains("\nGenerator: 30% of the function's 1.00 vCPU\n"),
        "{rest}"
    );
    let config = server.last()["config"].clone();
    assert!(
        config["namespace"].as_str().unwrap().starts_with("loadtest-"),
        "{config}"
    );
    for (field, value) in [
        ("mode", json!("headless")),
        ("users", json!(20)),
        ("spawn_rate", json!(10.0)),
        ("duration_seconds", json!(280.0)),
        ("locustfile", json!("locustfiles/max_rps.py")),
        ("user_classes", json!(["MaxRpsUser"])),
        ("seed", json!(5)),
    ] {
        assert_eq!(config[field], value, "{config}");
    }
    // The length of a shape is known before the call.
    let spike = ran(
        &world,
        &server,
        "run -f llm_production MorningSpike LLMGatewayUser --output json",
    );
    assert_eq!(
        spike.stderr,
        "Warning: duration (3600s) exceeds Lambda effective timeout (270s with 10% buffer). Test will stop early.\n"
    );
    let document = spike.json();
    assert_eq!(server.last()["config"]["duration_seconds"], Json::Null);
    assert_eq!(
        (
            &document["function"],
            &document["memory_mb"],
            &document["timeout_seconds"]
        ),
        (&json!(FUNCTION), &json!(1769), &json!(300))
    );
    assert_eq!(document["generator_cpu"], 0.3);
}

#[test]
fn a_search_is_told_as_the_python_tool_does() {
    embedded_only!();
    let (world, server) = (World::without_table(), server());
    server.answer(Answers::From(|event| {
        let config = &event["config"];
        match config["users"].as_u64().unwrap() {
            // Too few calls the first time.
            1 if config["duration_seconds"] == json!(60.0) => {
                let mut few = answer(event, &[]);
                few["report"] = answer(event, &[7])["report"].clone();
                few["report"]["stats"] = json!({
                    "series": {"ACQUIRE": {"api": {"latencies": [[7000, 30]], "sum": {"secs": 0, "nanos": 210_000_000}, "failures": 0}}},
                    "errors": {},
                });
                few
            }
            1 | 3 => answer(event, &[7]),
            40 => answer(event, &[93]),
            9 => answer(event, &[21]),
            5 => answer(event, &[12]),
            _ => answer(event, &[9]),
        }
    }));
    let line = "tune -f locustfiles/max_rps.py";
    let tuned = ran(&world, &server, line);
    assert_eq!((tuned.code, &*tuned.stderr), (Some(0), ""), "{tuned:?}");
    let expected = "
Lambda Tune: limits-load-worker
  Memory: 1769 MB (~1.00 vCPU)
  Timeout: 300s
  Locustfile: locustfiles/max_rps.py
  Threshold: 80%
  Search range: [1, 40]

  [baseline] Invoking with 1 user(s) for 60s...
  Baseline too few requests (30 < 100), retrying with 240s...
  [baseline] Invoking with 1 user(s) for 240s...
  Baseline: p50=7ms, p95=7ms, p99=7ms, RPS=10.0, duration=240s, requests=100
  [upper] Invoking with 40 user(s) for 30s...
  Upper (40 users): p50=93ms, p95=93ms, p99=93ms, RPS=10.0, efficiency=8%, requests=100
  [search] Invoking with 9 user(s) for 30s...
  Search (9 users): p50=21ms, p95=21ms, p99=21ms, RPS=10.0, efficiency=33%, requests=100
  [search] Invoking with 3 user(s) for 30s...
  Search (3 users): p50=7ms, p95=7ms, p99=7ms, RPS=10.0, efficiency=100%, requests=100
  [search] Invoking with 5 user(s) for 30s...
  Search (5 users): p50=12ms, p95=12ms, p99=12ms, RPS=10.0, efficiency=58%, requests=100
  [search] Invoking with 4 user(s) for 30s...
  Search (4 users): p50=9ms, p95=9ms, p99=9ms, RPS=10.0, efficiency=78%, requests=100

Calibration Results (threshold: 80%):
  Users      RPS      p50      p95      p99     Reqs  Efficiency
      1     10.0      7ms      7ms      7ms      100       100% (baseline)
     40     10.0     93ms     93ms     93ms      100         8%
      9     10.0     21ms     21ms     21ms      100        33%
      3     10.0      7ms      7ms      7ms      100       100% <- optimal (>= 80%)
      5     10.0     12ms     12ms     12ms      100        58%
      4     10.0      9ms      9ms      9ms      100        78%

Optimal: 3 users per worker
  Floor latency: p50=7ms, p95=7ms, p99=7ms
  Throughput per worker: 10.0 RPS

Distributed recommendations:
  100 users:  loadtest run --workers 34 --users 100
  500 users:  loadtest run --workers 167 --users 500
  1000 users:  loadtest run --workers 334 --users 1000
";
    assert_eq!(tuned.stdout, expected);
    // The time until all users have started comes on top.
    let last = server.last()["config"].clone();
    assert_eq!(
        (&last["warm_up_seconds"], &last["duration_seconds"]),
        (&json!(0.3), &json!(30.3))
    );
    let document = ran(&world, &server, &format!("{line} --output json")).json();
    assert_eq!(
        (&document["optimal_users"], &document["function"]),
        (&json!(3), &json!(FUNCTION))
    );

    let slow = ran(&world, &server, "tune -f max_rps --max-users 10000");
    assert_eq!((slow.code, &*slow.stdout), (Some(1), ""), "{slow:?}");
    assert!(
        slow.stderr
            .starts_with("Error: With --spawn-rate 10 it takes 999 s until 10000 users have started; "),
        "{slow:?}"
    );
    let shape = ran(&world, &server, "tune -f llm_production MorningSpike");
    assert!(
        shape.stderr.starts_with("Error: A shape cannot be tuned, "),
        "{shape:?}"
    );
}

#[test]
fn what_goes_wrong_is_told_in_one_line() {
    embedded_only!();
    let world = World::without_table();
    let check = |server: &Server, line: &str, code: i32, stderr: &str| {
        let run = ran(&world, server, line);
        assert_eq!((run.code, &*run.stderr), (Some(code), stderr), "{run:?}");
        run.stdout
    };
    let nothing = "Error: Lambda function not found: limits-load-worker\nDeploy first with: zae-limiter loadtest deploy --name ...\n";
    let missing = Server::with(FUNCTION, Described::Error(404, "ResourceNotFoundException"));
    for line in ["run -f simple", "tune -f simple"] {
        assert_eq!(check(&missing, line, 1, nothing), "");
    }
    let python = Server::with(FUNCTION, described("python3.12"));
    let place = format!("-n limits --region us-east-1 --endpoint-url {}", python.url);
    let replace = format!(
        "Error: The function 'limits-load-worker' runs python3.12, as the Python tool's does. Replace it with 'zae-limiter loadtest deploy {place}'.\n"
    );
    assert_eq!(check(&python, "run -f simple", 1, &replace), "");
    assert_eq!((missing.calls(), python.calls()), (0, 0));

    let server = server();
    for (line, why) in [
        ("run -f mine.py", "Unknown scenario 'mine.py'. Scenarios are "),
        ("run -f simple Other", "User class 'Other' not found in simple. "),
        ("run -f simple --cpu 1024", "--cpu 1024 has no effect here: "),
        (
            "run -f simple --csv /no/such/file",
            "Cannot write '/no/such/file'",
        ),
    ] {
        let run = ran(&world, &server, line);
        assert_eq!((run.code, &*run.stdout), (Some(1), ""), "{run:?}");
        assert!(run.stderr.starts_with(&format!("Error: {why}")), "{run:?}");
    }
    assert_eq!(server.calls(), 0);

    server.answer(Answers::Failing(
        json!({"errorMessage": "it broke", "errorType": "X", "stackTrace": ["  here\n    there\n"]}),
    ));
    let failed = check(
        &server,
        "run -f simple",
        1,
        "\nError: Lambda execution failed: it broke\n    here\n      there\n",
    );
    assert!(
        failed.ends_with("Invoking Lambda (this may take a while)...\n"),
        "{failed}"
    );
    server.answer(Answers::Error(429, "TooManyRequestsException"));
    check(
        &server,
        "run -f simple",
        3,
        "Error: Lambda function 'limits-load-worker' is throttled; no test was run. Try again in a moment.\n",
    );
    server.answer(Answers::Error(404, "ResourceNotFoundException"));
    check(&server, "run -f simple", 1, nothing);
    server.answer(Answers::With(json!({"total_requests": 3})));
    let odd = ran(&world, &server, "run -f simple");
    assert_eq!(odd.code, Some(1), "{odd:?}");
    assert!(
        odd.stderr
            .starts_with("Error: Unexpected answer of 'limits-load-worker': missing field "),
        "{odd:?}"
    );

    let embedded = World::new();
    let run = embedded.silently(&["loadtest", "run", "-f", "simple"], None);
    assert_eq!((run.code, &*run.stdout), (Some(1), ""), "{run:?}");
    assert!(
        run.stderr
            .ends_with("has no stack. Add --local to run the users on this machine.\n"),
        "{run:?}"
    );
}

#[test]
fn a_namespace_that_the_function_left_is_removed() {
    embedded_only!();
    let (world, server) = (World::without_table(), server());
    let namespaces = || {
        let mut list = world.command(&words(&format!(
            "namespace list --output json -n {STACK} --region us-east-1 --endpoint-url {}",
            server.url
        )));
        list.env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test");
        let names = finish(&mut list, None).json();
        let names = names.as_array().unwrap().iter();
        names
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let mut register = world.command(&words(&format!(
        "namespace register loadtest-left -n {STACK} --region us-east-1 --endpoint-url {}",
        server.url
    )));
    register
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test");
    assert_eq!(finish(&mut register, None).code, Some(0));
    assert_eq!(namespaces(), ["default", "loadtest-left"]);
    server.answer(Answers::From(|event| {
        let mut answer = answer(event, &[7]);
        answer["left_namespace"] =
            json!({"name": "loadtest-left", "id": "x", "why": "it took more than 1 s"});
        answer
    }));
    let run = ran(&world, &server, "run -f simple --output json");
    assert_eq!((run.code, &*run.stderr), (Some(0), ""), "{run:?}");
    assert_eq!(namespaces(), ["default"]);
}

#[test]
fn a_signal_leaves_the_function_to_itself() {
    embedded_only!();
    let (world, server) = (World::without_table(), server());
    server.answer(Answers::Late);
    for (signal, code, last) in [
        (Signal::SIGINT, 1, ""),
        (Signal::SIGTERM, 143, "\nAborted by SIGTERM"),
    ] {
        let calls = server.calls();
        let mut child = command(&world, &server.url, STACK, "run -f simple")
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        assert!(lines.any(|line| line.starts_with("Invoking Lambda")));
        let mut looks = 0;
        while server.calls() == calls {
            looks += 1;
            assert!(looks < 12_000, "the function is not called");
            std::thread::sleep(Duration::from_millis(5));
        }
        kill(pid(&child), signal).unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(code), "{ran:?}");
        let begin = "Interrupted. The function 'limits-load-worker' goes on until the end of its test, for ";
        assert!(ran.stderr.starts_with(begin), "{ran:?}");
        let namespace = server.last()["config"]["namespace"].as_str().unwrap().to_owned();
        let end = format!(" s at most, and then removes its namespace '{namespace}'.{last}\n");
        assert!(ran.stderr.ends_with(&end), "{ran:?}");
    }
}
