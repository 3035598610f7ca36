//! The template as a whole: names lead somewhere, nothing is idle, and under whatever parameters, what exists only
//! refers to what exists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use zae_limiter_infra::template::{FUNCTION_CODE_BUCKET, FUNCTION_CODE_KEY, TEMPLATE};

use crate::stack::{Mention, Parameters, STACK, Template, is_pseudo};
use crate::template;

#[test]
fn names_lead_to_what_is_declared() {
    let template = template();
    let declared = |section: &str, name: &str| template.section(section).contains_key(name);
    for (path, mention) in template.mentions() {
        let (kind, name, found) = match &mention {
            Mention::Ref(name) => (
                "parameter or resource",
                name,
                is_pseudo(name) || declared("Parameters", name) || declared("Resources", name),
            ),
            Mention::Resource(name) => ("resource", name, declared("Resources", name)),
            Mention::Condition(name) => ("condition", name, declared("Conditions", name)),
        };
        assert!(found, "{path}: there is no {kind} {name}");
    }
}

#[test]
fn what_is_declared_is_used() {
    let template = template();
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut conditions: BTreeSet<String> = BTreeSet::new();
    for (_, mention) in template.mentions() {
        match mention {
            Mention::Ref(name) => drop(names.insert(name)),
            Mention::Condition(name) => drop(conditions.insert(name)),
            Mention::Resource(_) => {}
        }
    }
    for parameter in template.section("Parameters").keys() {
        assert!(names.contains(parameter), "parameter {parameter} has no effect");
    }
    for condition in template.section("Conditions").keys() {
        assert!(
            conditions.contains(condition),
            "condition {condition} is not used"
        );
    }
}

/// IAM's own variables look like those of `Fn::Sub`. Any other outside of it was meant to be resolved.
#[test]
fn variables_are_resolved_or_left_to_iam() {
    fn look(value: &Value, path: &str) {
        match value {
            Value::String(text) => {
                for variable in text.split("${").skip(1) {
                    assert!(variable.starts_with("aws:"), "{path}: {text:?} lacks Fn::Sub");
                }
            }
            Value::Array(elements) => elements.iter().for_each(|element| look(element, path)),
            Value::Object(entries) => {
                for (key, entry) in entries {
                    if key != "Fn::Sub" {
                        look(entry, &format!("{path}.{key}"));
                    }
                }
            }
            _ => {}
        }
    }
    look(&template().body, "template");
}

#[test]
fn each_parameter_is_in_one_group_of_the_console() {
    let template = template();
    let groups = &template.body["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"];
    let mut grouped: BTreeMap<&str, usize> = BTreeMap::new();
    for group in groups.as_array().unwrap() {
        for name in group["Parameters"].as_array().unwrap() {
            *grouped.entry(name.as_str().unwrap()).or_default() += 1;
        }
    }
    let declared = template.section("Parameters").keys();
    let once: BTreeMap<&str, usize> = declared.map(|name| (name.as_str(), 1)).collect();
    assert_eq!(grouped, once);
}

/// CloudFormation reads YAML 1.1, in which a plain scalar between brackets holds no colon.
#[test]
fn colons_between_brackets_are_quoted() {
    for (number, line) in (1..).zip(TEMPLATE.lines()) {
        let line = line.split(" #").next().unwrap();
        // The JSON of the filters is quoted throughout, in YAML's eyes a folded text.
        let mut plain = String::new();
        let mut quote = None;
        for c in line.chars() {
            match quote {
                Some(open) if c == open => quote = None,
                Some(_) => {}
                None if c == '\'' || c == '"' => quote = Some(c),
                None => plain.push(c),
            }
        }
        let Some((_, within)) = plain.split_once(['{', '[']) else {
            continue;
        };
        let bare = within.replace(": ", "");
        let bare = bare.trim_end_matches(':');
        assert!(
            !bare.contains(':'),
            "line {number} has a plain scalar with a colon: {line}"
        );
    }
}

/// The parameters of one stack, and what follows from them by the guide's words rather than by the template's.
struct Given(Parameters);

impl Given {
    fn on(&self, name: &str) -> bool {
        self.0[name] == "true"
    }

    fn set(&self, name: &str) -> bool {
        !self.0[name].is_empty()
    }

    fn always(&self) -> bool {
        !self.0.is_empty()
    }

    fn code(&self) -> bool {
        self.set(FUNCTION_CODE_BUCKET) && self.set(FUNCTION_CODE_KEY)
    }

    fn iam(&self) -> bool {
        self.on("EnableIAM")
    }

    fn app_roles(&self) -> bool {
        self.iam() && self.on("EnableIAMRoles")
    }

    fn aggregation(&self) -> bool {
        self.on("EnableAggregator")
    }

    fn aggregator_role(&self) -> bool {
        self.aggregation() && self.iam() && !self.set("AggregatorRoleArn")
    }

    fn aggregator(&self) -> bool {
        self.aggregation() && self.code() && (self.iam() || self.set("AggregatorRoleArn"))
    }

    fn archive(&self) -> bool {
        self.aggregator() && self.on("EnableAuditArchival")
    }

    fn alarms(&self) -> bool {
        self.on("EnableAlarms")
    }

    fn aggregator_alarms(&self) -> bool {
        self.aggregator() && self.alarms()
    }

    fn alert_alarm(&self) -> bool {
        self.aggregator_alarms() && self.0["AlertThresholds"] != "none"
    }

    fn provisioning(&self) -> bool {
        self.on("EnableProvisioner")
    }

    fn provisioner_role(&self) -> bool {
        self.provisioning() && self.iam()
    }

    fn provisioner(&self) -> bool {
        self.provisioner_role() && self.code()
    }

    fn boundary(&self) -> bool {
        self.set("PermissionBoundary")
    }

    fn role_format(&self) -> bool {
        self.set("RoleNameFormat")
    }
}

type Rule = fn(&Given) -> bool;

/// Every resource: its type, and when it exists. Ids and types are shared with stacks of the Python library, which have no
/// `LimitAlertAlarm`.
const RESOURCES: [(&str, &str, Rule); 26] = [
    ("RateLimitsTable", "AWS::DynamoDB::Table", Given::always),
    ("AuditArchiveBucket", "AWS::S3::Bucket", Given::archive),
    ("AcquireOnlyPolicy", "AWS::IAM::ManagedPolicy", Given::iam),
    ("FullAccessPolicy", "AWS::IAM::ManagedPolicy", Given::iam),
    ("ReadOnlyPolicy", "AWS::IAM::ManagedPolicy", Given::iam),
    ("NamespaceAcquirePolicy", "AWS::IAM::ManagedPolicy", Given::iam),
    ("NamespaceFullAccessPolicy", "AWS::IAM::ManagedPolicy", Given::iam),
    ("NamespaceReadOnlyPolicy", "AWS::IAM::ManagedPolicy", Given::iam),
    ("AppRole", "AWS::IAM::Role", Given::app_roles),
    ("AdminRole", "AWS::IAM::Role", Given::app_roles),
    ("ReadOnlyRole", "AWS::IAM::Role", Given::app_roles),
    ("AggregatorRole", "AWS::IAM::Role", Given::aggregator_role),
    ("ProvisionerRole", "AWS::IAM::Role", Given::provisioner_role),
    // Other stacks may import the queue, so it does not go with the function.
    ("AggregatorDLQ", "AWS::SQS::Queue", Given::aggregation),
    ("AggregatorLogGroup", "AWS::Logs::LogGroup", Given::aggregation),
    ("AggregatorFunction", "AWS::Lambda::Function", Given::aggregator),
    (
        "AggregatorEventSourceMapping",
        "AWS::Lambda::EventSourceMapping",
        Given::aggregator,
    ),
    ("ProvisionerLogGroup", "AWS::Logs::LogGroup", Given::provisioning),
    ("ProvisionerFunction", "AWS::Lambda::Function", Given::provisioner),
    (
        "AggregatorDLQAlarm",
        "AWS::CloudWatch::Alarm",
        Given::aggregator_alarms,
    ),
    (
        "LambdaErrorRateAlarm",
        "AWS::CloudWatch::Alarm",
        Given::aggregator_alarms,
    ),
    (
        "LambdaDurationAlarm",
        "AWS::CloudWatch::Alarm",
        Given::aggregator_alarms,
    ),
    (
        "StreamIteratorAgeAlarm",
        "AWS::CloudWatch::Alarm",
        Given::aggregator_alarms,
    ),
    ("LimitAlertAlarm", "AWS::CloudWatch::Alarm", Given::alert_alarm),
    (
        "DynamoDBReadThrottleAlarm",
        "AWS::CloudWatch::Alarm",
        Given::alarms,
    ),
    (
        "DynamoDBWriteThrottleAlarm",
        "AWS::CloudWatch::Alarm",
        Given::alarms,
    ),
];

/// Every output: what it is exported as, behind the stack's name, its value, and when it exists.
const OUTPUTS: [(&str, &str, &str, Rule); 31] = [
    ("TableName", "TableName", "@RateLimitsTable", Given::always),
    ("TableArn", "TableArn", "@RateLimitsTable.Arn", Given::always),
    (
        "StreamArn",
        "StreamArn",
        "@RateLimitsTable.StreamArn",
        Given::always,
    ),
    (
        "AggregatorFunctionArn",
        "AggregatorArn",
        "@AggregatorFunction.Arn",
        Given::aggregator,
    ),
    (
        "AggregatorFunctionName",
        "AggregatorName",
        "@AggregatorFunction",
        Given::aggregator,
    ),
    ("AggregatorDLQUrl", "DLQUrl", "@AggregatorDLQ", Given::aggregation),
    (
        "AggregatorDLQArn",
        "DLQArn",
        "@AggregatorDLQ.Arn",
        Given::aggregation,
    ),
    (
        "AggregatorDLQAlarmName",
        "DLQAlarmName",
        "@AggregatorDLQAlarm",
        Given::aggregator_alarms,
    ),
    (
        "LambdaErrorRateAlarmName",
        "LambdaErrorRateAlarmName",
        "@LambdaErrorRateAlarm",
        Given::aggregator_alarms,
    ),
    (
        "LambdaDurationAlarmName",
        "LambdaDurationAlarmName",
        "@LambdaDurationAlarm",
        Given::aggregator_alarms,
    ),
    (
        "StreamIteratorAgeAlarmName",
        "StreamIteratorAgeAlarmName",
        "@StreamIteratorAgeAlarm",
        Given::aggregator_alarms,
    ),
    (
        "LimitAlertAlarmName",
        "LimitAlertAlarmName",
        "@LimitAlertAlarm",
        Given::alert_alarm,
    ),
    (
        "DynamoDBReadThrottleAlarmName",
        "ReadThrottleAlarmName",
        "@DynamoDBReadThrottleAlarm",
        Given::alarms,
    ),
    (
        "DynamoDBWriteThrottleAlarmName",
        "WriteThrottleAlarmName",
        "@DynamoDBWriteThrottleAlarm",
        Given::alarms,
    ),
    (
        "AuditArchiveBucketName",
        "AuditArchiveBucketName",
        "@AuditArchiveBucket",
        Given::archive,
    ),
    (
        "AuditArchiveBucketArn",
        "AuditArchiveBucketArn",
        "@AuditArchiveBucket.Arn",
        Given::archive,
    ),
    (
        "CodeBucketName",
        "CodeBucketName",
        "@AuditArchiveBucket",
        Given::archive,
    ),
    (
        "AcquireOnlyPolicyArn",
        "AcquireOnlyPolicyArn",
        "@AcquireOnlyPolicy",
        Given::iam,
    ),
    (
        "FullAccessPolicyArn",
        "FullAccessPolicyArn",
        "@FullAccessPolicy",
        Given::iam,
    ),
    (
        "ReadOnlyPolicyArn",
        "ReadOnlyPolicyArn",
        "@ReadOnlyPolicy",
        Given::iam,
    ),
    (
        "NamespaceAcquirePolicyArn",
        "NamespaceAcquirePolicyArn",
        "@NamespaceAcquirePolicy",
        Given::iam,
    ),
    (
        "NamespaceFullAccessPolicyArn",
        "NamespaceFullAccessPolicyArn",
        "@NamespaceFullAccessPolicy",
        Given::iam,
    ),
    (
        "NamespaceReadOnlyPolicyArn",
        "NamespaceReadOnlyPolicyArn",
        "@NamespaceReadOnlyPolicy",
        Given::iam,
    ),
    ("AppRoleArn", "AppRoleArn", "@AppRole.Arn", Given::app_roles),
    ("AppRoleName", "AppRoleName", "@AppRole", Given::app_roles),
    ("AdminRoleArn", "AdminRoleArn", "@AdminRole.Arn", Given::app_roles),
    ("AdminRoleName", "AdminRoleName", "@AdminRole", Given::app_roles),
    (
        "ReadOnlyRoleArn",
        "ReadOnlyRoleArn",
        "@ReadOnlyRole.Arn",
        Given::app_roles,
    ),
    (
        "ReadOnlyRoleName",
        "ReadOnlyRoleName",
        "@ReadOnlyRole",
        Given::app_roles,
    ),
    (
        "ProvisionerFunctionArn",
        "ProvisionerArn",
        "@ProvisionerFunction.Arn",
        Given::provisioner,
    ),
    (
        "ProvisionerFunctionName",
        "ProvisionerName",
        "@ProvisionerFunction",
        Given::provisioner,
    ),
];

/// Outputs that repeat a parameter, and when they exist.
const REPEATED: [(&str, &str, Rule); 2] = [
    (
        "PermissionBoundaryArn",
        "arn:aws:iam::123456789012:policy/other",
        Given::boundary,
    ),
    ("RoleNameFormat", "other", Given::role_format),
];

/// Under each combination of the parameters that decide on the existence of anything, with all others at their
/// defaults and then all changed: exactly the expected resources and outputs exist, none refers to what does not, and
/// no output is empty.
#[test]
fn every_combination_of_parameters_makes_a_whole_stack() {
    let template = template();
    let mut deciding = BTreeSet::new();
    for section in ["Resources", "Outputs"] {
        for entry in template.section(section).values() {
            if let Some(condition) = entry.get("Condition") {
                deciding.extend(template.parameters_of(condition.as_str().unwrap()));
            }
        }
    }
    let deciding: Vec<String> = deciding.into_iter().collect();
    assert!(
        (8..=12).contains(&deciding.len()),
        "2^{} stacks are too few or too many",
        deciding.len()
    );

    let defaults = template.defaults();
    let other = |name: &str| match defaults[name].as_str() {
        "true" => "false".to_owned(),
        "false" => "true".to_owned(),
        "" => "other".to_owned(),
        _ if name == "AlertThresholds" => "none".to_owned(),
        same => same.to_owned(),
    };
    let changed: Parameters = defaults.keys().map(|name| (name.clone(), other(name))).collect();
    for mut parameters in [defaults.clone(), changed] {
        for combination in 0_u32..1 << deciding.len() {
            for (bit, name) in deciding.iter().enumerate() {
                let is_changed = combination >> bit & 1 == 1;
                let value = if is_changed {
                    other(name)
                } else {
                    defaults[name].clone()
                };
                parameters.insert(name.clone(), value);
            }
            check_stack(&template, &Given(parameters.clone()));
        }
    }
}

fn check_stack(template: &Template, given: &Given) {
    let stack = template.instantiate(&given.0);
    let parameters = &given.0;
    assert!(
        stack.dangling.is_empty(),
        "{:#?} with {parameters:#?}",
        stack.dangling
    );

    let mut count = 0;
    for (name, kind, exists) in RESOURCES {
        let found = stack.resources.get(name).map(|resource| &resource["Type"]);
        let expected = exists(given).then(|| json!(kind));
        assert_eq!(found, expected.as_ref(), "{name} with {parameters:#?}");
        count += usize::from(expected.is_some());
    }
    assert_eq!(
        stack.resources.len(),
        count,
        "a resource is not in this test's table"
    );

    let mut count = 0;
    let exported = OUTPUTS.into_iter();
    let repeated = REPEATED
        .into_iter()
        .map(|(name, value, exists)| (name, name, value, exists));
    for (name, suffix, value, exists) in exported.chain(repeated) {
        let found = stack
            .outputs
            .get(name)
            .map(|output| (&output["Value"], &output["Export"]));
        let expected = exists(given).then(|| (json!(value), json!({"Name": format!("{STACK}-{suffix}")})));
        let expected = expected.as_ref().map(|(value, export)| (value, export));
        assert_eq!(found, expected, "output {name} with {parameters:#?}");
        count += usize::from(expected.is_some());
    }
    assert_eq!(
        stack.outputs.len(),
        count,
        "an output is not in this test's table"
    );
    for (name, output) in &stack.outputs {
        assert!(
            output["Value"].as_str().is_some_and(|value| !value.is_empty()),
            "output {name} is empty with {parameters:#?}"
        );
    }
}

/// An import by another stack breaks with a changed export, so two outputs must not share one either.
#[test]
fn exports_are_distinct() {
    let template = template();
    let mut seen = BTreeSet::new();
    for (name, output) in template.section("Outputs") {
        let export = output["Export"]["Name"]["Fn::Sub"].as_str();
        let export = export.unwrap_or_else(|| panic!("output {name} is not exported under the stack's name"));
        assert!(seen.insert(export), "{export} is exported twice");
        assert!(
            output["Description"].is_string(),
            "output {name} is not described"
        );
    }
}
