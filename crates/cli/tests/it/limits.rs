//! `limits`.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value as Json, json};
use zae_limiter::stack_manager;
use zae_limiter::table::Connection;
use zae_limiter_core::manifest::Manifest;
use zae_limiter_infra::{AwsFailure, Error};

use crate::functions::{Answers, Described, STACK, Server, function};
use crate::world::{Ran, World, assert_transcript, block_on, embedded_only, finish};

/// As on the reference page.
const MANIFEST: &str = "\
namespace: default
system:
  on_unavailable: block
  limits:
    rpm: {capacity: 1000}
resources:
  gpt-4:
    limits:
      rpm: {capacity: 500}
      tpm: {capacity: 50000, refill_amount: 10000, refill_period: 60}
  gpt-3.5-turbo:
    limits:
      rpm: {capacity: 2000}
entities:
  user-premium:
    resources:
      gpt-4:
        limits:
          rpm: {capacity: 1000}
";

/// The same, changed: a level less, a level of which a limit differs, a level more.
const CHANGED: &str = "\
namespace: default
system:
  on_unavailable: allow
  limits:
    rpm: {capacity: 1000}
resources:
  gpt-4:
    limits:
      rpm: {capacity: 500}
      tpm: {capacity: 60000, refill_amount: 10000, refill_period: 60}
entities:
  user-premium:
    resources:
      gpt-4:
        limits:
          rpm: {capacity: 1000}
      _default_:
        limits:
          rpm: {capacity: 100, refill_period: 3600}
";

fn write(world: &World, name: &str, text: &str) {
    fs::write(world.path().join(name), text).unwrap();
}

fn with_manifest() -> World {
    let world = World::new();
    write(&world, "limits.yaml", MANIFEST);
    write(&world, "changed.yaml", CHANGED);
    world
}

#[test]
fn planned_applied_and_compared() {
    embedded_only!();
    let mut world = with_manifest();
    world.run("limits plan -f limits.yaml");
    world.run("limits diff -f limits.yaml");
    world.run("resource list");
    world.run("limits apply -f limits.yaml");
    world.run("resource get-defaults gpt-4");
    world.run("system get-defaults");
    world.run("entity list --with-custom-limits gpt-4");
    world.run("audit list -e '$RESOURCE:gpt-4'");
    // A level that is stored as declared is not a change.
    world.run("limits plan -f limits.yaml");
    world.run("limits apply -f limits.yaml");
    world.run("limits diff -f limits.yaml");
    world.run("limits plan -f changed.yaml");
    world.run("limits plan -f changed.yaml --verbose");
    world.run("limits diff -f changed.yaml --direct -v");
    world.run("limits apply -f changed.yaml");
    world.run("limits apply -f changed.yaml --full");
    // Everything that is managed goes; that it is gone needs no second time.
    world.answer("limits apply -f -", "namespace: default\n");
    world.answer("limits apply -f -", "namespace: default\n");
    world.run("resource list");
    assert_transcript!(world);
}

/// Concurrency limits and the cascade depth, with levels and without.
const SETTINGS: &str = "\
namespace: default
system:
  concurrency: 100
  cascade_depth: 4
resources:
  gpt-4:
    concurrency: 50
    limits:
      rpm: {capacity: 500}
entities:
  user-1:
    resources:
      _default_: {concurrency: 5}
";

#[test]
fn concurrency_and_cascade_depth() {
    embedded_only!();
    let mut world = World::new();
    write(&world, "limits.yaml", SETTINGS);
    let fewer = SETTINGS.replace("  cascade_depth: 4\n", "").replace("50", "60");
    write(&world, "fewer.yaml", &fewer);
    let wrong = SETTINGS
        .replace("100", "0")
        .replace("cascade_depth: 4", "cascade_depth: 9");
    write(
        &world,
        "wrong.yaml",
        &wrong.replace("_default_: {c", "gpt-4: {cascade_depth: 3, c"),
    );
    world.run("limits plan -f wrong.yaml");
    world.run("resource set-concurrency gpt-4 9");
    world.run("resource set-concurrency by-hand 9");
    world.run("limits plan -f limits.yaml --verbose");
    world.run("limits apply -f limits.yaml");
    world.run("limits plan -f limits.yaml");
    world.run("system get-concurrency");
    world.run("entity get-concurrency user-1");
    world.run("limits diff -f fewer.yaml -v");
    world.run("limits apply -f fewer.yaml --output json");
    world.answer("limits apply -f -", "namespace: default\n");
    world.run("resource get-concurrency gpt-4");
    world.run("resource get-concurrency by-hand");
    assert_transcript!(world);
}

#[test]
fn a_provisioner_that_does_not_know_them() {
    embedded_only!();
    let (mut world, server) = with_server(function("python3.12"));
    write(&world, "limits.yaml", SETTINGS);
    server.answer(Answers::With(json!({ "status": "planned", "changes": [] })));
    let before = server.calls();
    at(&mut world, &server, "limits plan -f limits.yaml");
    at(&mut world, &server, "limits apply -f limits.yaml");
    // It was asked for plans alone.
    assert_eq!(server.calls() - before, 2);
    assert_transcript!(world);
}

/// A project with limits for all resources, and keys below it.
const ABOVE: &str = "\
namespace: default
resources:
  gpt-4:
    limits:
      rpm: {capacity: 10}
entities:
  proj:
    resources:
      gpt-4:
        limits:
          rpm: {capacity: 60}
          tpm: {capacity: 1000}
  key:
    resources:
      gpt-4:
        limits:
          rpm: {capacity: 600}
          tpm: {capacity: 1000}
      gpt-5:
        limits:
          rpm: {capacity: 600}
      _default_:
        limits:
          rpm: {capacity: 6}
  apart:
    resources:
      gpt-4:
        limits:
          rpm: {capacity: 600}
";

#[test]
fn declared_limits_above_those_of_a_parent_are_noted() {
    embedded_only!();
    let mut world = World::new();
    world.silently(&["entity", "create", "proj"], None);
    world.silently(
        &["entity", "create", "key", "--parent", "proj", "--cascade"],
        None,
    );
    world.silently(&["entity", "create", "apart", "--parent", "proj"], None);
    write(&world, "limits.yaml", ABOVE);
    // The parent's limit as it will be, and not as it is.
    world.run("entity set-limits proj -r gpt-4 -l rpm:6000 -l tpm:6000");
    world.run("entity set-limits proj -r gpt-5 -l rpm:500");
    world.run("limits plan -f limits.yaml");
    world.run("limits plan -f limits.yaml --quiet");
    world.run("limits apply -f limits.yaml");
    world.run("limits plan -f limits.yaml --output json");
    // Without a level of its own, the parent is under the limits of the resource.
    write(&world, "less.yaml", &without_level_of_parent());
    world.run("limits plan -f less.yaml");
    assert_transcript!(world);
}

fn without_level_of_parent() -> String {
    let (before, rest) = ABOVE.split_once("  proj:\n").unwrap();
    let (_, after) = rest.split_once("  key:\n").unwrap();
    format!("{before}  key:\n{after}")
}

#[test]
fn only_the_summary() {
    embedded_only!();
    let mut world = with_manifest();
    world.run("limits plan -f limits.yaml -q");
    world.run("limits diff -f limits.yaml -q");
    world.run("limits apply -f limits.yaml -q");
    world.run("limits plan -f changed.yaml --quiet");
    world.run("limits diff -f changed.yaml --quiet --output json");
    world.run("limits apply -f limits.yaml --quiet --output json");
    assert_transcript!(world);
}

#[test]
fn as_json() {
    embedded_only!();
    let mut world = with_manifest();
    world.run("resource set-defaults claude -l rpm:5");
    world.run("limits plan -f limits.yaml --output json");
    world.run("limits apply -f limits.yaml --output json");
    world.run("limits diff -f limits.yaml --output json");
    world.run("resource set-defaults gpt-4 -l rpm:5");
    world.run("limits diff -f limits.yaml --output json");
    assert_transcript!(world);
}

/// Levels that no manifest declared are not reported as differences; changed levels are.
#[test]
fn limits_set_by_hand() {
    embedded_only!();
    let mut world = with_manifest();
    world.run("resource set-defaults claude -l rpm:5");
    world.run("entity set-limits user-1 -r gpt-4 -l rpm:5");
    world.run("entity set-limits user-1 -l rpm:7");
    world.run("limits apply -f limits.yaml");
    world.run("limits diff -f limits.yaml");
    world.run("system delete-defaults --yes");
    world.run("resource set-defaults gpt-4 -l rpm:500 -l tpm:10000");
    world.run("limits diff -f limits.yaml");
    world.run("limits plan -f limits.yaml --verbose");
    world.run("limits apply -f limits.yaml");
    world.run("resource get-defaults claude");
    world.run("entity get-limits user-1 -r gpt-4");
    assert_transcript!(world);
}

#[test]
fn exit_codes_for_scripts() {
    embedded_only!();
    let world = with_manifest();
    let check = |line: &str, code| {
        let args: Vec<&str> = line.split(' ').collect();
        let ran = world.silently(&args, None);
        assert_eq!(ran.code, Some(code), "{line}: {ran:?}");
    };
    check("limits plan -f limits.yaml", 0);
    check("limits plan -f limits.yaml --detailed-exitcode", 2);
    check("limits diff -f limits.yaml --detailed-exitcode --output json", 2);
    check("limits apply -f limits.yaml", 0);
    check("limits plan -f limits.yaml --detailed-exitcode", 0);
    check("limits diff -f limits.yaml --detailed-exitcode -q", 0);
    // A wrong command line must not be taken for changes.
    check("limits plan -f missing.yaml", 2);
    check("limits plan -f missing.yaml --detailed-exitcode", 1);
    check("limits diff -f changed.yaml --detailed-exitcode --nope", 1);
    check("limits plan --detailed-exitcode --help", 0);
}

#[test]
fn manifests_that_are_wrong() {
    embedded_only!();
    let mut world = World::new();
    write(
        &world,
        "wrong.yaml",
        "\
namespace: default
system:
  on_unavailable: perhaps
resources:
  gpt-4:
    limits:
      tpm: {capacity: 5k}
      rpm: {capacity: 5, refil_amount: 3}
  gpt#4: {}
",
    );
    write(&world, "list.yaml", "- rpm\n");
    write(&world, "broken.yaml", "namespace: default\nresources: {gpt-4: \n");
    write(&world, "empty.yaml", "");
    fs::write(world.path().join("latin.yaml"), b"namespace: caf\xe9\n").unwrap();
    for command in ["plan", "apply", "diff", "cfn-template"] {
        let args = ["limits", command, "--name", "limits", "-f", "wrong.yaml"];
        let ran = finish(&mut world.command(&args), None);
        // Whatever is missing where it would be applied.
        assert_eq!((ran.code, &*ran.stdout), (Some(1), ""), "{command}: {ran:?}");
    }
    for file in ["wrong", "list", "broken", "empty", "latin"] {
        world.run(&format!("limits apply -f {file}.yaml"));
    }
    world.answer("limits plan -f -", "namespace: default\nsystem: 1\n");
    world.run("resource list");
    assert_transcript!(world);
}

#[test]
fn namespaces() {
    embedded_only!();
    let mut world = World::new();
    write(
        &world,
        "tenant.yaml",
        "namespace: tenant-a\nsystem: {limits: {rpm: {capacity: 5}}}\n",
    );
    // What only reads does not register it.
    world.run("limits plan -f tenant.yaml");
    world.run("limits diff -f tenant.yaml");
    world.run("namespace list");
    world.run("limits apply -f tenant.yaml -N tenant-b");
    world.run("limits apply -f tenant.yaml --namespace tenant-a");
    world.run("system get-defaults --namespace tenant-a");
    world.run("system get-defaults");
    assert_transcript!(world);
}

#[test]
fn no_table() {
    embedded_only!();
    let mut world = World::without_table();
    write(&world, "limits.yaml", MANIFEST);
    for command in ["plan", "diff", "apply"] {
        world.run(&format!("limits {command} -f limits.yaml"));
    }
    world.plainly("limits plan -n bad_name -f limits.yaml");
    world.plainly("limits cfn-template -n bad_name -f limits.yaml");
    assert_transcript!(world);
    assert_eq!(crate::world::names_in(world.path()), ["limits.yaml"]);
}

#[test]
fn templates() {
    let mut world = World::without_table();
    write(&world, "limits.yaml", MANIFEST);
    let odd = "\
namespace: 'on'
system:
resources:
  'off': {limits: {y: {capacity: 1}, e1: {capacity: 2, refill_amount: 1}}}
entities:
  '007': {}
  '1:30': {resources: {_default_: {limits: {}}}}
";
    write(&world, "odd.yaml", odd);
    world.plainly("limits cfn-template -n my-app -f limits.yaml");
    world.plainly("limits cfn-template -n my-app -f limits.yaml --full");
    world.plainly("limits cfn-template -n off -f odd.yaml");
    assert_transcript!(world);
    for (file, text) in [("limits.yaml", MANIFEST), ("odd.yaml", odd)] {
        let args = ["limits", "cfn-template", "--name", "my-app", "--file", file];
        let ran = finish(&mut world.command(&args), None);
        let template: Json = serde_saphyr::from_str(&ran.stdout).unwrap();
        let resource = &template["Resources"]["TenantLimits"];
        assert_eq!(resource["Type"], "Custom::ZaeLimiterLimits");
        let service = &resource["Properties"]["ServiceToken"];
        assert_eq!(*service, json!({ "Fn::ImportValue": "my-app-ProvisionerArn" }));
        let read = Manifest::from_properties(&resource["Properties"]).unwrap();
        assert_eq!(read, Manifest::from_yaml(text.as_bytes()).unwrap());
    }
}

#[test]
fn the_schema() {
    let world = World::without_table();
    let ran = finish(&mut world.command(&["limits", "schema"]), None);
    let schema = ran.json();
    assert_eq!(schema, serde_json::from_str::<Json>(Manifest::SCHEMA).unwrap());
    assert_eq!(schema["required"], json!(["namespace"]));
}

/// Runs `limits` on a server.
fn at(world: &mut World, server: &Server, line: &str) -> Ran {
    let args: Vec<String> = line
        .split(' ')
        .chain(["-n", STACK, "--endpoint-url", &server.url])
        .map(str::to_owned)
        .collect();
    let command = world.command(&args);
    world.record(command, line, None)
}

fn with_server(described: Described) -> (World, Server) {
    let world = World::without_table();
    write(&world, "limits.yaml", MANIFEST);
    write(&world, "changed.yaml", CHANGED);
    (world, Server::new(described))
}

#[test]
fn through_the_provisioner() {
    embedded_only!();
    let (mut world, server) = with_server(function("provided.al2023"));
    at(&mut world, &server, "limits plan -f limits.yaml");
    let event = server.last();
    assert_eq!(event["action"], "plan");
    assert_eq!(
        (&event["table_name"], &event["full"]),
        (&json!(STACK), &json!(false))
    );
    assert_eq!(
        event["manifest"]["resources"]["gpt-4"]["limits"]["rpm"]["capacity"],
        500
    );
    assert!(event["namespace_id"].as_str().is_some_and(|id| !id.is_empty()));
    at(&mut world, &server, "limits apply -f limits.yaml --full");
    assert_eq!(
        (&server.last()["action"], &server.last()["full"]),
        (&json!("apply"), &json!(true))
    );
    at(&mut world, &server, "limits diff -f limits.yaml");
    at(&mut world, &server, "limits plan -f changed.yaml --verbose");
    at(
        &mut world,
        &server,
        "limits plan -f changed.yaml -q --output json",
    );
    assert_eq!(server.calls(), 5);
    // Past it, and nothing is said about it.
    at(
        &mut world,
        &server,
        "limits plan -f changed.yaml --direct -q --output json",
    );
    assert_eq!(server.calls(), 5);
    assert_transcript!(world);
}

#[test]
fn answers_of_the_provisioner() {
    embedded_only!();
    let (mut world, server) = with_server(function("provided.al2023"));
    let change = json!({ "action": "update", "level": "resource", "target": "gpt-4" });
    let answer = |changes: Json, pending, errors: Json, resumed| {
        Answers::With(json!({
            "status": "applied", "changes": changes, "created": 0, "updated": 1, "deleted": 0, "unchanged": 3,
            "pending": pending, "resumed": resumed, "full": false, "errors": errors,
        }))
    };
    server.answer(answer(json!([change]), 2, json!([]), true));
    for command in ["plan", "apply", "diff", "plan -q", "apply -q", "diff -q"] {
        at(&mut world, &server, &format!("limits {command} -f limits.yaml"));
    }
    server.answer(answer(json!([]), 2, json!([]), false));
    for command in ["plan", "apply", "diff"] {
        at(&mut world, &server, &format!("limits {command} -f limits.yaml"));
    }
    // Something is to be done, though nothing differs.
    let ran = at(
        &mut world,
        &server,
        "limits plan -f limits.yaml --detailed-exitcode -q",
    );
    assert_eq!(ran.code, Some(2));
    server.answer(answer(
        json!([change]),
        1,
        json!(["delete resource x: boom"]),
        false,
    ));
    at(&mut world, &server, "limits apply -f limits.yaml");
    at(&mut world, &server, "limits apply -f limits.yaml --quiet");
    let ran = at(
        &mut world,
        &server,
        "limits apply -f limits.yaml --quiet --output json",
    );
    assert_eq!(ran.code, Some(1));
    server.answer(answer(json!([]), 1, json!(["sync entity u/r: boom"]), false));
    at(&mut world, &server, "limits apply -f limits.yaml");
    // What only becomes managed, what replaces limits set by hand, and what is left to another apply.
    let rpm = |capacity: i64| json!({ "limits": { "rpm": { "capacity": capacity, "refill_amount": 1, "refill_period": 60 } } });
    let replaced = json!({
        "action": "create", "level": "entity", "target": "user-1/gpt-4", "old": rpm(1), "new": rpm(2),
    });
    for changes in [json!([]), json!([replaced])] {
        server.answer(Answers::With(json!({
            "changes": changes, "created": 1, "updated": 0, "deleted": 0, "unchanged": 3, "adopted": 2, "pending": 1,
            "of_others": 1, "errors": [],
        })));
        for command in ["plan", "plan -q", "apply", "diff"] {
            at(&mut world, &server, &format!("limits {command} -f limits.yaml"));
        }
    }
    server.answer(Answers::With(json!({
        "changes": [], "unchanged": 3, "adopted": 0, "pending": 1, "of_others": 1, "errors": [],
    })));
    let ran = at(
        &mut world,
        &server,
        "limits plan -f limits.yaml --detailed-exitcode",
    );
    assert_eq!(ran.code, Some(0));
    server.answer(Answers::With(json!({ "statusCode": 200 })));
    at(&mut world, &server, "limits apply -f limits.yaml");
    assert_transcript!(world);
}

/// Functions of the Python original say less, and fail in their own way.
#[test]
fn a_provisioner_in_python() {
    embedded_only!();
    let (mut world, server) = with_server(function("python3.12"));
    let changes = json!([
        { "action": "update", "level": "system", "target": null },
        { "action": "create", "level": "entity", "target": "user-premium/gpt-4" },
    ]);
    server.answer(Answers::With(json!({ "status": "planned", "changes": changes })));
    at(&mut world, &server, "limits plan -f limits.yaml --verbose");
    at(&mut world, &server, "limits diff -f limits.yaml --output json");
    let applied = json!({
        "status": "applied", "changes": changes, "created": 1, "updated": 1, "deleted": 0, "errors": [],
    });
    server.answer(Answers::With(applied));
    at(&mut world, &server, "limits apply -f limits.yaml");
    at(&mut world, &server, "limits apply -f limits.yaml --full");
    let failure = json!({
        "errorMessage": "'capacity'", "errorType": "KeyError", "requestId": "r",
        "stackTrace": ["  File \"/var/task/handler.py\", line 1, in handler\n"],
    });
    server.answer(Answers::Failing(failure));
    at(&mut world, &server, "limits apply -f limits.yaml");
    assert_transcript!(world);
}

#[test]
fn a_provisioner_that_fails() {
    embedded_only!();
    let (mut world, server) = with_server(function("provided.al2023"));
    for answers in [
        Answers::Error(429, "TooManyRequestsException"),
        Answers::Error(404, "ResourceNotFoundException"),
        Answers::Error(403, "AccessDeniedException"),
        Answers::Error(500, "ServiceException"),
        Answers::Failing(json!({ "errorMessage": "line one\nline two" })),
        Answers::Failing(json!({})),
    ] {
        server.answer(answers);
        let before = server.calls();
        for command in ["apply", "plan"] {
            at(&mut world, &server, &format!("limits {command} -f limits.yaml"));
        }
        // Whatever happens, a call is not repeated.
        assert_eq!(server.calls(), before + 2);
    }
    let shown = world.transcript().replace(&server.url, "<endpoint>");
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(shown) });
}

#[test]
fn without_a_provisioner() {
    embedded_only!();
    for described in [
        Described::Error(404, "ResourceNotFoundException"),
        Described::NotUnderstood,
    ] {
        let (mut world, server) = with_server(described.clone());
        at(&mut world, &server, "limits plan -f limits.yaml -q");
        at(&mut world, &server, "limits apply -f limits.yaml -q");
        at(&mut world, &server, "limits diff -f limits.yaml --direct");
        assert_eq!(server.calls(), 0);
        let name = match described {
            Described::NotUnderstood => "a_server_without_functions",
            _ => "a_stack_without_a_provisioner",
        };
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, world.transcript()) });
    }
}

/// What a plan needs is less than what it takes to find all limits.
#[test]
fn limits_set_by_hand_that_may_not_be_read() {
    embedded_only!();
    let (mut world, server) = with_server(function("provided.al2023"));
    at(&mut world, &server, "entity set-limits user-1 -r gpt-4 -l rpm:5");
    at(&mut world, &server, "limits apply -f limits.yaml -q");
    at(&mut world, &server, "limits diff -f limits.yaml");
    server.answer(Answers::With(json!({ "changes": [], "unchanged": 4 })));
    server.refuse(".Query");
    at(&mut world, &server, "limits diff -f limits.yaml");
    at(&mut world, &server, "limits diff -f limits.yaml --quiet");
    at(&mut world, &server, "limits diff -f limits.yaml --output json");
    assert_transcript!(world);
}

/// Who may not look at the function may be allowed to call it.
#[test]
fn a_provisioner_that_may_not_be_looked_at() {
    embedded_only!();
    let (mut world, server) = with_server(Described::Error(403, "AccessDeniedException"));
    at(&mut world, &server, "limits apply -f limits.yaml -q");
    assert_eq!(server.calls(), 1);
    // Throttling does not mean that there is no function.
    let (mut other, server) = with_server(Described::Error(429, "TooManyRequestsException"));
    let ran = at(&mut other, &server, "limits apply -f limits.yaml -q");
    assert_eq!((ran.code, &*ran.stdout, server.calls()), (Some(3), "", 0));
    assert_transcript!(world);
}

/// The call ends with the time it was given, and says that this is why.
#[test]
fn a_function_that_does_not_answer() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let connection = Connection {
        endpoint_url: Some(format!("http://{}", listener.local_addr().unwrap())),
        region: Some("us-east-1".into()),
        ..Connection::default()
    };
    let called = block_on(async {
        let manager = stack_manager(&connection.sdk_config().await);
        manager
            .invoke("f", b"{}".to_vec(), Duration::from_millis(300))
            .await
    });
    assert!(
        matches!(
            called,
            Err(Error::Aws {
                kind: AwsFailure::Timeout,
                ..
            })
        ),
        "{called:?}"
    );
}
