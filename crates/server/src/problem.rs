//! The body of an answer that is not a success.

use serde_json::{Value, json};

/// `error` is a word for programs, `message` a sentence.
pub(crate) fn problem(error: &str, message: &str) -> Value {
    json!({ "error": error, "message": message })
}
