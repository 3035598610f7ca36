//! A server without a limiter, for `scripts/server-load` to compare `zae-limiter serve` with: tonic and axum answer every request at once.

#![expect(clippy::print_stderr, reason = "it says when it listens")]

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use clap::Parser;
use http::header::CONTENT_TYPE;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use zae_limiter_server::envoy::protocol::service::rate_limit_response::{Code, DescriptorStatus};
use zae_limiter_server::envoy::protocol::service::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use zae_limiter_server::envoy::protocol::service::{RateLimitRequest, RateLimitResponse};

/// Answers every request at once, without a limiter.
#[derive(Debug, Parser)]
struct Options {
    /// Where gRPC is served.
    #[arg(long, default_value = "127.0.0.1:18081")]
    grpc_listen: SocketAddr,
    /// Where HTTP is served.
    #[arg(long, default_value = "127.0.0.1:18080")]
    http_listen: SocketAddr,
}

/// The answer to every request over HTTP, of the form of those to an acquire.
const BODY: &str = r#"{"lease":"none","expires_at_ms":0,"limits":[],"degraded":false,"bypassed":false}"#;

/// Admits everything.
#[derive(Debug)]
struct Constant;

#[tonic::async_trait]
impl RateLimitService for Constant {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let status = DescriptorStatus {
            code: Code::Ok.into(),
            ..DescriptorStatus::default()
        };
        Ok(Response::new(RateLimitResponse {
            overall_code: Code::Ok.into(),
            statuses: vec![status; request.get_ref().descriptors.len()],
            ..RateLimitResponse::default()
        }))
    }
}

/// Reads the body, as every handler does, and answers.
async fn constant(_: Bytes) -> ([(http::HeaderName, &'static str); 1], &'static str) {
    ([(CONTENT_TYPE, "application/json")], BODY)
}

async fn serve(address: SocketAddr, router: Router) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let listener = listener.tap_io(|stream| {
        // As the server does. A failure costs time only.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let service = RateLimitServiceServer::new(Constant);
    let grpc = Routes::new(service).prepare().into_axum_router();
    let http = Router::new()
        .route("/v1/acquire", post(constant))
        .route("/v1/leases/commit", post(constant));
    eprintln!("gRPC on {}, HTTP on {}", options.grpc_listen, options.http_listen);
    tokio::try_join!(serve(options.grpc_listen, grpc), serve(options.http_listen, http),)?;
    Ok(())
}
