//! What is done to a stack: each step is written down before it is taken and after, so that an operation that was cut
//! off is undone, or finished, at the next start.

mod build;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::record::{Resource, STACK, Stack};
use super::resources::Place;
use super::{Stacks, event};
use crate::clock::now_ms;
use crate::store::StoreError;
use crate::template::{Bound, TemplateError};

/// Why an operation is undone that was under way when the endpoint stopped.
const CUT_OFF: &str = "The local endpoint was stopped, or could not write, while the operation was under way";

/// How long to wait after records could not be written, at first. It doubles.
const AGAIN: Duration = Duration::from_secs(1);

/// The longest that is waited.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why a step was not taken.
#[derive(Debug)]
enum Trouble {
    /// It failed; what was done so far is undone.
    Failed(String),
    /// The records cannot be written: nothing more is done until they can.
    Records(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(err: StoreError) -> Self {
        Self::Records(err)
    }
}

impl From<TemplateError> for Trouble {
    fn from(err: TemplateError) -> Self {
        Self::Failed(err.to_string())
    }
}

/// The kind of work in an operation.
#[derive(Debug)]
pub(super) enum Work {
    /// Create the resources of a stack that is `CREATE_IN_PROGRESS`.
    Create(Box<Bound>),
    /// Change a stack that is `UPDATE_IN_PROGRESS`, whose task says what it was before.
    Update(Box<Bound>),
    /// Delete a stack that is `DELETE_IN_PROGRESS`, except for the resources named.
    Delete(BTreeSet<String>),
    /// Take up what was cut off: deletions are finished, everything else is undone.
    Resume,
}

/// Begins to work on a stack.
pub(super) fn begin(stacks: &Arc<Stacks>, stack: Stack, mut work: Work) {
    let mut operation = Operation {
        stacks: Arc::clone(stacks),
        stack,
    };
    let at_work = stacks.at_work();
    tokio::spawn(async move {
        let mut pause = AGAIN;
        loop {
            let error = match operation.work(work).await {
                Ok(()) => break,
                Err(Trouble::Failed(reason)) => reason,
                Err(Trouble::Records(err)) => err.to_string(),
            };
            tracing::error!(stack = operation.stack.name, error, "an operation was cut off");
            // Such as a full disk: it is undone as soon as that can be written down.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            work = Work::Resume;
        }
        drop(at_work);
    });
}

/// An operation on a stack.
struct Operation {
    stacks: Arc<Stacks>,
    stack: Stack,
}

impl Operation {
    async fn work(&mut self, work: Work) -> Result<(), Trouble> {
        match work {
            Work::Create(bound) => match self.build(&bound).await {
                Ok(()) => self.ended("CREATE_COMPLETE", None),
                Err(Trouble::Failed(reason)) => self.creation_failed(&reason).await,
                Err(err) => Err(err),
            },
            Work::Update(bound) => match self.build(&bound).await {
                Ok(()) => {
                    self.forget_leftovers(&bound)?;
                    self.status("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", None)?;
                    self.clean_up("UPDATE_COMPLETE").await
                }
                Err(Trouble::Failed(reason)) => self.update_failed(&reason).await,
                Err(err) => Err(err),
            },
            Work::Delete(retained) => self.delete(&retained).await,
            Work::Resume => match self.stack.status.as_str() {
                "CREATE_IN_PROGRESS" => self.creation_failed(CUT_OFF).await,
                "ROLLBACK_IN_PROGRESS" => self.roll_back().await,
                "UPDATE_IN_PROGRESS" => self.update_failed(CUT_OFF).await,
                "UPDATE_ROLLBACK_IN_PROGRESS" => self.undo_update().await,
                "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS" => self.clean_up("UPDATE_COMPLETE").await,
                "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS" => {
                    self.clean_up("UPDATE_ROLLBACK_COMPLETE").await
                }
                "DELETE_IN_PROGRESS" => self.delete(&BTreeSet::new()).await,
                // It is over, which was not written down.
                _ => Ok(self.stacks.save(&self.stack)?),
            },
        }
    }

    // What is written down.

    /// The stack has another status.
    fn status(&mut self, status: &str, reason: Option<&str>) -> Result<(), Trouble> {
        self.stack.status = status.into();
        self.stack.reason = reason.map(str::to_owned);
        self.stacks.save(&self.stack)?;
        let (name, id) = (&self.stack.name, &self.stack.id);
        tracing::info!(stack = name, status, reason, "stack");
        let event = event(&self.stack, name, id, STACK, status, reason);
        Ok(self.stacks.record(&event)?)
    }

    /// The operation is over.
    fn ended(&mut self, status: &str, reason: Option<&str>) -> Result<(), Trouble> {
        // The event comes first, with the caller's token, and the stack is free once its status says so.
        let event = event(
            &self.stack,
            &self.stack.name,
            &self.stack.id,
            STACK,
            status,
            reason,
        );
        self.stacks.record(&event)?;
        tracing::info!(stack = self.stack.name, status, reason, "stack");
        self.stack.status = status.into();
        self.stack.reason = reason.map(str::to_owned);
        self.stack.task = None;
        Ok(self.stacks.save(&self.stack)?)
    }

    /// A resource has another status.
    fn resource(&mut self, id: &str, status: &str, reason: Option<&str>) -> Result<(), Trouble> {
        let Some(resource) = self.stack.resources.get_mut(id) else {
            return Ok(());
        };
        resource.status = status.into();
        resource.reason = reason.map(str::to_owned);
        resource.at = now_ms();
        let resource = resource.clone();
        self.stacks.save(&self.stack)?;
        self.tell(id, &resource, status, reason)
    }

    /// Something happened to a resource, also to one that the stack no longer has.
    fn tell(&self, id: &str, resource: &Resource, status: &str, reason: Option<&str>) -> Result<(), Trouble> {
        let mut event = event(
            &self.stack,
            id,
            &resource.physical,
            &resource.kind,
            status,
            reason,
        );
        event.properties = Some(resource.properties.to_string());
        if status.ends_with("_FAILED") {
            tracing::warn!(stack = self.stack.name, resource = id, status, reason, "resource");
        } else {
            tracing::debug!(stack = self.stack.name, resource = id, status, reason, "resource");
        }
        Ok(self.stacks.record(&event)?)
    }

    /// The stack has this resource.
    fn keep(&mut self, id: &str, resource: Resource) {
        self.stack.resources.insert(id.to_owned(), resource);
    }

    fn place<'a>(&'a self, logical: &'a str) -> Place<'a> {
        Place {
            stacks: &self.stacks,
            services: &self.stacks.services,
            stack: &self.stack.name,
            stack_id: &self.stack.id,
            region: &self.stack.region,
            logical,
            tags: &self.stack.wanted.tags,
        }
    }
}

/// A reason as a sentence that another may follow.
fn sentence(reason: &str) -> String {
    let reason = reason.trim_end();
    let end = if reason.ends_with('.') { " " } else { ". " };
    format!("{reason}{end}")
}

/// The resources in an order in which they could have been made.
fn creation_order(resources: &BTreeMap<String, Resource>) -> Vec<String> {
    let mut order: Vec<String> = Vec::with_capacity(resources.len());
    let mut placed = BTreeSet::new();
    while order.len() < resources.len() {
        let before = order.len();
        for (id, resource) in resources {
            let ready = |other: &String| placed.contains(other) || !resources.contains_key(other);
            if !placed.contains(id) && resource.after.iter().all(ready) {
                placed.insert(id.clone());
                order.push(id.clone());
            }
        }
        if order.len() == before {
            // Records of an older template may go in circles together with those of a newer one.
            order.extend(resources.keys().filter(|id| !placed.contains(*id)).cloned());
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stacks::record::{Before, Task, Wanted};
    use crate::stacks::resources;

    /// An operation on a stack that has nothing yet.
    fn operation(files: &tempfile::TempDir, status: &str) -> Operation {
        let stack = Stack {
            id: "arn:aws:cloudformation:eu-west-1:000000000000:stack/app/1".to_owned(),
            name: "app".to_owned(),
            region: "eu-west-1".to_owned(),
            status: status.to_owned(),
            ..Stack::default()
        };
        Operation {
            stacks: Stacks::of_test(files),
            stack,
        }
    }

    /// A resource of each type that others may make, too, by the name `theirs`.
    fn theirs() -> [Resource; 6] {
        let table = json!({
            "TableName": "theirs", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}],
        });
        let function = json!({
            "FunctionName": "theirs", "Runtime": "python3.12", "Handler": "index.f", "Role": "r",
            "Code": {"ZipFile": "pass"},
        });
        [
            ("AWS::DynamoDB::Table", table),
            ("AWS::Lambda::Function", function),
            ("AWS::Logs::LogGroup", json!({"LogGroupName": "theirs"})),
            ("AWS::S3::Bucket", json!({"BucketName": "theirs"})),
            ("AWS::SQS::Queue", json!({"QueueName": "theirs"})),
            ("AWS::CloudWatch::Alarm", json!({"AlarmName": "theirs"})),
        ]
        .map(|(kind, properties)| Resource {
            kind: kind.to_owned(),
            physical: "theirs".to_owned(),
            properties,
            ..Resource::default()
        })
    }

    async fn make_theirs(operation: &Operation, theirs: &Resource) {
        let place = operation.place("Theirs");
        resources::create(&theirs.kind, &place, &theirs.physical, &theirs.properties)
            .await
            .unwrap();
    }

    async fn is_there(operation: &Operation, theirs: &Resource) -> bool {
        resources::exists(&theirs.kind, &operation.place("Theirs"), &theirs.physical).await
    }

    #[tokio::test]
    async fn what_somebody_else_made_meanwhile_is_not_rolled_back() {
        let files = tempfile::tempdir().unwrap();
        let mut operation = operation(&files, "CREATE_IN_PROGRESS");
        for theirs in theirs() {
            make_theirs(&operation, &theirs).await;
            let made = operation.make_named("Mine", theirs.clone()).await;
            assert!(matches!(made, Err(Trouble::Failed(_))), "{made:?}");
            assert!(operation.stack.resources.is_empty());
            operation.creation_failed("taken").await.unwrap();
            assert_eq!(operation.stack.status, "ROLLBACK_COMPLETE");
            assert!(is_there(&operation, &theirs).await, "{} is gone", theirs.kind);
        }
    }

    #[tokio::test]
    async fn nor_is_it_when_it_was_to_replace_something() {
        let files = tempfile::tempdir().unwrap();
        let mut operation = operation(&files, "UPDATE_IN_PROGRESS");
        for theirs in theirs() {
            make_theirs(&operation, &theirs).await;
            let mine = Resource {
                physical: "mine".to_owned(),
                ..theirs.clone()
            };
            let before = BTreeMap::from([("Mine".to_owned(), mine.clone())]);
            operation.stack.resources.clone_from(&before);
            operation.stack.task = Some(Task {
                token: None,
                before: Some(Before {
                    wanted: Wanted::default(),
                    resources: before.clone(),
                    outputs: Vec::new(),
                    change_set: None,
                }),
                replaced: Vec::new(),
            });
            let made = operation.replace_by("Mine", mine, theirs.clone()).await;
            assert!(matches!(made, Err(Trouble::Failed(_))), "{made:?}");
            operation.update_failed("taken").await.unwrap();
            assert_eq!(operation.stack.status, "UPDATE_ROLLBACK_COMPLETE");
            assert_eq!(operation.stack.resources, before);
            assert!(is_there(&operation, &theirs).await, "{} is gone", theirs.kind);
        }
    }

    fn after(others: &[&str]) -> Resource {
        Resource {
            after: others.iter().map(|other| (*other).to_owned()).collect(),
            ..Resource::default()
        }
    }

    #[test]
    fn what_others_need_is_made_first() {
        let resources = BTreeMap::from([
            ("A".to_owned(), after(&["C"])),
            ("B".to_owned(), after(&[])),
            ("C".to_owned(), after(&["B", "Gone"])),
        ]);
        assert_eq!(creation_order(&resources), ["B", "C", "A"]);
        let circle = BTreeMap::from([("A".to_owned(), after(&["B"])), ("B".to_owned(), after(&["A"]))]);
        assert_eq!(creation_order(&circle).len(), 2);
    }

    #[test]
    fn reasons_do_not_run_together() {
        assert_eq!(sentence("failed to create: [A]. "), "failed to create: [A]. ");
        assert_eq!(sentence("in use by other"), "in use by other. ");
        assert!(sentence(CUT_OFF).ends_with("was under way. "));
    }
}
