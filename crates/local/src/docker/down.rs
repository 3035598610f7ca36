//! Stopping the container and taking it away.

use bollard::query_parameters::StopContainerOptions;

use super::contract::{CONTAINER, GRACE_SECONDS};
use super::error::{self, Error};
use super::{Docker, Progress};

/// How [`Docker::down`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// The container is gone. Its state directory stays.
    Stopped,
    /// There was none.
    NotRunning,
}

impl Docker {
    /// Stops the container, with ten seconds to end by itself, and removes it. If another process did so meanwhile,
    /// that counts as success.
    ///
    /// # Errors
    /// [`Error::Stop`] with the daemon's words.
    ///
    /// # Cancellation
    /// The daemon finishes what it was asked; the container may be left stopped.
    pub async fn down(&self, progress: &mut (dyn FnMut(Progress<'_>) + Send)) -> Result<Down, Error> {
        let found = self.inspect().await.map_err(|err| Error::stop(&err))?;
        if found.is_none() {
            return Ok(Down::NotRunning);
        }
        progress(Progress::Stopping);
        let options = StopContainerOptions {
            t: Some(GRACE_SECONDS),
            ..StopContainerOptions::default()
        };
        match self.client.stop_container(CONTAINER, Some(options)).await {
            Err(err) if !error::is_status(&err, 404) => return Err(Error::stop(&err)),
            _ => {}
        }
        self.remove().await.map_err(|err| Error::stop(&err))?;
        Ok(Down::Stopped)
    }
}
