//! The digests that clients check what they sent and received against.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::s3::md5_hex;
use crate::wire::Refusal;

/// A message's attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Attribute {
    /// `String`, `Number` or `Binary`, perhaps with a label of the user's after a dot.
    pub data_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub string_value: Option<String>,
    /// In Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_value: Option<String>,
}

impl Attribute {
    /// A text.
    pub(super) fn text(value: &str) -> Self {
        Self {
            data_type: "String".into(),
            string_value: Some(value.to_owned()),
            binary_value: None,
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        match (&self.string_value, &self.binary_value) {
            (Some(text), None) if !text.is_empty() => Ok(text.clone().into_bytes()),
            (None, Some(binary)) => STANDARD.decode(binary).map_err(|err| err.to_string()),
            _ => Err("it needs either a StringValue or a BinaryValue that is not empty".into()),
        }
    }

    /// Checks its type and value.
    pub(super) fn check(&self, name: &str) -> Result<(), Refusal> {
        let kind = self.data_type.split('.').next().unwrap_or_default();
        let fits = match kind {
            "String" => self.string_value.is_some(),
            "Number" => self
                .string_value
                .as_ref()
                .is_some_and(|text| text.parse::<f64>().is_ok()),
            "Binary" => self.binary_value.is_some(),
            _ => false,
        };
        let value = self.bytes();
        match (fits, value) {
            (true, Ok(_)) => Ok(()),
            (_, Err(why)) => Err(invalid(name, &why)),
            (false, Ok(_)) => Err(invalid(
                name,
                &format!("its value is not of type {}", self.data_type),
            )),
        }
    }
}

fn invalid(name: &str, why: &str) -> Refusal {
    Refusal::new(
        "InvalidParameterValue",
        format!("The message attribute '{name}' is invalid: {why}"),
    )
}

/// The MD5 of attributes: names, types and values in the names' order, each after its length.
pub(super) fn of_attributes(attributes: &BTreeMap<String, Attribute>) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut text = Vec::new();
    let mut push = |marker: &[u8], bytes: &[u8]| {
        text.extend(marker);
        text.extend((bytes.len() as u32).to_be_bytes());
        text.extend(bytes);
    };
    for (name, attribute) in attributes {
        let marker = if attribute.binary_value.is_some() { 2 } else { 1 };
        push(&[], name.as_bytes());
        push(&[], attribute.data_type.as_bytes());
        // Values were checked when they came.
        push(&[marker], &attribute.bytes().unwrap_or_default());
    }
    Some(md5_hex(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_the_digest_that_clients_compute() {
        let attributes = BTreeMap::from([("a".to_owned(), Attribute::text("b"))]);
        let text = b"\0\0\0\x01a\0\0\0\x06String\x01\0\0\0\x01b";
        assert_eq!(of_attributes(&attributes), Some(md5_hex(text)));
        assert_eq!(of_attributes(&BTreeMap::new()), None);
    }

    #[test]
    fn values_must_fit_their_types() {
        let attribute = |kind: &str, text: Option<&str>, binary: Option<&str>| Attribute {
            data_type: kind.into(),
            string_value: text.map(str::to_owned),
            binary_value: binary.map(str::to_owned),
        };
        for good in [
            attribute("String.mine", Some("x"), None),
            attribute("Number", Some("-1.5"), None),
            attribute("Binary", None, Some("AAE=")),
        ] {
            good.check("n").unwrap();
        }
        for bad in [
            attribute("String", None, None),
            attribute("String", Some(""), None),
            attribute("Number", Some("x"), None),
            attribute("Binary", None, Some("?")),
            attribute("Binary", Some("x"), None),
            attribute("Other", Some("x"), None),
        ] {
            assert_eq!(
                bad.check("n").unwrap_err().code,
                "InvalidParameterValue",
                "{bad:?}"
            );
        }
    }
}
