//! The template against the code that relies on it, and against what other stacks, other clients and operators know
//! of it: names, exports, policies, alarms. `template/stack.rs` says what CloudFormation would make of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

#[path = "template/access.rs"]
mod access;
#[path = "template/load.rs"]
mod load;
#[path = "template/stack.rs"]
mod stack;
#[path = "template/wholeness.rs"]
mod wholeness;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use zae_limiter_core::alert::Thresholds;
use zae_limiter_core::definition::{INDEXES, KEY, STREAM_VIEW, TTL_ATTRIBUTE};
use zae_limiter_core::schema::{BucketId, SCHEMA_VERSION, audit_key, meta_key, version_key};
use zae_limiter_core::table::Key;
use zae_limiter_core::{EntityId, NamespaceId, ResourceName};
use zae_limiter_infra::template::{
    FUNCTION_ARCHITECTURE, FUNCTION_CODE_BUCKET, FUNCTION_CODE_KEY, MAX_BODY_BYTES, TEMPLATE,
};

use stack::{STACK, Stack, Template, text};

/// The parameters that a stack with functions is given.
const CODE: [(&str, &str); 2] = [
    (FUNCTION_CODE_BUCKET, "code"),
    (FUNCTION_CODE_KEY, "functions/abc.zip"),
];

fn template() -> Template {
    Template::parse(TEMPLATE)
}

/// The stack with functions and further parameters.
fn with_code(given: &[(&str, &str)]) -> Stack {
    template().with(&[&CODE, given].concat())
}

/// The stack with everything in it.
fn everything() -> Stack {
    with_code(&[
        ("EnableIAMRoles", "true"),
        ("EnableTracing", "true"),
        ("PermissionBoundary", "fence"),
        ("RoleNameFormat", "team-{}"),
        ("AlarmSNSTopicArn", "arn:aws:sns:eu-central-1:123456789012:pages"),
    ])
}

fn key(attribute: &str, kind: &str) -> Value {
    json!({"AttributeName": attribute, "KeyType": kind})
}

#[test]
fn the_table_is_the_one_that_the_code_defines() {
    check_table(&template().with(&[]), false);
    check_table(&template().with(&[("LeanIndex", "true")]), true);
}

fn check_table(stack: &Stack, lean: bool) {
    let table = stack.properties("RateLimitsTable");
    assert_eq!(
        table["KeySchema"],
        json!([key(KEY[0], "HASH"), key(KEY[1], "RANGE")])
    );

    let mut attributes: BTreeSet<&str> = KEY.into();
    for index in INDEXES {
        attributes.extend([index.hash, index.range]);
    }
    let defined = table["AttributeDefinitions"].as_array().unwrap();
    for definition in defined {
        assert_eq!(
            definition["AttributeType"], "S",
            "all keys are texts: {definition}"
        );
    }
    let names: Vec<String> = defined.iter().map(|one| text(&one["AttributeName"])).collect();
    assert_eq!(
        names.len(),
        attributes.len(),
        "an attribute is defined twice or not at all: {names:?}"
    );
    assert_eq!(
        names.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        attributes
    );

    for (section, local) in [("GlobalSecondaryIndexes", false), ("LocalSecondaryIndexes", true)] {
        let mut found: Vec<Value> = table[section].as_array().unwrap().clone();
        found.sort_by_key(|index| text(&index["IndexName"]));
        let expected = INDEXES.iter().filter(|index| index.local == local);
        let expected: Vec<Value> = expected
            .map(|index| {
                json!({
                    "IndexName": index.name,
                    "KeySchema": [key(index.hash, "HASH"), key(index.range, "RANGE")],
                    "Projection": {"ProjectionType": if index.is_keys_only(lean) { "KEYS_ONLY" } else { "ALL" }},
                })
            })
            .collect();
        assert_eq!(found, expected, "{section} differ from core::definition::INDEXES");
    }
    assert_eq!(
        table["TimeToLiveSpecification"],
        json!({"AttributeName": TTL_ATTRIBUTE, "Enabled": true})
    );
    assert_eq!(
        table["StreamSpecification"],
        json!({"StreamViewType": STREAM_VIEW})
    );
    assert_eq!(table["BillingMode"], "PAY_PER_REQUEST");
    assert_eq!(table["TableName"], STACK);
    assert_eq!(template().defaults()["SchemaVersion"], SCHEMA_VERSION);
}

#[test]
fn backups_are_always_on_and_protection_is_a_choice() {
    let plain = template().with(&[]);
    let table = plain.properties("RateLimitsTable");
    assert_eq!(
        table["PointInTimeRecoverySpecification"],
        json!({"PointInTimeRecoveryEnabled": true})
    );
    assert_eq!(table["DeletionProtectionEnabled"], false);
    let chosen = template().with(&[("PITRRecoveryPeriodDays", "7")]);
    let table = chosen.properties("RateLimitsTable");
    assert_eq!(
        table["PointInTimeRecoverySpecification"],
        json!({"PointInTimeRecoveryEnabled": true, "RecoveryPeriodInDays": "7"})
    );
    assert_eq!(table["DeletionProtectionEnabled"], false);
    let chosen = template().with(&[("EnableDeletionProtection", "true")]);
    assert_eq!(
        chosen.properties("RateLimitsTable")["DeletionProtectionEnabled"],
        true
    );
}

#[test]
fn the_archive_is_closed_encrypted_and_cools_down() {
    let stack = with_code(&[("AuditArchiveGlacierTransitionDays", "11")]);
    let bucket = stack.properties("AuditArchiveBucket");
    assert_eq!(
        bucket["PublicAccessBlockConfiguration"],
        json!({
            "BlockPublicAcls": true,
            "BlockPublicPolicy": true,
            "IgnorePublicAcls": true,
            "RestrictPublicBuckets": true,
        })
    );
    let encryption = &bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"];
    assert_eq!(
        *encryption,
        json!([{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}])
    );
    assert_eq!(
        bucket["LifecycleConfiguration"]["Rules"],
        json!([{
            "Id": "TransitionToGlacier",
            "Status": "Enabled",
            "Transitions": [{"StorageClass": "GLACIER_IR", "TransitionInDays": "11"}],
        }])
    );
    assert_eq!(
        bucket.get("BucketName"),
        None,
        "CloudFormation chooses a free name"
    );
}

#[test]
fn functions_run_our_package() {
    let stack = with_code(&[
        (FUNCTION_ARCHITECTURE, "arm64"),
        ("LambdaMemorySize", "512"),
        ("LambdaTimeout", "120"),
    ]);
    let check = |function: &str, handler: &str, log_group: &str, memory: Value, timeout: Value| {
        assert_eq!(
            stack.resources[function]["DependsOn"], log_group,
            "a function that is made before its log group makes one that is kept forever"
        );
        let properties = stack.properties(function);
        assert_eq!(properties["Runtime"], "provided.al2023");
        assert_eq!(properties["Handler"], handler);
        assert_eq!(properties["Architectures"], json!(["arm64"]));
        assert_eq!(
            properties["Code"],
            json!({"S3Bucket": "code", "S3Key": "functions/abc.zip"})
        );
        assert_eq!(properties["MemorySize"], memory);
        assert_eq!(properties["Timeout"], timeout);
    };
    check(
        "AggregatorFunction",
        "aggregator",
        "AggregatorLogGroup",
        json!("512"),
        json!("120"),
    );
    check(
        "ProvisionerFunction",
        "provisioner",
        "ProvisionerLogGroup",
        json!(256),
        json!(300),
    );
}

#[test]
fn functions_are_told_their_settings() {
    let stack = with_code(&[
        ("SnapshotWindows", "hourly,monthly"),
        ("SnapshotRetentionDays", "30"),
        ("AlertThresholds", "50,90"),
    ]);
    let variables = |function: &str| stack.properties(function)["Environment"]["Variables"].clone();
    assert_eq!(
        variables("AggregatorFunction"),
        json!({
            "TABLE_NAME": "@RateLimitsTable",
            "SNAPSHOT_WINDOWS": "hourly,monthly",
            "SNAPSHOT_TTL_DAYS": "30",
            "ZAE_LIMITER_SCHEMA_VERSION": SCHEMA_VERSION,
            "ENABLE_ARCHIVAL": "true",
            "ARCHIVE_BUCKET_NAME": "@AuditArchiveBucket",
            "ALERT_THRESHOLDS": "50,90",
        })
    );
    assert_eq!(
        variables("ProvisionerFunction"),
        json!({"TABLE_NAME": "@RateLimitsTable"})
    );

    let stack = with_code(&[("EnableAuditArchival", "false")]);
    let variables = &stack.properties("AggregatorFunction")["Environment"]["Variables"];
    assert_eq!(variables["ENABLE_ARCHIVAL"], "false");
    assert_eq!(variables["ARCHIVE_BUCKET_NAME"], "");
}

#[test]
fn tracing_is_a_choice() {
    let mode = |stack: &Stack| stack.properties("AggregatorFunction")["TracingConfig"]["Mode"].clone();
    assert_eq!(mode(&with_code(&[])), "PassThrough");
    assert_eq!(mode(&with_code(&[("EnableTracing", "true")])), "Active");
}

#[test]
fn the_aggregator_reads_the_stream_as_it_expects() {
    let stack = with_code(&[]);
    let mut mapping = stack.properties("AggregatorEventSourceMapping").clone();
    // Looked at below.
    mapping.as_object_mut().unwrap().remove("FilterCriteria");
    assert_eq!(
        mapping,
        json!({
            "EventSourceArn": "@RateLimitsTable.StreamArn",
            "FunctionName": "@AggregatorFunction",
            "StartingPosition": "LATEST",
            "BatchSize": 100,
            "MaximumBatchingWindowInSeconds": 5,
            "MaximumRetryAttempts": 3,
            "MaximumRecordAgeInSeconds": 3600,
            "BisectBatchOnFunctionError": true,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "DestinationConfig": {"OnFailure": {"Destination": "@AggregatorDLQ.Arn"}},
        })
    );
    let queue = stack.properties("AggregatorDLQ");
    assert_eq!(queue["MessageRetentionPeriod"], 14 * 24 * 3600);
    assert_eq!(queue["VisibilityTimeout"], 300);
}

/// Whether an event passes a filter pattern. Each key of the pattern must match; an array holds alternatives.
fn matches(pattern: &Value, event: &Value) -> bool {
    match pattern {
        Value::Object(keys) => keys.iter().all(|(key, pattern)| matches(pattern, &event[key])),
        Value::Array(alternatives) => alternatives.iter().any(|alternative| match alternative {
            Value::String(_) => alternative == event,
            Value::Object(rule) => {
                let prefix = rule.get("prefix").and_then(Value::as_str);
                assert_eq!(rule.len(), 1, "unknown rule {alternative}");
                let prefix = prefix.unwrap_or_else(|| panic!("unknown rule {alternative}"));
                event.as_str().is_some_and(|event| event.starts_with(prefix))
            }
            other => panic!("unknown alternative {other}"),
        }),
        other => panic!("a leaf of a pattern must be a list: {other}"),
    }
}

/// A record of the stream. An expiry has the service as its principal.
fn event(name: &str, key: &Key, expired: bool) -> Value {
    let image = json!({"PK": {"S": key.pk}, "SK": {"S": key.sk.as_str()}});
    let mut event = json!({
        "eventID": "1",
        "eventName": name,
        "eventSource": "aws:dynamodb",
        "dynamodb": {"Keys": image, "SequenceNumber": "7", "StreamViewType": STREAM_VIEW},
    });
    if name != "REMOVE" {
        event["dynamodb"]["NewImage"] = image.clone();
    }
    if name != "INSERT" {
        event["dynamodb"]["OldImage"] = image;
    }
    if expired {
        event["userIdentity"] = json!({"type": "Service", "principalId": "dynamodb.amazonaws.com"});
    }
    event
}

#[test]
fn the_aggregator_gets_buckets_and_expired_audit_records_and_nothing_else() {
    let stack = with_code(&[]);
    let filters = &stack.properties("AggregatorEventSourceMapping")["FilterCriteria"]["Filters"];
    let filters: Vec<Value> = filters
        .as_array()
        .unwrap()
        .iter()
        .map(|filter| {
            let pattern = filter["Pattern"].as_str().unwrap();
            assert!(
                pattern.len() <= 4096,
                "Lambda takes patterns of at most 4096 characters: {pattern}"
            );
            serde_json::from_str(pattern).unwrap_or_else(|err| panic!("{err} in filter {pattern}"))
        })
        .collect();
    assert!(
        (1..=5).contains(&filters.len()),
        "Lambda takes up to five filters: {filters:?}"
    );

    let namespace = NamespaceId::new("dSkXlbmmfyU").unwrap();
    let entity = EntityId::new("user-1").unwrap();
    let resource = ResourceName::new("gpt-4").unwrap();
    let meta = meta_key(&namespace, &entity);
    let audit = audit_key(&namespace, "user-1", "01JCX");
    let bucket = BucketId {
        namespace,
        entity,
        resource,
    }
    .key(3);
    let config = Key {
        pk: "dSkXlbmmfyU/ENTITY#user-1".into(),
        sk: "#CONFIG#gpt-4".into(),
    };
    let usage = Key {
        pk: "dSkXlbmmfyU/ENTITY#user-1".into(),
        sk: "#USAGE#gpt-4#2026-11-22T03:00:00Z".into(),
    };
    let alert = Key {
        pk: "dSkXlbmmfyU/ENTITY#user-1".into(),
        sk: "#ALERT#gpt-4#tpd".into(),
    };
    let operation = Key {
        pk: bucket.pk.clone(),
        sk: "#OP#1".into(),
    };

    let check = |name: &str, key: &Key, expired: bool, expected: bool| {
        let event = event(name, key, expired);
        let passes = filters.iter().any(|filter| matches(filter, &event));
        let end = if expected {
            "should reach the aggregator"
        } else {
            "should be filtered out"
        };
        assert_eq!(passes, expected, "{name} of {key} (expired: {expired}) {end}");
    };
    check("INSERT", &bucket, false, true);
    check("MODIFY", &bucket, false, true);
    check("REMOVE", &bucket, false, false);
    check("REMOVE", &bucket, true, false);
    check("REMOVE", &audit, true, true);
    // A purge of the namespace.
    check("REMOVE", &audit, false, false);
    check("INSERT", &audit, false, false);
    for other in [&meta, &config, &usage, &alert, &operation, &version_key()] {
        check("INSERT", other, false, false);
        check("MODIFY", other, false, false);
        check("REMOVE", other, false, false);
        check("REMOVE", other, true, false);
    }
}

#[test]
fn alarms_watch_what_the_guide_says() {
    let stack = everything();
    let functions = "@AggregatorFunction";
    let at_least = "GreaterThanOrEqualToThreshold";
    let above = "GreaterThanThreshold";
    // Alarm, name, metric, statistic, comparison, threshold, periods, dimension.
    #[rustfmt::skip]
    let expected = [
        ("AggregatorDLQAlarm", "aggregator-dlq-alarm", "AWS/SQS", "ApproximateNumberOfMessagesVisible", "Sum", at_least, "1", 1, "QueueName", "@AggregatorDLQ.QueueName"),
        ("LambdaErrorRateAlarm", "aggregator-error-rate", "AWS/Lambda", "Errors", "Sum", above, "1", 2, "FunctionName", functions),
        ("LambdaDurationAlarm", "aggregator-duration", "AWS/Lambda", "Duration", "Average", above, "48000", 2, "FunctionName", functions),
        ("StreamIteratorAgeAlarm", "stream-iterator-age", "AWS/Lambda", "IteratorAge", "Maximum", above, "30000", 2, "FunctionName", functions),
        ("LimitAlertAlarm", "limit-alerts", "ZaeLimiter", "LimitAlerts", "Sum", at_least, "1", 1, "TableName", "@RateLimitsTable"),
        ("DynamoDBReadThrottleAlarm", "read-throttle", "AWS/DynamoDB", "ReadThrottleEvents", "Sum", above, "1", 2, "TableName", "@RateLimitsTable"),
        ("DynamoDBWriteThrottleAlarm", "write-throttle", "AWS/DynamoDB", "WriteThrottleEvents", "Sum", above, "1", 2, "TableName", "@RateLimitsTable"),
    ];
    for (alarm, name, namespace, metric, statistic, comparison, threshold, periods, dimension, value) in
        expected
    {
        let mut properties = stack.properties(alarm).clone();
        let description = properties.as_object_mut().unwrap().remove("AlarmDescription");
        assert!(
            description.is_some_and(|text| !text.as_str().unwrap().is_empty()),
            "{alarm} says nothing"
        );
        properties["Threshold"] = text(&properties["Threshold"]).into();
        let mut dimensions = vec![json!({"Name": dimension, "Value": value})];
        if alarm == "LimitAlertAlarm" {
            // The metric is not of rates.
            dimensions.push(json!({"Name": "Kind", "Value": "quota"}));
        }
        assert_eq!(
            properties,
            json!({
                "AlarmName": format!("{STACK}-{name}"),
                "Namespace": namespace,
                "MetricName": metric,
                "Statistic": statistic,
                "Dimensions": dimensions,
                "ComparisonOperator": comparison,
                "Threshold": threshold,
                "EvaluationPeriods": periods,
                "Period": 300,
                "TreatMissingData": "notBreaching",
                "AlarmActions": ["arn:aws:sns:eu-central-1:123456789012:pages"],
            }),
            "{alarm}"
        );
    }
    let alarms = stack
        .resources
        .values()
        .filter(|one| one["Type"] == "AWS::CloudWatch::Alarm");
    assert_eq!(
        alarms.count(),
        expected.len(),
        "an alarm is not in this test's table"
    );

    assert!(!with_code(&[("AlertThresholds", "none")]).has("LimitAlertAlarm"));
    let silent = with_code(&[]);
    for (alarm, ..) in expected {
        assert_eq!(
            silent.properties(alarm).get("AlarmActions"),
            None,
            "{alarm} without a topic"
        );
    }
}

#[test]
fn the_threshold_of_the_duration_alarm_can_be_set() {
    let stack = with_code(&[("LambdaDurationThreshold", "96000")]);
    assert_eq!(stack.properties("LambdaDurationAlarm")["Threshold"], "96000");
}

#[test]
fn logs_are_kept_as_long_as_asked() {
    let stack = with_code(&[("LogRetentionDays", "400")]);
    for (group, function) in [
        ("AggregatorLogGroup", "AggregatorFunction"),
        ("ProvisionerLogGroup", "ProvisionerFunction"),
    ] {
        let properties = stack.properties(group);
        assert_eq!(properties["RetentionInDays"], "400");
        // The name that the service writes to.
        let name = text(&stack.properties(function)["FunctionName"]);
        assert_eq!(properties["LogGroupName"], format!("/aws/lambda/{name}"));
    }
    // The values that CloudWatch takes.
    assert_eq!(
        template().section("Parameters")["LogRetentionDays"]["AllowedValues"],
        json!([
            1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
            3288, 3653
        ])
    );
}

#[test]
fn names_follow_the_stack() {
    let stack = everything();
    let expected = [
        ("RateLimitsTable", "TableName", STACK),
        ("AggregatorFunction", "FunctionName", "limits-aggregator"),
        (
            "AggregatorLogGroup",
            "LogGroupName",
            "/aws/lambda/limits-aggregator",
        ),
        ("ProvisionerFunction", "FunctionName", "limits-limits-provisioner"),
        (
            "ProvisionerLogGroup",
            "LogGroupName",
            "/aws/lambda/limits-limits-provisioner",
        ),
        ("AggregatorDLQ", "QueueName", "limits-aggregator-dlq"),
        ("AggregatorRole", "RoleName", "limits-aggr"),
        ("AppRole", "RoleName", "limits-app"),
        ("AdminRole", "RoleName", "limits-admin"),
        ("ReadOnlyRole", "RoleName", "limits-read"),
        ("ProvisionerRole", "RoleName", "limits-prov"),
        ("AcquireOnlyPolicy", "ManagedPolicyName", "limits-acq"),
        ("FullAccessPolicy", "ManagedPolicyName", "limits-full"),
        ("ReadOnlyPolicy", "ManagedPolicyName", "limits-read"),
        ("NamespaceAcquirePolicy", "ManagedPolicyName", "limits-ns-acq"),
        ("NamespaceFullAccessPolicy", "ManagedPolicyName", "limits-ns-full"),
        ("NamespaceReadOnlyPolicy", "ManagedPolicyName", "limits-ns-read"),
    ];
    for (resource, property, name) in expected {
        assert_eq!(
            stack.properties(resource)[property],
            name,
            "{property} of {resource}"
        );
    }
}

#[test]
fn roles_and_policies_can_be_named() {
    let named = [
        ("AggregatorRole", "AggregatorRoleName"),
        ("AppRole", "AppRoleName"),
        ("AdminRole", "AdminRoleName"),
        ("ReadOnlyRole", "ReadOnlyRoleName"),
        ("ProvisionerRole", "ProvisionerRoleName"),
        ("AcquireOnlyPolicy", "AcquireOnlyPolicyName"),
        ("FullAccessPolicy", "FullAccessPolicyName"),
        ("ReadOnlyPolicy", "ReadOnlyPolicyName"),
        ("NamespaceAcquirePolicy", "NamespaceAcquirePolicyName"),
        ("NamespaceFullAccessPolicy", "NamespaceFullAccessPolicyName"),
        ("NamespaceReadOnlyPolicy", "NamespaceReadOnlyPolicyName"),
    ];
    for (resource, parameter) in named {
        let stack = with_code(&[(parameter, "mine")]);
        for (other, _) in named {
            let properties = stack.properties(other);
            let name = properties.get("RoleName").or(properties.get("ManagedPolicyName"));
            let is_mine = name.is_some_and(|name| name == "mine");
            assert_eq!(
                is_mine,
                other == resource,
                "{parameter} set: {other} is named {name:?}"
            );
        }
    }
}

#[test]
fn everything_that_is_billed_or_assumed_is_tagged() {
    let stack = everything();
    let application = || json!({"Key": "Application", "Value": "zae-limiter"});
    let role = |name: &str| json!([application(), {"Key": "Role", "Value": name}]);
    for (resource, entry) in &stack.resources {
        let expected = match resource.as_str() {
            "RateLimitsTable"
            | "AuditArchiveBucket"
            | "AggregatorDLQ"
            | "AggregatorFunction"
            | "ProvisionerFunction" => Some(json!([application()])),
            "AppRole" => Some(role("app")),
            "AdminRole" => Some(role("admin")),
            "ReadOnlyRole" => Some(role("readonly")),
            _ => None,
        };
        assert_eq!(
            entry["Properties"].get("Tags"),
            expected.as_ref(),
            "tags of {resource}"
        );
    }
}

#[test]
fn deletion_is_left_to_the_service() {
    for (resource, entry) in template().section("Resources") {
        for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
            assert_eq!(entry.get(policy), None, "{resource} has a {policy}");
        }
    }
}

#[test]
fn parameters_are_those_that_the_tools_pass() {
    let text = |default: &str| json!({"Type": "String", "Default": default});
    let flag =
        |default: &str| json!({"Type": "String", "Default": default, "AllowedValues": ["true", "false"]});
    let number = |default: u32, least: u32, most: u32| json!({"Type": "Number", "Default": default, "MinValue": least, "MaxValue": most});
    let mut expected = vec![
        ("SnapshotWindows", text("hourly,daily")),
        ("SnapshotRetentionDays", number(90, 1, 3650)),
        ("LambdaMemorySize", number(256, 128, 3008)),
        ("LambdaTimeout", number(60, 1, 900)),
        ("EnableAggregator", flag("true")),
        ("SchemaVersion", text(SCHEMA_VERSION)),
        ("EnableAlarms", flag("true")),
        ("LambdaDurationThreshold", number(48_000, 1, 900_000)),
        ("EnableAuditArchival", flag("true")),
        ("AuditArchiveGlacierTransitionDays", number(90, 1, 3650)),
        ("EnableTracing", flag("false")),
        ("EnableIAMRoles", flag("true")),
        ("EnableIAM", flag("true")),
        ("EnableProvisioner", flag("true")),
        ("EnableDeletionProtection", flag("false")),
        ("LeanIndex", flag("false")),
        (
            "AlertThresholds",
            json!({
                "Type": "String",
                "Default": Thresholds::default().to_string(),
                "AllowedPattern": "none|(100|[1-9][0-9]?)(,(100|[1-9][0-9]?)){0,9}",
            }),
        ),
        (
            FUNCTION_ARCHITECTURE,
            json!({"Type": "String", "Default": "x86_64", "AllowedValues": ["x86_64", "arm64"]}),
        ),
    ];
    // Optional texts.
    expected.extend(
        [
            "PITRRecoveryPeriodDays",
            "AlarmSNSTopicArn",
            "PermissionBoundary",
            "AggregatorRoleName",
            "AppRoleName",
            "AdminRoleName",
            "ReadOnlyRoleName",
            "ProvisionerRoleName",
            "RoleNameFormat",
            "AcquireOnlyPolicyName",
            "FullAccessPolicyName",
            "ReadOnlyPolicyName",
            "NamespaceAcquirePolicyName",
            "NamespaceFullAccessPolicyName",
            "NamespaceReadOnlyPolicyName",
            "AggregatorRoleArn",
            FUNCTION_CODE_BUCKET,
            FUNCTION_CODE_KEY,
        ]
        .map(|name| (name, text(""))),
    );
    let template = template();
    let mut declared = template.section("Parameters").clone();
    for (name, parameter) in &mut declared {
        let description = parameter.as_object_mut().unwrap().remove("Description");
        assert!(
            description.is_some_and(|text| text.is_string()),
            "parameter {name} is not described"
        );
    }
    // Its values have a test of their own.
    let retention = declared.remove("LogRetentionDays").unwrap();
    assert_eq!(
        (&retention["Type"], &retention["Default"]),
        (&json!("Number"), &json!(30))
    );
    for (name, expected) in &expected {
        assert_eq!(declared.get(*name), Some(expected), "parameter {name}");
    }
    assert_eq!(
        declared.len(),
        expected.len(),
        "a parameter is not in this test's table"
    );
}

#[test]
fn the_template_fits_into_a_request() {
    assert!(
        TEMPLATE.len() <= MAX_BODY_BYTES,
        "{} bytes; CloudFormation takes {MAX_BODY_BYTES}",
        TEMPLATE.len()
    );
}
