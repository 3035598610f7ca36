//! The log of the endpoint that runs in the background.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use zae_limiter_local::state::{Running, State};

use super::{state, unusable};
use crate::args::local::Logs;
use crate::commands::Outcome;
use crate::exit::Exit;
use crate::failure::Failure;

/// How much is read at once.
const PIECE: usize = 64 * 1024;

/// How often to look whether it has written more.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn logs(running: Option<&Running>, args: &Logs) -> Outcome {
    let state = state()?;
    let path = state.log();
    let Some(running) = running else {
        let past = if path.exists() {
            format!(" Its last log is in {}.", path.display())
        } else {
            String::new()
        };
        return Err(Failure::error(format!(
            "The local endpoint is not running. Run 'zae-limiter local up' first.{past}"
        )));
    };
    if !running.logs {
        return Err(Failure::error(format!(
            "The local endpoint runs in the foreground of process {}, and its log is there.",
            running.pid
        )));
    }
    let mut file = File::open(&path).map_err(|err| unreadable(&path, &err))?;
    let begin = last_lines(&mut file, args.tail).map_err(|err| unreadable(&path, &err))?;
    file.seek(SeekFrom::Start(begin))
        .map_err(|err| unreadable(&path, &err))?;
    show(&mut file, &path)?;
    if args.follow {
        follow(&state, &mut file, &path).await?;
    }
    Ok(Exit::Success)
}

/// Shows what is added to the log, until the endpoint ends or the log is not read any more.
async fn follow(state: &State, log: &mut File, path: &Path) -> Result<(), Failure> {
    loop {
        // Looked at before reading, so that the last words are not missed.
        let runs = state.is_held().map_err(|err| unusable(state, &err))?;
        // It continues where it stopped.
        show(log, path)?;
        if !runs {
            crate::say("Local endpoint stopped.");
            return Ok(());
        }
        if crate::out::is_closed() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn unreadable(log: &Path, err: &io::Error) -> Failure {
    Failure::error(format!("The log {} cannot be read: {err}", log.display()))
}

/// Prints what comes next in the log, to its end.
fn show(log: &mut File, path: &Path) -> Result<(), Failure> {
    let mut piece = vec![0; PIECE];
    let mut out = io::stdout().lock();
    loop {
        match log.read(&mut piece) {
            Ok(0) => return Ok(out.flush()?),
            Ok(count) => out.write_all(&piece[..count])?,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(unreadable(path, &err)),
        }
    }
}

/// Where the last lines of a text begin. It is read from its end, and no further than that.
fn last_lines(text: &mut (impl Read + Seek), lines: u32) -> io::Result<u64> {
    let end = text.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut left = lines;
    let mut piece = vec![0; PIECE];
    let mut place = end;
    while place > 0 {
        let begin = place.saturating_sub(PIECE as u64);
        let piece = &mut piece[..(place - begin) as usize];
        text.seek(SeekFrom::Start(begin))?;
        text.read_exact(piece)?;
        for (index, byte) in piece.iter().enumerate().rev() {
            let after = begin + index as u64 + 1;
            // The last line's end begins no other.
            if *byte == b'\n' && after != end {
                left -= 1;
                if left == 0 {
                    return Ok(after);
                }
            }
        }
        place = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::{PIECE, last_lines};

    #[test]
    fn the_end_of_a_log() {
        let last = |log: &[u8], lines| {
            let begin = last_lines(&mut Cursor::new(log), lines).unwrap();
            log[begin as usize..].to_vec()
        };
        let log = b"one\ntwo\nthree\n";
        assert_eq!(last(log, 0), b"");
        assert_eq!(last(log, 1), b"three\n");
        assert_eq!(last(log, 2), b"two\nthree\n");
        assert_eq!(last(log, 3), log);
        assert_eq!(last(log, 9), log);
        assert_eq!(last(b"", 3), b"");
        assert_eq!(last(b"unfinished", 1), b"unfinished");
        assert_eq!(last(b"one\nunfinished", 1), b"unfinished");
        // Lines that lie across the pieces that are read.
        let wide = [
            vec![b'x'; PIECE - 1],
            vec![b'\n'],
            vec![b'y'; 2 * PIECE],
            vec![b'\n'],
        ]
        .concat();
        assert_eq!(last(&wide, 1), &wide[PIECE..]);
        assert_eq!(last(&wide, 2), wide);
    }

    #[test]
    fn a_long_log_is_not_read_whole() {
        let mut log = Ends(
            Cursor::new([b"line\n".repeat(PIECE), b"last\n".to_vec()].concat()),
            0,
        );
        let begin = last_lines(&mut log, 1).unwrap();
        assert_eq!(begin, 5 * PIECE as u64);
        assert!(log.1 <= PIECE, "{} bytes", log.1);
    }

    /// Counts what is read of it.
    struct Ends(Cursor<Vec<u8>>, usize);

    impl std::io::Read for Ends {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.read(to)?;
            self.1 += count;
            Ok(count)
        }
    }

    impl std::io::Seek for Ends {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
}
