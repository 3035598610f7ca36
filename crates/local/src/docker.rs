//! LocalStack in Docker: exactly one container, shared by all users of the daemon.
//!
//! [`Docker::connect`] finds the daemon. Then [`up`](Docker::up), [`down`](Docker::down), [`status`](Docker::status)
//! and [`logs`](Docker::logs) are the four things to do with the container. They report their steps as
//! [`Progress`]. The container itself is described in [`contract`].
//!
//! This module talks to the daemon's API. It needs no `docker` program, knows nothing of what LocalStack serves, and
//! prints nothing; the texts of [`Error`] are made to follow `Error: `.

mod address;
pub mod contract;
mod down;
mod error;
mod image;
mod logs;
mod status;
mod text;
mod up;

use std::time::Duration;

use bollard::API_DEFAULT_VERSION;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, RemoveContainerOptions};

pub use down::Down;
pub use error::Error;
pub use status::Status;
pub use text::LossyText;
pub use up::{NotReady, Up, UpOptions};

use address::Address;

/// How long the daemon may take to say that it is there.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// How long it may take until an answer begins. Stopping alone may take the ten seconds of grace.
const ANSWER_SECONDS: u64 = 120;

/// A Docker daemon that answered.
#[derive(Debug, Clone)]
pub struct Docker {
    client: bollard::Docker,
}

impl Docker {
    /// Finds the daemon and waits for its first answer.
    ///
    /// The host is what `DOCKER_HOST` may say: `unix:///path`, `tcp://host:port` or `http://host:port`, the latter
    /// two without TLS. None, or an empty one, is Docker's own socket `/var/run/docker.sock`.
    ///
    /// # Errors
    /// [`Error::Host`] if the host has another form; [`Error::Connect`] if nothing answers there, or something else
    /// than Docker.
    pub async fn connect(host: Option<&str>) -> Result<Self, Error> {
        let address = Address::parse(host)?;
        let failed = |err: bollard::errors::Error| Error::Connect {
            detail: format!("{address}: {}", error::detail(&err)),
        };
        let client = match &address {
            #[cfg(unix)]
            Address::Unix(path) => {
                bollard::Docker::connect_with_unix(path, ANSWER_SECONDS, API_DEFAULT_VERSION)
            }
            Address::Http(authority) => {
                bollard::Docker::connect_with_http(authority, ANSWER_SECONDS, API_DEFAULT_VERSION)
            }
        }
        .map_err(failed)?;
        client
            .clone()
            .with_timeout(FIRST_ANSWER)
            .ping()
            .await
            .map_err(failed)?;
        Ok(Self { client })
    }

    /// The container as the daemon describes it; nothing if there is none.
    async fn inspect(&self) -> Result<Option<ContainerInspectResponse>, bollard::errors::Error> {
        let answer = self
            .client
            .inspect_container(contract::CONTAINER, None::<InspectContainerOptions>)
            .await;
        match answer {
            Ok(container) => Ok(Some(container)),
            Err(err) if error::is_status(&err, 404) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Removes the container, in whatever state it is. That it is gone already, or about to be, is as good.
    async fn remove(&self) -> Result<(), bollard::errors::Error> {
        let options = RemoveContainerOptions {
            force: true,
            ..RemoveContainerOptions::default()
        };
        let answer = self
            .client
            .remove_container(contract::CONTAINER, Some(options))
            .await;
        match answer {
            Err(err) if error::is_status(&err, 404) || error::says(&err, 409, "already in progress") => {
                Ok(())
            }
            other => other,
        }
    }
}

/// The progress of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A container that does not run blocks the name, and is being removed.
    RemovingStopped,
    /// The image is not there, and is being pulled.
    Pulling {
        /// The image.
        image: &'a str,
    },
    /// The image has been pulled.
    Pulled {
        /// The image.
        image: &'a str,
    },
    /// The container is being created and started.
    Starting {
        /// The image.
        image: &'a str,
    },
    /// The container has been started, and its health is awaited.
    Waiting,
    /// One poll's time has passed; the container is about to be looked at.
    Poll,
    /// The container is being stopped.
    Stopping,
}
