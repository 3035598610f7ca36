//! Tokens held by a caller.

use zae_limiter_core::acquire::Grant;
use zae_limiter_core::outage::local_buckets::Claim;
use zae_limiter_core::{LimitName, Millitokens};

use crate::plan::End;

/// Where the tokens of a lease come from.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    /// From the table.
    Table(Vec<Grant>),
    /// From limits in the memory of the process, with the amounts of the request.
    Local(Vec<Claim>, Vec<(LimitName, Millitokens)>),
    /// From nowhere: no limit applied.
    Nothing,
}

/// Tokens held by a caller.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) process: usize,
    pub(crate) incarnation: u32,
    pub(crate) action: usize,
    pub(crate) held: Held,
    pub(crate) end: End,
}
