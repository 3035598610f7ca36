//! A stack that exists: what `deploy` changes of it, and what `delete` does not begin.

use crate::loadtest_stack::executable;
use crate::local::Local;
use crate::world::{Ran, embedded_only, finish, words};

struct Stack {
    local: Local,
    url: String,
}

impl Stack {
    fn new(options: &str) -> Self {
        let local = Local::new();
        let up = local.up("");
        let url = up["url"].as_str().unwrap().to_owned();
        std::fs::write(local.world.path().join("worker"), executable(b"")).unwrap();
        let stack = Self { local, url };
        let created = stack.run(&format!("deploy --lambda-package worker {options}"));
        assert_eq!(created.code, Some(0), "{created:?}");
        stack
    }

    fn run(&self, line: &str) -> Ran {
        let place = format!("--name app --region us-east-1 --endpoint-url {}", self.url);
        finish(
            &mut self.local.world.command(&words(&format!("{line} {place}"))),
            None,
        )
    }

    #[track_caller]
    fn lines(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.stdout
    }
}

#[test]
fn deploy_changes_the_settings_that_are_given() {
    embedded_only!("this has a server of its own");
    let stack = Stack::new("--no-aggregator --log-retention-days 14");
    // Without options nothing is changed, and the settings of the stack are shown.
    let again = stack.lines("deploy --lambda-package worker");
    for text in [
        "  Aggregator: disabled\n",
        "  Log retention days: 14\n",
        "  The stack already existed. Its template and settings were not changed.\n",
    ] {
        assert!(again.contains(text), "{again}");
    }
    assert!(
        !again.contains("Audit retention days"),
        "it is not a setting of the stack: {again}"
    );
    let changed = stack.lines(
        "deploy --lambda-package worker --log-retention-days 90 --enable-deletion-protection -t team=a",
    );
    for text in [
        "  Log retention days: 90\n",
        "  Aggregator: disabled\n",
        "Changes of the stack:\n  EnableDeletionProtection: false -> true\n  LogRetentionDays: 14 -> 90\n  Modify ",
        "✓ Stack update complete\n",
        "  Tags added\n",
    ] {
        assert!(changed.contains(text), "{text}: {changed}");
    }
    let json = stack
        .run("deploy --lambda-package worker --log-retention-days 30 --output json")
        .json();
    assert_eq!(
        json["settings_changed"],
        serde_json::json!({"LogRetentionDays": "30"})
    );
    assert_eq!(json["not_applied"], serde_json::json!({}));
    let same = stack
        .run("deploy --lambda-package worker --log-retention-days 30 --output json")
        .json();
    assert_eq!(same["settings_changed"], serde_json::json!({}));
}

#[test]
fn the_lean_index_is_chosen_once() {
    embedded_only!("this has a server of its own");
    let lean = Stack::new("--no-aggregator --lean-index");
    let table = lean.run("deploy --lambda-package worker --lean-index --log-retention-days 14 --output json");
    let changed = serde_json::json!({"LogRetentionDays": "14"});
    assert_eq!(table.json()["settings_changed"], changed, "{table:?}");
    lean.lines("upgrade --yes --lambda-package worker");
    let refused = |stack: &Stack, line: &str, has: &str| {
        let run = stack.run(line);
        assert_eq!(run.code, Some(2), "{run:?}");
        let why = format!(
            "is chosen when a stack is created, and this one has {has}: the index would have to be deleted"
        );
        assert!(run.stderr.contains(&why), "{run:?}");
    };
    refused(
        &lean,
        "upgrade --yes --lambda-package worker --parameter LeanIndex=false",
        "true",
    );
    let whole = Stack::new("--no-aggregator");
    refused(&whole, "deploy --lambda-package worker --lean-index", "false");
}

#[test]
fn deploy_removes_resources_only_if_it_may() {
    embedded_only!("this has a server of its own");
    let stack = Stack::new("--no-aggregator");
    let refused = stack.run("deploy --lambda-package worker --no-alarms");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for text in [
        "nothing was applied",
        "DynamoDBReadThrottleAlarm (AWS::CloudWatch::Alarm): would be removed",
        ". To allow it, add --allow-removal\n",
    ] {
        assert!(refused.stderr.contains(text), "{refused:?}");
    }
    assert!(
        stack
            .lines("deploy --lambda-package worker")
            .contains("  Alarms: enabled\n")
    );
    let removed = stack.lines("deploy --lambda-package worker --no-alarms --allow-removal");
    assert!(
        removed.contains("  Remove DynamoDBReadThrottleAlarm (AWS::CloudWatch::Alarm)\n"),
        "{removed}"
    );
    assert!(
        stack
            .lines("deploy --lambda-package worker")
            .contains("  Alarms: disabled\n")
    );
    // The aggregator is added later, with code.
    let added = stack.lines("deploy --lambda-package worker --enable-aggregator");
    for text in [
        "  Add AggregatorFunction (AWS::Lambda::Function)\n",
        "✓ Lambda code already deployed",
    ] {
        assert!(added.contains(text), "{text}: {added}");
    }
}

#[test]
fn delete_deletes_all_or_nothing() {
    embedded_only!("this has a server of its own");
    let stack = Stack::new("--enable-deletion-protection");
    let resources = || stack.lines("status");
    let before = resources();
    let refused = stack.run("delete --yes");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let why = "stack 'app' was not deleted, as these would be left:\n  RateLimitsTable (app): the table is protected from deletion; \
               switch that off with 'zae-limiter deploy -n app --no-deletion-protection'\n";
    assert!(refused.stderr.ends_with(why), "{refused:?}");
    let kept = |text: String| {
        text.lines()
            .filter(|line| !line.contains("Latency"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(resources()), kept(before));
    stack.lines("deploy --lambda-package worker --no-deletion-protection");
    // An archive with something in it.
    let outputs = stack.run("deploy --lambda-package worker --output json").json();
    let bucket = outputs["outputs"]["AuditArchiveBucketName"]
        .as_str()
        .unwrap()
        .to_owned();
    let put = crate::loadtest_function::ask(
        &stack.url.replace("localhost", "127.0.0.1"),
        &format!("PUT /{bucket}/audit/x"),
        b"x",
    );
    assert!(put.starts_with("HTTP/1.1 200 "), "{put}");
    let refused = stack.run("delete --yes");
    assert!(
        refused.stderr.contains(&format!(
            "AuditArchiveBucket ({bucket}): the bucket holds archived audit events;"
        )),
        "{refused:?}"
    );
    let url = stack.url.replace("localhost", "127.0.0.1");
    crate::loadtest_function::ask(&url, &format!("DELETE /{bucket}/audit/x"), b"");
    assert!(
        stack
            .lines("delete --yes")
            .contains("✓ Stack 'app' deleted successfully\n")
    );
}
