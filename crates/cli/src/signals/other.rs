//! Where there are no signals but Ctrl-C.

use std::io;
use std::process::ExitStatus;

use tokio::process::Command;

use super::{Catch, Ending};
use crate::failure::Failure;

/// The signals that the process receives while this exists.
pub(crate) struct Signals;

impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
    pub(crate) fn catch(_which: Catch) -> Result<Self, Failure> {
        Ok(Self)
    }

    /// The next request to end.
    pub(crate) async fn ending(&mut self) -> Ending {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without the handler the system ends the program.
            std::future::pending::<()>().await;
        }
        Ending::INTERRUPT
    }

    /// The request to end that has come already, if one has.
    #[expect(clippy::unused_async, reason = "elsewhere it waits")]
    pub(crate) async fn pending(&mut self) -> Option<Ending> {
        None
    }

    /// From now on nothing is lost if the process ends.
    pub(crate) fn let_go(&self) {}

    /// Runs a command to its end, which Ctrl-C reaches without this program.
    pub(crate) async fn run(&mut self, command: &mut Command) -> io::Result<ExitStatus> {
        let mut child = command.spawn()?;
        loop {
            tokio::select! {
                ended = child.wait() => return ended,
                _ = tokio::signal::ctrl_c() => {}
            }
        }
    }
}
