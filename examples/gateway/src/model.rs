//! Stands in for a language model: answers with as many words as the length of the prompt says, at once or as a stream, and counts what it
//! has served.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the model has served.
#[derive(Debug, Clone, Default)]
pub struct Served(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    tokens: AtomicU64,
}

impl Served {
    /// Requests that were answered to the end.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// The tokens of the answers that the model has told its clients.
    pub fn tokens(&self) -> u64 {
        self.0.tokens.load(Ordering::SeqCst)
    }

    fn add(&self, tokens: u64) {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        self.0.tokens.fetch_add(tokens, Ordering::SeqCst);
    }
}

#[derive(Debug, Deserialize)]
struct Completion {
    messages: Vec<Value>,
    #[serde(default = "sixteen")]
    max_tokens: u64,
    #[serde(default)]
    stream: bool,
}

fn sixteen() -> u64 {
    16
}

/// The model, with the time between two words.
pub fn app(served: Served, pause: Duration) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .with_state((served, pause))
}

async fn complete(
    State((served, pause)): State<(Served, Duration)>,
    Json(request): Json<Completion>,
) -> Response {
    let prompt: usize = request
        .messages
        .iter()
        .map(|message| message.to_string().len())
        .sum();
    let input = (prompt as u64).div_ceil(6);
    if input.is_multiple_of(13) {
        return (StatusCode::SERVICE_UNAVAILABLE, "overloaded").into_response();
    }
    let output = (input * 7 % 40 + 1).min(request.max_tokens);
    let usage =
        json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output });
    if !request.stream {
        tokio::time::sleep(pause).await;
        served.add(input + output);
        let message =
            json!({ "role": "assistant", "content": "word ".repeat(usize::try_from(output).unwrap_or(0)) });
        return Json(json!({ "choices": [{ "message": message }], "usage": usage })).into_response();
    }
    let words = stream::iter(0..output).then(move |_| async move {
        tokio::time::sleep(pause).await;
        event(&json!({ "choices": [{ "delta": { "content": "word " } }], "usage": null }))
    });
    let last = stream::once(async move {
        served.add(input + output);
        event(&json!({ "choices": [], "usage": usage })) + "data: [DONE]\n\n"
    });
    let body = Body::from_stream(words.chain(last).map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}
