//! How a server listens, and how much it accepts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How a [`Server`](crate::Server) listens.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// How much is accepted.
    pub limits: Limits,
    /// How long health checks say that the server is about to end before it stops to accept connections.
    pub drain_delay: Duration,
    /// How long requests in flight and the refunds of the limiter may take at the end.
    pub drain_timeout: Duration,
}

impl Default for Options {
    /// Loopback with the ports 8081 (gRPC) and 8080 (HTTP).
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            http: SocketAddr::new(loopback, 8080),
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
            streams: 1024,
            header_bytes: 16 << 10,
            body_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
        }
    }
}
