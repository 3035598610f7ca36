//! Numbers at given places of a JSON text that arrives in pieces.
//!
//! A response can be of any size and is not kept. The reader knows how deep it is, which names of the paths it has met, and
//! at most one name or number: a few hundred bytes, for a text of any size.

use memchr::memchr2;

use super::sse::BYTE_ORDER_MARK;

/// The deepest nesting that is followed. A text that is deeper counts as malformed.
const MAX_DEPTH: u8 = 127;

/// The longest name that can match one of a path, in bytes.
const MAX_NAME: usize = 64;

/// The most digits of a number: 10^15 has 16.
const MAX_DIGITS: usize = 18;

/// Where a number is: names of objects from the outside to the inside, such as `usage`, `total_tokens`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<String>);

impl Path {
    /// Names separated by dots.
    pub(super) fn new(path: &str) -> Self {
        Self(path.split('.').map(str::to_owned).collect())
    }

    /// Whether it can be met at all.
    pub(super) fn is_possible(&self) -> bool {
        let fits = |name: &String| (1..=MAX_NAME).contains(&name.len());
        self.0.len() < usize::from(MAX_DEPTH) && self.0.iter().all(fits)
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Value,
    /// A value, or the end of an empty list.
    FirstItem,
    /// A name, or the end of an empty object.
    FirstName,
    Name,
    Colon,
    /// A comma, or the end of the list or object.
    Comma,
    /// In a text.
    Text {
        is_name: bool,
    },
    /// After a backslash in a text.
    Escape {
        is_name: bool,
    },
    /// In the digits of an escape.
    Hex {
        is_name: bool,
        left: u8,
        code: u32,
    },
    Number,
    /// In `true`, `false` or `null`.
    Word,
    /// The text has ended.
    Nothing,
    /// It is not JSON.
    Broken,
}

/// How much of one path leads to where the reader is.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// How many names lead to the object that it is in.
    matched: u8,
    /// Whether the name that was read last is the next one.
    is_hit: bool,
}

/// Reads one JSON text.
#[derive(Debug)]
pub(super) struct Reader {
    expects: Expects,
    depth: u8,
    /// For each depth, from the lowest bit: whether it is an object.
    objects: u128,
    progress: Vec<Progress>,
    /// The name, number or word that is being read.
    token: [u8; MAX_NAME],
    token_len: usize,
    /// Whether it is longer than what is kept, or holds what no path has.
    is_token_odd: bool,
}

impl Reader {
    pub(super) fn new(paths: usize) -> Self {
        Self {
            expects: Expects::Value,
            depth: 0,
            objects: 0,
            progress: vec![Progress::default(); paths],
            token: [0; MAX_NAME],
            token_len: 0,
            is_token_odd: false,
        }
    }

    /// Begins another text.
    pub(super) fn restart(&mut self) {
        self.expects = Expects::Value;
        self.depth = 0;
        self.objects = 0;
        self.progress.fill(Progress::default());
        self.begin_token();
    }

    /// Whether the text is whole: it has ended, and was JSON as far as that was looked at.
    #[cfg(any(test, fuzzing))]
    pub(super) fn is_whole(&self) -> bool {
        self.expects == Expects::Nothing
    }

    /// Reads the next piece. `found` is called with the index of a path and the number there.
    pub(super) fn read(&mut self, paths: &[Path], piece: &[u8], found: &mut impl FnMut(usize, u64)) {
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            if self.expects == Expects::Broken {
                return;
            }
            if let Expects::Text { is_name: false } = self.expects {
                // What values say does not matter.
                match memchr2(b'"', b'\\', &piece[at..]) {
                    None => return,
                    Some(skipped) => at += skipped,
                }
                self.in_text(paths, piece[at], false);
                at += 1;
                continue;
            }
            // The end of a number or word is only known by what follows, which is read once more.
            if self.step(paths, byte, found) {
                at += 1;
            }
        }
    }

    /// Reads a byte. Returns `false` if it only ended a number or word.
    fn step(&mut self, paths: &[Path], byte: u8, found: &mut impl FnMut(usize, u64)) -> bool {
        match self.expects {
            Expects::Text { is_name } => self.in_text(paths, byte, is_name),
            Expects::Escape { is_name } => self.in_escape(byte, is_name),
            Expects::Hex { is_name, left, code } => self.in_hex(byte, is_name, left, code),
            Expects::Number => {
                if byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-') {
                    self.push(byte);
                } else {
                    self.end_number(paths, found);
                    return false;
                }
            }
            Expects::Word => {
                if byte.is_ascii_lowercase() {
                    self.push(byte);
                } else {
                    let is_word = matches!(&self.token[..self.token_len], b"true" | b"false" | b"null");
                    self.value_ended();
                    if !is_word {
                        self.expects = Expects::Broken;
                    }
                    return false;
                }
            }
            _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => {}
            Expects::Value if self.depth == 0 && BYTE_ORDER_MARK.contains(&byte) => {}
            Expects::Value | Expects::FirstItem => self.at_value(byte),
            Expects::FirstName | Expects::Name => match byte {
                b'"' => {
                    self.begin_token();
                    self.expects = Expects::Text { is_name: true };
                }
                b'}' if self.expects == Expects::FirstName => self.close(),
                _ => self.expects = Expects::Broken,
            },
            Expects::Colon => {
                self.expects = if byte == b':' {
                    Expects::Value
                } else {
                    Expects::Broken
                };
            }
            Expects::Comma => match (byte, self.is_in_object()) {
                (b',', true) => self.expects = Expects::Name,
                (b',', false) => self.expects = Expects::Value,
                (b'}', true) | (b']', false) => self.close(),
                _ => self.expects = Expects::Broken,
            },
            Expects::Nothing => self.expects = Expects::Broken,
            Expects::Broken => {}
        }
        true
    }

    fn at_value(&mut self, byte: u8) {
        match byte {
            b'{' => self.open(true),
            b'[' => self.open(false),
            b']' if self.expects == Expects::FirstItem => self.close(),
            b'"' => self.expects = Expects::Text { is_name: false },
            b'-' | b'0'..=b'9' => {
                self.begin_token();
                self.push(byte);
                self.expects = Expects::Number;
            }
            b't' | b'f' | b'n' => {
                self.begin_token();
                self.push(byte);
                self.expects = Expects::Word;
            }
            _ => self.expects = Expects::Broken,
        }
    }

    fn in_text(&mut self, paths: &[Path], byte: u8, is_name: bool) {
        match byte {
            b'\\' => self.expects = Expects::Escape { is_name },
            b'"' if is_name => self.end_name(paths),
            b'"' => self.value_ended(),
            _ if is_name => self.push(byte),
            _ => {}
        }
    }

    fn in_escape(&mut self, byte: u8, is_name: bool) {
        let plain = match byte {
            b'"' | b'\\' | b'/' => Some(byte),
            b'b' => Some(8),
            b'f' => Some(12),
            b'n' => Some(b'\n'),
            b'r' => Some(b'\r'),
            b't' => Some(b'\t'),
            b'u' => {
                self.expects = Expects::Hex {
                    is_name,
                    left: 4,
                    code: 0,
                };
                return;
            }
            _ => None,
        };
        match plain {
            Some(plain) => {
                if is_name {
                    self.push(plain);
                }
                self.expects = Expects::Text { is_name };
            }
            None => self.expects = Expects::Broken,
        }
    }

    fn in_hex(&mut self, byte: u8, is_name: bool, left: u8, code: u32) {
        let Some(digit) = char::from(byte).to_digit(16) else {
            self.expects = Expects::Broken;
            return;
        };
        let (left, code) = (left - 1, code << 4 | digit);
        if left > 0 {
            self.expects = Expects::Hex { is_name, left, code };
            return;
        }
        if is_name {
            // Names of paths that are not ASCII are met in their plain form only.
            match u8::try_from(code) {
                Ok(byte) if byte.is_ascii() => self.push(byte),
                _ => self.is_token_odd = true,
            }
        }
        self.expects = Expects::Text { is_name };
    }

    fn begin_token(&mut self) {
        self.token_len = 0;
        self.is_token_odd = false;
    }

    fn push(&mut self, byte: u8) {
        match self.token.get_mut(self.token_len) {
            Some(place) => {
                *place = byte;
                self.token_len += 1;
            }
            None => self.is_token_odd = true,
        }
    }

    fn end_name(&mut self, paths: &[Path]) {
        let name = (!self.is_token_odd).then_some(&self.token[..self.token_len]);
        for (path, progress) in paths.iter().zip(&mut self.progress) {
            progress.is_hit = progress.matched + 1 == self.depth
                && path.0.get(usize::from(progress.matched)).map(String::as_bytes) == name
                && name.is_some();
        }
        self.expects = Expects::Colon;
    }

    fn end_number(&mut self, paths: &[Path], found: &mut impl FnMut(usize, u64)) {
        let digits = &self.token[..self.token_len];
        let is_whole =
            !self.is_token_odd && digits.len() <= MAX_DIGITS && digits.iter().all(u8::is_ascii_digit);
        let number = is_whole
            .then(|| std::str::from_utf8(digits).ok()?.parse().ok())
            .flatten();
        if let Some(number) = number {
            for (index, (path, progress)) in paths.iter().zip(&self.progress).enumerate() {
                if progress.is_hit && usize::from(progress.matched) + 1 == path.0.len() {
                    found(index, number);
                }
            }
        }
        self.value_ended();
    }

    fn is_in_object(&self) -> bool {
        self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1
    }

    fn open(&mut self, is_object: bool) {
        if self.depth == MAX_DEPTH {
            self.expects = Expects::Broken;
            return;
        }
        for progress in &mut self.progress {
            // What is in a list is on no path.
            progress.matched += u8::from(progress.is_hit && is_object);
            progress.is_hit = false;
        }
        let bit = 1 << self.depth;
        self.objects = if is_object {
            self.objects | bit
        } else {
            self.objects & !bit
        };
        self.depth += 1;
        self.expects = if is_object {
            Expects::FirstName
        } else {
            Expects::FirstItem
        };
    }

    fn close(&mut self) {
        self.depth -= 1;
        for progress in &mut self.progress {
            progress.matched = progress.matched.min(self.depth.saturating_sub(1));
        }
        self.value_ended();
    }

    fn value_ended(&mut self) {
        for progress in &mut self.progress {
            progress.is_hit = false;
        }
        self.expects = if self.depth == 0 {
            Expects::Nothing
        } else {
            Expects::Comma
        };
    }
}
