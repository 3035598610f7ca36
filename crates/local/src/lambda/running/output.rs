//! What a function writes: line by line to its log, and the last of it for who invokes it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{mpsc, oneshot};

use crate::clock::now_ms;
use crate::lambda::services::Services;
use crate::logs::LogLine;

/// How much of the log an invocation's answer may have.
const TAIL: usize = 4096;

/// How long a line may be before it is cut in two, which is the limit of a log.
const LONGEST_LINE: usize = 256 * 1024;

/// The log of an instance.
#[derive(Debug)]
pub(crate) struct Output {
    services: Arc<dyn Services>,
    region: String,
    group: String,
    stream: String,
    tail: Mutex<Tail>,
}

#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    size: usize,
}

impl Output {
    pub(crate) fn new(services: Arc<dyn Services>, region: &str, group: &str, stream: &str) -> Self {
        Self {
            services,
            region: region.to_owned(),
            group: group.to_owned(),
            stream: stream.to_owned(),
            tail: Mutex::default(),
        }
    }

    /// Appends lines.
    pub(crate) fn write(&self, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        let mut tail = self.tail();
        for line in &lines {
            tail.push(line);
        }
        drop(tail);
        let at_ms = now_ms();
        let lines: Vec<LogLine> = lines
            .into_iter()
            .map(|message| LogLine { at_ms, message })
            .collect();
        if let Err(err) = self.services.log(&self.region, &self.group, &self.stream, &lines) {
            tracing::warn!(group = self.group, error = %err, "a function's output could not be logged");
        }
    }

    /// Begins a new tail, as an invocation does.
    pub(crate) fn begin(&self) {
        *self.tail() = Tail::default();
    }

    /// The last of what was written since.
    pub(crate) fn last(&self) -> String {
        self.tail().text()
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    fn push(&mut self, line: &str) {
        // What could not be shown need not be kept.
        let mut start = line.len().saturating_sub(TAIL);
        while !line.is_char_boundary(start) {
            start += 1;
        }
        self.size += line.len() - start + 1;
        self.lines.push_back(line[start..].to_owned());
        while self.size > 2 * TAIL
            && let Some(first) = self.lines.pop_front()
        {
            self.size -= first.len() + 1;
        }
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(self.size);
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        let mut start = text.len().saturating_sub(TAIL);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text.split_off(start)
    }
}

/// Bytes as they come, and the lines that they make.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes bytes; gives the lines that are complete.
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in part.chunks(LONGEST_LINE) {
                if self.rest.len() + piece.len() > LONGEST_LINE + 1 {
                    lines.extend(self.flush());
                }
                self.rest.extend_from_slice(piece);
            }
            if self.rest.ends_with(b"\n") {
                self.rest.pop();
                if self.rest.ends_with(b"\r") {
                    self.rest.pop();
                }
                lines.push(self.take());
            }
        }
        lines
    }

    /// The part of a line that has not ended.
    fn flush(&mut self) -> Option<String> {
        (!self.rest.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.rest).into_owned();
        self.rest.clear();
        line
    }
}

/// A request for a notification once all output so far is in the log.
pub(crate) type Drained = oneshot::Sender<()>;

/// Copies a process's streams to its log until both end.
pub(crate) async fn follow(
    mut stdout: impl AsyncRead + Unpin,
    mut stderr: impl AsyncRead + Unpin,
    output: Arc<Output>,
    mut drains: mpsc::Receiver<Drained>,
) {
    let (mut out, mut err) = (Lines::default(), Lines::default());
    let (mut out_buffer, mut err_buffer) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        tokio::select! {
            // A drain is answered only when neither stream has anything to read.
            biased;
            read = stdout.read(&mut out_buffer), if out_open => {
                out_open = copied(&read, &out_buffer, &mut out, &output);
            }
            read = stderr.read(&mut err_buffer), if err_open => {
                err_open = copied(&read, &err_buffer, &mut err, &output);
            }
            Some(drained) = drains.recv() => {
                output.write(out.flush().into_iter().chain(err.flush()).collect());
                // Who asked may have gone.
                let _ = drained.send(());
            }
        }
    }
}

/// Takes what was read; returns whether there may be more.
fn copied(read: &std::io::Result<usize>, buffer: &[u8], lines: &mut Lines, output: &Output) -> bool {
    match read {
        Ok(count) if *count > 0 => {
            output.write(lines.push(&buffer[..*count]));
            true
        }
        _ => {
            output.write(lines.flush().into_iter().collect());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_lines() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\nb\r\n\nc"), ["a", "b", ""]);
        assert_eq!(lines.push(b"d\n"), ["cd"]);
        assert_eq!(lines.push(b"\xff\n"), ["\u{fffd}"]);
        assert_eq!(lines.push(b"rest"), Vec::<String>::new());
        assert_eq!(lines.flush().as_deref(), Some("rest"));
        assert_eq!(lines.flush(), None);
        let long = lines.push(&vec![b'x'; 2 * LONGEST_LINE + 7]);
        assert!(long.iter().all(|line| line.len() <= LONGEST_LINE + 1));
        let rest = lines.flush().map_or(0, |line| line.len());
        assert_eq!(
            long.iter().map(String::len).sum::<usize>() + rest,
            2 * LONGEST_LINE + 7
        );
    }

    #[test]
    fn the_tail_is_the_last_of_it() {
        let mut tail = Tail::default();
        assert_eq!(tail.text(), "");
        for number in 0..2_000 {
            tail.push(&format!("line {number}"));
        }
        let text = tail.text();
        assert_eq!(text.len(), TAIL);
        assert!(text.ends_with("line 1998\nline 1999\n"));
        tail.push(&"ü".repeat(TAIL));
        assert!(tail.text().len() <= TAIL);
    }
}
