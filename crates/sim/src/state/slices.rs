//! Tokens that a process has taken ahead.

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::acquire::{Grant, Slice};
use zae_limiter_core::config::Resolved;
use zae_limiter_core::schema::BucketId;

/// The slice of a bucket.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) slice: Slice,
    /// The actions whose debits it holds.
    pub(crate) fillers: BTreeSet<usize>,
}

/// The slices of a process, by the bucket's partition.
#[derive(Debug, Default)]
pub(crate) struct Slices(pub(crate) BTreeMap<String, Held>);

impl Slices {
    pub(crate) fn of(&mut self, id: &BucketId) -> &mut Held {
        self.0.entry(id.key(0).pk).or_default()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Tokens that an acquire has taken from memory, and the actions whose debits they are.
#[derive(Debug)]
pub(crate) struct Paid {
    pub(crate) id: BucketId,
    pub(crate) grants: Vec<Grant>,
    pub(crate) fillers: BTreeSet<usize>,
}

/// What an acquire does for slices while it asks the table.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    /// The buckets that it takes tokens ahead of, and their configuration.
    pub(crate) fills: Vec<(BucketId, std::sync::Arc<Resolved>)>,
    /// The parent's tokens that it has taken from memory.
    pub(crate) paid: Option<Paid>,
}
