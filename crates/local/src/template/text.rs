//! Scalars as text, which is what CloudFormation passes around: `true`, `5` and `"5"` differ in a template only.

use serde_json::Value;

/// The text of a scalar; lists and mappings have none.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The value with each of its scalars as text: what the properties of a custom resource are sent as.
pub fn scalars_as_text(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(scalars_as_text).collect()),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, item)| (key.clone(), scalars_as_text(item)))
                .collect(),
        ),
        other => scalar(other).map_or(Value::Null, Value::String),
    }
}

/// Whether two evaluated values are the same to CloudFormation: scalars are compared as text, keys in any order.
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, left)| right.get(key).is_some_and(|right| same(left, right)))
        }
        (Value::Null, Value::Null) => true,
        _ => match (scalar(left), scalar(right)) {
            (Some(left), Some(right)) => left == right,
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{same, scalars_as_text};

    #[test]
    fn every_scalar_becomes_text() {
        assert_eq!(
            scalars_as_text(&json!({"a": [1, true, "x"], "b": {"c": 1.5}})),
            json!({"a": ["1", "true", "x"], "b": {"c": "1.5"}})
        );
    }

    #[test]
    fn sameness_is_of_text_and_structure() {
        assert!(same(
            &json!({"a": 1, "b": [true]}),
            &json!({"b": ["true"], "a": "1"})
        ));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": 1})));
        assert!(!same(&json!([1, 2]), &json!([2, 1])));
        assert!(!same(&json!("a"), &json!(["a"])));
        assert!(!same(&json!("1.0"), &json!(1)));
    }
}
