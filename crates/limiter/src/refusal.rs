//! The HTTP answer to a request that was refused: its status, its header, and its body as JSON.

use serde_json::{Value as Json, json};
use zae_limiter_core::{ConcurrencyExceeded, RateLimitExceeded};

use crate::error::Error;

/// How long a client should wait while the limiter is unavailable, in milliseconds.
const UNAVAILABLE_WAIT_MS: u64 = 1000;

/// The HTTP answer to a request that the limiter did not admit. See [`Error::refusal`].
///
/// | Cause | Status | `error` in the body | `Retry-After` |
/// |---|---|---|---|
/// | a limit has too few tokens | 429 | `rate_limit_exceeded` | the wait |
/// | all places in flight are taken | 429 | `concurrency_limit_exceeded` | 1 s, without a promise |
/// | the request is larger than a limit | 413 | `rate_limit_exceeded` | none |
/// | the entity or the resource is disabled | 403 | `resource_disabled` | none |
/// | the table cannot be used | 503 | `rate_limiter_unavailable` | 1 s, unless the outcome is in doubt |
///
/// Every body has `error` and `message`. [`SCHEMA`](Self::SCHEMA) describes them for clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    status: u16,
    retry_after: Option<String>,
    body: Json,
}

impl Refusal {
    /// The JSON Schema of the bodies (draft 2020-12), for the documentation of an API. Later versions may add properties.
    pub const SCHEMA: &str = include_str!("refusal/schema.json");

    /// The answer while the limiter cannot decide. A client should not repeat a request that is in doubt, since its tokens may be
    /// taken.
    pub fn unavailable(in_doubt: bool) -> Self {
        let wait_ms = (!in_doubt).then_some(UNAVAILABLE_WAIT_MS);
        Self {
            status: 503,
            retry_after: wait_ms.map(|ms| ms.div_ceil(1000).to_string()),
            body: json!({
                "error": "rate_limiter_unavailable",
                // What failed, and where, is for the operator.
                "message": "the rate limiter is unavailable",
                "in_doubt": in_doubt,
                "retry_after_seconds": wait_ms.map(|ms| ms as f64 / 1000.0),
                "retry_after_ms": wait_ms,
            }),
        }
    }

    fn exceeded(refused: &RateLimitExceeded) -> Self {
        Self {
            status: if refused.is_never() { 413 } else { 429 },
            retry_after: refused.retry_after_header(),
            body: refused.to_json(),
        }
    }

    fn no_place(full: &ConcurrencyExceeded) -> Self {
        Self {
            status: 429,
            retry_after: Some(full.retry_after_header()),
            body: full.to_json(),
        }
    }

    fn disabled(message: &str, entity: &str, resource: &str, level: &str) -> Self {
        Self {
            status: 403,
            retry_after: None,
            body: json!({
                "error": "resource_disabled",
                "message": message,
                "entity_id": entity,
                "resource": resource,
                "level": level,
            }),
        }
    }

    /// The HTTP status: 403, 413, 429 or 503.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The value of the `Retry-After` header, in seconds; `None` if the client should not repeat the request.
    pub fn retry_after_header(&self) -> Option<&str> {
        self.retry_after.as_deref()
    }

    /// The body.
    pub fn body(&self) -> &Json {
        &self.body
    }

    /// The body, without the rest.
    pub fn into_body(self) -> Json {
        self.body
    }
}

impl Error {
    /// The HTTP answer, if the error is one that a service passes to its clients: a refusal, or an outage that ends by itself.
    /// `None` for faults of the call, the configuration or the table, which a service answers with 400 or 500.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Access, Limit, RateLimiter, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// repo.admin().set_resource_defaults("gpt-4", [Limit::per_hour("rph", 1)]).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// limiter.acquire("key-1", "gpt-4").consume("rph", 1).await?.commit().await?;
    ///
    /// let err = limiter.acquire("key-1", "gpt-4").consume("rph", 1).await.unwrap_err();
    /// let refusal = err.refusal().unwrap();
    /// assert_eq!((refusal.status(), refusal.retry_after_header()), (429, Some("3600")));
    /// assert_eq!(refusal.body()["limits"][0]["limit_name"], "rph");
    ///
    /// repo.admin().set_resource_access("gpt-4", Access::Disabled).await?;
    /// let err = limiter.acquire("key-1", "gpt-4").consume("rph", 1).await.unwrap_err();
    /// assert_eq!(err.refusal().unwrap().status(), 403);
    /// # Ok(()) }
    /// ```
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::RateLimitExceeded(refused) => Some(Refusal::exceeded(refused)),
            Self::ConcurrencyExceeded(full) => Some(Refusal::no_place(full)),
            Self::Disabled {
                entity,
                resource,
                level,
            } => Some(Refusal::disabled(&self.to_string(), entity, resource, level)),
            Self::Unavailable(down) if down.is_retryable() => Some(Refusal::unavailable(down.in_doubt())),
            _ => None,
        }
    }
}
