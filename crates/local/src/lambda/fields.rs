//! The fields of a request, read one by one. Fields that no reader asks for are refused by name.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value as Json};

use super::refusal;
use crate::wire::Refusal;

/// The fields of a request or of a structure in it. Numbers and booleans may come as text, as in templates.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    /// Its name in errors: nothing at the top, `Code.` inside.
    path: String,
    fields: &'a Map<String, Json>,
}

impl<'a> Fields<'a> {
    /// The fields of a request. Those not in `known` must hold nothing.
    pub(crate) fn read(request: &'a Json, known: &[&str]) -> Result<Self, Refusal> {
        Self::of(String::new(), request, known)
    }

    fn of(path: String, value: &'a Json, known: &[&str]) -> Result<Self, Refusal> {
        let Json::Object(fields) = value else {
            let what = if path.is_empty() {
                "the request"
            } else {
                path.trim_end_matches('.')
            };
            return Err(refusal(format!("{what} must be a structure, not {value}")));
        };
        for (name, value) in fields {
            if !known.contains(&name.as_str()) && !is_nothing(value) {
                return Err(refusal(format!(
                    "the local endpoint does not support {path}{name}; leave it out"
                )));
            }
        }
        Ok(Self { path, fields })
    }

    fn get(&self, name: &str) -> Option<&'a Json> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, value: &Json, right: &str) -> Refusal {
        refusal(format!("{}{name} is {value}; it must be {right}", self.path))
    }

    /// Whether it was given at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A structure inside.
    pub(crate) fn inner(&self, name: &str, known: &[&str]) -> Result<Option<Self>, Refusal> {
        self.get(name)
            .map(|value| Self::of(format!("{}{name}.", self.path), value, known))
            .transpose()
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.get(name)
            .map(|value| value.as_str().ok_or_else(|| self.wrong(name, value, "text")))
            .transpose()
    }

    /// A text that must be there.
    pub(crate) fn need(&self, name: &str) -> Result<&'a str, Refusal> {
        self.text(name)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| refusal(format!("{}{name} is missing; give it a value", self.path)))
    }

    /// One of some texts.
    pub(crate) fn one_of(&self, name: &str, allowed: &[&str]) -> Result<Option<&'a str>, Refusal> {
        match self.text(name)? {
            Some(text) if !allowed.contains(&text) => {
                let right = format!("one of {}", allowed.join(", "));
                Err(self.wrong(name, &Json::from(text), &right))
            }
            found => Ok(found),
        }
    }

    /// A whole number within bounds.
    pub(crate) fn number(&self, name: &str, bounds: RangeInclusive<i64>) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = match value {
            Json::String(text) => text.parse().ok(),
            other => other.as_i64(),
        };
        match number {
            Some(number) if bounds.contains(&number) => Ok(Some(number)),
            _ => {
                let right = format!("a whole number from {} to {}", bounds.start(), bounds.end());
                Err(self.wrong(name, value, &right))
            }
        }
    }

    /// Yes or no.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value {
            Json::Bool(flag) => Ok(Some(*flag)),
            Json::String(text) if text == "true" => Ok(Some(true)),
            Json::String(text) if text == "false" => Ok(Some(false)),
            other => Err(self.wrong(name, other, "true or false")),
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let texts = value
            .as_array()
            .and_then(|items| items.iter().map(Json::as_str).collect::<Option<Vec<_>>>());
        texts
            .map(Some)
            .ok_or_else(|| self.wrong(name, value, "a list of texts"))
    }

    /// A list of structures.
    pub(crate) fn structures(&self, name: &str, known: &[&str]) -> Result<Option<Vec<Self>>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let items = value
            .as_array()
            .ok_or_else(|| self.wrong(name, value, "a list of structures"))?;
        let read = |item| Self::of(format!("{}{name}[].", self.path), item, known);
        items.iter().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// Names and their texts; numbers and booleans become text.
    pub(crate) fn pairs(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let wrong = || self.wrong(name, value, "names, each with a text");
        let fields = value.as_object().ok_or_else(wrong)?;
        let pair = |(name, value): (&String, &Json)| {
            let text = match value {
                Json::String(text) => text.clone(),
                Json::Number(_) | Json::Bool(_) => value.to_string(),
                _ => return Err(wrong()),
            };
            Ok((name.clone(), text))
        };
        fields.iter().map(pair).collect::<Result<_, _>>().map(Some)
    }

    /// Tags, as Lambda's API has them or as templates do.
    pub(crate) fn tags(&self) -> Result<Option<BTreeMap<String, String>>, Refusal> {
        if !self.get("Tags").is_some_and(Json::is_array) {
            return self.pairs("Tags");
        }
        let tags = self.structures("Tags", &["Key", "Value"])?.unwrap_or_default();
        let pair = |tag: &Self| {
            let value = tag.text("Value")?.unwrap_or_default();
            Ok((tag.need("Key")?.to_owned(), value.to_owned()))
        };
        tags.iter().map(pair).collect::<Result<_, _>>().map(Some)
    }
}

/// Whether a value says no more than its absence would.
fn is_nothing(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => true,
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Object(fields) => fields.values().all(is_nothing),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_is_refused_unless_it_says_nothing() {
        let request = json!({"A": "x", "Layers": [], "VpcConfig": {"SubnetIds": []}, "Publish": false});
        assert!(Fields::read(&request, &["A"]).is_ok());
        let err = Fields::read(&json!({"Layers": ["l"]}), &["A"]).unwrap_err();
        assert!(err.message.contains("Layers"), "{}", err.message);
        let request = json!({"Code": {"ImageUri": "i"}});
        let fields = Fields::read(&request, &["Code"]).unwrap();
        let err = fields.inner("Code", &["S3Key"]).unwrap_err();
        assert!(err.message.contains("Code.ImageUri"), "{}", err.message);
    }

    #[test]
    fn numbers_and_booleans_may_be_text() {
        let request = json!({"N": "7", "M": 8, "B": "true", "C": false, "P": {"a": 1, "b": true, "c": "x"}});
        let fields = Fields::read(&request, &["N", "M", "B", "C", "P"]).unwrap();
        assert_eq!(fields.number("N", 1..=10).unwrap(), Some(7));
        assert_eq!(fields.number("M", 1..=10).unwrap(), Some(8));
        assert_eq!(fields.flag("B").unwrap(), Some(true));
        assert_eq!(fields.flag("C").unwrap(), Some(false));
        assert_eq!(fields.flag("Z").unwrap(), None);
        let pairs = fields.pairs("P").unwrap().unwrap();
        assert_eq!(
            pairs.into_values().collect::<Vec<_>>(),
            ["1", "true", "x"].map(String::from)
        );
        let err = fields.number("M", 1..=7).unwrap_err().message;
        assert_eq!(err, "M is 8; it must be a whole number from 1 to 7");
    }

    #[test]
    fn tags_have_two_forms() {
        let expected = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        for request in [
            json!({"Tags": {"k": "v"}}),
            json!({"Tags": [{"Key": "k", "Value": "v"}]}),
        ] {
            let fields = Fields::read(&request, &["Tags"]).unwrap();
            assert_eq!(fields.tags().unwrap(), Some(expected.clone()));
        }
    }
}
