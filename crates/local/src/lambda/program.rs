//! What runs the code of a function: the package itself, or an interpreter of this machine with a runtime for it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Asks for events, calls the handler, and posts its answers. It is passed to the interpreter with `-c`.
pub(super) const RUNTIME: &str = include_str!("runtime.py");

/// The names that an interpreter is searched for by, if none was asked for.
const NAMES: [&str; 2] = ["python3", "python"];

/// What runs a function's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// The package's `bootstrap`.
    Bootstrap,
    /// An interpreter, with [`RUNTIME`].
    Python(PathBuf),
}

impl Program {
    /// How the system's errors name it.
    pub(super) fn tried(&self) -> String {
        match self {
            Self::Bootstrap => "fork/exec /var/task/bootstrap".to_owned(),
            Self::Python(interpreter) => format!("fork/exec {}", interpreter.display()),
        }
    }
}

/// The interpreter of this machine, if it has one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Python(Option<PathBuf>);

/// The interpreter that was asked for cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the Python interpreter {} is not an executable file, and no directory of PATH has one of this name. Name one with \
     --python or the variable PYTHON, such as .venv/bin/python",
    .0.display()
)]
pub struct NoSuchPython(PathBuf);

impl Python {
    /// No interpreter: functions in Python are kept, and calling them is an error.
    pub fn none() -> Self {
        Self::default()
    }

    /// The interpreter that is asked for, as a path or as a name that is searched for in `PATH`; else the machine's
    /// `python3` or `python`, if it has one.
    ///
    /// # Errors
    /// If the one that is asked for is not an executable file.
    pub fn find(asked: Option<&Path>) -> Result<Self, NoSuchPython> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        match asked {
            Some(asked) => match search(asked.as_os_str(), &path) {
                Some(found) => Ok(Self(Some(found))),
                None => Err(NoSuchPython(asked.to_owned())),
            },
            None => Ok(Self(NAMES.iter().find_map(|name| search(name.as_ref(), &path)))),
        }
    }

    /// The interpreter's path.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

/// Finds a program as a shell does: a name in the directories of `PATH`, a path where it is. Symbolic links are kept, because
/// an interpreter finds its virtual environment by the link.
fn search(program: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let as_path = Path::new(program);
    let candidates: Vec<PathBuf> = if as_path.components().count() > 1 || as_path.is_absolute() {
        vec![as_path.to_owned()]
    } else {
        std::env::split_paths(path)
            .filter(|directory| !directory.as_os_str().is_empty())
            .map(|directory| directory.join(program))
            .collect()
    };
    let found = candidates
        .into_iter()
        .find(|candidate| is_executable(candidate))?;
    std::path::absolute(found).ok()
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file() || path.with_extension("exe").is_file()
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_interpreter_is_found_as_a_shell_finds_it() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("a"), directory.path().join("b"));
        for folder in [&first, &second] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("python3"), "").unwrap();
        }
        let program = second.join("python3");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::join_paths([&first, &second]).unwrap();
        assert_eq!(search("python3".as_ref(), &path), Some(program.clone()));
        assert_eq!(search(program.as_os_str(), OsStr::new("")), Some(program));
        assert_eq!(search(first.join("python3").as_os_str(), &path), None);
        assert_eq!(search("python3".as_ref(), OsStr::new("")), None);
        let missing = first.join("none");
        let err = Python::find(Some(&missing)).unwrap_err().to_string();
        assert!(
            err.contains(&missing.display().to_string()) && err.contains("--python"),
            "{err}"
        );
    }
}
