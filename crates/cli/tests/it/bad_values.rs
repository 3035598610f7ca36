//! Every command with every kind of bad value: one answer that names the value, the reference's exit code, nothing done, and no
//! words of the implementation.

use crate::world::{World, embedded_only, finish, names_in};

/// Words of the implementation, of its libraries and of the Python tool, which a user cannot do anything with.
const INTERNAL: [&str; 16] = [
    "panicked",
    "Some(",
    "None",
    "Ok(",
    "Err(",
    "Error {",
    "SdkError",
    "ServiceError",
    "ParseIntError",
    "TryFromIntError",
    "ValidationException",
    "unhandled error",
    "dispatch failure",
    "invalid literal",
    "Traceback",
    "RUST_BACKTRACE",
];

/// A kind of value: the command lines that take it, with `{}` in its place, and values that it cannot have.
struct Kind {
    name: &'static str,
    places: &'static [&'static str],
    bad: &'static [&'static str],
}

const KINDS: [Kind; 12] = [
    Kind {
        name: "entity",
        places: &[
            "entity show {}",
            "entity create {}",
            "entity create ok --parent {}",
            "entity children {}",
            "entity delete {} --yes",
            "entity set-limits {} -l rpm:1",
            "entity get-limits {}",
            "entity delete-limits {} --yes",
            "acquire {} -r gpt-4 -c rpm:1",
            "available {} -r gpt-4 -c rpm:1",
            "audit list --entity-id {}",
            "usage list --entity-id {}",
            "usage summary --entity-id {}",
        ],
        bad: &[
            "",
            " ",
            "a b",
            "a#b",
            ".a",
            "ü",
            "🚀",
            "a/b",
            "a\nb",
            "a\u{1b}[2Jb",
            "a\tb",
        ],
    },
    Kind {
        name: "resource",
        places: &[
            "resource get-defaults {}",
            "resource set-defaults {} -l rpm:1",
            "resource delete-defaults {} --yes",
            "entity set-limits u -r {} -l rpm:1",
            "entity get-limits u -r {}",
            "entity delete-limits u -r {} --yes",
            "entity list --with-custom-limits {}",
            "acquire u -r {} -c rpm:1",
            "available u -r {} -c rpm:1",
            "usage list --resource {}",
            "usage summary --resource {}",
        ],
        bad: &["", " ", "1a", "a b", "a#b", "ü", "🚀", "a\nb", "a\u{1b}[2Jb"],
    },
    Kind {
        name: "namespace",
        places: &[
            "namespace register {}",
            "namespace show {}",
            "namespace delete {} --yes",
            "entity show u --namespace={}",
            "resource list --namespace={}",
            "system get-defaults --namespace={}",
            "acquire u -r gpt-4 -c rpm:1 --namespace={}",
            "audit list -e u --namespace={}",
        ],
        bad: &["", "_", "a\nb"],
    },
    Kind {
        name: "limit",
        places: &[
            "system set-defaults --limit={}",
            "resource set-defaults gpt-4 --limit={}",
            "entity set-limits u --limit={}",
        ],
        bad: &[
            "",
            "rpm",
            ":1",
            "rpm:",
            "rpm:x",
            "rpm:0",
            "rpm:-1",
            "rpm:1e18",
            "rpm:1.5",
            "rpm:1,5",
            "rpm:1/week",
            "rpm:1:0",
            "rpm:0x10",
            "rpm:1/0min",
            "rpm:٣",
            "r pm:1",
            "rpm:99999999999999999999",
            "rpm:1:2:3",
            "rpm:NaN",
            "rpm:1/min:x",
        ],
    },
    Kind {
        name: "amount",
        places: &[
            "acquire u -r gpt-4 --consume={}",
            "available u -r gpt-4 --consume={}",
        ],
        bad: &[
            "",
            "rpm",
            "rpm:",
            "rpm:x",
            "rpm:-1",
            "rpm:1e3",
            "rpm:1.5",
            "rpm:1,5",
            "rpm:99999999999999999999",
            "rpm:0x1",
        ],
    },
    Kind {
        name: "count",
        places: &[
            "audit list -e u --limit={}",
            "usage list -e u --limit={}",
            "entity list --with-custom-limits gpt-4 --limit={}",
        ],
        bad: &["", "x", "-1", "1.5", "1e3", "0x10", "99999999999999999999"],
    },
    Kind {
        name: "time",
        places: &[
            "usage list -e u --start={}",
            "usage list -e u --end={}",
            "usage summary -e u --start={}",
            "usage summary -e u --end={}",
        ],
        bad: &[
            "",
            "x",
            "2026",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "yesterday",
            "2026-01-01T25:00:00Z",
            "99999-01-01",
        ],
    },
    Kind {
        name: "duration",
        places: &[
            "acquire u -r gpt-4 -c rpm:1 --wait={}",
            "acquire u -r gpt-4 -c rpm:1 --timeout={}",
        ],
        bad: &["", "x", "-1", "1e400", "NaN", "inf", "99999999999999999999d"],
    },
    Kind {
        name: "choice",
        places: &[
            "usage list -e u --window={}",
            "system set-defaults -l rpm:1 --on-unavailable={}",
            "acquire u -r gpt-4 -c rpm:1 --on-unavailable={}",
            "entity show u --output={}",
        ],
        bad: &["", "x", "weekly", "JSONX"],
    },
    Kind {
        name: "stack",
        places: &[
            "deploy --name={}",
            "check --name={}",
            "version --name={}",
            "entity show u --name={}",
            "namespace list --name={}",
            "resource list --name={}",
        ],
        bad: &["", "ab", "a_b", "a.b", "a b", "1ab", "🚀🚀🚀", "a/b", "a\nb"],
    },
    Kind {
        name: "endpoint",
        places: &[
            "deploy --endpoint-url={}",
            "check --endpoint-url={}",
            "entity show u --endpoint-url={}",
            "list --endpoint-url={}",
        ],
        bad: &[
            "",
            "x",
            "localhost:1",
            "http://",
            "http://h:99999",
            "http://a b",
            "ftp://h",
            "http://u:secret@h",
            "embedded:",
            "embedded://x",
            "embedded:~/x",
            "EMBEDDED:x",
        ],
    },
    Kind {
        name: "region",
        places: &[
            "check --region={}",
            "entity show u --region={}",
            "deploy --region={}",
            "list --region={}",
        ],
        bad: &["", " ", "a b", "ü", "us-east-1/x", "a\nb"],
    },
];

#[test]
fn every_bad_value_is_refused_by_name_before_anything_is_done() {
    embedded_only!("nothing is connected");
    let world = World::without_table();
    let mut wrong = Vec::new();
    for kind in &KINDS {
        for place in kind.places {
            for bad in kind.bad {
                let args: Vec<String> = place.split(' ').map(|word| word.replace("{}", bad)).collect();
                // Where the table is must not be what is refused, unless that is the matter.
                let is_own = ["endpoint", "region"].contains(&kind.name);
                let mut command = match is_own {
                    true => world.command(&args),
                    false if kind.name == "stack" => {
                        let mut args = args.clone();
                        args.push("--endpoint-url=embedded:./db".to_owned());
                        world.command(&args)
                    }
                    false => world.connected(&args),
                };
                let ran = finish(&mut command, None);
                let mut faults = Vec::new();
                if ran.code != Some(2) {
                    faults.push(format!("ends with {:?}", ran.code));
                }
                let shown = bad
                    .trim()
                    .split(['\n', '\u{1b}', '\t'])
                    .next()
                    .unwrap_or_default();
                if !ran.stderr.contains(shown) && !bad.contains("secret") {
                    faults.push("does not name the value".to_owned());
                }
                if ran.stderr.contains("secret") || ran.stderr.contains('\u{1b}') {
                    faults.push("shows what must not be shown".to_owned());
                }
                if ran.stderr.trim().is_empty() {
                    faults.push("says nothing".to_owned());
                }
                faults.extend(
                    INTERNAL
                        .iter()
                        .filter(|word| ran.stderr.contains(**word))
                        .map(|word| format!("says {word}")),
                );
                if !faults.is_empty() {
                    wrong.push(format!(
                        "{args:?}: {}\n    {}",
                        faults.join(", "),
                        ran.stderr.trim()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(names_in(world.path()), [""; 0]);
}
