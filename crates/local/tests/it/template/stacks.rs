//! The project's own template, and that of the Python original where its path is given.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use zae_limiter_local::template::{Bound, Known, Recreation, Replacement, Rules, Template, changes};

use super::{all_known, bind};

const OURS: &str = include_str!("../../../../infra/template.yaml");

/// Parameters with which the stack has functions.
const CODE: [(&str, &str); 2] = [
    ("FunctionCodeBucket", "code"),
    ("FunctionCodeKey", "functions/1.zip"),
];

fn with_code<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    CODE.iter().chain(more).copied().collect()
}

fn ids(bound: &Bound) -> BTreeSet<&str> {
    bound.resources().map(|(id, _)| id).collect()
}

fn outputs(bound: &Bound) -> BTreeSet<String> {
    bound
        .outputs(&all_known(bound))
        .unwrap()
        .into_iter()
        .map(|output| output.name)
        .collect()
}

fn property(bound: &Bound, id: &str, pointer: &str) -> Value {
    bound
        .properties(id, &all_known(bound))
        .unwrap()
        .pointer(pointer)
        .cloned()
        .unwrap_or(json!("(absent)"))
}

const TENANT_POLICIES: [&str; 6] = [
    "AcquireOnlyPolicy",
    "FullAccessPolicy",
    "NamespaceAcquirePolicy",
    "NamespaceFullAccessPolicy",
    "NamespaceReadOnlyPolicy",
    "ReadOnlyPolicy",
];

#[test]
fn without_code_there_are_no_functions() {
    let bound = bind(OURS, &[]);
    let ids = ids(&bound);
    for id in [
        "AggregatorFunction",
        "AggregatorEventSourceMapping",
        "ProvisionerFunction",
        "AuditArchiveBucket",
        "LambdaErrorRateAlarm",
    ] {
        assert!(!ids.contains(id), "{id}");
    }
    for id in [
        "RateLimitsTable",
        "AggregatorDLQ",
        "AggregatorRole",
        "AppRole",
        "DynamoDBReadThrottleAlarm",
    ] {
        assert!(ids.contains(id), "{id}");
    }
    assert!(!outputs(&bound).contains("AggregatorFunctionArn"));
}

#[test]
fn with_code_there_is_everything() {
    let bound = bind(OURS, &with_code(&[]));
    assert_eq!(ids(&bound).len(), bound.template().resources().len());
    let missing: Vec<_> = bound
        .template()
        .outputs()
        .keys()
        .filter(|name| !outputs(&bound).contains(*name))
        .cloned()
        .collect();
    assert_eq!(missing, ["PermissionBoundaryArn", "RoleNameFormat"]);
    assert_eq!(property(&bound, "RateLimitsTable", "/TableName"), json!("app"));
    assert_eq!(
        property(&bound, "RateLimitsTable", "/DeletionProtectionEnabled"),
        json!(false)
    );
    assert_eq!(
        property(&bound, "RateLimitsTable", "/PointInTimeRecoverySpecification"),
        json!({"PointInTimeRecoveryEnabled": true})
    );
    assert_eq!(
        property(&bound, "AggregatorFunction", "/FunctionName"),
        json!("app-aggregator")
    );
    assert_eq!(
        property(&bound, "AggregatorFunction", "/MemorySize"),
        json!("256")
    );
    assert_eq!(
        property(&bound, "AggregatorFunction", "/Role"),
        json!("AggregatorRole.Arn")
    );
    assert_eq!(
        property(&bound, "AggregatorFunction", "/Code"),
        json!({"S3Bucket": "code", "S3Key": "functions/1.zip"})
    );
    assert_eq!(
        property(&bound, "AggregatorFunction", "/TracingConfig/Mode"),
        json!("PassThrough")
    );
    assert_eq!(
        property(
            &bound,
            "AggregatorFunction",
            "/Environment/Variables/ARCHIVE_BUCKET_NAME"
        ),
        json!("AuditArchiveBucket-1")
    );
    assert_eq!(
        property(&bound, "AggregatorEventSourceMapping", "/EventSourceArn"),
        json!("RateLimitsTable.StreamArn")
    );
    assert_eq!(
        property(
            &bound,
            "AggregatorEventSourceMapping",
            "/DestinationConfig/OnFailure/Destination"
        ),
        json!("AggregatorDLQ.Arn")
    );
    assert_eq!(
        property(&bound, "LambdaErrorRateAlarm", "/AlarmActions"),
        json!("(absent)")
    );
    assert_eq!(property(&bound, "AppRole", "/RoleName"), json!("app-app"));
    // Text that looks like a variable in a plain string is not one.
    let policy = property(&bound, "NamespaceAcquirePolicy", "/PolicyDocument").to_string();
    assert!(
        policy.contains("${aws:PrincipalTag/zael_namespace_id}"),
        "{policy}"
    );
}

#[test]
fn the_order_of_creation() {
    let bound = bind(OURS, &with_code(&[]));
    let at = |id: &str| {
        bound
            .order()
            .iter()
            .position(|group| group.iter().any(|other| other == id))
            .unwrap()
    };
    assert_eq!(at("RateLimitsTable"), 0);
    for (first, then) in [
        ("AggregatorLogGroup", "AggregatorFunction"),
        ("AggregatorRole", "AggregatorFunction"),
        ("AuditArchiveBucket", "AggregatorFunction"),
        ("AggregatorFunction", "AggregatorEventSourceMapping"),
        ("AggregatorDLQ", "AggregatorEventSourceMapping"),
        ("AcquireOnlyPolicy", "AppRole"),
        ("ProvisionerRole", "ProvisionerFunction"),
    ] {
        assert!(at(first) < at(then), "{first} before {then}");
    }
    assert_eq!(
        bound.order().iter().map(Vec::len).sum::<usize>(),
        ids(&bound).len()
    );
}

#[test]
fn switches() {
    let bound = bind(OURS, &with_code(&[("EnableIAM", "false")]));
    assert!(
        !ids(&bound)
            .iter()
            .any(|id| id.ends_with("Role") || id.ends_with("Policy") || id.ends_with("Function"))
    );
    let bound = bind(
        OURS,
        &with_code(&[("EnableIAM", "false"), ("AggregatorRoleArn", "arn:role")]),
    );
    assert_eq!(property(&bound, "AggregatorFunction", "/Role"), json!("arn:role"));
    assert!(!ids(&bound).contains("AggregatorRole") && !ids(&bound).contains("ProvisionerFunction"));
    let bound = bind(
        OURS,
        &with_code(&[
            ("EnableAggregator", "false"),
            ("EnableAlarms", "false"),
            ("EnableIAMRoles", "false"),
        ]),
    );
    let expected: BTreeSet<_> = TENANT_POLICIES
        .into_iter()
        .chain([
            "RateLimitsTable",
            "ProvisionerLogGroup",
            "ProvisionerRole",
            "ProvisionerFunction",
        ])
        .collect();
    assert_eq!(ids(&bound), expected);
    let bound = bind(
        OURS,
        &with_code(&[
            ("EnableAuditArchival", "false"),
            ("AlarmSNSTopicArn", "arn:topic"),
        ]),
    );
    assert_eq!(
        property(
            &bound,
            "AggregatorFunction",
            "/Environment/Variables/ARCHIVE_BUCKET_NAME"
        ),
        json!("")
    );
    assert_eq!(
        property(&bound, "LambdaErrorRateAlarm", "/AlarmActions"),
        json!(["arn:topic"])
    );
    assert!(!ids(&bound).contains("AuditArchiveBucket"));
}

#[test]
fn names_and_boundaries() {
    let name = bind(
        OURS,
        &[
            ("PermissionBoundary", "limit"),
            ("AppRoleName", "custom"),
            ("PITRRecoveryPeriodDays", "7"),
        ],
    );
    assert_eq!(
        property(&name, "AppRole", "/PermissionsBoundary"),
        json!("arn:aws:iam::123456789012:policy/limit")
    );
    assert_eq!(property(&name, "AppRole", "/RoleName"), json!("custom"));
    assert_eq!(
        property(
            &name,
            "RateLimitsTable",
            "/PointInTimeRecoverySpecification/RecoveryPeriodInDays"
        ),
        json!("7")
    );
    let arn = "arn:aws:iam::1:policy/p";
    let arn_given = bind(
        OURS,
        &[("PermissionBoundary", arn), ("EnableDeletionProtection", "true")],
    );
    assert_eq!(
        property(&arn_given, "AppRole", "/PermissionsBoundary"),
        json!(arn)
    );
    assert_eq!(
        property(&arn_given, "RateLimitsTable", "/DeletionProtectionEnabled"),
        json!(true)
    );
    let outputs = arn_given.outputs(&all_known(&arn_given)).unwrap();
    let output = outputs
        .iter()
        .find(|output| output.name == "PermissionBoundaryArn")
        .unwrap();
    assert_eq!(
        (output.value.as_str(), output.export_name.as_deref()),
        (arn, Some("app-PermissionBoundaryArn"))
    );
}

#[test]
fn it_needs_named_roles_to_be_acknowledged() {
    let template = Template::parse(OURS).unwrap();
    assert_eq!(template.capabilities().unwrap().required, "CAPABILITY_NAMED_IAM");
    assert_eq!(
        template.capabilities().unwrap().reason,
        "The following resource(s) require capabilities: [AWS::IAM::ManagedPolicy, AWS::IAM::Role]"
    );
}

struct CodeIsUpdated;

impl Rules for CodeIsUpdated {
    fn recreation(&self, _: &str, property: &str) -> Recreation {
        if property.ends_with("Name") {
            Recreation::Always
        } else {
            Recreation::Never
        }
    }

    fn attribute_may_change(&self, _: &str, _: &str, _: &[String]) -> bool {
        false
    }
}

#[test]
fn new_code_changes_the_functions_only() {
    let old = bind(OURS, &with_code(&[]));
    let new = bind(OURS, &[CODE[0], ("FunctionCodeKey", "functions/2.zip")]);
    let found = changes(&old, &new, &all_known(&old), &CodeIsUpdated).unwrap();
    let ids: BTreeSet<_> = found
        .resources
        .iter()
        .map(|change| change.logical_id.as_str())
        .collect();
    assert_eq!(ids, BTreeSet::from(["AggregatorFunction", "ProvisionerFunction"]));
    assert!(
        found
            .resources
            .iter()
            .all(|change| change.replacement == Some(Replacement::False))
    );
    assert!(
        found
            .resources
            .iter()
            .all(|change| change.details[0].paths == ["/Properties/Code/S3Key"])
    );
    assert!(!found.outputs);
}

#[test]
fn declared_limits_of_another_stack() {
    let text = "
Resources:
  Limits:
    Type: Custom::ZaeLimiterLimits
    Properties:
      ServiceToken: !ImportValue app-ProvisionerArn
      Namespace: default
      System: {Limits: {rpm: {Capacity: 100, Enabled: true}}}
Outputs:
  Result: {Value: !Ref Limits}
";
    let bound = bind(text, &[]);
    let mut known = Known::default();
    assert_eq!(
        bound.properties("Limits", &known).unwrap_err().to_string(),
        "No export named app-ProvisionerArn found"
    );
    known
        .exports
        .insert("app-ProvisionerArn".to_owned(), "arn:function".to_owned());
    let properties = bound.properties("Limits", &known).unwrap();
    assert_eq!(properties["ServiceToken"], json!("arn:function"));
    let sent = zae_limiter_local::template::scalars_as_text(&properties);
    assert_eq!(
        sent["System"],
        json!({"Limits": {"rpm": {"Capacity": "100", "Enabled": "true"}}})
    );
}

/// `ZAE_LIMITER_ORIGINAL_TEMPLATE` is the path of `infra/cfn_template.yaml` in an installation of the Python library.
#[test]
#[ignore = "needs an installation of the Python original"]
fn the_original() {
    let path = std::env::var("ZAE_LIMITER_ORIGINAL_TEMPLATE").unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let all = bind(&text, &[]);
    assert_eq!(ids(&all).len(), all.template().resources().len());
    // Logical ids and exports are those of our template, which has no more conditions to them once there is code.
    let ours = bind(OURS, &with_code(&[]));
    assert_eq!(ids(&all), ids(&ours));
    let exports = |bound: &Bound| -> BTreeSet<_> {
        bound
            .outputs(&all_known(bound))
            .unwrap()
            .into_iter()
            .map(|output| (output.export_name, output.value))
            .collect()
    };
    assert_eq!(exports(&all), exports(&ours));
    for (id, pointer) in [
        ("RateLimitsTable", "/KeySchema"),
        ("RateLimitsTable", "/GlobalSecondaryIndexes"),
        ("RateLimitsTable", "/LocalSecondaryIndexes"),
        ("RateLimitsTable", "/TableName"),
        ("AggregatorFunction", "/FunctionName"),
        ("AggregatorFunction", "/MemorySize"),
        ("AppRole", "/RoleName"),
        ("AppRole", "/AssumeRolePolicyDocument"),
    ] {
        assert_eq!(
            property(&all, id, pointer),
            property(&ours, id, pointer),
            "{id}{pointer}"
        );
    }
    assert!(property(&all, "AggregatorFunction", "/Code/ZipFile").is_string());
    assert_eq!(
        property(&all, "RateLimitsTable", "/DeletionProtectionEnabled"),
        json!(false)
    );
    let restricted = bind(
        &text,
        &[
            ("EnableIAM", "false"),
            ("EnableAlarms", "false"),
            ("PermissionBoundary", "p"),
        ],
    );
    assert_eq!(
        ids(&restricted),
        BTreeSet::from([
            "RateLimitsTable",
            "AggregatorDLQ",
            "AggregatorLogGroup",
            "ProvisionerLogGroup"
        ])
    );
    assert!(outputs(&restricted).contains("PermissionBoundaryArn"));
    assert_eq!(
        all.template().capabilities().unwrap().required,
        "CAPABILITY_NAMED_IAM"
    );
}
