//! [`ScheduleEntry`]: other parameters of a limit while a pattern matches.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::cron::Cron;
use super::zone::Zone;
use crate::error::InvalidInput;
use crate::limit::Params;
use crate::units::{MAX_PERIOD_SECS, MAX_TOKENS, Millitokens};

/// The greatest scale of an entry.
pub const MAX_SCALE: f64 = 1_000_000.0;

/// Other parameters of a limit for the minutes that a [`Cron`] matches: either a scale of capacity and refill amount, or
/// values that replace one, two or all three of capacity, refill amount and refill period.
///
/// ```
/// use zae_limiter_core::schedule::ScheduleEntry;
///
/// let nights = ScheduleEntry::on("* 0-6 * * *").zone("Europe/Berlin").scale(0.5).build()?;
/// assert_eq!(nights.scale(), Some(0.5));
///
/// let err = ScheduleEntry::on("* 0-6 * * *").scale(0.5).capacity(7).build().unwrap_err();
/// assert_eq!(err.field(), "scale");
/// # Ok::<(), zae_limiter_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScheduleEntry {
    pub(super) cron: Cron,
    pub(super) zone: Zone,
    pub(super) change: Change,
}

/// What an entry does to the parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Change {
    Scale(Scale),
    /// At least one value is present.
    Replace {
        capacity: Option<u64>,
        refill_amount: Option<u64>,
        refill_period_secs: Option<u64>,
    },
}

/// A factor above 0 and of at most [`MAX_SCALE`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale(f64);

impl Scale {
    /// The factor in thousandths, as it is stored: at least 1, rounded to the even one of two that are equally near.
    pub(super) fn per_mille(self) -> u64 {
        (self.0 * 1000.0).round_ties_even().max(1.0) as u64
    }

    fn of(self, value: i128) -> i128 {
        // The product of two doubles, as in other clients of the table: 100,000 times 1.15 is 114,999.
        ((value as f64 * self.0) as i128).max(1)
    }
}

impl PartialEq for Scale {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Scale {}

impl Hash for Scale {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl ScheduleEntry {
    /// Begins an entry for the minutes that a cron expression matches, in UTC unless another zone is given.
    pub fn on(cron: impl Into<String>) -> ScheduleEntryBuilder {
        ScheduleEntryBuilder {
            cron: cron.into(),
            zone: "UTC".to_owned(),
            scale: None,
            capacity: None,
            refill_amount: None,
            refill_period: None,
        }
    }

    /// Rounds a scale to thousandths, as it is read from the table.
    pub(super) fn round(&mut self) {
        if let Change::Scale(scale) = &mut self.change {
            *scale = Scale(scale.per_mille() as f64 / 1000.0);
        }
    }

    /// The pattern.
    pub fn cron(&self) -> &Cron {
        &self.cron
    }

    /// The zone in whose local time the pattern is meant.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The factor for capacity and refill amount, if the entry has one. The table stores it in thousandths.
    pub fn scale(&self) -> Option<f64> {
        match self.change {
            Change::Scale(scale) => Some(scale.0),
            Change::Replace { .. } => None,
        }
    }

    /// The capacity in tokens, if the entry replaces it.
    pub fn capacity(&self) -> Option<u64> {
        match self.change {
            Change::Scale(_) => None,
            Change::Replace { capacity, .. } => capacity,
        }
    }

    /// The refill amount in tokens, if the entry replaces it.
    pub fn refill_amount(&self) -> Option<u64> {
        match self.change {
            Change::Scale(_) => None,
            Change::Replace { refill_amount, .. } => refill_amount,
        }
    }

    /// The refill period in whole seconds, if the entry replaces it.
    pub fn refill_period(&self) -> Option<Duration> {
        match self.change {
            Change::Scale(_) => None,
            Change::Replace {
                refill_period_secs, ..
            } => refill_period_secs.map(Duration::from_secs),
        }
    }

    /// A limit's parameters while the entry is in force.
    ///
    /// A scale multiplies capacity and refill amount as IEEE doubles and rounds down to a millitoken, but not below one. A refill
    /// amount of 0 stays 0, and the period is not scaled. Shards are given their part afterwards.
    pub fn params(&self, base: Params) -> Params {
        match self.change {
            Change::Scale(scale) => Params {
                capacity: scale.of(base.capacity),
                refill: if base.refill == 0 {
                    0
                } else {
                    scale.of(base.refill)
                },
                period_ms: base.period_ms,
            },
            Change::Replace {
                capacity,
                refill_amount,
                refill_period_secs,
            } => Params {
                capacity: capacity.map_or(base.capacity, |amount| Millitokens::from_amount(amount).0),
                refill: refill_amount.map_or(base.refill, |amount| Millitokens::from_amount(amount).0),
                period_ms: refill_period_secs.map_or(base.period_ms, |secs| i128::from(secs) * 1000),
            },
        }
    }
}

/// An entry being described; [`build`](Self::build) checks it.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a schedule entry does nothing until it is built"]
pub struct ScheduleEntryBuilder {
    cron: String,
    zone: String,
    scale: Option<f64>,
    capacity: Option<u64>,
    refill_amount: Option<u64>,
    refill_period: Option<Duration>,
}

impl ScheduleEntryBuilder {
    /// Names the IANA time zone in whose local time the pattern is meant.
    pub fn zone(mut self, name: impl Into<String>) -> Self {
        self.zone = name.into();
        self
    }

    /// Multiplies capacity and refill amount, so that the time to fill stays. The table stores thousandths.
    pub fn scale(mut self, scale: f64) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Replaces the capacity.
    pub fn capacity(mut self, tokens: u64) -> Self {
        self.capacity = Some(tokens);
        self
    }

    /// Replaces the refill amount.
    pub fn refill_amount(mut self, tokens: u64) -> Self {
        self.refill_amount = Some(tokens);
        self
    }

    /// Replaces the refill period.
    pub fn refill_period(mut self, period: Duration) -> Self {
        self.refill_period = Some(period);
        self
    }

    /// Checks the entry.
    ///
    /// # Errors
    /// An expression or a zone that cannot be read (see [`Cron::parse`] and [`Zone::named`]); neither a scale nor another
    /// value, or both; a scale that is not above 0 and at most [`MAX_SCALE`]; an amount that is not from 1 to 10^15 tokens; a
    /// period that is not a whole number of seconds from 1 to 10^9. The error's field is that of the cron expression, `tz`,
    /// `scale`, `capacity`, `refill_amount` or `refill_period`.
    pub fn build(self) -> Result<ScheduleEntry, InvalidInput> {
        let cron = Cron::parse(&self.cron)?;
        let zone = Zone::named(&self.zone)?;
        let secs = self.refill_period.map(whole_seconds).transpose()?;
        let change = change(self.scale, self.capacity, self.refill_amount, secs)?;
        Ok(ScheduleEntry { cron, zone, change })
    }
}

/// Checks what an entry does.
pub(super) fn change(
    scale: Option<f64>,
    capacity: Option<u64>,
    refill_amount: Option<u64>,
    refill_period_secs: Option<u64>,
) -> Result<Change, InvalidInput> {
    for (field, value, max) in [
        ("capacity", capacity, MAX_TOKENS),
        ("refill_amount", refill_amount, MAX_TOKENS),
        ("refill_period", refill_period_secs, MAX_PERIOD_SECS),
    ] {
        if let Some(value) = value.filter(|value| !(1..=max).contains(value)) {
            return Err(InvalidInput::new(
                field,
                value,
                format!("must be between 1 and {max}"),
            ));
        }
    }
    let replaces = capacity.or(refill_amount).or(refill_period_secs).is_some();
    match scale {
        Some(scale) if replaces => {
            let reason =
                "cannot stand beside 'capacity', 'refill_amount' or 'refill_period'; give it or these";
            Err(InvalidInput::new("scale", scale, reason))
        }
        Some(scale) if scale > 0.0 && scale <= MAX_SCALE => Ok(Change::Scale(Scale(scale))),
        Some(scale) => {
            let reason = format!("must be above 0 and at most {MAX_SCALE}");
            Err(InvalidInput::new("scale", scale, reason))
        }
        None if replaces => Ok(Change::Replace {
            capacity,
            refill_amount,
            refill_period_secs,
        }),
        None => {
            let reason =
                "is missing; give it, or at least one of 'capacity', 'refill_amount' and 'refill_period'";
            Err(InvalidInput::new("scale", "", reason))
        }
    }
}

fn whole_seconds(period: Duration) -> Result<u64, InvalidInput> {
    if period.subsec_nanos() == 0 {
        return Ok(period.as_secs());
    }
    let reason = format!("must be a whole number of seconds from 1 to {MAX_PERIOD_SECS}");
    Err(InvalidInput::new("refill_period", format!("{period:?}"), reason))
}
