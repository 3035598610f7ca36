//! Functions as they run: `instance` is one process with its runtime API and its log, `pool` all of them. `process` starts
//! one, `machine` says what the machine allows, and `finished` is how an invocation ends.

mod finished;
mod instance;
mod machine;
mod output;
mod pool;
mod process;
mod runtime_api;

pub(super) use finished::Finished;
pub(super) use machine::Notes;
pub(super) use pool::{NotRun, Pool};
pub(super) use process::Launch;
pub(super) use runtime_api::LARGEST;
