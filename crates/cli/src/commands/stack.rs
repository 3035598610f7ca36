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

use zae_limiter::Stack;
use zae_limiter_infra::Functions;

use super::{Unfinished, failed};
use crate::args::Connection;
use crate::connect::stack;
use crate::failure::{Failure, place_options};

/// The name that changes the version record.
const UPDATED_BY: &str = concat!("cli:", env!("CARGO_PKG_VERSION"));

/// Says, if a signal ends the command meanwhile, that CloudFormation goes on.
fn goes_on(at: &Connection, what: &str, again: &str) -> Unfinished {
    Unfinished(Some(format!(
        "The {what} of '{0}' may go on in CloudFormation. 'zae-limiter status -n {0}{1}' shows its state; {again} again when it is \
         over.",
        at.name,
        place_options(at)
    )))
}

/// Notes a deployment in the table's version record, and gives the table.
async fn record(at: &Connection, functions: &Functions) -> Result<Stack, Failure> {
    let handle = stack(at, "").await?;
    let recorded = handle.record_deployment(functions.level(), UPDATED_BY).await;
    recorded.map_err(failed(at, ""))?;
    Ok(handle)
}
