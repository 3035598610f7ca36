//! How a trace is read.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;
use zae_limiter_core::{EntityId, LimitName, ResourceName};

/// The format of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// CSV with names of columns in the first line, those of the Azure LLM traces among them.
    Csv,
    /// The Common or Combined Log Format of web servers.
    Log,
    /// The JSON that `zae-limiter usage list --output json` prints.
    Usage,
}

impl Format {
    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Log => "log",
            Self::Usage => "usage",
        }
    }
}

/// HTTP statuses, such as `429` or `5xx`.
///
/// ```
/// use zae_limiter_replay::trace::StatusRange;
///
/// let range: StatusRange = "5xx".parse()?;
/// assert!(range.contains(503) && !range.contains(429));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// Whether it has this status.
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a status such as 429, or a class such as 5xx";
        let class = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX"));
        let (digits, length, span) = match class {
            Some(class) => (class, 1, 100),
            None => (text, 3, 1),
        };
        if digits.len() != length || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(EXPECTED.to_owned());
        }
        let number: u16 = digits.parse().map_err(|_| EXPECTED)?;
        let first = number * span;
        if !(100..1000).contains(&first) {
            return Err(EXPECTED.to_owned());
        }
        Ok(Self {
            first,
            last: first + span - 1,
        })
    }
}

/// How a trace is read, and what it lacks.
///
/// ```
/// use zae_limiter_replay::trace::TraceOptions;
/// use zae_limiter::LimitName;
///
/// let options = TraceOptions {
///     limits: [LimitName::new("rpm")?].into(),
///     entity: Some("key-1".try_into()?),
///     ..TraceOptions::default()
/// };
/// # Ok::<(), zae_limiter::InvalidInput>(())
/// ```
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// The limits that exist: those of all manifests.
    pub limits: BTreeSet<LimitName>,
    /// The format. By default, the content says it.
    pub format: Option<Format>,
    /// A regular expression with named groups for lines of a log.
    pub pattern: Option<String>,
    /// Which column or group has what: pairs of a role (`time`, `entity`, ..., or a limit) and the name of the column.
    pub columns: Vec<(String, String)>,
    /// The entity of rows that have none.
    pub entity: Option<EntityId>,
    /// The resource of rows that have none.
    pub resource: Option<ResourceName>,
    /// The entity above that of rows that have none.
    pub parent: Option<EntityId>,
    /// The limit of which each request takes one. By default `rpm`, if it exists.
    pub requests_limit: Option<LimitName>,
    /// The limit of which requests take their tokens. By default `tpm`, if it exists.
    pub tokens_limit: Option<LimitName>,
    /// In an Azure trace: the tokens that are taken for an answer when the request arrives. By default, as many as it has.
    pub answer_estimate: Option<u64>,
    /// In an Azure trace: how many milliseconds an answer lasts for each of its tokens.
    pub ms_per_token: u64,
    /// The time zone of times without an offset.
    pub zone: TimeZone,
    /// By how much a row can be earlier than one before it.
    pub disorder: Duration,
    /// Leaves out rows that cannot be read.
    pub skip_bad: bool,
    /// Leaves out rows with these statuses.
    pub skip_status: Vec<StatusRange>,
    /// If not empty, leaves out rows with other methods.
    pub methods: Vec<String>,
    /// Spreads the sums of an export.
    pub seed: u64,
}

impl Default for TraceOptions {
    /// No limits, UTC, a disorder of one minute, and nothing left out.
    fn default() -> Self {
        Self {
            limits: BTreeSet::new(),
            format: None,
            pattern: None,
            columns: Vec::new(),
            entity: None,
            resource: None,
            parent: None,
            requests_limit: None,
            tokens_limit: None,
            answer_estimate: None,
            ms_per_token: 0,
            zone: TimeZone::UTC,
            disorder: Duration::from_mins(1),
            skip_bad: false,
            skip_status: Vec::new(),
            methods: Vec::new(),
            seed: 0,
        }
    }
}

impl TraceOptions {
    /// The limit that counts requests, if there is one.
    pub(crate) fn counted(&self) -> Option<LimitName> {
        self.requests_limit.clone().or_else(|| self.existing("rpm"))
    }

    /// The limit of tokens, if there is one.
    pub(crate) fn of_tokens(&self) -> Option<LimitName> {
        self.tokens_limit.clone().or_else(|| self.existing("tpm"))
    }

    fn existing(&self, name: &str) -> Option<LimitName> {
        self.limits.iter().find(|limit| limit.as_str() == name).cloned()
    }

    /// The limits that exist, for messages.
    pub(crate) fn known(&self) -> String {
        let names: Vec<&str> = self.limits.iter().map(LimitName::as_str).collect();
        names.join(", ")
    }

    /// Refuses limits that do not exist, and options that contradict each other.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.limits.is_empty() {
            return Err("cannot be replayed: the manifest declares no limits".to_owned());
        }
        let named = [
            ("--requests-limit", &self.requests_limit),
            ("--tokens-limit", &self.tokens_limit),
        ];
        for (option, limit) in named {
            if let Some(limit) = limit.as_ref().filter(|limit| !self.limits.contains(*limit)) {
                let known = self.known();
                return Err(format!(
                    "{option} is '{limit}', which the manifest does not declare; it declares {known}"
                ));
            }
        }
        if self.pattern.is_some() && self.format.is_some_and(|format| format != Format::Log) {
            return Err("--pattern is for logs; leave --format out".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_classes() {
        let range = |text: &str| text.parse::<StatusRange>();
        assert!(range("429").is_ok_and(|range| range.contains(429) && !range.contains(430)));
        assert!(
            range("4xx")
                .is_ok_and(|range| range.contains(400) && range.contains(499) && !range.contains(500))
        );
        for text in ["", "xx", "0xx", "42", "099", "4290", "+29", "5x", "axx", "１２３"] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
