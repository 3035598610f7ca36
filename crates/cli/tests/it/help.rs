//! Help, wrong command lines, completions and manual pages.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use crate::world::{Ran, World, assert_transcript, finish, names_in};

fn run(world: &World, args: &[String]) -> Ran {
    finish(&mut world.command(args), None)
}

/// Every command with its path, groups and the program itself too, as their help lists them.
fn every_command(world: &World) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = vec![Vec::new()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        let mut args = path.clone();
        args.push("--help".to_owned());
        let help = run(world, &args).stdout;
        let Some((_, list)) = help.split_once("\nCommands:\n") else {
            continue;
        };
        let names = list.lines().take_while(|line| !line.is_empty());
        let below: Vec<_> = names
            .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
            .map(|name| [path.clone(), vec![name.to_owned()]].concat())
            .collect();
        found.splice(next..next, below);
    }
    found
}

#[test]
fn of_every_command() {
    let world = World::without_table();
    let mut all = String::new();
    let commands = every_command(&world);
    assert_eq!(commands.len(), 97);
    for path in commands {
        let mut args = path.clone();
        args.push("--help".to_owned());
        let long = run(&world, &args);
        assert_eq!((long.code, &*long.stderr), (Some(0), ""), "{path:?}");
        let _ = writeln!(
            all,
            "{:=<110}\n{}",
            format!("=== {} ", args.join(" ")),
            long.stdout
        );
        args.pop();
        args.push("-h".to_owned());
        let short = run(&world, &args);
        assert_eq!((short.code, &*short.stderr), (Some(0), ""), "{path:?}");
        assert!(short.stdout.contains("Usage: zae-limiter"), "{path:?}");
    }
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(all) });
}

#[test]
fn without_a_command_it_is_an_error() {
    let world = World::without_table();
    for group in [
        "",
        "audit",
        "entity",
        "limits",
        "namespace",
        "resource",
        "system",
        "usage",
    ] {
        let mut args: Vec<String> = group.split_whitespace().map(str::to_owned).collect();
        let ran = run(&world, &args);
        args.push("--help".to_owned());
        let help = run(&world, &args);
        assert_eq!((ran.code, &*ran.stdout), (Some(2), ""), "{group}");
        assert!(ran.stderr.contains("Commands:\n"), "{group}: {ran:?}");
        assert!(ran.stderr.contains("Usage: zae-limiter"), "{group}");
        let first = |text: &str| {
            text.lines()
                .next()
                .unwrap_or_default()
                .trim_end_matches('.')
                .to_owned()
        };
        assert_eq!(first(&ran.stderr), first(&help.stdout), "{group}");
    }
}

#[test]
fn the_version_of_the_program() {
    let world = World::without_table();
    let ran = run(&world, &["--version".to_owned()]);
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
    let expected = concat!("zae-limiter, version ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(ran.stdout, expected);
}

/// Byte by byte these are the parser's; that they name the option and end with 2 is ours.
#[test]
fn wrong_command_lines() {
    let mut world = World::without_table();
    for (line, named) in [
        ("bogus", "bogus"),
        ("entity bogus", "bogus"),
        ("help me", "me"),
        ("--nope", "--nope"),
        ("version --nope", "--nope"),
        ("version --nam x", "--name"),
        ("version --region", "--region"),
        ("version --output yaml", "--output"),
        ("version --output JSON", "--output"),
        ("version extra", "extra"),
        ("version -N x", "-N"),
        ("namespace list --namespace x", "--namespace"),
        ("namespace register", "NAMESPACES"),
        ("namespace purge", "NAMESPACE_ID"),
        ("namespace delete t --yes=1", "--yes"),
        ("entity create", "ENTITY_ID"),
        ("entity show a b c", "b"),
        ("entity set-limits u", "--limit"),
        ("entity list", "--with-custom-limits"),
        ("entity list --with-custom-limits r --limit 0", "--limit"),
        ("entity list --with-custom-limits r --limit abc", "--limit"),
        ("entity list --with-custom-limits r --limit -3", "--limit"),
        ("resource set-defaults", "RESOURCE_NAME"),
        ("resource set-defaults gpt-4", "--limit"),
        ("resource get-defaults -l rpm:1 gpt-4", "-l"),
        ("system set-defaults", "--limit"),
        (
            "system set-defaults -l rpm:1 --on-unavailable degrade",
            "--on-unavailable",
        ),
        ("audit list -e u --limit 0", "--limit"),
        ("usage list -e u --window weekly", "--window"),
        ("usage list -e u -l 99999999999", "--limit"),
        ("usage summary -e u --limit 5", "--limit"),
        ("deploy --tag", "--tag"),
        ("deploy --lambda-timeout 0", "--lambda-timeout"),
        ("deploy --lambda-memory 64", "--lambda-memory"),
        ("deploy --log-retention-days 2", "--log-retention-days"),
        (
            "deploy --audit-archive-glacier-days 0",
            "--audit-archive-glacier-days",
        ),
        (
            "deploy --lambda-duration-threshold-pct 101",
            "--lambda-duration-threshold-pct",
        ),
        ("status", "--name"),
        ("delete --yes", "--name"),
        ("list --name x", "--name"),
        ("upgrade --parameter LambdaMemorySize", "--parameter"),
        ("lambda-export --output", "--output"),
        ("limits plan -f -", "--name"),
        ("limits apply -n my-app", "--file"),
        ("limits diff -n my-app -f missing.yaml", "--file"),
        ("limits plan -n my-app -f /", "--file"),
        ("limits plan -n my-app -f - --quiet --verbose", "--quiet"),
        ("limits apply -n my-app -f - --yes", "--yes"),
        (
            "limits cfn-template -n my-app -f - --region us-east-1",
            "--region",
        ),
        ("completions", "SHELL"),
        ("completions tcsh", "tcsh"),
        ("man --dir", "--dir"),
    ] {
        let ran = world.plainly(line);
        assert_eq!((ran.code, &*ran.stdout), (Some(2), ""), "{line}");
        assert!(ran.stderr.contains(named), "{line}: {ran:?}");
    }
    assert_transcript!(world);
    assert_eq!(names_in(world.path()), [""; 0]);
}

#[test]
fn completions_know_every_command() {
    let world = World::without_table();
    let commands = every_command(&world);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = run(&world, &["completions".to_owned(), shell.to_owned()]);
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{shell}");
        for name in commands.iter().flatten() {
            assert!(ran.stdout.contains(&**name), "{shell}: {name}");
        }
        for option in [
            "endpoint-url",
            "with-custom-limits",
            "on-unavailable",
            "pitr-recovery-days",
        ] {
            assert!(ran.stdout.contains(option), "{shell}: {option}");
        }
        // The shell itself can read it, where there is one.
        let check: Option<&[&str]> = match shell {
            "bash" | "zsh" => Some(&["-n"]),
            "fish" => Some(&["--no-execute"]),
            _ => None,
        };
        let file = world.path().join(shell);
        fs::write(&file, &ran.stdout).unwrap();
        if let Some(options) = check
            && let Ok(read) = Command::new(shell)
                .args(options)
                .arg(&file)
                .stdin(Stdio::null())
                .output()
        {
            assert!(read.status.success(), "{shell}: {read:?}");
        }
    }
}

#[test]
fn manual_pages() {
    let world = World::without_table();
    let ran = run(&world, &["man".to_owned()]);
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
    assert!(
        ran.stdout.starts_with(".ie \\n(.g .ds Aq \\(aq\n"),
        "{}",
        &ran.stdout[..80]
    );
    assert!(
        ran.stdout.contains("\n.TH zae-limiter 1 "),
        "{}",
        &ran.stdout[..300]
    );

    let args = ["man", "--dir", "share/man1"].map(str::to_owned);
    let ran = run(&world, &args);
    assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (Some(0), "", ""));
    let mut expected: Vec<String> = every_command(&world)
        .iter()
        .map(|path| {
            format!(
                "{}.1",
                [vec!["zae-limiter".to_owned()], path.clone()].concat().join("-")
            )
        })
        .collect();
    expected.sort();
    let directory = world.path().join("share/man1");
    assert_eq!(names_in(&directory), expected);
    for name in &expected {
        let page = fs::read_to_string(directory.join(name)).unwrap();
        let title = name.strip_suffix(".1").unwrap();
        assert!(page.contains(&format!("\n.TH {title} 1 ")), "{name}");
        assert!(page.contains("Examples"), "{name}");
    }
    // Written again, and where it cannot be.
    assert_eq!(run(&world, &args).code, Some(0));
    fs::write(world.path().join("file"), "").unwrap();
    let ran = run(&world, &["man", "--dir", "file"].map(str::to_owned));
    assert_eq!((ran.code, &*ran.stdout), (Some(1), ""));
    assert!(
        ran.stderr
            .starts_with("Error: Cannot write manual pages to 'file'"),
        "{ran:?}"
    );
}
