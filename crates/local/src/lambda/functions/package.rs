//! Packages of functions, unpacked: a directory for each, named by what the package holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Cursor, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use zip::ZipArchive;
use zip::read::ZipFile;

use super::record::Code;
use crate::lambda::refusal;
use crate::wire::{Refusal, uuid};

/// The most that a package may unpack to, which is Lambda's limit.
const LARGEST: u64 = 262_144_000;

/// How many files a package may hold.
const MOST_FILES: usize = 50_000;

/// The prefix of a directory that is being filled.
const UNFINISHED: &str = ".new-";

/// The directory of unpacked packages. Clones share what is held of it.
#[derive(Debug, Clone)]
pub(crate) struct Packages {
    directory: PathBuf,
    holding: Arc<Holding>,
}

/// Which packages are in use by something that runs.
#[derive(Debug, Default)]
struct Holding {
    state: Mutex<State>,
    /// Whether something that was left only because it was held is not held any more.
    leftovers: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// How often each package is held, by its name.
    held: BTreeMap<String, usize>,
    /// The held ones that would have been deleted.
    left: BTreeSet<String>,
}

impl Holding {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a package for later if it is held.
    fn leave(&self, name: &str) -> bool {
        let mut state = self.state();
        let is_held = state.held.contains_key(name);
        if is_held {
            state.left.insert(name.to_owned());
        }
        is_held
    }

    fn let_go(&self, name: &str) {
        let mut state = self.state();
        if let Some(count) = state.held.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(name);
                if state.left.remove(name) {
                    self.leftovers.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

/// A package that stays where it is for as long as this, or a clone, is there.
#[derive(Debug, Clone)]
pub(crate) struct Held(Arc<Hold>);

impl Held {
    /// Where it is unpacked.
    pub(crate) fn directory(&self) -> &Path {
        &self.0.directory
    }
}

#[derive(Debug)]
struct Hold {
    directory: PathBuf,
    name: String,
    holding: Arc<Holding>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holding.let_go(&self.name);
    }
}

impl Packages {
    /// Opens the directory, and sweeps what a killed process left half done.
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self {
            directory,
            holding: Arc::default(),
        })
    }

    /// Keeps a package where it is. Whether it still is there the caller has to see after that.
    pub(crate) fn hold(&self, code: &Code) -> Held {
        *self.holding.state().held.entry(code.sha256.clone()).or_default() += 1;
        Held(Arc::new(Hold {
            directory: self.directory(code),
            name: code.sha256.clone(),
            holding: Arc::clone(&self.holding),
        }))
    }

    /// Whether something was left behind that [`keep`](Self::keep) would delete now.
    pub(crate) fn has_leftovers(&self) -> bool {
        self.holding.leftovers.load(Ordering::Relaxed)
    }

    /// Where a package is unpacked.
    fn directory(&self, code: &Code) -> PathBuf {
        self.directory.join(&code.sha256)
    }

    /// Unpacks a package, unless it is there already.
    pub(crate) fn unpack(&self, package: &[u8]) -> Result<Code, Refusal> {
        let code = Code {
            sha256: hex(&Sha256::digest(package)),
            size: package.len() as u64,
        };
        let target = self.directory(&code);
        if target.is_dir() {
            return Ok(code);
        }
        let unfinished = self.directory.join(format!("{UNFINISHED}{}", uuid()));
        let unpacked =
            unpack(package, &unfinished, LARGEST).and_then(|()| match fs::rename(&unfinished, &target) {
                // Another call was faster with the same package.
                Err(_) if target.is_dir() => {
                    fs::remove_dir_all(&unfinished).map_err(|err| failed(&target, &err))
                }
                other => other.map_err(|err| failed(&target, &err)),
            });
        if unpacked.is_err() {
            let _ = fs::remove_dir_all(&unfinished);
        }
        unpacked.map(|()| code)
    }

    /// Deletes packages that are not among these and not in use.
    pub(crate) fn keep(&self, used: &BTreeSet<String>) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        self.holding.leftovers.store(false, Ordering::Relaxed);
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) || used.contains(&name) || self.holding.leave(&name) {
                continue;
            }
            if let Err(err) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = %entry.path().display(), error = %err, "a function's old code could not be deleted");
            }
        }
    }
}

fn unpack(package: &[u8], target: &Path, largest: u64) -> Result<(), Refusal> {
    let damaged = |err: &dyn std::fmt::Display| {
        refusal(format!(
            "Could not unzip uploaded file. Please check your file, then try to upload again. ({err})"
        ))
    };
    let mut archive = ZipArchive::new(Cursor::new(package)).map_err(|err| damaged(&err))?;
    if archive.len() > MOST_FILES {
        return Err(refusal(format!(
            "the package holds {} files; it may hold {MOST_FILES}",
            archive.len()
        )));
    }
    fs::create_dir_all(target).map_err(|err| failed(target, &err))?;
    let mut left = largest;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|err| damaged(&err))?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let Some(inside) = entry.enclosed_name() else {
            return Err(refusal(format!(
                "the package's file '{name}' would lie outside the package; pack it with a relative path"
            )));
        };
        if entry.is_symlink() {
            return Err(refusal(format!(
                "the package's file '{name}' is a symbolic link; pack the file itself"
            )));
        }
        let path = target.join(inside);
        if entry.is_dir() {
            fs::create_dir_all(&path).map_err(|err| failed(&path, &err))?;
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|err| failed(parent, &err))?;
        }
        left = write(entry, &path, left)
            .map_err(|err| damaged(&err))?
            .ok_or_else(|| {
                refusal(format!(
                    "Unzipped size must be smaller than {largest} bytes; the package unpacks to more"
                ))
            })?;
    }
    Ok(())
}

/// Writes a file of the package; returns how much room is left, or nothing if there is none.
fn write(entry: ZipFile<'_, Cursor<&[u8]>>, path: &Path, left: u64) -> io::Result<Option<u64>> {
    let mode = entry.unix_mode();
    let mut file = fs::File::create(path)?;
    // The sizes in the package's directory are not trusted.
    let written = io::copy(&mut entry.take(left + 1), &mut file)?;
    set_mode(&file, mode)?;
    Ok(left.checked_sub(written))
}

/// Gives a file the mode that the package says; one that says nothing may be anything, so it may be run.
#[cfg(unix)]
fn set_mode(file: &fs::File, mode: Option<u32>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = mode.map_or(0o755, |mode| (mode & 0o755) | 0o444);
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)]
fn set_mode(_: &fs::File, _: Option<u32>) -> io::Result<()> {
    Ok(())
}

fn failed(path: &Path, err: &io::Error) -> Refusal {
    Refusal::internal(&format!("{} could not be written: {err}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn zipped(fill: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        fill(&mut zip);
        zip.finish().unwrap().into_inner()
    }

    fn opened() -> (tempfile::TempDir, Packages) {
        let directory = tempfile::tempdir().unwrap();
        let packages = Packages::open(directory.path().join("code")).unwrap();
        (directory, packages)
    }

    fn names(packages: &Packages) -> Vec<String> {
        fs::read_dir(&packages.directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn files_are_unpacked_with_their_modes() {
        let package = zipped(|zip| {
            let run = SimpleFileOptions::default().unix_permissions(0o777);
            zip.start_file("bootstrap", run).unwrap();
            zip.write_all(b"#!").unwrap();
            let read = SimpleFileOptions::default().unix_permissions(0o600);
            zip.start_file("lib/data.txt", read).unwrap();
            zip.write_all(b"x").unwrap();
        });
        let (_directory, packages) = opened();
        let code = packages.unpack(&package).unwrap();
        assert_eq!((code.sha256.len(), code.size), (64, package.len() as u64));
        assert_eq!(packages.unpack(&package).unwrap(), code);
        let root = packages.directory(&code);
        assert_eq!(fs::read(root.join("lib/data.txt")).unwrap(), b"x");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode("bootstrap"), mode("lib/data.txt")), (0o755, 0o644));
        }
    }

    #[test]
    fn what_would_leave_the_directory_is_refused() {
        let (directory, packages) = opened();
        let outside = zipped(|zip| {
            zip.start_file("../outside", SimpleFileOptions::default())
                .unwrap();
        });
        let link = zipped(|zip| {
            zip.add_symlink("link", "/etc", SimpleFileOptions::default())
                .unwrap();
        });
        for (package, said) in [(outside, "outside"), (link, "link"), (b"PK".to_vec(), "unzip")] {
            let err = packages.unpack(&package).unwrap_err();
            assert_eq!(err.code, "InvalidParameterValueException");
            assert!(err.message.contains(said), "{}", err.message);
        }
        assert!(names(&packages).is_empty(), "{:?}", names(&packages));
        assert!(!directory.path().join("outside").exists());
    }

    #[test]
    fn a_package_that_unpacks_to_too_much_is_refused() {
        let package = zipped(|zip| {
            zip.start_file("zeros", SimpleFileOptions::default()).unwrap();
            zip.write_all(&[0; 2_000]).unwrap();
        });
        let directory = tempfile::tempdir().unwrap();
        let err = unpack(&package, &directory.path().join("a"), 1_999).unwrap_err();
        assert!(err.message.contains("1999"), "{}", err.message);
        assert_eq!(unpack(&package, &directory.path().join("b"), 2_000), Ok(()));
    }

    #[test]
    fn only_used_packages_stay() {
        let (_directory, packages) = opened();
        let one = packages
            .unpack(&zipped(|zip| {
                zip.start_file("a", SimpleFileOptions::default()).unwrap();
            }))
            .unwrap();
        let other = packages
            .unpack(&zipped(|zip| {
                zip.start_file("b", SimpleFileOptions::default()).unwrap();
            }))
            .unwrap();
        packages.keep(&BTreeSet::from([other.sha256.clone()]));
        assert!(!packages.directory(&one).exists());
        assert_eq!(names(&packages), std::slice::from_ref(&other.sha256));
        let held = packages.hold(&other);
        packages.keep(&BTreeSet::new());
        assert!(packages.directory(&other).is_dir() && !packages.has_leftovers());
        drop(held);
        assert!(packages.has_leftovers());
        packages.keep(&BTreeSet::new());
        assert!(names(&packages).is_empty() && !packages.has_leftovers());
        fs::create_dir(packages.directory.join(".new-x")).unwrap();
        let packages = Packages::open(packages.directory).unwrap();
        assert!(names(&packages).is_empty());
    }
}
