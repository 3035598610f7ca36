//! Records of a CSV file: RFC 4180, with commas, semicolons or tabs.

use std::io::BufRead;

use super::lines::{LONGEST, LineError, Lines};

/// Reads records. A record can have several lines, if a quoted cell has line breaks.
#[derive(Debug)]
pub(crate) struct Records<R> {
    lines: Lines<R>,
    delimiter: u8,
    record: Record,
}

/// The cells of one record.
#[derive(Debug, Default)]
pub(crate) struct Record {
    text: Vec<u8>,
    ends: Vec<usize>,
    line: u64,
}

impl Record {
    /// The number of its first line.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// How many cells it has.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A cell, without quotes.
    pub(crate) fn cell(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let begin = match index {
            0 => 0,
            _ => *self.ends.get(index - 1)?,
        };
        self.text.get(begin..end)
    }

    /// All cells, in order.
    pub(crate) fn cells(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|index| self.cell(index))
    }

    fn end_cell(&mut self) {
        self.ends.push(self.text.len());
    }
}

/// Where the parser is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Begin,
    Plain,
    Quoted,
    /// Behind a quote in a quoted cell: its end, or the first half of a quote in it.
    Quote,
}

impl<R: BufRead> Records<R> {
    /// Reads from `lines`, of which the first one was read already. It says what separates cells.
    pub(crate) fn begun(lines: Lines<R>) -> Self {
        let count = |delimiter| lines.line().split(|byte| *byte == delimiter).count();
        // The first of equals: a comma if there is none.
        let mut delimiter = b',';
        for other in [b';', b'\t'] {
            if count(other) > count(delimiter) {
                delimiter = other;
            }
        }
        Self {
            lines,
            delimiter,
            record: Record::default(),
        }
    }

    /// The record that was read last.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// The line that was read last.
    pub(crate) fn number(&self) -> u64 {
        self.lines.number()
    }

    /// Reads the line that the first one is, as a record.
    pub(crate) fn first(&mut self) -> Result<(), LineError> {
        self.parse()
    }

    /// Reads the next record; `false` at the end of the file. Blank lines are skipped.
    pub(crate) fn advance(&mut self) -> Result<bool, LineError> {
        loop {
            if !self.lines.advance()? {
                return Ok(false);
            }
            if !self.lines.line().trim_ascii().is_empty() {
                self.parse()?;
                return Ok(true);
            }
        }
    }

    fn parse(&mut self) -> Result<(), LineError> {
        let record = &mut self.record;
        record.text.clear();
        record.ends.clear();
        record.line = self.lines.number();
        let mut at = At::Begin;
        loop {
            for &byte in self.lines.line() {
                at = match (at, byte) {
                    (At::Begin, b'"') => At::Quoted,
                    (At::Quoted, b'"') => At::Quote,
                    (At::Quote, b'"') => {
                        record.text.push(b'"');
                        At::Quoted
                    }
                    (At::Begin | At::Plain | At::Quote, byte) if byte == self.delimiter => {
                        record.end_cell();
                        At::Begin
                    }
                    (At::Quote, _) => {
                        let text = "text follows the closing quote of a cell; write a quote inside a quoted cell twice";
                        return Err(LineError::Malformed(text.to_owned()));
                    }
                    (At::Begin | At::Plain, byte) => {
                        record.text.push(byte);
                        At::Plain
                    }
                    (At::Quoted, byte) => {
                        record.text.push(byte);
                        At::Quoted
                    }
                };
            }
            if at != At::Quoted {
                record.end_cell();
                return Ok(());
            }
            record.text.push(b'\n');
            if record.text.len() > LONGEST {
                let text = format!("a quoted cell makes the record longer than {LONGEST} bytes");
                return Err(LineError::Malformed(text));
            }
            if !self.lines.advance()? {
                let text = "a quoted cell has no closing quote";
                return Err(LineError::Malformed(text.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Vec<Result<(u64, Vec<String>), String>> {
        let mut lines = Lines::new(text);
        if !lines.advance().unwrap_or(true) {
            return Vec::new();
        }
        let mut records = Records::begun(lines);
        let mut found = Vec::new();
        let mut next = records.first().map(|()| true);
        loop {
            match next {
                Ok(false) => return found,
                Ok(true) => {
                    let record = records.record();
                    let cells = record
                        .cells()
                        .map(|cell| String::from_utf8_lossy(cell).into_owned());
                    found.push(Ok((record.line(), cells.collect())));
                }
                Err(LineError::Malformed(text)) => found.push(Err(text)),
                Err(LineError::Read(err)) => panic!("{err}"),
            }
            next = records.advance();
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &[(u64, &[&str])]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(line, cells)| Ok((*line, cells.iter().map(|cell| (*cell).to_owned()).collect())))
            .collect();
        assert_eq!(read(text.as_bytes()), expected);
    }

    #[test]
    fn cells_are_separated_as_the_first_line_says() {
        check(
            "a,b\r\n1,\r\n\r\n,2",
            &[(1, &["a", "b"]), (2, &["1", ""]), (4, &["", "2"])],
        );
        check(
            "a;b,c;d\n1;2,5;3\n",
            &[(1, &["a", "b,c", "d"]), (2, &["1", "2,5", "3"])],
        );
        check("a\tb\n1\t2\n", &[(1, &["a", "b"]), (2, &["1", "2"])]);
        check("a\n1\n", &[(1, &["a"]), (2, &["1"])]);
    }

    #[test]
    fn quoted_cells_can_have_everything() {
        let text = "a,b\n\"1,\"\"x\"\"\",\"two\nlines\"\n3,\"\"\n4,5\"6\n";
        let expected: [(u64, &[&str]); 4] = [
            (1, &["a", "b"]),
            (2, &["1,\"x\"", "two\nlines"]),
            (4, &["3", ""]),
            (5, &["4", "5\"6"]),
        ];
        check(text, &expected);
    }

    #[test]
    fn a_quote_in_the_wrong_place_is_refused() {
        let text = read(b"a\n\"1\"2\n3\n");
        assert!(
            text[1]
                .as_ref()
                .is_err_and(|text| text.contains("follows the closing quote"))
        );
        assert_eq!(text[2], Ok((3, vec!["3".to_owned()])));
        let text = read(b"a\n\"1\n");
        assert_eq!(text[1], Err("a quoted cell has no closing quote".to_owned()));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in proptest::collection::vec(prop_oneof![
            4 => any::<u8>(), 3 => Just(b'"'), 3 => Just(b','), 2 => Just(b'\n'), 1 => Just(b'\r')], 0..200)) {
            read(&text);
        }

        #[test]
        fn what_is_written_is_read(rows in proptest::collection::vec(
            proptest::collection::vec("[a-z\",;\n\t ]{1,6}", 2), 1..6)) {
            let quoted = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
            let line = |row: &Vec<String>| row.iter().map(quoted).collect::<Vec<_>>().join(",");
            let text = format!("a,b,c,d,e,f,g\n{}\n", rows.iter().map(line).collect::<Vec<_>>().join("\n"));
            let found: Vec<_> = read(text.as_bytes()).into_iter().skip(1).map(|row| row.unwrap().1).collect();
            prop_assert_eq!(found, rows);
        }
    }
}
