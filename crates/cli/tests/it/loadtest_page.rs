//! The page of a load test: what it shows, starts and stops, and which requests it refuses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::acquire::pid;
use crate::distributed::{Shared, wait_until};
use crate::world::{Ran, World, embedded_only, words};

/// A page that is served. Its process is killed if the test panics.
struct Served {
    child: Option<Child>,
    port: u16,
}

impl Served {
    fn start(shared: &Shared, options: &str) -> Self {
        let mut child = shared
            .command(&format!("loadtest ui --local --port 0 {options}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let port = line.split("http://localhost:").nth(1).unwrap();
        let port = port.split('/').next().unwrap().parse().unwrap();
        child.stderr = Some(stderr.into_inner());
        Self {
            child: Some(child),
            port,
        }
    }

    /// The status and the whole answer to a request with these lines after the first.
    fn ask(&self, first: &str, lines: &[&str], body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let length = body.len();
        let head = lines.join("\r\n");
        write!(
            stream,
            "{first} HTTP/1.1\r\n{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    fn host(&self) -> String {
        format!("Host: localhost:{}", self.port)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let json = "Content-Type: application/json";
        let (status, answer) = self.ask(&format!("POST {path}"), &[&self.host(), json], &body.to_string());
        (status, body_of(&answer))
    }

    fn stats(&self) -> Value {
        let (status, answer) = self.ask("GET /stats", &[&self.host()], "");
        assert_eq!(status, 200, "{answer}");
        body_of(&answer)
    }

    /// Ends it as Ctrl-C does.
    fn end(mut self) -> Ran {
        let child = self.child.take().unwrap();
        kill(pid(&child), Signal::SIGINT).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn body_of(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

#[test]
fn a_test_is_started_and_stopped_on_the_page() {
    embedded_only!("this has a server of its own");
    let shared = Shared::new();
    let served = Served::start(&shared, "-f tight.yaml --workers 2");
    wait_until("the workers", || served.stats()["workers"] == 2);
    let idle = served.stats();
    assert_eq!(
        (&idle["state"], &idle["classes"]),
        (&"ready".into(), &json!(["Tight", "Slow"]))
    );
    assert_eq!(
        served.post("/stop", &json!({})),
        (409, json!({"error": "no test runs"}))
    );
    let wish = json!({"users": 3, "spawn_rate": 100, "seconds": null, "classes": ["Slow"]});
    assert_eq!(served.post("/start", &wish), (200, json!({})));
    assert_eq!(
        served.post("/start", &wish),
        (409, json!({"error": "a test runs; stop it first"}))
    );
    wait_until("users and figures", || {
        let stats = served.stats();
        stats["users"] == 3 && stats["total"]["requests"].as_u64() > Some(10)
    });
    let running = served.stats();
    assert_eq!(
        (&running["state"], &running["workers"]),
        (&"running".into(), &2.into())
    );
    assert_eq!(served.post("/stop", &json!({})).0, 200);
    wait_until("the end of the test", || served.stats()["state"] == "ready");
    let after = served.stats();
    assert_eq!(after["message"], "The test was stopped.", "{after}");
    assert!(!after["points"].as_array().unwrap().is_empty());
    let rows: Vec<_> = after["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["event"])
        .collect();
    // How many are refused depends on when it is stopped.
    for event in ["ACQUIRE", "CREATE_ENTITY"] {
        assert!(rows.contains(&&json!(event)), "{after}");
    }
    shared.assert_nothing_left();

    // The same workers run another test, to its end.
    let wish = json!({"users": 2, "spawn_rate": 1000, "seconds": 2, "classes": []});
    assert_eq!(served.post("/start", &wish).0, 200);
    wait_until("the end of the second test", || {
        served.stats()["state"] == "ready"
    });
    assert_eq!(served.stats()["message"], "The test is complete.");
    shared.assert_nothing_left();
    let ran = served.end();
    assert_eq!((ran.code, &*ran.stderr), (Some(0), "Interrupted\n"), "{ran:?}");
}

#[test]
fn other_web_pages_and_wrong_requests_are_refused() {
    embedded_only!("this has a server of its own");
    let shared = Shared::new();
    let served = Served::start(&shared, "-f simple --max-workers 1");
    let host = served.host();
    let (status, page) = served.ask("GET /", &[&host], "");
    assert_eq!(status, 200);
    for part in [
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "x-content-type-options: nosniff",
        "<title>Load test</title>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // Nothing comes from elsewhere.
    for part in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(part), "{part}");
    }
    let json = "Content-Type: application/json";
    let body = r#"{"users": 1, "spawn_rate": 1, "seconds": 600}"#;
    for (lines, status) in [
        (vec!["Host: evil.example", json], 403),
        (vec![&host, json, "Origin: http://evil.example"], 403),
        (vec![&host, json, "Origin: null"], 403),
        (vec![&host, json, "Sec-Fetch-Site: cross-site"], 403),
        (vec![&host, "Content-Type: text/plain"], 415),
        (vec![&host], 415),
    ] {
        assert_eq!(served.ask("POST /start", &lines, body).0, status, "{lines:?}");
    }
    for (path, status) in [("GET /start", 405), ("POST /stats", 405), ("GET /other", 404)] {
        assert_eq!(served.ask(path, &[&host, json], "").0, status, "{path}");
    }
    let wrong = served.post("/start", &json!({"users": 0, "spawn_rate": 1, "seconds": 1}));
    assert_eq!(
        wrong,
        (400, json!({"error": "invalid users '0': expected 1 to 1000000"}))
    );
    assert_eq!(served.stats()["state"], "ready", "nothing was started");
    // A second page on the same port.
    let line = format!("loadtest ui --local -f simple --port {}", served.port);
    let taken = Ran::of(shared.command(&line).output().unwrap());
    assert_eq!(taken.code, Some(1));
    assert!(
        taken
            .stderr
            .starts_with(&format!("Error: Cannot serve the page on port {}: ", served.port)),
        "{taken:?}"
    );
    // Ctrl-C in the course of a test.
    assert_eq!(
        served
            .ask(
                "POST /start",
                &[&host, json, &format!("Origin: http://{}", &host[6..])],
                body
            )
            .0,
        200
    );
    wait_until("users", || served.stats()["users"] == 1);
    let ran = served.end();
    assert_eq!((ran.code, &*ran.stderr), (Some(0), "Interrupted\n"), "{ran:?}");
    shared.assert_nothing_left();
}

#[test]
fn options_without_effect_are_refused() {
    embedded_only!("this has a server of its own");
    let world = World::without_table();
    let run = |line: &str| {
        let place = "--region us-east-1 --endpoint-url http://127.0.0.1:9";
        Ran::of(
            world
                .command(&words(&format!("loadtest ui -f simple {line} {place}")))
                .output()
                .unwrap(),
        )
    };
    for (line, why) in [
        (
            "--local --destroy",
            "--destroy is for a Fargate task and has no effect with --local.",
        ),
        ("--local --force", "--force is for a Fargate task"),
        ("--local --cpu 256", "--cpu is for a Fargate task"),
        ("--local --memory 512", "--memory is for a Fargate task"),
        (
            "--local --pool-connections 5",
            "--pool-connections is for a Fargate task",
        ),
        (
            "--local --max-workers 1 --min-workers 2",
            "--max-workers 1 is less than --min-workers 2.",
        ),
    ] {
        let refused = run(line);
        assert_eq!((refused.code, &*refused.stdout), (Some(1), ""), "{refused:?}");
        assert!(
            refused.stderr.starts_with(&format!("Error: {why}")),
            "{refused:?}"
        );
    }
    for line in [
        "--local --workers 2 --max-workers 3",
        "--local --workers 0",
        "--local --port x",
    ] {
        assert_eq!(run(line).code, Some(2), "{line}");
    }
}
