//! `serve`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::Namespaced;
use super::values::parse_duration;

/// Serve the limits to proxies and programs, over HTTP.
///
/// The table must exist. The server ends on SIGTERM and on Ctrl-C, once it has answered what is in flight.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  zae-limiter serve --endpoint-url embedded:./limits
  curl http://127.0.0.1:8080/readyz"
)]
pub(crate) struct Serve {
    /// Address and port of HTTP: health
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) http_listen: SocketAddr,

    /// Fail readiness checks for this time before the server stops to accept connections
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) drain_delay: Duration,

    /// The longest that requests in flight and refunds may take at the end
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub(crate) drain_timeout: Duration,

    /// Which table and namespace.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}
