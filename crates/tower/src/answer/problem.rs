//! Refusals as problem details ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).

use serde_json::{Value as Json, json};

use super::{Cause, Refused};
use crate::answer::fields::policy_name;
use zae_limiter::Error;

/// The type of requests beyond a limit, of the draft of the `RateLimit` fields.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The type of requests that cannot be served for now, of the same draft.
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// The members of RFC 9457, with those of the usual body beside them.
pub(super) fn body(refused: &Refused<'_>, mut body: Json) -> Json {
    let (kind, title) = match refused.cause {
        Cause::Limiter(Error::RateLimitExceeded(_) | Error::ConcurrencyExceeded(_)) => {
            (QUOTA_EXCEEDED, "The request exceeds a limit")
        }
        Cause::Limiter(Error::Unavailable(_)) => (REDUCED_CAPACITY, "The rate limiter is unavailable"),
        _ => (
            "about:blank",
            refused.status.canonical_reason().unwrap_or("Error"),
        ),
    };
    let detail = body["message"].clone();
    if let Some(members) = body.as_object_mut() {
        members.insert("type".into(), kind.into());
        members.insert("title".into(), title.into());
        members.insert("status".into(), refused.status.as_u16().into());
        members.insert("detail".into(), detail);
        if let Cause::Limiter(Error::RateLimitExceeded(exceeded)) = refused.cause {
            let mut names: Vec<String> = exceeded
                .violations()
                .filter(|status| refused.owner.is_none_or(|owner| status.entity == *owner))
                .map(|status| policy_name(status, exceeded.statuses()))
                .collect();
            names.dedup();
            members.insert("violated-policies".into(), json!(names));
        }
    }
    body
}
