//! A table in the memory of this process.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use zae_limiter::table::{Table, TableFuture};
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::table::Op;

/// A table that answers at once. Items do not expire: the time to live of a bucket is longer than it needs to fill.
#[derive(Clone, Default)]
pub(super) struct ReplayTable(Arc<Mutex<MemoryTable>>);

impl Table for ReplayTable {
    fn call(&self, op: Op) -> TableFuture {
        let table = self.clone();
        Box::pin(async move { table.0.lock().unwrap_or_else(PoisonError::into_inner).call(&op) })
    }
}

impl fmt::Debug for ReplayTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayTable")
    }
}
