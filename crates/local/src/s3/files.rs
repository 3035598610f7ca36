//! The bytes of objects and parts: files named by random ids.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::wire::{Refusal, uuid};

/// The name of a file while it is written.
const UNFINISHED: &str = "part";

/// The directory of the files.
#[derive(Debug, Clone)]
pub(super) struct Files {
    directory: PathBuf,
}

impl Files {
    pub(super) fn open(directory: &Path) -> Result<Self, Refusal> {
        fs::create_dir_all(directory).map_err(|err| failed("make", directory, &err))?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// Writes a file; its name is the answer.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<String, Refusal> {
        let file = uuid();
        let path = self.path(&file);
        let unfinished = path.with_extension(UNFINISHED);
        fs::write(&unfinished, bytes)
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(|err| {
                // The rest of it does no harm, and is deleted at the next start.
                let _ = fs::remove_file(&unfinished);
                failed("write", &path, &err)
            })?;
        Ok(file)
    }

    /// Reads a file, or a part of it; `None` if it is not there.
    pub(super) fn read(&self, file: &str, range: Option<Range<u64>>) -> Result<Option<Bytes>, Refusal> {
        let path = self.path(file);
        let read = || -> io::Result<Bytes> {
            let Some(range) = range else {
                return fs::read(&path).map(Bytes::from);
            };
            let mut opened = fs::File::open(&path)?;
            opened.seek(SeekFrom::Start(range.start))?;
            let length = range.end.saturating_sub(range.start);
            let mut bytes = Vec::with_capacity(length as usize);
            opened.take(length).read_to_end(&mut bytes)?;
            Ok(bytes.into())
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(failed("read", &path, &err)),
        }
    }

    /// Deletes a file that nothing names any longer.
    pub(super) fn delete(&self, file: &str) {
        // If it stays, it goes at the next start.
        if let Err(err) = fs::remove_file(self.path(file)) {
            tracing::debug!(file, error = %err, "a file of an object that is gone stays for now");
        }
    }

    /// Deletes all files but those.
    pub(super) fn keep(&self, named: &HashSet<String>) -> Result<(), Refusal> {
        let read = |err: io::Error| failed("read", &self.directory, &err);
        for entry in fs::read_dir(&self.directory).map_err(read)? {
            let name = entry.map_err(read)?.file_name();
            if let Some(name) = name.to_str().filter(|name| !named.contains(*name)) {
                self.delete(name);
            }
        }
        Ok(())
    }
}

fn failed(what: &str, path: &Path, err: &io::Error) -> Refusal {
    Refusal::new(
        "InternalError",
        format!("could not {what} {}: {err}", path.display()),
    )
    .status(500)
}
