//! What the container is right now.

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, HealthStatusEnum};

use super::Docker;
use super::contract::{PORT, PORT_NAME, SERVICES};
use super::error::Error;

/// The container as the daemon describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its state in the daemon's words, such as `running`, `created` or `exited`; `unknown` if it reports none.
    pub state: String,
    /// The host's port that is bound to LocalStack's, if one is.
    pub port: Option<u16>,
    /// Its health in the daemon's words, such as `starting`, `healthy` or `unhealthy`; none if it reports none.
    pub health: Option<String>,
    /// The image it was created from; empty if the daemon does not say.
    pub image: String,
    /// The services that LocalStack starts, as [`SERVICES`].
    pub services: &'static str,
}

impl Status {
    /// Whether it runs and has been found healthy.
    pub fn is_ready(&self) -> bool {
        self.state == "running" && self.health.as_deref() == Some("healthy")
    }

    /// The host's port: the bound one, else the usual one.
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(PORT)
    }

    fn of(container: &ContainerInspectResponse) -> Self {
        let state = container.state.as_ref();
        Self {
            state: state
                .and_then(|state| state.status)
                .filter(|status| *status != ContainerStateStatusEnum::EMPTY)
                .map_or_else(|| "unknown".to_owned(), |status| status.to_string()),
            port: bound_port(container),
            health: state.and_then(health).map(|health| health.to_string()),
            image: container
                .config
                .as_ref()
                .and_then(|config| config.image.clone())
                .unwrap_or_default(),
            services: SERVICES,
        }
    }
}

impl Docker {
    /// Looks at the container. None if there is none.
    ///
    /// # Errors
    /// [`Error::Lost`] if the daemon does not answer.
    pub async fn status(&self) -> Result<Option<Status>, Error> {
        let container = self.inspect().await.map_err(|err| Error::lost(&err))?;
        Ok(container.as_ref().map(Status::of))
    }
}

/// The health that was found, if any check has an outcome or is under way.
pub(super) fn health(state: &ContainerState) -> Option<HealthStatusEnum> {
    state
        .health
        .as_ref()?
        .status
        .filter(|status| !matches!(status, HealthStatusEnum::EMPTY | HealthStatusEnum::NONE))
}

/// The host's port that leads to the container's. Only a container that runs has one.
pub(super) fn bound_port(container: &ContainerInspectResponse) -> Option<u16> {
    let ports = container.network_settings.as_ref()?.ports.as_ref()?;
    let bindings = ports.get(PORT_NAME)?.as_ref()?;
    bindings
        .iter()
        .find_map(|binding| binding.host_port.as_ref()?.parse().ok())
}
