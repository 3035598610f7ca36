//! A limiter in memory, and calls of a service behind the layer.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::BodyExt as _;
use tower::{Service, ServiceExt as _};
use zae_limiter::{Limit, RateLimiter, Repository};
use zae_limiter_tower::{RateLimitLayer, Rules, key};

/// The field that names the caller.
pub(crate) const KEY: HeaderName = HeaderName::from_static("x-key");

pub(crate) struct World {
    pub(crate) repo: Repository,
    pub(crate) limiter: RateLimiter,
}

impl World {
    /// 10 requests and 1,000 tokens a day.
    pub(crate) async fn new() -> Self {
        let repo = Repository::in_memory().await.unwrap();
        let limits = [Limit::per_day("rpd", 10), Limit::per_day("tpd", 1000)];
        repo.admin().set_resource_defaults("api", limits).await.unwrap();
        let limiter = RateLimiter::new(repo.clone());
        Self { repo, limiter }
    }

    /// One request and 100 tokens of a key.
    pub(crate) fn layer(&self) -> RateLimitLayer {
        RateLimitLayer::new(self.limiter.clone(), rules()).unwrap()
    }

    /// What a key has left, once all leases have ended.
    pub(crate) async fn left(&self, key: &str) -> (i64, i64) {
        assert!(self.repo.drain().await.is_complete());
        let left = self.limiter.available(key, "api").await.unwrap();
        (left["rpd"], left["tpd"])
    }
}

pub(crate) fn rules() -> Rules {
    Rules::new(key::header(KEY), "api")
        .consume("rpd", 1)
        .consume("tpd", 100)
}

pub(crate) fn request(key: &str) -> Request<Body> {
    Request::get("/").header(KEY, key).body(Body::empty()).unwrap()
}

/// A service that gives the same answer to each request.
pub(crate) fn answering(
    answer: impl Fn() -> Response<Body> + Clone + Send + 'static,
) -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone
+ Send
+ 'static {
    tower::service_fn(move |_: Request<Body>| {
        let answer = answer.clone();
        async move { Ok(answer()) }
    })
}

/// The answer of a service to a request, with its whole body.
pub(crate) async fn call<S, B>(service: S, request: Request<Body>) -> Response<Bytes>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let response = service.oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, body)
}
