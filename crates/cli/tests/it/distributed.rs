//! Load from several processes: a master, its workers, and what becomes of a test when one of them is lost.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::acquire::pid;
use crate::functions::{STACK, Server, function};
use crate::world::{Ran, World, embedded_only, words};

/// How long a test waits for what must happen. Nothing is measured with it.
const PATIENCE: Duration = Duration::from_mins(2);

/// 20 requests of one entity are admitted in a year.
const TIGHT: &str = "
system: {limits: {rpm: {capacity: 20, refill_amount: 1, refill_period: 31536000}}}
users:
  - name: Tight
    entity: {one: {name: all}}
    pause: {min: 0.001, max: 0.002}
    tasks: [{resources: [api], acquire: {rpm: 1}}]
  - name: Slow
    entity: {each: {prefix: slow-, parent: parent-}}
    pause: {min: 0.05, max: 0.1}
    tasks: [{resources: [api], acquire: {rpm: 1}}]
";

/// A table that several processes can use.
pub(crate) struct Shared {
    world: World,
    server: Server,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let world = World::without_table();
        std::fs::write(world.path().join("tight.yaml"), TIGHT).unwrap();
        Self {
            world,
            server: Server::new(function("provided.al2023")),
        }
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let place = format!(
            "--name {STACK} --region us-east-1 --endpoint-url {}",
            self.server.url
        );
        let mut command = self.world.command(&words(&format!("{line} {place}")));
        command
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test");
        command
    }

    fn run(&self, line: &str) -> Ran {
        Ran::of(self.command(line).output().unwrap())
    }

    /// Starts a test that runs until a signal.
    fn start(&self, line: &str) -> Running {
        let mut child = self
            .command(&format!("loadtest run --local --duration 600 {line}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running {
            child: Some(child),
            lines: Box::new(lines.map(Result::unwrap)),
        }
    }

    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let listed = self.run("namespace list --output json").json();
        let names: Vec<_> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["name"])
            .collect();
        assert_eq!(names, ["default"]);
        assert_eq!(
            self.run("namespace orphans --output json").json(),
            serde_json::json!([])
        );
    }
}

/// A test under way. It is killed if its test panics.
struct Running {
    child: Option<Child>,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Running {
    /// Reads lines until one has this text.
    #[track_caller]
    fn until(&mut self, text: &str) {
        assert!(self.lines.any(|line| line.contains(text)), "no line with {text}");
    }

    fn id(&self) -> Pid {
        pid(self.child.as_ref().unwrap())
    }

    /// The processes that it has started and that run.
    fn workers(&self) -> Vec<Pid> {
        let master = self.id().to_string();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let id = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw);
        all.filter_map(id)
            .filter(|id| {
                let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
                let after = stat.rsplit_once(") ").map(|(_, after)| after.to_owned());
                let mut fields = after.iter().flat_map(|after| after.split(' '));
                fields.next().is_some_and(|state| state != "Z") && fields.next() == Some(master.as_str())
            })
            .collect()
    }

    /// Waits for its end.
    fn end(mut self) -> Ran {
        let rest: String = self.lines.by_ref().map(|line| line + "\n").collect();
        let mut ran = Ran::of(self.child.take().unwrap().wait_with_output().unwrap());
        ran.stdout = rest;
        ran
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a wait is bounded, not measured")]
    let now = Instant::now;
    let end = now() + PATIENCE;
    while !holds() {
        assert!(now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn runs(id: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, after)| !after.starts_with('Z'))
}

#[test]
fn processes_share_a_test_and_count_each_call_once() {
    embedded_only!("this has a server of its own");
    let shared = Shared::new();
    let csv = shared.world.path().join("rows.csv");
    let line = format!(
        "loadtest run --local --workers 3 -f tight.yaml Tight --users 7 --spawn-rate 100 --duration 6 --output json --csv {}",
        csv.display()
    );
    let report = shared.run(&line).json();
    assert_eq!(
        (&report["workers"], &report["workers_lost"]),
        (&3.into(), &0.into())
    );
    assert_eq!(
        (&report["users"], &report["total_failures"]),
        (&7.into(), &0.into()),
        "{report}"
    );
    let of = |name: &str| report[name].as_u64().unwrap();
    // Whichever worker asked, the table has admitted this many, on a slow machine fewer.
    let (acquires, refused) = (of("acquires"), of("refused"));
    assert!(acquires > 0, "{report}");
    assert_eq!(acquires - refused, acquires.min(20), "{report}");
    let rows = std::fs::read_to_string(csv).unwrap();
    let last = format!(",Aggregated,{},0,", of("total_requests"));
    assert!(
        rows.lines().last().is_some_and(|row| row.starts_with(&last)),
        "{rows}"
    );
    shared.assert_nothing_left();

    let text = shared.run("loadtest run --local --workers 2 -f tight.yaml Slow --users 3 --duration 2");
    assert_eq!(text.code, Some(0), "{text:?}");
    for part in [
        "  Workers: 2 processes\n",
        "  Waiting for 2 worker(s)...\n",
        "  2 worker(s) connected.\n\nStarting test: 3 users, 10/s spawn, 2s...\n  Test started. Polling stats...\n\n",
        "  Test completed.\n\nResults:\n  Requests: ",
        // Each user has an entity of its own, whichever worker it is on.
        "CREATE_ENTITY",
    ] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    // No worker was lost; the limits are tight.
    assert!(
        text.stderr
            .lines()
            .all(|line| line.contains("% of the acquires were refused.")),
        "{text:?}"
    );
    shared.assert_nothing_left();

    // An open loop, of which each worker has its part.
    let text =
        shared.run("loadtest run --local --workers 2 -f tight.yaml Slow --users 3 --rate 6 --duration 2");
    assert_eq!(text.code, Some(0), "{text:?}");
    for part in [
        "Starting test: 3 users, at 6/s, 2s...\n",
        " of 6/s (open loop: latencies count from when a call was due)\n",
    ] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    shared.assert_nothing_left();
}

#[test]
#[cfg(target_os = "linux")]
fn a_worker_that_is_killed_is_named_and_the_test_goes_on() {
    embedded_only!("this has a server of its own");
    let shared = Shared::new();
    let mut running = shared.start("--workers 2 -f tight.yaml Slow --users 4");
    running.until("users=4, workers=2");
    let victim = running.workers()[0];
    kill(victim, Signal::SIGKILL).unwrap();
    // Another process takes its place.
    wait_until("a third worker", || {
        let workers = running.workers();
        workers.len() == 2 && !workers.contains(&victim)
    });
    running.until("workers=2");
    running.until("users=4, workers=2");
    let workers = running.workers();
    kill(running.id(), Signal::SIGINT).unwrap();
    let ran = running.end();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("Interrupted\nPartial results:\n"), "{ran:?}");
    let warning = format!(
        "Warning: 1 of 3 worker(s) was lost; the report lacks what they did after their last message: process {victim} ("
    );
    assert!(ran.stderr.contains(&warning), "{ran:?}");
    assert!(
        workers.iter().all(|id| !runs(*id)),
        "workers end before the command does"
    );
    shared.assert_nothing_left();
}

#[test]
#[cfg(target_os = "linux")]
fn workers_end_with_their_master() {
    embedded_only!("this has a server of its own");
    let shared = Shared::new();
    let mut running = shared.start("--workers 2 -f tight.yaml Slow --users 4");
    running.until("users=4, workers=2");
    let workers = running.workers();
    assert_eq!(workers.len(), 2);
    kill(running.id(), Signal::SIGKILL).unwrap();
    wait_until("the end of all workers", || workers.iter().all(|id| !runs(*id)));
}

#[test]
#[cfg(target_os = "linux")]
fn strangers_do_not_disturb_a_test() {
    embedded_only!("this has a server of its own");
    let shared = Shared::new();
    let mut running = shared.start("--workers 1 -f tight.yaml Slow --users 2");
    running.until("users=2, workers=1");
    let worker = running.workers()[0];
    let args = std::fs::read_to_string(format!("/proc/{worker}/cmdline")).unwrap();
    let mut args = args.split('\0').skip_while(|arg| *arg != "--connect");
    let address = args.nth(1).unwrap().to_owned();
    let mut silent = TcpStream::connect(&address).unwrap();
    silent.write_all(b"\0\0").unwrap();
    let mut garbage = TcpStream::connect(&address).unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    // A worker of another test.
    let mut stranger = shared.command(&format!("loadtest worker --connect {address}"));
    let mut stranger = stranger.stdin(Stdio::piped()).spawn().unwrap();
    let secret = b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    stranger.stdin.take().unwrap().write_all(secret).unwrap();
    let refused = Ran::of(stranger.wait_with_output().unwrap());
    assert_eq!(
        (refused.code, &*refused.stderr),
        (
            Some(1),
            "Error: This worker ends: the peer does not have the secret of this test\n"
        )
    );
    running.until("users=2, workers=1");
    kill(running.id(), Signal::SIGTERM).unwrap();
    let ran = running.end();
    assert_eq!(ran.code, Some(143), "{ran:?}");
    assert!(!ran.stderr.contains("lost"), "{ran:?}");
    shared.assert_nothing_left();
}

#[test]
fn what_processes_cannot_share_is_refused() {
    embedded_only!("this has a server of its own");
    let world = World::new();
    let run = |line: &str| world.silently(&words(&format!("loadtest run --local {line}")), None);
    if crate::world::independent().is_none() {
        let refused = run("--workers 2 -f simple");
        assert_eq!((refused.code, &*refused.stdout), (Some(1), ""));
        assert_eq!(
            refused.stderr,
            "Error: --workers does not work with 'embedded:./db', which only one process can use at a time. Use a table that \
             all processes reach, such as that of 'zae-limiter local up', or leave out --workers.\n"
        );
    }
    for workers in ["0", "-1", "1001", "x"] {
        assert_eq!(
            run(&format!("--workers {workers} -f simple")).code,
            Some(2),
            "{workers}"
        );
    }
    let worker = world.silently(
        &["loadtest", "worker", "--connect", "127.0.0.1:9"],
        Some("secret"),
    );
    assert_eq!(worker.code, Some(1));
    assert!(
        worker
            .stderr
            .starts_with("Error: Standard input does not have the secret"),
        "{worker:?}"
    );
}
