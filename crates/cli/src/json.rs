//! What is stored, as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use zae_limiter::{AuditEvent, Entity, Limit, NamespaceRecord, UsageSnapshot};
use zae_limiter_core::limit::shape;
use zae_limiter_core::table::Value;

use crate::text::time;

/// A number of any size; one that does not fit 64 bits goes as text.
pub(crate) fn number(number: i128) -> Json {
    i64::try_from(number).map_or_else(|_| json!(number.to_string()), |number| json!(number))
}

/// A stored value.
pub(crate) fn value(stored: &Value) -> Json {
    match stored {
        Value::S(text) => json!(text),
        Value::N(digits) => match stored.as_int() {
            Some(int) => number(int),
            None => digits
                .parse::<f64>()
                .map_or_else(|_| json!(digits.as_str()), |float| json!(float)),
        },
        Value::Bool(truth) => json!(truth),
        Value::Null | Value::Other => Json::Null,
        Value::M(values) => map(values),
        Value::L(values) => values.iter().map(value).collect(),
        Value::Ss(texts) => json!(texts),
    }
}

/// Stored values by name.
pub(crate) fn map(values: &BTreeMap<String, Value>) -> Json {
    let values: Map<_, _> = values
        .iter()
        .map(|(name, stored)| (name.clone(), value(stored)))
        .collect();
    Json::Object(values)
}

/// A limit.
pub(crate) fn limit(limit: &Limit) -> Json {
    let mut parts = shape(limit);
    parts.insert("name".into(), json!(limit.name().as_str()));
    parts.insert("capacity".into(), json!(limit.capacity()));
    parts.insert("refill_amount".into(), json!(limit.refill_amount()));
    parts.insert(
        "refill_period_seconds".into(),
        json!(limit.refill_period().as_secs()),
    );
    Json::Object(parts)
}

/// Limits.
pub(crate) fn limits(limits: &[Limit]) -> Json {
    limits.iter().map(limit).collect()
}

/// An entity.
pub(crate) fn entity(entity: &Entity) -> Json {
    json!({
        "entity_id": entity.id.as_str(),
        "name": entity.name,
        "parent_id": entity.parent.as_ref().map(zae_limiter::EntityId::as_str),
        "cascade": entity.cascade,
        "created_at": entity.created_at.map(time::stored).unwrap_or_default(),
        "metadata": map(&entity.metadata),
    })
}

/// A namespace.
pub(crate) fn namespace(record: &NamespaceRecord) -> Json {
    json!({
        "name": record.name,
        "namespace_id": record.id.as_str(),
        "status": record.status.as_str(),
        "created_at": record.created_at.map(time::stored),
        "deleted_at": record.deleted_at.map(time::stored),
    })
}

/// An audit event.
pub(crate) fn event(event: &AuditEvent) -> Json {
    json!({
        "event_id": event.id,
        "entity_id": event.subject,
        "timestamp": event.timestamp.map(time::stored).unwrap_or_default(),
        "action": event.action,
        "principal": event.principal,
        "resource": event.resource,
        "details": map(&event.details),
    })
}

/// A usage snapshot.
pub(crate) fn snapshot(snapshot: &UsageSnapshot) -> Json {
    let counters: Map<_, _> = snapshot
        .counters
        .iter()
        .map(|(name, tokens)| (name.clone(), number(*tokens)))
        .collect();
    json!({
        "entity_id": snapshot.entity,
        "resource": snapshot.resource,
        "window": snapshot.window,
        "window_start": time::stored(snapshot.window_start),
        "window_end": time::stored(snapshot.window_end()),
        "total_events": number(snapshot.total_events.into()),
        "counters": counters,
    })
}
