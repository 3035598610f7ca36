//! [`EstimateLayer`] and the service that it makes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::body::Unread;
use super::count::Terms;
use super::{BytesPerToken, Estimate, Replayed, Tokenizer};
use crate::answer::{Answers, BodyShape, Refused};
use crate::body::ResponseBody;
use crate::rejection::Rejection;
use crate::telemetry::{BodyCall, BodyOutcome};
use crate::usage::is_encoded;

/// The most bytes of a body that are read unless set otherwise: 4 MiB.
const MAX_BODY: usize = 4 << 20;

/// The longest that a body may take unless set otherwise.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The output that is assumed of a request without a bound.
const DEFAULT_OUTPUT: u64 = 1024;

/// The input that is assumed of an attachment.
const ATTACHMENT: u64 = 1500;

/// Reads the body of each request, estimates its tokens, and passes it on: see [`estimate`](crate::estimate).
///
/// Bodies are JSON objects in the form of OpenAI or Anthropic. All texts in them are input, and so are names within them. The output is bounded by
/// `max_tokens`, `max_completion_tokens`, `max_output_tokens` and the like, for each of `n` choices and each prompt of a list. Of a picture or
/// file in base64, a [fixed number](Self::attachment) and a 64th of its bytes count. A request without a body uses nothing. Bounds of the output at
/// other places, such as in `generationConfig`, are not found: set [`default_output`](Self::default_output) to the model's own for such APIs.
///
/// A body that is larger than the [bound](Self::max_body) is answered with status 413, one that comes too slowly with 408, one with a content encoding
/// with 415, and one that is not a JSON object with 400. In memory are at most twice the bound and one piece of the body, for each request.
///
/// ```
/// use http::HeaderName;
/// use tower::ServiceBuilder;
/// use zae_limiter::RateLimiter;
/// use zae_limiter_tower::{EstimateLayer, RateLimitLayer, Rules, key, usage};
///
/// # fn layers(limiter: RateLimiter) -> Result<(), zae_limiter::InvalidInput> {
/// let rules = Rules::new(key::bearer(), "gpt-4").consume("rpm", 1).consume_estimate("tpm");
/// let layers = ServiceBuilder::new()
///     .layer(EstimateLayer::new())
///     .layer(RateLimitLayer::new(limiter, rules)?.correct("tpm", usage::openai())?);
/// # let _ = layers; Ok(()) }
/// ```
#[derive(Clone)]
pub struct EstimateLayer {
    settings: Arc<Settings>,
}

#[derive(Clone)]
struct Settings {
    tokenizer: Arc<dyn Tokenizer>,
    default_output: u64,
    attachment: u64,
    max_body: usize,
    any_body: bool,
    timeout: Duration,
    answers: Answers,
}

impl Default for EstimateLayer {
    fn default() -> Self {
        BodyCall::start_counters();
        Self {
            settings: Arc::new(Settings {
                tokenizer: Arc::new(BytesPerToken::default()),
                default_output: DEFAULT_OUTPUT,
                attachment: ATTACHMENT,
                max_body: MAX_BODY,
                any_body: false,
                timeout: BODY_TIMEOUT,
                answers: Answers::default(),
            }),
        }
    }
}

impl EstimateLayer {
    /// A layer that counts three bytes as a token.
    pub fn new() -> Self {
        Self::default()
    }

    fn settings_mut(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    /// Counts tokens with this. It is called on the thread that serves the request, with texts of up to the bound of bodies.
    pub fn tokenizer(mut self, tokenizer: impl Tokenizer) -> Self {
        self.settings_mut().tokenizer = Arc::new(tokenizer);
        self
    }

    /// The output of a request that does not bound it. Default: 1,024 tokens.
    pub fn default_output(mut self, tokens: u64) -> Self {
        self.settings_mut().default_output = tokens;
        self
    }

    /// The input of a picture, a recording or a file. Default: 1,500 tokens.
    pub fn attachment(mut self, tokens: u64) -> Self {
        self.settings_mut().attachment = tokens;
        self
    }

    /// The most bytes of a body. Default: 4 MiB.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings_mut().max_body = bytes;
        self
    }

    /// Admits bodies that are not JSON objects, such as recordings: every byte is input. By default they are answered with status 400,
    /// because the upstream may read more in them than this layer.
    pub fn any_body(mut self) -> Self {
        self.settings_mut().any_body = true;
        self
    }

    /// The longest that a body may take to arrive. Default: 30 s.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.settings_mut().timeout = timeout;
        self
    }

    /// The form of the bodies of refusals. Default: [`BodyShape::Json`]. [`RateLimitLayer`](crate::RateLimitLayer) has a setting of its own.
    pub fn body_shape(mut self, shape: BodyShape) -> Self {
        self.settings_mut().answers.shape = shape;
        self
    }

    /// Answers refused requests instead of the layer: see [`RateLimitLayer::on_refusal`](crate::RateLimitLayer::on_refusal).
    pub fn on_refusal(
        mut self,
        answer: impl Fn(&Refused<'_>) -> Option<Response<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        self.settings_mut().answers.own = Some(Arc::new(answer));
        self
    }
}

impl fmt::Debug for EstimateLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EstimateLayer")
            .field("default_output", &self.settings.default_output)
            .field("attachment", &self.settings.attachment)
            .field("max_body", &self.settings.max_body)
            .field("body_timeout", &self.settings.timeout)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for EstimateLayer {
    type Service = EstimateTokens<S>;

    fn layer(&self, inner: S) -> EstimateTokens<S> {
        EstimateTokens {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service whose requests have an [`Estimate`](super::Estimate): see [`EstimateLayer`].
#[derive(Debug, Clone)]
pub struct EstimateTokens<S> {
    inner: S,
    layer: EstimateLayer,
}

type Answer<R, E> = Result<Response<ResponseBody<R>>, E>;

impl<S, B, R> Service<Request<B>> for EstimateTokens<S>
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
        let mut inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(async move {
            match layer.estimated(request, &layer.settings.answers).await {
                Ok(request) => Ok(inner.call(request).await?.map(ResponseBody::passed)),
                Err(refusal) => Ok(refusal),
            }
        })
    }
}

impl EstimateLayer {
    /// The request with its estimate, or the answer if its body cannot be read.
    pub(crate) async fn estimated<B: Body, R>(
        &self,
        request: Request<B>,
        answers: &Answers,
    ) -> Result<Request<Replayed<B>>, Response<ResponseBody<R>>> {
        let (mut head, body) = request.into_parts();
        let call = BodyCall::begin();
        let read = if body.is_end_stream() {
            Ok(Replayed::passed(body))
        } else if is_encoded(&head.headers) {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let message = "send the body without a content encoding";
            Err(Rejection::new(status, "encoded_body", message))
        } else {
            self.settings.read(body).await
        };
        let estimated = read.and_then(|body| Ok((self.settings.estimate(body.bytes())?, body)));
        match estimated {
            Ok((estimate, body)) => {
                call.end(BodyOutcome::Estimated);
                head.extensions.insert(estimate);
                Ok(Request::from_parts(head, body))
            }
            Err(rejection) => {
                call.end(BodyOutcome::of(&rejection));
                Err(answers.refuse(&Refused::rejected(&head, &rejection)))
            }
        }
    }
}

impl Settings {
    fn estimate(&self, body: &[u8]) -> Result<Estimate, Rejection> {
        let terms = Terms {
            tokenizer: &*self.tokenizer,
            default_output: self.default_output,
            attachment: self.attachment,
        };
        match terms.of(body) {
            Some(estimate) => Ok(estimate),
            None if self.any_body => Ok(terms.of_bytes(body)),
            None => Err(Rejection::bad_request(
                "the body is not a JSON object, or names two models",
            )),
        }
    }

    async fn read<B: Body>(&self, body: B) -> Result<Replayed<B>, Rejection> {
        match tokio::time::timeout(self.timeout, Replayed::read(body, self.max_body)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(Unread::TooLarge)) => {
                let message = format!("the body is larger than {} bytes", self.max_body);
                Err(Rejection::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    message,
                ))
            }
            Ok(Err(Unread::Broken)) => Err(Rejection::bad_request("the body cannot be read")),
            Err(_) => {
                let message = format!("the body took longer than {} s", self.timeout.as_secs_f64());
                Err(Rejection::new(StatusCode::REQUEST_TIMEOUT, "slow_body", message))
            }
        }
    }
}
