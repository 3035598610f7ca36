//! Tests of [`super`]: what is accepted, what is not, and what help lists.

mod options;

use std::ffi::OsString;
use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::entity::{EntityCommand, SetLimits};
use super::usage::{UsageCommand, Window};
use super::values::{parse_amount, parse_duration};
use super::{Cli, Command, Common, OnUnavailable, OutputFormat};

/// Splits a line as a shell does, up to a pipe or redirection. Quotes group, nothing else is special.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split(['"', '\'']).enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    let end = words.iter().position(|word| word == "|" || word == ">");
    words.truncate(end.unwrap_or(words.len()));
    words
}

/// Reads a line that follows the program's name, whatever the environment.
fn read(line: &str) -> Result<Cli, clap::Error> {
    let args = std::iter::once("zae-limiter".to_owned()).chain(words(line));
    Cli::read_without(args, |_| true)
}

fn command(line: &str) -> Command {
    match read(line) {
        Ok(cli) => cli.command,
        Err(err) => panic!("{line}: {err}"),
    }
}

/// Every command with its path, groups too.
fn every_command() -> Vec<(String, clap::Command)> {
    fn visit(path: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name()).trim().to_owned();
            found.push((path.clone(), sub.clone()));
            visit(&path, sub, found);
        }
    }
    let root = Cli::command();
    let mut found = vec![(String::new(), root.clone())];
    visit("", &root, &mut found);
    found
}

#[test]
fn definitions_are_consistent() {
    Cli::command().debug_assert();
    Cli::documented().debug_assert();
}

#[test]
fn commands_are_in_alphabetical_order() {
    for (path, command) in every_command() {
        let names: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
        assert!(names.is_sorted(), "{path}: {names:?}");
    }
}

#[test]
fn every_command_has_examples_and_they_are_right() {
    // Those that only the program starts need none.
    let shown = every_command()
        .into_iter()
        .filter(|(_, command)| !command.is_hide_set());
    for (path, command) in shown {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(help.starts_with("Examples:\n"), "{path}");
        let mut count = 0;
        // Some name a file or directory that must exist.
        let help = help.replace("--file limits.yaml", "--file Cargo.toml");
        let help = help.replace("-C tests/load", "-C tests/it");
        let files = [
            "new-limits.yaml",
            "limits.yaml",
            "requests.csv",
            "usage.json",
            "access.log",
        ];
        let replayed = |help: String| {
            let help = files
                .iter()
                .fold(help, |help, file| help.replace(file, "Cargo.toml"));
            help.replace("AzureLLMInferenceTrace_code.csv", "Cargo.toml")
        };
        let help = if path == "replay" { replayed(help) } else { help };
        for line in help
            .lines()
            .filter_map(|line| line.strip_prefix("  zae-limiter "))
        {
            read(line).unwrap_or_else(|err| panic!("{line}: {err}"));
            assert!(line.starts_with(&path), "{path}: {line}");
            count += 1;
        }
        assert!(count > 0, "{path}");
    }
}

#[test]
fn every_option_and_argument_is_explained() {
    for (path, command) in every_command() {
        assert!(command.get_about().is_some(), "{path}");
        for arg in command.get_arguments() {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty() && !help.contains('\n'), "{path} {arg}: {help}");
        }
    }
}

#[test]
fn lines_that_mean_the_same() {
    let pairs = [
        // The last value wins.
        ("version -n a --name b", "version --name b"),
        ("check --region a --region b", "check --region b"),
        (
            "deploy --endpoint-url http://a --endpoint-url=embedded:b",
            "deploy --endpoint-url embedded:b",
        ),
        (
            "deploy --no-alarms --lambda-memory 200 --lambda-memory=300",
            "deploy --lambda-memory 300 --no-alarms",
        ),
        ("status -n a -n b", "status --name b"),
        ("delete -y --no-wait -n a --wait", "delete --name a --yes --wait"),
        (
            "upgrade --parameter A=1 --parameter B=",
            "upgrade --parameter=A=1 --parameter B=",
        ),
        ("lambda-export", "lambda-export -o lambda.zip"),
        ("entity show e -N a -Nb", "entity show e --namespace b"),
        (
            "audit list -e a -e b -l 1 -l 2",
            "audit list --entity-id b --limit 2",
        ),
        ("system delete-defaults -y -y", "system delete-defaults --yes"),
        ("usage list -w daily -w hourly", "usage list --window hourly"),
        (
            "acquire e -r a -r b -c x:1 --wait 1 --wait 2s",
            "acquire e -r b -c x:1 --wait 2",
        ),
        ("available e -r a --output json --output text", "available e -r a"),
        ("namespace delete t -y --yes -y", "namespace delete t -y"),
        ("usage summary --start a --start b", "usage summary --start b"),
        // Values may touch their options.
        ("version -na", "version -n a"),
        ("version --name=a", "version -n a"),
        ("audit list -eu -l5", "audit list --entity-id u --limit 5"),
        (
            "usage list -pru -ex",
            "usage list --plot --resource u --entity-id x",
        ),
        // Defaults.
        ("version", "version --name zae-limiter --output text"),
        ("resource list", "resource list -n zae-limiter -N default"),
        ("entity get-limits e", "entity get-limits e --resource _default_"),
        ("audit list -e u", "audit list -e u -l 100"),
        ("usage list", "usage list -l 100"),
        // Options and arguments in any order, and what follows "--" is an argument.
        (
            "entity create -n x e --parent p",
            "entity create e --parent p --name x",
        ),
        (
            "entity set-limits -l a:1 e -r r",
            "entity set-limits e -r r -l a:1",
        ),
        ("namespace register a -n x b", "namespace register a b -n x"),
        ("entity show -n x -- e", "entity show e -n x"),
        ("acquire -c x:1 e --resource=r", "acquire e -r r -c x:1"),
        (
            "resource set-defaults r --limit a:1 -l b:2",
            "resource set-defaults -l a:1 r -l b:2",
        ),
    ];
    for (line, same) in pairs {
        assert_eq!(format!("{:?}", command(line)), format!("{:?}", command(same)));
    }
}

#[test]
fn on_and_off_the_last_one_counts() {
    for (options, cascades) in [
        ("", false),
        ("--cascade", true),
        ("--no-cascade", false),
        ("--cascade --no-cascade", false),
        ("--no-cascade --cascade", true),
        ("--cascade --no-cascade --cascade", true),
        ("--no-cascade --cascade --no-cascade", false),
        ("--cascade --cascade", true),
    ] {
        let Command::Entity(EntityCommand::Create(create)) = command(&format!("entity create e {options}"))
        else {
            unreachable!()
        };
        assert_eq!(create.cascades(), cascades, "{options}");
    }
}

#[test]
fn values_arrive_where_they_belong() {
    let Command::Entity(EntityCommand::SetLimits(SetLimits {
        entity_id,
        on,
        limits,
        common: Common { format, at },
    })) = command(
        "entity set-limits user -r gpt-4 -l rpm:1 --limit=tpm:2/hour:5 -n s --region eu-west-1 \
         --endpoint-url embedded:dir -N t --output json",
    )
    else {
        unreachable!()
    };
    assert_eq!((entity_id.as_str(), on.resource.as_str()), ("user", "gpt-4"));
    assert_eq!(limits.limits, ["rpm:1", "tpm:2/hour:5"]);
    assert_eq!(format.output, OutputFormat::Json);
    assert_eq!((at.connection.name.as_str(), at.namespace.as_str()), ("s", "t"));
    assert_eq!(at.connection.region.as_deref(), Some("eu-west-1"));
    assert_eq!(at.connection.endpoint_url.as_deref(), Some("embedded:dir"));

    let Command::Usage(UsageCommand::List(list)) =
        command("usage list -e u -r x -w daily --start a --end b -l 7 -p")
    else {
        unreachable!()
    };
    assert_eq!((list.limit, list.plot), (7, true));
    assert_eq!(list.selection.entity_id.as_deref(), Some("u"));
    assert_eq!(list.selection.resource.as_deref(), Some("x"));
    assert_eq!(list.selection.window, Some(Window::Daily));
    assert_eq!(list.selection.start.as_deref(), Some("a"));
    assert_eq!(list.selection.end.as_deref(), Some("b"));
}

#[test]
fn a_command_to_run_follows_two_dashes() {
    let Command::Acquire(acquire) = command(
        "acquire user -r gpt-4 -c rpm:1 -c tpm:1,500 --wait 0 --on-unavailable block --timeout 500ms -- \
         run -r x --wait '' -- y",
    ) else {
        unreachable!()
    };
    let words = ["run", "-r", "x", "--wait", "", "--", "y"];
    assert_eq!(acquire.command, words.map(OsString::from));
    assert_eq!(acquire.resource, "gpt-4");
    assert_eq!(acquire.wait, Some(Duration::ZERO));
    assert_eq!(acquire.timeout, Some(Duration::from_millis(500)));
    assert_eq!(acquire.on_unavailable, Some(OnUnavailable::Block));
    let amounts: Vec<_> = acquire.consume.iter().map(ToString::to_string).collect();
    assert_eq!(amounts, ["rpm:1", "tpm:1500"]);

    let Command::Acquire(acquire) = command("acquire user -r gpt-4 -c rpm:1") else {
        unreachable!()
    };
    assert_eq!(
        (acquire.command.len(), acquire.wait, acquire.timeout),
        (0, None, None)
    );
}

#[test]
fn help_and_version_in_the_spelling_of_other_programs() {
    for (line, kind, text) in [
        ("help", ErrorKind::DisplayHelp, "Usage: zae-limiter <COMMAND>"),
        (
            "help entity create",
            ErrorKind::DisplayHelp,
            "Usage: zae-limiter entity create [OPTIONS]",
        ),
        ("-V", ErrorKind::DisplayVersion, "zae-limiter, version"),
    ] {
        let words = std::iter::once("zae-limiter").chain(line.split(' '));
        let shown = Cli::read(words).unwrap_err();
        assert_eq!((shown.kind(), shown.exit_code()), (kind, 0), "{line}");
        assert!(shown.to_string().contains(text), "{shown}");
    }
}

#[test]
fn lines_that_are_wrong() {
    use ErrorKind::{
        InvalidSubcommand, InvalidValue, MissingRequiredArgument, TooManyValues, UnknownArgument,
        ValueValidation,
    };
    for (line, kind, told) in [
        ("bogus", InvalidSubcommand, "'bogus'"),
        ("help me", InvalidSubcommand, "'me'"),
        ("entity bogus", InvalidSubcommand, "'bogus'"),
        ("entity help", InvalidSubcommand, "'help'"),
        ("version --nope", UnknownArgument, "'--nope'"),
        ("version --nam x", UnknownArgument, "'--name'"),
        ("version -N x", UnknownArgument, "'-N'"),
        ("namespace list --namespace x", UnknownArgument, "'--namespace'"),
        ("entity --version", UnknownArgument, "'--version'"),
        ("entity list --with-custom-limits r -l 1", UnknownArgument, "'-l'"),
        ("entity show a b", UnknownArgument, "'b'"),
        ("acquire e run -r r -c a:1", UnknownArgument, "'run'"),
        ("version --region", InvalidValue, "'--region <REGION>'"),
        ("namespace delete t --yes=1", TooManyValues, "'--yes'"),
        ("entity show", MissingRequiredArgument, "<ENTITY_ID>"),
        ("namespace register", MissingRequiredArgument, "<NAMESPACES>..."),
        ("namespace purge", MissingRequiredArgument, "<NAMESPACE_ID>"),
        ("entity list", MissingRequiredArgument, "--with-custom-limits"),
        ("system set-defaults", MissingRequiredArgument, "--limit"),
        ("resource set-defaults r", MissingRequiredArgument, "--limit"),
        ("entity set-limits e", MissingRequiredArgument, "--limit"),
        ("acquire e -r r", MissingRequiredArgument, "--consume"),
        ("acquire e -c a:1", MissingRequiredArgument, "--resource"),
        (
            "acquire -r r -c a:1 -- run",
            MissingRequiredArgument,
            "<ENTITY_ID>",
        ),
        ("available e", MissingRequiredArgument, "--resource"),
        ("completions", MissingRequiredArgument, "<SHELL>"),
        ("completions tcsh", InvalidValue, "<SHELL>"),
        ("usage list -w weekly", InvalidValue, "'--window <WINDOW>'"),
        ("usage list -w Daily", InvalidValue, "'--window <WINDOW>'"),
        (
            "system set-defaults -l a:1 --on-unavailable x",
            InvalidValue,
            "'--on-unavailable <",
        ),
        ("version --output yaml", InvalidValue, "'--output <FORMAT>'"),
        ("audit list -e a -l x", ValueValidation, "'--limit <COUNT>'"),
        ("audit list -e a -l 0", ValueValidation, "'--limit <COUNT>'"),
        ("usage list -l -5", ValueValidation, "'--limit <COUNT>'"),
        (
            "entity list --with-custom-limits r --limit 0",
            ValueValidation,
            "'--limit <COUNT>'",
        ),
        (
            "acquire e -r r -c a",
            ValueValidation,
            "'--consume <LIMIT:AMOUNT>'",
        ),
        (
            "acquire e -r r -c a:1 -c b:1 -c a:2",
            ValueValidation,
            "'a:2' for '--consume <LIMIT:AMOUNT>'",
        ),
        (
            "available e -r r -c a:1 -c a:1",
            ValueValidation,
            "'a' is given twice",
        ),
        (
            "acquire e -r r -c a:1 --wait soon",
            ValueValidation,
            "'--wait <DURATION>'",
        ),
        (
            "acquire e -r r -c a:1 --timeout 0",
            ValueValidation,
            "'--timeout <DURATION>'",
        ),
        (
            "acquire e -r r -c a:1 --timeout 0ms",
            ValueValidation,
            "more than 0",
        ),
    ] {
        let Err(err) = read(line) else {
            panic!("{line} was accepted")
        };
        assert_eq!(err.kind(), kind, "{line}: {err}");
        assert_eq!((err.exit_code(), err.use_stderr()), (2, true), "{line}");
        assert!(err.to_string().contains(told), "{line}: {err}");
    }
}

#[test]
fn a_limit_given_twice_shows_the_usage_of_its_command() {
    let err = read("available e -r r -c a:1 -c a:1").unwrap_err().to_string();
    assert!(err.contains("Usage: zae-limiter available "), "{err}");
    assert!(!err.contains('\u{1b}'), "{err}");
}

#[test]
fn help_and_version() {
    for (line, kind, code) in [
        ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, 2),
        ("entity", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, 2),
        ("usage", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, 2),
        ("--help", ErrorKind::DisplayHelp, 0),
        ("-h", ErrorKind::DisplayHelp, 0),
        ("entity --help", ErrorKind::DisplayHelp, 0),
        ("acquire -h", ErrorKind::DisplayHelp, 0),
        ("namespace purge --help", ErrorKind::DisplayHelp, 0),
        ("--version", ErrorKind::DisplayVersion, 0),
    ] {
        let err = read(line).unwrap_err();
        assert_eq!((err.kind(), err.exit_code()), (kind, code), "{line}");
        assert_eq!(err.use_stderr(), code == 2, "{line}");
        assert_eq!(
            err.to_string().contains("Examples:"),
            line != "--version",
            "{line}"
        );
    }
    let version = read("--version").unwrap_err().to_string();
    assert_eq!(
        version,
        format!("zae-limiter, version {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn variables_stand_in_for_name_and_namespace() {
    for (path, command) in every_command() {
        // Its variables are those of a container.
        if path == "loadtest master" {
            continue;
        }
        for arg in command.get_arguments() {
            let declared = path.starts_with("limits ");
            let variable = match arg.get_long() {
                // Nothing is deployed that was not asked for.
                Some("name") if path == "local up" => None,
                // Commands that delete or report on one stack require its name.
                Some("name") if declared || !arg.is_required_set() => Some("ZAEL_STACK".as_ref()),
                // A file that declares limits names its namespace.
                Some("namespace") if !declared => Some("ZAEL_NAMESPACE".as_ref()),
                Some("lambda-package") => Some("ZAE_LIMITER_LAMBDA_PACKAGE".as_ref()),
                Some("python") => Some("PYTHON".as_ref()),
                Some("endpoint-url") => Some("ZAEL_ENDPOINT".as_ref()),
                Some("port") if path.starts_with("local ") => Some("ZAE_LIMITER_LOCAL_PORT".as_ref()),
                _ => None,
            };
            let name = arg.get_id();
            assert_eq!(arg.get_env(), variable, "{path} {name}");
            assert!(
                variable.is_none() || arg.is_hide_env_values_set(),
                "{path} {name}"
            );
        }
    }
}

#[test]
fn amounts() {
    for (text, limit, tokens) in [
        ("rpm:1", "rpm", 1),
        ("tpm:0", "tpm", 0),
        ("tpm:1_000_000", "tpm", 1_000_000),
        ("tpm:12,000,000", "tpm", 12_000_000),
        ("a:b:7", "a:b", 7),
        ("max:9223372036854775807", "max", i64::MAX.unsigned_abs()),
    ] {
        let amount = parse_amount(text).unwrap();
        assert_eq!((amount.limit.as_str(), amount.tokens), (limit, tokens));
    }
    for (text, told) in [
        ("rpm", "amount is missing"),
        ("", "amount is missing"),
        (":1", "name is missing"),
        ("rpm:", "whole number"),
        ("rpm:x", "'x' is not a whole number"),
        ("rpm:-1", "0 or more"),
        ("rpm:+1", "whole number"),
        ("rpm:1.5", "whole number"),
        ("rpm:1__0", "whole number"),
        ("rpm:_1", "whole number"),
        ("rpm:1,", "whole number"),
        ("rpm:1,5", "'1,5' is not a whole number"),
        ("rpm:1000,000", "whole number"),
        ("rpm:,100", "whole number"),
        ("rpm: 1", "whole number"),
        ("rpm:9223372036854775808", "more tokens than"),
    ] {
        let err = parse_amount(text).unwrap_err();
        assert!(err.contains(told), "{text}: {err}");
    }
}

#[test]
fn durations() {
    for (text, millis) in [
        ("30s", 30_000),
        ("500ms", 500),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("45", 45_000),
        ("0", 0),
        ("0ms", 0),
        ("007", 7000),
        ("8760h", 31_536_000_000),
    ] {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for (text, told) in [
        ("", "expected"),
        ("s", "expected"),
        ("1.5s", "expected"),
        ("-1", "expected"),
        ("1d", "expected"),
        ("1 s", "expected"),
        ("1S", "expected"),
        ("1m30s", "expected"),
        ("soon", "expected"),
        ("8761h", "longer than a year"),
        ("18446744073709551615h", "longer than a year"),
        ("99999999999999999999", "longer than a year"),
    ] {
        let err = parse_duration(text).unwrap_err();
        assert!(err.contains(told), "{text}: {err}");
    }
}
