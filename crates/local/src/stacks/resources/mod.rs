//! The types of resources that stacks may have, and how each is made, changed and deleted.
//!
//! Every type names the properties it knows; any other is refused, rather than left out silently. Roles, policies,
//! permissions, alarms, networks and containers are kept and shown, but nothing evaluates them.

mod bucket;
mod custom;
mod function;
mod kept;
mod log_group;
mod properties;
mod queue;
mod table;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::Stacks;
use super::record::Resource;
use crate::services::Services;
use crate::template::{Recreation, Rules, same};
use crate::wire::{ACCOUNT, Refusal};
use properties::Properties;

/// The types, beside `Custom::…`.
pub(super) const KINDS: [&str; 21] = [
    "AWS::CloudFormation::CustomResource",
    "AWS::CloudWatch::Alarm",
    "AWS::DynamoDB::Table",
    "AWS::EC2::SecurityGroup",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::VPCEndpoint",
    "AWS::ECS::Cluster",
    "AWS::ECS::ClusterCapacityProviderAssociations",
    "AWS::ECS::Service",
    "AWS::ECS::TaskDefinition",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::Queue",
];

/// Where a resource belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) stacks: &'a Stacks,
    pub(super) services: &'a Services,
    /// The stack's name.
    pub(super) stack: &'a str,
    pub(super) stack_id: &'a str,
    pub(super) region: &'a str,
    /// The resource's logical id.
    pub(super) logical: &'a str,
    /// The stack's tags.
    pub(super) tags: &'a [(String, String)],
}

impl Place<'_> {
    /// The ARN of something of a service in this region.
    fn arn(&self, service: &str, rest: &str) -> String {
        format!("arn:aws:{service}:{}:{ACCOUNT}:{rest}", self.region)
    }

    /// A name for a resource that was given none: of the stack, the resource and chance.
    fn generated(&self, longest: usize) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        let tail: String = (0..12)
            .map(|_| char::from(LETTERS[fastrand::usize(..LETTERS.len())]))
            .collect();
        let room = longest.saturating_sub(tail.len() + 1);
        let head: String = format!("{}-{}", self.stack, self.logical)
            .chars()
            .take(room)
            .collect();
        format!("{head}-{tail}")
    }

    /// The tags that a resource of a stack carries: its own, and the stack's.
    fn tags(&self, properties: &Properties<'_>) -> Result<BTreeMap<String, String>, String> {
        let mut tags = BTreeMap::from([
            ("aws:cloudformation:stack-name".to_owned(), self.stack.to_owned()),
            ("aws:cloudformation:stack-id".to_owned(), self.stack_id.to_owned()),
            (
                "aws:cloudformation:logical-id".to_owned(),
                self.logical.to_owned(),
            ),
        ]);
        tags.extend(self.tags.iter().cloned());
        tags.extend(properties.tags()?);
        Ok(tags)
    }
}

/// A created or updated resource.
#[derive(Debug, Clone, Default)]
pub(super) struct Made {
    /// Its physical id.
    pub(super) physical: String,
    /// The values of `Fn::GetAtt`.
    pub(super) attributes: BTreeMap<String, Json>,
}

impl Made {
    fn new<const N: usize>(physical: impl Into<String>, attributes: [(&str, String); N]) -> Self {
        Self {
            physical: physical.into(),
            attributes: attributes
                .into_iter()
                .map(|(name, value)| (name.to_owned(), Json::String(value)))
                .collect(),
        }
    }
}

/// Why a resource could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotMade {
    /// A resource of its name exists that does not belong to the stack.
    Taken(String),
    /// It failed on the way. What there is of it is left to [`delete`].
    Failed {
        /// Why.
        reason: String,
        /// Its physical id, if that is not the one that was foreseen.
        physical: Option<String>,
    },
}

impl NotMade {
    /// What a service said that was to make something new: `taken` are its words for a name that is in use.
    fn refused(refusal: Refusal, taken: &str) -> Self {
        if refusal.code == taken {
            Self::Taken(refusal.message)
        } else {
            refusal.message.into()
        }
    }
}

impl From<String> for NotMade {
    fn from(reason: String) -> Self {
        Self::Failed {
            reason,
            physical: None,
        }
    }
}

/// Whether there are resources of a type.
pub(super) fn is_known(kind: &str) -> bool {
    KINDS.contains(&kind) || kind.starts_with("Custom::")
}

/// Whether `Fn::GetAtt` can read an attribute of a type that is known. Custom resources have what their functions say.
pub(super) fn has_attribute(kind: &str, attribute: &str) -> bool {
    let attributes: &[&str] = match kind {
        "AWS::CloudWatch::Alarm" | "AWS::ECS::Cluster" | "AWS::Lambda::Function" | "AWS::Logs::LogGroup" => {
            &["Arn"]
        }
        "AWS::DynamoDB::Table" => &["Arn", "StreamArn"],
        "AWS::EC2::SecurityGroup" => &["GroupId", "VpcId"],
        "AWS::EC2::SecurityGroupIngress" | "AWS::EC2::VPCEndpoint" => &["Id"],
        "AWS::ECS::Service" => &["Name", "ServiceArn"],
        "AWS::ECS::TaskDefinition" => &["TaskDefinitionArn"],
        "AWS::IAM::ManagedPolicy" => &["PolicyArn"],
        "AWS::IAM::Role" => &["Arn", "RoleId"],
        "AWS::Lambda::EventSourceMapping" => &["EventSourceMappingArn", "Id"],
        "AWS::S3::Bucket" => &["Arn", "DomainName", "RegionalDomainName"],
        "AWS::SQS::Queue" => &["Arn", "QueueName", "QueueUrl"],
        _ => return is_custom(kind),
    };
    attributes.contains(&attribute)
}

/// The physical id that a resource will have; of types whose id is only known once they are there, a placeholder.
///
/// # Errors
/// What is wrong with its properties, or what it needs and is not there. Nothing has happened then.
pub(super) fn name(kind: &str, place: &Place<'_>, properties: &Json) -> Result<String, String> {
    match kind {
        "AWS::DynamoDB::Table" => table::name(place, properties),
        "AWS::Lambda::Function" => function::name(place, properties),
        "AWS::Lambda::EventSourceMapping" => function::mapping_name(properties),
        "AWS::Logs::LogGroup" => log_group::name(place, properties),
        "AWS::S3::Bucket" => bucket::name(place, properties),
        "AWS::SQS::Queue" => queue::name(place, properties),
        _ if is_custom(kind) => custom::name(place, properties),
        _ => kept::name(kind, place, properties),
    }
}

/// Whether a resource with this physical id exists, in the stack or not.
pub(super) async fn exists(kind: &str, place: &Place<'_>, physical: &str) -> bool {
    match kind {
        "AWS::DynamoDB::Table" => table::exists(place, physical).await,
        "AWS::Lambda::Function" => function::exists(place, physical),
        "AWS::Logs::LogGroup" => log_group::exists(place, physical),
        "AWS::S3::Bucket" => bucket::exists(place, physical),
        "AWS::SQS::Queue" => queue::exists(place, physical),
        "AWS::Lambda::EventSourceMapping" => false,
        _ if is_custom(kind) => false,
        _ => kept::exists(kind, place, physical),
    }
}

/// Makes a resource.
///
/// # Errors
/// Why it could not be made, and whether there is something of it.
pub(super) async fn create(
    kind: &str,
    place: &Place<'_>,
    physical: &str,
    properties: &Json,
) -> Result<Made, NotMade> {
    let made = match kind {
        "AWS::DynamoDB::Table" => table::create(place, physical, properties).await,
        "AWS::Lambda::Function" => function::create(place, physical, properties).await,
        "AWS::Lambda::EventSourceMapping" => function::create_mapping(place, properties).await,
        "AWS::Logs::LogGroup" => log_group::create(place, physical, properties),
        "AWS::S3::Bucket" => bucket::create(place, physical, properties),
        "AWS::SQS::Queue" => queue::create(place, physical, properties),
        _ if is_custom(kind) => custom::create(kind, place, properties).await,
        _ => kept::create(kind, place, physical, properties),
    };
    if let Ok(made) = &made {
        debug_assert!(made.attributes.keys().all(|name| has_attribute(kind, name)));
    }
    made
}

/// Changes a resource in its place.
///
/// # Errors
/// Why it could not be changed.
pub(super) async fn update(
    kind: &str,
    place: &Place<'_>,
    physical: &str,
    old: &Json,
    new: &Json,
) -> Result<Made, String> {
    match kind {
        "AWS::DynamoDB::Table" => table::update(place, physical, old, new).await,
        "AWS::Lambda::Function" => function::update(place, physical, old, new).await,
        "AWS::Lambda::EventSourceMapping" => function::update_mapping(place, physical, new),
        "AWS::Logs::LogGroup" => log_group::update(place, physical, new),
        "AWS::S3::Bucket" => bucket::update(place, physical, new),
        "AWS::SQS::Queue" => queue::update(place, physical, new),
        _ if is_custom(kind) => custom::update(kind, place, physical, old, new).await,
        _ => kept::update(kind, place, physical, new),
    }
}

/// Deletes a resource; one that is not there is deleted already.
///
/// # Errors
/// Why it could not be deleted.
pub(super) async fn delete(
    kind: &str,
    place: &Place<'_>,
    physical: &str,
    properties: &Json,
) -> Result<(), String> {
    match kind {
        "AWS::DynamoDB::Table" => table::delete(place, physical).await,
        "AWS::Lambda::Function" => function::delete(place, physical).await,
        "AWS::Lambda::EventSourceMapping" => function::delete_mapping(place, physical, properties),
        "AWS::Logs::LogGroup" => log_group::delete(place, physical),
        "AWS::S3::Bucket" => bucket::delete(place, physical),
        "AWS::SQS::Queue" => queue::delete(place, physical),
        _ if is_custom(kind) => custom::delete(kind, place, physical, properties).await,
        _ => kept::delete(kind, place, physical),
    }
}

/// Whether a resource whose creation was begun cannot exist, so that there is nothing to delete: one whose function
/// could never be invoked for it.
pub(super) fn never_was(place: &Place<'_>, resource: &Resource) -> bool {
    is_custom(&resource.kind)
        && matches!(resource.status.as_str(), "CREATE_IN_PROGRESS" | "CREATE_FAILED")
        && custom::name(place, &resource.properties).is_err()
}

fn is_custom(kind: &str) -> bool {
    kind.starts_with("Custom::") || kind == "AWS::CloudFormation::CustomResource"
}

/// Which properties cannot be changed in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replacing;

impl Rules for Replacing {
    fn recreation(&self, resource_type: &str, property: &str) -> Recreation {
        let replacing: &[&str] = match resource_type {
            "AWS::DynamoDB::Table" => &["TableName", "KeySchema", "LocalSecondaryIndexes"],
            "AWS::EC2::SecurityGroup" => &["GroupDescription", "GroupName", "VpcId"],
            "AWS::EC2::VPCEndpoint" => &["ServiceName", "VpcEndpointType", "VpcId"],
            "AWS::ECS::Cluster" => &["ClusterName"],
            "AWS::ECS::ClusterCapacityProviderAssociations" => &["Cluster"],
            "AWS::ECS::Service" => &["Cluster", "LaunchType", "ServiceName"],
            "AWS::ECS::TaskDefinition" => &["Family"],
            "AWS::IAM::ManagedPolicy" => &["ManagedPolicyName", "Description", "Path"],
            "AWS::IAM::Role" => &["RoleName", "Path"],
            "AWS::IAM::Policy" => &["PolicyName"],
            "AWS::CloudWatch::Alarm" => &["AlarmName"],
            "AWS::Lambda::Function" => &["FunctionName", "PackageType"],
            "AWS::Lambda::EventSourceMapping" => {
                &["EventSourceArn", "StartingPosition", "StartingPositionTimestamp"]
            }
            "AWS::Lambda::Permission" => &[
                "Action",
                "FunctionName",
                "Principal",
                "SourceAccount",
                "SourceArn",
            ],
            "AWS::Logs::LogGroup" => &["LogGroupName"],
            "AWS::S3::Bucket" => &["BucketName"],
            "AWS::S3::BucketPolicy" => &["Bucket"],
            "AWS::SQS::Queue" => &["QueueName", "FifoQueue"],
            "AWS::CloudFormation::CustomResource" => &["ServiceToken"],
            custom if custom.starts_with("Custom::") => &["ServiceToken"],
            _ => &[],
        };
        if replacing.contains(&property) {
            Recreation::Always
        } else {
            Recreation::Never
        }
    }

    fn attribute_may_change(&self, resource_type: &str, attribute: &str, changed: &[String]) -> bool {
        match (resource_type, attribute) {
            ("AWS::DynamoDB::Table", "StreamArn") => changed.iter().any(|name| name == "StreamSpecification"),
            // The rest are names and what is made of them.
            (kind, _) => is_custom(kind),
        }
    }
}

/// Whether a change of properties needs another resource in the place of this one.
pub(super) fn must_replace(kind: &str, old: &Json, new: &Json) -> bool {
    let names = |json: &Json| {
        json.as_object()
            .map(|map| map.keys().cloned().collect::<Vec<_>>())
    };
    let mut all = names(old).unwrap_or_default();
    all.extend(names(new).unwrap_or_default());
    all.iter().any(|name| {
        Replacing.recreation(kind, name) == Recreation::Always
            && !same(&old[name.as_str()], &new[name.as_str()])
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(stacks: &Stacks) -> Place<'_> {
        Place {
            stacks,
            services: &stacks.services,
            stack: "app",
            stack_id: "id",
            region: "eu-west-1",
            logical: "It",
            tags: &[],
        }
    }

    #[tokio::test]
    async fn a_table_can_be_taken_back_from_what_it_cannot_be() {
        let files = tempfile::tempdir().unwrap();
        let stacks = Stacks::of_test(&files);
        let (place, kind) = (place(&stacks), "AWS::DynamoDB::Table");
        let properties = json!({
            "TableName": "limits", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}],
        });
        create(kind, &place, "limits", &properties).await.unwrap();
        let mut refused = properties.clone();
        refused["TableClass"] = json!("STANDARD");
        let err = update(kind, &place, "limits", &properties, &refused)
            .await
            .unwrap_err();
        assert!(err.contains("TableClass"), "{err}");
        update(kind, &place, "limits", &refused, &properties)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_custom_resource_of_a_function_that_cannot_run_fails_at_once() {
        let files = tempfile::tempdir().unwrap();
        let stacks = Stacks::of_test(&files);
        let (place, kind) = (place(&stacks), "Custom::Thing");
        let function = json!({
            "FunctionName": "f", "Runtime": "python3.12", "Handler": "index.f", "Role": "r",
            "Code": {"ZipFile": "pass"},
        });
        create("AWS::Lambda::Function", &place, "f", &function)
            .await
            .unwrap();
        let properties = json!({"ServiceToken": "f"});
        let foreign = |said: String| assert!(said.contains("needs the runtime python3.12"), "{said}");
        foreign(name(kind, &place, &properties).unwrap_err());
        foreign(
            update(kind, &place, "id", &properties, &properties)
                .await
                .unwrap_err(),
        );
        foreign(delete(kind, &place, "id", &properties).await.unwrap_err());
        // What was never made need not be deleted; what was made still has to be.
        let resource = |status: &str| Resource {
            kind: kind.to_owned(),
            status: status.to_owned(),
            properties: properties.clone(),
            ..Resource::default()
        };
        assert!(never_was(&place, &resource("CREATE_IN_PROGRESS")));
        assert!(never_was(&place, &resource("CREATE_FAILED")));
        assert!(!never_was(&place, &resource("CREATE_COMPLETE")));
    }
}
