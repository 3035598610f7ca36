//! One write of the table, as the checks see it.

use std::collections::BTreeMap;

use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Item, Key};

/// The writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An acquire, by its job.
    Acquire(usize),
    /// A credit, by its job.
    Credit(usize),
    /// The client that manages limits and flags.
    Admin,
    /// An operator's reset or top-up, by its plan.
    Operator(usize),
    /// A client of another kind.
    Foreign,
    /// The table's expiry.
    Sweep,
}

impl Source {
    pub(crate) fn job(self) -> Option<usize> {
        match self {
            Self::Acquire(job) | Self::Credit(job) => Some(job),
            _ => None,
        }
    }
}

/// One item before and after a write.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its key.
    pub key: Key,
    /// Before.
    pub old: Option<Item>,
    /// After.
    pub new: Option<Item>,
}

/// Millitokens by bucket and limit.
pub type Sums = BTreeMap<(String, String), i128>;

/// Adds what was taken of a limit of a bucket.
pub(crate) fn add(sums: &mut Sums, id: &BucketId, limit: &str, amount: i128) {
    let key = id.key(0).pk;
    let bucket = key.rsplit_once('#').map_or(key.as_str(), |(bucket, _)| bucket);
    *sums.entry((bucket.to_owned(), limit.to_owned())).or_default() += amount;
}
