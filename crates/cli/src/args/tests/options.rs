//! The options of every command, as a table.

use clap::ArgAction;

use super::every_command;

/// An option as `--long/-s`, then `*` if it is required, `+` if it may be repeated, `=` its default.
fn option(arg: &clap::Arg) -> Option<String> {
    let long = arg.get_long()?;
    let short = arg.get_short().map(|short| format!("/-{short}"));
    let required = if arg.is_required_set() { "*" } else { "" };
    let repeated = matches!(arg.get_action(), ArgAction::Append).then_some("+");
    let default = match arg.get_default_values() {
        [default] if arg.get_action().takes_values() => format!("={}", default.display()),
        _ => String::new(),
    };
    Some(format!(
        "--{long}{}{required}{}{default}",
        short.unwrap_or_default(),
        repeated.unwrap_or_default()
    ))
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of all commands")]
fn commands_take_these_options() {
    const CONNECTION: &str = "--name/-n=zae-limiter --region --endpoint-url";
    const NAMESPACED: &str =
        "--name/-n=zae-limiter --region --endpoint-url --namespace/-N=default --output=text";
    const NAMED: &str = "--name/-n* --region --endpoint-url --output=text";
    const DECLARED: &str = "--name/-n* --region --endpoint-url --namespace/-N --direct";
    const USAGE: &str = "--entity-id/-e --resource/-r --window/-w --start --end";
    let connection = format!("{CONNECTION} --output=text");
    let with = |options: &str, group: &str| format!("{options} {group}").trim().to_owned();
    let expected = [
        (
            "acquire",
            with(
                "--resource/-r* --consume/-c+ --in-flight --in-flight-at-most --in-flight-ttl --also+ --wait --on-unavailable \
                 --timeout",
                NAMESPACED,
            ),
        ),
        (
            "audit list",
            with("--entity-id/-e --limit/-l=100 --start-event-id", NAMESPACED),
        ),
        ("available", with("--resource/-r* --consume/-c+ --in-flight", NAMESPACED)),
        ("cfn-template", "--output/-o".to_owned()),
        ("check", connection.clone()),
        ("completions", String::new()),
        ("delete", with("--wait --no-wait --quiet/-q --verbose/-v --yes/-y", NAMED)),
        (
            "deploy",
            with(
                "--wait --no-wait --allow-removal --tag/-t+ --usage-retention-days --audit-retention-days --pitr-recovery-days \
                 --enable-deletion-protection --no-deletion-protection --enable-aggregator --no-aggregator \
                 --enable-provisioner --no-provisioner --lean-index --snapshot-windows --log-retention-days --lambda-timeout \
                 --lambda-memory --enable-audit-archival --no-audit-archival --audit-archive-glacier-days \
                 --enable-tracing --no-tracing --lambda-package --code-bucket --enable-alarms --no-alarms \
                 --alarm-sns-topic --alert-thresholds --lambda-duration-threshold-pct --iam --no-iam --create-iam-roles \
                 --no-create-iam-roles --aggregator-role-arn --permission-boundary --role-name-format \
                 --policy-name-format --quiet/-q --verbose/-v",
                &connection,
            ),
        ),
        ("entity bypass", with("--resource/-r=_default_", NAMESPACED)),
        ("entity children", with("", NAMESPACED)),
        ("entity clear-cascade", with("--resource/-r=_default_", NAMESPACED)),
        ("entity clear-disabled", with("--resource/-r=_default_", NAMESPACED)),
        (
            "entity create",
            with("--display-name --parent --cascade --no-cascade", NAMESPACED),
        ),
        ("entity delete", with("--children --yes/-y", NAMESPACED)),
        (
            "entity delete-concurrency",
            with("--resource/-r=_default_ --yes/-y", NAMESPACED),
        ),
        (
            "entity delete-limits",
            with("--resource/-r=_default_ --yes/-y", NAMESPACED),
        ),
        ("entity disable", with("--resource/-r=_default_", NAMESPACED)),
        ("entity enable", with("--resource/-r=_default_", NAMESPACED)),
        ("entity get-concurrency", with("--resource/-r=_default_", NAMESPACED)),
        ("entity get-limits", with("--resource/-r=_default_", NAMESPACED)),
        ("entity in-flight", with("--resource/-r*", NAMESPACED)),
        ("entity list", with("--with-custom-limits* --limit", NAMESPACED)),
        ("entity list-resources", with("", NAMESPACED)),
        (
            "entity reset",
            with("--resource/-r* --limit/-l+ --idempotency-key", NAMESPACED),
        ),
        ("entity set-cascade", with("--resource/-r=_default_", NAMESPACED)),
        ("entity set-concurrency", with("--resource/-r=_default_", NAMESPACED)),
        (
            "entity set-limits",
            with("--resource/-r=_default_ --limit/-l+ --quota+ --schedule+ --session+ --soft+ --tz", NAMESPACED),
        ),
        ("entity set-parent", with("--parent --none", NAMESPACED)),
        ("entity show", with("", NAMESPACED)),
        (
            "entity top-up",
            with("--resource/-r* --add/-a*+ --idempotency-key", NAMESPACED),
        ),
        (
            "lambda-export",
            "--output/-o=lambda.zip --info --force/-f --lambda-package".to_owned(),
        ),
        (
            "limits apply",
            with("--file/-f* --full --quiet/-q --output=text", DECLARED),
        ),
        ("limits cfn-template", "--name/-n* --file/-f* --full".to_owned()),
        (
            "limits diff",
            with(
                "--file/-f* --quiet/-q --verbose/-v --detailed-exitcode --output=text",
                DECLARED,
            ),
        ),
        (
            "limits plan",
            with(
                "--file/-f* --quiet/-q --verbose/-v --detailed-exitcode --output=text",
                DECLARED,
            ),
        ),
        ("limits schema", String::new()),
        ("list", "--region --endpoint-url --output=text".to_owned()),
        ("loadtest delete", with("--yes/-y", NAMED)),
        (
            "loadtest deploy",
            "--name/-n --region --endpoint-url --output=text --vpc-id --subnet-ids --max-workers=100 \
             --users-per-worker=10 --min-workers=1 --startup-lead-time=20 --lambda-timeout=5 --lambda-memory=1769 \
             --capacity-provider=FARGATE_SPOT --ssm-endpoint --no-ssm-endpoint --dynamodb-endpoint \
             --no-dynamodb-endpoint --lambda-package --code-bucket \
             --image=public.ecr.aws/amazonlinux/amazonlinux:2023-minimal"
                .to_owned(),
        ),
        (
            "loadtest list",
            "--region --endpoint-url --output=text".to_owned(),
        ),
        (
            "loadtest master",
            "--target* --region --function* --lambda-timeout* --users-per-worker* --min-workers* --max-workers* \
             --startup-lead-time* --locustfile* --scenario --idle-timeout=900 --host --port=5557 --page-port=8089"
                .to_owned(),
        ),
        (
            "loadtest push",
            with("--lambda-package --code-bucket", NAMED),
        ),
        (
            "loadtest run",
            with(
                "--locustfile/-f* --local --users=20 --duration --spawn-rate=10 --rate --seed --workers --processes --csv --html --cpu --memory \
                 --port",
                &connection,
            ),
        ),
        ("loadtest schema", String::new()),
        (
            "loadtest tune",
            with(
                "--locustfile/-f* --local --max-users=40 --threshold=0.8 --step-duration=30 --baseline-duration=60 \
                 --spawn-rate=10 --seed",
                &connection,
            ),
        ),
        (
            "loadtest ui",
            with(
                "--locustfile/-f* --local --port=8089 --workers --destroy --force --max-workers --min-workers \
                 --users-per-worker --startup-lead-time --cpu --memory --pool-connections",
                CONNECTION,
            ),
        ),
        ("loadtest worker", with("--connect*", CONNECTION)),
        ("local down", "--docker-host --output=text".to_owned()),
        ("local env", "--format/-f=eval --port".to_owned()),
        ("local logs", "--follow/-f --tail=100 --docker-host".to_owned()),
        ("local status", "--docker-host --output=text".to_owned()),
        (
            "local up",
            "--name/-n --port --host --foreground --announce --data-dir --ephemeral --verbose --python --image \
             --docker-host --output=text"
                .to_owned(),
        ),
        ("man", "--dir".to_owned()),
        ("namespace delete", with("--yes/-y", &connection)),
        ("namespace list", connection.clone()),
        ("namespace orphans", connection.clone()),
        ("namespace purge", with("--yes/-y", &connection)),
        ("namespace recover", connection.clone()),
        ("namespace register", connection.clone()),
        ("namespace show", connection.clone()),
        ("refusal-schema", String::new()),
        (
            "replay",
            "--manifest/-m* --compare/-c --format --pattern --column+ --entity/-e --resource/-r --parent --requests-limit \
             --tokens-limit --answer-estimate --ms-per-token=0 --tz=UTC --disorder=1m --skip-bad --skip-status+ --method+ \
             --on-refusal=drop --retries --seed=0 --every --top=10 --html --output=text"
                .to_owned(),
        ),
        ("resource bypass", with("", NAMESPACED)),
        ("resource clear-cascade", with("", NAMESPACED)),
        ("resource clear-disabled", with("", NAMESPACED)),
        ("resource delete-concurrency", with("--yes/-y", NAMESPACED)),
        ("resource delete-defaults", with("--yes/-y", NAMESPACED)),
        ("resource disable", with("", NAMESPACED)),
        ("resource enable", with("", NAMESPACED)),
        ("resource get-concurrency", with("", NAMESPACED)),
        ("resource get-defaults", with("", NAMESPACED)),
        ("resource list", with("", NAMESPACED)),
        ("resource set-cascade", with("", NAMESPACED)),
        ("resource set-concurrency", with("", NAMESPACED)),
        ("resource set-defaults", with("--limit/-l+ --quota+ --schedule+ --session+ --soft+ --tz", NAMESPACED)),
        (
            "serve",
            "--config --check --schema --grpc-listen=127.0.0.1:8081 --http-listen=127.0.0.1:8080 --token-file --lease-keys --tls-cert \
             --tls-key --client-ca --insecure --max-requests=1024 --max-connections=4096 --max-streams=1024 \
             --max-header-bytes=16384 --max-body-bytes=65536 --header-timeout=10s --request-timeout=10s --drain-delay=0s \
             --drain-timeout=30s --log-format=text --name/-n=zae-limiter --region --endpoint-url \
             --namespace/-N=default"
                .to_owned(),
        ),
        ("status", NAMED.to_owned()),
        ("system delete-concurrency", with("--yes/-y", NAMESPACED)),
        ("system delete-defaults", with("--yes/-y", NAMESPACED)),
        ("system get-cascade-depth", with("", NAMESPACED)),
        ("system get-concurrency", with("", NAMESPACED)),
        ("system get-defaults", with("", NAMESPACED)),
        ("system set-cascade-depth", with("", NAMESPACED)),
        ("system set-concurrency", with("", NAMESPACED)),
        (
            "system set-defaults",
            with("--limit/-l+ --quota+ --schedule+ --session+ --soft+ --tz --on-unavailable", NAMESPACED),
        ),
        (
            "upgrade",
            with(
                "--lambda-only --force --allow-removal --parameter+ --quiet/-q --verbose/-v --yes/-y --lambda-package \
                 --code-bucket",
                &connection,
            ),
        ),
        (
            "usage list",
            with(&format!("{USAGE} --limit/-l=100 --plot/-p"), NAMESPACED),
        ),
        ("usage summary", with(USAGE, NAMESPACED)),
        ("version", connection.clone()),
    ];
    let sorted = |mut options: Vec<String>| {
        options.sort();
        options
    };
    let mut leaves = every_command();
    leaves.retain(|(_, command)| !command.has_subcommands());
    for ((path, command), (expected_path, options)) in leaves.iter().zip(&expected) {
        assert_eq!(path, expected_path);
        let actual = command.get_arguments().filter_map(option).collect();
        let options = options.split_whitespace().map(str::to_owned).collect();
        assert_eq!(sorted(actual), sorted(options), "{path}");
    }
    assert_eq!(leaves.len(), expected.len());
}
