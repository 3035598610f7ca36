//! Exit codes, in one place.

use std::process::ExitCode;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; also when there was nothing to do, or the user said no to it.
    Success,
    /// Failed: things that are not there, a bad file, a table that does not fit.
    Failure,
    /// A wrong command line: options that do not go together, values that cannot be used.
    Usage,
    /// The table, or what leads to it, failed or refused: throttling, timeouts, credentials, permissions.
    Aws,
    /// There are changes, if the exit code is to show that.
    Changes,
    /// There is no such stack.
    NoStack,
    /// A limit refused the request; it may succeed later. The number is that of `EX_TEMPFAIL` in sysexits.h.
    TryLater,
    /// A command that was run ended with this code.
    Command(u8),
    /// A signal of this number ended the program.
    Signal(u8),
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage | Self::Changes => 2,
            Self::Aws => 3,
            Self::NoStack => 4,
            Self::TryLater => 75,
            Self::Command(code) => code,
            // As in shells.
            Self::Signal(number) => 128_u8.saturating_add(number),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
