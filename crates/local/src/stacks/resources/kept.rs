//! Resources that are only kept: roles, policies, permissions, alarms, networks and containers. Nothing here evaluates
//! them, but templates refer to them, and two stacks cannot both have one of the same name.

use serde_json::{Value as Json, json};

use super::properties::Properties;
use super::{Made, NotMade, Place};
use crate::wire::ACCOUNT;

/// The kind of such a resource's document, which is named by its type and its name.
const KEPT: &str = "kept";

/// The shape of a type: the properties it has, the one that names it, and the longest name.
struct Shape {
    known: &'static [&'static str],
    named_by: Option<&'static str>,
    longest: usize,
}

fn shape(kind: &str) -> Option<Shape> {
    let (known, named_by, longest): Form = match kind {
        "AWS::IAM::Role" => (
            &[
                "AssumeRolePolicyDocument",
                "Description",
                "ManagedPolicyArns",
                "MaxSessionDuration",
                "Path",
                "PermissionsBoundary",
                "Policies",
                "RoleName",
                "Tags",
            ],
            Some("RoleName"),
            64,
        ),
        "AWS::IAM::ManagedPolicy" => (
            &[
                "Description",
                "Groups",
                "ManagedPolicyName",
                "Path",
                "PolicyDocument",
                "Roles",
                "Users",
            ],
            Some("ManagedPolicyName"),
            128,
        ),
        "AWS::IAM::Policy" => (
            &["Groups", "PolicyDocument", "PolicyName", "Roles", "Users"],
            Some("PolicyName"),
            128,
        ),
        "AWS::Lambda::EventInvokeConfig" => (
            &[
                "DestinationConfig",
                "FunctionName",
                "MaximumEventAgeInSeconds",
                "MaximumRetryAttempts",
                "Qualifier",
            ],
            Some("FunctionName"),
            255,
        ),
        "AWS::CloudWatch::Alarm" => (
            &[
                "ActionsEnabled",
                "AlarmActions",
                "AlarmDescription",
                "AlarmName",
                "ComparisonOperator",
                "DatapointsToAlarm",
                "Dimensions",
                "EvaluationPeriods",
                "ExtendedStatistic",
                "InsufficientDataActions",
                "MetricName",
                "Metrics",
                "Namespace",
                "OKActions",
                "Period",
                "Statistic",
                "Tags",
                "Threshold",
                "TreatMissingData",
                "Unit",
            ],
            Some("AlarmName"),
            255,
        ),
        "AWS::Lambda::Permission" => (
            &[
                "Action",
                "EventSourceToken",
                "FunctionName",
                "Principal",
                "SourceAccount",
                "SourceArn",
            ],
            None,
            100,
        ),
        "AWS::S3::BucketPolicy" => (&["Bucket", "PolicyDocument"], Some("Bucket"), 63),
        _ => network(kind).or_else(|| container(kind))?,
    };
    Some(Shape {
        known,
        named_by,
        longest,
    })
}

type Form = (&'static [&'static str], Option<&'static str>, usize);

/// The shapes of EC2.
fn network(kind: &str) -> Option<Form> {
    Some(match kind {
        "AWS::EC2::SecurityGroup" => (
            &[
                "GroupDescription",
                "GroupName",
                "SecurityGroupEgress",
                "SecurityGroupIngress",
                "Tags",
                "VpcId",
            ],
            None,
            255,
        ),
        "AWS::EC2::SecurityGroupIngress" => (
            &[
                "CidrIp",
                "Description",
                "FromPort",
                "GroupId",
                "IpProtocol",
                "SourceSecurityGroupId",
                "ToPort",
            ],
            None,
            255,
        ),
        "AWS::EC2::VPCEndpoint" => (
            &[
                "PolicyDocument",
                "PrivateDnsEnabled",
                "RouteTableIds",
                "SecurityGroupIds",
                "ServiceName",
                "SubnetIds",
                "Tags",
                "VpcEndpointType",
                "VpcId",
            ],
            None,
            255,
        ),
        _ => return None,
    })
}

/// The shapes of ECS.
fn container(kind: &str) -> Option<Form> {
    Some(match kind {
        "AWS::ECS::Cluster" => (
            &[
                "CapacityProviders",
                "ClusterName",
                "ClusterSettings",
                "Configuration",
                "DefaultCapacityProviderStrategy",
                "Tags",
            ],
            Some("ClusterName"),
            255,
        ),
        "AWS::ECS::ClusterCapacityProviderAssociations" => (
            &["CapacityProviders", "Cluster", "DefaultCapacityProviderStrategy"],
            Some("Cluster"),
            255,
        ),
        "AWS::ECS::TaskDefinition" => (
            &[
                "ContainerDefinitions",
                "Cpu",
                "EphemeralStorage",
                "ExecutionRoleArn",
                "Family",
                "Memory",
                "NetworkMode",
                "RequiresCompatibilities",
                "RuntimePlatform",
                "Tags",
                "TaskRoleArn",
                "Volumes",
            ],
            Some("Family"),
            255,
        ),
        "AWS::ECS::Service" => (
            &[
                "CapacityProviderStrategy",
                "Cluster",
                "DeploymentConfiguration",
                "DesiredCount",
                "EnableECSManagedTags",
                "EnableExecuteCommand",
                "LaunchType",
                "NetworkConfiguration",
                "PlatformVersion",
                "PropagateTags",
                "ServiceName",
                "Tags",
                "TaskDefinition",
            ],
            Some("ServiceName"),
            255,
        ),
        _ => return None,
    })
}

fn read<'a>(kind: &'a str, properties: &'a Json) -> Result<(Properties<'a>, Shape), String> {
    let shape = shape(kind).ok_or_else(|| format!("the local endpoint has no resources of type {kind}"))?;
    Ok((Properties::new(kind, properties, shape.known)?, shape))
}

/// The physical id: of managed policies, task definitions and services the ARN, of the rest the name.
pub(super) fn name(kind: &str, place: &Place<'_>, properties: &Json) -> Result<String, String> {
    let (read, shape) = read(kind, properties)?;
    let given = match shape.named_by {
        Some(property) => read.text(property)?,
        None => None,
    };
    if let Some(name) = &given
        && (name.is_empty() || name.chars().count() > shape.longest)
    {
        return Err(format!(
            "the name '{name}' of {kind} has {} characters; it must have 1 to {}",
            name.chars().count(),
            shape.longest
        ));
    }
    let name = given.unwrap_or_else(|| place.generated(shape.longest));
    Ok(match kind {
        "AWS::IAM::ManagedPolicy" => format!("arn:aws:iam::{ACCOUNT}:policy{}{name}", path(&read)?),
        "AWS::ECS::TaskDefinition" => place.arn("ecs", &format!("task-definition/{name}:1")),
        "AWS::ECS::Service" => {
            let cluster = read.text("Cluster")?.unwrap_or_else(|| "default".to_owned());
            place.arn("ecs", &format!("service/{cluster}/{name}"))
        }
        _ => name,
    })
}

fn path(properties: &Properties<'_>) -> Result<String, String> {
    Ok(properties.text("Path")?.unwrap_or_else(|| "/".to_owned()))
}

fn key(kind: &str, physical: &str) -> String {
    format!("{kind} {physical}")
}

/// Whether there can be one of a name only: two policies inside roles may have the same.
fn is_unique(kind: &str) -> bool {
    kind != "AWS::IAM::Policy"
}

pub(super) fn exists(kind: &str, place: &Place<'_>, physical: &str) -> bool {
    is_unique(kind)
        && matches!(
            place.stacks.store.get::<Json>(KEPT, &key(kind, physical)),
            Ok(Some(_))
        )
}

pub(super) fn create(
    kind: &str,
    place: &Place<'_>,
    physical: &str,
    properties: &Json,
) -> Result<Made, NotMade> {
    if !is_unique(kind) {
        return Ok(update(kind, place, physical, properties)?);
    }
    let (read, _) = read(kind, properties)?;
    let store = &place.stacks.store;
    let made = store.insert(KEPT, &key(kind, physical), &document(place, properties));
    if !made.map_err(|err| err.to_string())? {
        return Err(NotMade::Taken(format!("{physical} already exists")));
    }
    Ok(made_of(kind, place, physical, &read)?)
}

pub(super) fn update(
    kind: &str,
    place: &Place<'_>,
    physical: &str,
    properties: &Json,
) -> Result<Made, String> {
    let (read, _) = read(kind, properties)?;
    let store = &place.stacks.store;
    store
        .put(KEPT, &key(kind, physical), &document(place, properties))
        .map_err(|err| err.to_string())?;
    made_of(kind, place, physical, &read)
}

fn document(place: &Place<'_>, properties: &Json) -> Json {
    json!({"stack": place.stack_id, "properties": properties})
}

fn made_of(
    kind: &str,
    place: &Place<'_>,
    physical: &str,
    properties: &Properties<'_>,
) -> Result<Made, String> {
    Ok(match kind {
        "AWS::IAM::Role" => Made::new(
            physical,
            [
                (
                    "Arn",
                    format!("arn:aws:iam::{ACCOUNT}:role{}{physical}", path(properties)?),
                ),
                ("RoleId", format!("AROA{:016X}", fastrand::u64(..))),
            ],
        ),
        "AWS::IAM::ManagedPolicy" => Made::new(physical, [("PolicyArn", physical.to_owned())]),
        "AWS::CloudWatch::Alarm" => Made::new(
            physical,
            [("Arn", place.arn("cloudwatch", &format!("alarm:{physical}")))],
        ),
        "AWS::EC2::SecurityGroup" => Made::new(
            physical,
            [
                ("GroupId", physical.to_owned()),
                ("VpcId", properties.text("VpcId")?.unwrap_or_default()),
            ],
        ),
        "AWS::EC2::SecurityGroupIngress" | "AWS::EC2::VPCEndpoint" => {
            Made::new(physical, [("Id", physical.to_owned())])
        }
        "AWS::ECS::Cluster" => Made::new(
            physical,
            [("Arn", place.arn("ecs", &format!("cluster/{physical}")))],
        ),
        "AWS::ECS::TaskDefinition" => Made::new(physical, [("TaskDefinitionArn", physical.to_owned())]),
        "AWS::ECS::Service" => {
            let name = physical.rsplit('/').next().unwrap_or(physical);
            Made::new(
                physical,
                [("Name", name.to_owned()), ("ServiceArn", physical.to_owned())],
            )
        }
        _ => Made::new(physical, []),
    })
}

pub(super) fn delete(kind: &str, place: &Place<'_>, physical: &str) -> Result<(), String> {
    let deleted = place.stacks.store.delete(KEPT, &key(kind, physical));
    deleted.map(|_| ()).map_err(|err| err.to_string())
}
