//! The forms in which records reach a function, and in which given-up ones reach a queue.

use serde_json::{Value as Json, json};

use super::batch::{Condition, Verdict};
use super::record::Source;
use crate::clock::{iso, now_ms};
use crate::lambda::names::LATEST;
use crate::lambda::running::Finished;

/// A record of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) sequence: String,
    pub(crate) made_ms: i64,
    /// The record as the function gets it.
    pub(crate) text: String,
}

impl Record {
    /// Turns what the stream says into what Lambda passes on. `None` if it has no sequence number.
    pub(crate) fn read(mut record: Json, source: &Source) -> Option<(Self, Json)> {
        record["awsRegion"] = json!(source.region);
        record["eventSourceARN"] = json!(source.arn());
        let change = &record["dynamodb"];
        let read = Self {
            sequence: change["SequenceNumber"].as_str()?.to_owned(),
            made_ms: (change["ApproximateCreationDateTime"].as_f64().unwrap_or_default() * 1_000.0) as i64,
            text: String::new(),
        };
        Some((read, record))
    }
}

/// The event of a batch.
pub(crate) fn event(records: &[Record]) -> String {
    let size: usize = records.iter().map(|record| record.text.len() + 1).sum();
    let mut event = String::with_capacity(size + 16);
    event.push_str("{\"Records\":[");
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            event.push(',');
        }
        event.push_str(&record.text);
    }
    event.push_str("]}");
    event
}

/// The result of an invocation for its records, which begin at `start` in their batch.
pub(crate) fn verdict(finished: &Finished, records: &[Record], start: usize, partial: bool) -> Verdict {
    if finished.failed {
        return Verdict::Failed;
    }
    if !partial || finished.payload.is_empty() {
        return Verdict::Done;
    }
    let Ok(answer) = serde_json::from_slice::<Json>(&finished.payload) else {
        return Verdict::Failed;
    };
    let failures = match &answer["batchItemFailures"] {
        Json::Null => return Verdict::Done,
        Json::Array(failures) => failures,
        _ => return Verdict::Failed,
    };
    let mut first = None;
    for failure in failures {
        let named = failure["itemIdentifier"].as_str();
        let place = records
            .iter()
            .position(|record| Some(record.sequence.as_str()) == named);
        // A record that is not in the batch: nothing can be said of any.
        let Some(place) = place else {
            return Verdict::Failed;
        };
        first = Some(first.map_or(place, |first: usize| first.min(place)));
    }
    first.map_or(Verdict::Done, |first| Verdict::FailedAt(start + first))
}

/// The description of records that are given up.
#[derive(Debug)]
pub(crate) struct GivenUp<'a> {
    pub(crate) function_arn: &'a str,
    pub(crate) source: &'a Source,
    pub(crate) shard: &'a str,
    pub(crate) records: &'a [Record],
    pub(crate) condition: Condition,
    pub(crate) invocations: u32,
    /// The request of the last invocation, if there was one.
    pub(crate) request_id: Option<&'a str>,
    /// Whether that ended with an error.
    pub(crate) failed: bool,
}

impl GivenUp<'_> {
    /// The message for the queue.
    pub(crate) fn message(&self) -> Json {
        let seconds = |record: Option<&Record>| {
            let made = iso(record.map_or(0, |record| record.made_ms));
            made.replace(".000Z", "Z")
        };
        let sequence = |record: Option<&Record>| record.map_or("", |record| &record.sequence).to_owned();
        let (first, last) = (self.records.first(), self.records.last());
        let mut message = json!({
            "requestContext": {
                "requestId": self.request_id.unwrap_or_default(),
                "functionArn": self.function_arn,
                "condition": self.condition.as_str(),
                "approximateInvokeCount": self.invocations,
            },
            "version": "1.0",
            "timestamp": iso(now_ms()),
            "DDBStreamBatchInfo": {
                "shardId": self.shard,
                "startSequenceNumber": sequence(first),
                "endSequenceNumber": sequence(last),
                "approximateArrivalOfFirstRecord": seconds(first),
                "approximateArrivalOfLastRecord": seconds(last),
                "batchSize": self.records.len(),
                "streamArn": self.source.arn(),
            },
        });
        if self.request_id.is_some() {
            message["responseContext"] = json!({"statusCode": 200, "executedVersion": LATEST});
            if self.failed {
                message["responseContext"]["functionError"] = json!("Unhandled");
            }
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn source() -> Source {
        Source::read("arn:aws:dynamodb:eu-west-1:000000000000:table/t/stream/1.2").unwrap()
    }

    fn records(count: usize) -> Vec<Record> {
        (0..count)
            .map(|index| {
                let record = json!({
                    "eventName": "INSERT", "awsRegion": "x",
                    "dynamodb": {"SequenceNumber": index.to_string(), "ApproximateCreationDateTime": 1_700_000_000.0},
                });
                let (mut record, shown) = Record::read(record, &source()).unwrap();
                record.text = shown.to_string();
                record
            })
            .collect()
    }

    fn finished(failed: bool, payload: &str) -> Finished {
        Finished {
            request_id: "r".into(),
            failed,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            tail: String::new(),
        }
    }

    #[test]
    fn records_have_lambdas_form() {
        let event: Json = serde_json::from_str(&event(&records(2))).unwrap();
        let record = &event["Records"][1];
        assert_eq!(record["awsRegion"], "eu-west-1");
        assert_eq!(record["eventSourceARN"], source().arn());
        assert_eq!(record["dynamodb"]["SequenceNumber"], "1");
        assert_eq!(records(1)[0].made_ms, 1_700_000_000_000);
        assert!(Record::read(json!({"dynamodb": {}}), &source()).is_none());
    }

    #[test]
    fn answers_name_the_record_that_failed() {
        let records = &records(5)[2..];
        let failure = |ids: &[&str]| {
            let items: Vec<Json> = ids.iter().map(|id| json!({"itemIdentifier": id})).collect();
            json!({"batchItemFailures": items}).to_string()
        };
        for (payload, expected) in [
            (String::new(), Verdict::Done),
            ("null".into(), Verdict::Done),
            ("{}".into(), Verdict::Done),
            (failure(&[]), Verdict::Done),
            (failure(&["4", "3"]), Verdict::FailedAt(3)),
            (failure(&["2"]), Verdict::FailedAt(2)),
            (failure(&["1"]), Verdict::Failed),
            (failure(&[""]), Verdict::Failed),
            (r#"{"batchItemFailures": "x"}"#.into(), Verdict::Failed),
            (r#"{"batchItemFailures": [{}]}"#.into(), Verdict::Failed),
            ("x".into(), Verdict::Failed),
        ] {
            assert_eq!(
                verdict(&finished(false, &payload), records, 2, true),
                expected,
                "{payload}"
            );
            assert_eq!(
                verdict(&finished(false, &payload), records, 2, false),
                Verdict::Done
            );
            assert_eq!(
                verdict(&finished(true, &payload), records, 2, true),
                Verdict::Failed
            );
        }
    }

    #[test]
    fn given_up_records_are_told_as_lambda_does() {
        let (records, source) = (records(3), source());
        let mut given_up = GivenUp {
            function_arn: "f",
            source: &source,
            shard: "shard",
            records: &records,
            condition: Condition::RetryAttemptsExhausted,
            invocations: 4,
            request_id: Some("r"),
            failed: true,
        };
        let message = given_up.message();
        assert_eq!(message["requestContext"]["condition"], "RetryAttemptsExhausted");
        assert_eq!(message["requestContext"]["approximateInvokeCount"], 4);
        assert_eq!(message["responseContext"]["functionError"], "Unhandled");
        let info = &message["DDBStreamBatchInfo"];
        assert_eq!(
            (&info["startSequenceNumber"], &info["endSequenceNumber"]),
            (&json!("0"), &json!("2"))
        );
        assert_eq!(info["approximateArrivalOfFirstRecord"], "2023-11-14T22:13:20Z");
        assert_eq!(info["batchSize"], 3);
        given_up.request_id = None;
        assert!(given_up.message().get("responseContext").is_none());
    }
}
