//! Deleting a bucket, with all its shards at once.
//!
//! A bucket lives from the creation of its first shard until that is deleted. Every write that creates another shard
//! depends on the first one and its count. So the first shard is deleted on condition of its count, in one transaction
//! with all other shards that this count allows: afterwards there is none, and none can be created for the life that
//! has ended. If shards were left, they would stand beside those of the bucket's next life, and both together would
//! admit more than the limit.

use super::shard_count_is;
use crate::bucket::{Bucket, MAX_SHARDS};
use crate::schema::BucketId;
use crate::table::{Condition, Delete, Op, Part};

/// The request that ends a bucket's life, from an image of its first shard that was read consistently. `pins` are
/// further conditions on that shard, such as [`owner_pins`](crate::sync::owner_pins).
///
/// If it is refused or cancelled, the first shard is read again: the bucket was split meanwhile, or is gone. `None` if
/// it has more shards than this library creates, which one transaction does not hold.
pub fn delete_bucket(id: &BucketId, first: &Bucket, pins: impl IntoIterator<Item = Condition>) -> Option<Op> {
    let count = first.shard_count;
    if count > MAX_SHARDS {
        return None;
    }
    let mut conditions = vec![shard_count_is(count), Condition::Exists("PK".into())];
    conditions.extend(pins);
    let first = Delete {
        key: id.key(0),
        condition: Condition::All(conditions),
    };
    if count == 1 {
        return Some(Op::Delete(first));
    }
    let other = |shard| Delete {
        key: id.key(shard),
        condition: Condition::ALWAYS,
    };
    let others = (1..count).map(other);
    Some(Op::Transact(
        std::iter::once(first).chain(others).map(Part::Delete).collect(),
    ))
}
