//! Load from this machine.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::acquire::pid;
use crate::world::{Ran, World, embedded_only, finish};

/// The example.
const CHAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/loadtest/chat.yaml");

/// Users with short pauses, so that other tests get their turn on the machine.
const LIGHT: &str = "\
system: {limits: {rpm: {capacity: 1000000000}}}
users:
  - name: Light
    entity: {each: {prefix: user-}}
    pause: {min: 0.004, max: 0.008}
    tasks: [{resources: [api], acquire: {rpm: 1}}]
  - name: LightCascade
    entity: {each: {prefix: user-, parent: org-}}
    pause: {min: 0.004, max: 0.008}
    tasks: [{resources: [api], acquire: {rpm: 1}}]
";

fn with_light_scenario() -> World {
    let world = World::new();
    std::fs::write(world.path().join("light.yaml"), LIGHT).unwrap();
    world
}

fn run(world: &World, line: &str) -> Ran {
    let args: Vec<&str> = ["loadtest", "run", "--local"]
        .into_iter()
        .chain(line.split(' '))
        .collect();
    world.silently(&args, None)
}

/// No namespace but the default one is left, deleted or not.
#[track_caller]
fn assert_nothing_left(world: &World) {
    let names = world.json("namespace list");
    let names: Vec<_> = names.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["default"]);
    assert_eq!(world.json("namespace orphans"), serde_json::json!([]));
}

#[test]
fn a_report_tells_what_was_measured_and_nothing_is_left() {
    let world = World::new();
    let csv = world.path().join("rows.csv");
    let line = format!(
        "-f locustfiles/llm_gateway.py --users 6 --spawn-rate 100 --duration 2 --seed 5 --output json --csv {}",
        csv.display()
    );
    let report = run(&world, &line).json();
    assert_eq!(
        (&report["scenario"], &report["seed"]),
        (&"llm_gateway".into(), &5.into())
    );
    assert_eq!(
        (&report["users"], &report["interrupted"]),
        (&6.into(), &false.into())
    );
    assert_eq!(report["total_failures"], 0, "{report}");
    let acquires = report["acquires"].as_u64().unwrap();
    assert!(acquires >= 6, "{report}");
    // Each acquire is committed with what was really used.
    assert_eq!(report["total_requests"].as_u64(), Some(acquires * 2));
    let rows = std::fs::read_to_string(csv).unwrap();
    let rows: Vec<_> = rows.lines().collect();
    assert!(
        rows[0].starts_with("type,name,requests,failures,rps,"),
        "{rows:?}"
    );
    assert!(rows[1].starts_with("ACQUIRE,"), "{rows:?}");
    let last = format!(",Aggregated,{},0,", acquires * 2);
    assert!(rows.last().is_some_and(|row| row.starts_with(&last)), "{rows:?}");
    assert_nothing_left(&world);

    std::fs::copy(CHAT, world.path().join("chat.yaml")).unwrap();
    let chat = run(&world, "-f chat.yaml Batch --users 2 --duration 1 --output json").json();
    assert_eq!(
        (&chat["scenario"], &chat["user_classes"]),
        (&"chat".into(), &serde_json::json!(["Batch"]))
    );
    assert_eq!(chat["total_failures"], 0, "{chat}");
    assert_nothing_left(&world);

    let text = run(&world, "-f simple SimpleCascadeUser --users 2 --duration 1");
    assert_eq!(text.code, Some(0), "{text:?}");
    for part in [
        "  Users: 2, Duration: 1s, Spawn Rate: 10/s",
        "\nResults:\n  Requests: ",
        "  Failures: 0 (0.0%)",
    ] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    assert_nothing_left(&world);
}

#[test]
fn an_open_loop_and_a_page() {
    embedded_only!("users without pauses would take a shared server's whole time");
    let world = World::new();
    let page = world.path().join("report.html");
    let line = format!(
        "-f max_rps MaxRpsUser --users 4 --rate 20 --duration 3 --seed 5 --output json --html {}",
        page.display()
    );
    let report = run(&world, &line).json();
    assert_eq!(
        (&report["rate"], &report["spawn_rate"]),
        (&20.0.into(), &Value::Null)
    );
    // No more than were due. On a busy machine the test ends later.
    let begun = report["total_requests"].as_f64().unwrap();
    let due = 1.0 + 20.0 * report["duration_seconds"].as_f64().unwrap();
    assert!((1.0..=due).contains(&begun), "{report}");
    let html = std::fs::read_to_string(page).unwrap();
    for part in [
        "<h1>Load test: ",
        "<svg viewBox=",
        "open loop, 20 calls due in a second",
        "<td class=\"name\">ACQUIRE</td>",
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
    // It needs nothing else.
    assert!(!html.contains("src=") && !html.contains("href=") && !html.contains("<script"));
    for (line, why) in [
        (
            "-f llm_production MorningSpike --rate 5",
            "Leave one of them out.",
        ),
        ("-f simple --rate 5 --spawn-rate 5", "cannot be used with"),
        ("-f simple --rate 0", "expected a number from 0.001 to 1000000"),
        ("-f simple --rate NaN", "expected a number from 0.001 to 1000000"),
        ("-f simple --html /", "Cannot write '/'"),
    ] {
        let ran = run(&world, line);
        assert!(ran.code != Some(0) && ran.stderr.contains(why), "{ran:?}");
    }
    assert_nothing_left(&world);
}

#[test]
fn the_schema_of_scenarios_is_printed() {
    let world = World::without_table();
    let schema = finish(&mut world.command(&["loadtest", "schema"]), None).json();
    assert_eq!(schema["required"], serde_json::json!(["users"]));
}

#[test]
fn a_signal_ends_a_test_with_what_was_measured_and_nothing_is_left() {
    embedded_only!("users without pauses would take a shared server's whole time");
    for (signal, code, last) in [
        (Signal::SIGINT, 1, ""),
        (Signal::SIGTERM, 143, "Aborted by SIGTERM\n"),
    ] {
        let world = with_light_scenario();
        let args = [
            "loadtest",
            "run",
            "--local",
            "-f",
            "light.yaml",
            "--users",
            "3",
            "--duration",
            "600",
        ];
        let mut command = world.connected(&args);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        // Its namespace is opened after the head is printed.
        assert!(lines.any(|line| line.starts_with("  Users: 3, ")));
        std::thread::sleep(Duration::from_millis(2500));
        kill(pid(&child), signal).unwrap();
        let rest: Vec<_> = lines.collect();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let stderr: String = stderr.lines().filter(|line| !line.starts_with("  [")).collect();
        assert_eq!(stderr, last.trim_end());
        assert!(rest.iter().any(|line| line == "Partial results:"), "{rest:?}");
        assert_nothing_left(&world);
    }
}

#[test]
fn tuning_finds_how_many_users_a_process_carries() {
    embedded_only!("users without pauses would take a shared server's whole time");
    let world = with_light_scenario();
    let line =
        "loadtest tune --local -f light.yaml Light --max-users 4 --baseline-duration 1 --step-duration 1";
    let tuned = world.json(line);
    let steps = tuned["steps"].as_array().unwrap();
    assert_eq!((&steps[0]["users"], &steps[1]["users"]), (&1.into(), &4.into()));
    assert_eq!(steps[0]["efficiency"], 1.0);
    assert!(
        (1..=4).contains(&tuned["optimal_users"].as_u64().unwrap()),
        "{tuned}"
    );
    assert_nothing_left(&world);

    let args: Vec<_> = line.split(' ').collect();
    let text = world.silently(&args, None);
    assert_eq!(text.code, Some(0), "{text:?}");
    for part in [
        "  Search range: [1, 4]\n",
        "\nCalibration Results (threshold: 80%):\n",
        " (baseline)\n",
        "\nOptimal: ",
    ] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    assert!(text.stderr.contains("  Upper (4 users): p50="), "{}", text.stderr);
    // Users that cascade create entities in each step.
    let line = "loadtest tune --local -f light.yaml --max-users 3 --baseline-duration 1 --step-duration 1";
    assert_eq!(world.json(line)["steps"][1]["users"], 3);
    assert_nothing_left(&world);
    let shape = world.silently(
        &[
            "loadtest",
            "tune",
            "--local",
            "-f",
            "llm_production",
            "MorningSpike",
        ],
        None,
    );
    assert_eq!(shape.code, Some(1), "{shape:?}");
    for ratio in ["0", "-1", "1.5", "NaN", "x"] {
        let args = [
            "loadtest",
            "tune",
            "--local",
            "-f",
            "simple",
            "--threshold",
            ratio,
        ];
        assert_eq!(world.silently(&args, None).code, Some(2), "{ratio}");
    }
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_is_written() {
    let world = World::new();
    std::fs::write(
        world.path().join("simple.py"),
        "import x\n\nclass MyUser(User):\n    pass\n",
    )
    .unwrap();
    std::fs::write(world.path().join("bad.yaml"), "shapes: {}\n").unwrap();
    for (line, why) in [
        (
            "-f mine.py",
            "Unknown scenario 'mine.py'. Scenarios are simple, max_rps,",
        ),
        ("-f simple Other", "User class 'Other' not found in simple."),
        ("-f no.yaml", "Cannot read 'no.yaml': No such file"),
        ("-f bad.yaml", "bad.yaml: line 1, column 1: missing field `users`"),
        ("-f simple --csv /no/such/file", "Cannot write '/no/such/file'"),
        (
            "-f simple --csv same --html same",
            "--csv and --html have the same file, 'same'. Name two.",
        ),
        (
            "-f simple --port 8089",
            "--port 8089 has no effect here: it is for tests whose master runs on Fargate. Leave it out.",
        ),
    ] {
        let ran = run(&world, line);
        assert_eq!((ran.code, &*ran.stdout), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.starts_with(&format!("Error: {why}")), "{ran:?}");
    }
    for line in [
        "-f simple --users 0",
        "-f simple --duration -1",
        "-f simple --spawn-rate 0",
        "--users 3",
    ] {
        assert_eq!(run(&world, line).code, Some(2), "{line}");
    }
    assert_nothing_left(&world);
}

#[test]
#[cfg(target_os = "linux")]
fn what_was_measured_is_printed_even_if_a_file_cannot_be_written() {
    let world = World::new();
    let pipe = world.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (file, why) in [
        ("/dev/full", "No space left on device"),
        // It is not waited for a reader.
        (pipe.to_str().unwrap(), "nothing reads this pipe"),
    ] {
        let ran = run(
            &world,
            &format!("-f simple SimpleUser --users 2 --duration 1 --csv {file}"),
        );
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stdout.contains("\nResults:\n  Requests: "), "{ran:?}");
        assert!(
            ran.stderr
                .contains(&format!("Error: Cannot write '{file}': {why}")),
            "{ran:?}"
        );
    }
    assert_nothing_left(&world);
}
