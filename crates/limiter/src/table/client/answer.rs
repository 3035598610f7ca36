//! Bodies of answers, read in one pass into the values of the core.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use smol_str::SmolStr;
use zae_limiter_core::table::{Applied, FailureKind, Item, Key, TableError, Value};

use crate::table::render::{PK, SK};

/// Reads the body of a successful answer.
///
/// # Errors
/// If it is not DynamoDB's. A write may have happened.
pub(in crate::table) fn read<T: DeserializeOwned>(operation: &str, body: &[u8]) -> Result<T, TableError> {
    serde_json::from_slice(body).map_err(|err| {
        let message = format!("the answer to {operation} cannot be read: {err}; it may come from a proxy");
        TableError::new(FailureKind::Internal, Applied::Unknown, message)
    })
}

/// Attribute values by name: an item, or its key.
#[derive(Debug, Default)]
pub(in crate::table) struct Attributes(pub(in crate::table) Item);

/// One attribute value.
struct Attribute(Value);

/// Capacity units.
#[derive(Debug, Deserialize)]
pub(in crate::table) struct Capacity {
    #[serde(rename = "CapacityUnits")]
    units: Option<f64>,
}

impl Capacity {
    /// The units of all.
    pub(in crate::table) fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> f64 {
        all.into_iter().filter_map(|capacity| capacity.units).sum()
    }
}

/// The answer to `GetItem`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::table) struct Got {
    pub(in crate::table) item: Option<Attributes>,
    pub(in crate::table) consumed_capacity: Option<Capacity>,
}

/// The answer to `BatchGetItem`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::table) struct BatchGot {
    pub(in crate::table) responses: Option<BTreeMap<String, Vec<Attributes>>>,
    pub(in crate::table) unprocessed_keys: Option<BTreeMap<String, Unread>>,
    pub(in crate::table) consumed_capacity: Option<Vec<Capacity>>,
}

/// Keys that were not read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::table) struct Unread {
    pub(in crate::table) keys: Option<Vec<Attributes>>,
}

/// The answer to `Query`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::table) struct Found {
    pub(in crate::table) items: Option<Vec<Attributes>>,
    pub(in crate::table) last_evaluated_key: Option<Attributes>,
    pub(in crate::table) consumed_capacity: Option<Capacity>,
}

/// The answer to `UpdateItem`, `PutItem` and `DeleteItem`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::table) struct Written {
    pub(in crate::table) attributes: Option<Attributes>,
    pub(in crate::table) consumed_capacity: Option<Capacity>,
}

/// The answer to `BatchWriteItem`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::table) struct BatchWritten {
    pub(in crate::table) unprocessed_items: Option<BTreeMap<String, Vec<Unwritten>>>,
    pub(in crate::table) consumed_capacity: Option<Vec<Capacity>>,
}

/// A write that was not made.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::table) struct Unwritten {
    pub(in crate::table) delete_request: Option<UnwrittenDelete>,
}

/// A delete that was not made.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::table) struct UnwrittenDelete {
    pub(in crate::table) key: Attributes,
}

/// The answer to `TransactWriteItems`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::table) struct Transacted {
    pub(in crate::table) consumed_capacity: Option<Vec<Capacity>>,
}

/// Why a part of a transaction was not done.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::table) struct Reason {
    pub(in crate::table) code: Option<String>,
    pub(in crate::table) item: Option<Attributes>,
}

impl Attributes {
    /// The primary key, if this has one.
    pub(in crate::table) fn into_key(mut self) -> Option<Key> {
        match (self.0.remove(PK), self.0.remove(SK)) {
            (Some(Value::S(pk)), Some(Value::S(sk))) => Some(Key { pk, sk: sk.into() }),
            _ => None,
        }
    }
}

/// An error that the service answered with.
#[derive(Debug, Default)]
pub(in crate::table) struct ServiceError {
    pub(in crate::table) status: u16,
    /// `ThrottlingException`; empty if the answer has none.
    pub(in crate::table) code: String,
    pub(in crate::table) message: Option<String>,
    /// The id of the request, which AWS support asks for.
    id: Option<String>,
    /// The stored item, of a condition that did not hold.
    pub(in crate::table) item: Option<Attributes>,
    /// The reasons of a cancelled transaction.
    pub(in crate::table) reasons: Option<Vec<Reason>>,
}

/// The body of an error. Services and proxies write the message in one of three ways.
#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(borrow, rename = "__type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    message: Option<String>,
    #[serde(rename = "Message")]
    capital: Option<String>,
    #[serde(rename = "errorMessage")]
    long: Option<String>,
    #[serde(rename = "Item")]
    item: Option<Attributes>,
    #[serde(rename = "CancellationReasons")]
    reasons: Option<Vec<Reason>>,
}

impl ErrorBody<'_> {
    /// Reads what can be read of an error that has parts of other types: code and message.
    fn lenient(body: &serde_json::Value) -> Option<Self> {
        let text = |name: &str| body.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        body.is_object().then(|| Self {
            kind: text("__type").map(Cow::Owned),
            code: text("code").map(Cow::Owned),
            message: text("message"),
            capital: text("Message"),
            long: text("errorMessage"),
            item: None,
            reasons: None,
        })
    }
}

impl ServiceError {
    /// Reads the answer to a request that failed. `code` is that of the header `x-amzn-errortype`.
    pub(super) fn read(status: u16, id: Option<String>, code: Option<String>, body: &[u8]) -> Self {
        let mut error = Self {
            status,
            id,
            ..Self::default()
        };
        let lenient = || ErrorBody::lenient(&serde_json::from_slice(body).ok()?);
        let body: Option<ErrorBody<'_>> = serde_json::from_slice(body).ok().or_else(lenient);
        let told = code.map(Cow::Owned).or_else(|| {
            let body = body.as_ref()?;
            body.code.clone().or_else(|| body.kind.clone())
        });
        // `com.amazonaws.dynamodb.v20120810#ThrottlingException:http://internal/`
        let told = told.unwrap_or_default();
        let code = told.split(':').next().unwrap_or_default();
        code.rsplit('#')
            .next()
            .unwrap_or_default()
            .clone_into(&mut error.code);
        if let Some(body) = body {
            error.message = body.message.or(body.capital).or(body.long);
            error.item = body.item;
            error.reasons = body.reasons;
        }
        error
    }

    pub(super) fn are_credentials_expired(&self) -> bool {
        matches!(&*self.code, "ExpiredToken" | "ExpiredTokenException")
    }

    /// Adds a remark to the message.
    pub(super) fn add(&mut self, remark: &str) {
        let message = self.message.get_or_insert_default();
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(remark);
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP status {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, ", {}", self.code)?;
        }
        if let Some(id) = &self.id {
            write!(f, ", request {id}")?;
        }
        Ok(())
    }
}

impl Error for ServiceError {}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("attribute values by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
                let mut item = Item::new();
                while let Some((name, Attribute(value))) = map.next_entry()? {
                    item.insert(name, value);
                }
                Ok(item)
            }
        }
        from.deserialize_map(Names).map(Self)
    }
}

/// The text of a number, which is short enough to need no memory of its own.
struct Digits(SmolStr);

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = SmolStr;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<SmolStr, E> {
                Ok(SmolStr::new(text))
            }
        }
        from.deserialize_str(Text).map(Self)
    }
}

/// The types of attribute values.
#[derive(Deserialize)]
enum Type {
    S,
    N,
    #[serde(rename = "BOOL")]
    Bool,
    #[serde(rename = "NULL")]
    Null,
    M,
    L,
    #[serde(rename = "SS")]
    Ss,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Typed;
        impl<'de> Visitor<'de> for Typed {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attribute value, such as {\"N\":\"1\"}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut found = None;
                while let Some(type_) = map.next_key::<Type>()? {
                    // Members that are null stand for types that the value does not have.
                    let value = match type_ {
                        Type::S => map.next_value::<Option<String>>()?.map(Value::S),
                        Type::N => map
                            .next_value::<Option<Digits>>()?
                            .map(|digits| Value::N(digits.0)),
                        Type::Bool => map.next_value::<Option<bool>>()?.map(Value::Bool),
                        Type::Null => map.next_value::<Option<bool>>()?.map(|_| Value::Null),
                        Type::M => map.next_value::<Option<Attributes>>()?.map(|map| Value::M(map.0)),
                        Type::L => {
                            let list = map.next_value::<Option<Vec<Attribute>>>()?;
                            list.map(|list| {
                                Value::L(list.into_iter().map(|Attribute(value)| value).collect())
                            })
                        }
                        Type::Ss => map.next_value::<Option<BTreeSet<String>>>()?.map(Value::Ss),
                        Type::Other => map.next_value::<Option<IgnoredAny>>()?.map(|_| Value::Other),
                    };
                    if value.is_some() && found.is_some() {
                        return Err(serde::de::Error::custom("an attribute value has two types"));
                    }
                    found = found.or(value);
                }
                found.ok_or_else(|| serde::de::Error::custom("an attribute value has no type"))
            }
        }
        from.deserialize_map(Typed).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_type_are_read() {
        let written: Got = read(
            "GetItem",
            br#"{"Item":{"s":{"S":"a\"\u00e9"},"n":{"N":"-1.5"},"b":{"BOOL":true},"z":{"NULL":true},
                "m":{"M":{"k":{"S":""}}},"l":{"L":[{"N":"1"},{"L":[]}]},"ss":{"SS":["b","a"]},
                "bin":{"B":"AAE="},"ns":{"NS":["1"]},"new":{"X":[{}]},"nulls":{"N":null,"S":"x","M":null}},"More":{"x":[1]}}"#,
        )
        .unwrap();
        let item = written.item.unwrap().0;
        let inner = BTreeMap::from([("k".to_owned(), Value::text(""))]);
        for (name, value) in [
            ("s", Value::text("a\"é")),
            ("n", Value::N("-1.5".into())),
            ("b", Value::Bool(true)),
            ("z", Value::Null),
            ("m", Value::M(inner)),
            ("l", Value::L(vec![Value::int(1), Value::L(Vec::new())])),
            ("ss", Value::Ss(BTreeSet::from(["a".to_owned(), "b".to_owned()]))),
            ("bin", Value::Other),
            ("ns", Value::Other),
            ("new", Value::Other),
            ("nulls", Value::text("x")),
        ] {
            assert_eq!(item[name], value, "{name}");
        }
    }

    #[test]
    fn what_is_not_an_answer_is_an_error_and_leaves_a_write_in_doubt() {
        let nested = format!(
            r#"{{"Attributes":{{"a":{}{}}}}}"#,
            r#"{"L":["#.repeat(200),
            "]}".repeat(200)
        );
        for body in [
            "<html>",
            "[]",
            "1",
            "{",
            r#"{"Attributes":[]}"#,
            r#"{"Attributes":{"a":1}}"#,
            r#"{"Attributes":{"a":{}}}"#,
            r#"{"Attributes":{"a":{"S":1}}}"#,
            r#"{"Attributes":{"a":{"S":"x","N":"1"}}}"#,
            &nested,
        ] {
            let err = read::<Written>("UpdateItem", body.as_bytes()).unwrap_err();
            assert_eq!(
                (err.kind, err.applied),
                (FailureKind::Internal, Applied::Unknown),
                "{body}"
            );
            assert!(
                err.message
                    .starts_with("the answer to UpdateItem cannot be read: "),
                "{err}"
            );
        }
    }

    #[test]
    fn errors_are_read_as_services_and_proxies_write_them() {
        let read = |header: Option<&str>, body: &str| {
            let err = ServiceError::read(400, None, header.map(str::to_owned), body.as_bytes());
            (err.code, err.message)
        };
        let of = |code: &str, message: Option<&str>| (code.to_owned(), message.map(str::to_owned));
        assert_eq!(
            read(
                None,
                r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow"}"#
            ),
            of("ThrottlingException", Some("slow"))
        );
        assert_eq!(
            read(
                None,
                r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"no"}"#
            ),
            of("AccessDeniedException", Some("no"))
        );
        assert_eq!(
            read(Some("Foo:http://internal/"), r#"{"code":"Bar"}"#),
            of("Foo", None)
        );
        assert_eq!(
            read(None, r#"{"code":"Bar","__type":"Foo","errorMessage":"m"}"#),
            of("Bar", Some("m"))
        );
        assert_eq!(read(None, "<html>"), of("", None));
        assert_eq!(read(None, r#"{"__type":1}"#), of("", None));
        assert_eq!(
            read(
                None,
                r#"{"code":400,"__type":"a#ThrottlingException","message":"slow","Item":7}"#
            ),
            of("ThrottlingException", Some("slow"))
        );
        assert_eq!(read(None, ""), of("", None));
    }

    /// Reads these bytes as every kind of answer.
    fn read_all(bytes: &[u8]) {
        let _ = read::<Got>("", bytes);
        let _ = read::<BatchGot>("", bytes);
        let _ = read::<Found>("", bytes);
        let _ = read::<Written>("", bytes);
        let _ = read::<BatchWritten>("", bytes);
        let _ = read::<Transacted>("", bytes);
        let _ = ServiceError::read(400, None, None, bytes);
    }

    #[test]
    fn hostile_answers_are_read_or_refused() {
        let samples: [&[u8]; 6] = [
            br##"{"Attributes":{"PK":{"S":"ns/BUCKET#k#r#0"},"SK":{"S":"#STATE"},"b_rpm_tk":{"N":"-1000"},"l":{"L":[{"BOOL":true}]}}}"##,
            br#"{"Responses":{"t":[{"PK":{"S":"p"},"m":{"M":{"a":{"NULL":true}}}}]},"UnprocessedKeys":{"t":{"Keys":[{"PK":{"S":"p"}}]}}}"#,
            br#"{"Items":[{"ss":{"SS":["a","b"]},"b":{"B":"AA=="}}],"LastEvaluatedKey":{"PK":{"S":"\ud83d\ude00"}}}"#,
            br#"{"__type":"x#ConditionalCheckFailedException","message":"m","Item":{"n":{"N":"1"}}}"#,
            br#"{"__type":"TransactionCanceledException","CancellationReasons":[{"Code":"None"},{"Code":"x","Item":{}}]}"#,
            br#"{"UnprocessedItems":{"t":[{"DeleteRequest":{"Key":{"PK":{"S":"p"}}}}]},"ConsumedCapacity":[{"CapacityUnits":1.5e3}]}"#,
        ];
        let runs = std::env::var("ZAE_LIMITER_HOSTILE_RUNS").map_or(20_000, |runs| runs.parse().unwrap());
        let seed = fastrand::u64(..);
        println!("{runs} answers, seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..runs {
            let mut bytes = samples[random.usize(..samples.len())].to_vec();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                match random.u8(..6) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes[at] = *random.choice(br#"{}[]":,\u0-e.tfn"#).unwrap_or(&b'{'),
                    2 => {
                        bytes.remove(at);
                    }
                    3 => bytes.insert(at, random.u8(..)),
                    4 => bytes.truncate(at.max(1)),
                    _ => {
                        let end = random.usize(at..bytes.len());
                        let part = bytes[at..end].to_vec();
                        let to = random.usize(..bytes.len());
                        bytes.splice(to..to, part);
                    }
                }
                if bytes.is_empty() {
                    bytes.push(b'{');
                }
            }
            read_all(&bytes);
        }
    }
}
