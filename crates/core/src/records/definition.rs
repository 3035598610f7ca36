//! The table's definition: its keys, its indexes, its stream and what expires (data model, section 2).
//!
//! Code that creates a table reads it from here. The stack's template cannot, and is tested against it.

/// An index of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexDefinition {
    /// Its name, such as `GSI1`.
    pub name: &'static str,
    /// The attribute that is its partition key. For a local index this is the table's own.
    pub hash: &'static str,
    /// The attribute that is its sort key.
    pub range: &'static str,
    /// Whether it holds keys only, rather than whole items.
    pub keys_only: bool,
    /// Whether it is local: bound to the table's partition key, and made with the table or never.
    pub local: bool,
}

/// The table's partition and sort key. Both are texts, as are the keys of all indexes.
pub const KEY: [&str; 2] = ["PK", "SK"];

/// The attribute that holds an item's expiry, in epoch seconds.
pub const TTL_ATTRIBUTE: &str = "ttl";

/// The content of a record of the table's stream: the item before the change, and after it.
pub const STREAM_VIEW: &str = "NEW_AND_OLD_IMAGES";

/// The indexes. The local ones are reserved: no record has their sort keys, but they cannot be added later.
pub const INDEXES: [IndexDefinition; 9] = [
    local("LSI1", "LSI1SK", false),
    local("LSI2", "LSI2SK", true),
    local("LSI3", "LSI3SK", false),
    local("LSI4", "LSI4SK", true),
    local("LSI5", "LSI5SK", false),
    global("GSI1", "GSI1PK", "GSI1SK", false),
    global("GSI2", "GSI2PK", "GSI2SK", false),
    global("GSI3", "GSI3PK", "GSI3SK", true),
    global("GSI4", "GSI4PK", "GSI4SK", true),
];

/// The index that lists buckets and usage by resource. On tables with a *lean index* it holds keys only, and readers fetch the
/// items: then a debit, which changes no key, writes the table alone. Clients of the Python library need whole items there.
pub const LEAN_INDEX: &str = "GSI2";

impl IndexDefinition {
    /// Whether it holds keys only, on a table with or without a lean index.
    pub fn is_keys_only(&self, lean_index: bool) -> bool {
        self.keys_only || (lean_index && self.name == LEAN_INDEX)
    }
}

const fn local(name: &'static str, range: &'static str, keys_only: bool) -> IndexDefinition {
    IndexDefinition {
        name,
        hash: KEY[0],
        range,
        keys_only,
        local: true,
    }
}

const fn global(
    name: &'static str,
    hash: &'static str,
    range: &'static str,
    keys_only: bool,
) -> IndexDefinition {
    IndexDefinition {
        name,
        hash,
        range,
        keys_only,
        local: false,
    }
}
