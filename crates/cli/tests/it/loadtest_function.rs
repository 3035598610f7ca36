//! Load from a function that runs on the local endpoint.

use std::io::{Cursor, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::loadtest_lambda::command;
use crate::local::Local;
use crate::world::{PROGRAM, embedded_only, finish, words};

/// A package with files, whose bootstrap starts the program under test.
pub(crate) fn package(files: &[(&str, &str)]) -> String {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .unix_permissions(0o755);
    let bootstrap = format!("#!/bin/sh\nexec '{PROGRAM}'\n");
    for (name, content) in [("bootstrap", &*bootstrap)].iter().chain(files) {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    STANDARD.encode(zip.finish().unwrap().into_inner())
}

/// Creates the function that generates load on a stack.
fn create(url: &str, stack: &str, files: &[(&str, &str)]) {
    let function = json!({
        "FunctionName": format!("{stack}-load-worker"),
        "Runtime": "provided.al2023",
        "Handler": "load-worker",
        "Role": "arn:aws:iam::000000000000:role/x",
        "Timeout": 300,
        "MemorySize": 1769,
        "Architectures": [if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }],
        "Code": {"ZipFile": package(files)},
        "Environment": {"Variables": {"TARGET_STACK_NAME": stack, "TARGET_REGION": "us-east-1"}},
    })
    .to_string();
    let reply = ask(url, "POST /2015-03-31/functions", function.as_bytes());
    assert!(reply.starts_with("HTTP/1.1 201 "), "{reply}");
}

/// The answer of the local endpoint to an unsigned request.
pub(crate) fn ask(url: &str, first: &str, body: &[u8]) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{first} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

const SCENARIO: &str = "\
system:
  limits:
    rpm: {capacity: 1000000}
users:
  - name: Caller
    entity: {each: {prefix: caller-}}
    pause: {min: 0.01, max: 0.02}
    tasks: [{resources: [gpt-4], acquire: {rpm: 1}}]
";

#[test]
fn a_function_on_the_local_endpoint_generates_load_and_leaves_nothing() {
    embedded_only!("this has a server of its own");
    embedded_only!();
    let local = Local::new();
    let up = local.up("--name my-app");
    let url = up["url"].as_str().unwrap().replace("localhost", "127.0.0.1");
    create(&url, "my-app", &[("locustfiles/deep/pushed.yaml", SCENARIO)]);
    let world = &local.world;
    let run = |line: &str| {
        let command = &mut command(world, &url, "my-app", line);
        command.stdin(Stdio::null());
        finish(command, None)
    };
    let (csv, html) = (world.path().join("rows.csv"), world.path().join("page.html"));
    let line = format!(
        "run -f llm_gateway --users 3 --spawn-rate 100 --duration 3 --seed 5 --output json --csv {} --html {}",
        csv.display(),
        html.display()
    );
    let report = run(&line).json();
    assert_eq!(
        (
            &report["function"],
            &report["scenario"],
            &report["seed"],
            &report["users"]
        ),
        (
            &json!("my-app-load-worker"),
            &json!("llm_gateway"),
            &json!(5),
            &json!(3)
        )
    );
    assert_eq!(
        (&report["total_failures"], &report["interrupted"]),
        (&json!(0), &json!(false)),
        "{report}"
    );
    let acquires = report["acquires"].as_u64().unwrap();
    assert!(acquires >= 3, "{report}");
    assert_eq!(report["total_requests"].as_u64(), Some(acquires * 2));
    let rows = std::fs::read_to_string(csv).unwrap();
    assert!(
        rows.contains(&format!(",Aggregated,{},0,", acquires * 2)),
        "{rows}"
    );
    // With charts of what the function has measured over time.
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("<polyline"), "{page}");

    // Calls that are due, whatever their latency.
    let open = run("run -f simple SimpleUser --users 5 --rate 50 --duration 2 --output json").json();
    assert_eq!(
        (&open["rate"], &open["users"]),
        (&json!(50.0), &json!(5)),
        "{open}"
    );

    // A file of this machine goes with the call; one that only the function has is found there.
    std::fs::write(world.path().join("mine.yaml"), SCENARIO).unwrap();
    for (file, name) in [("mine.yaml", "mine"), ("deep/pushed.yaml", "pushed")] {
        let report = run(&format!(
            "run -f {file} Caller --users 2 --duration 1 --output json"
        ))
        .json();
        assert_eq!(
            (&report["scenario"], &report["user_classes"]),
            (&json!(name), &json!(["Caller"]))
        );
        assert_eq!(report["total_failures"], 0, "{report}");
    }
    for (file, why) in [
        ("no.yaml", "Cannot read 'no.yaml': "),
        (
            "../bootstrap.yaml",
            "Cannot read '../bootstrap.yaml': it is not below ",
        ),
    ] {
        let refused = run(&format!("run -f {file}"));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let expected = format!("\nError: Lambda execution failed: {why}");
        assert!(refused.stderr.starts_with(&expected), "{refused:?}");
    }

    let line =
        "tune -f max_rps MaxRpsUser --max-users 2 --baseline-duration 1 --step-duration 1 --output json";
    let tuned = run(line).json();
    assert_eq!(
        (&tuned["steps"][0]["users"], &tuned["steps"][1]["users"]),
        (&json!(1), &json!(2))
    );

    let mut list = world.command(&words(&format!(
        "namespace list --output json -n my-app --region us-east-1 --endpoint-url {url}"
    )));
    list.env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test");
    let names = finish(&mut list, None).json();
    let names: Vec<_> = names.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["default"]);
}
