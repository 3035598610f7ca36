//! Starting the container and waiting until LocalStack is ready.

use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{ContainerState, ContainerStateStatusEnum, HealthStatusEnum};
use bollard::query_parameters::{CreateContainerOptions, StartContainerOptions};

use super::contract::{self, CONTAINER, IMAGE, PORT};
use super::error::{self, Error};
use super::status::{bound_port, health};
use super::{Docker, Progress, image};

/// How many lines of its log a container that ended leaves.
const LAST_LINES: u64 = 10;

/// The container to start, and how long to wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpOptions {
    /// The image; [`IMAGE`] by default.
    pub image: String,
    /// The host's port; [`PORT`] by default.
    pub port: u16,
    /// Where LocalStack's state is kept, on the daemon's machine, as an absolute path. `localstack` in the system's
    /// directory for temporary files by default. Docker creates it.
    pub state_dir: PathBuf,
    /// How long to wait before each look at the container; 5 seconds by default.
    pub poll: Duration,
    /// How often to look; 30 times by default.
    pub polls: u32,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            image: IMAGE.to_owned(),
            port: PORT,
            state_dir: std::env::temp_dir().join("localstack"),
            poll: Duration::from_secs(5),
            polls: 30,
        }
    }
}

/// How [`Docker::up`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Up {
    /// The container was running before. Its health was not looked at.
    AlreadyRunning {
        /// The host's port that is bound, which need not be the one that was asked for.
        port: u16,
    },
    /// LocalStack is ready.
    Ready {
        /// The host's port.
        port: u16,
    },
    /// LocalStack did not become ready. The container is left as it is.
    NotReady(NotReady),
}

/// Why LocalStack is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotReady {
    /// Its health check failed too often.
    Unhealthy,
    /// Neither healthy nor unhealthy after the last poll.
    Timeout,
    /// The container ended.
    Exited {
        /// The last ten lines of its log; if it cannot be read, a line that says so.
        last_lines: Vec<String>,
    },
    /// The container is dead: it ended, and Docker could not remove it.
    Dead,
    /// The container was removed.
    Removed,
}

impl Docker {
    /// Starts the container unless it runs, and waits until LocalStack is healthy.
    ///
    /// The image is pulled if the daemon does not have it. A container that exists and does not run is removed first.
    ///
    /// # Errors
    /// [`Error::Image`] and [`Error::StateDir`] before anything is sent; then [`Error::Pull`], [`Error::PortTaken`] and
    /// [`Error::Start`]; [`Error::Lost`] if the daemon fails while LocalStack is waited for.
    ///
    /// # Cancellation
    /// Requests to the daemon continue; the container may stay created or started.
    pub async fn up(
        &self,
        options: &UpOptions,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Up, Error> {
        image::check(&options.image)?;
        let body = contract::body(&options.image, options.port, &options.state_dir)?;
        let failed = |err| Error::start(options.port, &err);

        if let Some(container) = self.inspect().await.map_err(failed)? {
            let status = container.state.as_ref().and_then(|state| state.status);
            if status == Some(ContainerStateStatusEnum::RUNNING) {
                return Ok(Up::AlreadyRunning {
                    port: bound_port(&container).unwrap_or(PORT),
                });
            }
            progress(Progress::RemovingStopped);
            self.remove().await.map_err(failed)?;
        }
        self.ensure_image(&options.image, progress).await?;

        progress(Progress::Starting {
            image: &options.image,
        });
        let named = CreateContainerOptions {
            name: Some(CONTAINER.to_owned()),
            ..CreateContainerOptions::default()
        };
        self.client
            .create_container(Some(named), body)
            .await
            .map_err(failed)?;
        self.client
            .start_container(CONTAINER, None::<StartContainerOptions>)
            .await
            .map_err(failed)?;

        progress(Progress::Waiting);
        self.wait(options, progress).await
    }

    async fn wait(
        &self,
        options: &UpOptions,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Up, Error> {
        for _ in 0..options.polls {
            tokio::time::sleep(options.poll).await;
            progress(Progress::Poll);
            let Some(container) = self.inspect().await.map_err(|err| Error::lost(&err))? else {
                return Ok(Up::NotReady(NotReady::Removed));
            };
            match container.state.as_ref().map_or(Look::Wait, look) {
                Look::Wait => {}
                Look::Ready => {
                    return Ok(Up::Ready {
                        port: bound_port(&container).unwrap_or(options.port),
                    });
                }
                Look::Unhealthy => return Ok(Up::NotReady(NotReady::Unhealthy)),
                Look::Dead => return Ok(Up::NotReady(NotReady::Dead)),
                Look::Exited => {
                    let last_lines = self.last_lines(LAST_LINES).await.unwrap_or_else(|err| {
                        vec![format!("(the log cannot be read: {})", error::detail(&err))]
                    });
                    return Ok(Up::NotReady(NotReady::Exited { last_lines }));
                }
            }
        }
        Ok(Up::NotReady(NotReady::Timeout))
    }
}

/// The state of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Wait,
    Ready,
    Unhealthy,
    Exited,
    Dead,
}

/// The state goes before the health, which an ended container keeps from when it ran.
fn look(state: &ContainerState) -> Look {
    match state.status {
        Some(ContainerStateStatusEnum::EXITED) => return Look::Exited,
        Some(ContainerStateStatusEnum::DEAD) => return Look::Dead,
        _ => {}
    }
    match health(state) {
        Some(HealthStatusEnum::HEALTHY) => Look::Ready,
        Some(HealthStatusEnum::UNHEALTHY) => Look::Unhealthy,
        _ => Look::Wait,
    }
}
