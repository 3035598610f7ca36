//! A stack as it is found, and waiting for it.

use std::collections::HashSet;

use aws_sdk_cloudformation::types::StackResource;
use zae_limiter_core::InvalidInput;

use crate::error::{Error, failed};
use crate::events::{StackEvent, first_failures, stack_reason};
use crate::summary::StackSummary;
use crate::{Progress, StackManager};

/// How many looks in a row may fail before waiting is given up.
const LOOKS: u32 = 5;

/// How many looks at a stack that does not change are needed to believe that its operation is over, if no event says
/// so.
const STILL: u32 = 4;

impl StackSummary {
    /// Refuses a stack that cannot be changed.
    pub(crate) fn usable(self) -> Result<Self, Error> {
        let advice = match self.status.as_str() {
            "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED" => {
                "its creation failed, and CloudFormation can only delete it; run 'zae-limiter delete', then deploy again"
            }
            "DELETE_FAILED" => {
                "its deletion failed half-way; run 'zae-limiter delete' again, which says what is in the way"
            }
            "DELETE_IN_PROGRESS" => "wait until it is deleted, then deploy again",
            "REVIEW_IN_PROGRESS" => {
                "a change set exists that would create it; execute that change set, or delete the stack, then try again"
            }
            "UPDATE_ROLLBACK_FAILED" => {
                "an update could neither be made nor undone; run 'aws cloudformation continue-update-rollback'"
            }
            "UPDATE_FAILED" => {
                "an update failed and was left half-way; run 'aws cloudformation rollback-stack'"
            }
            "IMPORT_ROLLBACK_FAILED" => "an import could not be undone; mend it in the AWS console",
            _ => return Ok(self),
        };
        Err(Error::State {
            stack: self.name,
            status: self.status,
            advice,
        })
    }
}

/// The steps of an operation before it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The stack; `None` once it is gone.
    pub(crate) stack: Option<StackSummary>,
    /// The operation's events, oldest first.
    pub(crate) events: Vec<StackEvent>,
}

impl Ended {
    /// The stack, if the operation ended as it should.
    pub(crate) fn expect(self, name: &str, good: &[&str]) -> Result<StackSummary, Error> {
        let (status, reason) = match self.stack {
            Some(stack) if good.contains(&stack.status.as_str()) => return Ok(stack),
            Some(stack) => (stack.status, stack.reason),
            None => ("DELETE_COMPLETE".to_owned(), None),
        };
        let failed = first_failures(&self.events);
        let reason = stack_reason(&self.events).map(str::to_owned).or(reason);
        // Where the resources say why, the stack only counts them.
        let reason = match reason.filter(|_| failed.is_empty()) {
            Some(reason) => format!("it ended as {status}: {reason}"),
            None => format!("it ended as {status}"),
        };
        Err(Error::Operation {
            stack: name.to_owned(),
            reason,
            failed,
        })
    }
}

impl StackManager {
    /// The stack of this name or ARN; `None` if there is none. One that was deleted is found by its ARN alone.
    pub async fn find(&self, name: &str) -> Result<Option<StackSummary>, Error> {
        let answer = self
            .clients
            .stacks
            .describe_stacks()
            .stack_name(name)
            .send()
            .await;
        match answer.map_err(failed("DescribeStacks")) {
            Ok(answer) => Ok(answer.stacks().first().map(StackSummary::of)),
            // CloudFormation has no better code for a stack that is not there.
            Err(err) if err.is_code("ValidationError") && err.to_string().contains("does not exist") => {
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    /// The resources of a stack.
    pub(crate) async fn resources(&self, found: &StackSummary) -> Result<Vec<StackResource>, Error> {
        let call = self.clients.stacks.describe_stack_resources();
        let answer = call.stack_name(&found.id).send().await;
        let answer = answer.map_err(failed("DescribeStackResources"))?;
        Ok(answer.stack_resources.unwrap_or_default())
    }

    /// The stack of this name, if there is one that was not deleted.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for what cannot be a stack's name.
    pub async fn existing(&self, name: &str) -> Result<Option<StackSummary>, Error> {
        zae_limiter_core::StackName::new(name)?;
        let found = self.find(name).await?;
        Ok(found.filter(|stack| stack.status != "DELETE_COMPLETE"))
    }

    /// The id of a stack's newest event: where an operation that comes next begins.
    pub(crate) async fn newest_event(&self, stack: &str) -> Option<String> {
        let answer = self
            .clients
            .stacks
            .describe_stack_events()
            .stack_name(stack)
            .send()
            .await
            .ok()?;
        answer.stack_events().first()?.event_id().map(str::to_owned)
    }

    /// Events that are not among those seen, oldest first; empty if CloudFormation does not answer.
    async fn new_events(
        &self,
        stack: &str,
        since: Option<&str>,
        seen: &mut HashSet<String>,
    ) -> Vec<StackEvent> {
        let mut found = Vec::new();
        let mut token = None;
        'pages: loop {
            let call = self.clients.stacks.describe_stack_events().stack_name(stack);
            let Ok(page) = call.set_next_token(token).send().await else {
                // Next time, with those that are missing now.
                found.clear();
                break;
            };
            for event in page.stack_events() {
                let event = StackEvent::of(event);
                if since == Some(&event.id) || seen.contains(&event.id) {
                    break 'pages;
                }
                found.push(event);
            }
            match page.next_token() {
                Some(next) => token = Some(next.to_owned()),
                None => break,
            }
        }
        seen.extend(found.iter().map(|event| event.id.clone()));
        found.reverse();
        found
    }

    /// Waits until no operation is under way, telling what happens. `stack` is its ARN; `since` is the newest event
    /// before the operation.
    pub(crate) async fn finished(
        &self,
        stack: &str,
        since: Option<&str>,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Ended, Error> {
        let mut looks = self.waits.looks(self.waits.stack);
        let mut seen = HashSet::new();
        let mut events: Vec<StackEvent> = Vec::new();
        let (mut failures, mut still) = (0, 0);
        loop {
            let look = self.find(stack).await;
            for event in self.new_events(stack, since, &mut seen).await {
                progress(Progress::Event(&event));
                events.push(event);
            }
            match look {
                Ok(Some(found)) if found.is_in_progress() => (failures, still) = (0, 0),
                Ok(found) => {
                    failures = 0;
                    still += 1;
                    // Right after it was begun, the stack may still look as it did before.
                    let told = events
                        .iter()
                        .any(|event| event.is_of_stack() && !event.status.ends_with("_IN_PROGRESS"));
                    if found.is_none() || told || still >= STILL {
                        return Ok(Ended { stack: found, events });
                    }
                }
                Err(err) => {
                    failures += 1;
                    if failures >= LOOKS || !err.is_passing() {
                        return Err(err);
                    }
                }
            }
            if !looks.again().await {
                return Err(Error::Operation {
                    stack: stack.to_owned(),
                    reason: format!(
                        "it did not end within {} s; it may still do so, look with 'zae-limiter status'",
                        self.waits.stack.as_secs()
                    ),
                    failed: first_failures(&events),
                });
            }
        }
    }
}

/// A name that a stack can have.
pub(crate) fn checked(name: &str) -> Result<(), InvalidInput> {
    zae_limiter_core::StackName::new(name).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(status: &str, parameters: &[(&str, &str)]) -> StackSummary {
        StackSummary {
            name: "app".into(),
            status: status.into(),
            parameters: parameters
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            ..StackSummary::default()
        }
    }

    #[test]
    fn states_that_cannot_be_changed_say_what_to_do() {
        for status in [
            "CREATE_COMPLETE",
            "UPDATE_COMPLETE",
            "UPDATE_ROLLBACK_COMPLETE",
            "UPDATE_IN_PROGRESS",
        ] {
            stack(status, &[]).usable().unwrap();
        }
        for (status, advice) in [
            ("ROLLBACK_COMPLETE", "zae-limiter delete"),
            ("ROLLBACK_FAILED", "zae-limiter delete"),
            ("CREATE_FAILED", "zae-limiter delete"),
            ("DELETE_FAILED", "zae-limiter delete"),
            ("DELETE_IN_PROGRESS", "wait"),
            ("REVIEW_IN_PROGRESS", "change set"),
            ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
            ("UPDATE_FAILED", "rollback-stack"),
        ] {
            let text = stack(status, &[]).usable().unwrap_err().to_string();
            assert!(
                text.starts_with(&format!("stack 'app' is {status}: ")) && text.contains(advice),
                "{text}"
            );
        }
    }

    #[test]
    fn which_functions_a_stack_wants() {
        let wanted = |parameters: &[(&str, &str)]| stack("", parameters).wanted_functions();
        assert_eq!(wanted(&[]), ["app-aggregator", "app-limits-provisioner"]);
        assert_eq!(
            wanted(&[("EnableAggregator", "false")]),
            ["app-limits-provisioner"]
        );
        assert_eq!(wanted(&[("EnableProvisioner", "false")]), ["app-aggregator"]);
        assert_eq!(wanted(&[("EnableIAM", "false")]), [""; 0]);
        let external = [("EnableIAM", "false"), ("AggregatorRoleArn", "arn:x")];
        assert_eq!(wanted(&external), ["app-aggregator"]);
    }

    #[test]
    fn only_a_complete_operation_is_a_success() {
        let ended = |status| Ended {
            stack: Some(stack(status, &[])),
            events: Vec::new(),
        };
        let good = ["CREATE_COMPLETE"];
        ended("CREATE_COMPLETE").expect("app", &good).unwrap();
        for bad in [
            "ROLLBACK_COMPLETE",
            "UPDATE_COMPLETE",
            "UPDATE_ROLLBACK_COMPLETE",
            "CREATE_FAILED",
        ] {
            let text = ended(bad).expect("app", &good).unwrap_err().to_string();
            assert_eq!(text, format!("Stack 'app' operation failed: it ended as {bad}"));
        }
    }
}
