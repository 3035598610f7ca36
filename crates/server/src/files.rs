//! Files of settings.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The largest file that is read.
const LARGEST: u64 = 4 << 20;

/// All of a file, unless it is too large.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        let reason = format!("it has more than {} MB", LARGEST >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

/// Checks a file that is read again and again. One that is not regular, such as a named pipe, could keep its reader waiting indefinitely.
pub(crate) fn check_regular(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_file() {
        return Ok(());
    }
    let reason = "it is not a regular file";
    Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

/// The lines of a file of settings that are not empty, with their numbers. What follows `#` is left out.
pub(crate) fn lines(path: &Path) -> Result<Vec<(usize, String)>, String> {
    let bytes = read(path).map_err(|err| err.to_string())?;
    let text = str::from_utf8(&bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let lines = text.lines().zip(1..).filter_map(|(line, number)| {
        let line = line.split('#').next().unwrap_or_default().trim();
        (!line.is_empty()).then(|| (number, line.to_owned()))
    });
    Ok(lines.collect())
}
