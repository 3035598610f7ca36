//! Events of a stack's resources, as reported by CloudFormation.

use aws_sdk_cloudformation::types as sdk;
use zae_limiter_core::EpochMillis;

/// The type of the stack itself, which has events too.
pub(crate) const STACK: &str = "AWS::CloudFormation::Stack";

/// The most failed resources that an error lists.
const SHOWN: usize = 5;

/// A change of a resource's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackEvent {
    /// Its id, unique in the stack.
    pub id: String,
    /// When, as `YYYY-MM-DDTHH:MM:SSZ`; empty if CloudFormation did not say.
    pub timestamp: String,
    /// The resource's name in the template.
    pub logical_id: String,
    /// The resource's type, such as `AWS::DynamoDB::Table`.
    pub resource_type: String,
    /// Its new status, such as `CREATE_IN_PROGRESS`.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
}

impl StackEvent {
    pub(crate) fn of(event: &sdk::StackEvent) -> Self {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Self {
            id: text(event.event_id()),
            timestamp: instant(event.timestamp()).unwrap_or_default(),
            logical_id: text(event.logical_resource_id()),
            resource_type: text(event.resource_type()),
            status: text(event.resource_status().map(sdk::ResourceStatus::as_str)),
            reason: event
                .resource_status_reason()
                .filter(|reason| !reason.is_empty())
                .map(str::to_owned),
        }
    }

    /// Whether the event is about the stack as a whole.
    pub fn is_of_stack(&self) -> bool {
        self.resource_type == STACK
    }

    /// Whether the resource failed.
    pub fn is_failure(&self) -> bool {
        self.status.ends_with("_FAILED")
    }

    /// The advice for a failure, if there is any.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        let reason = self.reason.as_deref()?.to_lowercase();
        let says = |part: &str| reason.contains(part);
        match self.resource_type.as_str() {
            "AWS::S3::Bucket" if says("not empty") => {
                Some("Empty the bucket (the archived audit events are lost), then delete the stack again.")
            }
            "AWS::DynamoDB::Table" if says("deletion protection") || says("protected against deletion") => {
                Some(
                    "Deletion protection is on. Switch it off ('zae-limiter upgrade --parameter \
                 EnableDeletionProtection=false', or 'aws dynamodb update-table --no-deletion-protection-enabled' if \
                 the stack cannot be updated), then delete the stack again.",
                )
            }
            "AWS::IAM::ManagedPolicy" | "AWS::IAM::Role"
                if says("detach") || says("attached") || says("deleteconflict") =>
            {
                Some("Detach it from the roles, users and groups that use it, then try again.")
            }
            _ if says("accessdenied") || says("not authorized") => {
                Some("The current credentials lack a permission; the reason names it.")
            }
            _ if self.status.starts_with("CREATE") && says("already exists") => {
                Some("Something of this name exists outside the stack: delete it, or choose another --name.")
            }
            _ => None,
        }
    }
}

/// An instant as text.
pub(crate) fn instant(at: Option<&aws_smithy_types::DateTime>) -> Option<String> {
    Some(EpochMillis(at?.secs().checked_mul(1000)?).to_text())
}

/// Of an operation's events, oldest first, those of the resources that failed by themselves.
///
/// When one resource fails, CloudFormation cancels those under way, which then count as failed too.
pub(crate) fn first_failures(events: &[StackEvent]) -> Vec<StackEvent> {
    let cancelled = |event: &StackEvent| {
        event
            .reason
            .as_deref()
            .is_some_and(|reason| reason.contains("cancelled"))
    };
    let failed = || {
        events
            .iter()
            .filter(|event| event.is_failure() && !event.is_of_stack())
    };
    let own: Vec<StackEvent> = failed()
        .filter(|event| !cancelled(event))
        .take(SHOWN)
        .cloned()
        .collect();
    if own.is_empty() {
        return failed().take(SHOWN).cloned().collect();
    }
    own
}

/// Why an operation failed as a whole, if an event of the stack says so.
pub(crate) fn stack_reason(events: &[StackEvent]) -> Option<&str> {
    events
        .iter()
        .filter(|event| event.is_of_stack() && (event.is_failure() || event.status.contains("ROLLBACK")))
        .find_map(|event| event.reason.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(logical_id: &str, resource_type: &str, status: &str, reason: &str) -> StackEvent {
        StackEvent {
            id: format!("{logical_id}-{status}"),
            timestamp: String::new(),
            logical_id: logical_id.into(),
            resource_type: resource_type.into(),
            status: status.into(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
        }
    }

    #[test]
    fn what_was_cancelled_is_not_what_failed() {
        let events = [
            event("my-app", STACK, "CREATE_IN_PROGRESS", "User Initiated"),
            event("Table", "AWS::DynamoDB::Table", "CREATE_IN_PROGRESS", ""),
            event(
                "Role",
                "AWS::IAM::Role",
                "CREATE_FAILED",
                "Resource creation cancelled",
            ),
            event(
                "Table",
                "AWS::DynamoDB::Table",
                "CREATE_FAILED",
                "my-app already exists",
            ),
            event(
                "my-app",
                STACK,
                "ROLLBACK_IN_PROGRESS",
                "The following resource(s) failed to create: [Table].",
            ),
        ];
        let failed = first_failures(&events);
        assert_eq!(failed, [events[3].clone()]);
        assert!(
            failed[0]
                .advice()
                .is_some_and(|advice| advice.contains("another --name"))
        );
        assert_eq!(first_failures(&events[..3]), [events[2].clone()]);
        assert_eq!(stack_reason(&events), events[4].reason.as_deref());
    }

    #[test]
    fn failures_that_have_a_way_out_tell_it() {
        for (kind, reason, advice) in [
            (
                "AWS::S3::Bucket",
                "The bucket you tried to delete is not empty.",
                "Empty the bucket",
            ),
            (
                "AWS::DynamoDB::Table",
                "Resource cannot be deleted as it is currently protected against deletion.",
                "Deletion protection is on",
            ),
            (
                "AWS::IAM::ManagedPolicy",
                "Cannot delete a policy attached to entities.",
                "Detach it",
            ),
            (
                "AWS::SQS::Queue",
                "User: x is not authorized to perform: sqs:DeleteQueue",
                "permission",
            ),
        ] {
            let found = event("X", kind, "DELETE_FAILED", reason);
            assert!(
                found.advice().is_some_and(|text| text.contains(advice)),
                "{reason}"
            );
        }
        assert_eq!(
            event("X", "AWS::SQS::Queue", "DELETE_FAILED", "Internal Failure").advice(),
            None
        );
    }
}
