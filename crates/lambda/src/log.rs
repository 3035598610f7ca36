//! Logs: one JSON object a line on standard output, which Lambda hands to CloudWatch.
//!
//! Messages and fields are those of the original, so that queries written for its logs continue working. Lines with
//! metrics are in embedded metric format: CloudWatch makes metrics of them.

use std::io::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use zae_limiter::clock::Clock;
use zae_limiter_core::EpochMillis;

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Particulars of single writes.
    Debug,
    /// Actions.
    Info,
    /// Failures without loss.
    Warning,
    /// Failures.
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Debug, Self::Info, Self::Warning, Self::Error]
            .into_iter()
            .find(|level| text.eq_ignore_ascii_case(level.as_str()))
    }
}

/// Fields of a line, after those that every line has.
pub type Fields<'a> = &'a [(&'a str, Json)];

/// The namespace of all metrics.
const NAMESPACE: &str = "ZaeLimiter";

/// A metric that counts lines.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its dimensions: for each set, CloudWatch keeps a metric for each combination of their values. They are fields of the line
    /// that are texts.
    pub dimensions: &'a [&'a [&'a str]],
}

/// Writes lines of a level and above.
#[derive(Debug, Clone)]
pub struct Log {
    least: Level,
    clock: Arc<dyn Clock>,
}

impl Log {
    /// A log of lines of `least` and above.
    pub fn new(least: Level, clock: Arc<dyn Clock>) -> Self {
        Self { least, clock }
    }

    /// The level is `LOG_LEVEL`, else Lambda's own `AWS_LAMBDA_LOG_LEVEL`, else INFO.
    pub fn from_env(clock: Arc<dyn Clock>) -> Self {
        let level = ["LOG_LEVEL", "AWS_LAMBDA_LOG_LEVEL"].iter().find_map(|name| {
            let text = std::env::var(name).ok()?;
            Level::parse(&text).or_else(|| (text == "WARN").then_some(Level::Warning))
        });
        Self::new(level.unwrap_or(Level::Info), clock)
    }

    /// Writes a line of level DEBUG.
    pub fn debug(&self, logger: &str, message: &str, fields: Fields<'_>) {
        self.write(Level::Debug, logger, message, fields);
    }

    /// Writes a line of level INFO.
    pub fn info(&self, logger: &str, message: &str, fields: Fields<'_>) {
        self.write(Level::Info, logger, message, fields);
    }

    /// Writes a line of level WARNING.
    pub fn warning(&self, logger: &str, message: &str, fields: Fields<'_>) {
        self.write(Level::Warning, logger, message, fields);
    }

    /// Writes a line of level ERROR.
    pub fn error(&self, logger: &str, message: &str, fields: Fields<'_>) {
        self.write(Level::Error, logger, message, fields);
    }

    fn write(&self, level: Level, logger: &str, message: &str, fields: Fields<'_>) {
        if level >= self.least {
            print(&self.line(level, logger, message, fields));
        }
    }

    fn line(&self, level: Level, logger: &str, message: &str, fields: Fields<'_>) -> Json {
        let mut line = Map::new();
        let now = EpochMillis::from(self.clock.now());
        line.insert("timestamp".into(), now.to_text().replace('Z', "+00:00").into());
        line.insert("level".into(), level.as_str().into());
        line.insert("logger".into(), logger.into());
        line.insert("message".into(), message.into());
        for (name, value) in fields {
            line.insert((*name).to_owned(), value.clone());
        }
        line.into()
    }

    /// Writes a line of level WARNING that counts for a metric, whatever the least level.
    pub fn count(&self, logger: &str, message: &str, metric: Counted<'_>, fields: Fields<'_>) {
        print(&self.counted_line(logger, message, metric, fields));
    }

    pub(crate) fn counted_line(
        &self,
        logger: &str,
        message: &str,
        metric: Counted<'_>,
        fields: Fields<'_>,
    ) -> Json {
        let mut line = self.line(Level::Warning, logger, message, fields);
        line["_aws"] = json!({
            "Timestamp": EpochMillis::from(self.clock.now()).0,
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                "Dimensions": metric.dimensions,
                "Metrics": [{"Name": metric.name, "Unit": "Count"}],
            }],
        });
        line[metric.name] = json!(1);
        line
    }

    /// Writes metrics of a table, whatever the level: counts, and milliseconds for names that end so.
    pub fn metrics(&self, table: &str, values: &[(&str, f64)]) {
        print(&self.metrics_line(table, values));
    }

    fn metrics_line(&self, table: &str, values: &[(&str, f64)]) -> Json {
        let metric = |(name, _): &(&str, f64)| {
            let unit = if name.ends_with("Milliseconds") {
                "Milliseconds"
            } else {
                "Count"
            };
            json!({ "Name": name, "Unit": unit })
        };
        let mut line = json!({
            "_aws": {
                "Timestamp": EpochMillis::from(self.clock.now()).0,
                "CloudWatchMetrics": [{
                    "Namespace": NAMESPACE,
                    "Dimensions": [["TableName"]],
                    "Metrics": values.iter().map(metric).collect::<Vec<_>>(),
                }],
            },
            "TableName": table,
        });
        for (name, value) in values {
            line[*name] = json!(value);
        }
        line
    }
}

/// Ignores errors, since there is no other place for the line.
fn print(line: &Json) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use zae_limiter::clock::ManualClock;

    use super::*;

    fn log() -> Log {
        Log::new(
            Level::Info,
            Arc::new(ManualClock::at(EpochMillis(1_795_290_198_636).into())),
        )
    }

    #[test]
    fn a_line_says_when_how_and_what() {
        let line = log().line(Level::Warning, "here", "it rained", &[("litres", json!(3))]);
        assert_eq!(
            line,
            json!({
                "timestamp": "2026-11-21T19:43:18+00:00", "level": "WARNING", "logger": "here",
                "message": "it rained", "litres": 3,
            })
        );
    }

    #[test]
    fn metrics_are_in_embedded_metric_format() {
        let line = log().metrics_line(
            "prod",
            &[("RecordsProcessed", 2.0), ("ProcessingMilliseconds", 1.5)],
        );
        assert_eq!(line["_aws"]["Timestamp"], json!(1_795_290_198_636_i64));
        let metrics = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(metrics["Dimensions"], json!([["TableName"]]));
        assert_eq!(
            metrics["Metrics"][1],
            json!({"Name": "ProcessingMilliseconds", "Unit": "Milliseconds"})
        );
        assert_eq!(line["RecordsProcessed"], json!(2.0));
        assert_eq!(line["TableName"], json!("prod"));
    }

    #[test]
    fn levels_are_read_in_any_case() {
        assert_eq!(Level::parse("debug"), Some(Level::Debug));
        assert_eq!(Level::parse("loud"), None);
        assert!(Level::Debug < Level::Error);
    }
}
