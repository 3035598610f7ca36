//! Items of buckets as plain rows, and writes as changes of items, read without the code under test.

pub mod change;
pub mod row;
pub mod terms;
