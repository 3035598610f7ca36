//! One field of a cron expression: which values it names, and how it is written with numbers alone.

use smol_str::{SmolStr, SmolStrBuilder, format_smolstr};

use crate::error::InvalidInput;

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A field's place in the expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Minute,
    Hour,
    DayOfMonth,
    Month,
    DayOfWeek,
}

impl Place {
    /// All places, in the order of the expression.
    pub(super) const ALL: [Self; 5] = [
        Self::Minute,
        Self::Hour,
        Self::DayOfMonth,
        Self::Month,
        Self::DayOfWeek,
    ];

    /// The letter of the field in the compact form.
    pub(super) fn tag(self) -> char {
        match self {
            Self::Minute => 'm',
            Self::Hour => 'h',
            Self::DayOfMonth => 'D',
            Self::Month => 'M',
            Self::DayOfWeek => 'w',
        }
    }

    /// The least and the greatest number. Both 0 and 7 are Sunday.
    pub(super) fn bounds(self) -> (u8, u8) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::DayOfWeek => (0, 7),
        }
    }

    /// The values that the field can have, as bits.
    pub(super) fn all(self) -> u64 {
        match self {
            Self::DayOfWeek => bits(1, 7, 1),
            _ => bits(self.bounds().0, self.bounds().1, 1),
        }
    }

    /// The field's name in an error.
    fn name(self) -> &'static str {
        match self {
            Self::Minute => "cron.minute",
            Self::Hour => "cron.hour",
            Self::DayOfMonth => "cron.day_of_month",
            Self::Month => "cron.month",
            Self::DayOfWeek => "cron.day_of_week",
        }
    }

    fn names(self) -> (&'static [&'static str], u8) {
        match self {
            Self::Month => (&MONTHS, 1),
            Self::DayOfWeek => (&WEEKDAYS, 0),
            _ => (&[], 0),
        }
    }

    /// What a value may be, for an error.
    fn expected(self) -> String {
        let (min, max) = self.bounds();
        match self {
            Self::Month => format!("{min} to {max} or JAN to DEC"),
            Self::DayOfWeek => format!("{min} to {max} (0 and 7 are Sunday) or SUN to SAT"),
            _ => format!("{min} to {max}"),
        }
    }

    /// An error for the field with this text.
    pub(super) fn error(self, text: &str, reason: impl Into<String>) -> InvalidInput {
        InvalidInput::new(self.name(), text, reason)
    }
}

/// A field that was read.
pub(super) struct Field {
    /// Bit `n` is set if the field names the value `n`; Sunday is 7.
    pub(super) values: u64,
    /// The text with numbers instead of names. Sunday alone is 7, and 0 where it begins a range or steps.
    pub(super) text: SmolStr,
}

/// One value as written: its number, and whether it is a name.
struct Value<'a> {
    number: u8,
    text: &'a str,
    is_name: bool,
}

impl Value<'_> {
    fn write(&self, out: &mut SmolStrBuilder) {
        if self.is_name {
            out.push_str(&format_smolstr!("{}", self.number));
        } else {
            out.push_str(self.text);
        }
    }
}

impl Field {
    /// Reads a field: a list of `*`, values and ascending ranges, each with `/` and a step if wanted.
    pub(super) fn parse(place: Place, text: &str) -> Result<Self, InvalidInput> {
        let mut values = 0;
        let mut canonical = SmolStrBuilder::new();
        for (index, item) in text.split(',').enumerate() {
            if index > 0 {
                canonical.push(',');
            }
            values |= parse_item(place, text, item, &mut canonical)?;
        }
        if place == Place::DayOfWeek && values & 1 == 1 {
            values = values & !1 | 1 << 7;
        }
        Ok(Self {
            values,
            text: canonical.finish(),
        })
    }
}

/// Reads one item of a field's list, and writes it with numbers to `out`.
fn parse_item(place: Place, text: &str, item: &str, out: &mut SmolStrBuilder) -> Result<u64, InvalidInput> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    let (min, max) = place.bounds();
    let (first, last) = if range == "*" {
        out.push('*');
        (min, max)
    } else if let Some((first, last)) = range.split_once('-') {
        let (first, last) = (value(place, text, first)?, value(place, text, last)?);
        if first.number > last.number {
            return Err(place.error(text, descending(place, &first, &last)));
        }
        first.write(out);
        out.push('-');
        last.write(out);
        // Other clients of the table take `5-5/10` for `5/10`.
        let one = first.number == last.number && step.is_some();
        (first.number, if one { max } else { last.number })
    } else {
        let value = value(place, text, range)?;
        let alone = step.is_none();
        if alone && place == Place::DayOfWeek && value.number == 0 && (value.is_name || value.text == "0") {
            out.push('7');
        } else {
            value.write(out);
        }
        (value.number, if alone { value.number } else { max })
    };
    let step = match step {
        None => 1,
        Some(digits) => {
            out.push('/');
            out.push_str(digits);
            match number(digits) {
                Some(step) if step > 0 => step,
                _ => {
                    let given = shown(digits);
                    let reason = format!("the step '{given}' must be a whole number of 1 or more");
                    return Err(place.error(text, reason));
                }
            }
        }
    };
    Ok(bits(first, last, step))
}

/// Reads a number or a name.
fn value<'a>(place: Place, field: &str, text: &'a str) -> Result<Value<'a>, InvalidInput> {
    let (min, max) = place.bounds();
    if let Some(number) = number(text) {
        return if (min..=max).contains(&number) {
            Ok(Value {
                number,
                text,
                is_name: false,
            })
        } else {
            Err(place.error(field, format!("'{}' must be {}", shown(text), place.expected())))
        };
    }
    let (names, base) = place.names();
    let found = names.iter().position(|name| name.eq_ignore_ascii_case(text));
    if let Some(index) = found {
        let number = base + index as u8;
        return Ok(Value {
            number,
            text,
            is_name: true,
        });
    }
    let (given, expected) = (shown(text), place.expected());
    let reason = if is_extension(text) {
        format!("'{given}' is an extension that is not supported; give {expected}")
    } else {
        format!(
            "'{given}' is not a value; give '*', {expected}, or a list or range of these, with '/' and a step if wanted"
        )
    };
    Err(place.error(field, reason))
}

/// Whether other dialects of cron have such a value: `L`, `15W`, `5#2`.
fn is_extension(text: &str) -> bool {
    let letters = text.trim_matches(|c: char| c.is_ascii_digit());
    let known = ["L", "W", "LW"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(letters));
    known || text.contains(['#', '?'])
}

/// A part of a field for an error, cut if it is long.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(20) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_owned(),
    }
}

/// Why a range that ends before it begins is refused.
fn descending(place: Place, first: &Value<'_>, last: &Value<'_>) -> String {
    let (begin, end) = (first.number, last.number);
    let (min, max) = place.bounds();
    if place == Place::DayOfWeek && end == 0 {
        return format!(
            "a range cannot end on Sunday as '{}'; write '{begin}-7'",
            shown(last.text)
        );
    }
    let range = format!("{}-{}", shown(first.text), shown(last.text));
    let max = if place == Place::DayOfWeek { max - 1 } else { max };
    if begin > max {
        return format!("the range '{range}' must ascend");
    }
    format!("the range '{range}' must ascend; write '{begin}-{max},{min}-{end}'")
}

/// A number of ASCII digits alone; one that is too large for any field is the greatest there is.
fn number(text: &str) -> Option<u8> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match text.trim_start_matches('0') {
        "" => Some(0),
        digits => Some(digits.parse().unwrap_or(u8::MAX)),
    }
}

/// The bits from `first` to `last`, both included, with every `step`-th set.
fn bits(first: u8, last: u8, step: u8) -> u64 {
    (first..=last)
        .step_by(usize::from(step.max(1)))
        .fold(0, |bits, value| bits | 1 << value)
}

/// Writes a field's text with names instead of numbers, wherever the name means the same.
pub(super) fn with_names(place: Place, text: &str, out: &mut impl std::fmt::Write) -> std::fmt::Result {
    let (names, base) = place.names();
    if names.is_empty() {
        return out.write_str(text);
    }
    for (index, item) in text.split(',').enumerate() {
        if index > 0 {
            out.write_char(',')?;
        }
        let (range, step) = item
            .split_once('/')
            .map_or((item, None), |(range, step)| (range, Some(step)));
        let (first, last) = range
            .split_once('-')
            .map_or((range, None), |(first, last)| (first, Some(last)));
        // In a range and before a step, 7 is the end of the week and SUN its begin.
        let alone = step.is_none() && last.is_none();
        for (part, separator) in [(Some(first), ""), (last, "-")] {
            let Some(part) = part else { continue };
            out.write_str(separator)?;
            let shown = number(part).and_then(|number| {
                let sunday = place == Place::DayOfWeek && number == 7 && alone;
                let index = if sunday { 0 } else { number.checked_sub(base)? };
                names.get(usize::from(index))
            });
            out.write_str(shown.copied().unwrap_or(part))?;
        }
        if let Some(step) = step {
            write!(out, "/{step}")?;
        }
    }
    Ok(())
}
