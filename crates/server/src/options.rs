//! How a server listens, and how much it accepts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::reload::EVERY;
use crate::tls::TlsFiles;

/// How a [`Server`](crate::Server) listens.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// The file of rules that is read again when it changes. The rules at the start are those of the [`App`](crate::App).
    pub rules: Option<PathBuf>,
    /// The file with the SHA-256 of each token that is admitted, one on a line. With it, every request but health checks needs a token.
    pub tokens: Option<PathBuf>,
    /// The certificates of the server and of its clients.
    pub tls: Option<TlsFiles>,
    /// Whether clients on other machines may ask without a token or a certificate.
    pub insecure: bool,
    /// How often files are looked at.
    pub reload_every: Duration,
    /// How often leases that have expired are settled.
    pub sweep_every: Duration,
    /// How much is accepted.
    pub limits: Limits,
    /// How long health checks say that the server is about to end before it stops to accept connections.
    pub drain_delay: Duration,
    /// How long requests in flight and the refunds of the limiter may take at the end.
    pub drain_timeout: Duration,
}

/// Leases are settled so long after they have expired, at the latest.
const SWEEP: Duration = Duration::from_secs(10);

impl Default for Options {
    /// Loopback with the ports 8081 (gRPC) and 8080 (HTTP).
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            grpc: SocketAddr::new(loopback, 8081),
            http: SocketAddr::new(loopback, 8080),
            rules: None,
            tokens: None,
            tls: None,
            insecure: false,
            reload_every: EVERY,
            sweep_every: SWEEP,
            limits: Limits::default(),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// How much a server accepts of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at the same time, on each port. Further ones are closed at once.
    pub connections: usize,
    /// Requests in flight at the same time, on each port. Further ones are refused at once.
    pub requests: usize,
    /// Streams of one HTTP/2 connection at the same time.
    pub streams: u32,
    /// Bytes of the header fields of a request.
    pub header_bytes: u32,
    /// Bytes of the body of a request.
    pub body_bytes: usize,
    /// How long the handshake of a connection, or the header fields of a request may take.
    pub header_timeout: Duration,
    /// How long a request may take.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            requests: 1024,
            streams: 1024,
            header_bytes: 16 << 10,
            body_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
        }
    }
}
