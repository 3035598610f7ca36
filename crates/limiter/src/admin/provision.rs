//! Deploying the stack when a repository is opened and there is none, and deleting it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aws_types::SdkConfig;
use zae_limiter_infra::{Deployment, PackageSource, StackManager, StackOptions, Waits};

use crate::admin::stack::{Stack, UPDATED_BY};
use crate::error::Error;
use crate::repository::Repository;

/// Names the file that the functions run, where no option does.
const PACKAGE: &str = "ZAE_LIMITER_LAMBDA_PACKAGE";

/// The command, which is the functions' executable too.
const PROGRAM: &str = "zae-limiter";

/// The settings for the deployment of a missing stack.
#[derive(Debug, Clone)]
pub(crate) struct Provision {
    pub(crate) enabled: bool,
    pub(crate) options: StackOptions,
    pub(crate) package: Option<PathBuf>,
    /// Whether the executable is searched for, if it is not named.
    pub(crate) searches_path: bool,
    pub(crate) code_bucket: Option<String>,
}

impl Default for Provision {
    fn default() -> Self {
        Self {
            enabled: true,
            options: StackOptions::default(),
            package: None,
            searches_path: false,
            code_bucket: None,
        }
    }
}

impl Provision {
    /// The file that the functions are to run, if one can be found.
    fn package(&self) -> Option<PathBuf> {
        self.package
            .clone()
            .or_else(|| {
                std::env::var_os(PACKAGE)
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from)
            })
            .or_else(|| {
                let path = std::env::var_os("PATH").filter(|_| self.searches_path)?;
                // The Python library's command has the same name.
                std::env::split_paths(&path)
                    .map(|directory| directory.join(PROGRAM))
                    .find(|file| PackageSource::File(file.clone()).inspect().is_ok())
            })
    }
}

/// The manager of the stacks in the account and region, or on the server, of a configuration.
pub fn stack_manager(config: &SdkConfig) -> StackManager {
    let local =
        crate::table::config::endpoint(config).is_some_and(|url| crate::table::config::is_local(&url));
    let waits = if local { Waits::local() } else { Waits::default() };
    StackManager::new(config, waits)
}

impl Stack {
    /// Deploys the stack, waits for it, and notes it in the version record.
    pub(crate) async fn provision(&self, config: &SdkConfig, how: &Provision) -> Result<(), Error> {
        let mut options = how.options.clone();
        let package = how.package();
        if options.has_functions() && package.is_none() {
            tracing::warn!(
                stack = self.name(),
                "the stack is deployed without functions: their executable is not known. Name it with {PACKAGE} or \
                 lambda_package, or have it searched for with lambda_package_from_path; until then usage is not counted \
                 and expired audit events are not archived"
            );
            options.enable_aggregator = false;
            options.enable_provisioner = false;
        }
        let package_text = package.as_ref().map(|file| file.display().to_string());
        let package = package.map_or(PackageSource::ThisProgram, PackageSource::File);
        let manager = stack_manager(config);
        let stack = self.name().to_owned();
        tracing::info!(
            stack,
            region = config.region().map(AsRef::as_ref),
            functions = options.has_functions(),
            package = package_text.as_deref(),
            options = ?options,
            "there is no such stack; creating a CloudFormation stack with a DynamoDB table, its functions, roles and alarms"
        );
        let deployment = Deployment {
            stack: &stack,
            options: &options,
            settings: &BTreeMap::new(),
            allow_removal: false,
            package: &package,
            code_bucket: how.code_bucket.as_deref(),
            wait: true,
        };
        let mut progress = |progress: zae_limiter_infra::Progress<'_>| {
            tracing::debug!(?progress, "deploying");
        };
        let deployed = Box::pin(manager.deploy(&deployment, &mut progress)).await?;
        self.record_deployment(deployed.functions.level(), UPDATED_BY)
            .await?;
        self.register_namespace(crate::DEFAULT_NAMESPACE).await?;
        Ok(())
    }

    /// Deletes the stack with all its resources, including the table and its data, and waits for the end. A stack that
    /// does not exist is not an error.
    ///
    /// # Errors
    /// [`Error::Deployment`] if a resource cannot be deleted; for a table that is not in a stack,
    /// [`Error::NotAStack`].
    pub async fn delete_stack(&self) -> Result<(), Error> {
        let Some(config) = &self.parts.config else {
            return Err(Error::NotAStack(self.parts.place.place.clone()));
        };
        let manager = stack_manager(config);
        let mut progress = |progress: zae_limiter_infra::Progress<'_>| {
            tracing::debug!(?progress, "deleting");
        };
        Box::pin(manager.delete(self.name(), true, &mut progress)).await?;
        Ok(())
    }
}

impl Repository {
    /// Deletes the stack with everything in it: all namespaces, all data. See [`Stack::delete_stack`].
    pub async fn delete_stack(&self) -> Result<(), Error> {
        self.stack_handle().delete_stack().await
    }
}

impl From<zae_limiter_infra::Error> for Error {
    fn from(err: zae_limiter_infra::Error) -> Self {
        match err {
            zae_limiter_infra::Error::InvalidInput(err) => err.into(),
            other => Self::Deployment(Arc::new(other)),
        }
    }
}
