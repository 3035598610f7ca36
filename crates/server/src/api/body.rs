//! Bodies of requests.

use std::collections::BTreeMap;
use std::fmt;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zae_limiter::{InvalidInput, OnExpiry};

use super::answer::Refused;

/// Amounts by limit, each named once.
#[derive(Debug, Default)]
pub(super) struct Amounts(pub(super) BTreeMap<String, u64>);

impl<'de> Deserialize<'de> for Amounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByLimit;

        impl<'de> Visitor<'de> for ByLimit {
            type Value = Amounts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of whole tokens by limit")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Amounts, A::Error> {
                let mut amounts = BTreeMap::new();
                while let Some(limit) = map.next_key::<String>()? {
                    let wrong = |why: String| A::Error::custom(format!("limit '{limit}' {why}"));
                    let tokens: serde_json::Value = map.next_value()?;
                    let Some(whole) = whole_number(&tokens) else {
                        return Err(wrong(format!(
                            "must be a whole number from 0 to 10^15, not {tokens}"
                        )));
                    };
                    if amounts.insert(limit.clone(), whole).is_some() {
                        return Err(wrong("is given twice".to_owned()));
                    }
                }
                Ok(Amounts(amounts))
            }
        }

        deserializer.deserialize_map(ByLimit)
    }
}

/// A number without a fraction, which `1.0` is as well in JSON Schema.
fn whole_number(json: &serde_json::Value) -> Option<u64> {
    /// Above, a float is not exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let of_float = || {
        let float = json.as_f64()?;
        let is_whole = float.fract() == 0.0 && (0.0..=EXACT).contains(&float);
        is_whole.then_some(float as u64)
    };
    json.as_u64().or_else(of_float)
}

/// Milliseconds.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Millis(pub(super) u64);

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        let wrong = || D::Error::custom(format!("must be a whole number of milliseconds, not {json}"));
        whole_number(&json).map(Self).ok_or_else(wrong)
    }
}

/// Reads objects, and not arrays of their fields.
fn objects<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let objects = Vec::<serde_json::Map<String, serde_json::Value>>::deserialize(deserializer)?;
    let read = |object| serde_json::from_value(serde_json::Value::Object(object)).map_err(D::Error::custom);
    objects.into_iter().map(read).collect()
}

/// The body of a request.
#[derive(Debug)]
pub(super) struct Received(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Received {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let bytes = Bytes::from_request(request, state).await;
        bytes.map(Self).map_err(|err| Refused::unreceived(&err))
    }
}

/// What to take: of one resource, or of several.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Acquire {
    pub(super) entity_id: String,
    pub(super) resource: String,
    pub(super) consume: Amounts,
    #[serde(default, deserialize_with = "objects")]
    pub(super) also: Vec<Also>,
    /// Whether limits go into debt instead of refusing.
    #[serde(default)]
    pub(super) overdraw: bool,
    /// How long to wait for tokens, in milliseconds.
    #[serde(default)]
    pub(super) wait_ms: Millis,
    /// Whether the answer has a lease. Without, the tokens stay consumed.
    #[serde(default = "yes")]
    pub(super) lease: bool,
    /// The time to live of the lease, in milliseconds.
    pub(super) ttl_ms: Option<Millis>,
    pub(super) on_expiry: Option<Expiry>,
}

/// A further resource.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Also {
    pub(super) resource: String,
    pub(super) consume: Amounts,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expiry {
    Keep,
    GiveBack,
}

impl From<Expiry> for OnExpiry {
    fn from(expiry: Expiry) -> Self {
        match expiry {
            Expiry::Keep => Self::Keep,
            Expiry::GiveBack => Self::GiveBack,
        }
    }
}

/// What was used.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Commit {
    #[serde(default)]
    pub(super) actual: Amounts,
    #[serde(default, deserialize_with = "objects")]
    pub(super) also: Vec<AlsoUsed>,
}

/// What was used of a further resource.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlsoUsed {
    pub(super) resource: String,
    pub(super) actual: Amounts,
}

/// Nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// A new time to live.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Extend {
    pub(super) ttl_ms: Millis,
}

/// What to look at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Look {
    pub(super) entity_id: String,
    pub(super) resource: String,
    #[serde(default)]
    pub(super) consume: Amounts,
}

/// Reads a body. The content type is not looked at: there is only one.
///
/// # Errors
/// It is not JSON of this shape. The message has the place.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    // An array of the fields in their order would be taken, too.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(Refused::body(&serde_json::Error::custom(
            "the body must be an object",
        )));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|err| {
        let field = err.path().to_string();
        Refused::body(err.inner()).of_field(&field)
    })?;
    json.end().map_err(|err| Refused::body(&err))?;
    Ok(read)
}

/// Reads a body that has a lease beside the rest.
///
/// # Errors
/// As [`read`], and if there is no lease.
pub(super) fn with_lease<T: DeserializeOwned>(body: &Bytes) -> Result<(String, T), Refused> {
    let mut json: serde_json::Map<String, serde_json::Value> = read(body)?;
    let Some(serde_json::Value::String(lease)) = json.remove("lease") else {
        let reason = "must be the lease, as a text";
        return Err(InvalidInput::of_request("lease", "", reason).into());
    };
    let rest = serde_path_to_error::deserialize(serde_json::Value::Object(json));
    let rest = rest.map_err(|err| Refused::body(err.inner()).of_field(&err.path().to_string()))?;
    Ok((lease, rest))
}

/// Reads a body that may be left out.
pub(super) fn read_or_default<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, Refused> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    read(body)
}

/// Checks that at least one limit is named.
pub(super) fn named<'a>(
    field: &str,
    amounts: &'a Amounts,
) -> Result<impl Iterator<Item = (&'a str, u64)>, Refused> {
    let amounts = &amounts.0;
    if amounts.is_empty() {
        let reason = "must name at least one limit, such as {\"rpm\": 1}";
        return Err(InvalidInput::of_request(field, "{}", reason).into());
    }
    Ok(amounts.iter().map(|(limit, tokens)| (limit.as_str(), *tokens)))
}
