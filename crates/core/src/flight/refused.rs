//! The answer to a request for which there is no place.

use serde_json::{Value as Json, json};

use crate::name::{EntityId, ResourceName};

/// How long a client should wait before it asks again, in milliseconds. It is not a promise: a place is free when another request
/// ends.
const WAIT_MS: u64 = 1000;

/// All places of an entity and resource are taken. Nothing was taken: neither a place nor a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("concurrency limit exceeded for {entity}/{resource}: {in_flight} of {limit} requests are in flight")]
pub struct ConcurrencyExceeded {
    /// The entity, or its parent.
    pub entity: EntityId,
    /// The resource.
    pub resource: ResourceName,
    /// How many requests may be in flight at the same time.
    pub limit: u32,
    /// How many are. More than the limit if it was lowered meanwhile.
    pub in_flight: u32,
}

impl ConcurrencyExceeded {
    /// The body of an HTTP answer with status 429.
    pub fn to_json(&self) -> Json {
        json!({
            "error": "concurrency_limit_exceeded",
            "message": self.to_string(),
            "entity_id": self.entity.as_str(),
            "resource": self.resource.as_str(),
            "limit": self.limit,
            "in_flight": self.in_flight,
            "retry_after_seconds": WAIT_MS as f64 / 1000.0,
            "retry_after_ms": WAIT_MS,
        })
    }

    /// The value of the `Retry-After` header, in seconds. When a place becomes free is not known.
    pub fn retry_after_header(&self) -> String {
        WAIT_MS.div_ceil(1000).to_string()
    }
}
