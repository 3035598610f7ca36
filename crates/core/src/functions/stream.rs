//! Records of the table's stream, as its functions receive them.
//!
//! A record describes one change of one item: what it was, what it is, when it changed, and where in the stream
//! that stands. Format: *DynamoDB Streams*, event of Lambda.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value as Json;
use smol_str::SmolStr;

use crate::schema::key_of;
use crate::table::{Item, Key, Value};
use crate::units::EpochMillis;

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was created.
    Insert,
    /// It was changed.
    Modify,
    /// It was deleted, or expired.
    Remove,
}

/// Where a record stands in the stream: a decimal number of any length, which rises with the changes of an item.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sequence(SmolStr);

impl Sequence {
    /// Reads a sequence number; `None` unless it is digits only.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_digit());
        let text = text.trim_start_matches('0');
        digits.then(|| Self(if text.is_empty() { "0" } else { text }.into()))
    }

    /// Its digits, without leading zeros.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for Sequence {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), &*self.0).cmp(&(other.0.len(), &*other.0))
    }
}

impl PartialOrd for Sequence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One change of one item.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamRecord {
    /// The kind of the change.
    pub change: Change,
    /// Where it stands in the stream.
    pub sequence: Sequence,
    /// The sequence number as it was received, to name the record by.
    pub name: String,
    /// About when, as the stream says: to the second.
    pub at: EpochMillis,
    /// The item before; `None` if it was created.
    pub old: Option<Item>,
    /// The item after; `None` if it was removed.
    pub new: Option<Item>,
}

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord(String);

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRecord {}

impl StreamRecord {
    /// Reads a record as Lambda delivers it.
    ///
    /// # Errors
    /// [`BadRecord`] if it lacks its kind, its sequence number or its time, or if an image is not an item.
    pub fn from_json(record: &Json) -> Result<Self, BadRecord> {
        let change = match record["eventName"].as_str() {
            Some("INSERT") => Change::Insert,
            Some("MODIFY") => Change::Modify,
            Some("REMOVE") => Change::Remove,
            other => return Err(BadRecord(format!("eventName is {other:?}"))),
        };
        let body = &record["dynamodb"];
        let name = body["SequenceNumber"].as_str().unwrap_or_default();
        let sequence = Sequence::parse(name)
            .ok_or_else(|| BadRecord(format!("SequenceNumber is '{name}', which is not a number")))?;
        // Seconds; some senders give a fraction.
        let at = body["ApproximateCreationDateTime"]
            .as_f64()
            .filter(|secs| (0.0..1e11).contains(secs))
            .ok_or_else(|| BadRecord("ApproximateCreationDateTime is not a time".into()))?;
        let image = |name: &str| match &body[name] {
            Json::Null => Ok(None),
            Json::Object(attributes) => item(attributes).map(Some),
            _ => Err(BadRecord(format!("{name} is not an item"))),
        };
        Ok(Self {
            change,
            sequence,
            name: name.to_owned(),
            at: EpochMillis((at * 1000.0) as i64),
            old: image("OldImage")?,
            new: image("NewImage")?,
        })
    }

    /// The item's key, as its images say.
    pub fn key(&self) -> Option<Key> {
        key_of(self.new.as_ref().or(self.old.as_ref())?)
    }
}

fn item(attributes: &serde_json::Map<String, Json>) -> Result<Item, BadRecord> {
    attributes
        .iter()
        .map(|(name, typed)| {
            let value = value(typed).ok_or_else(|| BadRecord(format!("attribute {name} is {typed}")))?;
            Ok((name.clone(), value))
        })
        .collect()
}

/// Reads `{"S": "text"}` and the other types. `None` if it is not a typed value.
fn value(typed: &Json) -> Option<Value> {
    let mut members = typed.as_object()?.iter();
    let ((kind, content), None) = (members.next()?, members.next()) else {
        return None;
    };
    Some(match (kind.as_str(), content) {
        ("S", Json::String(text)) => Value::S(text.clone()),
        ("N", Json::String(digits)) => Value::N(digits.into()),
        ("BOOL", Json::Bool(truth)) => Value::Bool(*truth),
        ("NULL", Json::Bool(_)) => Value::Null,
        ("M", Json::Object(members)) => Value::M(item(members).ok()?),
        ("L", Json::Array(values)) => Value::L(values.iter().map(value).collect::<Option<_>>()?),
        ("SS", Json::Array(texts)) => Value::Ss(
            texts
                .iter()
                .map(|text| text.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
        ),
        ("B" | "BS" | "NS", _) => Value::Other,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sequence_numbers_compare_by_value() {
        let parse = |text| Sequence::parse(text).unwrap();
        assert!(parse("99") < parse("100"));
        assert!(parse("111000000000000000000002") > parse("111000000000000000000001"));
        assert_eq!(parse("007"), parse("7"));
        assert_eq!(parse("000").as_str(), "0");
        for bad in ["", "-1", "1.0", "x", &"1".repeat(65)] {
            assert_eq!(Sequence::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_record_reads_as_delivered() {
        let record = json!({
            "eventID": "c4ca4238a0b923820dcc509a6f75849b",
            "eventName": "MODIFY",
            "eventSource": "aws:dynamodb",
            "dynamodb": {
                "ApproximateCreationDateTime": 1_795_290_198.0,
                "Keys": {"PK": {"S": "n/ENTITY#u"}, "SK": {"S": "#META"}},
                "OldImage": {"PK": {"S": "n/ENTITY#u"}, "SK": {"S": "#META"}, "n": {"N": "1"}},
                "NewImage": {
                    "PK": {"S": "n/ENTITY#u"}, "SK": {"S": "#META"}, "n": {"N": "2"},
                    "map": {"M": {"list": {"L": [{"NULL": true}, {"BOOL": false}]}}},
                    "set": {"SS": ["a"]}, "bytes": {"B": "AA=="},
                },
                "SequenceNumber": "111",
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        });
        let read = StreamRecord::from_json(&record).unwrap();
        assert_eq!(read.change, Change::Modify);
        assert_eq!(read.at, EpochMillis(1_795_290_198_000));
        assert_eq!(read.key().unwrap().pk, "n/ENTITY#u");
        assert_eq!(read.old.unwrap()["n"], Value::int(1));
        let new = read.new.unwrap();
        assert_eq!(new["bytes"], Value::Other);
        assert_eq!(
            new["map"],
            Value::M(Item::from([(
                "list".into(),
                Value::L(vec![Value::Null, Value::Bool(false)])
            )]))
        );
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let good = json!({
            "eventName": "REMOVE",
            "dynamodb": {"SequenceNumber": "1", "ApproximateCreationDateTime": 1},
        });
        assert!(StreamRecord::from_json(&good).is_ok());
        for (path, bad) in [
            ("/eventName", json!("UPDATE")),
            ("/dynamodb", json!(null)),
            ("/dynamodb/SequenceNumber", json!("one")),
            ("/dynamodb/ApproximateCreationDateTime", json!("now")),
            ("/dynamodb/ApproximateCreationDateTime", json!(-1)),
        ] {
            let mut record = good.clone();
            *record.pointer_mut(path).unwrap() = bad;
            assert!(StreamRecord::from_json(&record).is_err(), "{record}");
        }
        let mut record = good;
        record["dynamodb"]["OldImage"] = json!({"PK": {"S": 1}});
        assert!(StreamRecord::from_json(&record).is_err());
    }
}
