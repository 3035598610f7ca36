//! Which apply of a namespace is at work: the one that began last.
//!
//! An apply puts its mark in place of another's when it begins, looks at it before each write of levels, and takes it away at
//! its end. One that finds another mark than its own stops: of two manifests, the one that was applied last holds.

use crate::name::NamespaceId;
use crate::schema::{add_namespace_index, key_item, system_pk};
use crate::table::{Condition, Delete, Item, Key, Put, Value};
use crate::units::EpochMillis;

/// The key of the mark.
pub fn turn_key(namespace: &NamespaceId) -> Key {
    Key {
        pk: system_pk(namespace),
        sk: "#PROVISIONER#TURN".into(),
    }
}

/// The write that begins the turn of `token`, in place of the mark that was read.
///
/// Guards that the mark is as it was read, or absent; refused, it must be read again.
pub fn begin(namespace: &NamespaceId, token: &str, now: EpochMillis, before: Option<&Item>) -> Put {
    let key = turn_key(namespace);
    let mut item = key_item(&key);
    add_namespace_index(&mut item, namespace.as_str(), &key.pk);
    item.insert("token".into(), Value::text(token));
    item.insert("began_ms".into(), Value::int(now.0));
    let condition = match before {
        None => Condition::Absent("PK".into()),
        Some(before) => Condition::same("token".into(), before.get("token").cloned()),
    };
    Put { item, condition }
}

/// The write that ends the turn of `token`. Refused if another has begun.
pub fn end(namespace: &NamespaceId, token: &str) -> Delete {
    Delete {
        key: turn_key(namespace),
        condition: Condition::Is("token".into(), Value::text(token)),
    }
}

/// Whether a mark is that of `token`. Without a mark, another apply began and has ended.
pub fn is_of(mark: Option<&Item>, token: &str) -> bool {
    mark.and_then(|mark| mark.get("token")?.as_text()) == Some(token)
}
