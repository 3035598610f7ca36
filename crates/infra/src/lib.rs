//! The CloudFormation stack of zae-limiter: what it holds, how it is deployed, found, upgraded and deleted.
//!
//! [`StackManager`] does it, with AWS or with a server that speaks its protocols. It does not access the
//! content of the table: its caller writes the version record and registers namespaces with the library.
//!
//! - [`options`](StackOptions): what can be chosen, and the template's parameters that follow; [`names`], [`tags`];
//! - [`template`]: the template itself;
//! - `package`, `elf`, `code`: the executable that functions run, whether it can, and how it gets to S3;
//! - `deploy`, `upgrade`, `delete`, `discovery`: the operations, each a method of [`StackManager`];
//! - `stack`, `events`, `functions`: what is found, and waiting for it;
//! - `invoke`: calling a function; `call`: operations of services without an SDK here;
//! - `load`: the stack that generates load on another one.
//!
//! Every wait has an end ([`Waits`]), and nothing counts as done before the service says so.

mod aws;
mod call;
mod code;
mod delete;
mod deploy;
mod discovery;
mod elf;
mod error;
mod events;
mod functions;
mod invoke;
mod load;
pub mod names;
mod options;
mod package;
mod stack;
mod summary;
pub mod tags;
pub mod template;
mod upgrade;

pub use aws::Waits;
pub use code::CodeLocation;
pub use delete::Deleted;
pub use deploy::{Deployed, Deployment, Functions};
pub use discovery::FoundStack;
pub use elf::Architecture;
pub use error::{AwsFailure, Error, without_layers};
pub use events::StackEvent;
pub use functions::FunctionState;
pub use invoke::Invoked;
pub use load::{
    CapacityProvider, DEFAULT_IMAGE, DynamoRoute, LoadDeployed, LoadDeployment, LoadOptions, LoadPushed,
    LoadTarget, MasterOptions, MasterSize, MasterTask, ScenarioFile, Stopped, Subnet, Vpc,
};
pub use options::{LOG_RETENTION_DAYS, Parameter, StackOptions};
pub use package::{Package, PackageInfo, PackageSource};
pub use summary::StackSummary;
pub use upgrade::{Change, Plan, Upgrade, UpgradeScope, Upgraded};
pub use zae_limiter_core::InvalidInput;

use aws_types::SdkConfig;

/// Creates, finds, changes and deletes stacks in one account and region.
#[derive(Debug, Clone)]
pub struct StackManager {
    clients: aws::Clients,
    caller: call::Caller,
    region: Option<String>,
    waits: Waits,
}

impl StackManager {
    /// Works in the account and region that the configuration leads to. Sends nothing yet.
    pub fn new(config: &SdkConfig, waits: Waits) -> Self {
        Self {
            clients: aws::Clients::new(config),
            caller: call::Caller::new(config),
            region: config.region().map(ToString::to_string),
            waits,
        }
    }

    /// The region.
    ///
    /// # Errors
    /// [`Error::Aws`] if none is configured.
    pub fn region(&self) -> Result<&str, Error> {
        self.region.as_deref().ok_or_else(|| Error::Aws {
            kind: AwsFailure::Region,
            code: String::new(),
            message: "You must specify a region. Use --region, AWS_REGION, or a profile that has one.".into(),
        })
    }
}

/// The progress of an operation.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A resource of the stack changed its state.
    Event(&'a StackEvent),
    /// The functions' code goes to S3.
    Uploading {
        /// The bucket.
        bucket: &'a str,
        /// How much it is.
        bytes: u64,
    },
    /// The functions' code is in S3.
    Uploaded {
        /// The bucket.
        bucket: &'a str,
        /// The object.
        key: &'a str,
        /// How much it is.
        bytes: u64,
        /// Whether it was not there before.
        new: bool,
    },
    /// CloudFormation has begun with the creation or change.
    Accepted,
    /// The stack is being created.
    Creating,
    /// The stack is being changed.
    Updating,
    /// The stack is being deleted.
    Deleting,
    /// CloudFormation compares the new template with the stack.
    Comparing,
    /// These changes are about to be made.
    Planned {
        /// The resources that change.
        changes: &'a [Change],
    },
    /// Another operation is under way, and is waited for.
    WaitingForOther {
        /// The stack's status.
        status: &'a str,
    },
}
