//! An event source mapping as it is stored and shown.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::batch::Rules;
use super::pattern::Pattern;
use crate::clock::now_ms;
use crate::lambda::fields::Fields;
use crate::lambda::names::FunctionId;
use crate::lambda::refusal;
use crate::wire::{ACCOUNT, Refusal, uuid};

/// The kind of the documents.
pub(crate) const KIND: &str = "lambda.mapping";

/// The kind of the documents that say how far a mapping has come.
pub(crate) const PLACE: &str = "lambda.mapping.place";

/// How many patterns a mapping may have.
const MOST_FILTERS: usize = 10;

/// The fields that may be changed later.
const CHANGEABLE: [&str; 13] = [
    "FunctionName",
    "Enabled",
    "BatchSize",
    "MaximumBatchingWindowInSeconds",
    "MaximumRetryAttempts",
    "MaximumRecordAgeInSeconds",
    "BisectBatchOnFunctionError",
    "FunctionResponseTypes",
    "DestinationConfig",
    "FilterCriteria",
    "ParallelizationFactor",
    "TumblingWindowInSeconds",
    "Tags",
];

/// The fields of creation alone.
const CREATION: [&str; 2] = ["EventSourceArn", "StartingPosition"];

/// A mapping. Its switches are Lambda's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct Mapping {
    pub(crate) uuid: String,
    pub(crate) source: Source,
    pub(crate) function: String,
    pub(crate) latest: bool,
    pub(crate) enabled: bool,
    pub(crate) batch_size: usize,
    pub(crate) window_seconds: u32,
    pub(crate) retries: Option<u32>,
    pub(crate) age_seconds: Option<u32>,
    pub(crate) bisect: bool,
    pub(crate) partial: bool,
    pub(crate) on_failure: Option<String>,
    pub(crate) patterns: Vec<String>,
    pub(crate) modified_ms: i64,
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) region: String,
    pub(crate) table: String,
    pub(crate) label: String,
}

/// How far a mapping has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The sequence number of the last record that is settled.
    pub(crate) read: Option<String>,
    /// How the last invocation went, in Lambda's words.
    pub(crate) result: String,
}

impl Source {
    /// Reads a stream's ARN.
    pub(crate) fn read(arn: &str) -> Result<Self, Refusal> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        if let ["arn", "aws", "dynamodb", region, ACCOUNT, rest] = parts.as_slice()
            && let ["table", table, "stream", label] = rest.split('/').collect::<Vec<_>>().as_slice()
        {
            return Ok(Self {
                region: (*region).to_owned(),
                table: (*table).to_owned(),
                label: (*label).to_owned(),
            });
        }
        Err(refusal(format!(
            "EventSourceArn is {arn}; the local endpoint follows streams of its own tables, \
             arn:aws:dynamodb:REGION:{ACCOUNT}:table/TABLE/stream/LABEL"
        )))
    }

    pub(crate) fn arn(&self) -> String {
        format!(
            "arn:aws:dynamodb:{}:{ACCOUNT}:table/{}/stream/{}",
            self.region, self.table, self.label
        )
    }
}

impl Mapping {
    /// The mapping that a request describes.
    pub(crate) fn create(region: &str, request: &Json) -> Result<Self, Refusal> {
        let known: Vec<&str> = CHANGEABLE.into_iter().chain(CREATION).collect();
        let fields = Fields::read(request, &known)?;
        let source = Source::read(fields.need("EventSourceArn")?)?;
        if source.region != region {
            return Err(refusal(format!(
                "EventSourceArn is in {}; a mapping in {region} follows streams of its own region",
                source.region
            )));
        }
        fields.need("FunctionName")?;
        fields.need("StartingPosition")?;
        let latest = fields.one_of("StartingPosition", &["LATEST", "TRIM_HORIZON"])? == Some("LATEST");
        let mut mapping = Self {
            uuid: uuid(),
            source,
            function: String::new(),
            latest,
            enabled: true,
            batch_size: 100,
            window_seconds: 0,
            retries: None,
            age_seconds: None,
            bisect: false,
            partial: false,
            on_failure: None,
            patterns: Vec::new(),
            modified_ms: 0,
        };
        mapping.change(&fields)?;
        Ok(mapping)
    }

    /// Takes over what a request changes.
    pub(crate) fn update(&mut self, request: &Json) -> Result<(), Refusal> {
        let known: Vec<&str> = CHANGEABLE.into_iter().chain(["UUID"]).collect();
        self.change(&Fields::read(request, &known)?)
    }

    fn change(&mut self, fields: &Fields<'_>) -> Result<(), Refusal> {
        if let Some(name) = fields.text("FunctionName")? {
            let id = FunctionId::read(&self.source.region, name)?;
            if id.region != self.source.region {
                return Err(refusal(format!(
                    "FunctionName is {name}; it must be in {}",
                    self.source.region
                )));
            }
            self.function = id.name;
        }
        if let Some(enabled) = fields.flag("Enabled")? {
            self.enabled = enabled;
        }
        if let Some(size) = fields.number("BatchSize", 1..=10_000)? {
            self.batch_size = size as usize;
        }
        if let Some(seconds) = fields.number("MaximumBatchingWindowInSeconds", 0..=300)? {
            self.window_seconds = seconds as u32;
        }
        if let Some(retries) = fields.number("MaximumRetryAttempts", -1..=10_000)? {
            // -1 stands for "forever".
            self.retries = u32::try_from(retries).ok();
        }
        if let Some(seconds) = fields.number("MaximumRecordAgeInSeconds", -1..=604_800)? {
            if (0..60).contains(&seconds) {
                return Err(refusal(format!(
                    "MaximumRecordAgeInSeconds is {seconds}; it must be -1 for no limit, or 60 to 604800"
                )));
            }
            self.age_seconds = u32::try_from(seconds).ok();
        }
        if let Some(bisect) = fields.flag("BisectBatchOnFunctionError")? {
            self.bisect = bisect;
        }
        if let Some(types) = fields.texts("FunctionResponseTypes")? {
            if let Some(other) = types.iter().find(|kind| **kind != "ReportBatchItemFailures") {
                return Err(refusal(format!(
                    "FunctionResponseTypes holds {other}; it may hold ReportBatchItemFailures"
                )));
            }
            self.partial = !types.is_empty();
        }
        if let Some(destinations) = fields.inner("DestinationConfig", &["OnFailure"])? {
            let on_failure = destinations.inner("OnFailure", &["Destination"])?;
            let arn = on_failure
                .map(|on_failure| on_failure.text("Destination"))
                .transpose()?;
            self.on_failure = destination(arn.flatten().filter(|arn| !arn.is_empty()))?;
        }
        if let Some(criteria) = fields.inner("FilterCriteria", &["Filters"])? {
            let filters = criteria.structures("Filters", &["Pattern"])?.unwrap_or_default();
            if filters.len() > MOST_FILTERS {
                return Err(refusal(format!(
                    "FilterCriteria has {} filters; it may have {MOST_FILTERS}",
                    filters.len()
                )));
            }
            let patterns = filters.iter().map(|filter| {
                let text = filter.need("Pattern")?;
                Pattern::read(text)?;
                Ok(text.to_owned())
            });
            self.patterns = patterns.collect::<Result<_, Refusal>>()?;
        }
        // The stream has one shard, and no state is kept over its batches.
        fields.number("ParallelizationFactor", 1..=1)?;
        fields.number("TumblingWindowInSeconds", 0..=0)?;
        if fields.tags()?.is_some_and(|tags| !tags.is_empty()) {
            return Err(refusal(
                "the local endpoint does not keep Tags of event source mappings; leave them out".to_owned(),
            ));
        }
        self.modified_ms = now_ms();
        Ok(())
    }

    /// The patterns, understood. They were checked when they came.
    pub(crate) fn filters(&self) -> Result<Vec<Pattern>, Refusal> {
        self.patterns.iter().map(|text| Pattern::read(text)).collect()
    }

    pub(crate) fn function_id(&self) -> FunctionId {
        FunctionId {
            region: self.source.region.clone(),
            name: self.function.clone(),
        }
    }

    /// How failures are dealt with.
    pub(crate) fn rules(&self, wait: Duration, longest_wait: Duration) -> Rules {
        Rules {
            bisect: self.bisect,
            retries: self.retries,
            age_ms: self.age_seconds.map(|seconds| i64::from(seconds) * 1_000),
            wait,
            longest_wait,
        }
    }

    /// As Lambda shows a mapping.
    pub(crate) fn shown(&self, state: &str, result: &str) -> Json {
        let region = &self.source.region;
        let mut shown = json!({
            "UUID": self.uuid,
            "EventSourceMappingArn":
                format!("arn:aws:lambda:{region}:{ACCOUNT}:event-source-mapping:{}", self.uuid),
            "EventSourceArn": self.source.arn(),
            "FunctionArn": self.function_id().arn(),
            "StartingPosition": if self.latest { "LATEST" } else { "TRIM_HORIZON" },
            "State": state,
            "StateTransitionReason": "User action",
            "LastProcessingResult": result,
            "LastModified": self.modified_ms as f64 / 1_000.0,
            "BatchSize": self.batch_size,
            "MaximumBatchingWindowInSeconds": self.window_seconds,
            "ParallelizationFactor": 1,
            "TumblingWindowInSeconds": 0,
            "MaximumRetryAttempts": self.retries.map_or(-1, i64::from),
            "MaximumRecordAgeInSeconds": self.age_seconds.map_or(-1, i64::from),
            "BisectBatchOnFunctionError": self.bisect,
            "FunctionResponseTypes": if self.partial { vec!["ReportBatchItemFailures"] } else { vec![] },
            "DestinationConfig": {"OnFailure": {}},
        });
        if let Some(arn) = &self.on_failure {
            shown["DestinationConfig"]["OnFailure"]["Destination"] = json!(arn);
        }
        if !self.patterns.is_empty() {
            let filters: Vec<Json> = self
                .patterns
                .iter()
                .map(|text| json!({"Pattern": text}))
                .collect();
            shown["FilterCriteria"] = json!({"Filters": filters});
        }
        shown
    }
}

impl Default for Place {
    fn default() -> Self {
        Self {
            read: None,
            result: "No records processed".to_owned(),
        }
    }
}

fn destination(arn: Option<&str>) -> Result<Option<String>, Refusal> {
    match arn {
        Some(arn) if !arn.starts_with("arn:aws:sqs:") => Err(refusal(format!(
            "DestinationConfig.OnFailure.Destination is {arn}; the local endpoint sends to queues of SQS only"
        ))),
        arn => Ok(arn.map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "arn:aws:dynamodb:eu-west-1:000000000000:table/t/stream/1.2";

    fn request() -> Json {
        json!({"EventSourceArn": STREAM, "FunctionName": "f", "StartingPosition": "LATEST"})
    }

    #[test]
    fn a_mapping_is_shown_as_lambda_does() {
        let mut request = request();
        request["MaximumRetryAttempts"] = json!("3");
        request["BisectBatchOnFunctionError"] = json!(true);
        request["FunctionResponseTypes"] = json!(["ReportBatchItemFailures"]);
        request["DestinationConfig"] = json!({"OnFailure": {"Destination": "arn:aws:sqs:eu-west-1:0:q"}});
        request["FilterCriteria"] = json!({"Filters": [{"Pattern": r#"{"eventName":["INSERT"]}"#}]});
        let mut mapping = Mapping::create("eu-west-1", &request).unwrap();
        let shown = mapping.shown("Enabled", "OK");
        assert_eq!(shown["EventSourceArn"], STREAM);
        assert_eq!(
            shown["FunctionArn"],
            "arn:aws:lambda:eu-west-1:000000000000:function:f"
        );
        assert_eq!(shown["MaximumRetryAttempts"], 3);
        assert_eq!(shown["MaximumRecordAgeInSeconds"], -1);
        assert_eq!(shown["DestinationConfig"], request["DestinationConfig"]);
        assert_eq!(shown["FilterCriteria"], request["FilterCriteria"]);
        mapping
            .update(&json!({"Enabled": false, "BatchSize": 7, "FilterCriteria": {}, "DestinationConfig": {}}))
            .unwrap();
        assert!(!mapping.enabled && mapping.patterns.is_empty() && mapping.on_failure.is_none());
        assert_eq!(
            (mapping.batch_size, mapping.retries, mapping.bisect),
            (7, Some(3), true)
        );
    }

    #[test]
    fn what_is_not_done_here_is_refused_by_name() {
        for (field, value, said) in [
            (
                "EventSourceArn",
                json!("arn:aws:kinesis:eu-west-1:0:stream/x"),
                "kinesis",
            ),
            (
                "EventSourceArn",
                json!(STREAM.replace("eu-west-1", "us-east-1")),
                "us-east-1",
            ),
            ("StartingPosition", json!("AT_TIMESTAMP"), "TRIM_HORIZON"),
            ("StartingPosition", Json::Null, "StartingPosition is missing"),
            ("BatchSize", json!(0), "BatchSize"),
            ("ParallelizationFactor", json!(2), "ParallelizationFactor"),
            ("TumblingWindowInSeconds", json!(5), "TumblingWindowInSeconds"),
            (
                "MaximumRecordAgeInSeconds",
                json!(30),
                "MaximumRecordAgeInSeconds",
            ),
            (
                "DestinationConfig",
                json!({"OnFailure": {"Destination": "arn:aws:sns:x"}}),
                "sns",
            ),
            (
                "DestinationConfig",
                json!({"OnSuccess": {"Destination": "x"}}),
                "OnSuccess",
            ),
            (
                "FilterCriteria",
                json!({"Filters": [{"Pattern": "{}"}]}),
                "filter pattern",
            ),
            ("FunctionResponseTypes", json!(["Other"]), "Other"),
            ("StartingPositionTimestamp", json!(7), "StartingPositionTimestamp"),
        ] {
            let mut request = request();
            request[field] = value;
            let err = Mapping::create("eu-west-1", &request).unwrap_err();
            assert!(err.message.contains(said), "{field}: {}", err.message);
        }
    }
}
