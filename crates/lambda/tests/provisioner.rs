//! The provisioner on a table in memory: calls of the command line and of CloudFormation, right and wrong, and more
//! than once.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use zae_limiter::clock::SystemClock;
use zae_limiter::{Limit, Repository};
use zae_limiter_lambda::log::{Level, Log};
use zae_limiter_lambda::provisioner::Provisioner;

struct World {
    repo: Repository,
    function: Provisioner,
}

impl World {
    async fn new() -> Self {
        let repo = Repository::in_memory().await.unwrap();
        let log = Log::new(Level::Error, Arc::new(SystemClock));
        let function = Provisioner::new(repo.stack_handle(), log);
        Self { repo, function }
    }

    fn id(&self) -> String {
        self.repo.namespace_id().to_string()
    }

    fn event(&self, action: &str, manifest: &Json) -> Json {
        json!({
            "action": action, "table_name": self.repo.stack(), "namespace_id": self.id(), "manifest": manifest,
        })
    }

    async fn call(&self, event: &Json) -> Result<Json, String> {
        let time = Some(Duration::from_mins(5));
        let served = self.function.handle(event, time).await;
        served.map_err(|err| err.error_message)
    }

    /// A call of CloudFormation; returns the answer.
    async fn resource(&self, kind: &str, physical: Option<&str>, properties: &Json) -> Json {
        self.resource_of(("s", "TenantLimits"), kind, physical, properties)
            .await
    }

    /// A call of CloudFormation for a resource of a stack.
    async fn resource_of(
        &self,
        (stack, logical): (&str, &str),
        kind: &str,
        physical: Option<&str>,
        properties: &Json,
    ) -> Json {
        let event = json!({
            "RequestType": kind, "StackId": stack, "RequestId": "r", "LogicalResourceId": logical,
            "PhysicalResourceId": physical, "ResourceProperties": properties,
        });
        let answer = self.call(&event).await.unwrap();
        assert!(answer.to_string().len() <= 4096);
        answer
    }

    async fn capacity(&self, resource: &str) -> Option<u64> {
        let limits = self.repo.admin().resource_defaults(resource).await.unwrap();
        limits.first().map(Limit::capacity)
    }
}

fn manifest(capacity: i64) -> Json {
    json!({ "namespace": "default", "resources": { "gpt-4": { "limits": { "rpm": { "capacity": capacity } } } } })
}

fn properties(capacity: &str) -> Json {
    json!({
        "ServiceToken": "arn", "TableName": "zae-limiter", "Namespace": "default",
        "Resources": { "gpt-4": { "Limits": { "rpm": { "Capacity": capacity } } } },
    })
}

#[tokio::test]
async fn the_command_line_plans_and_applies() {
    let w = World::new().await;
    let change = |action: &str| json!([action, "resource", "gpt-4"]);
    let listed = |answer: &Json| {
        let changes = answer["changes"].as_array().unwrap().iter();
        changes
            .map(|change| json!([change["action"], change["level"], change["target"]]))
            .collect::<Vec<_>>()
    };
    let mut event = w.event("plan", &manifest(5));
    let planned = w.call(&event).await.unwrap();
    assert_eq!(planned["status"], "planned");
    assert_eq!(listed(&planned), [change("create")]);
    assert_eq!(w.capacity("gpt-4").await, None);
    // Without an action, it is a plan.
    event["action"] = Json::Null;
    assert_eq!(w.call(&event).await.unwrap(), planned);
    event["action"] = json!("apply");
    let applied = w.call(&event).await.unwrap();
    assert_eq!(
        (&applied["status"], &applied["created"]),
        (&json!("applied"), &json!(1))
    );
    for key in ["updated", "deleted", "unchanged", "pending"] {
        assert_eq!(applied[key], 0, "{key}");
    }
    assert_eq!(
        (&applied["errors"], &applied["full"], &applied["adopted"]),
        (&json!([]), &json!(false), &json!(0))
    );
    // Delivered again, it does nothing.
    let again = w.call(&event).await.unwrap();
    assert_eq!((listed(&again).len(), &again["unchanged"]), (0, &json!(1)));
    event["full"] = json!(true);
    assert_eq!(w.call(&event).await.unwrap()["updated"], 1);
    assert_eq!(w.capacity("gpt-4").await, Some(5));
}

#[tokio::test]
async fn wrong_calls_are_refused_in_words() {
    let w = World::new().await;
    let right = w.event("apply", &manifest(5));
    for (key, value, words) in [
        ("namespace_id", json!(""), "'namespace_id' is \"\""),
        ("namespace_id", Json::Null, "'namespace_id' is null"),
        (
            "namespace_id",
            json!("dSkXlbmmfyU"),
            "no namespace of the id 'dSkXlbmmfyU'",
        ),
        ("action", json!("diff"), "'action' is \"diff\""),
        ("full", json!("yes"), "'full' is \"yes\""),
        (
            "table_name",
            json!("another"),
            "this function serves 'zae-limiter'",
        ),
        ("manifest", Json::Null, "the manifest is empty"),
        (
            "manifest",
            json!({ "namespace": "other" }),
            "is not the namespace that is open",
        ),
        (
            "manifest",
            json!({ "namespace": "default", "limits": {} }),
            "limits is unknown",
        ),
    ] {
        let mut event = right.clone();
        event[key] = value;
        let err = w.call(&event).await.unwrap_err();
        assert!(err.contains(words), "{key}: {err}");
    }
    assert_eq!(w.capacity("gpt-4").await, None);
}

#[tokio::test]
async fn a_custom_resource_lives_and_dies() {
    let w = World::new().await;
    let physical = format!("zae-limiter/{}/limits-provisioner", w.id());
    let created = w.resource("Create", None, &properties("5")).await;
    assert_eq!(
        (&created["Status"], &created["PhysicalResourceId"]),
        (&json!("SUCCESS"), &json!(physical))
    );
    assert_eq!(created["Data"]["created"], 1);
    assert_eq!(
        (&created["StackId"], &created["LogicalResourceId"]),
        (&json!("s"), &json!("TenantLimits"))
    );
    let updated = w.resource("Update", Some(&physical), &properties("7")).await;
    assert_eq!(
        (&updated["Status"], &updated["Data"]["updated"]),
        (&json!("SUCCESS"), &json!(1))
    );
    assert_eq!(w.capacity("gpt-4").await, Some(7));
    // By its id, whatever the name.
    let mut by_id = properties("8");
    by_id["NamespaceId"] = json!(w.id());
    assert_eq!(
        w.resource("Update", Some(&physical), &by_id).await["Status"],
        "SUCCESS"
    );
    // Rewritten as a whole.
    by_id["FullApply"] = json!("True");
    assert_eq!(
        w.resource("Update", Some(&physical), &by_id).await["Data"]["full"],
        true
    );
    for _ in 0..2 {
        let deleted = w.resource("Delete", Some(&physical), &properties("7")).await;
        assert_eq!(deleted["Status"], "SUCCESS");
        assert_eq!(w.capacity("gpt-4").await, None);
    }
}

#[tokio::test]
async fn what_fails_says_why_and_leaves_nothing_that_cannot_be_deleted() {
    let w = World::new().await;
    let physical = format!("zae-limiter/{}/limits-provisioner", w.id());
    for (key, value, words) in [
        (
            "Namespace",
            json!("missing"),
            "namespace 'missing' does not exist",
        ),
        (
            "TableName",
            json!("another"),
            "this function serves 'zae-limiter'",
        ),
        ("FullApply", json!("1"), "FullApply is '1'"),
        ("Entites", json!({}), "did you mean 'Entities'?"),
        (
            "Resources",
            json!({ "r": { "Limits": { "rpm": { "Capacity": "many" } } } }),
            "Resources.r.Limits.rpm.Capacity",
        ),
    ] {
        let mut wrong = properties("5");
        wrong[key] = value;
        let failed = w.resource("Create", None, &wrong).await;
        assert_eq!(
            (&failed["Status"], &failed["PhysicalResourceId"]),
            (&json!("FAILED"), &json!("failed")),
            "{key}"
        );
        assert!(failed["Reason"].as_str().unwrap().contains(words), "{failed}");
        // The rollback.
        let deleted = w.resource("Delete", Some("failed"), &wrong).await;
        assert_eq!(deleted["Status"], "SUCCESS", "{deleted}");
    }
    assert_eq!(
        w.resource("Rename", Some(&physical), &properties("5")).await["Status"],
        "FAILED"
    );
    // A creation that was stopped half-way takes back what it declares and nothing else.
    w.repo
        .admin()
        .set_resource_defaults("by-hand", [Limit::per_minute("rpm", 5)])
        .await
        .unwrap();
    let mut others = properties("5");
    others["Resources"] = json!({ "others": { "Limits": { "rpm": { "Capacity": "5" } } } });
    w.resource("Create", None, &others).await;
    let mut ours = others.clone();
    ours["Resources"]["gpt-4"] = others["Resources"]["others"].clone();
    w.resource("Update", Some(&physical), &ours).await;
    let unfinished = format!("{physical}/unfinished");
    for deleted in [1, 0] {
        let answer = w.resource("Delete", Some(&unfinished), &properties("5")).await;
        assert_eq!(
            (&answer["Status"], &answer["Data"]["deleted"]),
            (&json!("SUCCESS"), &json!(deleted))
        );
    }
    assert_eq!(
        (w.capacity("gpt-4").await, w.capacity("others").await),
        (None, Some(5))
    );
    // A namespace that is gone has nothing to delete.
    w.resource("Create", None, &properties("5")).await;
    w.repo.stack_handle().delete_namespace("default").await.unwrap();
    assert_eq!(
        w.resource("Delete", Some(&physical), &properties("5")).await["Status"],
        "SUCCESS"
    );
    let other = "zae-limiter/dSkXlbmmfyU/limits-provisioner";
    assert_eq!(
        w.resource("Delete", Some(other), &properties("5")).await["Status"],
        "SUCCESS"
    );
}

#[tokio::test]
async fn a_call_without_time_is_answered_before_it_ends() {
    let w = World::new().await;
    let event = json!({
        "RequestType": "Create", "StackId": "s", "RequestId": "r", "LogicalResourceId": "l",
        "ResourceProperties": properties("5"),
    });
    let answer = w.function.handle(&event, Some(Duration::ZERO)).await.unwrap();
    assert_eq!(answer["Status"], "FAILED");
    assert!(
        answer["Reason"]
            .as_str()
            .unwrap()
            .contains("not finished after 0 seconds"),
        "{answer}"
    );
}

/// A resource of a stack, with its physical id.
struct Resource<'a> {
    world: &'a World,
    of: (&'static str, &'static str),
    physical: String,
}

impl<'a> Resource<'a> {
    async fn create(world: &'a World, of: (&'static str, &'static str), capacity: &str) -> Self {
        let answer = world.resource_of(of, "Create", None, &properties(capacity)).await;
        assert_eq!(answer["Status"], "SUCCESS", "{answer}");
        let physical = answer["PhysicalResourceId"].as_str().unwrap().to_owned();
        Self { world, of, physical }
    }

    async fn delete(&self) {
        let answer = self
            .world
            .resource_of(self.of, "Delete", Some(&self.physical), &properties("5"))
            .await;
        assert_eq!(answer["Status"], "SUCCESS", "{answer}");
    }
}

#[tokio::test]
async fn limits_go_with_the_last_resource_that_declares_them() {
    // Renamed: CloudFormation creates the new one, and deletes the old one afterwards.
    let w = World::new().await;
    let old = Resource::create(&w, ("s", "Old"), "5").await;
    let new = Resource::create(&w, ("s", "New"), "6").await;
    old.delete().await;
    assert_eq!(w.capacity("gpt-4").await, Some(6));
    // Deleted once more, as calls are delivered more than once.
    old.delete().await;
    assert_eq!(w.capacity("gpt-4").await, Some(6));
    new.delete().await;
    assert_eq!(w.capacity("gpt-4").await, None);
    assert!(w.repo.admin().limits_owners().await.unwrap().is_empty());
    new.delete().await;

    // Renaming is rolled back: the old one stays.
    let w = World::new().await;
    let old = Resource::create(&w, ("s", "Old"), "5").await;
    let new = Resource::create(&w, ("s", "New"), "5").await;
    new.delete().await;
    assert_eq!(w.capacity("gpt-4").await, Some(5));
    old.delete().await;
    assert_eq!(w.capacity("gpt-4").await, None);

    // Two stacks.
    let w = World::new().await;
    let first = Resource::create(&w, ("a", "Limits"), "5").await;
    let second = Resource::create(&w, ("b", "Limits"), "7").await;
    first.delete().await;
    assert_eq!(w.capacity("gpt-4").await, Some(7));
    second.delete().await;
    assert_eq!(w.capacity("gpt-4").await, None);

    // An unfinished creation is rolled back beside another resource that declares the same.
    let w = World::new().await;
    let old = Resource::create(&w, ("s", "Old"), "5").await;
    let mut new = Resource::create(&w, ("s", "New"), "5").await;
    new.physical.push_str("/unfinished");
    new.delete().await;
    assert_eq!(w.capacity("gpt-4").await, Some(5));
    old.delete().await;
    assert_eq!(w.capacity("gpt-4").await, None);

    // What an earlier release created has no owner on record.
    let w = World::new().await;
    let old = Resource::create(&w, ("s", "Old"), "5").await;
    w.repo.admin().set_limits_owner("s Old", false).await.unwrap();
    let new = Resource::create(&w, ("s", "New"), "5").await;
    old.delete().await;
    assert_eq!(w.capacity("gpt-4").await, Some(5));
    w.repo.admin().set_limits_owner("s New", false).await.unwrap();
    new.delete().await;
    assert_eq!(w.capacity("gpt-4").await, None);
}

#[tokio::test]
async fn a_custom_resource_declares_concurrency_and_the_cascade_depth() {
    let w = World::new().await;
    let admin = w.repo.admin();
    let physical = format!("zae-limiter/{}/limits-provisioner", w.id());
    let mut properties = properties("5");
    properties["System"] = json!({ "Concurrency": "100", "CascadeDepth": "4" });
    properties["Resources"]["gpt-4"]["Concurrency"] = json!("50");
    properties["Entities"] = json!({ "u": { "Resources": { "_default_": { "Concurrency": "5" } } } });
    let created = w.resource("Create", None, &properties).await;
    assert_eq!(
        (&created["Status"], &created["Data"]["created"]),
        (&json!("SUCCESS"), &json!(5))
    );
    let settings: Vec<_> = created["Data"]["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| &change["setting"])
        .collect();
    assert_eq!(
        settings,
        [
            &Json::Null,
            &json!("concurrency"),
            &json!("cascade_depth"),
            &json!("concurrency"),
            &json!("concurrency")
        ]
    );
    assert_eq!(admin.cascade_depth().await.unwrap(), 4);
    assert_eq!(admin.effective_concurrency("u", "r").await.unwrap(), Some(5));
    assert_eq!(admin.resource_concurrency("gpt-4").await.unwrap(), Some(50));
    let wrong = json!({ "TableName": "zae-limiter", "System": { "CascadeDepth": "9" } });
    let refused = w.resource("Update", Some(&physical), &wrong).await;
    assert_eq!(refused["Status"], "FAILED");
    assert_eq!(
        refused["Reason"],
        "System.CascadeDepth is '9': it must be a whole number from 2 to 8"
    );
    let deleted = w.resource("Delete", Some(&physical), &properties).await;
    assert_eq!(
        (&deleted["Status"], &deleted["Data"]["deleted"]),
        (&json!("SUCCESS"), &json!(5))
    );
    assert_eq!(admin.cascade_depth().await.unwrap(), 2);
    assert_eq!(admin.system_concurrency().await.unwrap(), None);
    // The command line learns from an answer that the function knows these keys.
    let manifest = json!({ "namespace": "default", "resources": { "gpt-4": { "concurrency": 7 } } });
    let planned = w.call(&w.event("plan", &manifest)).await.unwrap();
    assert_eq!(planned["settings"], 1);
    assert_eq!(
        planned["changes"],
        json!([{
            "action": "create", "level": "resource", "target": "gpt-4", "setting": "concurrency",
            "old": null, "new": { "concurrency": 7 },
        }])
    );
}
