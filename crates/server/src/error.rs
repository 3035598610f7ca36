//! Why a server does not start.

use std::io;
use std::net::SocketAddr;

/// Why a server does not start.
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
}
