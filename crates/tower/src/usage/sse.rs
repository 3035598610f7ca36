//! The data of server-sent events that arrive in pieces, by the format of the
//! [HTML standard](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
//!
//! Lines are passed on as they arrive and not kept.

/// What of a line is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The field's name, of which this many bytes are those of [`DATA`].
    Name(usize),
    /// The first byte of the value, which may be a space that does not belong to it.
    First,
    Value,
    /// A line other than data.
    Other,
}

const DATA: &[u8] = b"data:";

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// A piece of the data of an event.
    Data(&'a [u8]),
    /// The event has ended.
    End,
}

/// Reads a stream of events.
#[derive(Debug)]
pub(super) struct Reader {
    line: Line,
    is_empty: bool,
    /// How many bytes of a byte order mark, which does not count, have come; all, once another byte has.
    mark: usize,
    /// Whether the last byte was a carriage return, which a line feed may follow.
    after_return: bool,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            line: Line::Name(0),
            is_empty: true,
            mark: 0,
            after_return: false,
        }
    }

    /// Reads the next piece.
    pub(super) fn read<'a>(&mut self, piece: &'a [u8], pass: &mut impl FnMut(Part<'a>)) {
        let mut rest = piece;
        while let Some(&byte) = rest.first() {
            if BYTE_ORDER_MARK.get(self.mark) == Some(&byte) {
                self.mark += 1;
                rest = &rest[1..];
                continue;
            }
            if (1..BYTE_ORDER_MARK.len()).contains(&self.mark) {
                // The part of a mark belongs to the name of the first field, which is not `data` then.
                (self.line, self.is_empty) = (Line::Other, false);
            }
            self.mark = BYTE_ORDER_MARK.len();
            if std::mem::take(&mut self.after_return) && byte == b'\n' {
                rest = &rest[1..];
                continue;
            }
            if matches!(byte, b'\n' | b'\r') {
                self.after_return = byte == b'\r';
                self.end_line(pass);
                rest = &rest[1..];
                continue;
            }
            self.is_empty = false;
            match self.line {
                Line::Name(matched) => {
                    self.line = if DATA[matched] != byte {
                        Line::Other
                    } else if matched + 1 == DATA.len() {
                        Line::First
                    } else {
                        Line::Name(matched + 1)
                    };
                    rest = &rest[1..];
                }
                Line::First => {
                    self.line = Line::Value;
                    if byte == b' ' {
                        rest = &rest[1..];
                    }
                }
                Line::Value | Line::Other => {
                    let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                    let (text, after) = rest.split_at(end);
                    if self.line == Line::Value {
                        pass(Part::Data(text));
                    }
                    rest = after;
                }
            }
        }
    }

    fn end_line<'a>(&mut self, pass: &mut impl FnMut(Part<'a>)) {
        if self.is_empty {
            pass(Part::End);
        } else if matches!(self.line, Line::First | Line::Value) {
            // Lines of one event are joined by line feeds.
            pass(Part::Data(b"\n"));
        }
        self.line = Line::Name(0);
        self.is_empty = true;
    }
}
