//! Answers to requests that are refused, and the header fields that tell clients how their limits stand.

mod fields;
#[cfg(feature = "grpc")]
mod grpc;
mod problem;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value as Json, json};
use zae_limiter::{EntityId, EpochMillis, Error, InvalidInput, LimitStatus};

pub use fields::Fields;

use crate::body::ResponseBody;
use crate::rejection::Rejection;

/// The form of the bodies of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BodyShape {
    /// `application/json` as described by [`Refusal::SCHEMA`](zae_limiter::Refusal::SCHEMA), without what is not the client's: of limits that
    /// count for an entity and those above it, the tightest is left, and `entity_id` is empty.
    #[default]
    Json,
    /// The same with the limits of all entities, and their ids: for clients that may know the entities above theirs.
    JsonWithEntities,
    /// `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)), with the types of the draft of the
    /// `RateLimit` fields, and what [`Json`](Self::Json) has as extension members.
    Problem,
    /// No body.
    Empty,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Cause<'a> {
    /// The limiter did not admit it.
    Limiter(&'a Error),
    /// It has no key, or is malformed.
    Request(&'a Rejection),
}

/// A request that was refused, for [`on_refusal`](crate::RateLimitLayer::on_refusal).
#[derive(Debug, Clone)]
pub struct Refused<'a> {
    request: &'a Parts,
    cause: Cause<'a>,
    status: StatusCode,
    retry_after: Option<HeaderValue>,
    body: Json,
    /// When a limit has refused.
    now: EpochMillis,
    /// Whose limits are reported, if not those of all.
    owner: Option<&'a EntityId>,
}

/// When a call was refused, and whose it was.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) now: EpochMillis,
    pub(crate) entity: Option<&'a EntityId>,
    /// Whose limits are reported, if not those of all.
    pub(crate) owner: Option<&'a EntityId>,
}

impl<'a> Refused<'a> {
    pub(crate) fn rejected(request: &'a Parts, rejection: &'a Rejection) -> Self {
        Self {
            request,
            cause: Cause::Request(rejection),
            status: rejection.status(),
            retry_after: None,
            body: json!({ "error": rejection.code(), "message": rejection.message() }),
            now: EpochMillis(0),
            owner: None,
        }
    }

    pub(crate) fn limited(request: &'a Parts, err: &'a Error, asked: Asked<'a>) -> Self {
        let (status, retry_after, body) = match err.refusal() {
            Some(refusal) => {
                let retry_after = refusal.retry_after_header().and_then(|value| value.parse().ok());
                let status = StatusCode::from_u16(refusal.status());
                (
                    status.unwrap_or(StatusCode::TOO_MANY_REQUESTS),
                    retry_after,
                    refusal.into_body(),
                )
            }
            None => Self::fault(err, asked.entity),
        };
        Self {
            request,
            cause: Cause::Limiter(err),
            status,
            retry_after,
            body,
            now: asked.now,
            owner: asked.owner,
        }
    }

    /// An error other than a refusal: of the request's names, or of the service.
    fn fault(err: &Error, entity: Option<&EntityId>) -> (StatusCode, Option<HeaderValue>, Json) {
        let body = |code: &str, message: &str| json!({ "error": code, "message": message });
        match err {
            Error::InvalidInput(input) if is_of_client(input) => {
                let message = err.to_string();
                (StatusCode::BAD_REQUEST, None, body("bad_request", &message))
            }
            // That one above it has none is a fault of the configuration.
            Error::NotConfigured { entity: lacking, .. }
                if entity.is_none_or(|own| own.as_str() == lacking) =>
            {
                tracing::debug!(error = %err, "a request was refused");
                let message = "no limits are configured for this client";
                (StatusCode::FORBIDDEN, None, body("not_configured", message))
            }
            _ => {
                // What failed, and where, is for the operator.
                tracing::error!(error = %err, "a request cannot be limited");
                let message = "the service cannot limit this request";
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    None,
                    body("misconfigured", message),
                )
            }
        }
    }

    /// The head of the request.
    pub fn request(&self) -> &'a Parts {
        self.request
    }

    /// Why it was refused.
    pub fn cause(&self) -> Cause<'a> {
        self.cause
    }

    /// The status that the layer would answer with: 400, 401, 403, 413, 429, 500, 503, or that of the [`Rejection`].
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The body as described by [`Refusal::SCHEMA`](zae_limiter::Refusal::SCHEMA), with the ids of entities.
    pub fn body(&self) -> &Json {
        &self.body
    }

    /// The body without entities: what [`BodyShape::Json`] answers with.
    pub fn private_body(&self) -> Json {
        let mut body = self.body.clone();
        match self.cause {
            Cause::Limiter(Error::RateLimitExceeded(exceeded)) => {
                let statuses = exceeded.statuses();
                let kept = fields::tightest(statuses, self.now, self.owner);
                let limits = kept.iter().filter_map(|index| {
                    let mut limit = body["limits"].get(*index)?.clone();
                    limit["entity_id"] = "".into();
                    Some(limit)
                });
                let limits: Vec<Json> = limits.collect();
                let refused = kept.iter().map(|index| &statuses[*index]);
                let refused = refused.filter(|status| status.exceeded);
                let names: Vec<String> = refused
                    .map(|status| fields::policy_name(status, statuses))
                    .collect();
                let wait = exceeded.retry_after();
                let wait = wait.map_or("never possible".to_owned(), |wait| {
                    format!("retry after {:.3} s", wait.as_secs_f64())
                });
                body["limits"] = limits.into();
                body["message"] = if names.is_empty() {
                    format!("rate limit exceeded; {wait}").into()
                } else {
                    format!("rate limit exceeded: {}; {wait}", names.join(", ")).into()
                };
            }
            Cause::Limiter(Error::ConcurrencyExceeded(_)) => {
                body["entity_id"] = "".into();
                body["message"] = "all places for requests in flight are taken".into();
            }
            Cause::Limiter(Error::Disabled { resource, .. }) => {
                body["entity_id"] = "".into();
                body["message"] = format!("{resource} is disabled for this client").into();
            }
            _ => {}
        }
        body
    }

    /// How the limits stood, if a limit has refused.
    fn statuses(&self) -> &'a [LimitStatus] {
        match self.cause {
            Cause::Limiter(Error::RateLimitExceeded(refused)) => refused.statuses(),
            _ => &[],
        }
    }
}

/// Whether a name or an amount that the request has led to is malformed, and not a limit unknown that the rules name.
fn is_of_client(input: &InvalidInput) -> bool {
    match input.field() {
        "entity_id" | "resource" => true,
        field => field.starts_with("consume.") && !input.is_unknown(),
    }
}

type Own = dyn Fn(&Refused<'_>) -> Option<Response<Bytes>> + Send + Sync;

/// How requests are answered.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) fields: Vec<Fields>,
    pub(crate) shape: BodyShape,
    /// Whether only limits of the entity itself are reported, and not those of entities above it.
    pub(crate) is_own_only: bool,
    /// The service's own answer.
    pub(crate) own: Option<Arc<Own>>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            fields: vec![Fields::Ietf],
            shape: BodyShape::default(),
            is_own_only: false,
            own: None,
        }
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers")
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

impl Answers {
    /// Whose limits are reported, of a call of an entity; `None` for all.
    pub(crate) fn owner<'e>(&self, entity: Option<&'e EntityId>) -> Option<&'e EntityId> {
        entity.filter(|_| self.is_own_only)
    }

    /// Adds the fields of a response that was admitted, with the limits of one owner or all.
    pub(crate) fn tell(
        &self,
        statuses: &[LimitStatus],
        owner: Option<&EntityId>,
        now: EpochMillis,
        headers: &mut HeaderMap,
    ) {
        fields::write(&self.fields, statuses, owner, now, headers);
    }

    /// The answer to a refused request.
    pub(crate) fn refuse<B>(&self, refused: &Refused<'_>) -> Response<ResponseBody<B>> {
        let own = self.own.as_ref().and_then(|own| own(refused));
        #[cfg(feature = "grpc")]
        let own = own.or_else(|| grpc::answer(refused));
        let mut response = own.unwrap_or_else(|| self.usual(refused));
        let is_unauthenticated = response.status() == StatusCode::UNAUTHORIZED;
        let headers = response.headers_mut();
        if let (true, Cause::Request(rejection)) = (is_unauthenticated, refused.cause)
            && let (false, Some(challenge)) = (headers.contains_key(WWW_AUTHENTICATE), rejection.challenge())
        {
            headers.insert(WWW_AUTHENTICATE, challenge.clone());
        }
        if let (false, Some(retry_after)) = (headers.contains_key(RETRY_AFTER), &refused.retry_after) {
            headers.insert(RETRY_AFTER, retry_after.clone());
        }
        fields::write(
            &self.fields,
            refused.statuses(),
            refused.owner,
            refused.now,
            headers,
        );
        response.map(ResponseBody::full)
    }

    /// The body of this shape's members.
    fn body(&self, refused: &Refused<'_>) -> Json {
        if self.shape == BodyShape::JsonWithEntities {
            refused.body.clone()
        } else {
            refused.private_body()
        }
    }

    fn usual(&self, refused: &Refused<'_>) -> Response<Bytes> {
        let (media_type, body) = match self.shape {
            BodyShape::Json | BodyShape::JsonWithEntities => {
                ("application/json", Bytes::from(self.body(refused).to_string()))
            }
            BodyShape::Problem => (
                "application/problem+json",
                problem::body(refused, self.body(refused)).to_string().into(),
            ),
            BodyShape::Empty => ("", Bytes::new()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = refused.status;
        if !media_type.is_empty() {
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        response
    }
}
