//! Counts tokens as the models of OpenAI do.

use std::fmt;

use super::Tokenizer;

/// The longest text that is encoded at once, in bytes.
const LONGEST: usize = 64 << 10;

/// An encoding of OpenAI's models, by the crate `tiktoken-rs`. Its tables are in the executable; nothing is downloaded.
///
/// Counting takes some milliseconds for a hundred thousand characters, on the thread that serves the request. Bound the bodies
/// with [`max_body`](super::EstimateLayer::max_body).
#[derive(Clone, Copy)]
pub struct Tiktoken(&'static tiktoken_rs::CoreBPE);

impl fmt::Debug for Tiktoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tiktoken")
    }
}

impl Tiktoken {
    /// The encoding of GPT-4o and later models.
    pub fn o200k() -> Self {
        Self(tiktoken_rs::o200k_base_singleton())
    }

    /// The encoding of GPT-4 and GPT-3.5.
    pub fn cl100k() -> Self {
        Self(tiktoken_rs::cl100k_base_singleton())
    }
}

impl Tokenizer for Tiktoken {
    fn count(&self, text: &str) -> u64 {
        // The encoder gives up on very long runs of one kind of character. A cut adds a token at most.
        let mut rest = text;
        let mut sum = 0;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(LONGEST.min(rest.len())));
            sum += self.0.encode_ordinary(piece).len() as u64;
            rest = after;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_counted_as_open_ai_does() {
        assert_eq!(Tiktoken::cl100k().count("tiktoken is great!"), 6);
        assert_eq!(Tiktoken::o200k().count(""), 0);
    }

    /// The encoder would panic.
    #[test]
    fn a_very_long_run_of_spaces_is_counted() {
        let text = " ".repeat(1_000_001) + "a";
        assert!(Tiktoken::o200k().count(&text) > 1000);
    }
}
