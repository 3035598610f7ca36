//! Texts that are well formed, so that inputs reach what is behind the checks: each byte of an input is a choice.

/// Names of members: those of [`PATHS`](crate::PATHS), and of requests.
const NAMES: [&str; 24] = [
    "a",
    "b",
    "ab",
    "usage",
    "total_tokens",
    "c",
    "\\u0061",
    "\\\"",
    "model",
    "Model",
    "stream",
    "max_tokens",
    "MAX_TOKENS",
    "num_predict",
    "n",
    "best_of",
    "prompt",
    "messages",
    "content",
    "type",
    "data",
    "url",
    "media_type",
    "text",
];

/// Numbers and words, at the bounds of what is read.
const WORDS: [&str; 20] = [
    "0",
    "1",
    "7",
    "-0",
    "-1",
    "12",
    "1.0",
    "1e3",
    "0.5",
    "1e30",
    "999999999999999999",
    "1000000000000000000",
    "18446744073709551615",
    "18446744073709551616",
    "9007199254740993",
    "true",
    "false",
    "null",
    "[]",
    "{}",
];

/// Texts of members.
const TEXTS: [&str; 12] = [
    "",
    "x",
    "text",
    "text/plain",
    "image/png",
    "12",
    " 7 ",
    "m",
    "\\\\",
    "\\ud83d\\ude00",
    "\\n",
    "{\\\"a\\\":1}",
];

/// What separates tokens.
const SPACES: [&str; 6] = ["", "", "", " ", "\n", "\r\n\t"];

/// The choices of an input. When they have run out, all are 0.
struct Choices<'d>(&'d [u8]);

impl Choices<'_> {
    fn of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[usize::from(self.byte()) % texts.len()]
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }
}

/// A JSON object.
pub fn object(choices: &[u8]) -> String {
    let mut text = String::new();
    members(&mut Choices(choices), 0, &mut text);
    text
}

/// A stream of events, some of whose data is divided into lines.
pub fn events(choices: &[u8]) -> String {
    let (mut choices, mut stream) = (Choices(choices), String::new());
    while !choices.0.is_empty() && stream.len() < 1 << 14 {
        let end = choices.of(&["\n", "\r\n", "\r"]);
        match choices.byte() % 8 {
            0 => stream.push_str("event: e"),
            1 => stream.push_str(": comment"),
            2 => stream.push_str("data"),
            3 => {}
            _ => {
                let mut text = String::new();
                members(&mut choices, 0, &mut text);
                let prefix = choices.of(&["data: ", "data:", "data: ", "\u{feff}data:"]);
                // A line ends before a space that the text has anyway, or within.
                let cut = usize::from(choices.byte()) % (text.len() + 1);
                let cut = (0..=cut)
                    .rev()
                    .find(|cut| text.is_char_boundary(*cut))
                    .unwrap_or(0);
                let (one, two) = text.split_at(cut);
                let one = one.replace(['\r', '\n'], " ");
                stream.push_str(prefix);
                stream.push_str(&one);
                if choices.byte() % 2 == 0 {
                    stream.push_str(end);
                    stream.push_str("data: ");
                }
                stream.push_str(&two.replace(['\r', '\n'], " "));
                stream.push_str(end);
            }
        }
        stream.push_str(end);
    }
    stream
}

fn members(choices: &mut Choices<'_>, depth: u8, text: &mut String) {
    text.push('{');
    for index in 0..choices.byte() % 5 {
        text.push_str(if index == 0 { "" } else { "," });
        text.push_str(choices.of(&SPACES));
        text.push('"');
        text.push_str(choices.of(&NAMES));
        text.push_str("\":");
        value(choices, depth + 1, text);
    }
    text.push('}');
}

fn value(choices: &mut Choices<'_>, depth: u8, text: &mut String) {
    text.push_str(choices.of(&SPACES));
    match choices.byte() % 8 {
        0..3 if depth < 6 => members(choices, depth, text),
        3 if depth < 6 => {
            text.push('[');
            for index in 0..choices.byte() % 4 {
                text.push_str(if index == 0 { "" } else { "," });
                value(choices, depth + 1, text);
            }
            text.push(']');
        }
        4 => {
            text.push('"');
            text.push_str(choices.of(&TEXTS));
            // Long enough for an attachment.
            if choices.byte() % 8 == 7 {
                text.push_str(&"QUJD".repeat(usize::from(choices.byte())));
            }
            text.push('"');
        }
        _ => text.push_str(choices.of(&WORDS)),
    }
}
