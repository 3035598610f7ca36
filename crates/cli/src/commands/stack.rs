//! Commands about the stack, one module for each. What they need of AWS is `zae-limiter-infra`'s; what they write to
//! the table is the library's.

pub(crate) mod delete;
pub(crate) mod deploy;
mod embedded;
pub(crate) mod export;
pub(crate) mod list;
pub(crate) mod status;
mod summary;
pub(crate) mod upgrade;

use zae_limiter::core::version::FUNCTIONS_LEVEL;
use zae_limiter_infra::Functions;

use crate::args::Connection;
use crate::connect::stack;
use crate::failure::{Doing, Failure};

/// The namespace that every table has.
const DEFAULT_NAMESPACE: &str = "default";

/// Who changes the version record.
const UPDATED_BY: &str = concat!("cli:", env!("CARGO_PKG_VERSION"));

/// Notes a deployment in the table's version record. Functions that are not ours, or whose state is not known, keep
/// what is stored of them.
async fn record(at: &Connection, functions: &Functions) -> Result<(), Failure> {
    let level = matches!(functions, Functions::Ours { .. }).then_some(FUNCTIONS_LEVEL);
    let handle = stack(at, "").await?;
    let recorded = handle.record_deployment(level, UPDATED_BY).await;
    recorded.map_err(|err| Doing { at, what: "" }.failed(&err))
}
