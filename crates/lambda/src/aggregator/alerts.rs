//! Alerts: one line for each threshold of use that a limit crosses, once in its period.
//!
//! A line is written after the write that marks the period as reported ([`zae_limiter_core::alerts`]). It is a line of the log and
//! in embedded metric format, so that CloudWatch makes a metric of it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value as Json, json};
use zae_limiter_core::alert::Period;
use zae_limiter_core::alerts::{Crossing, MarkId, crossings};
use zae_limiter_core::stream::{Sequence, StreamRecord};
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError};

use super::{Aggregator, IN_FLIGHT, REMEMBERED, Report};
use crate::log::Counted;

const LOGGER: &str = "zae_limiter_aggregator.alerts";

/// The metric, which counts alerts. The entity is not a dimension: each would be billed as a metric of its own.
const METRIC: Counted<'_> = Counted {
    name: "LimitAlerts",
    dimensions: &[
        &["TableName", "Kind"],
        &["TableName", "Resource", "Limit", "Threshold"],
    ],
};

/// Periods that are marked as reported, by limit and threshold. They spare the write of a mark that exists: a limit whose use
/// goes up and down around a threshold crosses it with every request.
#[derive(Debug, Default)]
pub(super) struct Reported(Mutex<HashMap<(MarkId, u8), Period>>);

impl Reported {
    fn has(&self, crossing: &Crossing) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(&(crossing.id.clone(), crossing.percent));
        known.is_some_and(|reported| !crossing.period.follows(reported))
    }

    fn note(&self, crossing: &Crossing, period: Period) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert((crossing.id.clone(), crossing.percent), period);
    }
}

impl Aggregator {
    /// Reports limits whose use has crossed a threshold. Gives the first records of what could not be reported, but may be
    /// another time.
    pub(super) async fn alert(&self, records: &[StreamRecord], report: &mut Report) -> Vec<Sequence> {
        let mut found: BTreeMap<(MarkId, u8), Vec<Crossing>> = BTreeMap::new();
        let thresholds = &self.settings.alert_thresholds;
        for crossing in records.iter().flat_map(|record| crossings(record, thresholds)) {
            let place = (crossing.id.clone(), crossing.percent);
            found.entry(place).or_default().push(crossing);
        }
        let work: Vec<BoxFuture<'_, _>> = found
            .into_values()
            .map(|crossings| -> BoxFuture<'_, _> { Box::pin(self.alert_each(crossings)) })
            .collect();
        let outcomes: Vec<_> = stream::iter(work).buffered(IN_FLIGHT).collect().await;
        let mut failed = Vec::new();
        for (reported, failure) in outcomes {
            report.alerts.extend(reported);
            if let Some((crossing, err)) = failure {
                self.complain(
                    report,
                    "Error reporting use",
                    &crossing.id.bucket,
                    &err.to_string(),
                );
                if err.kind != FailureKind::BadRequest {
                    failed.push(crossing.sequence);
                }
            }
        }
        failed
    }

    /// Reports the crossings of one threshold of one limit, in order, up to the first that fails. Returns those that it has
    /// reported.
    async fn alert_each(
        &self,
        mut crossings: Vec<Crossing>,
    ) -> (Vec<Crossing>, Option<(Crossing, TableError)>) {
        crossings.sort_by(|a, b| (a.at, &a.sequence).cmp(&(b.at, &b.sequence)));
        let mut reported = Vec::new();
        for crossing in crossings {
            match self.mark(&crossing).await {
                Ok(false) => {}
                Ok(true) => {
                    let (message, fields) = line(&self.settings.table, &crossing);
                    self.log.count(LOGGER, &message, METRIC, &fields);
                    reported.push(crossing);
                }
                Err(err) => return (reported, Some((crossing, err))),
            }
        }
        (reported, None)
    }

    /// Marks a threshold as reported. Returns whether it is to be reported now.
    async fn mark(&self, crossing: &Crossing) -> Result<bool, TableError> {
        if self.reported.has(crossing) {
            return Ok(false);
        }
        // Random keys, so that no two attempts have the same token.
        let token = format!("{:016x}", RandomState::new().build_hasher().finish());
        let is_ours = match self.stack.insist(Op::Update(crossing.mark(&token))).await {
            Ok(Answer::Refused(Some(mark))) => {
                if let Some(period) = crossing.reported(&mark) {
                    self.reported.note(crossing, period);
                }
                return Ok(crossing.is_marked_by(&mark, &token));
            }
            Ok(_) => true,
            // It may be marked. Then no later delivery would report it, and an alert too many is better than none.
            Err(err) if err.applied == Applied::Unknown => true,
            Err(err) => return Err(err),
        };
        self.reported.note(crossing, crossing.period);
        Ok(is_ours)
    }
}

/// The message of an alert, and its fields.
fn line(table: &str, crossing: &Crossing) -> (String, Vec<(&'static str, Json)>) {
    let bucket = &crossing.id.bucket;
    let tokens = |millis: zae_limiter_core::Millitokens| json!(millis.floor_tokens());
    let time = |at: zae_limiter_core::EpochMillis| json!(at.to_text());
    let message = format!("Limit has used {} % of its capacity", crossing.percent);
    let fields = vec![
        ("TableName", json!(table)),
        ("Kind", json!(if crossing.is_quota { "quota" } else { "rate" })),
        ("Resource", json!(bucket.resource.as_str())),
        ("Limit", json!(crossing.id.limit.as_str())),
        ("Threshold", json!(crossing.percent.to_string())),
        ("namespace_id", json!(bucket.namespace.as_str())),
        ("entity_id", json!(bucket.entity.as_str())),
        ("available", tokens(crossing.used.available)),
        ("capacity", tokens(crossing.used.capacity)),
        ("shard", json!(crossing.shard)),
        ("shard_count", json!(crossing.shards)),
        ("crossed_at", time(crossing.at)),
        ("resets_at", json!(crossing.resets_at.map(time))),
        ("reported_until", time(crossing.period.until)),
    ];
    (message, fields)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zae_limiter::clock::ManualClock;
    use zae_limiter_core::EpochMillis;
    use zae_limiter_core::alert::Thresholds;

    use super::*;
    use crate::log::{Level, Log};

    /// A record of the stream in which a bucket of two limits is created: a quota of 1000 a day, of which 190 are left, and a
    /// full one.
    fn created() -> StreamRecord {
        let number = |number: i64| json!({ "N": number.to_string() });
        let image = json!({
            "PK": {"S": "dSkXlbmmfyU/BUCKET#proj-1#gpt-4#0"}, "SK": {"S": "#STATE"},
            "rf": number(1_796_040_000_000), "shard_count": number(1),
            "b_tpd_tk": number(190_500), "b_tpd_cp": number(1_000_000), "b_tpd_ra": number(0),
            "b_tpd_rp": number(1000), "b_tpd_rsched": {"S": "1m0h0"},
            "b_rpm_tk": number(100_000), "b_rpm_cp": number(100_000), "b_rpm_ra": number(100_000),
            "b_rpm_rp": number(60_000),
        });
        let record = json!({"eventName": "INSERT", "dynamodb": {
            "SequenceNumber": "111", "ApproximateCreationDateTime": 1_796_040_000, "NewImage": image,
        }});
        StreamRecord::from_json(&record).unwrap()
    }

    #[test]
    fn a_line_is_a_metric_in_embedded_format() {
        let found = crossings(&created(), &Thresholds::default());
        let [crossing] = &found[..] else {
            panic!("{found:?}")
        };
        let clock = ManualClock::at(EpochMillis(1_796_040_002_345).into());
        let (message, fields) = line("prod", crossing);
        let log = Log::new(Level::Error, Arc::new(clock));
        let line = log.counted_line(LOGGER, &message, METRIC, &fields);
        assert_eq!(
            line,
            json!({
                "_aws": {
                    "Timestamp": 1_796_040_002_345_i64,
                    "CloudWatchMetrics": [{
                        "Namespace": "ZaeLimiter",
                        "Dimensions": [["TableName", "Kind"], ["TableName", "Resource", "Limit", "Threshold"]],
                        "Metrics": [{"Name": "LimitAlerts", "Unit": "Count"}],
                    }],
                },
                "LimitAlerts": 1,
                "timestamp": "2026-11-30T12:00:02+00:00",
                "level": "WARNING",
                "logger": "zae_limiter_aggregator.alerts",
                "message": "Limit has used 80 % of its capacity",
                "TableName": "prod",
                "Kind": "quota",
                "Resource": "gpt-4",
                "Limit": "tpd",
                "Threshold": "80",
                "namespace_id": "dSkXlbmmfyU",
                "entity_id": "proj-1",
                "available": 190,
                "capacity": 1000,
                "shard": 0,
                "shard_count": 1,
                "crossed_at": "2026-11-30T12:00:00Z",
                "resets_at": "2026-12-01T00:00:00Z",
                "reported_until": "2026-12-01T00:00:00Z",
            })
        );
        // What the format asks for: one line, and each dimension and metric is a member of the root, dimensions as texts.
        let text = line.to_string();
        assert!(!text.contains('\n'));
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        for set in directive["Dimensions"].as_array().unwrap() {
            for name in set.as_array().unwrap() {
                assert!(line[name.as_str().unwrap()].is_string(), "{name}");
            }
        }
        assert!(line[directive["Metrics"][0]["Name"].as_str().unwrap()].is_number());
    }
}
