//! What the functions read from their environment.

use zae_limiter::Window;
use zae_limiter_core::alert::Thresholds;

/// A variable with a value that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is '{value}'; it must be {expected}")]
pub struct BadSetting {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// The expected value.
    pub expected: &'static str,
}

/// The table's name: `TABLE_NAME`, else `rate-limits`.
pub fn table_name() -> String {
    table_name_in(&variable)
}

fn table_name_in(variable: &dyn Fn(&str) -> Option<String>) -> String {
    variable("TABLE_NAME").unwrap_or_else(|| "rate-limits".into())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The aggregator's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregatorSettings {
    /// The table.
    pub table: String,
    /// Which windows of usage are kept.
    pub windows: Vec<Window>,
    /// How many days a snapshot is kept after its window has ended.
    pub retention_days: i64,
    /// The S3 bucket for expired audit events; `None` if they are not kept.
    pub archive_bucket: Option<String>,
    /// The percentages of use at which limits are reported.
    pub alert_thresholds: Thresholds,
}

impl AggregatorSettings {
    /// Reads `TABLE_NAME`, `SNAPSHOT_WINDOWS`, `SNAPSHOT_TTL_DAYS`, `ENABLE_ARCHIVAL`, `ARCHIVE_BUCKET_NAME`
    /// and `ALERT_THRESHOLDS`.
    ///
    /// # Errors
    /// [`BadSetting`] for an unknown window, an invalid number of days and invalid thresholds.
    pub fn from_env() -> Result<Self, BadSetting> {
        Self::read(&variable)
    }

    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, BadSetting> {
        let windows = variable("SNAPSHOT_WINDOWS").unwrap_or_else(|| "hourly,daily".into());
        let days = variable("SNAPSHOT_TTL_DAYS").unwrap_or_else(|| "90".into());
        let archive = variable("ENABLE_ARCHIVAL").is_some_and(|on| on.eq_ignore_ascii_case("true"));
        Ok(Self {
            table: table_name_in(variable),
            windows: parse_windows(&windows)?,
            retention_days: days
                .trim()
                .parse()
                .ok()
                .filter(|days| (1..=36_500).contains(days))
                .ok_or(BadSetting {
                    name: "SNAPSHOT_TTL_DAYS",
                    value: days,
                    expected: "a number of days from 1 to 36500",
                })?,
            archive_bucket: variable("ARCHIVE_BUCKET_NAME").filter(|_| archive),
            alert_thresholds: match variable("ALERT_THRESHOLDS") {
                None => Thresholds::default(),
                Some(text) => Thresholds::parse("", &text).map_err(|_| BadSetting {
                    name: "ALERT_THRESHOLDS",
                    value: text,
                    expected: "a list of up to 10 percentages from 1 to 100, separated by commas, or 'none'",
                })?,
            },
        })
    }
}

fn parse_windows(text: &str) -> Result<Vec<Window>, BadSetting> {
    let mut windows = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let window = Window::parse(name).ok_or_else(|| BadSetting {
            name: "SNAPSHOT_WINDOWS",
            value: text.to_owned(),
            expected: "a list of hourly, daily and monthly, separated by commas",
        })?;
        if !windows.contains(&window) {
            windows.push(window);
        }
    }
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<AggregatorSettings, BadSetting> {
        AggregatorSettings::read(&|name| {
            let found = pairs.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_set_means_the_defaults() {
        assert_eq!(
            read(&[]),
            Ok(AggregatorSettings {
                table: "rate-limits".into(),
                windows: vec![Window::Hourly, Window::Daily],
                retention_days: 90,
                archive_bucket: None,
                alert_thresholds: Thresholds::default(),
            })
        );
    }

    #[test]
    fn settings_are_read_as_the_template_writes_them() {
        let settings = read(&[
            ("TABLE_NAME", "prod"),
            ("SNAPSHOT_WINDOWS", "hourly, monthly,hourly"),
            ("SNAPSHOT_TTL_DAYS", "30"),
            ("ENABLE_ARCHIVAL", "True"),
            ("ARCHIVE_BUCKET_NAME", "b"),
            ("ALERT_THRESHOLDS", "90,50"),
        ])
        .unwrap();
        assert_eq!(settings.alert_thresholds.to_string(), "50,90");
        assert_eq!(settings.windows, [Window::Hourly, Window::Monthly]);
        assert_eq!(settings.retention_days, 30);
        assert_eq!(settings.archive_bucket.as_deref(), Some("b"));
        let off = read(&[("ENABLE_ARCHIVAL", "false"), ("ARCHIVE_BUCKET_NAME", "b")]).unwrap();
        assert_eq!(off.archive_bucket, None);
        let quiet = read(&[("ALERT_THRESHOLDS", "none")]).unwrap();
        assert!(quiet.alert_thresholds.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (name, value) in [
            ("SNAPSHOT_WINDOWS", "hourly,weekly"),
            ("SNAPSHOT_TTL_DAYS", "soon"),
            ("SNAPSHOT_TTL_DAYS", "0"),
            ("ALERT_THRESHOLDS", "80,101"),
            ("ALERT_THRESHOLDS", "80;95"),
        ] {
            let err = read(&[(name, value)]).unwrap_err();
            assert!(
                err.to_string().starts_with(&format!("{name} is '{value}'")),
                "{err}"
            );
        }
    }
}
