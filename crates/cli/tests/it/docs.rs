//! The console examples of the README, the guide and the page on replays, run as they stand.
//!
//! In a fenced block of `console`, a line `$ command` is run by a shell, the lines after it are what it must
//! print (standard output and error together), and `? N` is its exit code if that is not 0. `[..]` stands for
//! any text. All blocks of a document share one shell, one directory and one environment, in order.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

struct Example {
    command: String,
    expected: Vec<String>,
    code: i32,
}

fn examples(document: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => {
                if let Some(command) = line.strip_prefix("$ ") {
                    examples.push(Example {
                        command: command.to_owned(),
                        expected: Vec::new(),
                        code: 0,
                    });
                } else if let Some(code) = line.strip_prefix("? ") {
                    examples.last_mut().unwrap().code = code.parse().unwrap();
                } else {
                    examples.last_mut().unwrap().expected.push(line.to_owned());
                }
            }
        }
    }
    examples
}

/// Whether a line is as expected, where `[..]` stands for any text.
fn matches(expected: &str, line: &str) -> bool {
    let Some((before, after)) = expected.split_once("[..]") else {
        return expected == line;
    };
    let Some(rest) = line.strip_prefix(before) else {
        return false;
    };
    (0..=rest.len()).any(|skipped| rest.is_char_boundary(skipped) && matches(after, &rest[skipped..]))
}

/// A free port.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[track_caller]
fn check(document: &str) {
    const END: &str = "~~~ exit code ";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(document);
    let examples = examples(&std::fs::read_to_string(path).unwrap());
    assert!(examples.len() > 3, "{document} has hardly any examples");
    let commands = examples.iter().map(|example| example.command.as_str());
    let script: String = commands
        .flat_map(|command| [command, "\necho \"", END, "$?\"\n"])
        .collect();

    let directory = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_zae-limiter")).parent().unwrap();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let search = std::iter::once(program.to_path_buf()).chain(std::env::split_paths(&search));
    // For documents about files of the repository.
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    std::os::unix::fs::symlink(data, directory.path().join("examples")).unwrap();
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg("exec 2>&1; . ./script")
        .current_dir(directory.path())
        .env_clear()
        .env("PATH", std::env::join_paths(search).unwrap())
        .env("HOME", directory.path())
        // Where the examples start a local endpoint, it must not be the user's own.
        .env("ZAE_LIMITER_STATE_DIR", directory.path().join("state"))
        .env("ZAE_LIMITER_LOCAL_PORT", free_port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let file = std::fs::File::create(directory.path().join("script"));
    file.unwrap().write_all(script.as_bytes()).unwrap();
    let output = shell.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();

    let mut lines = printed.lines();
    for example in &examples {
        let mut found = Vec::new();
        let code = loop {
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("the shell stopped at: {}", example.command));
            match line.strip_prefix(END) {
                Some(code) => break code.parse::<i32>().unwrap(),
                None => found.push(line),
            }
        };
        let same = found.len() == example.expected.len()
            && std::iter::zip(&example.expected, &found).all(|(expected, line)| matches(expected, line));
        assert!(
            same && code == example.code,
            "{document}: {}\nprinted, with exit code {code}:\n{}\nwhere it says:\n{}",
            example.command,
            found.join("\n"),
            example.expected.join("\n")
        );
    }
}

#[test]
fn the_readme() {
    check("README.md");
}

#[test]
fn the_guide() {
    check("docs/cli.md");
}

#[test]
fn the_page_on_replays() {
    check("docs/replay.md");
}

#[test]
fn any_text_matches_in_the_middle() {
    assert!(matches("a [..]s.", "a 1.5s."));
    assert!(matches("[..] b [..]", "a b b c"));
    assert!(!matches("a [..]s.", "a 1.5m."));
    assert!(!matches("a", "ab"));
}
