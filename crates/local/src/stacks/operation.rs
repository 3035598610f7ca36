//! What is done to a stack: each step is written down before it is taken and after, so that an operation that was cut
//! off is undone, or finished, at the next start.

mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use super::record::{Output, Resource, STACK, Stack};
use super::resources::{self, NotMade, Place};
use super::{Stacks, event};
use crate::clock::now_ms;
use crate::store::StoreError;
use crate::template::{Bound, Policy, TemplateError, same};

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

    fn place<'a>(&'a self, logical: &'a str) -> Place<'a> {
        Place {
            stacks: &self.stacks,
            services: &self.stacks.services,
            stack: &self.stack.name,
            stack_id: &self.stack.id,
            region: &self.stack.region,
            logical,
        }
    }

    // Making the stack what its template says.

    /// Creates what is missing and changes what is otherwise, in the order of dependencies; then the outputs.
    async fn build(&mut self, bound: &Bound) -> Result<(), Trouble> {
        for id in bound.order().iter().flatten() {
            let Some(declared) = bound.template().resources().get(id) else {
                continue;
            };
            let properties = bound.properties(id, &self.stacks.known(&self.stack)?)?;
            let wanted = Resource {
                kind: declared.resource_type().to_owned(),
                properties,
                after: bound.dependencies(id).into_iter().collect(),
                retain: declared.deletion_policy() != Policy::Delete,
                retain_replaced: declared.update_replace_policy() != Policy::Delete,
                ..Resource::default()
            };
            match self.stack.resources.get(id).cloned() {
                None => self.make(id, wanted).await?,
                Some(existing) => self.change(id, existing, wanted).await?,
            }
        }
        let outputs = bound.outputs(&self.stacks.known(&self.stack)?)?;
        let taken: BTreeMap<String, String> = self
            .stacks
            .exports()?
            .into_iter()
            .filter(|(_, stack, _)| *stack != self.stack.id)
            .map(|(name, stack, _)| (name, stack))
            .collect();
        let outputs: Vec<Output> = outputs
            .into_iter()
            .map(|output| Output {
                key: output.name,
                value: output.value,
                description: output.description,
                export: output.export_name,
            })
            .collect();
        for export in outputs.iter().filter_map(|output| output.export.as_ref()) {
            if let Some(stack) = taken.get(export) {
                return Err(Trouble::Failed(format!(
                    "Export with name {export} is already exported by stack {}",
                    stack_name(stack)
                )));
            }
        }
        self.check_imports(&outputs)?;
        self.stack.outputs = outputs;
        Ok(())
    }

    /// Refuses to take away or change exports that other stacks import.
    fn check_imports(&self, outputs: &[Output]) -> Result<(), Trouble> {
        let value_of = |outputs: &[Output], name: &str| {
            let found = outputs
                .iter()
                .find(|output| output.export.as_deref() == Some(name));
            found.map(|output| output.value.clone())
        };
        for name in self
            .stack
            .outputs
            .iter()
            .filter_map(|output| output.export.clone())
        {
            let (old, new) = (value_of(&self.stack.outputs, &name), value_of(outputs, &name));
            if old == new {
                continue;
            }
            if let Some(importer) = super::start::importers(&self.stacks, &name)?.first() {
                let what = if new.is_some() { "update" } else { "delete" };
                return Err(Trouble::Failed(format!(
                    "Cannot {what} export {name} as it is in use by {importer}"
                )));
            }
        }
        Ok(())
    }

    async fn make(&mut self, id: &str, mut wanted: Resource) -> Result<(), Trouble> {
        let place = self.place(id);
        let named = resources::name(&wanted.kind, &place, &wanted.properties);
        let physical = match named {
            Ok(physical) if resources::exists(&wanted.kind, &place, &physical).await => {
                Err(format!("{physical} already exists"))
            }
            named => named,
        };
        let (physical, refused) = match physical {
            Ok(physical) => (physical, None),
            Err(reason) => (String::new(), Some(reason)),
        };
        wanted.physical = physical;
        if let Some(reason) = refused {
            // It never became the stack's, so nothing of it is kept.
            self.tell(id, &wanted, "CREATE_FAILED", Some(&reason))?;
            return Err(failed_to_create(id));
        }
        self.make_named(id, wanted).await
    }

    /// Makes a resource whose name was free a moment ago.
    async fn make_named(&mut self, id: &str, wanted: Resource) -> Result<(), Trouble> {
        self.stack.resources.insert(id.to_owned(), wanted.clone());
        self.resource(id, "CREATE_IN_PROGRESS", None)?;
        let made = resources::create(
            &wanted.kind,
            &self.place(id),
            &wanted.physical,
            &wanted.properties,
        )
        .await;
        match made {
            Ok(made) => {
                if let Some(resource) = self.stack.resources.get_mut(id) {
                    resource.physical = made.physical;
                    resource.attributes = made.attributes;
                }
                self.resource(id, "CREATE_IN_PROGRESS", Some("Resource creation Initiated"))?;
                self.resource(id, "CREATE_COMPLETE", None)
            }
            Err(NotMade::Taken(reason)) => {
                // Another client was faster: the resource is not ours, and a rollback does not delete it.
                self.stack.resources.remove(id);
                self.stacks.save(&self.stack)?;
                self.tell(id, &wanted, "CREATE_FAILED", Some(&reason))?;
                Err(failed_to_create(id))
            }
            Err(NotMade::Failed { reason, physical }) => {
                self.left_as(id, physical);
                self.resource(id, "CREATE_FAILED", Some(&reason))?;
                Err(failed_to_create(id))
            }
        }
    }

    /// What there is of a resource that failed has another physical id than was foreseen.
    fn left_as(&mut self, id: &str, physical: Option<String>) {
        if let Some((resource, physical)) = self.stack.resources.get_mut(id).zip(physical) {
            resource.physical = physical;
        }
    }

    async fn change(&mut self, id: &str, existing: Resource, wanted: Resource) -> Result<(), Trouble> {
        if existing.kind != wanted.kind {
            self.tell(
                id,
                &existing,
                "UPDATE_FAILED",
                Some(&format!(
                    "Update of resource type is not permitted. {id} is {}",
                    existing.kind
                )),
            )?;
            return Err(failed_to_update(id));
        }
        if same(&existing.properties, &wanted.properties) {
            // Policies and dependencies are the stack's own affair.
            if let Some(resource) = self.stack.resources.get_mut(id) {
                resource.after = wanted.after;
                resource.retain = wanted.retain;
                resource.retain_replaced = wanted.retain_replaced;
            }
            return Ok(());
        }
        if resources::must_replace(&wanted.kind, &existing.properties, &wanted.properties) {
            return self.replace(id, existing, wanted).await;
        }
        if let Err(reason) = resources::name(&wanted.kind, &self.place(id), &wanted.properties) {
            // Nothing has happened to it, so there is nothing to undo either.
            self.tell(id, &existing, "UPDATE_FAILED", Some(&reason))?;
            return Err(failed_to_update(id));
        }
        let before = existing.properties.clone();
        self.keep(
            id,
            Resource {
                physical: existing.physical.clone(),
                attributes: existing.attributes,
                ..wanted.clone()
            },
        );
        self.resource(id, "UPDATE_IN_PROGRESS", None)?;
        let place = self.place(id);
        let made = resources::update(
            &wanted.kind,
            &place,
            &existing.physical,
            &before,
            &wanted.properties,
        )
        .await;
        match made {
            Ok(made) => {
                // A custom resource that answers with another id is another resource.
                let replaced = made.physical != existing.physical;
                if replaced && let Some(task) = &mut self.stack.task {
                    let old = Resource {
                        properties: before,
                        retain_replaced: wanted.retain_replaced,
                        physical: existing.physical,
                        kind: existing.kind,
                        ..Resource::default()
                    };
                    task.replaced.push((id.to_owned(), old));
                }
                if let Some(resource) = self.stack.resources.get_mut(id) {
                    resource.physical = made.physical;
                    resource.attributes = made.attributes;
                }
                self.resource(id, "UPDATE_COMPLETE", None)
            }
            Err(reason) => {
                self.resource(id, "UPDATE_FAILED", Some(&reason))?;
                Err(failed_to_update(id))
            }
        }
    }

    /// Makes another in its place; the old one goes when the update has succeeded.
    async fn replace(&mut self, id: &str, existing: Resource, mut wanted: Resource) -> Result<(), Trouble> {
        let place = self.place(id);
        let physical = match resources::name(&wanted.kind, &place, &wanted.properties) {
            Ok(physical) if physical == existing.physical => Err(format!(
                "CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename \
                 {physical} and update the stack again."
            )),
            Ok(physical) if resources::exists(&wanted.kind, &place, &physical).await => {
                Err(format!("{physical} already exists"))
            }
            named => named,
        };
        wanted.physical = match physical {
            Ok(physical) => physical,
            Err(reason) => {
                self.tell(id, &existing, "UPDATE_FAILED", Some(&reason))?;
                return Err(failed_to_update(id));
            }
        };
        self.replace_by(id, existing, wanted).await
    }

    /// Makes one whose name was free a moment ago in the place of another.
    async fn replace_by(&mut self, id: &str, existing: Resource, wanted: Resource) -> Result<(), Trouble> {
        const WHY: &str =
            "Requested update requires the creation of a new physical resource; hence creating one.";
        if let Some(task) = &mut self.stack.task {
            let old = Resource {
                retain_replaced: wanted.retain_replaced,
                ..existing.clone()
            };
            task.replaced.push((id.to_owned(), old));
        }
        self.keep(id, wanted);
        self.resource(id, "UPDATE_IN_PROGRESS", Some(WHY))?;
        let Some(resource) = self.stack.resources.get(id).cloned() else {
            return Ok(());
        };
        let place = self.place(id);
        match resources::create(&resource.kind, &place, &resource.physical, &resource.properties).await {
            Ok(made) => {
                if let Some(resource) = self.stack.resources.get_mut(id) {
                    resource.physical = made.physical;
                    resource.attributes = made.attributes;
                }
                self.resource(id, "UPDATE_COMPLETE", None)
            }
            Err(NotMade::Taken(reason)) => {
                // Another client was faster: the new resource is not ours, and the stack keeps its old one.
                if let Some(task) = &mut self.stack.task {
                    task.replaced.pop();
                }
                self.keep(id, existing);
                self.stacks.save(&self.stack)?;
                self.tell(id, &resource, "UPDATE_FAILED", Some(&reason))?;
                Err(failed_to_update(id))
            }
            Err(NotMade::Failed { reason, physical }) => {
                self.left_as(id, physical);
                self.resource(id, "UPDATE_FAILED", Some(&reason))?;
                Err(failed_to_update(id))
            }
        }
    }

    fn keep(&mut self, id: &str, resource: Resource) {
        self.stack.resources.insert(id.to_owned(), resource);
    }
}

fn failed_to_create(id: &str) -> Trouble {
    Trouble::Failed(format!("The following resource(s) failed to create: [{id}]. "))
}

fn failed_to_update(id: &str) -> Trouble {
    Trouble::Failed(format!("The following resource(s) failed to update: [{id}]. "))
}

/// A reason as a sentence that another may follow.
fn sentence(reason: &str) -> String {
    let reason = reason.trim_end();
    let end = if reason.ends_with('.') { " " } else { ". " };
    format!("{reason}{end}")
}

/// The name in a stack's ARN.
pub(super) fn stack_name(id: &str) -> &str {
    id.split('/').nth(1).unwrap_or(id)
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

/// The values of `Fn::GetAtt`, from pairs.
pub(super) fn attributes<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, Json> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Json::String(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stacks::record::{Before, Task, Wanted};

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

    #[test]
    fn the_name_is_in_the_arn() {
        assert_eq!(
            stack_name("arn:aws:cloudformation:us-east-1:000000000000:stack/my-app/1234"),
            "my-app"
        );
    }
}
