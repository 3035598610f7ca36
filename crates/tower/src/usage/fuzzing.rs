//! The readers of usage, for the targets in `fuzz/`.

use super::json::{Path, Reader};
use super::sse;

/// The numbers at paths of a JSON text that arrives in pieces, and whether the text is whole.
pub fn numbers(paths: &[&str], pieces: &[&[u8]]) -> (Vec<Option<u64>>, bool) {
    let paths: Vec<Path> = paths.iter().map(|path| Path::new(path)).collect();
    let mut reader = Reader::new(paths.len());
    let mut found = vec![None; paths.len()];
    for piece in pieces {
        reader.read(&paths, piece, &mut |path, number| found[path] = Some(number));
    }
    (found, reader.is_whole())
}

/// The numbers at paths of the events of a stream that arrives in pieces.
pub fn numbers_of_events(paths: &[&str], pieces: &[&[u8]]) -> Vec<Option<u64>> {
    let paths: Vec<Path> = paths.iter().map(|path| Path::new(path)).collect();
    let mut events = sse::Reader::new();
    let mut text = Reader::new(paths.len());
    let mut found = vec![None; paths.len()];
    for piece in pieces {
        events.read(piece, &mut |part| match part {
            sse::Part::Data(data) => {
                text.read(&paths, data, &mut |path, number| found[path] = Some(number));
            }
            sse::Part::End => text.restart(),
        });
    }
    found
}
