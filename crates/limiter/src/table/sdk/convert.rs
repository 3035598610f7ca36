//! Values and items of the core to those of the SDK, and back. Texts are moved, not copied.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use zae_limiter_core::table::{Applied, FailureKind, Item, Key, TableError, Value};

use crate::table::render::{Aliases, PK, SK, push_alias};

/// A value in the SDK's form.
///
/// # Errors
/// A value of a type that the core does not model was read from somewhere and cannot be written back.
pub(super) fn to_attribute(value: Value) -> Result<AttributeValue, TableError> {
    Ok(match value {
        Value::S(text) => AttributeValue::S(text),
        Value::N(digits) => AttributeValue::N(digits.into()),
        Value::Bool(truth) => AttributeValue::Bool(truth),
        Value::Null => AttributeValue::Null(true),
        Value::M(map) => AttributeValue::M(to_attributes(map)?),
        Value::L(list) => AttributeValue::L(list.into_iter().map(to_attribute).collect::<Result<_, _>>()?),
        Value::Ss(set) => AttributeValue::Ss(set.into_iter().collect()),
        Value::Other => {
            return Err(TableError::new(
                FailureKind::BadRequest,
                Applied::No,
                "a value of a type that this library does not read cannot be written or compared",
            ));
        }
    })
}

/// An item, or a map inside one, in the SDK's form.
pub(super) fn to_attributes(item: Item) -> Result<HashMap<String, AttributeValue>, TableError> {
    item.into_iter()
        .map(|(name, value)| Ok((name, to_attribute(value)?)))
        .collect()
}

/// Names and values of an expression's aliases in the SDK's form: `None` when there are none.
pub(super) struct SdkAliases {
    pub(super) names: Option<HashMap<String, String>>,
    pub(super) values: Option<HashMap<String, AttributeValue>>,
}

impl SdkAliases {
    /// The aliases in the SDK's form.
    pub(super) fn of(aliases: Aliases) -> Result<Self, TableError> {
        let alias = |sigil, i| {
            let mut text = String::with_capacity(4);
            push_alias(&mut text, sigil, i);
            text
        };
        let names = aliases.names.into_iter().enumerate();
        let names: HashMap<_, _> = names.map(|(i, name)| (alias('#', i), name.into())).collect();
        let values = aliases.values.into_iter().enumerate();
        let values = values.map(|(i, value)| Ok((alias(':', i), to_attribute(value)?)));
        let values = values.collect::<Result<HashMap<_, _>, TableError>>()?;
        Ok(Self {
            names: (!names.is_empty()).then_some(names),
            values: (!values.is_empty()).then_some(values),
        })
    }
}

/// A primary key in the SDK's form.
pub(super) fn to_key(key: Key) -> HashMap<String, AttributeValue> {
    HashMap::from([
        (PK.to_owned(), AttributeValue::S(key.pk)),
        (SK.to_owned(), AttributeValue::S(key.sk.into())),
    ])
}

/// A value of the SDK as the core models it.
pub(super) fn from_attribute(value: AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => Value::S(text),
        AttributeValue::N(digits) => Value::N(digits.into()),
        AttributeValue::Bool(truth) => Value::Bool(truth),
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::M(map) => Value::M(from_attributes(map)),
        AttributeValue::L(list) => Value::L(list.into_iter().map(from_attribute).collect()),
        AttributeValue::Ss(set) => Value::Ss(set.into_iter().collect()),
        _ => Value::Other,
    }
}

/// An item of the SDK as the core models it.
pub(super) fn from_attributes(item: HashMap<String, AttributeValue>) -> Item {
    item.into_iter()
        .map(|(name, value)| (name, from_attribute(value)))
        .collect::<BTreeMap<_, _>>()
}
