//! Counts the tokens of a request's body, without a copy of it.
//!
//! The body is walked once. Besides the body, nothing is kept of it but the longest text that has escapes.
//!
//! Upstreams differ in how they read JSON: some match names without regard to case, or take numbers in texts. Where they may, the
//! larger estimate counts.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Estimate, Tokenizer};

/// The longest name of a model that is kept, in bytes.
const MAX_MODEL: usize = 256;

/// How many encoded bytes of an attachment count as a token, beside the fixed number.
const BYTES_PER_TOKEN: u64 = 64;

/// The name by which `serde_json` passes on a number with the feature `arbitrary_precision`.
const PRECISE_NUMBER: &str = "$serde_json::private::Number";

/// How a request is estimated.
pub(super) struct Terms<'t> {
    pub(super) tokenizer: &'t dyn Tokenizer,
    /// The output of a request that has no bound.
    pub(super) default_output: u64,
    /// The input of a picture, recording or file.
    pub(super) attachment: u64,
}

impl Terms<'_> {
    /// The estimate of a body: none if it is not a JSON object, or says two different things.
    pub(super) fn of(&self, body: &[u8]) -> Option<Estimate> {
        if body.is_empty() {
            return Some(Estimate::default());
        }
        let mut reader = serde_json::Deserializer::from_slice(body);
        let asked = reader.deserialize_map(Request(self)).ok()?;
        reader.end().ok()?;
        // Some upstreams take 0 for no bound.
        let output = asked.output.filter(|output| *output > 0);
        let output = output.unwrap_or(self.default_output);
        let answers = asked.choices.max(1).saturating_mul(asked.prompts.max(1));
        Some(Estimate {
            output: output.saturating_mul(answers),
            ..asked.estimate
        })
    }

    /// That of a body that is not understood: all of it is input.
    pub(super) fn of_bytes(&self, body: &[u8]) -> Estimate {
        let input = body.utf8_chunks().fold(0_u64, |sum, chunk| {
            let invalid = chunk.invalid().len() as u64;
            sum.saturating_add(self.tokenizer.count(chunk.valid()))
                .saturating_add(invalid)
        });
        Estimate {
            input,
            output: self.default_output,
            ..Estimate::default()
        }
    }
}

/// What a request has said.
#[derive(Default)]
struct Asked {
    estimate: Estimate,
    /// Whether it has named a model, also by what is not a text.
    has_model: bool,
    /// Answers to each prompt.
    choices: u64,
    /// Prompts that are answered one by one.
    prompts: u64,
    output: Option<u64>,
}

struct Request<'t>(&'t Terms<'t>);

impl<'de> Visitor<'de> for Request<'_> {
    type Value = Asked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Asked, A::Error> {
        let mut asked = Asked::default();
        while let Some(name) = map.next_key_seed(Name)? {
            match name {
                Known::Model => {
                    let model = map.next_value_seed(Scalar)?.text();
                    if std::mem::replace(&mut asked.has_model, true) && asked.estimate.model != model {
                        return Err(A::Error::custom("two models"));
                    }
                    asked.estimate.model = model;
                }
                Known::Stream => asked.estimate.is_stream |= map.next_value_seed(Scalar)? == One::Yes,
                Known::Output => {
                    asked.output = asked.output.max(map.next_value_seed(Scalar)?.number());
                }
                Known::Choices => {
                    let choices = map.next_value_seed(Scalar)?.number();
                    asked.choices = asked.choices.max(choices.unwrap_or(0));
                }
                Known::Prompt | Known::Input => {
                    let read = map.next_value_seed(Input(self.0))?;
                    asked.estimate.input = asked.estimate.input.saturating_add(read.tokens);
                    if matches!(name, Known::Prompt) {
                        asked.prompts = asked.prompts.max(read.parts);
                    }
                }
            }
        }
        Ok(asked)
    }
}

/// The members that are not simply input, of OpenAI's and Anthropic's requests.
#[derive(Clone, Copy)]
enum Known {
    Prompt,
    Model,
    Stream,
    Output,
    Choices,
    Input,
}

const OUTPUT: [&str; 7] = [
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens_to_sample",
    "max_new_tokens",
    "n_predict",
    "num_predict",
];

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
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let known = if OUTPUT.into_iter().any(is) {
            Known::Output
        } else if is("model") {
            Known::Model
        } else if is("stream") {
            Known::Stream
        } else if is("n") || is("best_of") {
            Known::Choices
        } else if is("prompt") {
            Known::Prompt
        } else {
            Known::Input
        };
        Ok(known)
    }
}

/// A value that is not a list or an object.
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

    /// Also one in a text.
    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
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
        f.write_str("a text, a number, true, false or null")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<One, E> {
        if text.len() > MAX_MODEL {
            return Err(E::custom("a text that is too long"));
        }
        Ok(One::Text(text.to_owned()))
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
        // Larger than any limit, or not a number of tokens.
        Ok(if number >= 0.0 {
            One::Number(number.ceil() as u64)
        } else {
            One::Other
        })
    }

    fn visit_unit<E>(self) -> Result<One, E> {
        Ok(One::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<One, A::Error> {
        let first = map.next_entry::<String, String>()?;
        match first.filter(|(name, _)| name == PRECISE_NUMBER) {
            Some((_, number)) => Ok(One::Number(number.parse().unwrap_or(u64::MAX))),
            None => Err(A::Error::custom("an object where a value is expected")),
        }
    }
}

/// What a value adds to the input.
#[derive(Default)]
struct Read {
    tokens: u64,
    /// Of a list, how many of its parts are texts or lists.
    parts: u64,
    /// What it adds in place of that if it is an attachment.
    encoded: Option<u64>,
    /// Whether it is a list or a text, and not a number.
    is_part: bool,
    /// Whether it says that its object is a text: the value `text`, or a media type of texts.
    says_text: bool,
}

impl Read {
    fn tokens(tokens: u64) -> Self {
        Self {
            tokens,
            ..Self::default()
        }
    }
}

/// Counts what a model reads: texts, names of members, and numbers, which are tokens in a prompt that has been encoded.
#[derive(Clone, Copy)]
struct Input<'t>(&'t Terms<'t>);

impl<'de> DeserializeSeed<'de> for Input<'_> {
    type Value = Read;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Input<'_> {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("input")
    }

    fn visit_str<E>(self, text: &str) -> Result<Read, E> {
        let encoded = is_encoded(text).then(|| {
            let bytes = text.len() as u64 / BYTES_PER_TOKEN;
            self.0.attachment.saturating_add(bytes)
        });
        Ok(Read {
            tokens: self.0.tokenizer.count(text),
            encoded,
            is_part: true,
            says_text: text == "text" || text.starts_with("text/"),
            ..Read::default()
        })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Read, E> {
        Ok(Read::tokens(1))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Read, E> {
        Ok(Read::tokens(1))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Read, E> {
        Ok(Read::tokens(1))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Read, E> {
        Ok(Read::tokens(1))
    }

    fn visit_unit<E>(self) -> Result<Read, E> {
        Ok(Read::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Read, A::Error> {
        let mut sum = Read {
            is_part: true,
            ..Read::default()
        };
        while let Some(read) = list.next_element_seed(self)? {
            sum.tokens = sum.tokens.saturating_add(read.tokens);
            sum.parts += u64::from(read.is_part);
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read, A::Error> {
        let (mut tokens, mut says_text) = (0_u64, false);
        // Attachments, as texts and as what they are.
        let (mut as_text, mut as_attachment) = (0_u64, 0_u64);
        while let Some(name) = map.next_key_seed(Member(self.0))? {
            let read = map.next_value_seed(self)?;
            tokens = tokens.saturating_add(name.tokens);
            says_text |= name.is_kind && read.says_text;
            match read.encoded.filter(|_| name.is_attachment) {
                Some(encoded) => {
                    as_text = as_text.saturating_add(read.tokens);
                    as_attachment = as_attachment.saturating_add(encoded);
                }
                None => tokens = tokens.saturating_add(read.tokens),
            }
        }
        let attached = if says_text { as_text } else { as_attachment };
        Ok(Read::tokens(tokens.saturating_add(attached)))
    }
}

/// Whether a text is base64, by itself or in a `data:` URL.
fn is_encoded(text: &str) -> bool {
    let data = text
        .strip_prefix("data:")
        .and_then(|url| url.split_once(";base64,"));
    let data = data.map_or(text, |(_, data)| data);
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte);
    data.len() >= 256 && data.bytes().all(is_base64)
}

/// What the name of a member says.
struct Named {
    tokens: u64,
    /// Whether its value can be an attachment.
    is_attachment: bool,
    /// Whether its value says what the object is.
    is_kind: bool,
}

struct Member<'t>(&'t Terms<'t>);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Named;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Named, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Member<'_> {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Named, E> {
        Ok(Named {
            tokens: self.0.tokenizer.count(name),
            is_attachment: matches!(name, "url" | "image_url" | "data" | "file_data"),
            is_kind: matches!(name, "type" | "media_type"),
        })
    }
}
