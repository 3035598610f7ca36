//! What is known of a stack's resources while it is evaluated, and how a value that is not known yet is marked.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The existing resources of the stack, and the exports of other stacks.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Resources by their logical ids.
    pub resources: BTreeMap<String, KnownResource>,
    /// Values by the names they are exported under.
    pub exports: BTreeMap<String, String>,
}

/// A resource that exists.
#[derive(Debug, Clone, Default)]
pub struct KnownResource {
    /// The value of `Ref`.
    pub physical_id: String,
    /// The values of `Fn::GetAtt`, by the name after the resource's first dot.
    pub attributes: BTreeMap<String, Value>,
}

/// The key of a marker; no template can write it, since it would be refused as an unknown function.
const UNKNOWN: &str = "Fn::Unknown";

/// A value that depends on `causes`, which are not known yet.
pub(super) fn unknown(causes: BTreeSet<String>) -> Value {
    let causes = causes.into_iter().map(Value::String).collect();
    Value::Object(Map::from_iter([(UNKNOWN.to_owned(), Value::Array(causes))]))
}

fn causes(value: &Value) -> Option<&Vec<Value>> {
    let map = value.as_object()?;
    if map.len() == 1 {
        map.get(UNKNOWN)?.as_array()
    } else {
        None
    }
}

/// Whether this value itself is not known yet.
pub fn is_unknown(value: &Value) -> bool {
    causes(value).is_some()
}

/// Whether this value or one inside it is not known yet.
pub fn has_unknown(value: &Value) -> bool {
    is_unknown(value)
        || match value {
            Value::Array(items) => items.iter().any(has_unknown),
            Value::Object(map) => map.values().any(has_unknown),
            _ => false,
        }
}

/// What the unknown values in `value` depend on: `Table` for its physical id, `Table.Arn` for an attribute,
/// `Fn::ImportValue name` for an import.
pub fn unknown_causes(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(value, &mut found);
    found
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    if let Some(causes) = causes(value) {
        found.extend(causes.iter().filter_map(Value::as_str).map(str::to_owned));
        return;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(map) => map.values().for_each(|item| collect(item, found)),
        _ => {}
    }
}
