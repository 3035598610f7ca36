//! Manifests in files.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zae_limiter_core::manifest::Manifest;

use crate::args::limits::STANDARD_INPUT;
use crate::failure::{Failure, of_file};

/// The largest file that is read, in bytes. The record of managed levels fits 400 KB, and is shorter than its manifest.
const LARGEST: u64 = 16 << 20;

/// Reads a manifest. The failure lists all problems, each with its place.
pub(in crate::commands) fn read(path: &Path) -> Result<Manifest, Failure> {
    let text = content(path).map_err(|err| Failure::error(format!("Cannot read {}: {err}", shown(path))))?;
    Manifest::from_yaml(&text).map_err(|problems| of_file(&shown(path), &problems))
}

/// The name of a file in messages.
pub(in crate::commands) fn shown(path: &Path) -> Cow<'_, str> {
    if path == Path::new(STANDARD_INPUT) {
        "<stdin>".into()
    } else {
        path.to_string_lossy()
    }
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    if path == Path::new(STANDARD_INPUT) {
        bounded(io::stdin().lock())
    } else {
        bounded(File::open(path)?)
    }
}

/// All of it, unless it does not end.
fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        let why = format!("it has more than {} MB", LARGEST >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}
