//! Audit events: who changed what, when. Data model, section 10.

use std::time::SystemTime;

use serde_json::Value as Json;

use crate::limit::{Limit, shape};
use crate::name::{NamespaceId, ResourceName};
use crate::schema::{add_namespace_index, audit_key, audit_pk, key_item, key_of};
use crate::table::{Condition, Index, Item, Key, Put, Query, Value};
use crate::units::{EpochMillis, stored_time};

/// Days that an event is kept unless configured otherwise.
pub const DEFAULT_RETENTION_DAYS: i64 = 90;

/// The subject of changes to a resource's defaults.
pub fn resource_subject(resource: &ResourceName) -> String {
    format!("$RESOURCE:{resource}")
}

/// The subject of changes to the system level.
pub const SYSTEM_SUBJECT: &str = "$SYSTEM";

/// The prefix of an event's sort key.
const EVENT: &str = "#AUDIT#";

/// One change, as it stands in the log.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AuditEvent {
    /// A ULID: unique, and sorted by time.
    #[cfg_attr(feature = "serde", serde(rename = "event_id"))]
    pub id: String,
    /// The subject, as in keys: an entity id, `$SYSTEM`, or `$RESOURCE:{resource}`.
    #[cfg_attr(feature = "serde", serde(rename = "entity_id"))]
    pub subject: String,
    /// The action, such as `limits_set`.
    pub action: String,
    /// The principal.
    pub principal: Option<String>,
    /// The resource concerned.
    pub resource: Option<String>,
    /// Particulars of the action.
    pub details: Item,
    /// When, to the second. `None` if the stored time cannot be read.
    #[cfg_attr(feature = "serde", serde(with = "crate::serialized::time_opt"))]
    pub timestamp: Option<SystemTime>,
}

impl AuditEvent {
    /// The write that logs it.
    ///
    /// Guards that no event of this id is there: a repetition after a lost answer writes nothing twice.
    pub fn put(&self, namespace: &NamespaceId, now: EpochMillis, retention_days: i64) -> Put {
        let key = audit_key(namespace, &self.subject, &self.id);
        let text = |text: &Option<String>| text.as_ref().map_or(Value::Null, Value::text);
        let mut item = key_item(&key);
        item.insert("event_id".into(), Value::text(&self.id));
        item.insert("entity_id".into(), Value::text(&self.subject));
        let timestamp = self.timestamp.map(|time| EpochMillis::from(time).to_text());
        item.insert("timestamp".into(), Value::S(timestamp.unwrap_or_default()));
        item.insert("action".into(), Value::text(&self.action));
        item.insert("principal".into(), text(&self.principal));
        item.insert("resource".into(), text(&self.resource));
        item.insert("details".into(), Value::M(self.details.clone()));
        let ttl = now.secs().saturating_add(retention_days.saturating_mul(86_400));
        item.insert("ttl".into(), Value::int(ttl));
        add_namespace_index(&mut item, namespace.as_str(), &key.pk);
        Put {
            item,
            condition: Condition::Absent("PK".into()),
        }
    }

    /// Reads an event. Whatever is missing or of another type reads as empty: a damaged event must not hide
    /// the others.
    pub fn decode(item: &Item) -> Self {
        let text = |attr| item.get(attr).and_then(Value::as_text).map(str::to_owned);
        let key = key_of(item).unwrap_or_else(|| crate::table::Key {
            pk: String::new(),
            sk: "".into(),
        });
        let in_key = |key: &str, mark: &str| key.split_once(mark).map(|(_, rest)| rest.to_owned());
        Self {
            id: text("event_id")
                .or_else(|| in_key(&key.sk, EVENT))
                .unwrap_or_default(),
            subject: text("entity_id")
                .or_else(|| in_key(&key.pk, "/AUDIT#"))
                .unwrap_or_default(),
            action: text("action").unwrap_or_default(),
            principal: text("principal"),
            resource: text("resource"),
            details: match item.get("details") {
                Some(Value::M(details)) => details.clone(),
                _ => Item::new(),
            },
            timestamp: item
                .get("timestamp")
                .and_then(Value::as_text)
                .and_then(stored_time),
        }
    }
}

/// Reads a subject's events, newest first; those before the event of id `before`, if given.
pub fn events(namespace: &NamespaceId, subject: &str, before: Option<&str>) -> Query {
    let mut query = Query::new(Index::Primary, audit_pk(namespace, subject))
        .prefix(EVENT)
        .descending();
    query.start = before.map(|event| key_item(&audit_key(namespace, subject, event)));
    query
}

/// Reads the keys of all events of a namespace, by subject.
pub fn keys_of_all(namespace: &NamespaceId) -> Query {
    Query::new(Index::Gsi4, namespace.as_str()).prefix(audit_pk(namespace, ""))
}

/// The id of the event with this key; later events have greater ones. `None` for other keys.
pub fn id_in(key: &Key) -> Option<&str> {
    key.sk.strip_prefix(EVENT)
}

/// A set of limits as it stands in an event's details.
pub fn limits_detail(limits: &[Limit]) -> Value {
    let detail = |limit: &Limit| {
        let mut detail = Item::from([
            ("name".into(), Value::text(limit.name().as_str())),
            ("capacity".into(), Value::int(limit.capacity())),
            ("refill_amount".into(), Value::int(limit.refill_amount())),
            (
                "refill_period_seconds".into(),
                Value::int(limit.refill_period().as_secs()),
            ),
        ]);
        detail.extend(shape(limit).into_iter().map(|(name, part)| (name, value(part))));
        Value::M(detail)
    };
    Value::L(limits.iter().map(detail).collect())
}

/// JSON as a stored value.
fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(truth),
        Json::Number(number) => Value::N(number.to_string().into()),
        Json::String(text) => Value::S(text),
        Json::Array(values) => Value::L(values.into_iter().map(value).collect()),
        Json::Object(values) => Value::M(
            values
                .into_iter()
                .map(|(name, part)| (name, value(part)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_round_trip() {
        let event = AuditEvent {
            id: "01M7ZT4WJXXM3NYR6V7H64WNW5".into(),
            subject: "$RESOURCE:gpt-4".into(),
            action: "limits_set".into(),
            principal: Some("ops".into()),
            resource: Some("gpt-4".into()),
            details: Item::from([("limits".into(), limits_detail(&[]))]),
            timestamp: stored_time("2026-11-21T19:43:18Z"),
        };
        let namespace = NamespaceId::new("dSkXlbmmfyU").unwrap();
        let put = event.put(&namespace, EpochMillis(1_795_290_198_636), 90);
        assert_eq!(AuditEvent::decode(&put.item), event);
        assert_eq!(put.item["timestamp"], Value::text("2026-11-21T19:43:18Z"));
        assert_eq!(put.item["ttl"], Value::int(1_803_066_198));
        let stub = key_item(&audit_key(&namespace, "key-1", "01X"));
        let event = AuditEvent::decode(&stub);
        assert_eq!((&*event.id, &*event.subject), ("01X", "key-1"));
        assert_eq!(event.timestamp, None);
    }
}
