//! Tables in monospaced text: columns under ruled headings, and boxed grids.

use std::borrow::Cow;
use std::fmt;

/// Blanks between two columns of a ruled table.
const GAP: usize = 2;

/// The text with everything escaped that could move a terminal's cursor or reorder a line: `\u{1b}`.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Control characters, line and paragraph separators, and marks that change the direction of writing.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}')
}

/// Where a column's cells stand. Headings always stand left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    heading: &'static str,
    min_width: usize,
    align: Align,
}

impl Column {
    /// A column of texts, at least `min_width` characters wide.
    pub(crate) const fn left(heading: &'static str, min_width: usize) -> Self {
        Self {
            heading,
            min_width,
            align: Align::Left,
        }
    }

    /// A column of numbers, at least `min_width` characters wide.
    pub(crate) const fn right(heading: &'static str, min_width: usize) -> Self {
        Self {
            heading,
            min_width,
            align: Align::Right,
        }
    }
}

/// How a table is drawn.
#[derive(Debug, Clone, Copy)]
enum Layout {
    Ruled,
    Grid,
}

/// A table; its text ([`Display`](fmt::Display)) does not end in a line break.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    layout: Layout,
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with a rule of `─` under each heading.
    pub(crate) fn ruled(columns: &[Column]) -> Self {
        Self {
            layout: Layout::Ruled,
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// An empty table in a box of `+`, `-` and `|`.
    pub(crate) fn grid(headings: &[&'static str]) -> Self {
        Self {
            layout: Layout::Grid,
            columns: headings.iter().map(|heading| Column::left(heading, 0)).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Cells are made [`printable`]; those that are missing stay blank, those beyond the last
    /// column are left out.
    pub(crate) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        let mut cells: Vec<String> = cells
            .into_iter()
            .map(|cell| printable(cell.as_ref()).into_owned())
            .take(self.columns.len())
            .collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
        self
    }

    /// The longest cell of a column, in characters.
    fn longest(&self, column: usize) -> usize {
        let lengths = self
            .rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| width(cell));
        lengths.max().unwrap_or(0)
    }

    /// How wide each column's rule is.
    ///
    /// A number ends one character before its rule does. A cell may reach one character into the gap on its
    /// open side (a text's right, a number's left), but only one of a gap's two services may: where a text
    /// meets a number, the number.
    fn rule_widths(&self) -> Vec<usize> {
        let widths = self.columns.iter().enumerate().map(|(i, column)| {
            let next = self.columns.get(i + 1).map(|next| next.align);
            let longest = self.longest(i);
            let needed = match (column.align, next) {
                (Align::Left, Some(Align::Left)) => longest.saturating_sub(1),
                (Align::Right, _) if i == 0 => longest + 1,
                _ => longest,
            };
            column.min_width.max(width(column.heading)).max(needed)
        });
        widths.collect()
    }

    fn write_ruled(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.rule_widths();
        let headings = self
            .columns
            .iter()
            .map(|column| (column.heading.to_owned(), Align::Left));
        f.write_str(&ruled_line(&widths, headings))?;
        let rules = widths.iter().map(|width| ("─".repeat(*width), Align::Left));
        write!(f, "\n{}", ruled_line(&widths, rules))?;
        for row in &self.rows {
            let cells = row
                .iter()
                .cloned()
                .zip(self.columns.iter().map(|column| column.align));
            write!(f, "\n{}", ruled_line(&widths, cells))?;
        }
        Ok(())
    }

    fn write_grid(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, column)| width(column.heading).max(self.longest(i)))
            .collect();
        let bars: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        let border = format!("+{}+", bars.join("+"));
        let headings: Vec<&str> = self.columns.iter().map(|column| column.heading).collect();
        write!(f, "{border}\n{}\n{border}", grid_line(&widths, &headings))?;
        for row in &self.rows {
            write!(f, "\n{}", grid_line(&widths, row))?;
        }
        write!(f, "\n{border}")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layout {
            Layout::Ruled => self.write_ruled(f),
            Layout::Grid => self.write_grid(f),
        }
    }
}

/// How many characters a text has.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// One line of a ruled table, without blanks at its end.
fn ruled_line(widths: &[usize], cells: impl Iterator<Item = (String, Align)>) -> String {
    let mut line = String::new();
    let mut used = 0;
    let mut start = 0;
    for (column_width, (cell, align)) in widths.iter().zip(cells) {
        let length = width(&cell);
        let at = match align {
            Align::Left => start,
            Align::Right => (start + column_width).saturating_sub(length + 1),
        };
        line.extend(std::iter::repeat_n(' ', at.saturating_sub(used)));
        line.push_str(&cell);
        used = used.max(at) + length;
        start += column_width + GAP;
    }
    line.truncate(line.trim_end_matches(' ').len());
    line
}

/// One line of a grid between two borders.
fn grid_line<S: AsRef<str>>(widths: &[usize], cells: &[S]) -> String {
    // Padded by hand: a width given to `format!` must not exceed 65,535.
    let cells: Vec<String> = widths
        .iter()
        .zip(cells.iter().map(AsRef::as_ref))
        .map(|(column_width, cell)| {
            let blanks = " ".repeat(column_width.saturating_sub(width(cell)));
            format!(" {cell}{blanks} ")
        })
        .collect();
    format!("|{}|", cells.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUDIT: [Column; 4] = [
        Column::left("Timestamp", 23),
        Column::left("Action", 13),
        Column::left("Principal", 10),
        Column::left("Resource", 8),
    ];
    const SUMMARY: [Column; 3] = [
        Column::left("Limit", 5),
        Column::right("Total", 8),
        Column::right("Average", 9),
    ];

    #[track_caller]
    fn check<const N: usize>(mut table: Table, rows: &[[&str; N]], expected: &str) {
        for row in rows {
            table.row(row);
        }
        assert_eq!(table.to_string(), expected.trim_matches('\n'));
    }

    #[test]
    fn audit_events_stand_as_documented() {
        check(
            Table::ruled(&AUDIT),
            &[
                ["2026-01-15T10:30:00Z", "limits_set", "admin", "gpt-4"],
                ["2026-01-15T10:25:00Z", "entity_created", "admin", "-"],
            ],
            "
Timestamp                Action         Principal   Resource
───────────────────────  ─────────────  ──────────  ────────
2026-01-15T10:30:00Z     limits_set     admin       gpt-4
2026-01-15T10:25:00Z     entity_created admin       -
",
        );
    }

    #[test]
    fn usage_windows_stand_as_documented() {
        let columns = [
            Column::left("Window Start", 20),
            Column::left("Type", 6),
            Column::left("Resource", 8),
            Column::left("Entity", 8),
            Column::left("Events", 6),
            Column::left("Counters", 16),
        ];
        check(
            Table::ruled(&columns),
            &[
                [
                    "2026-01-15T10:00:00Z",
                    "hourly",
                    "gpt-4",
                    "user-123",
                    "42",
                    "tpm=15,000",
                ],
                [
                    "2026-01-15T09:00:00Z",
                    "hourly",
                    "gpt-4",
                    "user-123",
                    "38",
                    "tpm=12,500",
                ],
            ],
            "
Window Start          Type    Resource  Entity    Events  Counters
────────────────────  ──────  ────────  ────────  ──────  ────────────────
2026-01-15T10:00:00Z  hourly  gpt-4     user-123  42      tpm=15,000
2026-01-15T09:00:00Z  hourly  gpt-4     user-123  38      tpm=12,500
",
        );
    }

    #[test]
    fn usage_sums_stand_as_documented() {
        check(
            Table::ruled(&SUMMARY),
            &[["rpm", "950", "39.58"], ["tpm", "450,000", "18,750.00"]],
            "
Limit  Total     Average
─────  ────────  ─────────
rpm        950      39.58
tpm    450,000  18,750.00
",
        );
    }

    #[test]
    fn stacks_stand_as_documented() {
        let columns = [
            Column::left("Name", 10),
            Column::left("Status", 17),
            Column::left("Version", 8),
            Column::left("Created", 10),
        ];
        check(
            Table::ruled(&columns),
            &[
                ["my-app", "CREATE_COMPLETE", "0.6.0", "2026-01-15"],
                ["prod-api", "UPDATE_COMPLETE", "0.6.0", "2026-01-10"],
            ],
            "
Name        Status             Version   Created
──────────  ─────────────────  ────────  ──────────
my-app      CREATE_COMPLETE    0.6.0     2026-01-15
prod-api    UPDATE_COMPLETE    0.6.0     2026-01-10
",
        );
    }

    #[test]
    fn columns_grow_with_their_cells() {
        check(
            Table::ruled(&AUDIT),
            &[[
                "2026-01-15T10:30:00Z",
                "entity_created",
                "arn:aws:iam::1:user/jd",
                "a-resource",
            ]],
            "
Timestamp                Action         Principal              Resource
───────────────────────  ─────────────  ─────────────────────  ──────────
2026-01-15T10:30:00Z     entity_created arn:aws:iam::1:user/jd a-resource
",
        );
        // A long name and a long number never touch, and no number runs out of the table.
        check(
            Table::ruled(&SUMMARY),
            &[["tokens", "1,000,000,000", "1,000,000,000.00"]],
            "
Limit   Total          Average
──────  ─────────────  ────────────────
tokens 1,000,000,000  1,000,000,000.00
",
        );
        check(
            Table::ruled(&[Column::right("N", 1), Column::left("M", 1)]),
            &[["1,000", "a"]],
            "
N       M
──────  ─
1,000   a
",
        );
    }

    #[test]
    fn without_rows_there_are_headings_and_rules() {
        check::<3>(
            Table::ruled(&SUMMARY),
            &[],
            "
Limit  Total     Average
─────  ────────  ─────────
",
        );
    }

    #[test]
    fn grids_fit_their_widest_cell() {
        check(
            Table::grid(&["Name", "Namespace ID"]),
            &[["default", "Vg21DzrPcUA"], ["é", "x"]],
            "
+---------+--------------+
| Name    | Namespace ID |
+---------+--------------+
| default | Vg21DzrPcUA  |
| é       | x            |
+---------+--------------+
",
        );
        check::<2>(
            Table::grid(&["Name", "ID"]),
            &[],
            "
+------+----+
| Name | ID |
+------+----+
+------+----+
",
        );
    }

    #[test]
    fn rows_of_the_wrong_length_fit_in() {
        let mut table = Table::grid(&["A", "B"]);
        table.row(["1"]).row(["1", "2", "3"]);
        assert_eq!(
            table.to_string(),
            "+---+---+\n| A | B |\n+---+---+\n| 1 |   |\n| 1 | 2 |\n+---+---+"
        );
        assert_eq!(Table::ruled(&[]).to_string(), "\n");
    }

    #[test]
    fn very_long_cells_are_shown_whole() {
        let long = "a".repeat(100_000);
        for mut table in [
            Table::grid(&["A", "B"]),
            Table::ruled(&AUDIT),
            Table::ruled(&SUMMARY),
        ] {
            table.row([long.as_str(), long.as_str()]).row(["b"]);
            assert_eq!(table.to_string().matches(&long).count(), 2);
        }
    }

    #[test]
    fn a_stored_name_cannot_drive_the_terminal() {
        assert_eq!(
            printable("a\u{1b}[2J\n\u{9b}b\u{202e}"),
            "a\\u{1b}[2J\\u{a}\\u{9b}b\\u{202e}"
        );
        assert!(matches!(printable("né 雪"), Cow::Borrowed("né 雪")));
        check(
            Table::grid(&["A"]),
            &[["x\ny"]],
            "
+---------+
| A       |
+---------+
| x\\u{a}y |
+---------+
",
        );
    }
}
