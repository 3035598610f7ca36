//! What starts workers.

use std::future::Future;

/// Starts workers: as processes, or as functions.
pub trait Launcher: Send {
    /// Starts so many workers, which connect to the master by themselves.
    ///
    /// # Errors
    /// Why none or not all could be started. The master tries again later.
    fn launch(&mut self, count: usize) -> impl Future<Output = Result<(), String>> + Send;

    /// Says why workers that were started cannot connect, if that is known.
    ///
    /// # Errors
    /// What went wrong since the last call.
    fn check(&mut self) -> Result<(), String>;
}
