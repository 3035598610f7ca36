//! The blocking facade has every call that the async API has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Calls that have no blocking counterpart, and why.
const ASYNC_ONLY: [(&str, &str, &str); 11] = [
    ("Stack", "create_shards", "for the aggregator function"),
    ("Stack", "insist", "for the functions"),
    ("Stack", "table", "the storage seam is async"),
    (
        "Admin",
        "begin_limits",
        "for the provisioner function, which is async",
    ),
    (
        "Repository",
        "builder",
        "the builder is shared; see from_builder and connect_builder",
    ),
    ("Repository", "table", "the storage seam is async; see as_async"),
    ("Repository", "request_cost", "see as_async"),
    ("Repository", "stack", "see as_async"),
    ("Repository", "namespace_name", "see as_async"),
    ("Repository", "namespace_id", "see as_async"),
    ("Repository", "invalidate_images", "see as_async"),
];

/// The public methods of each type, by the `impl` blocks of the sources in a folder, its subfolders left out if so asked.
fn methods(folder: &str, skips: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !skips.contains(&name.as_str()) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                read(&fs::read_to_string(&path).unwrap(), &mut found);
            }
        }
    }
    found
}

fn read(source: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    let mut of = None;
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("impl") {
            let rest = rest.trim_start_matches("<T>").trim_start_matches("<'_>").trim();
            let is_trait = rest.contains(" for ");
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            of = (!is_trait && !name.is_empty()).then_some(name);
        } else if line == "}" {
            of = None;
        } else if let (Some(of), Some(rest)) = (&of, line.strip_prefix("    pub ")) {
            let rest = rest.trim_start_matches("const ").trim_start_matches("async ");
            if let Some(rest) = rest.strip_prefix("fn ") {
                let name = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                found.entry(of.clone()).or_default().insert(name);
            }
        }
    }
}

#[test]
fn blocking_has_every_call_that_async_has() {
    let (ours, blocking) = (methods(".", &["blocking"]), methods("blocking", &[]));
    let mut missing = Vec::new();
    for of in ["Repository", "Admin", "Stack", "RateLimiter", "Acquire", "Lease"] {
        assert!(ours[of].len() > 3, "{of}: {:?}", ours[of]);
        for call in ours[of].difference(&blocking[of]) {
            if !ASYNC_ONLY
                .iter()
                .any(|(only, name, _)| only == &of && name == call)
            {
                missing.push(format!("{of}::{call}"));
            }
        }
    }
    assert!(missing.is_empty(), "blocking lacks {missing:?}");
    for (of, call, _) in ASYNC_ONLY {
        assert!(
            ours[of].contains(call),
            "{of}::{call} is no call of the async API any more"
        );
        assert!(!blocking[of].contains(call), "{of}::{call} is blocking, too");
    }
}
