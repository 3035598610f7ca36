//! [`EstimatedLayer`]: both layers in one, with the key before the body.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::answer::Refused;
use crate::body::ResponseBody;
use crate::estimate::{EstimateLayer, Replayed};
use crate::service::RateLimitLayer;
use crate::telemetry::Outcome;

/// Limits requests by an estimate of their tokens: what [`RateLimitLayer::estimated`] makes.
///
/// A request without a key, or with one that is malformed, is answered before its body is read. If a request is not limited,
/// its body is passed on unread.
#[derive(Debug, Clone)]
pub struct EstimatedLayer {
    limits: RateLimitLayer,
    estimate: EstimateLayer,
}

impl EstimatedLayer {
    pub(crate) fn new(limits: RateLimitLayer, estimate: EstimateLayer) -> Self {
        Self { limits, estimate }
    }
}

impl<S> Layer<S> for EstimatedLayer {
    type Service = EstimatedRateLimit<S>;

    fn layer(&self, inner: S) -> EstimatedRateLimit<S> {
        EstimatedRateLimit {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service whose requests are estimated and limited: see [`RateLimitLayer::estimated`].
#[derive(Debug, Clone)]
pub struct EstimatedRateLimit<S> {
    inner: S,
    layer: EstimatedLayer,
}

type Answer<R, E> = Result<Response<ResponseBody<R>>, E>;

impl<S, B, R> Service<Request<B>> for EstimatedRateLimit<S>
where
    S: Service<Request<Replayed<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    R: Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Answer<R, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is called.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(async move {
            match layer.read(request).await {
                Ok(request) => layer.limits.serve(inner, request).await,
                Err(refusal) => Ok(refusal),
            }
        })
    }
}

impl EstimatedLayer {
    /// The request with its estimate, or the answer if its key or its body is refused.
    async fn read<B: Body, R>(
        &self,
        request: Request<B>,
    ) -> Result<Request<Replayed<B>>, Response<ResponseBody<R>>> {
        let (parts, body) = request.into_parts();
        let limits = &self.limits;
        match limits.charge.before_body(&parts) {
            Ok(true) => {
                let request = Request::from_parts(parts, body);
                self.estimate.estimated(request, &limits.answers).await
            }
            Ok(false) => Ok(Request::from_parts(parts, Replayed::passed(body))),
            Err(rejection) => {
                let refused = Refused::rejected(&parts, &rejection);
                limits.reports.request().end(Outcome::of(&refused));
                Err(limits.answers.refuse(&refused))
            }
        }
    }
}
