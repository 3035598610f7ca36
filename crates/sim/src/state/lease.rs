//! Tokens held by a caller.

use zae_limiter_core::acquire::Grant;

use crate::plan::End;

/// Tokens held by a caller.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) process: usize,
    pub(crate) incarnation: u32,
    pub(crate) action: usize,
    pub(crate) grants: Vec<Grant>,
    pub(crate) end: End,
}
