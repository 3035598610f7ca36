//! Why a server does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use zae_limiter_core::document::Problems;

/// Why a server does not start, or a file is not put in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The port cannot be used.
    #[error("cannot listen on {address} ({option}): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The option that names it.
        option: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Other machines could ask without showing who they are.
    #[error(
        "{option} {address} is not a loopback address, and clients would not be authenticated: give --token-file, or --client-ca with \
         --tls-cert and --tls-key, or --insecure if the network admits only clients that may ask"
    )]
    Unprotected {
        /// The address.
        address: SocketAddr,
        /// The option that names it.
        option: &'static str,
    },
    /// A file cannot be read or used.
    #[error("cannot use {path} ({option}): {reason}", path = path.display())]
    File {
        /// The option that names it, or what the file is.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Spans cannot be sent to a collector.
    #[cfg(feature = "otlp")]
    #[error("cannot send traces to {url} (--otlp): {reason}")]
    Traces {
        /// The collector.
        url: String,
        /// Why.
        reason: String,
    },
    /// The rules are wrong.
    #[error("{path} is not valid: {all}", path = path.display(), all = problems.to_string().replace('\n', "; "))]
    Rules {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        problems: Problems,
    },
}
