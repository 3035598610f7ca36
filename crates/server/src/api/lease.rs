//! Ending a lease, and letting it live longer. Any server with the same keys can.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use zae_limiter::{DetachedLease, LeaseEnd};

use super::answer::Refused;
use super::body::{self, Received};
use crate::app::App;

/// `POST /v1/leases/{lease}/commit`: keeps the tokens, and corrects consumption to what was used.
pub(super) async fn commit(
    State(app): State<App>,
    Path(lease): Path<String>,
    Received(bytes): Received,
) -> Result<Json<Value>, Refused> {
    commit_of(&app, &lease, &body::read_or_default(&bytes)?).await
}

/// `POST /v1/leases/commit`: the same, with the lease in the body. A lease of many resources does not fit into a path.
pub(super) async fn commit_in_body(
    State(app): State<App>,
    Received(bytes): Received,
) -> Result<Json<Value>, Refused> {
    let (lease, body) = body::with_lease(&bytes)?;
    commit_of(&app, &lease, &body).await
}

async fn commit_of(app: &App, lease: &str, body: &body::Commit) -> Result<Json<Value>, Refused> {
    let lease = read(app, lease)?;
    let own = body
        .actual
        .0
        .iter()
        .map(|(limit, tokens)| (None, limit.as_str(), *tokens));
    let also = body.also.iter().flat_map(|also| {
        let resource = Some(also.resource.as_str());
        also.actual
            .0
            .iter()
            .map(move |(limit, tokens)| (resource, limit.as_str(), *tokens))
    });
    let end = lease.commit(own.chain(also))?;
    finish(app, &lease, end, "commit").await
}

/// `POST /v1/leases/{lease}/rollback`: gives all tokens back.
pub(super) async fn rollback(
    State(app): State<App>,
    Path(lease): Path<String>,
    Received(bytes): Received,
) -> Result<Json<Value>, Refused> {
    let _: body::Nothing = body::read_or_default(&bytes)?;
    finish(&app, &read(&app, &lease)?, LeaseEnd::Rollback, "rollback").await
}

/// `POST /v1/leases/rollback`: the same, with the lease in the body.
pub(super) async fn rollback_in_body(
    State(app): State<App>,
    Received(bytes): Received,
) -> Result<Json<Value>, Refused> {
    let (lease, body::Nothing {}) = body::with_lease(&bytes)?;
    finish(&app, &read(&app, &lease)?, LeaseEnd::Rollback, "rollback").await
}

/// `POST /v1/leases/{lease}/extend`: lets it live for so long from now on.
pub(super) async fn extend(
    State(app): State<App>,
    Path(lease): Path<String>,
    Received(bytes): Received,
) -> Result<Json<Value>, Refused> {
    extend_of(&app, &lease, &body::read(&bytes)?).await
}

/// `POST /v1/leases/extend`: the same, with the lease in the body.
pub(super) async fn extend_in_body(
    State(app): State<App>,
    Received(bytes): Received,
) -> Result<Json<Value>, Refused> {
    let (lease, body) = body::with_lease(&bytes)?;
    extend_of(&app, &lease, &body).await
}

async fn extend_of(app: &App, lease: &str, body: &body::Extend) -> Result<Json<Value>, Refused> {
    let lease = read(app, lease)?;
    let repo = app.limiter().repository();
    let until = repo
        .extend_lease(&lease, Duration::from_millis(body.ttl_ms.0))
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
