//! `POST /v1/leases/{lease}/…`: ending a lease, and letting it live longer. Any server with the same keys can.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use zae_limiter::{DetachedLease, LeaseEnd};

use super::answer::Refused;
use super::body;
use crate::app::App;

/// `commit`: keeps the tokens, and corrects consumption to what was used.
pub(super) async fn commit(
    State(app): State<App>,
    Path(lease): Path<String>,
    bytes: Bytes,
) -> Result<Json<Value>, Refused> {
    let lease = read(&app, &lease)?;
    let body: body::Commit = body::read_or_default(&bytes)?;
    let own = body
        .actual
        .iter()
        .map(|(limit, tokens)| (None, limit.as_str(), *tokens));
    let also = body.also.iter().flat_map(|also| {
        let resource = Some(also.resource.as_str());
        also.actual
            .iter()
            .map(move |(limit, tokens)| (resource, limit.as_str(), *tokens))
    });
    let end = lease.commit(own.chain(also))?;
    finish(&app, &lease, end, "commit").await
}

/// `rollback`: gives all tokens back.
pub(super) async fn rollback(
    State(app): State<App>,
    Path(lease): Path<String>,
    bytes: Bytes,
) -> Result<Json<Value>, Refused> {
    let lease = read(&app, &lease)?;
    let _: body::Nothing = body::read_or_default(&bytes)?;
    finish(&app, &lease, LeaseEnd::Rollback, "rollback").await
}

/// `extend`: lets it live for so long from now on.
pub(super) async fn extend(
    State(app): State<App>,
    Path(lease): Path<String>,
    bytes: Bytes,
) -> Result<Json<Value>, Refused> {
    let lease = read(&app, &lease)?;
    let body: body::Extend = body::read(&bytes)?;
    let repo = app.limiter().repository();
    let until = repo
        .extend_lease(&lease, Duration::from_millis(body.ttl_ms))
        .await;
    let until = until.map_err(|err| Refused::of(&err, repo))?;
    Ok(Json(json!({ "expires_at_ms": until.0 })))
}

fn read(app: &App, text: &str) -> Result<DetachedLease, Refused> {
    app.leases().verify(text).ok_or_else(Refused::no_lease)
}

async fn finish(
    app: &App,
    lease: &DetachedLease,
    end: LeaseEnd,
    name: &'static str,
) -> Result<Json<Value>, Refused> {
    let repo = app.limiter().repository();
    let ended = repo
        .end_lease(lease, end)
        .await
        .map_err(|err| Refused::of(&err, repo))?;
    Ok(Json(json!({ "ended": name, "repeated": ended.is_repeated })))
}
