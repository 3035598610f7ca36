//! Lines of a file, of bounded length, with their numbers.

use std::io::{self, BufRead};

/// The longest line, and the longest record of a CSV file, in bytes.
pub(crate) const LONGEST: usize = 1 << 20;

/// Why there is no next line.
#[derive(Debug)]
pub(crate) enum LineError {
    /// The file cannot be read.
    Read(io::Error),
    /// The line is not of the form that is expected.
    Malformed(String),
}

/// Reads lines, without their line breaks.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    from: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(from: R) -> Self {
        Self {
            from,
            line: Vec::new(),
            number: 0,
        }
    }

    /// The number of the line that was read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The line that was read last.
    pub(crate) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Reads the next line; `false` at the end of the file. A line that is too long is skipped to its end, so that the next one
    /// can be read.
    pub(crate) fn advance(&mut self) -> Result<bool, LineError> {
        self.line.clear();
        let (mut any, mut is_too_long) = (false, false);
        loop {
            let chunk = match self.from.fill_buf() {
                Ok(chunk) => chunk,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(LineError::Read(err)),
            };
            if chunk.is_empty() {
                break;
            }
            any = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or(chunk);
            if self.line.len() + part.len() > LONGEST {
                is_too_long = true;
                self.line.clear();
            } else if !is_too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.from.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(false);
        }
        self.number += 1;
        if is_too_long {
            let text = format!("the line is longer than {LONGEST} bytes");
            return Err(LineError::Malformed(text));
        }
        if self.number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
            self.line.drain(..3);
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<Result<String, String>> {
        // Chunks of three bytes, so that line breaks and marks lie on their edges.
        let mut lines = Lines::new(io::BufReader::with_capacity(3, text));
        let mut found = Vec::new();
        loop {
            match lines.advance() {
                Ok(false) => return found,
                Ok(true) => found.push(Ok(String::from_utf8_lossy(lines.line()).into_owned())),
                Err(LineError::Malformed(text)) => found.push(Err(text)),
                Err(LineError::Read(err)) => panic!("{err}"),
            }
        }
    }

    #[test]
    fn line_breaks_and_the_mark_at_the_begin_are_taken_off() {
        let expected = ["a", "b", "", "c"].map(|line| Ok(line.to_owned()));
        assert_eq!(all(b"\xef\xbb\xbfa\r\nb\n\nc"), expected);
        assert_eq!(all(b"a\nb\n\nc\n"), expected);
        assert!(all(b"").is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped() {
        let mut text = b"a\n".to_vec();
        text.resize(text.len() + 3 * LONGEST, b'x');
        text.extend(b"\nb\n");
        let found = all(&text);
        let text = "the line is longer than 1048576 bytes".to_owned();
        assert_eq!(found, [Ok("a".to_owned()), Err(text), Ok("b".to_owned())]);
    }
}
