//! Names and limits that are wrong, each found before anything is asked of the table.

use std::fmt::Write as _;

use crate::world::{World, assert_transcript, names_in};

/// Runs lines that must fail where there is no table to be asked, and lists what they say.
fn refusals(world: &World, lines: impl IntoIterator<Item = (String, Vec<String>)>) -> String {
    let mut said = String::new();
    for (shown, args) in lines {
        let ran = crate::world::finish(&mut world.connected(&args), None);
        assert_eq!(ran.stdout, "", "{shown}");
        assert_eq!(ran.code, Some(2), "{shown}: {ran:?}");
        let _ = writeln!(
            said,
            "{shown}\n    {}",
            ran.stderr.trim_end().replace('\n', "\n    ")
        );
    }
    assert_eq!(names_in(world.path()), [""; 0]);
    said
}

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

#[test]
fn names_of_stacks() {
    let world = World::without_table();
    let long = "a".repeat(56);
    let names = [
        "",
        "rate_limits",
        "my.app",
        "my app",
        "a_b.c d",
        "a.b c",
        "9a",
        "-a",
        "a/b",
        "ä",
        "a\nb",
        &long,
    ];
    let lines = names.iter().flat_map(|name| {
        [
            "version",
            "check",
            "deploy",
            "namespace list",
            "system get-defaults",
        ]
        .map(|command| {
            let mut args: Vec<String> = command.split(' ').map(str::to_owned).collect();
            // The last of several counts; the harness names one, too.
            args.extend(strings(&["--name=x", "--endpoint-url=embedded:./db"]));
            args.push(format!("--name={name}"));
            (command.to_owned(), args)
        })
    });
    let mut said = String::new();
    for (command, args) in lines {
        let ran = crate::world::finish(&mut world.command(&args), None);
        assert_eq!(ran.code, Some(2), "{args:?}");
        let _ = writeln!(
            said,
            "{command} {:?}\n    {}",
            args.last().unwrap(),
            ran.stderr.trim_end()
        );
        // One heading at most was printed before.
        assert!(ran.stdout.lines().count() <= 4, "{ran:?}");
    }
    assert_eq!(names_in(world.path()), [""; 0]);
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(said) });
}

#[test]
fn the_longest_name_of_a_stack() {
    let mut world = World::without_table();
    let name = "a".repeat(55);
    let ran = world.plainly(&format!("deploy -n {name} --endpoint-url embedded:./long"));
    assert_eq!(ran.code, Some(0));
    let ran = world.plainly(&format!("version -n {name} --endpoint-url embedded:./long"));
    assert_eq!(ran.code, Some(0));
}

#[test]
fn names_of_entities() {
    let world = World::without_table();
    let long = "x".repeat(257);
    let names = [
        "",
        "a#b",
        "-a",
        "_a",
        "ä",
        "a b",
        "a/b",
        "a\nb",
        "\u{1b}[31m",
        &long,
    ];
    let mut lines = Vec::new();
    for name in names {
        lines.push((
            format!("entity create {name:?}"),
            strings(&["entity", "create", "--", name]),
        ));
    }
    for name in ["", "a#b", "a b", &long] {
        lines.push((
            format!("entity create kid --parent {name:?}"),
            vec![
                "entity".into(),
                "create".into(),
                "kid".into(),
                format!("--parent={name}"),
            ],
        ));
    }
    let others: [&[&str]; 10] = [
        &["entity", "show"],
        &["entity", "children"],
        &["entity", "delete", "--yes"],
        &["entity", "get-limits"],
        &["entity", "set-limits", "-l", "rpm:1"],
        &["entity", "delete-limits", "--yes"],
        &["acquire", "-r", "r", "-c", "rpm:1"],
        &["available", "-r", "r"],
        &["usage", "list", "-e"],
        &["usage", "summary", "-e"],
    ];
    for command in others {
        for name in ["a#b", ""] {
            let mut args = strings(command);
            args.push(name.to_owned());
            lines.push((format!("{} {name:?}", command.join(" ")), args));
        }
    }
    let said = refusals(&world, lines);
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(said) });
}

#[test]
fn names_of_resources() {
    let world = World::without_table();
    let long = "x".repeat(65);
    let names = [
        "",
        "a#b",
        "9a",
        "_default_",
        "-a",
        "ä",
        "a b",
        "a@b",
        "\u{1b}[31m",
        &long,
    ];
    let mut lines = Vec::new();
    for name in names {
        let get = strings(&["resource", "get-defaults", "--", name]);
        lines.push((format!("resource get-defaults {name:?}"), get));
    }
    let others: [&[&str]; 11] = [
        &["resource", "set-defaults", "-l", "rpm:1"],
        &["resource", "delete-defaults", "--yes"],
        &["entity", "get-limits", "u", "-r"],
        &["entity", "set-limits", "u", "-l", "rpm:1", "-r"],
        &["entity", "delete-limits", "u", "--yes", "-r"],
        &["entity", "list", "--with-custom-limits"],
        &["acquire", "u", "-c", "rpm:1", "-r"],
        &["available", "u", "-r"],
        &["usage", "list", "-r"],
        &["usage", "list", "-e", "u", "-r"],
        &["usage", "summary", "-r"],
    ];
    for command in others {
        for name in ["a#b", ""] {
            let mut args = strings(command);
            args.push(name.to_owned());
            lines.push((format!("{} {name:?}", command.join(" ")), args));
        }
    }
    let said = refusals(&world, lines);
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(said) });
}

/// What every set command says of a limit; nothing is written, though the first one is good.
#[test]
fn limits_that_are_wrong() {
    let world = World::without_table();
    let long = format!("{}:5", "x".repeat(65));
    let limits = [
        "rpm",
        "",
        "rpm:abc",
        "rpm:10:abc",
        "rpm:",
        "rpm:/min",
        "rpm:10:",
        "rpm:1e3",
        "rpm:1.5",
        "rpm:1__0",
        "rpm:_1",
        "rpm:1,000",
        "rpm:10:20/min",
        "rpm:10/week",
        "rpm:10/",
        "rpm:10/5MIN",
        "rpm:10/min/x",
        "rpm:10/ min",
        "rpm:0",
        "rpm:-5",
        "rpm:5:0",
        "rpm:0:10",
        "rpm:-1:10",
        "rpm:10/0min",
        "rpm:1000000000000001",
        "rpm:1:1000000000000001",
        "rpm:99999999999999999999999999999999999999999999",
        "rpm:1/99999999999999999999day",
        ":5",
        "9x:5",
        "a b:5",
        "wcu:5",
        "a#b:5",
        &long,
        "rpm:10:20:30",
        "x\u{1b}[31m:5",
        "rpm:\u{1b}[31m",
        "rpm:1/\u{1b}",
    ];
    let lines = limits.iter().map(|limit| {
        let args = strings(&["system", "set-defaults", "-l", "good:1"]);
        let last = format!("--limit={limit}");
        (format!("-l {limit:?}"), args.into_iter().chain([last]).collect())
    });
    let said = refusals(&world, lines);
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(said) });
}

#[test]
fn the_first_wrong_limit_ends_it_whatever_else_is_wrong() {
    let mut world = World::without_table();
    for line in [
        "resource set-defaults 'a#b' -l rpm:x -l tpm",
        "entity set-limits 'a#b' -r 'c#d' -l rpm:1 -l tpm:0",
        "entity set-limits 'a#b' -r 'c#d' -l rpm:1",
        "entity set-limits ab -r 'c#d' -l rpm:1",
        "system set-defaults -l tpm -l rpm:x",
    ] {
        world.run(line);
    }
    assert_transcript!(world);
    assert_eq!(names_in(world.path()), [""; 0]);
}

#[test]
fn limits_in_every_spelling() {
    let mut world = World::new();
    for limits in [
        "-l rpm:10",
        "-l rpm:10/min",
        "-l rpm:10/1min -l x:1/5min",
        "-l rph:5000/hour:9000",
        "-l rpm:10/90sec",
        "-l rpm:10/2hour -l b:10/7day -l c:10/24hour -l d:10/120min -l e:10/3600sec -l f:10/0005min",
        "-l ' rpm : 5'",
        "-l 'rpm: +1_000 /min'",
        "-l 'rpm: +1_000 : 2_000 '",
        "-l rpm:10:5",
        "-l rpm:10:10",
        "-l r.p-m_2:1000000000000000",
        // Of one name the last counts; all are echoed.
        "-l rpm:1 -l tpm:2 -l rpm:3",
    ] {
        world.run(&format!("system set-defaults {limits}"));
        world.run("system get-defaults");
    }
    assert_transcript!(world);
}
