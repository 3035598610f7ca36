//! The gateway: layers that limit, and a handler that passes requests on.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::{Authority, Scheme};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tracing::Instrument as _;
use tracing::field::Empty;
use zae_limiter::{InvalidInput, RateLimiter};
use zae_limiter_tower::estimate::Estimate;
use zae_limiter_tower::{EstimateLayer, Fields, RateLimitLayer, Rejection, Rules, key, usage};

use crate::setup::MODELS;

/// The gateway in front of the model at `upstream`, such as `127.0.0.1:9000`.
///
/// # Errors
/// [`InvalidInput`] if the rules are malformed.
pub fn app(limiter: RateLimiter, upstream: Authority) -> Result<Router, InvalidInput> {
    // The key is whose request it is, and the model is what it uses.
    let rules = Rules::new(key::bearer(), model_of)
        .consume("rpm", 1)
        .consume_estimate("tpm");
    let limits = RateLimitLayer::new(limiter, rules)?
        .correct("tpm", usage::openai())?
        .fields([Fields::Ietf, Fields::openai("rpm", "tpm")])
        .estimated(EstimateLayer::new().max_body(1 << 20));
    let upstream = Upstream {
        client: Client::builder(TokioExecutor::new()).build_http(),
        authority: upstream,
    };
    Ok(Router::new()
        .route("/v1/chat/completions", post(pass_on))
        .route_layer(limits)
        .route_layer(from_fn(traced))
        .route("/healthz", get(async || "ok"))
        .with_state(upstream))
}

/// A span around a request, in which the limiter's spans are. It has nothing of the body and no key.
async fn traced(request: Request, next: Next) -> Response {
    let span = tracing::info_span!("request", method = %request.method(), path = request.uri().path(), status = Empty);
    let response = next.run(request).instrument(span.clone()).await;
    span.record("status", response.status().as_u16());
    response
}

/// The model that a request asks for. Others than the known ones are not served, and have no buckets.
fn model_of(request: &Parts) -> Result<String, Rejection> {
    let estimate = request.extensions.get::<Estimate>();
    let model = estimate.and_then(|estimate| estimate.model.as_deref());
    match model {
        Some(model) if MODELS.contains(&model) => Ok(model.to_owned()),
        Some(_) => Err(Rejection::new(
            StatusCode::NOT_FOUND,
            "model_not_found",
            "the model does not exist",
        )),
        None => Err(Rejection::bad_request("the request names no model")),
    }
}

/// How long the model may take to begin its answer.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);

/// Where requests are passed on to.
#[derive(Debug, Clone)]
struct Upstream {
    client: Client<HttpConnector, Body>,
    authority: Authority,
}

/// Passes a request on, and its response back as it comes.
async fn pass_on(State(upstream): State<Upstream>, mut request: Request) -> Response {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(upstream.authority);
    let Ok(uri) = Uri::from_parts(parts) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    // Keys of clients are not those of the model, and it is to answer without an encoding.
    for name in [header::AUTHORIZATION, header::HOST, header::ACCEPT_ENCODING] {
        headers.remove(name);
    }
    match tokio::time::timeout(HEAD_TIMEOUT, upstream.client.request(request)).await {
        Ok(Ok(response)) => response.map(Body::new),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the model does not answer");
            StatusCode::BAD_GATEWAY.into_response()
        }
        Err(_) => StatusCode::GATEWAY_TIMEOUT.into_response(),
    }
}
