//! What can be chosen when a stack is created, and the template's parameters that follow from it.

use std::collections::BTreeMap;

use zae_limiter_core::InvalidInput;
use zae_limiter_core::alert::Thresholds;
use zae_limiter_core::schema::SCHEMA_VERSION;

use crate::names::{self, Format, POLICIES, ROLES};
use crate::tags::{self, Tags};

/// For how many days CloudWatch can keep logs.
pub const LOG_RETENTION_DAYS: [u32; 22] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];

/// The parameter that is chosen when a stack is created, and stays.
pub(crate) const LEAN_INDEX: &str = "LeanIndex";

/// A parameter of the template: its name and value.
pub type Parameter = (&'static str, String);

/// The options of a stack.
///
/// ```
/// # use zae_limiter_infra as zae_limiter;
/// use zae_limiter::StackOptions;
///
/// let options = StackOptions { lambda_timeout: 30, ..StackOptions::default() };
/// let parameters = options.parameters("my-app")?;
/// // The alarm goes off at 80 % of the timeout.
/// assert!(parameters.contains(&("LambdaDurationThreshold", "24000".to_owned())));
/// # Ok::<(), zae_limiter::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct StackOptions {
    /// The windows in which usage is counted, separated by commas: `hourly`, `daily`, `monthly`.
    pub snapshot_windows: String,
    /// For how many days usage is kept: 1 to 3650.
    pub usage_retention_days: u32,
    /// For how many days audit events are kept: 1 to 36500. It is not a parameter of the template: the caller
    /// stores it in the table.
    pub audit_retention_days: u32,
    /// Whether the aggregator is deployed, which counts usage and archives audit events.
    pub enable_aggregator: bool,
    /// Whether the provisioner is deployed, which applies limits from manifests.
    pub enable_provisioner: bool,
    /// To how far back the table can be restored, in days: 1 to 35. `None` is what AWS does, 35.
    pub pitr_recovery_days: Option<u32>,
    /// For how many days logs are kept: one of [`LOG_RETENTION_DAYS`].
    pub log_retention_days: u32,
    /// How long the aggregator may run, in seconds: 1 to 900.
    pub lambda_timeout: u32,
    /// The aggregator's memory, in MB: 128 to 3008.
    pub lambda_memory: u32,
    /// At what part of the timeout the duration alarm goes off, in percent: 1 to 100.
    pub lambda_duration_threshold_pct: u32,
    /// Whether alarms are created.
    pub enable_alarms: bool,
    /// The SNS topic that alarms are sent to.
    pub alarm_sns_topic: Option<String>,
    /// The percentages of use at which the aggregator reports limits: up to 10, each from 1 to 100, separated by commas; `none` for
    /// no reports.
    pub alert_thresholds: String,
    /// The permission boundary of all roles: a policy's name or ARN.
    pub permission_boundary: Option<String>,
    /// How roles are named, with `{}` for the usual name.
    pub role_name_format: Option<String>,
    /// How managed policies are named, with `{}` for the usual name.
    pub policy_name_format: Option<String>,
    /// Whether expired audit events are archived in S3.
    pub enable_audit_archival: bool,
    /// After how many days archives move to Glacier Instant Retrieval: 1 to 3650.
    pub audit_archive_glacier_days: u32,
    /// Whether the aggregator is traced with X-Ray.
    pub enable_tracing: bool,
    /// Whether roles for applications, administrators and readers are created.
    pub create_iam_roles: bool,
    /// Whether anything of IAM is created.
    pub create_iam: bool,
    /// A role of your own for the aggregator.
    pub aggregator_role_arn: Option<String>,
    /// Whether the table is protected from deletion.
    pub enable_deletion_protection: bool,
    /// Whether the index by resource holds keys only, so that a debit costs one write unit and not two. Clients of the Python
    /// library cannot list the buckets and usage of a resource on such a table. It is chosen when the stack is created.
    pub lean_index: bool,
    /// Tags of your own.
    pub tags: Tags,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            snapshot_windows: "hourly,daily".into(),
            usage_retention_days: 90,
            audit_retention_days: 90,
            enable_aggregator: true,
            enable_provisioner: true,
            pitr_recovery_days: None,
            log_retention_days: 30,
            lambda_timeout: 60,
            lambda_memory: 256,
            lambda_duration_threshold_pct: 80,
            enable_alarms: true,
            alarm_sns_topic: None,
            alert_thresholds: Thresholds::default().to_string(),
            permission_boundary: None,
            role_name_format: None,
            policy_name_format: None,
            enable_audit_archival: true,
            audit_archive_glacier_days: 90,
            enable_tracing: false,
            create_iam_roles: false,
            create_iam: true,
            aggregator_role_arn: None,
            enable_deletion_protection: false,
            lean_index: false,
            tags: Tags::new(),
        }
    }
}

impl StackOptions {
    /// Whether the aggregator will exist: it is wanted, and there is a role for it.
    pub fn has_aggregator(&self) -> bool {
        self.enable_aggregator && (self.create_iam || self.aggregator_role_arn.is_some())
    }

    /// Whether the provisioner will exist: it is wanted, and its role may be created.
    pub fn has_provisioner(&self) -> bool {
        self.enable_provisioner && self.create_iam
    }

    /// Whether there will be functions, which need code.
    pub fn has_functions(&self) -> bool {
        self.has_aggregator() || self.has_provisioner()
    }

    /// Checks everything that can be known to be wrong before AWS is called, for a stack of this name.
    ///
    /// # Errors
    /// Names the option, its value and what would be right.
    pub fn check(&self, stack: &str) -> Result<(), InvalidInput> {
        names::check(stack, self.has_aggregator(), self.has_provisioner())?;
        self.check_ranges()?;
        if self.create_iam_roles && !self.create_iam {
            return Err(InvalidInput::new(
                "create_iam_roles",
                "true",
                "roles cannot be created while create_iam is off",
            ));
        }
        if let Some(arn) = &self.aggregator_role_arn
            && !is_role_arn(arn)
        {
            let reason = "must be the ARN of a role, such as arn:aws:iam::123456789012:role/my-role";
            return Err(InvalidInput::new("aggregator_role_arn", arn, reason));
        }
        let windows = ["hourly", "daily", "monthly"];
        if let Some(bad) = self
            .snapshot_windows
            .split(',')
            .find(|one| !windows.contains(&one.trim()))
        {
            let reason = format!(
                "unknown window '{}'; expected hourly, daily or monthly, separated by commas",
                bad.trim()
            );
            return Err(InvalidInput::new(
                "snapshot_windows",
                &self.snapshot_windows,
                reason,
            ));
        }
        Thresholds::parse("alert_thresholds", &self.alert_thresholds)?;
        for (field, text) in [
            ("alarm_sns_topic", &self.alarm_sns_topic),
            ("permission_boundary", &self.permission_boundary),
        ] {
            if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                return Err(InvalidInput::new(
                    field,
                    "",
                    "must not be empty; leave it out instead",
                ));
            }
        }
        self.formatted_names(stack)?;
        tags::check(&self.tags)?;
        tags::merged(stack, &Tags::new(), &self.tags).map(drop)
    }

    fn check_ranges(&self) -> Result<(), InvalidInput> {
        let ranges = [
            ("usage_retention_days", self.usage_retention_days, 1, 3650),
            ("audit_retention_days", self.audit_retention_days, 1, 36500),
            ("pitr_recovery_days", self.pitr_recovery_days.unwrap_or(35), 1, 35),
            ("lambda_timeout", self.lambda_timeout, 1, 900),
            ("lambda_memory", self.lambda_memory, 128, 3008),
            (
                "lambda_duration_threshold_pct",
                self.lambda_duration_threshold_pct,
                1,
                100,
            ),
            (
                "audit_archive_glacier_days",
                self.audit_archive_glacier_days,
                1,
                3650,
            ),
        ];
        for (field, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                let reason = format!("must be between {least} and {most}");
                return Err(InvalidInput::new(field, value, reason));
            }
        }
        if !LOG_RETENTION_DAYS.contains(&self.log_retention_days) {
            let days = LOG_RETENTION_DAYS.map(|days| days.to_string()).join(", ");
            let reason = format!("must be one of {days}");
            return Err(InvalidInput::new(
                "log_retention_days",
                self.log_retention_days,
                reason,
            ));
        }
        Ok(())
    }

    fn formatted_names(&self, stack: &str) -> Result<Vec<Parameter>, InvalidInput> {
        let mut parameters = Vec::new();
        if let Some(text) = &self.role_name_format {
            let format = Format::roles(text);
            format.check()?;
            for (component, parameter) in ROLES {
                parameters.push((parameter, format.name(stack, component)?));
            }
            parameters.push(("RoleNameFormat", text.clone()));
        }
        if let Some(text) = &self.policy_name_format {
            let format = Format::policies(text);
            format.check()?;
            for (component, parameter) in POLICIES {
                parameters.push((parameter, format.name(stack, component)?));
            }
        }
        Ok(parameters)
    }

    /// The template's parameters, except those about the functions' code.
    ///
    /// # Errors
    /// As [`check`](Self::check), of names that are too long and of thresholds.
    pub fn parameters(&self, stack: &str) -> Result<Vec<Parameter>, InvalidInput> {
        let truth = |value: bool| value.to_string();
        // As the template's pattern has them.
        let alerts = Thresholds::parse("alert_thresholds", &self.alert_thresholds)?;
        let threshold = u64::from(self.lambda_timeout) * 10 * u64::from(self.lambda_duration_threshold_pct);
        let mut parameters = vec![
            ("SnapshotWindows", self.snapshot_windows.clone()),
            ("SnapshotRetentionDays", self.usage_retention_days.to_string()),
            ("LambdaMemorySize", self.lambda_memory.to_string()),
            ("LambdaTimeout", self.lambda_timeout.to_string()),
            ("LambdaDurationThreshold", threshold.to_string()),
            ("AlertThresholds", alerts.to_string()),
            ("EnableAggregator", truth(self.enable_aggregator)),
            ("EnableProvisioner", truth(self.enable_provisioner)),
            ("SchemaVersion", SCHEMA_VERSION.to_owned()),
            ("EnableAlarms", truth(self.enable_alarms)),
            ("LogRetentionDays", self.log_retention_days.to_string()),
            ("EnableAuditArchival", truth(self.enable_audit_archival)),
            (
                "AuditArchiveGlacierTransitionDays",
                self.audit_archive_glacier_days.to_string(),
            ),
            ("EnableTracing", truth(self.enable_tracing)),
            ("EnableIAMRoles", truth(self.create_iam_roles)),
            ("EnableIAM", truth(self.create_iam)),
            ("EnableDeletionProtection", truth(self.enable_deletion_protection)),
            (LEAN_INDEX, truth(self.lean_index)),
        ];
        let given = [
            (
                "PITRRecoveryPeriodDays",
                self.pitr_recovery_days.map(|days| days.to_string()),
            ),
            ("AlarmSNSTopicArn", self.alarm_sns_topic.clone()),
            ("PermissionBoundary", self.permission_boundary.clone()),
            ("AggregatorRoleArn", self.aggregator_role_arn.clone()),
        ];
        parameters.extend(given.into_iter().filter_map(|(name, value)| Some((name, value?))));
        parameters.extend(self.formatted_names(stack)?);
        Ok(parameters)
    }
}

impl StackOptions {
    /// These options, with the values that a stack has for the parameters that were not given.
    ///
    /// ```
    /// # use zae_limiter_infra as zae_limiter;
    /// use zae_limiter::StackOptions;
    ///
    /// let stored = [("LambdaTimeout", "120"), ("LambdaMemorySize", "512")];
    /// let stored = stored.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    /// let wanted = StackOptions { lambda_timeout: 30, ..StackOptions::default() };
    /// let options = wanted.completed(&["LambdaTimeout"], &stored);
    /// assert_eq!((options.lambda_timeout, options.lambda_memory), (30, 512));
    /// ```
    #[must_use]
    pub fn completed(self, given: &[&str], all_stored: &BTreeMap<String, String>) -> Self {
        let mut all = self;
        let stored = |name: &str| all_stored.get(name).filter(|_| !given.contains(&name));
        let numbers = [
            ("SnapshotRetentionDays", &mut all.usage_retention_days),
            ("LambdaMemorySize", &mut all.lambda_memory),
            ("LambdaTimeout", &mut all.lambda_timeout),
            ("LogRetentionDays", &mut all.log_retention_days),
            (
                "AuditArchiveGlacierTransitionDays",
                &mut all.audit_archive_glacier_days,
            ),
        ];
        for (name, value) in numbers {
            if let Some(number) = stored(name).and_then(|text| text.parse().ok()) {
                *value = number;
            }
        }
        let switches = [
            ("EnableAggregator", &mut all.enable_aggregator),
            ("EnableProvisioner", &mut all.enable_provisioner),
            ("EnableAlarms", &mut all.enable_alarms),
            ("EnableAuditArchival", &mut all.enable_audit_archival),
            ("EnableTracing", &mut all.enable_tracing),
            ("EnableIAMRoles", &mut all.create_iam_roles),
            ("EnableIAM", &mut all.create_iam),
            ("EnableDeletionProtection", &mut all.enable_deletion_protection),
            (LEAN_INDEX, &mut all.lean_index),
        ];
        for (name, value) in switches {
            if let Some(text) = stored(name) {
                *value = text == "true";
            }
        }
        let texts = [
            ("AlarmSNSTopicArn", &mut all.alarm_sns_topic),
            ("PermissionBoundary", &mut all.permission_boundary),
            ("AggregatorRoleArn", &mut all.aggregator_role_arn),
            ("RoleNameFormat", &mut all.role_name_format),
        ];
        for (name, value) in texts {
            // The template has an empty text for none, and a format that changes nothing.
            if let Some(text) = stored(name).filter(|text| !text.is_empty() && *text != "{}") {
                *value = Some(text.clone());
            }
        }
        if let Some(windows) = stored("SnapshotWindows") {
            all.snapshot_windows.clone_from(windows);
        }
        if let Some(thresholds) = stored("AlertThresholds") {
            all.alert_thresholds.clone_from(thresholds);
        }
        if let Some(days) = stored("PITRRecoveryPeriodDays").and_then(|text| text.parse().ok()) {
            all.pitr_recovery_days = Some(days).filter(|days| *days > 0);
        }
        // The template has the threshold in milliseconds.
        if let Some(percent) = stored("LambdaDurationThreshold")
            .zip(all_stored.get("LambdaTimeout"))
            .and_then(|(millis, seconds)| {
                let (millis, seconds) = (millis.parse::<u32>().ok()?, seconds.parse::<u32>().ok()?);
                millis.checked_div(seconds.checked_mul(10)?)
            })
            .filter(|percent| (1..=100).contains(percent))
        {
            all.lambda_duration_threshold_pct = percent;
        }
        all
    }
}

fn is_role_arn(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    next() == "arn"
        && ["aws", "aws-cn", "aws-us-gov"].contains(&next())
        && next() == "iam"
        && next().is_empty()
        && {
            let account = next();
            account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())
        }
        && next().strip_prefix("role/").is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(change: impl FnOnce(&mut StackOptions)) -> StackOptions {
        let mut options = StackOptions::default();
        change(&mut options);
        options
    }

    fn map(options: &StackOptions) -> BTreeMap<&'static str, String> {
        options.parameters("my-app").unwrap().into_iter().collect()
    }

    #[test]
    fn defaults_become_these_parameters() {
        let expected = [
            ("AlertThresholds", "80,95,100"),
            ("AuditArchiveGlacierTransitionDays", "90"),
            ("EnableAggregator", "true"),
            ("EnableAlarms", "true"),
            ("EnableAuditArchival", "true"),
            ("EnableDeletionProtection", "false"),
            ("EnableIAM", "true"),
            ("EnableIAMRoles", "false"),
            ("EnableProvisioner", "true"),
            ("EnableTracing", "false"),
            ("LambdaDurationThreshold", "48000"),
            ("LambdaMemorySize", "256"),
            ("LambdaTimeout", "60"),
            ("LeanIndex", "false"),
            ("LogRetentionDays", "30"),
            ("SchemaVersion", "0.10.0"),
            ("SnapshotRetentionDays", "90"),
            ("SnapshotWindows", "hourly,daily"),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(name, value)| (name, value.to_owned())).into();
        assert_eq!(map(&StackOptions::default()), expected);
        StackOptions::default().check("my-app").unwrap();
    }

    #[test]
    fn each_option_reaches_its_parameter() {
        let defaults = map(&StackOptions::default());
        let check = |change: fn(&mut StackOptions), expected: &[(&str, &str)]| {
            let options = changed(change);
            options.check("my-app").unwrap();
            let found = map(&options);
            let different: Vec<(&str, &str)> = found
                .iter()
                .filter(|(name, value)| defaults.get(*name) != Some(value))
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            assert_eq!(different, expected);
        };
        check(
            |o| o.snapshot_windows = "monthly".into(),
            &[("SnapshotWindows", "monthly")],
        );
        check(|o| o.usage_retention_days = 7, &[("SnapshotRetentionDays", "7")]);
        check(|o| o.audit_retention_days = 7, &[]);
        check(|o| o.enable_aggregator = false, &[("EnableAggregator", "false")]);
        check(
            |o| o.enable_provisioner = false,
            &[("EnableProvisioner", "false")],
        );
        check(
            |o| o.pitr_recovery_days = Some(1),
            &[("PITRRecoveryPeriodDays", "1")],
        );
        check(|o| o.log_retention_days = 3653, &[("LogRetentionDays", "3653")]);
        check(
            |o| o.lambda_timeout = 7,
            &[("LambdaDurationThreshold", "5600"), ("LambdaTimeout", "7")],
        );
        check(|o| o.lambda_memory = 3008, &[("LambdaMemorySize", "3008")]);
        check(
            |o| o.lambda_duration_threshold_pct = 33,
            &[("LambdaDurationThreshold", "19800")],
        );
        check(|o| o.enable_alarms = false, &[("EnableAlarms", "false")]);
        check(
            |o| o.alarm_sns_topic = Some("arn:t".into()),
            &[("AlarmSNSTopicArn", "arn:t")],
        );
        check(
            |o| o.alert_thresholds = "90, 50".into(),
            &[("AlertThresholds", "50,90")],
        );
        check(
            |o| o.alert_thresholds = "none".into(),
            &[("AlertThresholds", "none")],
        );
        check(
            |o| o.permission_boundary = Some("pb".into()),
            &[("PermissionBoundary", "pb")],
        );
        check(
            |o| o.role_name_format = Some("pb-{}".into()),
            &[
                ("AdminRoleName", "pb-my-app-admin"),
                ("AggregatorRoleName", "pb-my-app-aggr"),
                ("AppRoleName", "pb-my-app-app"),
                ("ProvisionerRoleName", "pb-my-app-prov"),
                ("ReadOnlyRoleName", "pb-my-app-read"),
                ("RoleNameFormat", "pb-{}"),
            ],
        );
        check(
            |o| o.policy_name_format = Some("{}-x".into()),
            &[
                ("AcquireOnlyPolicyName", "my-app-acq-x"),
                ("FullAccessPolicyName", "my-app-full-x"),
                ("NamespaceAcquirePolicyName", "my-app-ns-acq-x"),
                ("NamespaceFullAccessPolicyName", "my-app-ns-full-x"),
                ("NamespaceReadOnlyPolicyName", "my-app-ns-read-x"),
                ("ReadOnlyPolicyName", "my-app-read-x"),
            ],
        );
        check(
            |o| o.enable_audit_archival = false,
            &[("EnableAuditArchival", "false")],
        );
        check(
            |o| o.audit_archive_glacier_days = 3650,
            &[("AuditArchiveGlacierTransitionDays", "3650")],
        );
        check(|o| o.enable_tracing = true, &[("EnableTracing", "true")]);
        check(|o| o.create_iam_roles = true, &[("EnableIAMRoles", "true")]);
        check(|o| o.create_iam = false, &[("EnableIAM", "false")]);
        check(
            |o| o.aggregator_role_arn = Some("arn:aws-cn:iam::123456789012:role/a/b".into()),
            &[("AggregatorRoleArn", "arn:aws-cn:iam::123456789012:role/a/b")],
        );
        check(
            |o| o.enable_deletion_protection = true,
            &[("EnableDeletionProtection", "true")],
        );
        check(|o| o.lean_index = true, &[("LeanIndex", "true")]);
    }

    #[test]
    fn what_is_refused_names_the_option_and_what_would_be_right() {
        let check = |change: fn(&mut StackOptions), field: &str, reason: &str| {
            let err = changed(change).check("my-app").unwrap_err();
            assert_eq!(err.field(), field);
            assert!(err.reason().contains(reason), "{err}");
        };
        check(
            |o| o.usage_retention_days = 0,
            "usage_retention_days",
            "between 1 and 3650",
        );
        check(
            |o| o.audit_retention_days = 0,
            "audit_retention_days",
            "between 1 and",
        );
        check(
            |o| o.pitr_recovery_days = Some(36),
            "pitr_recovery_days",
            "between 1 and 35",
        );
        check(
            |o| o.pitr_recovery_days = Some(0),
            "pitr_recovery_days",
            "between 1 and 35",
        );
        check(
            |o| o.log_retention_days = 2,
            "log_retention_days",
            "one of 1, 3, 5",
        );
        check(|o| o.lambda_timeout = 901, "lambda_timeout", "between 1 and 900");
        check(|o| o.lambda_memory = 127, "lambda_memory", "between 128 and 3008");
        check(
            |o| o.lambda_duration_threshold_pct = 101,
            "lambda_duration_threshold_pct",
            "between 1 and 100",
        );
        check(
            |o| o.audit_archive_glacier_days = 0,
            "audit_archive_glacier_days",
            "between 1",
        );
        check(
            |o| o.snapshot_windows = "hourly,weekly".into(),
            "snapshot_windows",
            "'weekly'",
        );
        check(
            |o| o.snapshot_windows = String::new(),
            "snapshot_windows",
            "hourly, daily",
        );
        check(
            |o| o.alert_thresholds = "80,101".into(),
            "alert_thresholds",
            "from 1 to 100",
        );
        check(
            |o| o.alert_thresholds = String::new(),
            "alert_thresholds",
            "or 'none'",
        );
        check(
            |o| o.alarm_sns_topic = Some(" ".into()),
            "alarm_sns_topic",
            "empty",
        );
        check(
            |o| o.role_name_format = Some("x".into()),
            "role_name_format",
            "found 0",
        );
        check(
            |o| o.policy_name_format = Some("x".into()),
            "policy_name_format",
            "found 0",
        );
        check(
            |o| (o.create_iam, o.create_iam_roles) = (false, true),
            "create_iam_roles",
            "create_iam is off",
        );
        check(
            |o| o.tags = [("aws:x".into(), "y".into())].into(),
            "tags",
            "reserved",
        );
        for bad in [
            "",
            "foo",
            "arn:aws:iam::12:role/x",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:user/x",
            "arn:gcp:iam::123456789012:role/x",
        ] {
            let err = changed(|o| o.aggregator_role_arn = Some(bad.into()))
                .check("my-app")
                .unwrap_err();
            assert_eq!(err.field(), "aggregator_role_arn", "{bad}");
        }
    }

    #[test]
    fn which_functions_there_are() {
        let arn = || Some("arn:aws:iam::123456789012:role/x".to_owned());
        let check = |change: fn(&mut StackOptions), aggregator, provisioner| {
            let options = changed(change);
            assert_eq!(
                (options.has_aggregator(), options.has_provisioner()),
                (aggregator, provisioner)
            );
        };
        check(|_| (), true, true);
        check(|o| o.create_iam = false, false, false);
        check(|o| o.enable_aggregator = false, false, true);
        let external = changed(|o| (o.create_iam, o.aggregator_role_arn) = (false, arn()));
        assert!(external.has_aggregator() && !external.has_provisioner());
    }
}
