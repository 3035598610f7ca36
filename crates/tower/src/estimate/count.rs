//! Counts the tokens of a request's body, without a copy of it.
//!
//! The body is walked once. Besides the body, nothing is kept of it but the longest text that has escapes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Estimate, Tokenizer};

/// The longest name of a model that is kept, in bytes.
const MAX_MODEL: usize = 256;

/// How a request is estimated.
pub(super) struct Terms<'t> {
    pub(super) tokenizer: &'t dyn Tokenizer,
    /// The output of a request that has no bound.
    pub(super) default_output: u64,
    /// The input of a picture, recording or file.
    pub(super) attachment: u64,
}

impl Terms<'_> {
    /// The estimate of a body.
    pub(super) fn of(&self, body: &[u8]) -> Estimate {
        self.of_json(body).unwrap_or_else(|| self.of_bytes(body))
    }

    /// That of a request in JSON.
    fn of_json(&self, body: &[u8]) -> Option<Estimate> {
        let mut reader = serde_json::Deserializer::from_slice(body);
        let request = reader.deserialize_map(Request(self)).ok()?;
        reader.end().ok()?;
        let Asked {
            estimate,
            choices,
            output,
        } = request;
        let output = output.unwrap_or(self.default_output);
        Some(Estimate {
            output: output.saturating_mul(choices.max(1)),
            ..estimate
        })
    }

    /// That of a body that is not understood: all of it is input.
    fn of_bytes(&self, body: &[u8]) -> Estimate {
        let input = body.utf8_chunks().fold(0_u64, |sum, chunk| {
            let invalid = chunk.invalid().len() as u64;
            sum.saturating_add(self.tokenizer.count(chunk.valid()))
                .saturating_add(invalid)
        });
        Estimate {
            input,
            output: if body.is_empty() { 0 } else { self.default_output },
            ..Estimate::default()
        }
    }
}

/// What a request has said.
#[derive(Default)]
struct Asked {
    estimate: Estimate,
    choices: u64,
    output: Option<u64>,
}

struct Request<'t>(&'t Terms<'t>);

impl<'de> Visitor<'de> for Request<'_> {
    type Value = Asked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Asked, A::Error> {
        let mut request = Asked::default();
        let add = |request: &mut Asked, tokens| {
            request.estimate.input = request.estimate.input.saturating_add(tokens);
        };
        while let Some(name) = map.next_key_seed(Name)? {
            match name {
                Known::Input => {
                    let tokens = map.next_value_seed(Input(self.0))?;
                    add(&mut request, tokens);
                }
                Known::Model => request.estimate.model = map.next_value_seed(Scalar)?.text(),
                Known::Stream => request.estimate.is_stream = map.next_value_seed(Scalar)? == One::Yes,
                // The largest, if a request has several.
                Known::Output => {
                    if let One::Number(tokens) = map.next_value_seed(Scalar)? {
                        request.output = request.output.max(Some(tokens));
                    }
                }
                Known::Choices => {
                    if let One::Number(choices) = map.next_value_seed(Scalar)? {
                        request.choices = request.choices.max(choices);
                    }
                }
                Known::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(request)
    }
}

/// The members that matter, of OpenAI's and Anthropic's requests.
enum Known {
    Input,
    Model,
    Stream,
    Output,
    Choices,
    Other,
}

struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Known;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Known, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Known;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Known, E> {
        Ok(match name {
            "messages" | "prompt" | "suffix" | "input" | "instructions" | "system" | "tools"
            | "functions" | "response_format" | "text" => Known::Input,
            "model" => Known::Model,
            "stream" => Known::Stream,
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" | "max_tokens_to_sample" => {
                Known::Output
            }
            "n" | "best_of" => Known::Choices,
            _ => Known::Other,
        })
    }
}

/// A value other than a list or an object.
#[derive(PartialEq, Eq)]
enum One {
    Text(String),
    Number(u64),
    Yes,
    Other,
}

impl One {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

struct Scalar;

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = One;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<One, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = One;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<One, E> {
        let fits = text.len() <= MAX_MODEL;
        Ok(if fits {
            One::Text(text.to_owned())
        } else {
            One::Other
        })
    }

    fn visit_bool<E>(self, yes: bool) -> Result<One, E> {
        Ok(if yes { One::Yes } else { One::Other })
    }

    fn visit_u64<E>(self, number: u64) -> Result<One, E> {
        Ok(One::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<One, E> {
        Ok(One::Other)
    }

    fn visit_f64<E>(self, number: f64) -> Result<One, E> {
        // Larger than any limit, or no number of tokens.
        Ok(if number >= 0.0 {
            One::Number(number.ceil() as u64)
        } else {
            One::Other
        })
    }

    fn visit_unit<E>(self) -> Result<One, E> {
        Ok(One::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<One, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(One::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<One, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(One::Other)
    }
}

/// Counts what a model reads: texts, names of members, and numbers, which are tokens in a prompt that has been encoded.
#[derive(Clone, Copy)]
struct Input<'t>(&'t Terms<'t>);

impl<'de> DeserializeSeed<'de> for Input<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Input<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("input")
    }

    fn visit_str<E>(self, text: &str) -> Result<u64, E> {
        Ok(self.0.tokenizer.count(text))
    }

    fn visit_bool<E>(self, _: bool) -> Result<u64, E> {
        Ok(1)
    }

    fn visit_u64<E>(self, _: u64) -> Result<u64, E> {
        Ok(1)
    }

    fn visit_i64<E>(self, _: i64) -> Result<u64, E> {
        Ok(1)
    }

    fn visit_f64<E>(self, _: f64) -> Result<u64, E> {
        Ok(1)
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<u64, A::Error> {
        let mut sum = 0_u64;
        while let Some(tokens) = list.next_element_seed(self)? {
            sum = sum.saturating_add(tokens);
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let mut sum = 0_u64;
        while let Some((name, is_attachment)) = map.next_key_seed(Member(self.0))? {
            let value = if is_attachment {
                map.next_value::<IgnoredAny>()?;
                self.0.attachment
            } else {
                map.next_value_seed(self)?
            };
            sum = sum.saturating_add(name).saturating_add(value);
        }
        Ok(sum)
    }
}

/// The tokens of a member's name, and whether it holds an attachment, whose encoding says nothing about its tokens.
struct Member<'t>(&'t Terms<'t>);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = (u64, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(u64, bool), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Member<'_> {
    type Value = (u64, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<(u64, bool), E> {
        let is_attachment = matches!(
            name,
            "image_url" | "input_audio" | "file" | "file_data" | "source" | "image"
        );
        Ok((self.0.tokenizer.count(name), is_attachment))
    }
}
