//! Looking at limits without taking tokens.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use zae_limiter::{Availability, Error, InvalidInput};

use super::answer::{Refused, limits};
use super::body::{self, Amounts, Look, Received};
use crate::app::App;

/// `POST /v1/check`: whether a request would be admitted.
pub(super) async fn check(State(app): State<App>, Received(bytes): Received) -> Result<Json<Value>, Refused> {
    let body: Look = body::read(&bytes)?;
    look(&app, &body).await.map(Json)
}

/// What `GET /v1/availability` looks at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    entity_id: String,
    resource: String,
}

/// `GET /v1/availability?entity_id=…&resource=…`: how the limits stand.
pub(super) async fn availability(
    State(app): State<App>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(Asked { entity_id, resource }) = asked.map_err(|err| {
        InvalidInput::of_request(
            "query",
            "",
            format!("must be entity_id=…&resource=…: {}", err.body_text()),
        )
    })?;
    let look_at = Look {
        entity_id,
        resource,
        consume: Amounts::default(),
    };
    look(&app, &look_at).await.map(Json)
}

async fn look(app: &App, body: &Look) -> Result<Value, Refused> {
    let mut check = app.limiter().check(&body.entity_id, &body.resource);
    for (limit, tokens) in &body.consume.0 {
        check = check.needed(limit, *tokens);
    }
    let found = check.await.map_err(|err| match err {
        Error::InvalidInput(err) => {
            let field = err.field().replacen("needed", "consume", 1);
            err.in_field(field).into()
        }
        err => Refused::of(&err, app.limiter().repository()),
    })?;
    Ok(answer(&found))
}

fn answer(found: &Availability) -> Value {
    let disabled = found.disabled.as_ref();
    json!({
        "entity_id": found.entity.as_str(),
        "resource": found.resource.as_str(),
        "admitted": found.is_admitted(),
        "retry_after_ms": found.retry_after().map(|wait| wait.as_millis() as u64),
        "disabled_by": disabled.map(|by| json!({ "entity_id": by.entity.as_str(), "level": by.level })),
        "bypassed": found.is_bypassed(),
        "limits": limits(&found.statuses),
    })
}
