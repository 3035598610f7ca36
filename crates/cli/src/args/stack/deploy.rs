//! The options of `deploy`, and what they say.

use std::collections::BTreeMap;

use clap::Args;
use zae_limiter_infra::{LOG_RETENTION_DAYS, StackOptions};

use super::super::{Common, Connection, Events};
use super::Code;
use crate::args::values::whole;
use crate::failure::Failure;

/// Deploy the stack: table, functions, alarms and permissions.
///
/// With --endpoint-url embedded:PATH, only creates a table in that directory.
///
/// An existing stack is updated: it gets the settings and tags that are given as options, and its functions this
/// version's code. Settings without an option keep their values, and the template stays ('upgrade' brings this version's).
/// What changes is listed first. A change that would remove or replace resources is refused, unless --allow-removal is
/// given; the table is not removed or replaced in any case.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # A stack in AWS
  zae-limiter deploy --name my-app --region us-east-1

  # For production
  zae-limiter deploy --name prod --region us-east-1 --enable-deletion-protection --enable-tracing

  # The table alone
  zae-limiter deploy --name simple --no-aggregator --no-provisioner

  # With a permission boundary
  zae-limiter deploy --permission-boundary DeveloperBoundary --role-name-format \"pb-{}-PowerUser\"

  # A table in a directory of this machine
  zae-limiter deploy --endpoint-url embedded:./limits"
)]
pub(crate) struct Deploy {
    /// Wait until the stack is complete (the default)
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,

    /// Start the deployment, and do not wait
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,

    /// Let changed settings of an existing stack remove or replace resources other than the table, such as alarms
    #[arg(long)]
    pub(crate) allow_removal: bool,

    /// Add a tag to the stack; can be repeated
    #[arg(short, long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<String>,

    /// The table.
    #[command(flatten)]
    table: TableOptions,

    /// The functions.
    #[command(flatten)]
    functions: FunctionOptions,

    /// Their code.
    #[command(flatten)]
    pub(crate) code: Code,

    /// Alarms.
    #[command(flatten)]
    alarms: AlarmOptions,

    /// Permissions.
    #[command(flatten)]
    permissions: PermissionOptions,

    /// What is printed meanwhile.
    #[command(flatten)]
    pub(crate) events: Events,

    /// Where, and how results are printed.
    #[command(flatten)]
    pub(crate) common: Common<Connection>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Table")]
struct TableOptions {
    /// Days for which usage is kept [default: 90]
    #[arg(long, value_name = "DAYS")]
    usage_retention_days: Option<u32>,

    /// Days for which audit events of the namespace 'default' are kept [default: 90]
    #[arg(long, value_name = "DAYS")]
    audit_retention_days: Option<u32>,

    /// Days of point-in-time recovery, 1 to 35 [default: 35]
    #[arg(long, value_name = "DAYS")]
    pitr_recovery_days: Option<u32>,

    /// Protect the table from deletion
    #[arg(long, overrides_with = "no_deletion_protection")]
    enable_deletion_protection: bool,

    /// Do not protect the table from deletion (the default)
    #[arg(long, overrides_with = "enable_deletion_protection")]
    no_deletion_protection: bool,

    /// Keep only keys in the index by resource, for half the write units of an acquire
    ///
    /// Clients of the Python library cannot list the buckets and usage of a resource on such a table. The choice is made when
    /// the stack is created.
    #[arg(long)]
    lean_index: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Functions")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
struct FunctionOptions {
    /// Deploy the aggregator, which counts usage and archives audit events (the default)
    #[arg(long, overrides_with = "no_aggregator")]
    enable_aggregator: bool,

    /// Do not deploy the aggregator
    #[arg(long, overrides_with = "enable_aggregator")]
    no_aggregator: bool,

    /// Deploy the provisioner, which applies limits from manifests (the default)
    #[arg(long, overrides_with = "no_provisioner")]
    enable_provisioner: bool,

    /// Do not deploy the provisioner
    #[arg(long, overrides_with = "enable_provisioner")]
    no_provisioner: bool,

    /// Windows for which usage is counted, separated by commas: hourly, daily, monthly [default: hourly,daily]
    #[arg(long, value_name = "WINDOWS")]
    snapshot_windows: Option<String>,

    /// Days for which logs are kept [default: 30]
    #[arg(long, value_name = "DAYS", value_parser = log_retention_days)]
    log_retention_days: Option<u32>,

    /// Timeout of the aggregator in seconds, 1 to 900 [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u32>(1..=900))]
    lambda_timeout: Option<u32>,

    /// Memory of the aggregator in MB, 128 to 3008 [default: 256]
    #[arg(long, value_name = "MB", value_parser = whole::<u32>(128..=3008))]
    lambda_memory: Option<u32>,

    /// Archive expired audit events in S3 (the default)
    #[arg(long, overrides_with = "no_audit_archival")]
    enable_audit_archival: bool,

    /// Do not archive expired audit events
    #[arg(long, overrides_with = "enable_audit_archival")]
    no_audit_archival: bool,

    /// Days until archives move to Glacier Instant Retrieval, 1 to 3650 [default: 90]
    #[arg(long, value_name = "DAYS", value_parser = whole::<u32>(1..=3650))]
    audit_archive_glacier_days: Option<u32>,

    /// Trace the aggregator with AWS X-Ray
    #[arg(long, overrides_with = "no_tracing")]
    enable_tracing: bool,

    /// Do not trace the aggregator (the default)
    #[arg(long, overrides_with = "enable_tracing")]
    no_tracing: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Alarms")]
struct AlarmOptions {
    /// Create CloudWatch alarms (the default)
    #[arg(long, overrides_with = "no_alarms")]
    enable_alarms: bool,

    /// Do not create alarms
    #[arg(long, overrides_with = "enable_alarms")]
    no_alarms: bool,

    /// ARN of the SNS topic for alarms [default: none]
    #[arg(long, value_name = "ARN")]
    alarm_sns_topic: Option<String>,

    /// Percentages of a limit's capacity whose use the aggregator reports, separated by commas; 'none' for no reports [default:
    /// 80,95,100]
    ///
    /// Each is reported once in a period: until a quota is reset, a session ends, or a limit could have filled. A report is a line
    /// of the aggregator's log and counts for a metric; those of quotas and session limits have an alarm.
    #[arg(long, value_name = "PERCENTS")]
    alert_thresholds: Option<String>,

    /// Alarm if the aggregator runs for this percentage of its timeout, 1 to 100 [default: 80]
    #[arg(long, value_name = "PERCENT", value_parser = whole::<u32>(1..=100))]
    lambda_duration_threshold_pct: Option<u32>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Permissions")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
struct PermissionOptions {
    /// Create policies and roles (the default)
    #[arg(long, overrides_with = "no_iam")]
    iam: bool,

    /// Do not create IAM resources; functions then need --aggregator-role-arn
    #[arg(long, overrides_with = "iam")]
    no_iam: bool,

    /// Create roles for applications, administrators and readers
    #[arg(long, overrides_with = "no_create_iam_roles")]
    create_iam_roles: bool,

    /// Create only policies (the default)
    #[arg(long, overrides_with = "create_iam_roles")]
    no_create_iam_roles: bool,

    /// ARN of an existing role for the aggregator [default: a role of the stack]
    #[arg(long, value_name = "ARN")]
    aggregator_role_arn: Option<String>,

    /// Permission boundary of all roles: name or ARN of a policy [default: none]
    #[arg(long, value_name = "POLICY")]
    permission_boundary: Option<String>,

    /// Format of role names; {} stands for the default name: pb-{} gives pb-my-app-aggr
    #[arg(long, value_name = "FORMAT")]
    role_name_format: Option<String>,

    /// Format of policy names; {} stands for the default name: pb-{} gives pb-my-app-acq
    #[arg(long, value_name = "FORMAT")]
    policy_name_format: Option<String>,
}

/// Reads a number of days that CloudWatch offers.
fn log_retention_days(text: &str) -> Result<u32, String> {
    let known = |days: &u32| LOG_RETENTION_DAYS.contains(days);
    text.parse::<u32>().ok().filter(known).ok_or_else(|| {
        let days = LOG_RETENTION_DAYS.map(|days| days.to_string()).join(", ");
        format!("CloudWatch offers {days}")
    })
}

/// The value of a pair of options; `None` if neither was given.
const fn pair(on: bool, off: bool) -> Option<bool> {
    match (on, off) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// The evaluated options of `deploy`.
pub(crate) struct Chosen {
    /// The stack's options.
    pub(crate) options: StackOptions,
    /// Each option that was given and is a parameter of the template, with the parameters that it sets.
    pub(crate) given: Vec<(&'static str, &'static [&'static str])>,
    /// Given options that are not settings of the stack.
    pub(crate) others: Vec<&'static str>,
    /// Days for which audit events are kept, if given.
    pub(crate) audit_retention: Option<u32>,
    /// Notes to print: options that have no effect because of others.
    pub(crate) notes: Vec<&'static str>,
}

impl Deploy {
    /// Whether to wait: what the last of the two options says.
    pub(crate) const fn waits(&self) -> bool {
        !self.no_wait
    }

    /// Reads the options.
    pub(crate) fn chosen(&self) -> Result<Chosen, Failure> {
        let (permissions, functions, table) = (&self.permissions, &self.functions, &self.table);
        let create_iam = pair(permissions.iam, permissions.no_iam);
        let create_iam_roles = pair(permissions.create_iam_roles, permissions.no_create_iam_roles);
        if create_iam == Some(false) && create_iam_roles == Some(true) {
            return Err(Failure::usage("--create-iam-roles cannot be used with --no-iam"));
        }
        let mut chosen = Chosen {
            options: StackOptions::default(),
            given: Vec::new(),
            others: Vec::new(),
            audit_retention: table.audit_retention_days,
            notes: Vec::new(),
        };
        chosen.options.tags = self.tags()?;
        if !self.tags.is_empty() {
            chosen.others.push("--tag");
        }
        chosen.table(table);
        chosen.functions(functions);
        chosen.alarms(&self.alarms);
        chosen.permissions(permissions, create_iam, create_iam_roles);
        for (option, given) in [
            ("--allow-removal", self.allow_removal),
            ("--code-bucket", self.code.code_bucket.is_some()),
            ("--no-wait", self.no_wait),
        ] {
            if given {
                chosen.others.push(option);
            }
        }
        Ok(chosen)
    }

    fn tags(&self) -> Result<BTreeMap<String, String>, Failure> {
        let read = |text: &String| match text.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Failure::usage(format!(
                "Invalid tag format '{text}'. Use KEY=VALUE."
            ))),
        };
        let mut tags = BTreeMap::new();
        for tag in self.tags.iter().map(read) {
            let (key, value) = tag?;
            if tags.insert(key.clone(), value).is_some() {
                return Err(Failure::usage(format!(
                    "The tag '{key}' is given twice. Give each tag once."
                )));
            }
        }
        Ok(tags)
    }
}

impl Chosen {
    /// The options, where those that were not given are a stack's own.
    pub(crate) fn completed(&self, stored: &BTreeMap<String, String>) -> StackOptions {
        // The threshold follows from the timeout, too: its part of it stays.
        let names = self.given.iter().flat_map(|(option, names)| match *option {
            "--lambda-timeout" => &names[..1],
            _ => names,
        });
        let given: Vec<&str> = names.copied().collect();
        self.options.clone().completed(&given, stored)
    }

    /// Takes an option over, if it was given.
    fn take<T: Clone>(
        &mut self,
        value: Option<&T>,
        into: impl FnOnce(&mut StackOptions) -> &mut T,
        option: &'static str,
        parameters: &'static [&'static str],
    ) {
        if let Some(value) = value {
            *into(&mut self.options) = value.clone();
            self.given.push((option, parameters));
        }
    }

    /// Takes an option over that has no default.
    fn take_some<T: Clone>(
        &mut self,
        value: Option<&T>,
        into: impl FnOnce(&mut StackOptions) -> &mut Option<T>,
        option: &'static str,
        parameters: &'static [&'static str],
    ) {
        let value = value.cloned();
        self.take(value.is_some().then_some(&value), into, option, parameters);
    }

    /// Takes a pair of options over; it is called by the one that was given.
    fn take_pair(
        &mut self,
        value: Option<bool>,
        into: impl FnOnce(&mut StackOptions) -> &mut bool,
        (on, off): (&'static str, &'static str),
        parameters: &'static [&'static str],
    ) {
        let option = if value == Some(true) { on } else { off };
        self.take(value.as_ref(), into, option, parameters);
    }

    fn table(&mut self, given: &TableOptions) {
        self.take(
            given.usage_retention_days.as_ref(),
            |o| &mut o.usage_retention_days,
            "--usage-retention-days",
            &["SnapshotRetentionDays"],
        );
        if let Some(days) = given.audit_retention_days {
            self.options.audit_retention_days = days;
        }
        self.take_some(
            given.pitr_recovery_days.as_ref(),
            |o| &mut o.pitr_recovery_days,
            "--pitr-recovery-days",
            &["PITRRecoveryPeriodDays"],
        );
        self.take_pair(
            pair(given.enable_deletion_protection, given.no_deletion_protection),
            |o| &mut o.enable_deletion_protection,
            ("--enable-deletion-protection", "--no-deletion-protection"),
            &["EnableDeletionProtection"],
        );
        self.take(
            given.lean_index.then_some(&true),
            |o| &mut o.lean_index,
            "--lean-index",
            &["LeanIndex"],
        );
    }

    fn functions(&mut self, given: &FunctionOptions) {
        self.take_pair(
            pair(given.enable_aggregator, given.no_aggregator),
            |o| &mut o.enable_aggregator,
            ("--enable-aggregator", "--no-aggregator"),
            &["EnableAggregator"],
        );
        self.take_pair(
            pair(given.enable_provisioner, given.no_provisioner),
            |o| &mut o.enable_provisioner,
            ("--enable-provisioner", "--no-provisioner"),
            &["EnableProvisioner"],
        );
        self.take(
            given.snapshot_windows.as_ref(),
            |o| &mut o.snapshot_windows,
            "--snapshot-windows",
            &["SnapshotWindows"],
        );
        self.take(
            given.log_retention_days.as_ref(),
            |o| &mut o.log_retention_days,
            "--log-retention-days",
            &["LogRetentionDays"],
        );
        self.take(
            given.lambda_timeout.as_ref(),
            |o| &mut o.lambda_timeout,
            "--lambda-timeout",
            &["LambdaTimeout", "LambdaDurationThreshold"],
        );
        self.take(
            given.lambda_memory.as_ref(),
            |o| &mut o.lambda_memory,
            "--lambda-memory",
            &["LambdaMemorySize"],
        );
        self.take_pair(
            pair(given.enable_audit_archival, given.no_audit_archival),
            |o| &mut o.enable_audit_archival,
            ("--enable-audit-archival", "--no-audit-archival"),
            &["EnableAuditArchival"],
        );
        self.take(
            given.audit_archive_glacier_days.as_ref(),
            |o| &mut o.audit_archive_glacier_days,
            "--audit-archive-glacier-days",
            &["AuditArchiveGlacierTransitionDays"],
        );
        self.take_pair(
            pair(given.enable_tracing, given.no_tracing),
            |o| &mut o.enable_tracing,
            ("--enable-tracing", "--no-tracing"),
            &["EnableTracing"],
        );
    }

    fn alarms(&mut self, given: &AlarmOptions) {
        self.take_pair(
            pair(given.enable_alarms, given.no_alarms),
            |o| &mut o.enable_alarms,
            ("--enable-alarms", "--no-alarms"),
            &["EnableAlarms"],
        );
        self.take_some(
            given.alarm_sns_topic.as_ref(),
            |o| &mut o.alarm_sns_topic,
            "--alarm-sns-topic",
            &["AlarmSNSTopicArn"],
        );
        self.take(
            given.alert_thresholds.as_ref(),
            |o| &mut o.alert_thresholds,
            "--alert-thresholds",
            &["AlertThresholds"],
        );
        self.take(
            given.lambda_duration_threshold_pct.as_ref(),
            |o| &mut o.lambda_duration_threshold_pct,
            "--lambda-duration-threshold-pct",
            &["LambdaDurationThreshold"],
        );
    }

    fn permissions(
        &mut self,
        given: &PermissionOptions,
        create_iam: Option<bool>,
        create_iam_roles: Option<bool>,
    ) {
        self.take_pair(
            create_iam,
            |o| &mut o.create_iam,
            ("--iam", "--no-iam"),
            &["EnableIAM"],
        );
        self.take_pair(
            create_iam_roles,
            |o| &mut o.create_iam_roles,
            ("--create-iam-roles", "--no-create-iam-roles"),
            &["EnableIAMRoles"],
        );
        self.take_some(
            given.aggregator_role_arn.as_ref(),
            |o| &mut o.aggregator_role_arn,
            "--aggregator-role-arn",
            &["AggregatorRoleArn"],
        );
        self.take_some(
            given.permission_boundary.as_ref(),
            |o| &mut o.permission_boundary,
            "--permission-boundary",
            &["PermissionBoundary"],
        );
        self.take_some(
            given.role_name_format.as_ref(),
            |o| &mut o.role_name_format,
            "--role-name-format",
            &[
                "RoleNameFormat",
                "AggregatorRoleName",
                "AppRoleName",
                "AdminRoleName",
                "ReadOnlyRoleName",
                "ProvisionerRoleName",
            ],
        );
        self.take_some(
            given.policy_name_format.as_ref(),
            |o| &mut o.policy_name_format,
            "--policy-name-format",
            &[
                "AcquireOnlyPolicyName",
                "FullAccessPolicyName",
                "ReadOnlyPolicyName",
                "NamespaceAcquirePolicyName",
                "NamespaceFullAccessPolicyName",
                "NamespaceReadOnlyPolicyName",
            ],
        );
        let options = &mut self.options;
        if options.create_iam {
            return;
        }
        if options.enable_aggregator && options.aggregator_role_arn.is_none() {
            options.enable_aggregator = false;
            self.notes.push(
                "Note: --no-iam disables aggregator (no IAM role). Use --aggregator-role-arn to provide an external \
                 role.",
            );
        }
        if options.enable_provisioner {
            options.enable_provisioner = false;
            self.notes
                .push("Note: --no-iam disables the limits provisioner (no IAM role).");
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(args_override_self = true)]
    struct Line {
        #[command(flatten)]
        deploy: Deploy,
    }

    #[track_caller]
    fn chosen(line: &str) -> Chosen {
        let words = std::iter::once("deploy").chain(line.split_whitespace());
        match Line::try_parse_from(words).unwrap().deploy.chosen() {
            Ok(chosen) => chosen,
            Err(failure) => panic!("{line}: {failure:?}"),
        }
    }

    #[test]
    fn nothing_given_is_the_default() {
        let chosen = chosen("");
        assert_eq!(chosen.options, StackOptions::default());
        assert!(chosen.given.is_empty() && chosen.others.is_empty() && chosen.notes.is_empty());
    }

    #[test]
    fn every_option_is_taken_over_and_remembered() {
        let role = "arn:aws:iam::123456789012:role/x";
        let chosen = chosen(&format!(
            "--snapshot-windows monthly --usage-retention-days 1 --audit-retention-days 2 --pitr-recovery-days 3 \
             --log-retention-days 5 --lambda-timeout 6 --lambda-memory 777 --lambda-duration-threshold-pct 8 \
             --audit-archive-glacier-days 9 --alarm-sns-topic t --alert-thresholds 7 --permission-boundary p --role-name-format r{{}} \
             --policy-name-format p{{}} --aggregator-role-arn {role} --no-aggregator --no-provisioner --no-alarms \
             --no-audit-archival --enable-tracing --create-iam-roles --iam --enable-deletion-protection --lean-index -t a=b=c \
             --tag d= --code-bucket b --no-wait"
        ));
        let expected = StackOptions {
            snapshot_windows: "monthly".into(),
            usage_retention_days: 1,
            audit_retention_days: 2,
            pitr_recovery_days: Some(3),
            log_retention_days: 5,
            lambda_timeout: 6,
            lambda_memory: 777,
            lambda_duration_threshold_pct: 8,
            audit_archive_glacier_days: 9,
            alarm_sns_topic: Some("t".into()),
            alert_thresholds: "7".into(),
            permission_boundary: Some("p".into()),
            role_name_format: Some("r{}".into()),
            policy_name_format: Some("p{}".into()),
            aggregator_role_arn: Some(role.into()),
            enable_aggregator: false,
            enable_provisioner: false,
            enable_alarms: false,
            enable_audit_archival: false,
            enable_tracing: true,
            create_iam_roles: true,
            create_iam: true,
            enable_deletion_protection: true,
            lean_index: true,
            tags: [("a".into(), "b=c".into()), ("d".into(), String::new())].into(),
        };
        assert_eq!(chosen.options, expected);
        // All but the audit log's retention, which is not a setting of the stack.
        assert_eq!(chosen.given.len(), 23);
        assert_eq!(chosen.others, ["--tag", "--code-bucket", "--no-wait"]);
        // Each names parameters that the options really set.
        let set = expected.parameters("app").unwrap();
        for (option, parameters) in &chosen.given {
            for parameter in *parameters {
                assert!(
                    set.iter().any(|(name, _)| name == parameter),
                    "{option}: {parameter}"
                );
            }
        }
    }

    #[test]
    fn of_a_pair_the_last_counts() {
        let options = |line| chosen(line).options;
        assert!(options("--no-alarms --enable-alarms").enable_alarms);
        assert!(!options("--enable-alarms --no-alarms").enable_alarms);
        assert!(options("--no-iam --iam --create-iam-roles").create_iam_roles);
        assert!(!options("--enable-tracing --no-tracing").enable_tracing);
    }

    #[test]
    fn without_iam_there_are_no_functions() {
        let none = chosen("--no-iam");
        assert!(!none.options.enable_aggregator && !none.options.enable_provisioner);
        assert_eq!(none.notes.len(), 2);
        let external = chosen("--no-iam --aggregator-role-arn arn:aws:iam::123456789012:role/x");
        assert!(external.options.enable_aggregator && external.options.has_functions());
        assert_eq!(external.notes.len(), 1);
        assert_eq!(chosen("--no-iam --no-aggregator --no-provisioner").notes.len(), 0);
    }
}
