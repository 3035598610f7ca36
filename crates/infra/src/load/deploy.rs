//! Creating the stack that generates load, and bringing one that exists up to date.

use super::options::{LoadOptions, check_names};
use super::push::ScenarioFile;
use crate::code::CodeLocation;
use crate::deploy::{UPDATED, sdk_tags, values};
use crate::error::Error;
use crate::options::Parameter;
use crate::package::PackageSource;
use crate::summary::StackSummary;
use crate::tags::{LOAD_TEST, MANAGED_BY, NAME, TYPE, Tags};
use crate::template::LOAD_TEMPLATE;
use crate::{Progress, StackManager, names};

/// The outputs of the target that the template or its roles need.
const OUTPUTS: [&str; 2] = ["AcquireOnlyPolicyArn", "FullAccessPolicyArn"];

/// The resource of an endpoint of DynamoDB.
const ENDPOINT: &str = "DynamoDBEndpoint";

/// What the target says of roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadTarget {
    /// The permission boundary that roles must have, as an ARN.
    pub boundary: Option<String>,
    /// The format of the roles' names.
    pub role_name_format: String,
}

/// A stack that is wanted.
#[derive(Debug, Clone)]
pub struct LoadDeployment<'a> {
    /// The stack that load is put on.
    pub target: &'a str,
    /// What it says of roles.
    pub about: &'a LoadTarget,
    /// How the stack is made.
    pub options: &'a LoadOptions,
    /// The worker's executable.
    pub package: &'a PackageSource,
    /// Scenarios for the worker.
    pub files: &'a [ScenarioFile],
    /// The bucket for the code; `None` is one of the account's own.
    pub code_bucket: Option<&'a str>,
}

/// The result of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadDeployed {
    /// The stack as it is now.
    pub stack: StackSummary,
    /// Where the worker's code lies.
    pub code: CodeLocation,
    /// Whether this created the stack.
    pub created: bool,
    /// Whether this changed it.
    pub changed: bool,
}

impl StackManager {
    /// What a target says of the roles of its load tests.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the stack, [`Error::MissingOutputs`] if it was deployed without policies.
    pub async fn load_target(&self, target: &str) -> Result<LoadTarget, Error> {
        let absent = || Error::NotFound {
            stack: target.to_owned(),
        };
        let found = self.existing(target).await?.ok_or_else(absent)?.usable()?;
        let about = target_of(&found)?;
        check_names(target, &about.role_name_format)?;
        Ok(about)
    }

    /// The endpoint of DynamoDB that a target's load stack made, if there is one.
    ///
    /// # Errors
    /// [`Error::Aws`] if CloudFormation does not answer or refuses.
    pub async fn own_endpoint(&self, target: &str) -> Result<Option<String>, Error> {
        let stack = names::load::stack(target);
        let Some(found) = self.existing(&stack).await? else {
            return Ok(None);
        };
        let resources = self.resources(&found).await?;
        let endpoint = resources
            .iter()
            .find(|resource| resource.logical_resource_id() == Some(ENDPOINT));
        Ok(endpoint
            .and_then(|endpoint| endpoint.physical_resource_id())
            .map(str::to_owned))
    }

    /// Creates the stack, or brings one that exists up to date: template, parameters and the worker's code.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] and [`Error::Package`] before anything is created; [`Error::State`] for a stack that
    /// cannot be used; [`Error::Operation`] if the operation failed or was rolled back, with what failed first.
    pub async fn deploy_load(
        &self,
        wanted: &LoadDeployment<'_>,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<LoadDeployed, Error> {
        wanted.options.check()?;
        let stack = names::load::stack(wanted.target);
        let found = match self.existing(&stack).await? {
            Some(found) => Some(self.settled(found, progress).await?),
            None => None,
        };
        let package = wanted.package.load_with(wanted.files.to_vec()).await?;
        let code = self.upload(&package, wanted.code_bucket, false, progress).await?;
        self.upload_executable(&package, &code.bucket).await?;
        let mut parameters = wanted.options.parameters(wanted.target, wanted.about);
        parameters.extend(code.parameters());
        let Some(found) = found else {
            let stack = self
                .create_load(wanted.target, &stack, &parameters, progress)
                .await?;
            return Ok(LoadDeployed {
                stack,
                code,
                created: true,
                changed: true,
            });
        };
        let updated = self
            .update_load(wanted.target, &found, &parameters, progress)
            .await?;
        let changed = updated.is_some();
        let stack = updated.unwrap_or(found);
        let function = names::load::worker(wanted.target);
        self.mend_load(&stack, &function, &package, &code).await?;
        Ok(LoadDeployed {
            stack,
            code,
            created: false,
            changed,
        })
    }

    /// A stack that no operation is under way on, and that can be changed.
    async fn settled(
        &self,
        found: StackSummary,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<StackSummary, Error> {
        let mut found = found;
        if found.is_in_progress() {
            let status = found.status.clone();
            progress(Progress::WaitingForOther { status: &status });
            let since = self.newest_event(&found.id).await;
            let ended = self.finished(&found.id, since.as_deref(), progress).await?;
            found = match ended.stack {
                Some(stack) if stack.status != "DELETE_COMPLETE" => stack,
                _ => return Err(Error::NotFound { stack: found.name }),
            };
        }
        found.usable().map_err(of_load)
    }

    async fn create_load(
        &self,
        target: &str,
        stack: &str,
        parameters: &[Parameter],
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<StackSummary, Error> {
        progress(Progress::Creating);
        let tags = tags_of(target, &Tags::new());
        let id = self.begin_create(stack, LOAD_TEMPLATE, parameters, &tags).await?;
        progress(Progress::Accepted);
        let ended = self.finished(&id, None, progress).await?;
        ended.expect(stack, &["CREATE_COMPLETE"])
    }

    /// The stack after an update; `None` if there was nothing to change.
    async fn update_load(
        &self,
        target: &str,
        found: &StackSummary,
        parameters: &[Parameter],
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Option<StackSummary>, Error> {
        let since = self.newest_event(&found.id).await;
        progress(Progress::Updating);
        let update = self.clients.stacks.update_stack().stack_name(&found.name);
        let update = update
            .template_body(LOAD_TEMPLATE)
            .set_parameters(Some(values(parameters)))
            .set_tags(Some(sdk_tags(&tags_of(target, &found.tags))));
        if !self.begin_update(update).await? {
            return Ok(None);
        }
        progress(Progress::Accepted);
        let ended = self.finished(&found.id, since.as_deref(), progress).await?;
        Ok(Some(ended.expect(&found.name, &UPDATED)?))
    }
}

/// The tags of a load stack: those it has, and those by which it is found.
fn tags_of(target: &str, current: &Tags) -> Tags {
    let kept = current.iter().filter(|(key, _)| !key.starts_with("aws:"));
    let mut tags: Tags = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    let own = [MANAGED_BY, (NAME, target), (TYPE, LOAD_TEST)];
    tags.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    tags
}

fn target_of(found: &StackSummary) -> Result<LoadTarget, Error> {
    let missing: Vec<&'static str> = OUTPUTS
        .into_iter()
        .filter(|name| !found.outputs.contains_key(*name))
        .collect();
    if !missing.is_empty() {
        return Err(Error::MissingOutputs {
            stack: found.name.clone(),
            outputs: missing,
        });
    }
    let output = |name: &str| found.outputs.get(name).filter(|value| !value.is_empty()).cloned();
    Ok(LoadTarget {
        boundary: output("PermissionBoundaryArn"),
        // Stacks of old releases export an empty one.
        role_name_format: output("RoleNameFormat").unwrap_or_else(|| "{}".to_owned()),
    })
}

/// The advice for a state, with the command for this kind of stack.
fn of_load(err: Error) -> Error {
    match err {
        Error::State { stack, status, .. }
            if matches!(
                status.as_str(),
                "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED" | "DELETE_FAILED"
            ) =>
        {
            Error::State {
                stack,
                status,
                advice: "it can only be deleted; run 'zae-limiter loadtest delete', then deploy again",
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(outputs: &[(&str, &str)]) -> StackSummary {
        StackSummary {
            name: "my-app".into(),
            outputs: outputs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..StackSummary::default()
        }
    }

    #[test]
    fn a_target_without_policies_is_refused() {
        let text = target_of(&stack(&[("AcquireOnlyPolicyArn", "a")])).unwrap_err();
        assert_eq!(
            text.to_string(),
            "stack 'my-app' has no outputs FullAccessPolicyArn"
        );
        let both = [("AcquireOnlyPolicyArn", "a"), ("FullAccessPolicyArn", "b")];
        let about = target_of(&stack(&both)).unwrap();
        assert_eq!((about.boundary, about.role_name_format.as_str()), (None, "{}"));
        let more = [("RoleNameFormat", ""), ("PermissionBoundaryArn", "arn:x")];
        let about = target_of(&stack(&[&both[..], &more].concat())).unwrap();
        assert_eq!(about.boundary.as_deref(), Some("arn:x"));
        assert_eq!(about.role_name_format, "{}");
        let more = [("RoleNameFormat", "pb-{}")];
        let about = target_of(&stack(&[&both[..], &more].concat())).unwrap();
        assert_eq!(about.role_name_format, "pb-{}");
    }

    #[test]
    fn tags_name_the_target_and_keep_those_of_the_user() {
        let current = [("team", "blue"), ("aws:x", "y"), (NAME, "else")];
        let current = current
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let expected = [
            ("ManagedBy", "zae-limiter"),
            ("team", "blue"),
            ("zae-limiter:name", "my-app"),
            ("zae-limiter:type", "load-test"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(tags_of("my-app", &current), expected.into());
    }

    #[test]
    fn advice_names_the_command_for_load_stacks() {
        let state = |status: &str| {
            let mut found = stack(&[]);
            found.status = status.into();
            found.usable().map_err(of_load).unwrap_err().to_string()
        };
        assert!(state("ROLLBACK_COMPLETE").contains("zae-limiter loadtest delete"));
        assert!(state("UPDATE_FAILED").contains("rollback-stack"));
    }
}
