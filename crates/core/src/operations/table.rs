//! Table operations as values.
//!
//! Business logic describes what it wants done to a key-value table with conditional updates; it never
//! sees an expression string or an SDK type. A real table renders these for DynamoDB, the simulator
//! interprets them with [`Condition::holds`] and [`Update::apply`]. Nothing here performs I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use smol_str::SmolStr;

/// An attribute's name.
pub type Attr = SmolStr;

/// An item: attribute values by name.
pub type Item = BTreeMap<String, Value>;

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    S(String),
    /// A number, as its decimal text.
    N(SmolStr),
    /// A truth value.
    Bool(bool),
    /// An explicit null.
    Null,
    /// A map.
    M(BTreeMap<String, Value>),
    /// A list.
    L(Vec<Value>),
    /// A set of texts.
    Ss(BTreeSet<String>),
    /// A type that no record of ours uses (binary, sets of numbers).
    Other,
}

impl Value {
    /// A number from an integer.
    pub fn int(number: impl Into<i128>) -> Self {
        let number = number.into();
        let mut digits = itoa::Buffer::new();
        Self::N(SmolStr::new(match i64::try_from(number) {
            // Written in a fraction of the time.
            Ok(short) => digits.format(short),
            Err(_) => digits.format(number),
        }))
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::S(text.into())
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::S(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it is a number without fraction of at most 38 digits.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            // Up to 18 characters fit 64 bits, which are read in a fraction of the time.
            Self::N(digits) if digits.len() <= 18 => digits.parse::<i64>().ok().map(i128::from),
            Self::N(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

/// A primary key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Partition key.
    pub pk: String,
    /// Sort key.
    pub sk: SmolStr,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pk, self.sk)
    }
}

/// A condition on the stored item for a write.
///
/// As in DynamoDB, a comparison with an absent attribute, or between a number and another type, is false.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Every part holds; with no parts, always.
    All(Vec<Condition>),
    /// At least one part holds.
    Any(Vec<Condition>),
    /// The attribute is there.
    Exists(Attr),
    /// The attribute is not there.
    Absent(Attr),
    /// The attribute has exactly this value.
    Is(Attr, Value),
    /// The attribute is absent or has another value. (DynamoDB's `<>` says nothing of absent attributes
    /// that one would want to rely on, so a table renders both halves.)
    IsNot(Attr, Value),
    /// The attribute is a number of at least this.
    AtLeast(Attr, i128),
    /// The attribute is a number of at most this.
    AtMost(Attr, i128),
}

impl Condition {
    /// No condition.
    pub const ALWAYS: Self = Self::All(Vec::new());

    /// The attribute has this value, or is absent when `None`.
    pub fn same(attr: Attr, value: Option<Value>) -> Self {
        match value {
            Some(value) => Self::Is(attr, value),
            None => Self::Absent(attr),
        }
    }

    /// Whether this is [`Condition::ALWAYS`].
    pub fn is_always(&self) -> bool {
        matches!(self, Self::All(parts) if parts.is_empty())
    }

    /// Evaluates the condition against an item, or its absence.
    pub fn holds(&self, item: Option<&Item>) -> bool {
        let get = |attr: &Attr| item.and_then(|item| item.get(attr.as_str()));
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(item)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(item)),
            Self::Exists(attr) => get(attr).is_some(),
            Self::Absent(attr) => get(attr).is_none(),
            Self::Is(attr, value) => get(attr).is_some_and(|stored| same_value(stored, value)),
            Self::IsNot(attr, value) => get(attr).is_none_or(|stored| !same_value(stored, value)),
            Self::AtLeast(attr, bound) => get(attr).and_then(Value::as_int).is_some_and(|n| n >= *bound),
            Self::AtMost(attr, bound) => get(attr).and_then(Value::as_int).is_some_and(|n| n <= *bound),
        }
    }
}

/// Numbers are equal by value, whatever their text; everything else by content.
fn same_value(a: &Value, b: &Value) -> bool {
    match (a.as_int(), b.as_int()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// A conditional change of one item; creates it if it is absent and the condition allows.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The item.
    pub key: Key,
    /// Attributes to set.
    pub set: Vec<(Attr, Value)>,
    /// Attributes to set to what others have before the update; an absent one counts as 0.
    pub copy: Vec<(Attr, Attr)>,
    /// Numbers to add to attributes; an absent attribute counts as 0.
    pub add: Vec<(Attr, i128)>,
    /// Texts to add to a set of texts.
    pub add_to_set: Vec<(Attr, String)>,
    /// Texts to take from a set of texts.
    pub delete_from_set: Vec<(Attr, String)>,
    /// Attributes to remove.
    pub remove: Vec<Attr>,
    /// The condition.
    pub condition: Condition,
}

impl Update {
    /// An update of `key` that changes nothing yet.
    pub fn new(key: Key) -> Self {
        Self {
            key,
            set: Vec::new(),
            copy: Vec::new(),
            add: Vec::new(),
            add_to_set: Vec::new(),
            delete_from_set: Vec::new(),
            remove: Vec::new(),
            condition: Condition::ALWAYS,
        }
    }

    /// Changes an item in place, as DynamoDB would. The condition is not looked at.
    pub fn apply(&self, item: &mut Item) {
        let copied = self.copy.iter();
        let copied: Vec<_> = copied
            .map(|(to, from)| {
                let value = item.get(from.as_str()).cloned();
                (to.to_string(), value.unwrap_or(Value::int(0)))
            })
            .collect();
        item.extend(copied);
        for (attr, value) in &self.set {
            item.insert(attr.to_string(), value.clone());
        }
        for (attr, delta) in &self.add {
            let old = item.get(attr.as_str()).and_then(Value::as_int).unwrap_or(0);
            item.insert(attr.to_string(), Value::int(old.saturating_add(*delta)));
        }
        for (attr, text) in &self.add_to_set {
            match item
                .entry(attr.to_string())
                .or_insert_with(|| Value::Ss(BTreeSet::new()))
            {
                Value::Ss(set) => drop(set.insert(text.clone())),
                other => *other = Value::Ss(BTreeSet::from([text.clone()])),
            }
        }
        for (attr, text) in &self.delete_from_set {
            if let Some(Value::Ss(set)) = item.get_mut(attr.as_str()) {
                set.remove(text);
                if set.is_empty() {
                    item.remove(attr.as_str());
                }
            }
        }
        for attr in &self.remove {
            item.remove(attr.as_str());
        }
    }
}

/// Writes a whole item.
#[derive(Debug, Clone, PartialEq)]
pub struct Put {
    /// The item, key attributes included.
    pub item: Item,
    /// The condition on the replaced item.
    pub condition: Condition,
}

/// Deletes an item.
#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    /// The item.
    pub key: Key,
    /// The condition.
    pub condition: Condition,
}

/// Which index a [`Query`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// The table itself.
    Primary,
    /// Children by parent.
    Gsi1,
    /// Buckets and usage by resource.
    Gsi2,
    /// Entity configurations by resource, buckets by entity. Keys only.
    Gsi3,
    /// Everything in a namespace. Keys only.
    Gsi4,
}

/// Which sort keys a [`Query`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SortKeys {
    /// All of them.
    All,
    /// Those that begin with this text.
    Prefix(String),
    /// Those from the first text to the second, both included.
    Between(String, String),
}

impl SortKeys {
    /// Whether a sort key is among them.
    pub fn contains(&self, sort_key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => sort_key.starts_with(prefix),
            Self::Between(first, last) => (first.as_str()..=last.as_str()).contains(&sort_key),
        }
    }
}

/// Reads items that share a partition key, in the order of their sort key.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The index.
    pub index: Index,
    /// The partition key's value.
    pub hash: String,
    /// Which sort keys.
    pub sort: SortKeys,
    /// Largest sort key first.
    pub descending: bool,
    /// How many items a page may hold.
    pub limit: Option<u32>,
    /// Where to continue, from an earlier [`Answer::Page`].
    pub start: Option<Item>,
    /// Read the latest state. Only the primary index can.
    pub consistent: bool,
}

impl Query {
    /// Everything that shares a partition key, smallest sort key first, eventually consistent.
    pub fn new(index: Index, hash: impl Into<String>) -> Self {
        Self {
            index,
            hash: hash.into(),
            sort: SortKeys::All,
            descending: false,
            limit: None,
            start: None,
            consistent: false,
        }
    }

    /// Only sort keys that begin with this text.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.sort = SortKeys::Prefix(prefix.into());
        self
    }

    /// Only sort keys from `first` to `last`, both included.
    pub fn between(mut self, first: impl Into<String>, last: impl Into<String>) -> Self {
        self.sort = SortKeys::Between(first.into(), last.into());
        self
    }

    /// Largest sort key first.
    pub fn descending(mut self) -> Self {
        self.descending = true;
        self
    }

    /// At most this many items a page.
    pub fn page(mut self, items: u32) -> Self {
        self.limit = Some(items);
        self
    }

    /// Reads the latest state. Only the primary index can.
    pub fn consistent(mut self) -> Self {
        self.consistent = true;
        self
    }
}

/// One part of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Write an item.
    Put(Put),
    /// Change an item.
    Update(Update),
    /// Delete an item.
    Delete(Delete),
    /// Only check a condition.
    Check(Key, Condition),
}

/// One request to a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Reads one item. Answered by [`Answer::Item`].
    Get {
        /// The item.
        key: Key,
        /// Read the latest state, at twice the price.
        consistent: bool,
    },
    /// Reads items by key, in no particular order. Answered by [`Answer::Items`].
    BatchGet {
        /// The items, without duplicates.
        keys: Vec<Key>,
        /// Read the latest state, at twice the price.
        consistent: bool,
    },
    /// Reads one page of a range. Answered by [`Answer::Page`].
    Query(Query),
    /// Writes an item. Answered by [`Answer::Applied`] or [`Answer::Refused`].
    Put(Put),
    /// Changes an item. Answered by [`Answer::Applied`] with the new image, or [`Answer::Refused`].
    Update(Update),
    /// Deletes an item. Answered by [`Answer::Applied`] or [`Answer::Refused`].
    Delete(Delete),
    /// Deletes up to 25 items by key without conditions. Answered by [`Answer::Applied`].
    BatchDelete(Vec<Key>),
    /// Does all parts or none. Answered by [`Answer::Applied`] or [`Answer::Cancelled`].
    Transact(Vec<Part>),
}

/// Why one part of a cancelled transaction did not happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancelled {
    /// This part was fine; another was not.
    Fine,
    /// Its condition did not hold. The stored item, if there is one.
    Refused(Option<Item>),
    /// Another transaction was changing the item.
    Conflict,
    /// Anything else, by its code.
    Other(String),
}

/// An answer of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The item, if there is one.
    Item(Option<Item>),
    /// The items that exist.
    Items(Vec<Item>),
    /// A page of a range, and where to continue.
    Page {
        /// The items.
        items: Vec<Item>,
        /// The start of the next page; `None` on the last.
        next: Option<Item>,
    },
    /// The write happened. For an update, the item as it is now.
    Applied(Option<Item>),
    /// The condition did not hold, nothing was written. The stored item, if there is one.
    Refused(Option<Item>),
    /// The transaction did not happen; a reason for each part.
    Cancelled(Vec<Cancelled>),
}

/// Whether a failed write may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It did not happen: the table said so, or never received it.
    No,
    /// Unknown: the answer was lost, or the table failed while it executed the request.
    Unknown,
}

/// The kind of a table's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The table is over its throughput; may help to wait.
    Throttled,
    /// A transaction holds the item; may help to wait a few milliseconds.
    Conflict,
    /// No answer in time.
    Timeout,
    /// The table could not be reached.
    Unreachable,
    /// The service failed.
    Internal,
    /// The caller may not do this.
    AccessDenied,
    /// The table does not exist.
    TableMissing,
    /// The request was not understood.
    BadRequest,
}

/// A request to a table that failed for reasons other than its condition.
#[derive(Debug, Clone)]
pub struct TableError {
    /// The kind of failure.
    pub kind: FailureKind,
    /// Whether a write may have happened.
    pub applied: Applied,
    /// The service's own words.
    pub message: String,
    /// The error underneath.
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

impl TableError {
    /// An error without a cause underneath.
    pub fn new(kind: FailureKind, applied: Applied, message: impl Into<String>) -> Self {
        Self {
            kind,
            applied,
            message: message.into(),
            source: None,
        }
    }

    /// Whether it is an outage of the table, so that the policy for outages applies.
    ///
    /// Errors that no wait heals are not outages: admitting without limits because of them would never end.
    pub fn is_outage(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::Throttled
                | FailureKind::Conflict
                | FailureKind::Timeout
                | FailureKind::Unreachable
                | FailureKind::Internal
        )
    }

    /// Whether the same request may be sent again without risk and with hope: it was not applied, and the
    /// reason may pass.
    pub fn may_resend(&self) -> bool {
        self.applied == Applied::No
            && matches!(
                self.kind,
                FailureKind::Throttled
                    | FailureKind::Conflict
                    | FailureKind::Unreachable
                    | FailureKind::Internal
            )
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FailureKind::Throttled => "the table is throttled",
            FailureKind::Conflict => "another transaction holds the item",
            FailureKind::Timeout => "the table did not answer in time",
            FailureKind::Unreachable => "the table cannot be reached",
            FailureKind::Internal => "the service failed",
            FailureKind::AccessDenied => "access denied",
            FailureKind::TableMissing => "the table does not exist",
            FailureKind::BadRequest => "the request was refused",
        };
        write!(f, "{what}: {}", self.message)
    }
}

impl Error for TableError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_with_absent_or_textual_attributes_are_false() {
        let item = Item::from([
            ("n".to_owned(), Value::int(5)),
            ("s".to_owned(), Value::text("5")),
        ]);
        assert!(Condition::AtLeast("n".into(), 5).holds(Some(&item)));
        assert!(!Condition::AtLeast("s".into(), 5).holds(Some(&item)));
        assert!(!Condition::AtMost("x".into(), 5).holds(Some(&item)));
        assert!(Condition::Absent("x".into()).holds(None));
        assert!(Condition::Is("n".into(), Value::N("05".into())).holds(Some(&item)));
    }

    #[test]
    fn adding_to_an_absent_number_starts_at_zero() {
        let mut update = Update::new(Key {
            pk: "p".into(),
            sk: "s".into(),
        });
        update.add.push(("n".into(), -3));
        update.add_to_set.push(("set".into(), "a".into()));
        let mut item = Item::new();
        update.apply(&mut item);
        assert_eq!(item["n"], Value::int(-3));
        let mut update = Update::new(update.key);
        update.delete_from_set.push(("set".into(), "a".into()));
        update.apply(&mut item);
        assert!(!item.contains_key("set"), "an emptied set disappears");
    }

    #[test]
    fn only_failures_that_pass_are_outages() {
        for (kind, outage) in [
            (FailureKind::Throttled, true),
            (FailureKind::Conflict, true),
            (FailureKind::Timeout, true),
            (FailureKind::Unreachable, true),
            (FailureKind::Internal, true),
            (FailureKind::AccessDenied, false),
            (FailureKind::TableMissing, false),
            (FailureKind::BadRequest, false),
        ] {
            let err = TableError::new(kind, Applied::No, "as the test ordered");
            assert_eq!(err.is_outage(), outage, "{kind:?}");
        }
    }
}
