//! [`RateLimitLayer`] and the service that it makes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;
use zae_limiter::{InvalidInput, RateLimiter};

use crate::answer::{Answers, Asked, BodyShape, Fields, Refused};
use crate::body::ResponseBody;
use crate::charge::Charge;
use crate::estimate::EstimateLayer;
use crate::estimated::EstimatedLayer;
use crate::settle::{Ending, Held, Settle, Settling};
use crate::telemetry::{Outcome, Reports};
use crate::usage::Usage;

/// Limits requests: takes tokens before the service is called, and commits or rolls back when the response has ended.
///
/// A request that a limit refuses is answered at once, or after its [wait](crate::Rules::wait), and the service is not called. What
/// the table answers decides; while it does not answer, the policy for [outages](crate::Rules::on_unavailable).
///
/// ```
/// # use axum::{Router, routing::get};
/// # use http::HeaderName;
/// # use zae_limiter::{Limit, RateLimiter, Repository};
/// use zae_limiter_tower::{RateLimitLayer, Rules, key};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let repo = Repository::in_memory().await?;
/// # repo.admin().set_system_defaults([Limit::per_minute("rpm", 100)], None).await?;
/// # let limiter = RateLimiter::new(repo);
/// let rules = Rules::new(key::header(HeaderName::from_static("x-api-key")).hashed(), "api").consume("rpm", 1);
/// let app: Router = Router::new().route("/", get(async || "hello")).layer(RateLimitLayer::new(limiter, rules)?);
/// # let _ = app; Ok(()) }
/// ```
#[derive(Clone)]
pub struct RateLimitLayer {
    limiter: RateLimiter,
    pub(crate) charge: Arc<dyn Charge>,
    settling: Arc<Settling>,
    pub(crate) answers: Arc<Answers>,
    pub(crate) reports: Reports,
}

impl RateLimitLayer {
    /// A layer that takes tokens from a limiter: [`Rules`](crate::Rules), or a closure, say which.
    ///
    /// # Errors
    /// [`InvalidInput`] if the rules name a limit that cannot be, or none.
    pub fn new(limiter: RateLimiter, charge: impl Charge) -> Result<Self, InvalidInput> {
        charge.check()?;
        let reports = Reports::new(&limiter);
        Ok(Self {
            limiter,
            charge: Arc::new(charge),
            settling: Arc::new(Settling {
                by: Arc::new(Ending::usual),
                on_disconnect: Settle::Commit,
                usage: Vec::new(),
            }),
            answers: Arc::default(),
            reports,
        })
    }

    /// Corrects the tokens of a limit to what the response says: see [`usage`](crate::usage). The limit must be one that the request takes of its first
    /// resource.
    ///
    /// If the response does not say it, or is not JSON, the estimate stays.
    ///
    /// # Errors
    /// [`InvalidInput`] if the source can never be met, or if the [`Rules`](crate::Rules) do not take the limit. If a closure does not take it, that is logged when
    /// a response reports its usage.
    pub fn correct(mut self, limit: impl Into<String>, usage: impl Usage) -> Result<Self, InvalidInput> {
        usage.check()?;
        let limit = limit.into();
        if !self.charge.may_take(&limit) {
            return Err(InvalidInput::new(
                "limit",
                limit,
                "must be one that the rules take",
            ));
        }
        self.reports.looks_for(&limit);
        Arc::make_mut(&mut self.settling)
            .usage
            .push((limit, Arc::new(usage)));
        Ok(self)
    }

    /// One layer that also estimates the tokens of requests, for [`Rules::consume_estimate`](crate::Rules::consume_estimate). It checks the key before it reads the body, so
    /// that requests without one cost nothing, and bodies of requests that are not limited are passed on unread. All refusals are answered as this layer answers
    /// them, in place of the settings of the other one.
    ///
    /// ```
    /// use zae_limiter::RateLimiter;
    /// use zae_limiter_tower::{EstimateLayer, EstimatedLayer, Fields, RateLimitLayer, Rules, key, usage};
    ///
    /// # fn layer(limiter: RateLimiter) -> Result<EstimatedLayer, zae_limiter::InvalidInput> {
    /// let rules = Rules::new(key::bearer(), "gpt-4").consume("rpm", 1).consume_estimate("tpm");
    /// let layer = RateLimitLayer::new(limiter, rules)?
    ///     .correct("tpm", usage::openai())?
    ///     .fields([Fields::Ietf, Fields::openai("rpm", "tpm")])
    ///     .estimated(EstimateLayer::new().max_body(1 << 20));
    /// # Ok(layer) }
    /// ```
    pub fn estimated(self, estimate: EstimateLayer) -> EstimatedLayer {
        EstimatedLayer::new(self, estimate)
    }

    /// Decides by the response whether a request keeps its tokens. Default: [`Ending::usual`].
    ///
    /// It is asked when the head of the response has come. If it says [`Commit`](Settle::Commit), it is asked once more when the response
    /// has ended, since the status of a gRPC call is in the trailers.
    pub fn settle(mut self, by: impl Fn(Ending) -> Settle + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.settling).by = Arc::new(by);
        self
    }

    /// What becomes of the tokens of a request whose response does not end, because the client has gone or the upstream has
    /// failed on the way. Default: [`Commit`](Settle::Commit), because the work may be done: a client that goes away after each first byte would
    /// otherwise be served without limits.
    ///
    /// A commit keeps the estimate, or what the response has reported so far, if that is more. If the service panics, the tokens are
    /// given back. The lease of a connection that is upgraded ends with the head of the response.
    pub fn on_disconnect(mut self, settle: Settle) -> Self {
        Arc::make_mut(&mut self.settling).on_disconnect = settle;
        self
    }

    /// The header fields that responses have, in place of the default: those of the IETF draft.
    pub fn fields(mut self, fields: impl IntoIterator<Item = Fields>) -> Self {
        Arc::make_mut(&mut self.answers).fields = fields.into_iter().collect();
        self
    }

    /// Reports only the limits of the client's own entity, in header fields and in bodies of refusals, and not those of entities above it: for clients that
    /// must not learn how much others of their project use. If only a limit above has refused, the answer has `Retry-After` and no
    /// limit that is exceeded. By default, the tightest limit of each name is reported, whichever entity it is of.
    /// [`BodyShape::JsonWithEntities`] has all limits nevertheless.
    pub fn own_limits_only(mut self) -> Self {
        Arc::make_mut(&mut self.answers).is_own_only = true;
        self
    }

    /// The form of bodies of refusals. Default: [`BodyShape::Json`]. [`EstimateLayer`](crate::EstimateLayer) has a setting of its own.
    pub fn body_shape(mut self, shape: BodyShape) -> Self {
        Arc::make_mut(&mut self.answers).shape = shape;
        self
    }

    /// Answers refused requests instead of the layer. Where the function returns `None`, the layer answers. Header fields of limits
    /// and `Retry-After` are added unless the answer has them.
    ///
    /// ```
    /// # fn layer(layer: zae_limiter_tower::RateLimitLayer) -> zae_limiter_tower::RateLimitLayer {
    /// use http::{Response, StatusCode};
    ///
    /// layer.on_refusal(|refused| {
    ///     let mut response = Response::new("slow down".into());
    ///     *response.status_mut() = refused.status();
    ///     (refused.status() == StatusCode::TOO_MANY_REQUESTS).then_some(response)
    /// })
    /// # }
    /// ```
    pub fn on_refusal(
        mut self,
        answer: impl Fn(&Refused<'_>) -> Option<Response<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.answers).own = Some(Arc::new(answer));
        self
    }
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service whose requests are limited: see [`RateLimitLayer`].
#[derive(Debug, Clone)]
pub struct RateLimit<S> {
    inner: S,
    layer: RateLimitLayer,
}

type Answer<R, E> = Result<Response<ResponseBody<R>>, E>;

impl<S, B, R> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
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
        Box::pin(self.layer.clone().serve(inner, request))
    }
}

impl RateLimitLayer {
    pub(crate) async fn serve<S, B, R>(self, mut inner: S, request: Request<B>) -> Answer<R, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
        R: Body<Data = Bytes>,
    {
        let (parts, body) = request.into_parts();
        let answers = &self.answers;
        let call = self.reports.request();
        let acquire = match self.charge.charge(&self.limiter, &parts) {
            Ok(Some(acquire)) => acquire,
            Ok(None) => {
                call.end(Outcome::Unlimited);
                let response = inner.call(Request::from_parts(parts, body)).await?;
                return Ok(response.map(ResponseBody::passed));
            }
            Err(rejection) => {
                let refused = Refused::rejected(&parts, &rejection);
                call.end(Outcome::of(&refused));
                return Ok(answers.refuse(&refused));
            }
        };
        let entity = acquire.entity().cloned();
        let owner = answers.owner(entity.as_ref());
        let lease = match acquire.send().await {
            Ok(lease) => lease,
            Err(err) => {
                let asked = Asked {
                    now: self.limiter.repository().now(),
                    entity: entity.as_ref(),
                    owner,
                };
                let refused = Refused::limited(&parts, &err, asked);
                call.end(Outcome::of(&refused));
                return Ok(answers.refuse(&refused));
            }
        };
        call.end(if lease.is_degraded() {
            Outcome::Degraded
        } else {
            Outcome::Admitted
        });
        let statuses = if answers.fields.is_empty() {
            Vec::new()
        } else {
            lease.statuses()
        };
        let mut held = Held::new(lease, self.settling, self.reports);
        // A server sends no body in answer to these, and does not ask for one.
        let has_body = parts.method != Method::HEAD && parts.method != Method::CONNECT;
        let response = match inner.call(Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(err) => {
                held.failed();
                return Err(err);
            }
        };
        let (mut told, body) = response.into_parts();
        answers.tell(
            &statuses,
            owner,
            self.limiter.repository().now(),
            &mut told.headers,
        );
        let has_begun = held.begin(&mut told);
        let without_body = [
            StatusCode::SWITCHING_PROTOCOLS,
            StatusCode::NO_CONTENT,
            StatusCode::NOT_MODIFIED,
        ];
        let has_body = has_body && !without_body.contains(&told.status);
        let length = told.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let body = if has_begun && has_body {
            ResponseBody::held(body, length, held)
        } else {
            if has_begun {
                held.finish();
            }
            ResponseBody::passed(body)
        };
        Ok(Response::from_parts(told, body))
    }
}
