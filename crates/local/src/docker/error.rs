//! What can go wrong between here and the container, and how the daemon's errors are read.

use std::error::Error as _;
use std::path::PathBuf;

use bollard::errors::Error as Api;

/// Why something could not be done with the container.
///
/// The text is one sentence for the user that needs no more than `Error: ` before it. It holds the daemon's own
/// words, so there is no source beneath it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The daemon's address is not one that can be used. Nothing was sent.
    #[error("Could not connect to Docker: '{value}' is not a usable Docker host: {reason}")]
    Host {
        /// The address as it was given.
        value: String,
        /// The problem, and the expected value.
        reason: &'static str,
    },
    /// Nothing answers at the daemon's address, or something that is not Docker.
    #[error("Could not connect to Docker: {detail}")]
    Connect {
        /// The address and what happened there.
        detail: String,
    },
    /// The image's name is not one that a registry could know. Nothing was sent.
    #[error("'{image}' is not the name of an image: {reason}")]
    Image {
        /// The name as it was given.
        image: String,
        /// The problem.
        reason: &'static str,
    },
    /// The directory for LocalStack's state cannot be mounted. Nothing was sent.
    #[error("the state directory '{}' cannot be mounted: {reason}", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// The problem.
        reason: &'static str,
    },
    /// The image is not there and could not be pulled.
    #[error("Failed to pull image {image}: {detail}")]
    Pull {
        /// The image.
        image: String,
        /// The daemon's or the registry's words.
        detail: String,
    },
    /// Something else listens on the host's port. The container that was made for it stays, and goes with the next
    /// [`up`](super::Docker::up).
    #[error("Port {port} is already in use. Stop existing LocalStack or use --port.")]
    PortTaken {
        /// The host's port.
        port: u16,
    },
    /// The container could not be created or started for another reason.
    #[error("Failed to start container: {detail}")]
    Start {
        /// The daemon's words.
        detail: String,
    },
    /// The container could not be stopped or removed.
    #[error("Failed to stop container: {detail}")]
    Stop {
        /// The daemon's words.
        detail: String,
    },
    /// The daemon stopped answering, or refused information about the container.
    #[error("Lost connection to container: {detail}")]
    Lost {
        /// The failure.
        detail: String,
    },
    /// There is no container whose log could be read.
    #[error("LocalStack is not running. Run 'zae-limiter local up' first.")]
    NotRunning,
    /// The container was removed while its log was read.
    #[error("Container stopped.")]
    Removed,
}

impl Error {
    pub(super) fn pull(image: &str, err: &Api) -> Self {
        Self::Pull {
            image: image.to_owned(),
            detail: detail(err),
        }
    }

    /// Of creating and starting a container that is to have the host's port.
    pub(super) fn start(port: u16, err: &Api) -> Self {
        let detail = detail(err);
        if says_port_taken(&detail) {
            Self::PortTaken { port }
        } else {
            Self::Start { detail }
        }
    }

    pub(super) fn stop(err: &Api) -> Self {
        Self::Stop { detail: detail(err) }
    }

    pub(super) fn lost(err: &Api) -> Self {
        Self::Lost { detail: detail(err) }
    }
}

/// Whether the daemon answered with the status.
pub(super) fn is_status(err: &Api, status: u16) -> bool {
    matches!(err, Api::DockerResponseServerError { status_code, .. } if *status_code == status)
}

/// Whether the daemon answered with the status and the words.
pub(super) fn says(err: &Api, status: u16, words: &str) -> bool {
    matches!(err, Api::DockerResponseServerError { status_code, message }
        if *status_code == status && message.contains(words))
}

/// The message of the daemon if it answered, else of the innermost cause.
pub(super) fn detail(err: &Api) -> String {
    match err {
        Api::DockerResponseServerError { status_code, message } if message.trim().is_empty() => {
            format!("the answer was HTTP status {status_code}")
        }
        Api::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Api::DockerStreamError { error } => error.trim().to_owned(),
        Api::SocketNotFoundError(_) => "there is no such socket".to_owned(),
        Api::RequestTimeoutError => "no answer in time".to_owned(),
        other => {
            let mut text = other.to_string();
            let mut cause = other.source();
            while let Some(inner) = cause {
                text = inner.to_string();
                cause = inner.source();
            }
            text
        }
    }
}

/// Whether the message is about a port that another process uses.
///
/// There is no code for it, and the words differ between Docker's own allocation, the kernel of the daemon's machine
/// (Linux, macOS and Podman), and Windows.
fn says_port_taken(detail: &str) -> bool {
    let detail = detail.to_ascii_lowercase();
    [
        "port is already allocated",
        "address already in use",
        "only one usage of each socket address",
    ]
    .iter()
    .any(|words| detail.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(message: &str) -> Api {
        Api::DockerResponseServerError {
            status_code: 500,
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_taken_port_is_recognised_in_every_daemons_words() {
        for words in [
            "driver failed programming external connectivity on endpoint zae-limiter-localstack (71c): Bind for \
             0.0.0.0:4566 failed: port is already allocated",
            "failed to bind host port 0.0.0.0:4566/tcp: address already in use",
            "Ports are not available: exposing port TCP 0.0.0.0:4566 -> 0.0.0.0:0: listen tcp 0.0.0.0:4566: bind: \
             Only one usage of each socket address (protocol/network address/port) is normally permitted.",
            "rootlessport listen tcp 0.0.0.0:4566: bind: Address already in use",
        ] {
            assert_eq!(
                Error::start(4566, &answered(words)),
                Error::PortTaken { port: 4566 },
                "{words}"
            );
        }
        let other = "Ports are not available: exposing port TCP 0.0.0.0:80: bind: permission denied";
        assert_eq!(
            Error::start(80, &answered(other)),
            Error::Start { detail: other.into() }
        );
    }

    #[test]
    fn details_are_never_empty() {
        assert_eq!(detail(&answered("  ")), "the answer was HTTP status 500");
        assert_eq!(detail(&answered("no\n")), "no");
        let io = std::io::Error::other("broken");
        assert_eq!(detail(&Api::IOError { err: io }), "broken");
    }
}
