//! A stack as it is kept: what it was asked to be, what it consists of, and what is being done to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A stack. It is written after each step of an operation, so that one that was cut off can be taken up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Stack {
    /// Its ARN.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// The region of the request that created it.
    pub(super) region: String,
    /// Its requested state.
    pub(super) wanted: Wanted,
    /// Its status, such as `CREATE_COMPLETE`.
    pub(super) status: String,
    /// Why.
    pub(super) reason: Option<String>,
    /// When it was created, in milliseconds since the epoch, like all times here.
    pub(super) created: i64,
    /// When it was last changed.
    pub(super) updated: Option<i64>,
    /// When it was deleted.
    pub(super) deleted: Option<i64>,
    /// Whether it refuses to be deleted.
    pub(super) protected: bool,
    /// The action if its creation fails.
    pub(super) on_failure: OnFailure,
    /// Its resources, by logical id.
    pub(super) resources: BTreeMap<String, Resource>,
    /// Its outputs.
    pub(super) outputs: Vec<Output>,
    /// The running operation.
    pub(super) task: Option<Task>,
    /// The change set that made it what it is.
    pub(super) change_set: Option<String>,
}

/// The requested state of a stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// The template as it was sent.
    pub(super) template: String,
    /// The values of all parameters.
    pub(super) parameters: BTreeMap<String, String>,
    /// Tags, in the order in which they were given.
    pub(super) tags: Vec<(String, String)>,
    /// The capabilities that the caller acknowledged.
    pub(super) capabilities: Vec<String>,
    /// Topics for notifications; stored without effect.
    pub(super) notification_arns: Vec<String>,
    /// The role that would do it; only kept.
    pub(super) role_arn: Option<String>,
}

/// The action if the creation of a stack fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum OnFailure {
    /// Its resources are deleted.
    #[default]
    Rollback,
    /// It is deleted as a whole.
    Delete,
    /// It stays as it is.
    Nothing,
}

/// A resource that exists, or is being made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Resource {
    /// Its type, such as `AWS::S3::Bucket`.
    pub(super) kind: String,
    /// Its physical id; set before it is created, so that what was begun can be deleted.
    pub(super) physical: String,
    /// Its status.
    pub(super) status: String,
    /// Why.
    pub(super) reason: Option<String>,
    /// The values of `Fn::GetAtt`.
    pub(super) attributes: BTreeMap<String, Json>,
    /// Its properties as they were applied.
    pub(super) properties: Json,
    /// The resources that it was made after.
    pub(super) after: Vec<String>,
    /// Whether it outlives the stack.
    pub(super) retain: bool,
    /// Whether it outlives the failure of the operation that made it.
    #[serde(default)]
    pub(super) retain_new: bool,
    /// Whether it outlives being replaced.
    pub(super) retain_replaced: bool,
    /// When its status last changed.
    pub(super) at: i64,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Output {
    /// Its key.
    pub(super) key: String,
    /// Its value.
    pub(super) value: String,
    /// Its description.
    pub(super) description: Option<String>,
    /// The name that other stacks import it by.
    pub(super) export: Option<String>,
}

/// An operation on a stack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Task {
    /// The caller's token, which events repeat.
    pub(super) token: Option<String>,
    /// The state of the stack before an update, for a rollback.
    pub(super) before: Option<Before>,
    /// Resources that were replaced, and are deleted when the update has succeeded, with their logical ids.
    pub(super) replaced: Vec<(String, Resource)>,
}

/// A stack before its update.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Before {
    /// Its requested state.
    pub(super) wanted: Wanted,
    /// Its resources.
    pub(super) resources: BTreeMap<String, Resource>,
    /// Its outputs.
    pub(super) outputs: Vec<Output>,
    /// Its change set.
    pub(super) change_set: Option<String>,
}

/// Something that happened to a stack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Event {
    /// Its id.
    pub(super) id: String,
    /// The stack's id.
    pub(super) stack: String,
    /// The stack's name.
    pub(super) name: String,
    /// The resource's logical id; the stack's name for the stack itself.
    pub(super) logical: String,
    /// The resource's physical id.
    pub(super) physical: String,
    /// The resource's type.
    pub(super) kind: String,
    /// The status.
    pub(super) status: String,
    /// Why.
    pub(super) reason: Option<String>,
    /// The resource's properties, as JSON.
    pub(super) properties: Option<String>,
    /// The caller's token.
    pub(super) token: Option<String>,
    /// When.
    pub(super) at: i64,
}

/// The type of a stack in its own events.
pub(super) const STACK: &str = "AWS::CloudFormation::Stack";

impl Stack {
    /// Whether an operation is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS") && self.status != "REVIEW_IN_PROGRESS"
    }

    /// Whether it was deleted.
    pub(super) fn is_gone(&self) -> bool {
        self.status == "DELETE_COMPLETE"
    }
}

/// The name in a stack's ARN.
pub(super) fn stack_name(id: &str) -> &str {
    id.split('/').nth(1).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_in_the_arn() {
        assert_eq!(
            stack_name("arn:aws:cloudformation:us-east-1:000000000000:stack/my-app/1234"),
            "my-app"
        );
    }
}
