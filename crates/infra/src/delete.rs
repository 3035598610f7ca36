//! Deleting a stack.

use aws_sdk_cloudformation::types::StackResource;
use serde_json::{Value as Json, json};

use crate::call::Service;
use crate::error::{Error, failed};
use crate::summary::StackSummary;
use crate::{Progress, StackManager};

/// The result of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// There was no such stack.
    Absent,
    /// It is gone.
    Gone,
    /// It was begun.
    Begun,
}

impl StackManager {
    /// Deletes a stack with all its resources, including the table and its data. A stack that does not exist is not an
    /// error.
    ///
    /// # Errors
    /// [`Error::Protected`] before anything is deleted, if the table is protected from deletion or a bucket has content;
    /// [`Error::Operation`] if a resource cannot be deleted, which says which, why, and what to do.
    pub async fn delete(
        &self,
        stack: &str,
        wait: bool,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Deleted, Error> {
        let Some(found) = self.existing(stack).await? else {
            return Ok(Deleted::Absent);
        };
        let obstacles = self.obstacles(&found).await;
        if !obstacles.is_empty() {
            return Err(Error::Protected {
                stack: found.name,
                obstacles,
            });
        }
        let since = self.newest_event(&found.id).await;
        progress(Progress::Deleting);
        // By its ARN: should another of this name be created meanwhile, it is not meant.
        let call = self.clients.stacks.delete_stack().stack_name(&found.id);
        match call.send().await.map_err(failed("DeleteStack")) {
            Ok(_) => {}
            Err(err) if err.is_code("ValidationError") && err.to_string().contains("does not exist") => {
                return Ok(Deleted::Absent);
            }
            Err(err) => return Err(err),
        }
        if !wait {
            return Ok(Deleted::Begun);
        }
        let ended = self.finished(&found.id, since.as_deref(), progress).await?;
        match &ended.stack {
            None => Ok(Deleted::Gone),
            Some(left) if left.status == "DELETE_COMPLETE" => Ok(Deleted::Gone),
            Some(_) => match ended.expect(stack, &[]) {
                Ok(_) => Ok(Deleted::Gone),
                Err(err) => Err(err),
            },
        }
    }

    /// The resources that CloudFormation could not delete, and why. It would delete all others before it finds that out.
    /// What the caller may not look at is left to CloudFormation.
    async fn obstacles(&self, found: &StackSummary) -> Vec<String> {
        let mut obstacles = Vec::new();
        for resource in self.resources(found).await.unwrap_or_default() {
            let Some(name) = resource.physical_resource_id().filter(|_| exists(&resource)) else {
                continue;
            };
            let why = match resource.resource_type() {
                Some("AWS::DynamoDB::Table") if self.is_protected(name).await => format!(
                    "the table is protected from deletion; switch that off with 'zae-limiter deploy -n {} \
                     --no-deletion-protection'",
                    found.name
                ),
                Some("AWS::S3::Bucket") if self.has_content(name).await => format!(
                    "the bucket holds archived audit events; save those that you need, then empty it with 'aws s3 rm \
                     s3://{name} --recursive'"
                ),
                _ => continue,
            };
            let kind = resource.logical_resource_id().unwrap_or_default();
            obstacles.push(format!("{kind} ({name}): {why}"));
        }
        obstacles
    }

    async fn is_protected(&self, table: &str) -> bool {
        let Ok(region) = self.region() else {
            return false;
        };
        let body = json!({ "TableName": table }).to_string();
        let asked = self
            .caller
            .call(Service::DynamoDb, region, "DescribeTable", body)
            .await;
        let described: Json = asked
            .ok()
            .and_then(|body| serde_json::from_str(&body).ok())
            .unwrap_or_default();
        described["Table"]["DeletionProtectionEnabled"] == true
    }

    async fn has_content(&self, bucket: &str) -> bool {
        let list = self.clients.buckets.list_objects_v2().bucket(bucket).max_keys(1);
        let listed = list.send().await;
        listed.is_ok_and(|listed| !listed.contents().is_empty())
    }
}

/// Whether a resource was created and not deleted.
fn exists(resource: &StackResource) -> bool {
    resource
        .resource_status()
        .is_none_or(|status| status.as_str() != "DELETE_COMPLETE")
}
