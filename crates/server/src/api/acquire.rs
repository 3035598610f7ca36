//! `POST /v1/acquire`.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use zae_limiter::{DetachedLease, InvalidInput, OnExpiry};

use super::answer::{Refused, fields, limits};
use super::body::{self, Received, named};
use crate::api::RequestTimeout;
use crate::app::App;

/// The time to live of a lease, unless the request says otherwise.
const TTL: Duration = Duration::from_mins(1);

/// A request must be answered this long before it is cut.
const TO_ANSWER: Duration = Duration::from_secs(1);

/// Takes tokens, and answers with a lease of them.
pub(super) async fn acquire(
    State(app): State<App>,
    Extension(RequestTimeout(timeout)): Extension<RequestTimeout>,
    Received(bytes): Received,
) -> Result<Response, Refused> {
    let body: body::Acquire = body::read(&bytes)?;
    let wait = wait(body.wait_ms.0, timeout)?;
    let of_lease = [
        ("ttl_ms", body.ttl_ms.is_some()),
        ("on_expiry", body.on_expiry.is_some()),
    ];
    if let Some((field, _)) = of_lease
        .into_iter()
        .find(|(_, is_given)| *is_given && !body.lease)
    {
        let reason = "must be left out if `lease` is false";
        return Err(InvalidInput::of_request(field, "", reason).into());
    }
    let ttl = body.ttl_ms.map_or(TTL, |ttl| Duration::from_millis(ttl.0));
    DetachedLease::check_ttl(ttl).map_err(|err| err.in_field("ttl_ms"))?;
    let repo = app.limiter().repository();
    let mut call = app.limiter().acquire(&body.entity_id, &body.resource);
    for (limit, tokens) in named("consume", &body.consume)? {
        call = call.consume(limit, tokens);
    }
    for also in &body.also {
        call = call.also(&also.resource, named("also.consume", &also.consume)?);
    }
    if body.overdraw {
        call = call.overdraw();
    }
    if !wait.is_zero() {
        call = call.wait(wait);
    }
    let lease = app.send(call).await.map_err(|err| Refused::of(&err, repo))?;
    let statuses = lease.statuses();
    let mut answer = json!({
        "lease": null,
        "degraded": lease.is_degraded(),
        "bypassed": lease.is_bypassed(),
        "limits": limits(&statuses),
    });
    if body.lease {
        let on_expiry = body.on_expiry.map_or(OnExpiry::Keep, Into::into);
        let lease = lease.detach(ttl, on_expiry).await;
        let lease = lease.map_err(|err| Refused::of(&err, repo))?;
        answer["lease"] = json!(app.leases().sign(&lease));
        answer["expires_at_ms"] = json!(lease.expires_at().0);
        answer["on_expiry"] = json!(lease.on_expiry().as_str());
    } else {
        lease.commit_in_background();
    }
    Ok((fields(&statuses, repo), Json(answer)).into_response())
}

fn wait(millis: u64, request_timeout: Duration) -> Result<Duration, InvalidInput> {
    let wait = Duration::from_millis(millis);
    let longest = request_timeout.saturating_sub(TO_ANSWER);
    if wait > longest {
        let reason = format!(
            "must be at most {}: the service answers every request within {} ms",
            longest.as_millis(),
            request_timeout.as_millis()
        );
        return Err(InvalidInput::of_request("wait_ms", millis, reason));
    }
    Ok(wait)
}
