//! JSON, with duplicate keys refused; `serde_json` itself would let the last one win.

use std::fmt;

use serde::de::{Deserialize as _, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::super::error::TemplateError;
use super::MAX_DEPTH;

pub(super) fn read(text: &str) -> Result<Value, TemplateError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Node { depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| not_well_formed(&error))
}

fn not_well_formed(error: &serde_json::Error) -> TemplateError {
    let (line, column) = (error.line(), error.column());
    let said = error.to_string();
    let reason = said
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&said);
    TemplateError::format(format_args!("JSON not well-formed: {reason}")).at(line, column)
}

/// Reads one value that lies `depth` containers deep.
struct Node {
    depth: usize,
}

impl Node {
    fn below<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth < MAX_DEPTH {
            Ok(self.depth + 1)
        } else {
            Err(E::custom(format_args!(
                "nested more than {MAX_DEPTH} levels deep"
            )))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.below()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(Node { depth })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.below()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key_seed(Key)? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key '{key}'")));
            }
            let value = access.next_value_seed(Node { depth })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Reads one key.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::read;

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(read(text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn values_keep_their_types_and_order() {
        let value = read(r#"{"b": [1, -2, 1.5, true, "x\u00e9\/", null], "a": {}}"#).unwrap();
        assert_eq!(value, json!({"b": [1, -2, 1.5, true, "xé/", null], "a": {}}));
        assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ["b", "a"]);
    }

    #[test]
    fn mistakes_have_positions() {
        refused(
            "{\n  \"a\": 1,\n  \"a\": 2}",
            "Template format error: JSON not well-formed: duplicate key 'a' (line 3, column 5)",
        );
        refused(
            "{\"a\": }",
            "Template format error: JSON not well-formed: expected value (line 1, column 7)",
        );
        refused(
            "{} {}",
            "Template format error: JSON not well-formed: trailing characters (line 1, column 4)",
        );
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = |levels: usize| format!("{{\"a\": {}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(read(&deep(100)).is_ok());
        assert!(
            read(&deep(101))
                .unwrap_err()
                .to_string()
                .contains("nested more than 100 levels deep")
        );
        assert!(read(&"[".repeat(50_000)).is_err());
    }
}
