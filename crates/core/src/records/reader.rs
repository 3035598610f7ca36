//! Reading attributes out of items, with errors that name the record, its key and the attribute.

use crate::error::{CorruptRecord, RecordError, UnsupportedFeature};
use crate::schema::key_of;
use crate::table::{Item, Value};

/// An item being read as one kind of record.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) record: &'static str,
    pub(crate) item: &'a Item,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(record: &'static str, item: &'a Item) -> Self {
        Self { record, item }
    }

    fn key(&self) -> String {
        key_of(self.item).map_or_else(|| "an item without key".into(), |key| key.to_string())
    }

    pub(crate) fn corrupt(&self, attribute: &str, problem: impl Into<String>) -> RecordError {
        CorruptRecord {
            record: self.record,
            key: self.key(),
            attribute: attribute.into(),
            problem: problem.into(),
        }
        .into()
    }

    pub(crate) fn unsupported(&self, attribute: &str, advice: &'static str) -> RecordError {
        UnsupportedFeature {
            record: self.record,
            key: self.key(),
            attribute: attribute.into(),
            advice,
        }
        .into()
    }

    pub(crate) fn get(&self, attribute: &str) -> Option<&'a Value> {
        self.item.get(attribute)
    }

    /// A text; absent or NULL is `None`.
    pub(crate) fn text_opt(&self, attribute: &str) -> Result<Option<&'a str>, RecordError> {
        match self.get(attribute) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::S(text)) => Ok(Some(text)),
            Some(_) => Err(self.corrupt(attribute, "is not a text")),
        }
    }

    pub(crate) fn text(&self, attribute: &str) -> Result<&'a str, RecordError> {
        self.text_opt(attribute)?
            .ok_or_else(|| self.corrupt(attribute, "is missing"))
    }

    /// A truth value; absent is `None`.
    pub(crate) fn bool_opt(&self, attribute: &str) -> Result<Option<bool>, RecordError> {
        match self.get(attribute) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.corrupt(attribute, "is not a truth value")),
        }
    }

    /// An integer; absent is `None`.
    pub(crate) fn int_opt(&self, attribute: &str) -> Result<Option<i128>, RecordError> {
        match self.get(attribute) {
            None => Ok(None),
            Some(value) => value
                .as_int()
                .map(Some)
                .ok_or_else(|| self.corrupt(attribute, "is not an integer")),
        }
    }

    /// An integer within bounds; absent is `None`.
    pub(crate) fn int_within(
        &self,
        attribute: &str,
        min: i128,
        max: i128,
    ) -> Result<Option<i128>, RecordError> {
        match self.int_opt(attribute)? {
            Some(n) if n < min || n > max => {
                Err(self.corrupt(attribute, format!("is {n}, outside {min} to {max}")))
            }
            other => Ok(other),
        }
    }

    /// A 64-bit integer; absent is `None`.
    pub(crate) fn int64(&self, attribute: &str) -> Result<Option<i64>, RecordError> {
        Ok(self
            .int_within(attribute, i64::MIN.into(), i64::MAX.into())?
            .map(|n| n as i64))
    }
}
