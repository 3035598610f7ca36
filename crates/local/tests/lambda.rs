//! Functions and event source mappings, with real processes: this test's own executable is the functions' bootstrap.

// Without a harness, clippy does not see that these are tests.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support {
    pub(crate) mod bootstrap;
    pub(crate) mod fixture;
}

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use zae_limiter::table::EmbeddedEngine;
use zae_limiter_local::lambda::Python;
use zae_limiter_local::server;
use zae_limiter_local::store::Store;
use zae_limiter_local::tables::Tables;
use zae_limiter_local::wire::{Reply, Request};
use zae_limiter_local::world::World;

use support::bootstrap;
use support::fixture::{Fixture, QUEUE, REGION, script, until, zipped};

/// The tests, by name.
type Test = (&'static str, fn());

const TESTS: [Test; 15] = [
    ("an_invocation_has_its_answer_and_its_log", || run(answers)),
    ("a_process_is_used_again_until_something_changes", || run(warm)),
    ("errors_are_told_as_lambda_does", || run(errors)),
    ("the_executable_itself_is_unpacked_and_run", || run(itself)),
    ("queued_events_are_tried_three_times", || run(queued)),
    ("the_api_speaks_lambdas_language", || run(api)),
    ("functions_of_languages_are_kept_and_not_run", || run(foreign)),
    ("functions_in_python_are_run_by_the_interpreter", || run(python)),
    ("tags_and_policies_are_kept", || run(labels)),
    ("records_reach_the_function_in_order", || run(records)),
    ("failing_records_are_tried_again_and_given_up", || run(failures)),
    ("a_restart_goes_on_where_it_was", || run(restart)),
    ("code_stays_for_as_long_as_it_runs", || run(code)),
    (SCARCE, scarce_process),
    ("a_failed_custom_resource_is_deleted_by_its_id", || run(custom)),
];

/// Speaks as much of the test harness's language as `cargo test` and `cargo nextest` need.
fn main() {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some() {
        return bootstrap::main();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        for (name, _) in TESTS.iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return;
    }
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let chosen = |name: &str| {
        let fits = |filter: &&String| {
            if has("--exact") {
                name == *filter
            } else {
                name.contains(filter.as_str())
            }
        };
        filters.is_empty() || filters.iter().any(fits)
    };
    for (name, test) in TESTS.iter().filter(|(name, _)| chosen(name)) {
        test();
        println!("test {name} ... ok");
    }
}

/// The test that runs in a process of its own, which has little to work with.
const SCARCE: &str = "records_wait_for_a_machine_that_is_out_of_files";

/// Runs the test in a process that may open few files.
fn scarce_process() {
    if std::env::var_os(SCARCE).is_some() {
        return run(scarce);
    }
    if cfg!(unix) {
        let status = std::process::Command::new("/bin/sh")
            .args(["-c", "ulimit -n 200 && exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg(SCARCE)
            .env(SCARCE, "1")
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    // Processes, their modes and their signals are a matter of Unix.
    if cfg!(unix) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    }
}

async fn answers() {
    let fixture = Fixture::new();
    fixture
        .function("f", "echo", json!({"Environment": {"Variables": {"MINE": "7"}}}))
        .await;
    let invoked = fixture.invoke("f", json!({"do": "environment"})).await;
    let environment: Json = serde_json::from_slice(&invoked.payload).unwrap();
    assert!(!invoked.error);
    assert_eq!(environment["MINE"], "7");
    assert_eq!(environment["AWS_ENDPOINT_URL"], "http://127.0.0.1:1");
    assert_eq!(environment["AWS_REGION"], REGION);
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_NAME"], "f");
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"], "128");
    assert_eq!(environment["TZ"], ":UTC");
    for missing in ["HOME", "USER", "CARGO", "AWS_PROFILE"] {
        assert_eq!(environment.get(missing), None, "{missing}");
    }
    let echoed = fixture.invoke("f", json!({"do": "echo", "x": [1, "ü"]})).await;
    let echoed: Json = serde_json::from_slice(&echoed.payload).unwrap();
    assert_eq!(echoed["event"]["x"], json!([1, "ü"]));
    assert_eq!(echoed["arn"], "arn:aws:lambda:eu-west-1:000000000000:function:f");
    assert!(echoed["left_ms"].as_i64().unwrap() <= 30_000, "{echoed}");

    let invoked = fixture.invoke("f", json!({"do": "print", "lines": 3})).await;
    let id = &invoked.request_id;
    let lines = fixture.log("/aws/lambda/f");
    let start = lines
        .iter()
        .position(|line| *line == format!("START RequestId: {id} Version: $LATEST"))
        .unwrap();
    assert_eq!(lines[start + 1..start + 4], ["out 0", "out 1", "out 2"]);
    assert_eq!(lines[start + 4], format!("END RequestId: {id}"));
    let report = &lines[start + 5];
    assert!(
        report.starts_with(&format!("REPORT RequestId: {id}\tDuration: ")),
        "{report}"
    );
    assert!(
        report.contains("\tMemory Size: 128 MB\tMax Memory Used: "),
        "{report}"
    );
    assert!(!report.contains("Init Duration"), "{report}");
    assert!(
        lines.iter().any(|line| line.contains("Init Duration")),
        "{lines:?}"
    );
    assert!(
        invoked.tail.starts_with("START") && invoked.tail.contains("out 2\n"),
        "{}",
        invoked.tail
    );

    let err = fixture
        .lambda
        .invoke(REGION, "f", Bytes::from_static(b"{"))
        .await
        .unwrap_err();
    assert_eq!(err.code, "InvalidRequestContentException");
    let large = vec![b' '; 6 * 1024 * 1024 + 1];
    let err = fixture
        .lambda
        .invoke(REGION, "f", large.into())
        .await
        .unwrap_err();
    assert_eq!((err.code.as_ref(), err.status), ("RequestTooLargeException", 413));
    let err = fixture
        .lambda
        .invoke(REGION, "g", Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(
        (err.code.as_ref(), err.status),
        ("ResourceNotFoundException", 404)
    );
}

async fn warm() {
    let fixture = Fixture::new();
    fixture.function("f", "echo", json!({})).await;
    let pid = async || fixture.ask("f", json!({"do": "pid"})).await.as_u64().unwrap();
    let first = pid().await;
    assert_eq!(pid().await, first);
    // Two at once are two processes, and both stay.
    let (one, other) = tokio::join!(
        fixture.ask("f", json!({"do": "pid", "sleep_ms": 300})),
        fixture.ask("f", json!({"do": "pid", "sleep_ms": 300}))
    );
    assert_ne!(one, other);
    fixture
        .lambda
        .update_configuration(REGION, "f", &json!({"Description": "new"}))
        .await
        .unwrap();
    let second = pid().await;
    assert!(![Some(first), one.as_u64(), other.as_u64()].contains(&Some(second)));
    assert!(!runs(first), "the old process is still there");
    fixture
        .lambda
        .update_code(REGION, "f", &json!({"S3Bucket": "code", "S3Key": "other"}))
        .await
        .unwrap();
    assert_ne!(pid().await, second);
    let last = pid().await;
    fixture.lambda.stop().await;
    assert!(!runs(last), "a process outlives the endpoint");
    // Idle processes end.
    let fixture = Fixture::with(|pace| pace.idle = Duration::from_millis(50));
    fixture.function("f", "echo", json!({})).await;
    let pid = fixture.ask("f", json!({"do": "pid"})).await.as_u64().unwrap();
    until("it has ended", || !runs(pid)).await;
}

fn runs(pid: u64) -> bool {
    // Where there is no such directory, nothing can be said.
    Path::new("/proc/self").exists() && Path::new(&format!("/proc/{pid}")).exists()
}

async fn errors() {
    let fixture = Fixture::new();
    fixture.function("f", "echo", json!({"Timeout": 1})).await;
    let error = async |event: Json| -> (String, String) {
        let invoked = fixture.invoke("f", event).await;
        let error: Json = serde_json::from_slice(&invoked.payload).unwrap();
        assert!(invoked.error, "{error}");
        let id = format!("RequestId: {} Error: ", invoked.request_id);
        let message = error["errorMessage"].as_str().unwrap().replace(&id, "");
        (error["errorType"].as_str().unwrap().to_owned(), message)
    };
    let expected = |kind: &str, message: &str| (kind.to_owned(), message.to_owned());
    assert_eq!(error(json!({"do": "fail"})).await, expected("Mine", "on purpose"));
    let exited = expected("Runtime.ExitError", "Runtime exited with error: exit status 7");
    assert_eq!(error(json!({"do": "exit", "code": 7})).await, exited);
    let unsaid = expected("Runtime.ExitError", "Runtime exited without providing a reason");
    assert_eq!(error(json!({"do": "exit", "code": 0})).await, unsaid);
    let aborted = expected("Runtime.ExitError", "Runtime exited with error: signal: aborted");
    assert_eq!(error(json!({"do": "abort"})).await, aborted);
    let timed_out = expected("Sandbox.Timedout", "Task timed out after 1.00 seconds");
    assert_eq!(error(json!({"do": "echo", "sleep_ms": 60_000})).await, timed_out);
    let log = fixture.log("/aws/lambda/f");
    assert!(
        log.iter()
            .any(|line| line.ends_with("Task timed out after 1.00 seconds")),
        "{log:?}"
    );
    let too_large = error(json!({"do": "large", "bytes": 7 * 1024 * 1024})).await;
    assert_eq!(too_large.0, "Function.ResponseSizeTooLarge");
    if Path::new("/proc/self/status").exists() {
        fixture
            .lambda
            .update_configuration(REGION, "f", &json!({"Timeout": 60}))
            .await
            .unwrap();
        let (kind, _) = error(json!({"do": "eat", "mb": 200})).await;
        assert_eq!(kind, "Runtime.OutOfMemory");
    }
    // After all that, it works.
    assert_eq!(
        fixture.ask("f", json!({"do": "echo", "x": 1})).await["event"]["x"],
        1
    );

    fixture.function("g", "init-error", json!({})).await;
    let invoked = fixture.invoke("g", json!({})).await;
    let said: Json = serde_json::from_slice(&invoked.payload).unwrap();
    assert_eq!(
        (invoked.error, said),
        (true, json!({"errorType": "Mine", "errorMessage": "cannot begin"}))
    );
    fixture.put_package("empty", &[("readme", 0o644, b"x")]);
    fixture.put_package("unset", &[("bootstrap", 0o644, b"#!/bin/sh\n")]);
    fixture.put_package("nonsense", &[("bootstrap", 0o755, b"\0\0nonsense")]);
    for (package, said) in [
        ("empty", "Couldn't find valid bootstrap"),
        ("unset", "permission denied"),
        ("nonsense", "fork/exec"),
    ] {
        fixture.function_of(package, package, "echo", json!({})).await;
        let invoked = fixture.invoke(package, json!({})).await;
        let error: Json = serde_json::from_slice(&invoked.payload).unwrap();
        assert_eq!(error["errorType"], "Runtime.InvalidEntrypoint");
        assert!(error["errorMessage"].as_str().unwrap().contains(said), "{error}");
    }
}

async fn itself() {
    let fixture = Fixture::new();
    let executable = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    fixture.put_package("itself", &[("bootstrap", 0o755, &executable)]);
    fixture.function_of("f", "itself", "echo", json!({})).await;
    assert_eq!(
        fixture.ask("f", json!({"do": "echo", "x": 2})).await["event"]["x"],
        2
    );
}

async fn queued() {
    let fixture = Fixture::with(|pace| pace.queued = [Duration::from_millis(20); 2]);
    fixture.function("f", "echo", json!({})).await;
    let event = |file: &str| Bytes::from(json!({"do": "note", "file": fixture.path(file)}).to_string());
    fixture.lambda.invoke_event(REGION, "f", event("good")).unwrap();
    until("it is done", || fixture.lines("good") == 1).await;
    let event = json!({"do": "note", "file": fixture.path("bad"), "fail": true}).to_string();
    fixture.lambda.invoke_event(REGION, "f", event.into()).unwrap();
    until("it is given up", || fixture.lines("bad") == 3).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((fixture.lines("good"), fixture.lines("bad")), (1, 3));
    assert!(fixture.lambda.invoke_event(REGION, "g", Bytes::new()).is_err());
}

async fn call(
    fixture: &Fixture,
    method: Method,
    path: &str,
    body: &Json,
    headers: &[(&str, &str)],
) -> (Reply, Json) {
    let mut map = HeaderMap::new();
    let credential =
        format!("AWS4-HMAC-SHA256 Credential=k/20260101/{REGION}/lambda/aws4_request, Signature=0");
    for (name, value) in headers
        .iter()
        .copied()
        .chain([("authorization", credential.as_str())])
    {
        map.insert(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let request = Request {
        method,
        path: path.into(),
        query: query.into(),
        headers: map,
        body: if body.is_null() {
            Bytes::new()
        } else {
            body.to_string().into()
        },
    };
    let reply = fixture.lambda.serve(request).await;
    let body = serde_json::from_slice(&reply.body).unwrap_or(Json::Null);
    (reply, body)
}

/// A function of a language is kept, so that stacks with it can be made, and not run.
async fn foreign() {
    let fixture = Fixture::new();
    let functions = "/2015-03-31/functions";
    let request = json!({
        "FunctionName": "node", "Runtime": "nodejs22.x", "Handler": "h", "Role": "r",
        "Code": {"S3Bucket": "code", "S3Key": "package"},
    });
    let (reply, said) = call(&fixture, Method::POST, functions, &request, &[]).await;
    assert_eq!(reply.status, 201, "{said}");
    let called = format!("{functions}/node/invocations");
    let (reply, said) = call(&fixture, Method::POST, &called, &json!({}), &[]).await;
    assert_eq!(reply.headers["x-amz-function-error"], "Unhandled");
    assert!(
        said["errorMessage"].as_str().unwrap().contains(
            "native functions (provided.al2023, provided.al2, provided) and functions in Python only"
        ),
        "{said}"
    );
    let (reply, _) = call(
        &fixture,
        Method::DELETE,
        &format!("{functions}/node"),
        &json!({}),
        &[],
    )
    .await;
    assert_eq!(reply.status, 204);
}

/// The interpreter gets the runtime as a program, and what Lambda tells a function as variables. Real interpreters run in the
/// suite that needs Python.
async fn python() {
    let fixture = Fixture::new();
    let settings = json!({"Runtime": "python3.12", "Architectures": ["arm64"]});
    fixture.function("snake", "echo", settings).await;
    let invoked = fixture.invoke("snake", json!({"do": "environment"})).await;
    let environment: Json = serde_json::from_slice(&invoked.payload).unwrap();
    assert!(!invoked.error, "{environment}");
    assert_eq!(environment["_HANDLER"], "echo");
    assert_eq!(environment["AWS_EXECUTION_ENV"], "AWS_Lambda_python3.12");
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_NAME"], "snake");
    let invoked = fixture.invoke("snake", json!({"do": "arguments"})).await;
    let arguments: Vec<String> = serde_json::from_slice(&invoked.payload).unwrap();
    assert_eq!(arguments[..3], ["-u", "-B", "-c"]);
    assert!(arguments[3].contains("invocation/next"), "{}", arguments[3]);
}

async fn api() {
    let fixture = Fixture::new();
    let functions = "/2015-03-31/functions";
    let get = async |path: &str| call(&fixture, Method::GET, path, &Json::Null, &[]).await;
    let request = json!({
        "FunctionName": "f", "Runtime": "provided.al2023", "Handler": "echo", "Role": "r", "Timeout": 30,
        "Code": {"S3Bucket": "code", "S3Key": "package"}, "Tags": {"a": "b"},
    });
    let (reply, made) = call(&fixture, Method::POST, functions, &request, &[]).await;
    assert_eq!(reply.status, 201, "{made}");
    let arn = made["FunctionArn"].as_str().unwrap();
    let (reply, _) = call(&fixture, Method::POST, functions, &request, &[]).await;
    assert_eq!(reply.status, 409);
    assert_eq!(reply.headers["x-amzn-errortype"], "ResourceConflictException");
    let mut nowhere = request.clone();
    nowhere["FunctionName"] = json!("nowhere");
    nowhere["Code"]["S3Key"] = json!("absent");
    let (_, said) = call(&fixture, Method::POST, functions, &nowhere, &[]).await;
    assert!(said["message"].as_str().unwrap().contains("NoSuchKey"), "{said}");

    let (_, found) = get(&format!("{functions}/{}", arn.replace(':', "%3A"))).await;
    assert_eq!(
        (&found["Configuration"], &found["Tags"]),
        (&made, &json!({"a": "b"}))
    );
    let (_, listed) = get(&format!("{functions}/?MaxItems=10")).await;
    assert_eq!(listed["Functions"], json!([made]));
    let path = format!("{functions}/f/configuration");
    let (_, updated) = call(&fixture, Method::PUT, &path, &json!({"MemorySize": 256}), &[]).await;
    assert_eq!(updated["MemorySize"], 256);

    let path = format!("{functions}/f:$LATEST/invocations");
    let event = json!({"do": "print", "lines": 1});
    let (reply, _) = call(
        &fixture,
        Method::POST,
        &path,
        &event,
        &[("x-amz-log-type", "Tail")],
    )
    .await;
    assert_eq!(
        (
            reply.status.as_u16(),
            reply.headers.contains_key("x-amz-function-error")
        ),
        (200, false)
    );
    assert!(reply.headers.contains_key("x-amz-log-result"));
    let (reply, _) = call(&fixture, Method::POST, &path, &json!({"do": "fail"}), &[]).await;
    assert_eq!(reply.headers["x-amz-function-error"], "Unhandled");
    let kind = |kind: &'static str| [("x-amz-invocation-type", kind)];
    let (reply, _) = call(&fixture, Method::POST, &path, &event, &kind("Event")).await;
    assert_eq!(reply.status, 202);

    let unsupported = get("/2019-09-25/functions/f/event-invoke-config").await;
    assert_eq!(unsupported.0.status, 501);
    assert!(
        unsupported.1["message"]
            .as_str()
            .unwrap()
            .contains("event-invoke-config")
    );
    let (reply, _) = call(
        &fixture,
        Method::DELETE,
        &format!("{functions}/f"),
        &Json::Null,
        &[],
    )
    .await;
    assert_eq!(
        (
            reply.status.as_u16(),
            get(&format!("{functions}/f")).await.0.status.as_u16()
        ),
        (204, 404)
    );
}

async fn labels() {
    let fixture = Fixture::new();
    let get = async |path: &str| call(&fixture, Method::GET, path, &Json::Null, &[]).await;
    fixture.function("f", "echo", json!({"Tags": {"a": "b"}})).await;
    let arn = format!("arn:aws:lambda:{REGION}:000000000000:function:f");
    let path = format!("/2017-03-31/tags/{arn}");
    let (reply, _) = call(&fixture, Method::POST, &path, &json!({"Tags": {"c": "d"}}), &[]).await;
    assert_eq!(reply.status, 204);
    call(
        &fixture,
        Method::DELETE,
        &format!("{path}?tagKeys=a"),
        &Json::Null,
        &[],
    )
    .await;
    assert_eq!(get(&path).await.1, json!({"Tags": {"c": "d"}}));
}

async fn records() {
    let fixture = Fixture::new();
    let stream = fixture.table("things").await;
    fixture.put("things", "before", 0).await;
    fixture
        .function(
            "f",
            "records",
            json!({"Environment": {"Variables": {"SEEN": fixture.path("seen")}}}),
        )
        .await;
    let request = json!({
        "EventSourceArn": stream, "FunctionName": "f", "StartingPosition": "LATEST", "BatchSize": 4,
        "FilterCriteria": {"Filters": [{"Pattern":
            r#"{"eventName": ["INSERT", "MODIFY"], "dynamodb": {"NewImage": {"k": {"S": [{"prefix": "good"}]}}}}"#}]},
    });
    let made = fixture.lambda.create_mapping(REGION, &request).await.unwrap();
    let id = made["UUID"].as_str().unwrap();
    assert_eq!(
        (&made["State"], &made["LastProcessingResult"]),
        (&json!("Enabled"), &json!("No records processed"))
    );
    let err = fixture.lambda.create_mapping(REGION, &request).await.unwrap_err();
    assert_eq!(err.status, 409);
    assert!(err.message.contains(id), "{}", err.message);
    for value in 0..10 {
        fixture.put("things", "bad", value).await;
        fixture.put("things", &format!("good{value}"), value).await;
    }
    let expected: Vec<String> = (0..10).map(|value| format!("good{value}")).collect();
    until("all have been seen", || fixture.seen("seen").len() >= 10).await;
    let seen = fixture.seen("seen");
    let keys: Vec<&str> = seen
        .iter()
        .map(|record| record["dynamodb"]["Keys"]["k"]["S"].as_str().unwrap())
        .collect();
    assert_eq!(keys, expected);
    assert_eq!(seen[0]["eventSourceARN"], stream);
    assert_eq!(
        (&seen[0]["awsRegion"], &seen[0]["eventSource"]),
        (&json!(REGION), &json!("aws:dynamodb"))
    );
    assert!(seen[0]["dynamodb"]["ApproximateCreationDateTime"].is_number());
    let result = || fixture.lambda.mapping(REGION, id).unwrap()["LastProcessingResult"].clone();
    until("it says that it goes well", || result() == "OK").await;
    // While it is off, nothing is seen; on again, what came meanwhile.
    let off = fixture
        .lambda
        .update_mapping(REGION, id, &json!({"Enabled": false}))
        .unwrap();
    assert_eq!(off["State"], "Disabled");
    tokio::time::sleep(Duration::from_millis(200)).await;
    fixture.put("things", "good-later", 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(fixture.seen("seen").len(), 10);
    fixture
        .lambda
        .update_mapping(REGION, id, &json!({"Enabled": true, "BatchSize": 1}))
        .unwrap();
    until("the later one is seen", || fixture.seen("seen").len() == 11).await;
    assert_eq!(
        fixture
            .lambda
            .mappings(REGION, Some(&stream), Some("f"))
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        fixture
            .lambda
            .mappings(REGION, Some(&stream), Some("g"))
            .unwrap()
            .len(),
        0
    );
    assert_eq!(
        fixture.lambda.delete_mapping(REGION, id).unwrap()["State"],
        "Deleting"
    );
    assert_eq!(fixture.lambda.mapping(REGION, id).unwrap_err().status, 404);
    fixture.put("things", "good-last", 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(fixture.seen("seen").len(), 11);
    // A table made anew has another stream.
    let other = fixture.table_again("things").await;
    assert_ne!(stream, other);
    assert_eq!(
        fixture
            .lambda
            .create_mapping(REGION, &request)
            .await
            .unwrap_err()
            .status,
        404
    );
}

async fn failures() {
    let fixture = Fixture::new();
    let stream = fixture.table("things").await;
    let variables = json!({"SEEN": fixture.path("seen"), "BAD": "k3"});
    fixture
        .function("f", "records", json!({"Environment": {"Variables": variables}}))
        .await;
    for key in 0..6 {
        fixture.put("things", &format!("k{key}"), key).await;
    }
    let request = |more: Json| {
        let mut request = json!({
            "EventSourceArn": stream, "FunctionName": "f", "StartingPosition": "TRIM_HORIZON", "MaximumRetryAttempts": 1,
            "DestinationConfig": {"OnFailure": {"Destination": QUEUE}},
        });
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        request
    };
    let keys = |name: &str| -> Vec<String> {
        let key = |record: &Json| record["dynamodb"]["Keys"]["k"]["S"].as_str().unwrap().to_owned();
        fixture.seen(name).iter().map(key).collect()
    };
    // In halves: only the one at fault is given up.
    let made = fixture
        .lambda
        .create_mapping(REGION, &request(json!({"BisectBatchOnFunctionError": true})))
        .await
        .unwrap();
    until("one is given up", || fixture.sent().len() == 1).await;
    let sent: Json = serde_json::from_str(&fixture.sent()[0]).unwrap();
    assert_eq!(sent["requestContext"]["condition"], "RetryAttemptsExhausted");
    assert_eq!(sent["responseContext"]["functionError"], "Unhandled");
    assert_eq!(
        (
            &sent["DDBStreamBatchInfo"]["batchSize"],
            &sent["DDBStreamBatchInfo"]["streamArn"]
        ),
        (&json!(1), &json!(stream))
    );
    until("the others are done", || {
        keys("seen") == ["k0", "k1", "k2", "k4", "k5"]
    })
    .await;
    let id = made["UUID"].as_str().unwrap();
    fixture.lambda.delete_mapping(REGION, id).unwrap();
    // From the record that the function names: what is before it is not seen twice; the rest is given up with it.
    std::fs::remove_file(fixture.path("seen")).unwrap();
    let variables = json!({"SEEN": fixture.path("seen"), "BAD": "k3", "NAMES": "1"});
    let change = json!({"Environment": {"Variables": variables}});
    fixture
        .lambda
        .update_configuration(REGION, "f", &change)
        .await
        .unwrap();
    let partial = request(json!({"FunctionResponseTypes": ["ReportBatchItemFailures"]}));
    fixture.lambda.create_mapping(REGION, &partial).await.unwrap();
    until("the rest is given up", || fixture.sent().len() == 2).await;
    let sent: Json = serde_json::from_str(&fixture.sent()[1]).unwrap();
    assert_eq!(sent["DDBStreamBatchInfo"]["batchSize"], 3);
    assert_eq!(sent["responseContext"].get("functionError"), None);
    assert_eq!(sent["requestContext"]["approximateInvokeCount"], 3);
    assert_eq!(keys("seen"), ["k0", "k1", "k2"]);
}

async fn restart() {
    let mut fixture = Fixture::new();
    let stream = fixture.table("things").await;
    let variables = json!({"SEEN": fixture.path("seen")});
    fixture
        .function("f", "records", json!({"Environment": {"Variables": variables}}))
        .await;
    let request = json!({"EventSourceArn": stream, "FunctionName": "f", "StartingPosition": "LATEST"});
    fixture.lambda.create_mapping(REGION, &request).await.unwrap();
    fixture.put("things", "a", 0).await;
    until("the first is seen", || fixture.seen("seen").len() == 1).await;
    until("its place is noted", || fixture.is_noted()).await;
    fixture.stop().await;
    fixture.put("things", "b", 0).await;
    fixture.start();
    fixture.put("things", "c", 0).await;
    until("the others are seen", || fixture.seen("seen").len() == 3).await;
    let found = fixture.lambda.function(REGION, "f").unwrap();
    assert_eq!(found["Configuration"]["FunctionName"], "f");
}

async fn code() {
    let fixture = Fixture::new();
    fixture.function("f", "echo", json!({})).await;
    let (begun, go) = (fixture.path("begun"), fixture.path("go"));
    let event = json!({"do": "read", "begun": begun, "go": go}).to_string();
    let lambda = fixture.lambda.clone();
    let invoked = tokio::spawn(async move { lambda.invoke(REGION, "f", event.into()).await });
    until("it has begun", || begun.exists()).await;
    fixture
        .lambda
        .update_code(REGION, "f", &json!({"S3Bucket": "code", "S3Key": "other"}))
        .await
        .unwrap();
    std::fs::write(&go, "").unwrap();
    let invoked = invoked.await.unwrap().unwrap();
    let said: Json = serde_json::from_slice(&invoked.payload).unwrap();
    assert!(!invoked.error, "{said}");
    assert!(said.as_str().unwrap().contains("# one"), "{said}");
    // The package is not needed any more.
    let unpacked = std::fs::read_dir(fixture.path("files/functions/code")).unwrap();
    assert_eq!(unpacked.count(), 1);
}

async fn scarce() {
    let fixture = Fixture::new();
    let stream = fixture.table("things").await;
    let variables = json!({"SEEN": fixture.path("seen")});
    fixture
        .function("f", "records", json!({"Environment": {"Variables": variables}}))
        .await;
    let request = json!({
        "EventSourceArn": stream, "FunctionName": "f", "StartingPosition": "LATEST", "MaximumRetryAttempts": 0,
        "DestinationConfig": {"OnFailure": {"Destination": QUEUE}},
    });
    fixture.lambda.create_mapping(REGION, &request).await.unwrap();
    let mut hoard: Vec<std::fs::File> =
        std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    // With some to spare it gets further, and not far enough.
    for _ in 0..3 {
        let err = fixture
            .lambda
            .invoke(REGION, "f", Bytes::new())
            .await
            .unwrap_err();
        assert_eq!((err.code.as_ref(), err.status), ("TooManyRequestsException", 429));
        assert!(err.message.contains("f could not be started now"), "{err}");
        hoard.pop();
    }
    fixture.put("things", "a", 0).await;
    let result = || {
        let mappings = fixture.lambda.mappings(REGION, None, None).unwrap();
        mappings[0]["LastProcessingResult"].as_str().unwrap().to_owned()
    };
    until("it was tried", || result().contains("could not be started")).await;
    drop(hoard);
    until("the record is seen", || fixture.seen("seen").len() == 1).await;
    assert!(fixture.sent().is_empty(), "{:?}", fixture.sent());
}

const CUSTOM: &str = "
Parameters: {Maker: {Type: String}}
Resources:
  Thing:
    Type: Custom::Thing
    Properties: {ServiceToken: !Ref Maker, ServiceTimeout: 60}
";

async fn custom() {
    let directory = tempfile::tempdir().unwrap();
    let listener = server::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let tables = Tables::new(EmbeddedEngine::memory().unwrap()).unwrap();
    let world = World::new(
        tables,
        Store::memory().unwrap(),
        directory.path().into(),
        url,
        Python::none(),
    )
    .unwrap();
    let world = Arc::new(world);
    let served = tokio::spawn(server::serve(
        Arc::clone(&world),
        listener,
        std::future::pending(),
    ));
    let seen = directory.path().join("seen");
    let package = zipped(&[("bootstrap", 0o755, script("custom").as_bytes())]);
    let function = json!({
        "FunctionName": "maker", "Runtime": "provided.al2023", "Handler": "custom", "Role": "r", "Timeout": 30,
        "Code": {"ZipFile": STANDARD.encode(package)}, "Environment": {"Variables": {"SEEN": seen}},
    });
    world
        .services
        .lambda
        .create_function("us-east-1", &function)
        .await
        .unwrap();
    let call = async |action: &str, more: &[(&str, &str)]| {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", action).append_pair("StackName", "app");
        form.extend_pairs(more);
        let credential =
            "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/cloudformation/aws4_request, Signature=0";
        let kind = "application/x-www-form-urlencoded";
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static(credential));
        headers.insert("content-type", HeaderValue::from_static(kind));
        let request = Request {
            method: Method::POST,
            path: "/".into(),
            query: String::new(),
            headers,
            body: form.finish().into(),
        };
        String::from_utf8(world.serve(request).await.body.to_vec()).unwrap()
    };
    let parameters = [
        ("TemplateBody", CUSTOM),
        ("Parameters.member.1.ParameterKey", "Maker"),
        ("Parameters.member.1.ParameterValue", "maker"),
    ];
    call("CreateStack", &parameters).await;
    let described = loop {
        let described = call("DescribeStacks", &[]).await;
        if !described.contains("_IN_PROGRESS</StackStatus>") {
            break described;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(described.contains("ROLLBACK_COMPLETE"), "{described}");
    let seen = std::fs::read_to_string(seen).unwrap();
    let asked: Vec<(Json, Json)> = seen
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap())
        .map(|event| (event["RequestType"].clone(), event["PhysicalResourceId"].clone()))
        .collect();
    assert_eq!(
        asked,
        [
            (json!("Create"), Json::Null),
            (json!("Delete"), json!("half-made"))
        ]
    );
    served.abort();
    world.close().await;
}
