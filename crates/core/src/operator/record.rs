//! The record of an operation, by which a repetition of the call is recognised.
//!
//! It is written in the transaction of the operation, on the condition that there is still what was read before: none of this
//! key, or that of an earlier entity of this id. So of all transactions with one key, one happens at most in a life of the
//! entity, however often each is sent, whichever answers are lost, and however late one arrives.

use std::collections::BTreeMap;
use std::fmt;

use smol_str::SmolStr;

use super::OperationResult;
use crate::error::{InvalidInput, RecordError};
use crate::name::LimitName;
use crate::records::reader::Reader;
use crate::schema::{BucketId, key_item};
use crate::table::{Condition, Item, Key, Put, Value};
use crate::units::EpochMillis;

/// How long a record is kept, in seconds: three days.
const KEPT_SECS: i64 = 3 * 86_400;

/// The life of an entity that has no record of its own, which counts as every life.
pub(super) const ANY_LIFE: &str = "-";

/// The prefix of the sort key.
const OPERATION: &str = "#OP#";

/// A name of an operation: 1 to 64 letters, digits, `.`, `_`, `:` and `-`. A call that is repeated with the same key does not
/// repeat the operation.
///
/// ```
/// use zae_limiter_core::operator::OperationKey;
///
/// assert_eq!(OperationKey::new("order:2026-11.7")?.as_str(), "order:2026-11.7");
/// assert_eq!(OperationKey::new("order#7").unwrap_err().field(), "idempotency_key");
/// # Ok::<(), zae_limiter_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OperationKey(SmolStr);

impl OperationKey {
    /// Checks a key.
    ///
    /// # Errors
    /// [`InvalidInput`] for a character that is not allowed, none, or more than 64.
    pub fn new(key: impl AsRef<str>) -> Result<Self, InvalidInput> {
        let key = key.as_ref();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if (1..=64).contains(&key.len()) && key.bytes().all(is_allowed) {
            return Ok(Self(key.into()));
        }
        let reason = "must be 1 to 64 letters, digits, '.', '_', ':' and '-'";
        Err(InvalidInput::of_request("idempotency_key", key, reason))
    }

    /// The key as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The record of one operation on one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRecord {
    /// The key of the operation.
    pub key: OperationKey,
    /// `reset` or `top_up`.
    pub kind: String,
    /// The call that wrote it: random.
    pub writer: String,
    /// The life of the entity: `-` if it had no record.
    pub incarnation: String,
    /// The effect.
    pub result: OperationResult,
}

/// What a record says about a call with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// It is of the same operation, which has happened with this effect.
    Done(OperationResult),
    /// It is of another operation.
    Other(InvalidInput),
    /// There is none, or one of an earlier entity of this id, which counts as none.
    Nothing(Replaces),
}

/// What a new record takes the place of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Replaces {
    /// There was no record.
    #[default]
    Nothing,
    /// There was one of an earlier entity of this id.
    EarlierLife(Option<String>),
}

impl Replaces {
    /// Whether there is still what was read.
    fn unchanged(&self) -> Condition {
        match self {
            Self::Nothing => Condition::Absent("PK".into()),
            Self::EarlierLife(Some(life)) => Condition::Is("ent".into(), Value::text(life)),
            Self::EarlierLife(None) => Condition::Absent("ent".into()),
        }
    }
}

impl OperationRecord {
    /// The key of the record in the table.
    pub fn table_key(id: &BucketId, key: &OperationKey) -> Key {
        Key {
            pk: id.key(0).pk,
            sk: format!("{OPERATION}{key}").into(),
        }
    }

    /// The write that records it.
    ///
    /// Guards that there is still what was read. A transaction that arrives after the entity was deleted and created again does
    /// not replace the record of the new entity, which a repetition of the call looks for.
    pub fn put(&self, id: &BucketId, replaces: &Replaces, now: EpochMillis) -> Put {
        let key = Self::table_key(id, &self.key);
        let OperationResult {
            entity,
            resource,
            shards,
            amounts,
        } = &self.result;
        let amount = |(name, amount): (&LimitName, &i64)| (name.to_string(), Value::int(*amount));
        let mut item = key_item(&key);
        let mut put = |name: &str, value| drop(item.insert(name.to_owned(), value));
        put("entity_id", Value::text(entity.as_str()));
        put("resource", Value::text(resource.as_str()));
        put("operation", Value::text(&self.kind));
        put("writer", Value::text(&self.writer));
        put("ent", Value::text(&self.incarnation));
        put("shards", Value::int(*shards));
        put("amounts", Value::M(amounts.iter().map(amount).collect()));
        put("ttl", Value::int(now.secs().saturating_add(KEPT_SECS)));
        put("GSI4PK", Value::text(id.namespace.as_str()));
        put("GSI4SK", Value::S(format!("OP#{entity}#{resource}#{}", self.key)));
        Put {
            item,
            condition: replaces.unchanged(),
        }
    }

    /// Reads what the record of a key, if there is one, says about an operation of this kind, of an entity in this life.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] if the record is damaged.
    pub fn read(item: Option<&Item>, kind: &str, incarnation: &str) -> Result<Recorded, RecordError> {
        let Some(item) = item else {
            return Ok(Recorded::Nothing(Replaces::Nothing));
        };
        let reader = Reader::new("operation", item);
        let written_for = reader.text_opt("ent")?;
        let is_ours = |life: &str| life == incarnation || life == ANY_LIFE;
        if incarnation != ANY_LIFE && !written_for.is_some_and(is_ours) {
            let life = written_for.map(str::to_owned);
            return Ok(Recorded::Nothing(Replaces::EarlierLife(life)));
        }
        let stored = reader.text("operation")?;
        if stored != kind {
            let sort = item.get("SK").and_then(Value::as_text).unwrap_or_default();
            let key = sort.strip_prefix(OPERATION).unwrap_or(sort);
            let reason =
                format!("was used for a {stored} of this entity and resource; use another key for a {kind}");
            return Ok(Recorded::Other(InvalidInput::of_request(
                "idempotency_key",
                key,
                reason,
            )));
        }
        let name = |attr: &str, err: InvalidInput| reader.corrupt(attr, err.to_string());
        let mut amounts = BTreeMap::new();
        if let Some(Value::M(stored)) = reader.get("amounts") {
            for (limit, amount) in stored {
                let limit = LimitName::new(limit).map_err(|err| name("amounts", err))?;
                let amount = amount.as_int().and_then(|amount| i64::try_from(amount).ok());
                let amount = amount.ok_or_else(|| reader.corrupt("amounts", "is not a map of integers"))?;
                amounts.insert(limit, amount);
            }
        }
        let shards = reader.int_within("shards", 0, u32::MAX.into())?.unwrap_or(0);
        let result = OperationResult {
            entity: reader
                .text("entity_id")?
                .try_into()
                .map_err(|err| name("entity_id", err))?,
            resource: reader
                .text("resource")?
                .try_into()
                .map_err(|err| name("resource", err))?,
            shards: u32::try_from(shards).unwrap_or(u32::MAX),
            amounts,
        };
        Ok(Recorded::Done(result))
    }
}
