//! What a response says about the tokens that a request has used.
//!
//! The layer reads it while the response passes by. It neither holds up nor keeps a response: a reader has a few hundred bytes of
//! its own, however long the response is.
//!
//! | Source | Of responses of |
//! |---|---|
//! | [`openai`] | OpenAI and what is compatible with it: chat completions, completions, embeddings, responses |
//! | [`anthropic`] | Anthropic's messages |
//! | [`json`] | any other JSON: a number at a path |
//! | [`header`] | a header field |
//!
//! The first three read JSON bodies and, of streams of server-sent events, every event: the number that is met last counts. A
//! stream of chat completions has its usage only if the request asks for it (`"stream_options": {"include_usage": true}`). A body
//! with a content encoding cannot be read: put the layer inside one that compresses, and ask the upstream for none.

#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod json;
mod sse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderMap, HeaderName};
use zae_limiter::InvalidInput;

use json::Path;

/// Where a response says how many tokens were used.
pub trait Usage: Send + Sync + 'static {
    /// A reader for the body of a response, by its head. `None` if such a response does not say it: then the estimate stays.
    fn reader(&self, response: &Parts) -> Option<Box<dyn UsageReader>>;

    /// Checks what the source was made from; called when a layer is made.
    ///
    /// # Errors
    /// [`InvalidInput`] for what can never be met.
    fn check(&self) -> Result<(), InvalidInput> {
        Ok(())
    }
}

/// Reads the usage from the body of one response.
pub trait UsageReader: Send {
    /// Reads the next piece of the body. Must not keep it: a body can be of any size.
    fn read(&mut self, piece: &[u8]);

    /// The tokens that were used; `None` while that is not known.
    fn total(&self) -> Option<u64>;

    /// The tokens that were used at least, of a response that has not ended.
    fn at_least(&self) -> Option<u64> {
        self.total()
    }
}

/// A function from the head of a response.
impl<F> Usage for F
where
    F: Fn(&Parts) -> Option<u64> + Send + Sync + 'static,
{
    fn reader(&self, response: &Parts) -> Option<Box<dyn UsageReader>> {
        let total = self(response)?;
        Some(Box::new(Known(total)))
    }
}

struct Known(u64);

impl UsageReader for Known {
    fn read(&mut self, _: &[u8]) {}

    fn total(&self) -> Option<u64> {
        Some(self.0)
    }
}

/// Usage of OpenAI's form: `usage.total_tokens` of a body or the last event, and `response.usage.total_tokens` of the event
/// `response.completed`.
///
/// For limits of input and output apart, see [`json`].
pub fn openai() -> JsonUsage {
    JsonUsage::new(&[&["usage.total_tokens", "response.usage.total_tokens"]])
}

/// Usage of Anthropic's form: `input_tokens` and `output_tokens` of `usage`, added. In a stream, the former come with the event
/// `message_start`, the latter with `message_delta`.
///
/// Tokens that were written to a prompt cache (`cache_creation_input_tokens`) are added; those that were read from it are not. For a
/// limit that counts them: `usage::anthropic().plus_if_any("usage.cache_read_input_tokens").or("message.usage.cache_read_input_tokens")`.
pub fn anthropic() -> JsonUsage {
    JsonUsage::new(&[
        &["usage.input_tokens", "message.usage.input_tokens"],
        &["usage.output_tokens"],
    ])
    .plus_if_any("usage.cache_creation_input_tokens")
    .or("message.usage.cache_creation_input_tokens")
}

/// A whole number in JSON: names of objects from the outside to the inside, separated by dots, such as
/// `usage.completion_tokens`.
///
/// ```
/// use zae_limiter_tower::usage;
///
/// let input = usage::json("usage.prompt_tokens").or("response.usage.input_tokens");
/// let all = usage::json("usage.input_tokens").plus("usage.cache_creation_input_tokens");
/// # let _ = (input, all);
/// ```
pub fn json(path: &str) -> JsonUsage {
    JsonUsage::new(&[&[path]])
}

/// The value of a header field: a whole number.
pub fn header(name: HeaderName) -> impl Usage {
    move |response: &Parts| {
        let value = response.headers.get(&name)?.to_str().ok()?;
        value.trim().parse().ok()
    }
}

/// Numbers in JSON bodies and events: see [`json`].
#[derive(Clone)]
pub struct JsonUsage {
    paths: Arc<Vec<Path>>,
    /// For each path, the index of the number that it is a place of.
    of: Arc<Vec<usize>>,
    /// For each number, what it is before it has been met.
    before: Vec<Option<u64>>,
    texts: Vec<String>,
}

impl JsonUsage {
    fn new(numbers: &[&[&str]]) -> Self {
        let mut this = Self {
            paths: Arc::default(),
            of: Arc::default(),
            before: Vec::new(),
            texts: Vec::new(),
        };
        for places in numbers {
            this.before.push(None);
            for place in *places {
                this = this.or(place);
            }
        }
        this
    }

    /// Another place of the same number: what is met last counts.
    pub fn or(mut self, path: &str) -> Self {
        Arc::make_mut(&mut self.paths).push(Path::new(path));
        Arc::make_mut(&mut self.of).push(self.before.len() - 1);
        self.texts.push(path.to_owned());
        self
    }

    /// Another number, which is added. The sum is known when all have been met.
    pub fn plus(mut self, path: &str) -> Self {
        self.before.push(None);
        self.or(path)
    }

    /// Another number, which is added if it is met.
    pub fn plus_if_any(mut self, path: &str) -> Self {
        self.before.push(Some(0));
        self.or(path)
    }
}

impl fmt::Debug for JsonUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JsonUsage").field(&self.texts).finish()
    }
}

impl Usage for JsonUsage {
    fn reader(&self, response: &Parts) -> Option<Box<dyn UsageReader>> {
        let header = |name| response.headers.get(name).and_then(|value| value.to_str().ok());
        if is_encoded(&response.headers) {
            tracing::debug!("the usage of an encoded response cannot be read");
            return None;
        }
        let media_type = header(CONTENT_TYPE)?.split(';').next()?.trim();
        let is = |wanted: &str| media_type.eq_ignore_ascii_case(wanted);
        let events = if is("text/event-stream") {
            Some(sse::Reader::new())
        } else if is("application/json") || media_type.to_ascii_lowercase().ends_with("+json") {
            None
        } else {
            return None;
        };
        Some(Box::new(JsonReader {
            paths: Arc::clone(&self.paths),
            of: Arc::clone(&self.of),
            events,
            text: json::Reader::new(self.paths.len()),
            found: self.before.clone(),
            has_met: false,
        }))
    }

    fn check(&self) -> Result<(), InvalidInput> {
        match self.paths.iter().position(|path| !path.is_possible()) {
            None => Ok(()),
            Some(bad) => {
                let reason = "must be names of 1 to 64 bytes, separated by dots";
                Err(InvalidInput::of_request("usage", &self.texts[bad], reason))
            }
        }
    }
}

struct JsonReader {
    paths: Arc<Vec<Path>>,
    of: Arc<Vec<usize>>,
    /// Of a stream of events.
    events: Option<sse::Reader>,
    text: json::Reader,
    found: Vec<Option<u64>>,
    has_met: bool,
}

impl UsageReader for JsonReader {
    fn read(&mut self, piece: &[u8]) {
        let Self {
            paths,
            of,
            events,
            text,
            found,
            has_met,
        } = self;
        let mut find = |path: usize, number| {
            found[of[path]] = Some(number);
            *has_met = true;
        };
        match events {
            None => text.read(paths, piece, &mut find),
            Some(events) => events.read(piece, &mut |part| match part {
                sse::Part::Data(data) => text.read(paths, data, &mut find),
                sse::Part::End => text.restart(),
            }),
        }
    }

    fn total(&self) -> Option<u64> {
        self.found
            .iter()
            .try_fold(0_u64, |sum, number| Some(sum.saturating_add((*number)?)))
    }

    fn at_least(&self) -> Option<u64> {
        let met = self.found.iter().flatten();
        self.has_met
            .then(|| met.fold(0, |sum: u64, number| sum.saturating_add(*number)))
    }
}

/// Whether a body has another content encoding than `identity`.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(CONTENT_ENCODING).iter();
    encodings
        .map(|encoding| encoding.as_bytes().trim_ascii())
        .any(|encoding| !encoding.eq_ignore_ascii_case(b"identity"))
}
