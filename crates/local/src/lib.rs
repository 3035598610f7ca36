//! A local AWS endpoint: as much of AWS as a stack of zae-limiter needs, on one port of this machine.
//!
//! DynamoDB and its streams are the embedded engine. The services around it are small and serve what this
//! project's stack, command and functions, the Python original and the `aws` command ask of them; what they do not
//! have they refuse by name. Signatures are not checked, and no policy is evaluated.

pub mod clock;
pub mod docker;
pub mod endpoint;
pub mod health;
pub mod identity;
pub mod lambda;
pub mod logs;
pub mod process;
pub mod queues;
pub mod s3;
pub mod server;
pub mod services;
pub mod shell;
pub mod stacks;
pub mod state;
pub mod store;
pub mod tables;
pub mod tagging;
pub mod template;
pub mod upload;
pub mod web;
pub mod wire;
pub mod world;
