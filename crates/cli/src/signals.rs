//! Signals that this program receives: which of them end it, and which go to a command that it runs.
//!
//! A signal that was ignored when the program started stays ignored, by the program and by the command: that is how
//! `nohup` and the background jobs of shells work.

#[cfg(not(unix))]
mod other;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub(crate) use other::Signals;
#[cfg(unix)]
pub(crate) use unix::Signals;

use crate::exit::Exit;
use crate::failure::Failure;

/// The number of the signal that Ctrl-C sends.
const SIGINT: u8 = 2;

/// Which signals are caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Catch {
    /// Signals that ask a program to end. If the main thread does not react within a second, the process ends anyway.
    Ends,
    /// Every signal that would kill the process, so that tokens can be given back.
    Kills,
    /// These, and the others that are forwarded to a command.
    Commands,
}

/// A signal that asks this program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Its number, and its name.
    signal: Option<(u8, &'static str)>,
}

impl Ending {
    /// Ctrl-C.
    const INTERRUPT: Self = Self { signal: None };

    pub(crate) fn is_interrupt(self) -> bool {
        self == Self::INTERRUPT
    }

    /// How the program ends: with the Python tool's word for Ctrl-C, and with the exit code by which shells tell the signal.
    pub(crate) fn into_failure(self) -> Failure {
        match self.signal {
            None => Failure::bare("Aborted!", Exit::Signal(SIGINT)),
            Some((number, name)) => Failure::bare(format!("Aborted by {name}"), Exit::Signal(number)),
        }
    }
}
