//! Commands about stacks, where no server is needed: what is refused before one is called, and what is written to
//! files. `interop/test_stack.py` has the rest.

use std::fs;
use std::path::Path;

use crate::world::{World, assert_transcript, embedded_only, finish, names_in};

/// The header of a static Linux executable for x86-64, and nothing else.
fn executable() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (bytes[16], bytes[18], bytes[20], bytes[52]) = (2, 62, 1, 64);
    bytes
}

#[test]
fn options_that_are_refused_before_anything_is_called() {
    let mut world = World::without_table();
    for line in [
        "deploy --no-iam --create-iam-roles",
        "deploy -n bad_name",
        "deploy -n ab",
        "deploy -n a-name-that-is-too-long-for-the-provisioner-fn",
        "deploy -t bad",
        "deploy -t aws:x=y",
        "deploy --usage-retention-days 0",
        "deploy --audit-retention-days 0",
        "deploy --pitr-recovery-days 36",
        "deploy --snapshot-windows weekly",
        "deploy --alert-thresholds 80,120",
        "deploy --alert-thresholds most",
        "deploy --role-name-format pb",
        "deploy --policy-name-format {}{}",
        "deploy --role-name-format a-rather-long-prefix-for-each-of-the-roles-of-it-{} -n my-application",
        "deploy --aggregator-role-arn foo",
        "deploy --endpoint-url nowhere",
        "upgrade --parameter Nope=1 --region us-east-1",
        "upgrade -n bad_name",
        "delete -n bad_name --yes",
        "status -n bad_name",
        "list --endpoint-url nowhere",
    ] {
        world.plainly(line);
    }
    assert_transcript!(world);
    assert_eq!(names_in(world.path()), [""; 0]);
}

#[test]
fn a_directory_has_no_stack() {
    embedded_only!();
    let mut world = World::without_table();
    world.run("deploy --lambda-memory 512 --no-alarms -t a=b");
    world.run("deploy --alert-thresholds 80");
    fs::write(world.path().join("bootstrap"), "").unwrap();
    world.run("deploy --lambda-package bootstrap");
    world.run("status");
    world.run("deploy --audit-retention-days 7");
    world.run("system set-defaults -l rpm:1");
    let ran = world.silently(&["status"], None);
    let masked: Vec<&str> = ran
        .stdout
        .lines()
        .map(|line| match line.trim_start().split_once(':') {
            // How long it took, and what depends on names of machine and release.
            Some(("Latency", value)) if value.ends_with("ms") => "  Latency:       [..]ms",
            Some(("Size", value)) if value.ends_with('B') => "  Size:          [..]B",
            _ => line,
        })
        .collect();
    let shown = masked.join("\n");
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!("status_of_a_directory", shown) });
    world.run("delete --yes");
    world.run("upgrade");
    world.plainly("list --endpoint-url embedded:./db");
    assert_transcript!(world);
}

#[test]
fn the_template_is_printed_as_it_is() {
    let mut world = World::without_table();
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/template.yaml");
    let template = fs::read_to_string(template).unwrap();
    let printed = finish(&mut world.command(&["cfn-template"]), None);
    assert_eq!((printed.code, &*printed.stderr), (Some(0), ""));
    assert_eq!(printed.stdout, template);
    world.plainly("cfn-template --output template.yaml");
    assert_eq!(
        fs::read_to_string(world.path().join("template.yaml")).unwrap(),
        template
    );
    world.plainly("cfn-template -o no/such/directory.yaml");
    assert_transcript!(world);
}

#[test]
fn the_functions_package() {
    let mut world = World::without_table();
    fs::write(world.path().join("bootstrap"), executable()).unwrap();
    fs::write(world.path().join("script"), "#!/bin/sh\n").unwrap();
    world.plainly("lambda-export --info --lambda-package bootstrap");
    assert_eq!(names_in(world.path()), ["bootstrap", "script"]);
    world.plainly("lambda-export --lambda-package bootstrap -o deep/down/lambda.zip");
    world.plainly("lambda-export --lambda-package bootstrap -o deep/down/lambda.zip");
    let first = fs::read(world.path().join("deep/down/lambda.zip")).unwrap();
    world.plainly("lambda-export --lambda-package bootstrap -o deep/down/lambda.zip --force");
    assert_eq!(
        fs::read(world.path().join("deep/down/lambda.zip")).unwrap(),
        first
    );
    // What it wrote, it takes.
    world.plainly("lambda-export --lambda-package deep/down/lambda.zip");
    assert_eq!(fs::read(world.path().join("lambda.zip")).unwrap(), first);
    world.plainly("lambda-export --info --lambda-package lambda.zip");
    world.plainly("lambda-export --info --lambda-package script");
    world.plainly("lambda-export --info --lambda-package missing");
    world.plainly("lambda-export --lambda-package bootstrap -o script/x.zip");
    assert_transcript!(world);
}

#[test]
fn a_server_that_does_not_answer() {
    let world = World::without_table();
    for line in [
        "deploy -n my-app --region us-east-1 --endpoint-url http://127.0.0.1:1 --output json",
        "delete -n my-app --region us-east-1 --endpoint-url http://127.0.0.1:1 --yes --output json",
        "list --region us-east-1 --endpoint-url http://127.0.0.1:1",
        "upgrade --region us-east-1 --endpoint-url http://127.0.0.1:1 --output json",
    ] {
        let ran = finish(&mut world.command(&line.split(' ').collect::<Vec<_>>()), None);
        assert_eq!((ran.code, &*ran.stdout), (Some(3), ""), "{line}: {ran:?}");
        let expected = "Could not connect to the endpoint URL: \"http://127.0.0.1:1\" (";
        assert!(ran.failure().contains(expected), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    }
}
