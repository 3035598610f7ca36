//! The function that this test's executable is when it is started as one: a runtime in a hundred lines.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use zae_limiter_local::clock::now_ms;

/// An answer: the headers that matter, and the body.
struct Answer {
    id: String,
    arn: String,
    deadline_ms: i64,
    body: Vec<u8>,
}

/// Serves invocations until the endpoint goes.
pub(crate) fn main() {
    let handler = std::env::var("_HANDLER").unwrap();
    if handler == "init-error" {
        let said = json!({"errorType": "Mine", "errorMessage": "cannot begin"});
        send("POST", "init/error", said.to_string().as_bytes());
        std::process::exit(1);
    }
    loop {
        let Some(given) = send("GET", "invocation/next", b"") else {
            return;
        };
        let event: Json = serde_json::from_slice(&given.body).unwrap();
        let result = match handler.as_str() {
            "records" => records(&event),
            "custom" => Ok(custom(&event)),
            _ => perform(&event, &given),
        };
        let (kind, body) = match result {
            Ok(body) => ("response", body.to_string()),
            Err(body) => ("error", body.to_string()),
        };
        send(
            "POST",
            &format!("invocation/{}/{kind}", given.id),
            body.as_bytes(),
        );
    }
}

fn perform(event: &Json, given: &Answer) -> Result<Json, Json> {
    if let Some(sleep) = event["sleep_ms"].as_u64() {
        std::thread::sleep(Duration::from_millis(sleep));
    }
    match event["do"].as_str().unwrap() {
        "echo" => Ok(json!({"event": event, "arn": given.arn, "left_ms": given.deadline_ms - now_ms()})),
        "environment" => Ok(std::env::vars()
            .collect::<std::collections::BTreeMap<_, _>>()
            .into_iter()
            .collect()),
        "arguments" => Ok(std::env::args().skip(1).collect()),
        "pid" => Ok(json!(std::process::id())),
        "print" => {
            for line in 0..event["lines"].as_u64().unwrap() {
                println!("out {line}");
            }
            Ok(Json::Null)
        }
        "fail" => Err(json!({"errorType": "Mine", "errorMessage": "on purpose"})),
        "exit" => std::process::exit(event["code"].as_i64().unwrap() as i32),
        "abort" => std::process::abort(),
        "large" => Ok(json!("x".repeat(event["bytes"].as_u64().unwrap() as usize))),
        "eat" => {
            let mut eaten = vec![0_u8; event["mb"].as_u64().unwrap() as usize * 1024 * 1024];
            eaten.iter_mut().step_by(1024).for_each(|byte| *byte = 1);
            std::thread::sleep(Duration::from_secs(30));
            Ok(json!(eaten.len()))
        }
        "note" => {
            append(event["file"].as_str().unwrap(), "noted");
            if event["fail"] == true {
                return Err(json!({"errorType": "Mine", "errorMessage": "noted, and failed"}));
            }
            Ok(Json::Null)
        }
        "read" => {
            // Its own file, once it may.
            append(event["begun"].as_str().unwrap(), "begun");
            while !Path::new(event["go"].as_str().unwrap()).exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            let root = std::env::var("LAMBDA_TASK_ROOT").unwrap();
            match std::fs::read_to_string(Path::new(&root).join("bootstrap")) {
                Ok(text) => Ok(json!(text)),
                Err(err) => Err(json!({"errorType": "Mine", "errorMessage": err.to_string()})),
            }
        }
        other => panic!("the event asks for {other}"),
    }
}

/// A custom resource that cannot be made whole: it notes what it is asked, and names what there is of it.
fn custom(event: &Json) -> Json {
    append(&std::env::var("SEEN").unwrap(), &event.to_string());
    let answer = if event["RequestType"] == "Create" {
        json!({"Status": "FAILED", "Reason": "on purpose", "PhysicalResourceId": "half-made"})
    } else {
        json!({"Status": "SUCCESS", "PhysicalResourceId": event["PhysicalResourceId"]})
    };
    let url = event["ResponseURL"].as_str().unwrap();
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    exchange(address, "PUT", &format!("/{path}"), answer.to_string().as_bytes());
    Json::Null
}

/// Notes records. At a bad one it fails, or reports it if configured to.
fn records(event: &Json) -> Result<Json, Json> {
    let bad = std::env::var("BAD").unwrap_or_default();
    let records = event["Records"].as_array().unwrap();
    let place = records
        .iter()
        .position(|record| record["dynamodb"]["Keys"]["k"]["S"] == bad.as_str());
    if place.is_some() && std::env::var("NAMES").is_err() {
        return Err(json!({"errorType": "Mine", "errorMessage": "a bad record"}));
    }
    let seen = std::env::var("SEEN").unwrap();
    for record in &records[..place.unwrap_or(records.len())] {
        append(&seen, &record.to_string());
    }
    let failure = |place: usize| json!({"itemIdentifier": records[place]["dynamodb"]["SequenceNumber"]});
    Ok(json!({"batchItemFailures": place.map(failure).into_iter().collect::<Vec<_>>()}))
}

fn append(file: &str, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Sends a request to the Runtime API. `None` if no server listens.
fn send(method: &str, path: &str, body: &[u8]) -> Option<Answer> {
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap();
    exchange(&address, method, &format!("/2018-06-01/runtime/{path}"), body)
}

/// Sends a request to an address. `None` if no server listens.
fn exchange(address: &str, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    // A body that is too large is refused before it is read.
    let _ = stream.write_all(body);
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut answer = Answer {
        id: String::new(),
        arn: String::new(),
        deadline_ms: 0,
        body: Vec::new(),
    };
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "lambda-runtime-aws-request-id" => answer.id = value.to_owned(),
            "lambda-runtime-invoked-function-arn" => answer.arn = value.to_owned(),
            "lambda-runtime-deadline-ms" => answer.deadline_ms = value.parse().unwrap(),
            _ => {}
        }
    }
    reader.read_to_end(&mut answer.body).ok()?;
    Some(answer)
}
