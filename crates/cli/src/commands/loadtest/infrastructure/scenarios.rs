//! Scenarios of a directory, for the worker's package.

use std::fs;
use std::path::Path;

use zae_limiter_infra::ScenarioFile;
use zae_limiter_loadtest::file;

use crate::failure::Failure;
use zae_limiter_loadtest::selection::read_text;

/// How deep below the directory scenarios are looked for.
const DEPTH: usize = 8;

/// The most entries of directories that are looked at.
const ENTRIES: usize = 20_000;

/// The most scenarios.
const MOST: usize = 1000;

/// The scenarios of a directory, and what was left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Paths below the directory, and texts.
    pub(super) files: Vec<ScenarioFile>,
    /// What the user should know of files that are not packed.
    pub(super) notes: Vec<String>,
    entries: usize,
}

/// Finds scenarios: YAML files that can be read as such, outside of hidden folders. Links to folders, and links that
/// lead out of the directory, are not followed.
pub(super) fn find(directory: &Path) -> Result<Found, Failure> {
    let cannot = |err| {
        Failure::error(format!(
            "Cannot read the directory '{}': {err}",
            directory.display()
        ))
    };
    let root = directory.canonicalize().map_err(cannot)?;
    let mut found = Found::default();
    search(&root, &root, "", 0, &mut found).map_err(cannot)?;
    if found.files.len() > MOST {
        return Err(Failure::error(format!(
            "The directory '{}' has more than {MOST} scenarios. Name one with fewer by -C.",
            directory.display()
        )));
    }
    if found.entries >= ENTRIES {
        found.notes.push(format!(
            "Note: only the first {ENTRIES} files of '{}' were searched for scenarios; name a smaller directory with -C",
            directory.display()
        ));
    }
    Ok(found)
}

fn search(
    root: &Path,
    directory: &Path,
    prefix: &str,
    depth: usize,
    found: &mut Found,
) -> std::io::Result<()> {
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if found.entries >= ENTRIES || found.files.len() > MOST {
            break;
        }
        found.entries += 1;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{prefix}{name}");
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if depth + 1 < DEPTH {
                // A folder that may not be read has no scenarios for this user.
                let _ = search(root, &entry.path(), &format!("{path}/"), depth + 1, found);
            }
            continue;
        }
        let end = Path::new(&name).extension().unwrap_or_default();
        if !["yaml", "yml"]
            .iter()
            .any(|known| end.eq_ignore_ascii_case(known))
        {
            continue;
        }
        let Ok(target) = entry.path().canonicalize() else {
            continue;
        };
        if !target.is_file() || !target.starts_with(root) {
            continue;
        }
        let Ok(text) = read_text(&target) else { continue };
        let title = Path::new(&name)
            .file_stem()
            .map_or_else(|| name.clone(), |stem| stem.to_string_lossy().into_owned());
        match file::read(&title, &text) {
            Ok(_) => found.files.push((path, text)),
            // Other YAML has no users.
            Err(err) if text.lines().any(|line| line.starts_with("users:")) => {
                found.notes.push(format!("Note: '{path}' is not packed: {err}"));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// How many scenarios were packed, as a line.
pub(super) fn line(files: &[ScenarioFile]) -> String {
    format!("  Scenarios packed: {}", files.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: &str = "\
system:
  limits:
    rpm: {capacity: 1000}
users:
  - name: One
    entity:
      one: {name: e}
    tasks:
      - resources: [api]
        acquire: {rpm: 1}
";

    #[test]
    fn scenarios_are_found_by_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file::read("x", SCENARIO).unwrap();
        write("b.yaml", SCENARIO);
        write("a.YML", SCENARIO);
        write("deep/er/c.yml", SCENARIO);
        write("d.txt", SCENARIO);
        write(".hidden/e.yaml", SCENARIO);
        write(".f.yaml", SCENARIO);
        write("limits.yaml", "namespace: default\n");
        write("wrong.yaml", "users: 7\n");
        write("1/2/3/4/5/6/7/deep.yaml", SCENARIO);
        write("1/2/3/4/5/6/7/8/deeper.yaml", SCENARIO);
        let found = find(dir.path()).ok().unwrap();
        let paths: Vec<&str> = found.files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            ["1/2/3/4/5/6/7/deep.yaml", "a.YML", "b.yaml", "deep/er/c.yml"]
        );
        assert!(found.files.iter().all(|(_, text)| text == SCENARIO));
        let [note] = found.notes.as_slice() else {
            panic!("{:?}", found.notes)
        };
        assert!(note.starts_with("Note: 'wrong.yaml' is not packed: "), "{note}");
    }

    #[test]
    #[cfg(unix)]
    fn links_out_of_the_directory_are_not_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir_all(inside.join("folder")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(inside.join("folder/a.yaml"), SCENARIO).unwrap();
        fs::write(outside.join("secret.yaml"), SCENARIO).unwrap();
        symlink(outside.join("secret.yaml"), inside.join("file.yaml")).unwrap();
        symlink(&outside, inside.join("dir")).unwrap();
        symlink(&inside, inside.join("loop")).unwrap();
        symlink(inside.join("folder/a.yaml"), inside.join("same.yaml")).unwrap();
        let found = find(&inside).ok().unwrap();
        let paths: Vec<&str> = found.files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["folder/a.yaml", "same.yaml"]);
    }
}
