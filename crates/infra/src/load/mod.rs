//! The stack that generates load on another one, the target.
//!
//! - `options`: what can be chosen, and the parameters of the template that follow;
//! - `deploy`, `push`, `delete`: the operations, each a method of [`StackManager`](crate::StackManager);
//! - `master`: the task that leads many workers;
//! - `network`, `tasks`: look-ups in EC2, and tasks in ECS.

mod delete;
mod deploy;
mod master;
mod network;
mod options;
mod push;
mod tasks;

pub use deploy::{LoadDeployed, LoadDeployment, LoadTarget};
pub use master::{MasterOptions, MasterSize, MasterTask};
pub use network::{DynamoRoute, Subnet, Vpc};
pub use options::{CapacityProvider, DEFAULT_IMAGE, LoadOptions};
pub use push::{LoadPushed, ScenarioFile};
pub use tasks::Stopped;
