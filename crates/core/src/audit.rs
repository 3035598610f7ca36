//! Audit events: who changed what, when. Data model, section 10.

use crate::limit::Limit;
use crate::name::{NamespaceId, ResourceName};
use crate::schema::{add_namespace_index, audit_key, key_item};
use crate::table::{Condition, Item, Put, Value};
use crate::units::EpochMillis;

/// Days that an event is kept unless configured otherwise.
pub const DEFAULT_RETENTION_DAYS: i64 = 90;

/// What an event is about, as it stands in keys: an entity id, `$SYSTEM`, or `$RESOURCE:{resource}`.
pub fn resource_subject(resource: &ResourceName) -> String {
    format!("$RESOURCE:{resource}")
}

/// The subject of changes to the system level.
pub const SYSTEM_SUBJECT: &str = "$SYSTEM";

/// One change, on its way to the log.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    /// A ULID: unique, and sorted by time.
    pub id: String,
    /// What it is about.
    pub subject: String,
    /// What was done, such as `limits_set`.
    pub action: &'static str,
    /// Who did it.
    pub principal: Option<String>,
    /// The resource concerned.
    pub resource: Option<String>,
    /// Particulars of the action.
    pub details: Item,
    /// When.
    pub at: EpochMillis,
}

impl AuditEvent {
    /// The write that logs it.
    pub fn put(&self, namespace: &NamespaceId, retention_days: i64) -> Put {
        let key = audit_key(namespace, &self.subject, &self.id);
        let text = |text: &Option<String>| text.as_ref().map_or(Value::Null, Value::text);
        let mut item = key_item(&key);
        item.insert("event_id".into(), Value::text(&self.id));
        item.insert("entity_id".into(), Value::text(&self.subject));
        item.insert("timestamp".into(), Value::S(self.at.to_text()));
        item.insert("action".into(), Value::text(self.action));
        item.insert("principal".into(), text(&self.principal));
        item.insert("resource".into(), text(&self.resource));
        item.insert("details".into(), Value::M(self.details.clone()));
        let ttl = self
            .at
            .secs()
            .saturating_add(retention_days.saturating_mul(86_400));
        item.insert("ttl".into(), Value::int(ttl));
        add_namespace_index(&mut item, namespace.as_str(), &key.pk);
        Put {
            item,
            condition: Condition::ALWAYS,
        }
    }
}

/// A set of limits as it stands in an event's details.
pub fn limits_detail(limits: &[Limit]) -> Value {
    let detail = |limit: &Limit| {
        Value::M(Item::from([
            ("name".into(), Value::text(limit.name().as_str())),
            ("capacity".into(), Value::int(limit.capacity())),
            ("refill_amount".into(), Value::int(limit.refill_amount())),
            (
                "refill_period_seconds".into(),
                Value::int(limit.refill_period_secs()),
            ),
        ]))
    };
    Value::L(limits.iter().map(detail).collect())
}
