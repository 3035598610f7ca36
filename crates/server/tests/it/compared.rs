//! The table of features in `docs/serve.md` names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The names of all functions in files with this ending, at any depth.
fn functions(of: &Path, ending: &str, keyword: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, ending, keyword, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            let text = fs::read_to_string(&path).unwrap();
            let names = text
                .lines()
                .filter_map(|line| line.split_once(keyword)?.1.split_once('('));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn each_feature_has_a_test_or_is_said_to_be_missing() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut tests = BTreeSet::new();
    for package in ["server", "replay"] {
        functions(&root.join("crates").join(package), "rs", "fn ", &mut tests);
    }
    functions(&root.join("interop"), "py", "def ", &mut tests);
    let page = fs::read_to_string(root.join("docs/serve.md")).unwrap();
    let section = page.split_once("\n## Beside Limitador").unwrap().1;
    let section = section.split_once("\n## ").unwrap().0;
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| |"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.len() > 20, "{}", rows.len());
    for row in rows {
        let [feature, ours, .., test] = &row[..] else {
            panic!("{row:?}")
        };
        if test.trim_matches('|').trim().is_empty() {
            assert!(ours.starts_with("no"), "{feature} has no test");
        } else {
            let name = test.trim_matches('`');
            assert!(tests.contains(name), "{feature}: {name} does not exist");
        }
    }
}
