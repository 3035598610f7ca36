//! What `deploy` says before it begins: the settings that the stack gets, or keeps.

use zae_limiter_infra::StackOptions;

use crate::args::Connection;
use crate::text::table::printable;

/// Two words for what is on or off.
const fn word(on: bool) -> &'static str {
    if on { "enabled" } else { "disabled" }
}

/// The settings, a line each. The days for which audit events are kept are not among those of the stack; `None` leaves
/// them as they are.
pub(super) fn lines(at: &Connection, options: &StackOptions, audit_retention: Option<u32>) -> Vec<String> {
    let region = at.region.as_deref().unwrap_or("default");
    let mut lines = vec![
        format!("Deploying stack: {}", at.name),
        format!("  Table name: {}", at.name),
        format!("  Region: {region}"),
        format!("  Snapshot windows: {}", options.snapshot_windows),
        format!("  Usage retention days: {}", options.usage_retention_days),
    ];
    if let Some(days) = audit_retention {
        lines.push(format!("  Audit retention days: {days}"));
    }
    lines.push(format!("  Aggregator: {}", word(options.enable_aggregator)));
    lines.push(format!("  Provisioner: {}", word(options.enable_provisioner)));
    let mut say = |line: String| lines.push(printable(&line).into_owned());
    if let Some(days) = options.pitr_recovery_days {
        say(format!("  Point-in-time recovery: {days} days"));
    }
    if options.has_functions() {
        say(format!("  Log retention days: {}", options.log_retention_days));
    }
    if options.enable_aggregator {
        say(format!("  Lambda timeout: {}s", options.lambda_timeout));
        say(format!("  Lambda memory: {}MB", options.lambda_memory));
        say(format!("  X-Ray tracing: {}", word(options.enable_tracing)));
        say(format!("  Alert thresholds: {}", options.alert_thresholds));
    }
    say(format!("  Alarms: {}", word(options.enable_alarms)));
    if let (true, Some(topic)) = (options.enable_alarms, &options.alarm_sns_topic) {
        say(format!("  Alarm SNS topic: {topic}"));
    }
    say(format!("  IAM resources: {}", word(options.create_iam)));
    if options.create_iam {
        say(format!("  IAM roles: {}", word(options.create_iam_roles)));
    }
    if let Some(arn) = &options.aggregator_role_arn {
        say(format!("  External role: {arn}"));
    }
    if let Some(policy) = &options.permission_boundary {
        say(format!("  Permission boundary: {policy}"));
    }
    if let Some(format) = &options.role_name_format {
        say(format!("  Role name format: {format}"));
    }
    if let Some(format) = &options.policy_name_format {
        say(format!("  Policy name format: {format}"));
    }
    say(format!(
        "  Deletion protection: {}",
        word(options.enable_deletion_protection)
    ));
    if options.enable_aggregator {
        say(format!(
            "  Audit archival: {}",
            word(options.enable_audit_archival)
        ));
        if options.enable_audit_archival {
            say(format!(
                "  Glacier transition: {} days",
                options.audit_archive_glacier_days
            ));
        }
    }
    if !options.tags.is_empty() {
        say(format!("  Tags: {} user-defined", options.tags.len()));
        for (key, value) in &options.tags {
            say(format!("    {key}={value}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Connection {
        Connection {
            name: "d10".into(),
            region: Some("ap-south-1".into()),
            endpoint_url: None,
        }
    }

    #[test]
    fn settings_are_told_where_they_hold() {
        let options = StackOptions {
            enable_tracing: true,
            alarm_sns_topic: Some("arn:t".into()),
            tags: [("env".into(), "prod\u{1b}".into())].into(),
            ..StackOptions::default()
        };
        let expected = "\
Deploying stack: d10
  Table name: d10
  Region: ap-south-1
  Snapshot windows: hourly,daily
  Usage retention days: 90
  Audit retention days: 90
  Aggregator: enabled
  Provisioner: enabled
  Log retention days: 30
  Lambda timeout: 60s
  Lambda memory: 256MB
  X-Ray tracing: enabled
  Alert thresholds: 80,95,100
  Alarms: enabled
  Alarm SNS topic: arn:t
  IAM resources: enabled
  IAM roles: disabled
  Deletion protection: disabled
  Audit archival: enabled
  Glacier transition: 90 days
  Tags: 1 user-defined
    env=prod\\u{1b}";
        assert_eq!(lines(&at(), &options, Some(90)).join("\n"), expected);
    }

    #[test]
    fn settings_of_what_is_left_out_are_not_told() {
        let options = StackOptions {
            enable_aggregator: false,
            enable_provisioner: false,
            enable_alarms: false,
            create_iam: false,
            alarm_sns_topic: Some("arn:t".into()),
            ..StackOptions::default()
        };
        let text = lines(&at(), &options, Some(90)).join("\n");
        for absent in [
            "Lambda",
            "X-Ray",
            "topic",
            "IAM roles",
            "archival",
            "Glacier",
            "Log",
            "Tags",
        ] {
            assert!(!text.contains(absent), "{absent} in:\n{text}");
        }
    }
}
