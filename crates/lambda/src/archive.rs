//! Audit events that expire, kept in S3: compressed JSON lines, in folders by day.

use std::io::Write as _;

use aws_sdk_s3::primitives::ByteStream;
use flate2::{Compression, GzBuilder};
use serde_json::{Map, Value as Json};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::stream::{Change, Sequence, StreamRecord};
use zae_limiter_core::table::{Item, Value};

/// An object to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key. The same records give the same key, so that writing them again changes nothing.
    pub key: String,
    /// JSON lines, compressed.
    pub body: Vec<u8>,
    /// How many events it holds.
    pub events: usize,
    /// The first of the records that it comes from.
    pub first_record: Sequence,
}

/// Collects the audit events that a batch shows as gone.
#[derive(Debug, Default)]
pub struct Collector {
    lines: Vec<u8>,
    events: usize,
    first: Option<Sequence>,
    earliest: Option<String>,
}

impl Collector {
    /// Takes a record, if an audit event was removed. Returns whether it was one.
    pub fn add(&mut self, record: &StreamRecord) -> bool {
        let (Change::Remove, Some(item)) = (record.change, &record.old) else {
            return false;
        };
        let key = record.key();
        let namespace = key
            .as_ref()
            .filter(|key| key.sk.starts_with("#AUDIT#"))
            .and_then(|key| key.pk.split_once("/AUDIT#"))
            .map(|(namespace, _)| namespace);
        let (Some(namespace), Some(Value::S(_))) = (namespace, item.get("action")) else {
            return false;
        };
        let event = Json::Object(event(item, namespace));
        self.lines.extend_from_slice(event.to_string().as_bytes());
        self.lines.push(b'\n');
        self.events += 1;
        if self.first.as_ref().is_none_or(|first| record.sequence < *first) {
            self.first = Some(record.sequence.clone());
        }
        if let Some(Value::S(time)) = item.get("timestamp")
            && self.earliest.as_ref().is_none_or(|earliest| time < earliest)
        {
            self.earliest = Some(time.clone());
        }
        true
    }

    /// The object that holds them; `None` if there are none. Events without a time go to the day of `now`.
    ///
    /// # Errors
    /// Only if memory cannot be written to.
    pub fn finish(self, now: EpochMillis) -> std::io::Result<Option<Object>> {
        let Some(first_record) = self.first else {
            return Ok(None);
        };
        let is_time = |text: &String| {
            let digits = |range: std::ops::Range<usize>| {
                text.get(range)
                    .is_some_and(|part| part.bytes().all(|b| b.is_ascii_digit()))
            };
            text.is_ascii() && digits(0..4) && digits(5..7) && digits(8..10) && !text.contains('/')
        };
        let time = self.earliest.filter(is_time).unwrap_or_else(|| now.to_text());
        let (year, month, day) = (&time[..4], &time[5..7], &time[8..10]);
        let name = time.replace(':', "-").replace('+', "");
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::default());
        gzip.write_all(&self.lines)?;
        Ok(Some(Object {
            key: format!("audit/year={year}/month={month}/day={day}/audit-{first_record}-{name}.jsonl.gz"),
            body: gzip.finish()?,
            events: self.events,
            first_record,
        }))
    }
}

/// An audit event as it stands in the archive.
fn event(item: &Item, namespace: &str) -> Map<String, Json> {
    const FIELDS: [&str; 6] = [
        "event_id",
        "entity_id",
        "action",
        "timestamp",
        "principal",
        "resource",
    ];
    let mut event = Map::new();
    for name in FIELDS {
        if let Some(value) = item.get(name) {
            event.insert(name.to_owned(), json(value));
        }
    }
    let details = item.get("details").map_or_else(|| Json::Object(Map::new()), json);
    event.insert("details".to_owned(), details);
    event.insert("namespace_id".to_owned(), namespace.into());
    event
}

fn json(value: &Value) -> Json {
    match value {
        Value::S(text) => Json::String(text.clone()),
        Value::N(digits) => digits
            .parse()
            .map(|whole: i64| Json::Number(whole.into()))
            .or_else(|_| digits.parse().map(|number: f64| number.into()))
            .unwrap_or_else(|_| Json::String(digits.to_string())),
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Null | Value::Other => Json::Null,
        Value::M(members) => Json::Object(
            members
                .iter()
                .map(|(name, value)| (name.clone(), json(value)))
                .collect(),
        ),
        Value::L(values) => Json::Array(values.iter().map(json).collect()),
        Value::Ss(texts) => Json::Array(texts.iter().map(|text| Json::String(text.clone())).collect()),
    }
}

/// The S3 bucket that objects go to.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: aws_sdk_s3::Client,
    name: String,
}

impl Bucket {
    /// The bucket of this name.
    pub fn new(config: &aws_config::SdkConfig, name: &str) -> Self {
        let local = config.endpoint_url().is_some();
        let config = aws_sdk_s3::config::Builder::from(config)
            // A name before a local endpoint's address would not resolve.
            .force_path_style(local || std::env::var_os("AWS_ENDPOINT_URL").is_some())
            .build();
        Self {
            client: aws_sdk_s3::Client::from_conf(config),
            name: name.to_owned(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes an object.
    ///
    /// # Errors
    /// The service's words.
    pub async fn put(&self, object: &Object) -> Result<(), String> {
        let request = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(&object.key)
            .content_type("application/x-ndjson")
            .content_encoding("gzip")
            .body(ByteStream::from(object.body.clone()));
        match Box::pin(request.send()).await {
            Ok(_) => Ok(()),
            Err(err) => Err(aws_sdk_s3::error::DisplayErrorContext(err).to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use serde_json::json;

    use super::*;

    fn expired(sequence: &str, timestamp: &str) -> StreamRecord {
        let record = json!({
            "eventName": "REMOVE",
            "userIdentity": {"type": "Service", "principalId": "dynamodb.amazonaws.com"},
            "dynamodb": {
                "SequenceNumber": sequence,
                "ApproximateCreationDateTime": 1_803_066_198,
                "OldImage": {
                    "PK": {"S": "dSkXlbmmfyU/AUDIT#key-1"},
                    "SK": {"S": "#AUDIT#01M7ZT4WJXXM3NYR6V7H64WNW5"},
                    "event_id": {"S": "01M7ZT4WJXXM3NYR6V7H64WNW5"},
                    "entity_id": {"S": "key-1"},
                    "timestamp": {"S": timestamp},
                    "action": {"S": "limits_set"},
                    "principal": {"NULL": true},
                    "resource": {"S": "gpt-4"},
                    "details": {"M": {"n": {"N": "1.5"}, "limits": {"L": [{"N": "7"}, {"BOOL": true}]}}},
                    "ttl": {"N": "1803066198"},
                },
            },
        });
        StreamRecord::from_json(&record).unwrap()
    }

    fn unpacked(object: &Object) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*object.body)
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    #[test]
    fn expired_events_become_lines_in_the_folder_of_their_day() {
        let mut collector = Collector::default();
        assert!(collector.add(&expired("200", "2026-08-23T19:43:18Z")));
        assert!(collector.add(&expired("99", "2026-08-23T19:43:19Z")));
        let object = collector.finish(EpochMillis(0)).unwrap().unwrap();
        assert_eq!(
            object.key,
            "audit/year=2026/month=08/day=23/audit-99-2026-08-23T19-43-18Z.jsonl.gz"
        );
        assert_eq!(object.events, 2);
        let text = unpacked(&object);
        let lines: Vec<Json> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines[0],
            json!({
                "event_id": "01M7ZT4WJXXM3NYR6V7H64WNW5", "entity_id": "key-1", "action": "limits_set",
                "timestamp": "2026-08-23T19:43:18Z", "principal": null, "resource": "gpt-4",
                "details": {"limits": [7, true], "n": 1.5}, "namespace_id": "dSkXlbmmfyU",
            })
        );
        assert_eq!(lines.len(), 2);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn the_same_records_give_the_same_object() {
        let object = || {
            let mut collector = Collector::default();
            collector.add(&expired("200", "2026-08-23T19:43:18Z"));
            collector.finish(EpochMillis(0)).unwrap().unwrap()
        };
        assert_eq!(object(), object());
    }

    #[test]
    fn other_records_and_odd_times_do_no_harm() {
        let mut collector = Collector::default();
        let mut bucket = expired("1", "2026-08-23T19:43:18Z");
        bucket
            .old
            .as_mut()
            .unwrap()
            .insert("SK".into(), Value::text("#STATE"));
        assert!(!collector.add(&bucket));
        let mut created = expired("1", "2026-08-23T19:43:18Z");
        created.change = Change::Insert;
        assert!(!collector.add(&created));
        assert_eq!(Collector::default().finish(EpochMillis(0)).unwrap(), None);
        for odd in ["", "../../../../etc", "2026", "2026-08/23T", "äöüäöüäöüä"] {
            let mut collector = Collector::default();
            assert!(collector.add(&expired("1", odd)));
            let object = collector.finish(EpochMillis(1_795_290_198_636)).unwrap().unwrap();
            assert!(
                object
                    .key
                    .starts_with("audit/year=2026/month=11/day=21/audit-1-2026"),
                "{}",
                object.key
            );
        }
    }
}
