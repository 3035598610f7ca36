//! Who may do what: policies, roles, and which of them exist.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use zae_limiter_core::schema::{
    BucketId, meta_key, namespace_key, provisioner_key, system_config_key, version_key,
};
use zae_limiter_core::{EntityId, NamespaceId, NamespaceName, ResourceName};

use crate::stack::{Stack, names};
use crate::{everything, template, with_code};

const TABLE: &str = "@RateLimitsTable.Arn";
const INDEXES: &str = "@RateLimitsTable.Arn/index/*";

/// The statement with the given id in a policy document.
#[track_caller]
fn statement<'a>(document: &'a Value, sid: &str) -> &'a Value {
    assert_eq!(document["Version"], "2012-10-17");
    let statements = document["Statement"].as_array().unwrap();
    let found = statements.iter().find(|statement| statement["Sid"] == sid);
    found.unwrap_or_else(|| panic!("no statement {sid} in {document:#}"))
}

/// What a statement allows, on what.
#[track_caller]
fn check_statement(document: &Value, sid: &str, actions: &[&str], resources: &[&str]) {
    let statement = statement(document, sid);
    assert_eq!(statement["Effect"], "Allow", "{sid}");
    let found: BTreeSet<&str> = names(&statement["Action"]).into_iter().collect();
    let expected: BTreeSet<&str> = actions.iter().copied().collect();
    let more: Vec<_> = found.difference(&expected).collect();
    let less: Vec<_> = expected.difference(&found).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "{sid} allows {more:?} beyond, and misses {less:?}"
    );
    assert_eq!(names(&statement["Resource"]), resources, "{sid}");
}

#[track_caller]
fn check_sids(document: &Value, sids: &[&str]) {
    let statements = document["Statement"].as_array().unwrap();
    let found: Vec<&str> = statements
        .iter()
        .filter_map(|statement| statement["Sid"].as_str())
        .collect();
    assert_eq!((found.as_slice(), statements.len()), (sids, sids.len()));
}

/// The patterns of partition keys that a statement is limited to.
#[track_caller]
fn leading_keys<'a>(document: &'a Value, sid: &str, guarded: bool) -> Vec<&'a str> {
    let condition = &statement(document, sid)["Condition"];
    let null = json!({"dynamodb:LeadingKeys": "false"});
    let expected = if guarded { Some(&null) } else { None };
    assert_eq!(
        condition.get("Null"),
        expected,
        "the guard against no key at all in {sid}"
    );
    assert_eq!(
        condition.as_object().unwrap().len(),
        1 + usize::from(guarded),
        "{sid}: {condition}"
    );
    names(&condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"])
}

#[test]
fn descriptions_of_policies_never_change() {
    let stack = everything();
    let check = |policy: &str, description: &str| {
        assert_eq!(
            stack.properties(policy)["Description"],
            description,
            "a changed description replaces {policy}, which CloudFormation cannot do as it has a name"
        );
    };
    check(
        "AcquireOnlyPolicy",
        "Rate limiter acquire-only access (read + transact write)",
    );
    check("FullAccessPolicy", "Rate limiter full access (all operations)");
    check("ReadOnlyPolicy", "Rate limiter read-only access (monitoring)");
    check(
        "NamespaceAcquirePolicy",
        "Namespace-scoped acquire-only access (read + update within namespace)",
    );
    check(
        "NamespaceFullAccessPolicy",
        "Namespace-scoped full access (all operations within namespace)",
    );
    check(
        "NamespaceReadOnlyPolicy",
        "Namespace-scoped read-only access (monitoring within namespace)",
    );
}

const READS: [&str; 3] = ["dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"];
const LEASE_DELETES: [&str; 2] = ["dynamodb:DeleteItem", "dynamodb:BatchWriteItem"];
const BUCKET_WRITES: [&str; 2] = ["dynamodb:PutItem", "dynamodb:UpdateItem"];

#[test]
fn policies_of_the_whole_table() {
    let stack = everything();
    let document = |policy: &str| stack.properties(policy)["PolicyDocument"].clone();

    let acquire = document("AcquireOnlyPolicy");
    check_sids(&acquire, &["TableReads", "BucketWrites", "LeaseDeletes"]);
    let reads = [&READS[..], &["dynamodb:ConditionCheckItem"]].concat();
    check_statement(&acquire, "TableReads", &reads, &[TABLE, INDEXES]);
    check_statement(&acquire, "BucketWrites", &BUCKET_WRITES, &[TABLE]);
    assert_eq!(
        leading_keys(&acquire, "BucketWrites", true),
        ["*/BUCKET#*", "*/LEASES#*"]
    );
    check_statement(&acquire, "LeaseDeletes", &LEASE_DELETES, &[TABLE]);
    assert_eq!(leading_keys(&acquire, "LeaseDeletes", true), ["*/LEASES#*"]);

    let monitoring = [&READS[..], &["dynamodb:Scan", "dynamodb:DescribeTable"]].concat();
    let read = document("ReadOnlyPolicy");
    check_sids(&read, &["TableReads"]);
    check_statement(&read, "TableReads", &monitoring, &[TABLE, INDEXES]);

    let writes = [
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:DeleteItem",
        "dynamodb:BatchWriteItem",
        "dynamodb:ConditionCheckItem",
    ];
    let full = document("FullAccessPolicy");
    check_sids(&full, &["TableFullAccess"]);
    check_statement(
        &full,
        "TableFullAccess",
        &[&monitoring[..], &writes].concat(),
        &[TABLE, INDEXES],
    );
}

#[test]
fn policies_of_one_namespace() {
    let stack = everything();
    let document = |policy: &str| stack.properties(policy)["PolicyDocument"].clone();
    let own = "${aws:PrincipalTag/zael_namespace_id}/*";

    let acquire = document("NamespaceAcquirePolicy");
    check_sids(
        &acquire,
        &[
            "NamespaceAcquireAccess",
            "NamespaceBucketWrites",
            "NamespaceLeaseDeletes",
            "SharedReadAccess",
        ],
    );
    let reads = [&READS[..], &["dynamodb:ConditionCheckItem"]].concat();
    check_statement(&acquire, "NamespaceAcquireAccess", &reads, &[TABLE, INDEXES]);
    assert_eq!(leading_keys(&acquire, "NamespaceAcquireAccess", false), [own]);
    check_statement(&acquire, "NamespaceBucketWrites", &BUCKET_WRITES, &[TABLE]);
    assert_eq!(
        leading_keys(&acquire, "NamespaceBucketWrites", true),
        [
            "${aws:PrincipalTag/zael_namespace_id}/BUCKET#*",
            "${aws:PrincipalTag/zael_namespace_id}/LEASES#*"
        ]
    );
    check_statement(&acquire, "NamespaceLeaseDeletes", &LEASE_DELETES, &[TABLE]);
    assert_eq!(
        leading_keys(&acquire, "NamespaceLeaseDeletes", true),
        ["${aws:PrincipalTag/zael_namespace_id}/LEASES#*"]
    );
    check_statement(&acquire, "SharedReadAccess", &READS, &[TABLE, INDEXES]);
    assert_eq!(leading_keys(&acquire, "SharedReadAccess", false), ["_/*"]);

    let writes = [
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:DeleteItem",
        "dynamodb:BatchWriteItem",
        "dynamodb:ConditionCheckItem",
    ];
    let full = document("NamespaceFullAccessPolicy");
    check_sids(&full, &["NamespaceFullAccess"]);
    check_statement(
        &full,
        "NamespaceFullAccess",
        &[&READS[..], &writes].concat(),
        &[TABLE, INDEXES],
    );
    assert_eq!(
        leading_keys(&full, "NamespaceFullAccess", false),
        [own, "${aws:PrincipalTag/zael_namespace_id}", "_/*"]
    );

    let read = document("NamespaceReadOnlyPolicy");
    check_sids(&read, &["NamespaceReadAccess"]);
    check_statement(&read, "NamespaceReadAccess", &READS, &[TABLE, INDEXES]);
    assert_eq!(leading_keys(&read, "NamespaceReadAccess", false), [own, "_/*"]);
}

/// Whether a text matches a pattern in which `*` stands for anything, as in IAM.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len())
                .filter(|at| text.is_char_boundary(*at))
                .any(|at| like(rest, &text[at..]))
        }),
    }
}

#[test]
fn who_acquires_writes_buckets_and_nothing_else() {
    let stack = everything();
    let document = |policy: &str| stack.properties(policy)["PolicyDocument"].clone();
    let namespace = NamespaceId::new("dSkXlbmmfyU").unwrap();
    let entity = EntityId::new("user-1").unwrap();
    let others = [
        meta_key(&namespace, &entity),
        system_config_key(&namespace),
        provisioner_key(&namespace),
        version_key(),
        namespace_key(&NamespaceName::new("default").unwrap()),
    ];
    let bucket = |namespace: &str| {
        let id = BucketId {
            namespace: NamespaceId::new(namespace).unwrap(),
            entity: entity.clone(),
            resource: ResourceName::new("gpt-4").unwrap(),
        };
        id.key(31).pk
    };
    for (policy, sid, elsewhere) in [
        ("AcquireOnlyPolicy", "BucketWrites", true),
        ("NamespaceAcquirePolicy", "NamespaceBucketWrites", false),
    ] {
        let document = document(policy);
        let patterns = leading_keys(&document, sid, true);
        let allows = |key: &str| {
            let tag = "${aws:PrincipalTag/zael_namespace_id}";
            patterns
                .iter()
                .any(|pattern| like(&pattern.replace(tag, namespace.as_str()), key))
        };
        assert!(
            allows(&bucket("dSkXlbmmfyU")),
            "{policy} denies a bucket of the own namespace"
        );
        assert_eq!(
            allows(&bucket("4vFkEChf7Ak")),
            elsewhere,
            "{policy} and another namespace"
        );
        for other in &others {
            assert!(!allows(&other.pk), "{policy} may write {other}");
        }
    }
}

#[test]
fn application_roles_have_one_policy_each() {
    let stack = everything();
    for (role, policy) in [
        ("AppRole", "@AcquireOnlyPolicy"),
        ("AdminRole", "@FullAccessPolicy"),
        ("ReadOnlyRole", "@ReadOnlyPolicy"),
    ] {
        let properties = stack.properties(role);
        assert_eq!(properties["ManagedPolicyArns"], json!([policy]), "{role}");
        assert_eq!(properties.get("Policies"), None, "{role}");
        check_trust(&stack, role, &json!({"AWS": "arn:aws:iam::123456789012:root"}));
    }
}

#[track_caller]
fn check_trust(stack: &Stack, role: &str, principal: &Value) {
    assert_eq!(
        stack.properties(role)["AssumeRolePolicyDocument"],
        json!({
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}],
        }),
        "{role}"
    );
}

/// The documents of a role's inline policies, by name.
fn inline(stack: &Stack, role: &str) -> Vec<(String, Value)> {
    let policies = stack.properties(role)["Policies"].as_array().unwrap();
    let policies = policies.iter();
    policies
        .map(|policy| {
            (
                names(&policy["PolicyName"])[0].to_owned(),
                policy["PolicyDocument"].clone(),
            )
        })
        .collect()
}

#[test]
fn functions_may_do_what_they_need() {
    let logs = json!(["arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"]);
    let stack = everything();
    for role in ["AggregatorRole", "ProvisionerRole"] {
        check_trust(&stack, role, &json!({"Service": "lambda.amazonaws.com"}));
        assert_eq!(stack.properties(role)["ManagedPolicyArns"], logs, "{role}");
    }

    let aggregator = inline(&stack, "AggregatorRole");
    let policies: Vec<&str> = aggregator.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(policies, ["DynamoDBAccess", "S3ArchiveAccess", "XRayAccess"]);
    let [(_, database), (_, archive), (_, tracing)] = aggregator.as_slice() else {
        unreachable!("there are three policies");
    };
    check_sids(
        database,
        &[
            "TableAccess",
            "StreamAccess",
            "StreamListing",
            "FailureDestination",
        ],
    );
    let table = [
        "dynamodb:BatchGetItem",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:ConditionCheckItem",
    ];
    check_statement(database, "TableAccess", &table, &[TABLE]);
    let stream = [
        "dynamodb:GetRecords",
        "dynamodb:GetShardIterator",
        "dynamodb:DescribeStream",
    ];
    check_statement(database, "StreamAccess", &stream, &["@RateLimitsTable.StreamArn"]);
    check_statement(database, "StreamListing", &["dynamodb:ListStreams"], &["*"]);
    check_statement(
        database,
        "FailureDestination",
        &["sqs:SendMessage"],
        &["@AggregatorDLQ.Arn"],
    );
    check_sids(archive, &["ArchiveAccess"]);
    check_statement(
        archive,
        "ArchiveAccess",
        &["s3:PutObject"],
        &["@AuditArchiveBucket.Arn/*"],
    );
    check_sids(tracing, &["Tracing"]);
    let xray = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"];
    check_statement(tracing, "Tracing", &xray, &["*"]);

    let provisioner = inline(&stack, "ProvisionerRole");
    let [(name, database)] = provisioner.as_slice() else {
        panic!("the provisioner's policies are {provisioner:?}");
    };
    assert_eq!(name, "DynamoDBAccess");
    check_sids(database, &["TableAccess"]);
    let table = [
        "dynamodb:GetItem",
        "dynamodb:BatchGetItem",
        "dynamodb:Query",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:DeleteItem",
        "dynamodb:ConditionCheckItem",
    ];
    check_statement(database, "TableAccess", &table, &[TABLE, INDEXES]);
}

#[test]
fn rights_go_with_what_they_are_for() {
    let names = |stack: &Stack| -> Vec<String> {
        inline(stack, "AggregatorRole")
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    };
    assert_eq!(names(&with_code(&[])), ["DynamoDBAccess", "S3ArchiveAccess"]);
    assert_eq!(
        names(&with_code(&[("EnableAuditArchival", "false")])),
        ["DynamoDBAccess"]
    );
    // Without code there is no function that could archive or be traced.
    assert_eq!(
        names(&template().with(&[("EnableTracing", "true")])),
        ["DynamoDBAccess"]
    );
}

const ROLES: [&str; 5] = [
    "AggregatorRole",
    "ProvisionerRole",
    "AppRole",
    "AdminRole",
    "ReadOnlyRole",
];

#[test]
fn a_boundary_fences_every_role() {
    let check = |boundary: &str, expected: Option<&str>| {
        let stack = with_code(&[("EnableIAMRoles", "true"), ("PermissionBoundary", boundary)]);
        for role in ROLES {
            let found = stack
                .properties(role)
                .get("PermissionsBoundary")
                .and_then(Value::as_str);
            assert_eq!(found, expected, "{role} with boundary {boundary:?}");
        }
        let output = stack
            .outputs
            .get("PermissionBoundaryArn")
            .and_then(|output| output["Value"].as_str());
        assert_eq!(output, expected, "output with boundary {boundary:?}");
    };
    check("", None);
    check("fence", Some("arn:aws:iam::123456789012:policy/fence"));
    check("arn:aws-cn:iam::1:policy/x", Some("arn:aws-cn:iam::1:policy/x"));
    // Only what is before the first colon counts.
    check("arnold", Some("arn:aws:iam::123456789012:policy/arnold"));
    let roles = template();
    let roles = roles
        .section("Resources")
        .iter()
        .filter(|(_, entry)| entry["Type"] == "AWS::IAM::Role");
    assert_eq!(roles.count(), ROLES.len(), "a role is not in this test's table");
}

/// A row of the outcome matrix: what there is of policies, application roles, the aggregator's role, and functions.
#[track_caller]
fn check_row(given: &[(&str, &str)], policies: bool, roles: bool, own: bool, functions: [bool; 2]) {
    // What the tool passes by default.
    let stack = with_code(&[&[("EnableIAMRoles", "false")], given].concat());
    let check = |resources: &[&str], expected: bool| {
        for resource in resources {
            assert_eq!(stack.has(resource), expected, "{resource} with {given:?}");
        }
    };
    check(
        &[
            "AcquireOnlyPolicy",
            "FullAccessPolicy",
            "ReadOnlyPolicy",
            "NamespaceAcquirePolicy",
            "NamespaceFullAccessPolicy",
            "NamespaceReadOnlyPolicy",
        ],
        policies,
    );
    check(&["AppRole", "AdminRole", "ReadOnlyRole"], roles);
    check(&["AggregatorRole"], own);
    check(
        &["AggregatorFunction", "AggregatorEventSourceMapping"],
        functions[0],
    );
    check(&["ProvisionerFunction"], functions[1]);
    if functions[0] {
        let external = given.iter().find(|(name, _)| *name == "AggregatorRoleArn");
        let expected = external.map_or("@AggregatorRole.Arn", |(_, arn)| arn);
        assert_eq!(
            stack.properties("AggregatorFunction")["Role"],
            expected,
            "with {given:?}"
        );
    }
}

#[test]
fn roles_and_functions_by_flags() {
    let external = ("AggregatorRoleArn", "arn:aws:iam::123456789012:role/ours");
    let without = ("EnableIAM", "false");
    let roles = ("EnableIAMRoles", "true");
    check_row(&[], true, false, true, [true, true]);
    check_row(&[roles], true, true, true, [true, true]);
    check_row(&[external], true, false, false, [true, true]);
    check_row(&[without], false, false, false, [false, false]);
    check_row(&[without, external], false, false, false, [true, false]);
    // The tools refuse this one; deployed by hand, it is the same as without application roles.
    check_row(&[without, roles], false, false, false, [false, false]);
}
