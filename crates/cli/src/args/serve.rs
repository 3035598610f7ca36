//! `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Namespaced;
use super::values::{parse_duration, parse_positive_duration, whole};

/// Serve the limits to Envoy and other proxies, and to programs in any language, over gRPC and HTTP.
///
/// A proxy asks with Envoy's rate limit protocol (envoy.service.ratelimit.v3). The file of rules says what a request takes;
/// it is read again when it changes, and on SIGHUP. A program takes tokens with POST /v1/acquire; /v1/openapi.json describes
/// the HTTP API. The table must exist, and has the limits.
///
/// On loopback addresses every client may ask. On other addresses clients need a token or a certificate.
///
/// The server ends on SIGTERM and on Ctrl-C, once it has answered what is in flight. A second signal ends it at once.
#[derive(Debug, Clone, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  # With a table in a directory, without AWS
  zae-limiter serve --config rules.yaml --endpoint-url embedded:./limits

  # Is the file right?
  zae-limiter serve --check rules.yaml

  # For other machines, with tokens and TLS
  zae-limiter serve --config rules.yaml --grpc-listen 0.0.0.0:8081 --token-file tokens --tls-cert cert.pem --tls-key key.pem"
)]
pub(crate) struct Serve {
    /// File of rules, in YAML
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present_any = ["check", "schema"],
        conflicts_with_all = ["check", "schema"]
    )]
    pub(crate) config: Option<PathBuf>,

    /// Only check a file of rules, without a table
    #[arg(long, value_name = "FILE", conflicts_with = "schema")]
    pub(crate) check: Option<PathBuf>,

    /// Only print the JSON Schema of files of rules
    #[arg(long)]
    pub(crate) schema: bool,

    /// Address and port of gRPC, the port for Envoy; port 0 selects a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8081")]
    pub(crate) grpc_listen: SocketAddr,

    /// Address and port of HTTP: the API, the page, health, metrics and the rules in force
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) http_listen: SocketAddr,

    /// Admit only clients with a bearer token; the file has the SHA-256 of one on each line, and is read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Keys of leases, one on each line; the first signs, all are accepted. Without, only this process can end its leases
    #[arg(long, value_name = "FILE")]
    pub(crate) lease_keys: Option<PathBuf>,

    /// Certificate of the server, in PEM, with those between it and its authority; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Admit only clients with a certificate of these authorities, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) client_ca: Option<PathBuf>,

    /// Let clients on other machines ask without a token or a certificate
    #[arg(long)]
    pub(crate) insecure: bool,

    /// The most requests in flight on each port; further ones are refused at once
    #[arg(long, value_name = "COUNT", default_value = "1024", value_parser = whole::<u32>(1..=1_000_000))]
    pub(crate) max_requests: u32,

    /// The most connections on each port; further ones are closed at once
    #[arg(long, value_name = "COUNT", default_value = "4096", value_parser = whole::<u32>(1..=1_000_000))]
    pub(crate) max_connections: u32,

    /// The most requests in flight on a connection of HTTP/2
    #[arg(long, value_name = "COUNT", default_value = "1024", value_parser = whole::<u32>(1..=1_000_000))]
    pub(crate) max_streams: u32,

    /// The most bytes of the header fields of a request
    #[arg(long, value_name = "BYTES", default_value = "16384", value_parser = whole::<u32>(8192..=1_048_576))]
    pub(crate) max_header_bytes: u32,

    /// The most bytes of the body of a request
    #[arg(long, value_name = "BYTES", default_value = "65536", value_parser = whole::<u32>(1024..=16_777_216))]
    pub(crate) max_body_bytes: u32,

    /// The longest that the handshake of a connection or the header fields of a request may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_positive_duration)]
    pub(crate) header_timeout: Duration,

    /// The longest that a request may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_positive_duration)]
    pub(crate) request_timeout: Duration,

    /// At the end, fail readiness checks for this time before the server stops to accept connections
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) drain_delay: Duration,

    /// The longest that requests in flight and refunds may take at the end
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_positive_duration)]
    pub(crate) drain_timeout: Duration,

    /// Form of the log on standard error; the variable `RUST_LOG` says what is logged
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// Send traces to this collector of OpenTelemetry, such as `http://localhost:4318/v1/traces`
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "URL")]
    pub(crate) otlp: Option<String>,

    /// Which table and namespace.
    #[command(flatten)]
    pub(crate) at: Namespaced,
}

/// The form of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// A JSON object on each line
    Json,
}
