//! The compact form of schedules that the table stores: `1h9-17w1-5s500;h0-6c200a20p30`.
//!
//! The version of the form, then the entries, separated by `;`. An entry consists of letters with values: the fields of the
//! expression `m`, `h`, `D`, `M` and `w`, without those that are `*`, then `s` (the scale in thousandths) or `c`, `a` and `p`
//! (capacity, refill amount, refill period in seconds). A schedule of resets has fields alone.

use std::fmt::Write;

use super::cron::Cron;
use super::entry::{Change, ScheduleEntry, change};
use super::field::{Place, shown};
use super::zone::Zone;
use crate::error::InvalidInput;

/// The version of the form that is written, and the highest that is read.
const VERSION: char = '1';

/// All letters, in the order in which they are written.
const TAGS: [char; 9] = ['m', 'h', 'D', 'M', 'w', 's', 'c', 'a', 'p'];

/// Why a stored schedule could not be read. The limit must not be evaluated without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// A newer client has written it, in a form that this version does not understand.
    #[error(
        "schedule '{text}' is of version {version} of the stored form, and this client reads up to version 1"
    )]
    Version {
        /// The version of the form.
        version: String,
        /// The stored text, cut to 50 characters.
        text: String,
    },
    /// It contradicts the form.
    #[error(transparent)]
    Malformed(#[from] InvalidInput),
}

/// Writes the fields of a pattern.
fn write_cron(cron: &Cron, out: &mut String) {
    for (place, text) in cron.fields().filter(|&(_, text)| text != "*") {
        out.push(place.tag());
        out.push_str(text);
    }
}

/// Writes entries in the compact form.
pub(super) fn encode<'a>(entries: impl IntoIterator<Item = &'a ScheduleEntry>) -> String {
    joined(entries, |entry, out| {
        write_cron(&entry.cron, out);
        let values = match entry.change {
            Change::Scale(scale) => [
                ('s', Some(scale.per_mille())),
                ('c', None),
                ('a', None),
                ('p', None),
            ],
            Change::Replace {
                capacity,
                refill_amount,
                refill_period_secs,
            } => [
                ('s', None),
                ('c', capacity),
                ('a', refill_amount),
                ('p', refill_period_secs),
            ],
        };
        for (tag, value) in values {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = write!(out, "{tag}{value}");
            }
        }
    })
}

/// Writes the patterns of resets in the compact form.
pub(super) fn encode_resets<'a>(crons: impl IntoIterator<Item = &'a Cron>) -> String {
    joined(crons, write_cron)
}

fn joined<T>(entries: impl IntoIterator<Item = T>, write: impl Fn(T, &mut String)) -> String {
    let mut out = String::from(VERSION);
    for (index, entry) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(';');
        }
        write(entry, &mut out);
    }
    out
}

/// Reads entries.
pub(super) fn decode(text: &str, zone: &Zone) -> Result<Vec<ScheduleEntry>, ScheduleError> {
    let entries = entries("sched", text)?;
    let read = entries.map(|entry| {
        let values = Values::read("sched", entry)?;
        let thousandths = values.number('s')?;
        let change = change(
            thousandths.map(|thousandths| thousandths as f64 / 1000.0),
            values.number('c')?,
            values.number('a')?,
            values.number('p')?,
        )?;
        let (cron, zone) = (values.cron()?, zone.clone());
        Ok(ScheduleEntry { cron, zone, change })
    });
    read.collect()
}

/// Reads the patterns of resets.
pub(super) fn decode_resets(text: &str) -> Result<Vec<Cron>, ScheduleError> {
    let read = entries("rsched", text)?.map(|entry| {
        let values = Values::read("rsched", entry)?;
        if let Some(tag) = ['s', 'c', 'a', 'p']
            .into_iter()
            .find(|&tag| values.of(tag).is_some())
        {
            let reason = format!("has the value '{tag}', and a reset changes no parameters");
            return Err(InvalidInput::new("rsched", entry, reason).into());
        }
        Ok(values.cron()?)
    });
    read.collect()
}

/// Splits a text into its entries, after its version.
fn entries<'a>(field: &str, text: &'a str) -> Result<impl Iterator<Item = &'a str>, ScheduleError> {
    let body = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let version = text[..text.len() - body.len()].trim_start_matches('0');
    if version.is_empty() {
        let reason = format!("must begin with the version of the stored form, which is {VERSION}");
        return Err(InvalidInput::new(field, text, reason).into());
    }
    if body.is_empty() {
        return Err(InvalidInput::new(field, text, "has no entries after the version").into());
    }
    if !version.chars().eq([VERSION]) {
        // An error shows the begin of a value that is too long.
        let shown = |value: &str| InvalidInput::new(field, value, "").value().to_owned();
        return Err(ScheduleError::Version {
            version: shown(version),
            text: shown(text),
        });
    }
    Ok(body.split(';'))
}

/// The values of one entry, by the place of their letters in [`TAGS`].
struct Values<'a> {
    field: &'static str,
    entry: &'a str,
    by_tag: [Option<&'a str>; TAGS.len()],
}

impl<'a> Values<'a> {
    fn read(field: &'static str, entry: &'a str) -> Result<Self, InvalidInput> {
        let error = |reason: String| InvalidInput::new(field, entry, reason);
        let mut values = [None; TAGS.len()];
        let mut rest = entry;
        while let Some(tag) = rest.chars().next() {
            let Some(place) = TAGS.iter().position(|&known| known == tag) else {
                return Err(error(format!("has the letter '{tag}', which stands for nothing")));
            };
            let after = &rest[tag.len_utf8()..];
            let (value, next) = after.split_at(after.find(TAGS).unwrap_or(after.len()));
            if value.is_empty() {
                return Err(error(format!("has the letter '{tag}' without a value")));
            }
            if values[place].replace(value).is_some() {
                return Err(error(format!("has the letter '{tag}' twice")));
            }
            rest = next;
        }
        Ok(Self {
            field,
            entry,
            by_tag: values,
        })
    }

    fn of(&self, tag: char) -> Option<&'a str> {
        let place = TAGS.iter().position(|&known| known == tag)?;
        self.by_tag[place]
    }

    /// A number of ASCII digits.
    fn number(&self, tag: char) -> Result<Option<u64>, InvalidInput> {
        let Some(text) = self.of(tag) else { return Ok(None) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(Some(number)),
            // Above every bound, which the check of the value says.
            Err(_) if digits => Ok(Some(u64::MAX)),
            _ => {
                let reason = format!(
                    "has '{tag}{}', and the value of '{tag}' must be a whole number",
                    shown(text)
                );
                Err(InvalidInput::new(self.field, self.entry, reason))
            }
        }
    }

    fn cron(&self) -> Result<Cron, InvalidInput> {
        Cron::from_fields(Place::ALL.map(|place| self.of(place.tag()).unwrap_or("*")))
    }
}
