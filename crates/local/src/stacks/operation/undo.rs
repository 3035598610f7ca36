//! Taking back what an operation did, and deleting.

use std::collections::BTreeSet;

use super::{Operation, Trouble, creation_order, sentence};
use crate::clock::now_ms;
use crate::stacks::record::{Before, OnFailure, Task};
use crate::stacks::resources;
use crate::template::{Bound, same};

impl Operation {
    pub(super) async fn creation_failed(&mut self, reason: &str) -> Result<(), Trouble> {
        match self.stack.on_failure {
            OnFailure::Nothing => self.ended("CREATE_FAILED", Some(reason)),
            OnFailure::Rollback => {
                let reason = format!("{}Rollback requested by user.", sentence(reason));
                self.status("ROLLBACK_IN_PROGRESS", Some(&reason))?;
                self.roll_back().await
            }
            OnFailure::Delete => {
                let reason = format!("{}Delete requested by user.", sentence(reason));
                self.status("DELETE_IN_PROGRESS", Some(&reason))?;
                self.delete(&BTreeSet::new()).await
            }
        }
    }

    pub(super) async fn roll_back(&mut self) -> Result<(), Trouble> {
        let failed = self.delete_resources(&BTreeSet::new(), true).await?;
        if failed.is_empty() {
            return self.ended("ROLLBACK_COMPLETE", None);
        }
        let reason = failed_to_delete(&failed);
        self.ended("ROLLBACK_FAILED", Some(&reason))
    }

    pub(super) async fn update_failed(&mut self, reason: &str) -> Result<(), Trouble> {
        self.status("UPDATE_ROLLBACK_IN_PROGRESS", Some(reason))?;
        self.undo_update().await
    }

    /// Makes the stack what it was before the update.
    pub(super) async fn undo_update(&mut self) -> Result<(), Trouble> {
        let Some(task) = self.stack.task.clone() else {
            return self.ended(
                "UPDATE_ROLLBACK_FAILED",
                Some("what the stack was before is not known"),
            );
        };
        let Some(before) = task.before else {
            return self.ended(
                "UPDATE_ROLLBACK_FAILED",
                Some("what the stack was before is not known"),
            );
        };
        let mut failed = Vec::new();
        let mut leftovers = Vec::new();
        for id in creation_order(&self.stack.resources).into_iter().rev() {
            let Some(now) = self.stack.resources.get(&id).cloned() else {
                continue;
            };
            match before.resources.get(&id) {
                // It was made by the update, or in the place of another: it goes once the rest is restored.
                None => {
                    let mut now = now;
                    now.retain_replaced = now.retain_new;
                    leftovers.push((id.clone(), now));
                    self.stack.resources.remove(&id);
                }
                Some(old) if old.physical != now.physical => {
                    leftovers.push((id.clone(), now));
                    self.keep(&id, old.clone());
                    self.stacks.save(&self.stack)?;
                    self.tell(&id, old, "UPDATE_COMPLETE", None)?;
                }
                Some(old) if !same(&old.properties, &now.properties) => {
                    self.resource(&id, "UPDATE_IN_PROGRESS", None)?;
                    let place = self.place(&id);
                    let restored =
                        resources::update(&old.kind, &place, &now.physical, &now.properties, &old.properties);
                    match restored.await {
                        Ok(_) => {
                            self.keep(&id, old.clone());
                            self.resource(&id, "UPDATE_COMPLETE", None)?;
                        }
                        Err(reason) => {
                            self.resource(&id, "UPDATE_FAILED", Some(&reason))?;
                            failed.push(id.clone());
                        }
                    }
                }
                Some(old) => self.keep(&id, old.clone()),
            }
        }
        // What the update had taken out of the stack was not deleted yet.
        for (id, old) in &before.resources {
            self.stack
                .resources
                .entry(id.clone())
                .or_insert_with(|| old.clone());
        }
        if !failed.is_empty() {
            let reason = format!(
                "The following resource(s) failed to update: [{}].",
                failed.join(", ")
            );
            return self.ended("UPDATE_ROLLBACK_FAILED", Some(&reason));
        }
        let Before {
            wanted,
            outputs,
            change_set,
            ..
        } = before;
        self.stack.wanted = wanted;
        self.stack.outputs = outputs;
        self.stack.change_set = change_set;
        self.stack.task = Some(Task {
            replaced: leftovers,
            before: None,
            token: task.token,
        });
        self.status("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS", None)?;
        self.clean_up("UPDATE_ROLLBACK_COMPLETE").await
    }

    /// Resources that the new template does not have are deleted, together with replaced ones.
    pub(super) fn forget_leftovers(&mut self, bound: &Bound) -> Result<(), Trouble> {
        let order = creation_order(&self.stack.resources);
        let gone = order.into_iter().rev().filter(|id| !bound.exists(id));
        let gone: Vec<String> = gone.collect();
        let mut replaced = Vec::new();
        for id in gone {
            if let Some(mut resource) = self.stack.resources.remove(&id) {
                resource.retain_replaced = resource.retain;
                replaced.push((id, resource));
            }
        }
        if let Some(task) = &mut self.stack.task {
            task.replaced.extend(replaced);
            // From here on the update is not undone.
            task.before = None;
        }
        Ok(self.stacks.save(&self.stack)?)
    }

    /// Deletes what an update, or its undoing, left over. What cannot be deleted is left where it is, as AWS does.
    pub(super) async fn clean_up(&mut self, then: &str) -> Result<(), Trouble> {
        let leftovers = self.stack.task.as_ref().map(|task| task.replaced.clone());
        for (id, resource) in leftovers.unwrap_or_default() {
            if resource.retain_replaced {
                self.tell(&id, &resource, "DELETE_SKIPPED", None)?;
                continue;
            }
            self.tell(&id, &resource, "DELETE_IN_PROGRESS", None)?;
            let place = self.place(&id);
            let deleted =
                resources::delete(&resource.kind, &place, &resource.physical, &resource.properties).await;
            match deleted {
                Ok(()) => self.tell(&id, &resource, "DELETE_COMPLETE", None)?,
                Err(reason) => self.tell(&id, &resource, "DELETE_FAILED", Some(&reason))?,
            }
            if let Some(task) = &mut self.stack.task {
                task.replaced.retain(|(_, left)| *left != resource);
            }
            self.stacks.save(&self.stack)?;
        }
        self.ended(then, None)
    }

    pub(super) async fn delete(&mut self, retained: &BTreeSet<String>) -> Result<(), Trouble> {
        let failed = self.delete_resources(retained, false).await?;
        if !failed.is_empty() {
            let reason = failed_to_delete(&failed);
            return self.ended("DELETE_FAILED", Some(&reason));
        }
        self.stack.deleted = Some(now_ms());
        self.stack.outputs.clear();
        self.ended("DELETE_COMPLETE", None)?;
        if let Err(err) = self.stacks.forget(now_ms()) {
            tracing::warn!(error = %err, "stacks that were deleted long ago could not be forgotten");
        }
        Ok(())
    }

    /// Deletes all resources, last made first; continues where one cannot be. `all`: also those that outlive the stack and
    /// not the failure of its creation. Returns the ids of those that are still there.
    async fn delete_resources(
        &mut self,
        retained: &BTreeSet<String>,
        all: bool,
    ) -> Result<Vec<String>, Trouble> {
        let mut failed = Vec::new();
        for id in creation_order(&self.stack.resources).into_iter().rev() {
            let Some(resource) = self.stack.resources.get(&id).cloned() else {
                continue;
            };
            let outlives = if all {
                resource.retain_new && resource.status == "CREATE_COMPLETE"
            } else {
                resource.retain
            };
            if retained.contains(&id) || outlives {
                self.stack.resources.remove(&id);
                self.stacks.save(&self.stack)?;
                self.tell(&id, &resource, "DELETE_SKIPPED", None)?;
                continue;
            }
            // Whatever was made from it would be left hanging.
            let needed = self.stack.resources.iter();
            let needed = needed.filter(|(other, _)| failed.contains(*other));
            if needed.into_iter().any(|(_, other)| other.after.contains(&id)) {
                failed.push(id);
                continue;
            }
            self.resource(&id, "DELETE_IN_PROGRESS", None)?;
            let place = self.place(&id);
            let deleted = if resources::never_was(&place, &resource) {
                Ok(())
            } else {
                resources::delete(&resource.kind, &place, &resource.physical, &resource.properties).await
            };
            match deleted {
                Ok(()) => {
                    self.stack.resources.remove(&id);
                    self.stacks.save(&self.stack)?;
                    self.tell(&id, &resource, "DELETE_COMPLETE", None)?;
                }
                Err(reason) => {
                    self.resource(&id, "DELETE_FAILED", Some(&reason))?;
                    failed.push(id);
                }
            }
        }
        Ok(failed)
    }
}

fn failed_to_delete(ids: &[String]) -> String {
    format!(
        "The following resource(s) failed to delete: [{}]. ",
        ids.join(", ")
    )
}
