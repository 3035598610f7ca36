//! Estimates how many tokens a request to a language model will use, before it is sent.
//!
//! [`EstimateLayer`] reads the body of a request, up to a bound, adds an [`Estimate`] to the extensions of the request and passes the body on.
//! [`Rules::consume_estimate`](crate::Rules::consume_estimate) takes what is estimated. After the response, the estimate is
//! [corrected](crate::RateLimitLayer::correct) to what was used.
//!
//! An estimate is the input and the longest output that the request allows. It is to be rather too high than too low: what is too
//! much comes back, and what is too little was let through beyond the limit.

mod body;
mod count;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod service;
#[cfg(feature = "tiktoken")]
mod tiktoken;

pub use body::Replayed;
pub use service::{EstimateLayer, EstimateTokens};
#[cfg(feature = "tiktoken")]
pub use tiktoken::Tiktoken;

/// Counts the tokens of a text.
pub trait Tokenizer: Send + Sync + 'static {
    /// How many tokens a model makes of a part of a prompt.
    fn count(&self, text: &str) -> u64;
}

/// A function of the text.
impl<F> Tokenizer for F
where
    F: Fn(&str) -> u64 + Send + Sync + 'static,
{
    fn count(&self, text: &str) -> u64 {
        self(text)
    }
}

/// Estimates tokens by bytes of UTF-8. English text has about four bytes in a token, code and other languages fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytesPerToken(pub std::num::NonZeroU32);

impl Default for BytesPerToken {
    /// Three bytes, which is too many tokens for English, and about right for code.
    fn default() -> Self {
        Self(const { std::num::NonZeroU32::new(3).expect("3 is not 0") })
    }
}

impl Tokenizer for BytesPerToken {
    fn count(&self, text: &str) -> u64 {
        (text.len() as u64).div_ceil(self.0.get().into())
    }
}

/// What a request asks of a language model, in the extensions of the request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Estimate {
    /// The tokens of the input, about.
    pub input: u64,
    /// The tokens of the longest output that the request allows.
    pub output: u64,
    /// The model, if the request names one.
    pub model: Option<String>,
    /// Whether the response is to be streamed.
    pub is_stream: bool,
}

impl Estimate {
    /// Input and output together.
    pub fn tokens(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}
