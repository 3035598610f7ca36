//! Making a stack what its template says.

use std::collections::BTreeMap;

use super::{Operation, Trouble};
use crate::stacks::record::{Output, Resource, stack_name};
use crate::stacks::resources::{self, NotMade};
use crate::stacks::templates::importers;
use crate::template::{Bound, Policy, same};

impl Operation {
    /// Creates what is missing and changes what is otherwise, in the order of dependencies; then the outputs.
    pub(super) async fn build(&mut self, bound: &Bound) -> Result<(), Trouble> {
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
                retain_new: declared.deletion_policy() == Policy::Retain,
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
            if let Some(importer) = importers(&self.stacks, &name)?.first() {
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
    pub(super) async fn make_named(&mut self, id: &str, wanted: Resource) -> Result<(), Trouble> {
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
                resource.retain_new = wanted.retain_new;
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
    pub(super) async fn replace_by(
        &mut self,
        id: &str,
        existing: Resource,
        wanted: Resource,
    ) -> Result<(), Trouble> {
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
}

fn failed_to_create(id: &str) -> Trouble {
    Trouble::Failed(format!("The following resource(s) failed to create: [{id}]. "))
}

fn failed_to_update(id: &str) -> Trouble {
    Trouble::Failed(format!("The following resource(s) failed to update: [{id}]. "))
}
