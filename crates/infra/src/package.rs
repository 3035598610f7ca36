//! What functions run: an executable in a zip.

use std::fmt::Write as _;
use std::io::{Cursor, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use crate::Error;
use crate::elf::{self, Architecture};

/// The name that Lambda starts a package by.
const BOOTSTRAP: &str = "bootstrap";

/// The folder of a package with the user's scenarios.
const SCENARIOS: &str = "locustfiles";

/// The most that a package may come to, unpacked: 250 MB.
const UNPACKED: u64 = 250 * 1024 * 1024;

/// Where the executable of the functions comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackageSource {
    /// The program that is running.
    ThisProgram,
    /// A file: an executable, or a zip that holds one named `bootstrap`.
    File(PathBuf),
}

impl PackageSource {
    /// The file, with links followed.
    ///
    /// # Errors
    /// [`Error::Package`] if there is no such file.
    pub fn path(&self) -> Result<PathBuf, Error> {
        match self {
            Self::ThisProgram => {
                let found = std::env::current_exe().and_then(|path| path.canonicalize());
                found.map_err(|err| {
                    Error::Package(format!(
                        "The running program's own file cannot be found ({err}); name a file with --lambda-package."
                    ))
                })
            }
            Self::File(path) => path.canonicalize().map_err(|err| unreadable(path, &err)),
        }
    }

    /// Reads, checks and packs it. Takes a while for a large executable, without yielding.
    ///
    /// # Errors
    /// [`Error::Package`] if it cannot be read, or could not run.
    pub fn load(&self) -> Result<Package, Error> {
        Package::load(&self.path()?)
    }

    /// Reads and checks it, without packing it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn inspect(&self) -> Result<PackageInfo, Error> {
        let path = self.path()?;
        let bytes = std::fs::read(&path).map_err(|err| unreadable(&path, &err))?;
        let what = format!("'{}'", path.display());
        let (unpacked, architecture) = if is_zip(&bytes) {
            let package = Package::from_zip(bytes, &what)?;
            (package.unpacked, package.architecture)
        } else {
            check_size(bytes.len() as u64, &what)?;
            (bytes.len() as u64, elf::check(&bytes, &what)?)
        };
        Ok(PackageInfo {
            path,
            unpacked,
            architecture,
        })
    }

    /// [`load`](Self::load) on a thread of its own.
    pub(crate) async fn load_aside(&self) -> Result<Package, Error> {
        self.load_with(Vec::new()).await
    }

    /// [`load_aside`](Self::load_aside), with scenarios beside the executable.
    pub(crate) async fn load_with(&self, scenarios: Vec<(String, String)>) -> Result<Package, Error> {
        let source = self.clone();
        let loading = tokio::task::spawn_blocking(move || source.load()?.with_scenarios(&scenarios));
        let stopped = |_| Err(Error::Package("Packing was stopped.".into()));
        loading.await.unwrap_or_else(stopped)
    }
}

/// Facts about a package before it is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageInfo {
    /// The file, with links followed.
    pub path: PathBuf,
    /// The size of what functions run, unpacked, in bytes.
    pub unpacked: u64,
    /// The processor it is for.
    pub architecture: Architecture,
}

/// A zip that Lambda can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The zip.
    pub bytes: Vec<u8>,
    /// The SHA-256 of the zip, in hexadecimal.
    pub sha256: String,
    /// The size of its files, unpacked, in bytes.
    pub unpacked: u64,
    /// The processor it is for.
    pub architecture: Architecture,
}

impl Package {
    /// Reads, checks and packs a file.
    ///
    /// # Errors
    /// As [`PackageSource::load`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|err| unreadable(path, &err))?;
        let what = format!("'{}'", path.display());
        if is_zip(&bytes) {
            Self::from_zip(bytes, &what)
        } else {
            Self::from_executable(&bytes, &what)
        }
    }

    /// Packs an executable, which `what` names in errors. Equal executables give equal bytes.
    ///
    /// # Errors
    /// [`Error::Package`] if it could not run.
    pub fn from_executable(executable: &[u8], what: &str) -> Result<Self, Error> {
        let architecture = elf::check(executable, what)?;
        let unpacked = executable.len() as u64;
        check_size(unpacked, what)?;
        let failed = |err: &dyn std::fmt::Display| Error::Package(format!("{what} cannot be packed: {err}."));
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o755);
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file(BOOTSTRAP, options).map_err(|err| failed(&err))?;
        zip.write_all(executable).map_err(|err| failed(&err))?;
        let bytes = zip.finish().map_err(|err| failed(&err))?.into_inner();
        Ok(Self {
            sha256: hex(&Sha256::digest(&bytes)),
            bytes,
            unpacked,
            architecture,
        })
    }

    /// Takes a zip as it is, which `what` names in errors.
    ///
    /// # Errors
    /// [`Error::Package`] if it holds no executable `bootstrap` that could run.
    pub fn from_zip(bytes: Vec<u8>, what: &str) -> Result<Self, Error> {
        let wrong =
            |why: String| Error::Package(format!("{what} cannot be used as a function's package: {why}"));
        let mut zip = ZipArchive::new(Cursor::new(&bytes))
            .map_err(|err| wrong(format!("it is not a readable zip ({err}).")))?;
        let mut unpacked = 0_u64;
        for index in 0..zip.len() {
            let file = zip
                .by_index(index)
                .map_err(|err| wrong(format!("it is damaged ({err}).")))?;
            unpacked = unpacked.saturating_add(file.size());
        }
        check_size(unpacked, what)?;
        let absent = |_| {
            wrong(format!(
                "it holds no file '{BOOTSTRAP}' at its root. 'zae-limiter lambda-export' makes one that does."
            ))
        };
        let file = zip.by_name(BOOTSTRAP).map_err(absent)?;
        if file.unix_mode().is_none_or(|mode| mode & 0o111 != 0o111) {
            return Err(wrong(format!(
                "its '{BOOTSTRAP}' is not executable for all users. Set its mode to 755 before it is zipped."
            )));
        }
        let mut executable = Vec::new();
        // The size in a damaged zip is not trusted.
        file.take(UNPACKED + 1)
            .read_to_end(&mut executable)
            .map_err(|err| wrong(format!("it is damaged ({err}).")))?;
        check_size(executable.len() as u64, what)?;
        let architecture = elf::check(&executable, &format!("'{BOOTSTRAP}' in {what}"))?;
        Ok(Self {
            sha256: hex(&Sha256::digest(&bytes)),
            bytes,
            unpacked,
            architecture,
        })
    }

    /// The package with scenarios: their paths, and their texts.
    fn with_scenarios(self, scenarios: &[(String, String)]) -> Result<Self, Error> {
        if scenarios.is_empty() {
            return Ok(self);
        }
        let unpacked = scenarios.iter().fold(self.unpacked, |sum, (_, text)| {
            sum.saturating_add(text.len() as u64)
        });
        check_size(unpacked, "The package with its scenarios")?;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644);
        let failed = |path: &str, err: &dyn std::fmt::Display| {
            Error::Package(format!("The scenario '{path}' cannot be packed: {err}."))
        };
        let mut zip = ZipWriter::new_append(Cursor::new(self.bytes))
            .map_err(|err| Error::Package(format!("The package cannot be extended: {err}.")))?;
        for (path, text) in scenarios {
            zip.start_file(format!("{SCENARIOS}/{path}"), options)
                .map_err(|err| failed(path, &err))?;
            zip.write_all(text.as_bytes()).map_err(|err| failed(path, &err))?;
        }
        let bytes = zip
            .finish()
            .map_err(|err| Error::Package(format!("The package cannot be extended: {err}.")))?
            .into_inner();
        Ok(Self {
            sha256: hex(&Sha256::digest(&bytes)),
            bytes,
            unpacked,
            architecture: self.architecture,
        })
    }

    /// The executable in it.
    pub(crate) fn executable(&self) -> Result<Vec<u8>, Error> {
        let damaged = |err: &dyn std::fmt::Display| Error::Package(format!("The package is damaged: {err}."));
        let mut zip = ZipArchive::new(Cursor::new(&self.bytes)).map_err(|err| damaged(&err))?;
        let file = zip.by_name(BOOTSTRAP).map_err(|err| damaged(&err))?;
        let mut executable = Vec::new();
        file.take(UNPACKED)
            .read_to_end(&mut executable)
            .map_err(|err| damaged(&err))?;
        Ok(executable)
    }

    /// The size of the zip, in bytes.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The SHA-256 as Lambda shows it: base64 of its bytes.
    pub(crate) fn lambda_sha256(&self) -> String {
        aws_smithy_types::base64::encode(Sha256::digest(&self.bytes))
    }
}

fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

fn check_size(unpacked: u64, what: &str) -> Result<(), Error> {
    if unpacked <= UNPACKED {
        return Ok(());
    }
    Err(Error::Package(format!(
        "{what} comes to {} MB unpacked; a function may have {}. Build it with optimisation and without debug \
         information (cargo build --release, strip).",
        unpacked.div_ceil(1024 * 1024),
        UNPACKED / 1024 / 1024
    )))
}

fn unreadable(path: &Path, err: &std::io::Error) -> Error {
    Error::Package(format!("Cannot read the package '{}': {err}.", path.display()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tiny;

    fn zip_of(name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().unix_permissions(mode);
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap().into_inner()
    }

    #[track_caller]
    fn refused(result: Result<Package, Error>, why: &str) {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(why) && text.ends_with('.'), "{text}");
    }

    #[test]
    fn an_executable_becomes_the_same_zip_each_time() {
        let package = Package::from_executable(&tiny(62), "x").unwrap();
        assert_eq!(Package::from_executable(&tiny(62), "y").unwrap(), package);
        assert_ne!(
            Package::from_executable(&tiny(183), "x").unwrap().sha256,
            package.sha256
        );
        assert_eq!((package.unpacked, package.architecture), (64, Architecture::X86));
        assert_eq!(package.sha256.len(), 64);
        // And that zip is taken as it is.
        assert_eq!(Package::from_zip(package.bytes.clone(), "x").unwrap(), package);
        let mut zip = ZipArchive::new(Cursor::new(&package.bytes)).unwrap();
        assert_eq!(zip.len(), 1);
        let file = zip.by_index(0).unwrap();
        assert_eq!(file.unix_mode(), Some(0o100_755));
        assert_eq!(file.name().unwrap(), "bootstrap");
    }

    #[test]
    fn scenarios_are_packed_beside_the_executable() {
        let plain = Package::from_executable(&tiny(62), "x").unwrap();
        assert_eq!(plain.clone().with_scenarios(&[]).unwrap(), plain);
        let scenarios = [
            ("a.yaml".to_owned(), "one".to_owned()),
            ("deep/b.yml".to_owned(), "other".to_owned()),
        ];
        let package = plain.clone().with_scenarios(&scenarios).unwrap();
        assert_eq!(plain.with_scenarios(&scenarios).unwrap(), package);
        assert_eq!((package.unpacked, package.architecture), (72, Architecture::X86));
        // It still runs, and holds what was given.
        let read = Package::from_zip(package.bytes.clone(), "x").unwrap();
        assert_eq!(read, package);
        let mut zip = ZipArchive::new(Cursor::new(package.bytes.clone())).unwrap();
        let mut text = String::new();
        let mut file = zip.by_name("locustfiles/deep/b.yml").unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "other");
        let twice = [scenarios[0].clone(), scenarios[0].clone()];
        refused(package.with_scenarios(&twice), "'a.yaml' cannot be packed");
    }

    #[test]
    fn zips_that_would_not_run_are_refused() {
        refused(
            Package::from_zip(b"PK\x03\x04...".to_vec(), "x"),
            "not a readable zip",
        );
        refused(
            Package::from_zip(zip_of("main", 0o755, &tiny(62)), "x"),
            "no file 'bootstrap'",
        );
        refused(
            Package::from_zip(zip_of("bin/bootstrap", 0o755, &tiny(62)), "x"),
            "at its root",
        );
        refused(
            Package::from_zip(zip_of("bootstrap", 0o644, &tiny(62)), "x"),
            "not executable",
        );
        refused(
            Package::from_zip(zip_of("bootstrap", 0o700, &tiny(62)), "x"),
            "for all users",
        );
        refused(
            Package::from_zip(zip_of("bootstrap", 0o755, b"#!/bin/sh"), "x"),
            "'bootstrap' in x",
        );
    }

    #[test]
    fn files_are_told_apart_by_what_they_begin_with() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            PackageSource::File(path)
        };
        let executable = write("a", &tiny(183)).load().unwrap();
        let zip = write("b", &zip_of("bootstrap", 0o755, &tiny(183)))
            .load()
            .unwrap();
        assert_eq!(
            (executable.architecture, zip.architecture),
            (Architecture::Arm, Architecture::Arm)
        );
        assert_eq!((executable.unpacked, zip.unpacked), (64, 64));
        for source in [
            write("a", &tiny(183)),
            write("b", &zip_of("bootstrap", 0o755, &tiny(183))),
        ] {
            let info = source.inspect().unwrap();
            assert_eq!((info.unpacked, info.architecture), (64, Architecture::Arm));
            assert_eq!(info.path, source.path().unwrap());
        }
        assert!(write("c", b"#!/bin/sh").inspect().is_err());
        refused(write("c", b"").load(), "not a Linux executable");
        refused(
            PackageSource::File(dir.path().join("none")).load(),
            "Cannot read the package",
        );
    }

    #[test]
    fn a_package_may_not_be_larger_than_lambda_takes() {
        check_size(UNPACKED, "x").unwrap();
        let text = check_size(UNPACKED + 1, "x").unwrap_err().to_string();
        assert!(
            text.starts_with("x comes to 251 MB unpacked; a function may have 250."),
            "{text}"
        );
    }
}
