//! Text from bytes that arrive in pieces.

/// Makes text of a log that arrives in pieces: invalid UTF-8 becomes U+FFFD, and a character that is cut between two
/// pieces stays whole.
#[derive(Debug, Default)]
pub struct LossyText {
    /// The beginning of a character whose end has not come yet.
    cut: Vec<u8>,
}

impl LossyText {
    /// The text up to here, as far as it is certain. At most three bytes are held back.
    pub fn push(&mut self, piece: &[u8]) -> String {
        self.cut.extend_from_slice(piece);
        let certain = self.cut.len() - cut_at_end(&self.cut);
        let text = String::from_utf8_lossy(&self.cut[..certain]).into_owned();
        self.cut.drain(..certain);
        text
    }

    /// The text that was held back, at the end of the log.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.cut).into_owned()
    }
}

/// How many bytes at the end may be the beginning of a character.
fn cut_at_end(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|&count| {
            let end = &bytes[bytes.len() - count..];
            std::str::from_utf8(end).is_err_and(|err| err.valid_up_to() == 0 && err.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_makes_no_difference_where_the_pieces_end() {
        // Two, three and four bytes a character; a stray one, a cut one in the middle, an impossible one, a cut one
        // at the end.
        let log: &[u8] =
            b"a\xc3\xbc \xe2\x82\xac \xf0\x9f\xa6\x80\xbf \xe2\x82x \xff\xc0\xaf ok \xf0\x9f\xa6";
        let want = String::from_utf8_lossy(log);
        for first in 0..=log.len() {
            for second in first..=log.len() {
                let mut text = LossyText::default();
                let mut got = text.push(&log[..first]);
                got += &text.push(&log[first..second]);
                got += &text.push(&log[second..]);
                got += &text.finish();
                assert_eq!(got, want, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn nothing_is_held_back_without_need() {
        let mut text = LossyText::default();
        assert_eq!(text.push(b"line\n"), "line\n");
        assert_eq!(text.push(b"\xff"), "\u{fffd}");
        assert_eq!(text.push(b"\xe2\x82"), "");
        assert_eq!(text.push(b"\xac!"), "\u{20ac}!");
        assert_eq!(text.finish(), "");
    }
}
