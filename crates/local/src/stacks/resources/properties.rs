//! A resource's properties as they are read: texts, numbers and booleans in whatever form a template gives them.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// The properties of a resource of some type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Properties<'a> {
    kind: &'a str,
    all: &'a Json,
}

impl<'a> Properties<'a> {
    /// Reads properties of which only those named are known.
    ///
    /// # Errors
    /// The one that is not.
    pub(super) fn new(kind: &'a str, all: &'a Json, known: &[&str]) -> Result<Self, String> {
        let Some(map) = all.as_object() else {
            return Err(format!("the properties of {kind} must be a mapping"));
        };
        match map.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!(
                "the local endpoint does not support the property {name} of {kind}; it knows {}",
                known.join(", ")
            )),
            None => Ok(Self { kind, all }),
        }
    }

    /// Properties of which any may be there, for looking only at those that are known.
    pub(super) fn unchecked(kind: &'a str, all: &'a Json) -> Self {
        Self { kind, all }
    }

    /// A property as it stands.
    pub(super) fn get(&self, name: &str) -> Option<&'a Json> {
        self.all.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, wanted: &str) -> String {
        let value = self.get(name).cloned().unwrap_or(Json::Null);
        format!("{name} of {} is {value}; it must be {wanted}", self.kind)
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => scalar(value).map(Some).ok_or_else(|| self.wrong(name, "a text")),
        }
    }

    /// A whole number.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, String> {
        match self.text(name)? {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(self.wrong(name, "a whole number")),
            },
        }
    }

    /// The tags, given as a list of keys and values.
    pub(super) fn tags(&self) -> Result<BTreeMap<String, String>, String> {
        let Some(value) = self.get("Tags") else {
            return Ok(BTreeMap::new());
        };
        let list = value.as_array().ok_or_else(|| self.wrong("Tags", "a list"))?;
        list.iter()
            .map(|tag| {
                let key = tag.get("Key").and_then(scalar);
                let value = tag.get("Value").and_then(scalar);
                key.zip(value)
                    .ok_or_else(|| self.wrong("Tags", "a list of mappings with Key and Value"))
            })
            .collect()
    }
}

/// A scalar as text.
pub(super) fn scalar(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// The same with every text that is `true` or `false` as a boolean, and those that are whole numbers as numbers, below
/// the names given: as required by services that are stricter than templates.
pub(super) fn typed(value: &Json, booleans: &[&str], numbers: &[&str]) -> Json {
    match value {
        Json::Object(map) => map
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    Json::String(text) if booleans.contains(&name.as_str()) => match text.as_str() {
                        "true" => Json::Bool(true),
                        "false" => Json::Bool(false),
                        _ => value.clone(),
                    },
                    Json::String(text) if numbers.contains(&name.as_str()) => {
                        text.parse::<i64>().map_or_else(|_| value.clone(), Json::from)
                    }
                    other => typed(other, booleans, numbers),
                };
                (name.clone(), value)
            })
            .collect(),
        Json::Array(list) => list.iter().map(|item| typed(item, booleans, numbers)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_come_in_any_form() {
        let all = json!({"A": "5", "B": 5, "C": "true", "D": false, "Tags": [{"Key": "k", "Value": 1}]});
        let properties = Properties::new("T", &all, &["A", "B", "C", "D", "Tags"]).unwrap();
        assert_eq!(properties.integer("A").unwrap(), Some(5));
        assert_eq!(properties.integer("B").unwrap(), Some(5));
        assert_eq!(properties.text("C").unwrap().as_deref(), Some("true"));
        assert_eq!(properties.text("D").unwrap().as_deref(), Some("false"));
        assert_eq!(properties.tags().unwrap()["k"], "1");
        assert!(properties.integer("C").unwrap_err().contains("a whole number"));
        assert_eq!(properties.text("E").unwrap(), None);
    }

    #[test]
    fn unknown_properties_are_refused_by_name() {
        let err = Properties::new("AWS::X::Y", &json!({"A": 1}), &["B"]).unwrap_err();
        assert!(err.contains("property A of AWS::X::Y"), "{err}");
    }
}
