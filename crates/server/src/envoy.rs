//! Envoy's rate limit protocol: the gRPC port.
//!
//! `protocol` is generated from the files in `proto`. `decide` takes what the descriptors of a request ask for, `answer` is its
//! response.

mod answer;
mod decide;
pub mod protocol;

use std::sync::Arc;

use axum::Router;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::app::App;
use crate::options::Limits;
use protocol::service::rate_limit_service_server::{RateLimitService, RateLimitServiceServer};
use protocol::service::{RateLimitRequest, RateLimitResponse};

/// The routes of the gRPC port: the rate limit service, health, and reflection of both. The reporter is for the end of the server.
pub(crate) async fn router(app: App, limits: &Limits) -> (Router, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<RateLimitServiceServer<Service>>().await;
    let service = RateLimitServiceServer::new(Service { app })
        .max_decoding_message_size(limits.body_bytes)
        .max_encoding_message_size(usize::MAX);
    let mut routes = Routes::new(service).add_service(health);
    // Clients ask for either version. The descriptors are compiled in, and a test reads them.
    let v1 = reflection().build_v1();
    let v1alpha = reflection().build_v1alpha();
    if let (Ok(v1), Ok(v1alpha)) = (v1, v1alpha) {
        routes = routes.add_service(v1).add_service(v1alpha);
    }
    (routes.prepare().into_axum_router(), reporter)
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(protocol::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Says in health checks that the server is about to end.
pub(crate) async fn drain(reporter: &HealthReporter) {
    reporter
        .set_not_serving::<RateLimitServiceServer<Service>>()
        .await;
    reporter.set_service_status("", ServingStatus::NotServing).await;
}

/// The rate limit service.
#[derive(Debug, Clone)]
struct Service {
    app: App,
}

#[tonic::async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let rules = self.app.rules();
        let decided = decide::decide(&self.app, &Arc::clone(&rules), &request.into_inner()).await?;
        Ok(Response::new(decided))
    }
}
