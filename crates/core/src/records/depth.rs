//! How many entities above each other a request debits, and its record.
//!
//! The Python library debits an entity and its parent. It does not read this record, and does not write it.

use std::fmt;

use crate::bucket::Owner;
use crate::error::{InvalidInput, RecordError};
use crate::name::{EntityId, NamespaceId};
use crate::records::reader::Reader;
use crate::schema::{add_namespace_index, depth_key, key_item};
use crate::table::{Condition, Item, Put, Value};

/// The attribute of the depth.
pub(crate) const DEPTH: &str = "depth";

/// How many entities a request debits at most: 2, the entity and its parent, to 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CascadeDepth(u8);

impl CascadeDepth {
    /// The entity and its parent.
    pub const MIN: Self = Self(2);
    /// The entity and seven above it.
    pub const MAX: Self = Self(8);

    /// Checks that a depth is from 2 to 8.
    ///
    /// ```
    /// use zae_limiter_core::depth::CascadeDepth;
    ///
    /// assert_eq!(CascadeDepth::new(4).unwrap().get(), 4);
    /// assert!(CascadeDepth::new(9).is_err());
    /// assert_eq!(CascadeDepth::default(), CascadeDepth::MIN);
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`] of the field `cascade_depth`.
    pub fn new(depth: u32) -> Result<Self, InvalidInput> {
        let (min, max) = (Self::MIN, Self::MAX);
        u8::try_from(depth)
            .ok()
            .map(Self)
            .filter(|depth| (min..=max).contains(depth))
            .ok_or_else(|| InvalidInput::new("cascade_depth", depth, format!("must be from {min} to {max}")))
    }

    /// As a number.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }

    /// The entity above the last one of a chain, if a request debits it as well: not beyond the depth, and not twice.
    ///
    /// `owner` is the owner of the last entity's bucket, `level` the level of that entity, which is 0 for the one that spends, and
    /// `chain` has the last entity and those below it.
    pub fn next_above<'a, 'b>(
        self,
        owner: Option<&'a Owner>,
        level: usize,
        mut chain: impl Iterator<Item = &'b EntityId>,
    ) -> Option<&'a EntityId> {
        let above = owner?.cascade_parent()?;
        (level + 1 < self.get() && chain.all(|below| below != above)).then_some(above)
    }

    /// Reads the record. A depth that this client does not know is an error, so that no request passes a level by.
    pub fn decode(item: &Item) -> Result<Self, RecordError> {
        let reader = Reader::new("cascade depth", item);
        let depth = reader.int_within(DEPTH, i128::from(Self::MIN.0), i128::from(Self::MAX.0))?;
        let depth = depth.and_then(|depth| u8::try_from(depth).ok());
        depth.map(Self).ok_or_else(|| reader.corrupt(DEPTH, "is missing"))
    }

    /// Writes the record.
    pub fn put(self, namespace: &NamespaceId) -> Put {
        let key = depth_key(namespace);
        let mut item = key_item(&key);
        item.insert(DEPTH.into(), Value::int(i64::from(self.0)));
        add_namespace_index(&mut item, namespace.as_str(), &key.pk);
        Put {
            item,
            condition: Condition::ALWAYS,
        }
    }
}

impl Default for CascadeDepth {
    /// Without a record: the entity and its parent.
    fn default() -> Self {
        Self::MIN
    }
}

impl From<CascadeDepth> for u32 {
    fn from(depth: CascadeDepth) -> Self {
        depth.0.into()
    }
}

impl fmt::Display for CascadeDepth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
