//! The reader of requests: what is estimated is not less than what a parser finds, however the body is written and cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zae_limiter_fuzz::{Tree, bytes, pieces, written};
use zae_limiter_tower::fuzzing::{estimate, estimate_of_bytes, joined};

// Each input is read as it is, and as the choices of a well-formed text.
fuzz_target!(|input: &[u8]| {
    check(input);
    check(written::object(input).as_bytes());
});

fn check(body: &[u8]) {
    assert_eq!(joined(&pieces(body), body.len()).as_deref(), Some(body));
    assert_eq!(joined(&bytes(body), body.len()).as_deref(), Some(body));
    assert!(body.is_empty() || joined(&pieces(body), body.len() - 1).is_none());
    assert!(estimate_of_bytes(body).input >= (body.len() as u64).div_ceil(3));

    let estimated = estimate(body);
    let tree = serde_json::from_slice::<Tree>(body);
    let Ok(Tree::Object(members)) = &tree else {
        assert!(estimated.is_none() || body.is_empty());
        return;
    };
    let asked = Asked::of(members);
    assert_eq!(estimated.is_some(), asked.is_some());
    let (Some(estimated), Some(asked)) = (estimated, asked) else {
        return;
    };
    assert_eq!(estimated.output, asked.output());
    assert_eq!(estimated.model, asked.model.flatten());
    assert_eq!(estimated.is_stream, asked.is_stream);
    assert!(estimated.input >= asked.least_input);

    let tree = Tree::Object(members.clone());
    if !tree.has_float() {
        let rewritten = tree.rewritten();
        assert_eq!(estimate(rewritten.as_bytes()), Some(estimated), "{rewritten}");
    }
}

/// What the members of a request say.
#[derive(Default)]
struct Asked {
    model: Option<Option<String>>,
    is_stream: bool,
    bound: Option<u64>,
    choices: u64,
    prompts: u64,
    least_input: u64,
}

impl Asked {
    /// `None` if the request must be refused.
    fn of(members: &[(String, Tree)]) -> Option<Self> {
        let mut asked = Self::default();
        for (name, value) in members {
            match name.to_ascii_lowercase().as_str() {
                "model" => {
                    let model = match scalar(value)? {
                        Tree::Text(text) => Some(text.clone()),
                        _ => None,
                    };
                    if *asked.model.get_or_insert(model.clone()) != model {
                        return None;
                    }
                }
                "stream" => asked.is_stream |= *scalar(value)? == Tree::Bool(true),
                "max_tokens"
                | "max_completion_tokens"
                | "max_output_tokens"
                | "max_tokens_to_sample"
                | "max_new_tokens"
                | "n_predict"
                | "num_predict" => {
                    asked.bound = asked.bound.max(number(scalar(value)?));
                }
                "n" | "best_of" => {
                    asked.choices = asked.choices.max(number(scalar(value)?).unwrap_or(0));
                }
                "prompt" => {
                    if let Tree::List(parts) = value {
                        let is_part = |part: &&Tree| matches!(part, Tree::Text(_) | Tree::List(_));
                        asked.prompts = asked.prompts.max(parts.iter().filter(is_part).count() as u64);
                    }
                    asked.least_input += least_input(value);
                }
                _ => asked.least_input += least_input(value),
            }
        }
        Some(asked)
    }

    fn output(&self) -> u64 {
        let bound = self.bound.filter(|bound| *bound > 0).unwrap_or(1024);
        bound.saturating_mul(self.choices.max(1).saturating_mul(self.prompts.max(1)))
    }
}

/// A value that is neither a list nor an object nor a long text.
fn scalar(value: &Tree) -> Option<&Tree> {
    match value {
        Tree::List(_) | Tree::Object(_) => None,
        Tree::Text(text) if text.len() > 256 => None,
        _ => Some(value),
    }
}

fn number(value: &Tree) -> Option<u64> {
    match value {
        Tree::Whole(number) => Some(*number),
        Tree::Float(number) if *number >= 0.0 => Some(number.ceil() as u64),
        Tree::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A third of the bytes of each text, or what an attachment of that size takes.
fn least_input(value: &Tree) -> u64 {
    match value {
        Tree::Text(text) => {
            let bytes = text.len() as u64;
            bytes.div_ceil(3).min(1500 + bytes / 64)
        }
        Tree::List(items) => items.iter().map(least_input).sum(),
        Tree::Object(members) => members
            .iter()
            .map(|(name, value)| (name.len() as u64).div_ceil(3) + least_input(value))
            .sum(),
        _ => 0,
    }
}
