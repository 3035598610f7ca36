//! Load from functions that a master leads. The functions run on the local endpoint; a stand-in for ECS starts the master as a
//! process, and stand-ins for the AWS CLI and its plugin open no tunnel, as the master is on this machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value as Json, json};

use crate::acquire::pid;
use crate::distributed::wait_until;
use crate::loadtest_function::{ask, package};
use crate::loadtest_stack::executable;
use crate::local::Local;
use crate::world::{PROGRAM, Ran, embedded_only, finish, words};

/// The ARN of the task.
const TASK: &str = "arn:aws:ecs:us-east-1:000000000000:task/my-app-load/0123abcd";

const SCENARIO: &str = "\
system:
  limits:
    rpm: {capacity: 1000000}
users:
  - name: Caller
    entity: {each: {prefix: caller-}}
    pause: {min: 0.01, max: 0.02}
    tasks: [{resources: [gpt-4], acquire: {rpm: 1}}]
  - name: Other
    entity: {each: {prefix: other-}}
    pause: {min: 0.01, max: 0.02}
    tasks: [{resources: [gpt-5], acquire: {rpm: 1}}]
shapes:
  Steps: [{users: 0, seconds: 0.5}, {users: 2, seconds: 2}, {users: 4, seconds: 1.5}]
";

/// What ECS knows.
#[derive(Default)]
struct Ecs {
    /// The master's process.
    master: Option<Child>,
    /// The last request for a task.
    asked: Json,
    /// Operations, in the order of the calls.
    calls: Vec<String>,
    /// Whether there is no room for a task.
    full: bool,
    /// Whether tasks are started without an answer.
    is_cut_off: bool,
}

/// The stand-in for ECS.
struct Fargate {
    local: Local,
    url: String,
    ecs_url: String,
    /// The port of the master's page.
    port: u16,
    state: Arc<Mutex<Ecs>>,
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl Fargate {
    /// A target with load generators.
    fn new() -> Self {
        let local = Local::new();
        let up = local.up("--name my-app");
        let url = up["url"].as_str().unwrap().replace("localhost", "127.0.0.1");
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let fargate = Self {
            ecs_url: format!("http://{}", listener.local_addr().unwrap()),
            local,
            url,
            port: free_port(),
            state: Arc::default(),
        };
        let path = fargate.local.world.path();
        fs::write(path.join("mine.yaml"), SCENARIO).unwrap();
        fs::write(path.join("worker"), executable(b"")).unwrap();
        fargate.program("session-manager-plugin", "exit 1");
        fargate.program(
            "aws",
            &format!(
                "echo \"$@\" >> '{}'\nexec sleep 600",
                fargate.sessions().display()
            ),
        );
        let starts = fargate.starts();
        let state = Arc::clone(&fargate.state);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(&stream, &state, &starts);
            }
        });
        fargate
    }

    /// [`new`](Self::new), with the functions and their executable, too.
    fn deployed() -> Self {
        let fargate = Self::new();
        let network = "--vpc-id vpc-1 --subnet-ids subnet-a,subnet-b --no-dynamodb-endpoint";
        let deployed = fargate.run(&format!(
            "deploy -n my-app {network} --lambda-package worker --lambda-timeout 2"
        ));
        assert_eq!(deployed.code, Some(0), "{deployed:?}");
        let code = json!({"ZipFile": package(&[])}).to_string();
        let updated = ask(
            &fargate.url,
            "PUT /2015-03-31/functions/my-app-load-worker/code",
            code.as_bytes(),
        );
        let updated: Json = serde_json::from_str(updated.split_once("\r\n\r\n").unwrap().1).unwrap();
        // The master of this test is the program under test, and fetches nothing.
        let sha256 = hex(updated["CodeSha256"].as_str().unwrap());
        let bucket = "zae-limiter-code-000000000000-us-east-1";
        let refused = fargate.run("run -n my-app --workers 1 -f mine.yaml");
        assert_eq!(
            refused.stderr,
            format!(
                "Error: code bucket '{bucket}': it holds no 'functions/{sha256}.bootstrap', the executable of the function \
                 'my-app-load-worker', or may not be read; 'zae-limiter loadtest push' uploads it\n"
            )
        );
        let put = ask(
            &fargate.url,
            &format!("PUT /{bucket}/functions/{sha256}.bootstrap"),
            b"x",
        );
        assert!(put.starts_with("HTTP/1.1 200 "), "{put}");
        fargate
    }

    /// Puts a program in front of the search path.
    fn program(&self, name: &str, text: &str) {
        let folder = self.local.world.path().join("bin");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Where the stand-in for the AWS CLI writes what it is asked.
    fn sessions(&self) -> PathBuf {
        self.local.world.path().join("sessions")
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        [
            ("AWS_ENDPOINT_URL", self.url.clone()),
            ("AWS_ENDPOINT_URL_ECS", self.ecs_url.clone()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ]
        .into()
    }

    /// What starts a master: the program with the variables of the template.
    fn starts(&self) -> impl Fn(&Json) -> Child + Send + use<> {
        let mut environment = self.environment();
        let log = self.local.world.path().join("master.log");
        let own = [
            ("TARGET_STACK_NAME", "my-app".to_owned()),
            ("TARGET_REGION", "us-east-1".to_owned()),
            ("WORKER_FUNCTION_NAME", "my-app-load-worker".to_owned()),
            ("LAMBDA_TIMEOUT", "120".to_owned()),
            ("USERS_PER_WORKER", "10".to_owned()),
            ("MIN_WORKERS", "1".to_owned()),
            ("MAX_WORKERS", "100".to_owned()),
            ("STARTUP_LEAD_TIME", "20".to_owned()),
            ("MASTER_HOST", "127.0.0.1".to_owned()),
            ("MASTER_PORT", "0".to_owned()),
            ("PAGE_PORT", self.port.to_string()),
        ];
        environment.extend(own);
        move |variables| {
            let mut command = Command::new(PROGRAM);
            command
                .args(["loadtest", "master"])
                .env_clear()
                .envs(&environment);
            for variable in variables.as_array().into_iter().flatten() {
                command.env(
                    variable["name"].as_str().unwrap(),
                    variable["value"].as_str().unwrap(),
                );
            }
            let log = File::options().create(true).append(true).open(&log).unwrap();
            command.stderr(log).stdin(Stdio::null()).spawn().unwrap()
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self
            .local
            .world
            .command(&words(&format!("loadtest {line} --region us-east-1")));
        let path = std::env::var("PATH").unwrap();
        let bin = self.local.world.path().join("bin");
        command
            .envs(self.environment())
            .env("PATH", format!("{}:{path}", bin.display()));
        command
    }

    fn run(&self, line: &str) -> Ran {
        finish(&mut self.command(line), None)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.local.world.path().join("master.log")).unwrap_or_default()
    }

    /// How often an operation was called.
    fn calls(&self, operation: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.calls.iter().filter(|call| *call == operation).count()
    }

    /// The session is that of the task, and the task that of the service.
    fn assert_asked_for_its_task(&self) {
        let port = self.port;
        let session = fs::read_to_string(self.sessions()).unwrap();
        assert_eq!(
            session,
            format!(
                "ssm start-session --region us-east-1 --target ecs:my-app-load_0123abcd_0123abcd-99 --document-name \
                 AWS-StartPortForwardingSession --parameters {{\"portNumber\":[\"8089\"],\"localPortNumber\":[\"{port}\"]}}\n"
            )
        );
        let asked = self.state.lock().unwrap().asked.clone();
        assert_eq!(asked["taskDefinition"], "my-app-load-master:1");
        assert_eq!(
            asked["networkConfiguration"]["awsvpcConfiguration"]["subnets"],
            json!(["subnet-a"])
        );
        assert_eq!(
            asked["capacityProviderStrategy"][0]["capacityProvider"],
            "FARGATE_SPOT"
        );
        assert_eq!(
            (&asked["overrides"]["cpu"], &asked["overrides"]["memory"]),
            (&json!("1024"), &json!("2048"))
        );
        let variables = asked["overrides"]["containerOverrides"][0]["environment"]
            .as_array()
            .unwrap();
        let value = |name: &str| {
            variables
                .iter()
                .find(|one| one["name"] == name)
                .map(|one| one["value"].as_str().unwrap())
        };
        assert_eq!(
            (value("MIN_WORKERS"), value("MAX_WORKERS")),
            (Some("2"), Some("2"))
        );
        let url = value("EXECUTABLE_URL").unwrap();
        assert!(
            url.contains(".bootstrap?") && url.contains("X-Amz-Signature="),
            "{url}"
        );
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        let mut state = self.state.lock().unwrap();
        assert!(state.is_stopped(), "the task runs: {}", self.log());
        drop(state);
        let mut list = self.local.world.command(&words(
            "namespace list --output json -n my-app --region us-east-1",
        ));
        let names = finish(list.envs(self.environment()), None).json();
        let names: Vec<_> = names.as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["default"], "{}", self.log());
    }
}

impl Drop for Fargate {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock()
            && let Some(master) = &mut state.master
        {
            let _ = master.kill();
            let _ = master.wait();
        }
    }
}

impl Ecs {
    fn is_stopped(&mut self) -> bool {
        self.master
            .as_mut()
            .is_none_or(|master| master.try_wait().unwrap().is_some())
    }

    fn task(&mut self) -> Json {
        let status = if self.is_stopped() { "STOPPED" } else { "RUNNING" };
        json!({
            "taskArn": TASK, "lastStatus": status, "stoppedReason": if status == "STOPPED" { "it ended" } else { "" },
            "containers": [{
                "name": "master", "runtimeId": "0123abcd-99",
                "managedAgents": [{"name": "ExecuteCommandAgent", "lastStatus": "RUNNING"}],
            }],
        })
    }

    fn answer(&mut self, operation: &str, request: &Json, starts: &dyn Fn(&Json) -> Child) -> Json {
        self.calls.push(operation.to_owned());
        match operation {
            "DescribeServices" => json!({"services": [{
                "status": "ACTIVE", "taskDefinition": "my-app-load-master:1",
                "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-a"]}},
                "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}],
            }]}),
            "RunTask" if self.full => {
                json!({"tasks": [], "failures": [{"reason": "Capacity is unavailable at this time"}]})
            }
            "RunTask" => {
                request.clone_into(&mut self.asked);
                let variables = &request["overrides"]["containerOverrides"][0]["environment"];
                self.master = Some(starts(variables));
                json!({"tasks": [self.task()]})
            }
            "ListTasks" if self.is_stopped() => json!({"taskArns": []}),
            "ListTasks" => json!({"taskArns": [TASK]}),
            "DescribeTasks" => json!({"tasks": [self.task()]}),
            "StopTask" => {
                if let Some(master) = &self.master {
                    // It may have ended.
                    let _ = kill(pid(master), Signal::SIGTERM);
                }
                json!({"task": self.task()})
            }
            other => panic!("{other} is not called"),
        }
    }
}

fn serve(stream: &TcpStream, state: &Mutex<Ecs>, starts: &dyn Fn(&Json) -> Child) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut operation) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
        if let Some((_, name)) = line.split_once("x-amz-target: amazonec2containerservicev20141113.") {
            name.clone_into(&mut operation);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let known = [
        "DescribeServices",
        "DescribeTasks",
        "ListTasks",
        "RunTask",
        "StopTask",
    ];
    let operation = known
        .into_iter()
        .find(|name| name.to_ascii_lowercase() == operation)?;
    let request = serde_json::from_slice(&body).ok()?;
    let mut state = state.lock().unwrap();
    if state.is_cut_off && operation == "RunTask" && state.master.is_some() && !state.is_stopped() {
        return None;
    }
    let answer = state.answer(operation, &request, starts).to_string();
    if state.is_cut_off && operation == "RunTask" {
        return None;
    }
    drop(state);
    let head = format!(
        "HTTP/1.1 200 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    (&mut &*stream).write_all((head + &answer).as_bytes()).ok()
}

/// The bytes of a text in base64, in hexadecimal.
fn hex(text: &str) -> String {
    use std::fmt::Write as _;

    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn functions_share_a_test_that_a_task_leads() {
    embedded_only!("this has a server of its own");
    let fargate = Fargate::deployed();
    let port = fargate.port;
    let html = fargate.local.world.path().join("page.html");
    let line = format!(
        "run -n my-app --workers 2 -f mine.yaml Caller --users 4 --spawn-rate 100 --duration 4 --seed 7 --port {port} --html {}",
        html.display()
    );
    let ran = fargate.run(&line);
    assert_eq!(ran.code, Some(0), "{ran:?}\n{}", fargate.log());
    let expected = format!(
        "
Distributed Benchmark: my-app-load-master
  CPU: 1024 units (1.0 vCPU)
  Memory: 2048 MB
  Workers: 2 Lambda
  Locustfile: mine.yaml
  Users: 4, Duration: 4s, Spawn Rate: 100/s

Starting Fargate task...
  Task started: 0123abcd
  Waiting for task to start...
  Task running: 0123abcd
  SSM agent ready
  Opening SSM tunnel to localhost:{port}...
  Waiting for tunnel + master...
  Connected.
  Waiting for 2 worker(s)...
"
    );
    let rest = ran
        .stdout
        .strip_prefix(&*expected)
        .unwrap_or_else(|| panic!("{}", ran.stdout));
    for text in [
        "  2 worker(s) connected.\n\nStarting test: 4 users, 100/s spawn, 4s...\n  Test started. Polling stats...\n\n",
        "  Test completed.\n\nResults:\n  Requests: ",
        "\n  Failures: 0 (0.0%)\n",
        " of 2 workers with 1.00 vCPU each\n",
        "\nStopping Fargate task...\n  Fargate task stopped.\n",
    ] {
        assert!(rest.contains(text), "{text}\n{rest}");
    }
    assert!(
        !rest.contains("gpt-5"),
        "only the class that was chosen takes part: {rest}"
    );
    assert!(fs::read_to_string(html).unwrap().contains("<polyline"));
    fargate.assert_nothing_left();
    fargate.assert_asked_for_its_task();

    // A shape, as JSON.
    let line = format!(
        "run -n my-app --workers 2 -f mine.yaml Caller Steps --spawn-rate 100 --port {port} --output json"
    );
    let report = fargate.run(&line).json();
    for (key, value) in [
        ("shape", json!("Steps")),
        ("users", json!(4)),
        ("workers", json!(2)),
        ("workers_lost", json!(0)),
        ("function", json!("my-app-load-worker")),
        ("interrupted", json!(false)),
        ("total_failures", json!(0)),
    ] {
        assert_eq!(report[key], value, "{key}: {report}");
    }
    fargate.assert_nothing_left();

    // An open loop: no more tasks begin than are due.
    let line = format!(
        "run -n my-app --workers 2 -f mine.yaml Caller --users 4 --rate 10 --duration 3 --port {port} --output json"
    );
    let report = fargate.run(&line).json();
    assert_eq!((&report["rate"], &report["workers"]), (&json!(10.0), &json!(2)));
    let begun = report["acquires"].as_f64().unwrap();
    let due = 2.0 + 10.0 * report["duration_seconds"].as_f64().unwrap();
    assert!((1.0..=due).contains(&begun), "{report}");
    fargate.assert_nothing_left();
}

/// A command under way. It is killed if its test panics.
struct Running(Option<Child>);

impl Running {
    fn start(fargate: &Fargate, line: &str) -> (Self, impl Iterator<Item = String>) {
        let mut child = fargate
            .command(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (Self(Some(child)), lines.map(Result::unwrap))
    }

    fn signal(&self, signal: Signal) {
        kill(pid(self.0.as_ref().unwrap()), signal).unwrap();
    }

    fn end(mut self, rest: impl Iterator<Item = String>) -> Ran {
        let rest: String = rest.map(|line| line + "\n").collect();
        let mut ran = Ran::of(self.0.take().unwrap().wait_with_output().unwrap());
        ran.stdout = rest;
        ran
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_task_is_stopped_however_its_test_ends() {
    embedded_only!("this has a server of its own");
    let fargate = Fargate::deployed();
    let port = fargate.port;
    let long = format!("run -n my-app --workers 1 -f mine.yaml --users 3 --duration 600 --port {port}");

    let (running, mut lines) = Running::start(&fargate, &long);
    assert!(
        lines.any(|line| line.contains("state=running, users=3, workers=1")),
        "{}",
        fargate.log()
    );
    running.signal(Signal::SIGINT);
    let ran = running.end(lines);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stdout.contains("Interrupted\nPartial results:\n  Requests: "),
        "{ran:?}"
    );
    assert!(
        ran.stdout
            .ends_with("\nStopping Fargate task...\n  Fargate task stopped.\n"),
        "{ran:?}"
    );
    fargate.assert_nothing_left();

    // Before the test begins.
    let (running, mut lines) = Running::start(&fargate, &long);
    assert!(lines.any(|line| line.contains("Waiting for tunnel")));
    running.signal(Signal::SIGTERM);
    let ran = running.end(lines);
    assert_eq!(ran.code, Some(143), "{ran:?}");
    assert!(ran.stdout.ends_with("\n  Fargate task stopped.\n"), "{ran:?}");
    fargate.assert_nothing_left();

    // The output is closed.
    let (running, mut lines) = Running::start(&fargate, &long);
    assert!(lines.any(|line| line.contains("Task started")));
    drop(lines);
    let ran = running.end(std::iter::empty());
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{ran:?}");
    fargate.assert_nothing_left();

    // No answer to the request that starts a task.
    fargate.state.lock().unwrap().is_cut_off = true;
    let ran = fargate.run(&long);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let doubt = "A Fargate task may have been started: see 'aws ecs list-tasks --cluster my-app-load --region us-east-1'.\n";
    assert!(ran.stderr.ends_with(doubt), "{ran:?}");
    let mut state = fargate.state.lock().unwrap();
    state.is_cut_off = false;
    if let Some(mut master) = state.master.take() {
        master.kill().unwrap();
        master.wait().unwrap();
    }
    drop(state);

    // The master is killed, as by a task that ran out of memory.
    let (running, mut lines) = Running::start(&fargate, &long);
    assert!(
        lines.any(|line| line.contains("state=running")),
        "{}",
        fargate.log()
    );
    if let Some(master) = &mut fargate.state.lock().unwrap().master {
        master.kill().unwrap();
        master.wait().unwrap();
    }
    let ran = running.end(lines);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("connection lost, retrying...\n"), "{ran:?}");
    assert!(ran.stdout.contains("Interrupted\nPartial results:\n"), "{ran:?}");
    assert!(
        ran.stderr.contains(
            "Error: The report ends with the last figures. The master does not answer any longer: "
        ),
        "{ran:?}"
    );
}

#[test]
fn nothing_is_started_that_could_not_be_reached() {
    embedded_only!("this has a server of its own");
    let fargate = Fargate::deployed();
    let line = format!("run -n my-app --workers 2 -f simple --port {}", fargate.port);
    let refused = |line: &str, why: &str| {
        let ran = fargate.run(line);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(why), "{ran:?}");
        assert_eq!(fargate.calls("RunTask"), 0);
    };
    refused(
        &line.replace("--workers 2", "--workers 101"),
        "--workers 101 is more than the 100 that the stack 'my-app-load' reserves",
    );
    refused(
        &format!("{line} --cpu 1000"),
        "Invalid cpu '1000': must be one of 256, 512,",
    );
    refused(
        &format!("{line} --memory 1000"),
        "Invalid memory '1000': must be from 2048 to 8192 in steps of 1024",
    );
    refused(
        &format!(
            "{} MorningSpike --rate 5",
            line.replace("-f simple", "-f llm_production")
        ),
        "A shape sets the number of users over time, and --rate the number of calls. Leave one of them out.",
    );
    refused(&format!("{line} NoSuchUser"), "NoSuchUser");
    refused(
        &line.replace("my-app", "other"),
        "Lambda function not found: other-load-worker",
    );
    let busy = TcpListener::bind(("127.0.0.1", fargate.port)).unwrap();
    refused(
        &line,
        &format!("The tunnel cannot use port {} of this machine", fargate.port),
    );
    refused(
        &format!("ui -n my-app -f simple --port {}", fargate.port),
        "The tunnel cannot use port",
    );
    drop(busy);
    refused("ui -n my-app -f simple --workers 2", "--workers 2 is for --local");
    refused("ui -n my-app -f simple --port 0", "--port 0 is for --local");
    refused(
        "ui -n my-app -f simple --max-workers 1 --min-workers 2",
        "--max-workers 1 is less than --min-workers 2",
    );
    fs::remove_file(fargate.local.world.path().join("bin/session-manager-plugin")).unwrap();
    let mut command = fargate.command(&line);
    let ran = finish(command.env("PATH", fargate.local.world.path().join("bin")), None);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.starts_with(
            "Error: The program 'session-manager-plugin' was not found. The tunnel to the master needs"
        ),
        "{ran:?}"
    );
    fargate.program("session-manager-plugin", "exit 1");
    fargate.state.lock().unwrap().full = true;
    let ran = fargate.run(&line);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(
        ran.stderr,
        "Error: Failed to start Fargate task: Capacity is unavailable at this time\n"
    );
    assert_eq!(fargate.calls("StopTask"), 0);
}

#[test]
fn a_page_is_reached_left_and_found_again() {
    embedded_only!("this has a server of its own");
    let fargate = Fargate::deployed();
    let port = fargate.port;
    let line = format!("ui -n my-app -f mine.yaml --min-workers 0 --max-workers 2 --port {port}");
    let (own, mut lines) = Running::start(&fargate, &line);
    let head: Vec<_> = lines.by_ref().take(6).collect();
    assert_eq!(
        head,
        [
            "Starting Fargate master: my-app-load-master",
            "  Waiting for task to start...",
            "  Task running: 0123abcd",
            "  Waiting for SSM agent...",
            "  SSM agent ready",
            &format!("  Connecting to http://localhost:{port} ..."),
        ]
    );
    let url = format!("http://127.0.0.1:{port}");
    wait_until("the page", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let wish = json!({"users": 2, "spawn_rate": 10, "seconds": null}).to_string();
    let started = ask(&url, "POST /start", wish.as_bytes());
    assert!(started.starts_with("HTTP/1.1 200 "), "{started}");
    wait_until("users", || {
        ask(&url, "GET /stats", b"").contains("\"users\":2,\"seconds\"")
    });

    // A second command finds the task, and leaves it.
    let elsewhere = line.replace(&port.to_string(), &free_port().to_string());
    let (other, mut more) = Running::start(&fargate, &elsewhere);
    assert!(more.any(|line| line == "Connecting to existing task (overrides ignored)..."));
    assert!(more.any(|line| line.contains("Connecting to http://")));
    other.signal(Signal::SIGINT);
    let ran = other.end(more);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(
        ran.stdout,
        "\nInterrupted\nDisconnected (Fargate task still running, use --destroy to stop)\n"
    );
    assert!(
        ran.stderr
            .contains("Warning: Task already running. Use --force to restart with new config.\n"),
        "{ran:?}"
    );

    own.signal(Signal::SIGINT);
    let ran = own.end(lines);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(
        ran.stdout,
        "\nInterrupted\n\nStopping Fargate task...\n  Fargate task stopped.\n"
    );
    fargate.assert_nothing_left();
}

#[test]
fn a_master_without_a_test_ends() {
    embedded_only!("this has a server of its own");
    let fargate = Fargate::new();
    let starts = fargate.starts();
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let idle = [
        variable("LOCUSTFILE", "simple"),
        variable("IDLE_TIMEOUT", "1"),
        variable("MIN_WORKERS", "0"),
    ];
    let status = starts(&json!(idle)).wait().unwrap();
    assert!(status.success(), "{}", fargate.log());
    assert!(
        fargate.log().ends_with("Ended, as no test was started.\n"),
        "{}",
        fargate.log()
    );
    for (name, value, why) in [
        ("LOCUSTFILE", "nothing", "nothing"),
        ("SCENARIO", "!", "Invalid SCENARIO: "),
        ("MAX_WORKERS", "0", "'--max-workers <N> in MAX_WORKERS'"),
        ("TARGET_STACK_NAME", "-", "Must start with a letter"),
    ] {
        let status = starts(&json!([variable("LOCUSTFILE", "simple"), variable(name, value)]))
            .wait()
            .unwrap();
        assert!(!status.success(), "{name}");
        assert!(fargate.log().contains(why), "{}", fargate.log());
    }
}
