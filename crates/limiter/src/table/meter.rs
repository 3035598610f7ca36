//! What requests cost: how many there were, and how many capacity units they used.
//!
//! A [`Meter`] is shared by all clones of the table that it was given to
//! ([`DynamoTable::with_meter`](super::DynamoTable::with_meter)). Reads and applied writes are counted by
//! what DynamoDB reports; a refused write reports nothing though it is billed, so it is worked out here.

use std::sync::atomic::{AtomicU64, Ordering};

use zae_limiter_core::table::{Cancelled, Item, Value};

/// Units are kept in tenths, for reads come in halves.
const TENTHS: f64 = 10.0;

/// Bytes that one write unit pays for.
const WRITE_UNIT: usize = 1024;

/// The kinds of requests that are counted separately.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    Get,
    BatchGet,
    Query,
    Put,
    Update,
    Delete,
    BatchDelete,
    Transact,
}

/// Which units a request's capacity is counted as.
#[derive(Debug, Clone, Copy)]
pub(super) enum Units {
    Read,
    Write,
}

/// Counts requests and the capacity units they use. Shared by [`Arc`](std::sync::Arc); counting takes no lock.
#[derive(Debug, Default)]
pub struct Meter {
    calls: [AtomicU64; 8],
    refused: AtomicU64,
    read_tenths: AtomicU64,
    write_tenths: AtomicU64,
}

/// The counts of a [`Meter`] at one time, or between two.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RequestCost {
    /// Single reads.
    pub gets: u64,
    /// Batch reads.
    pub batch_gets: u64,
    /// Pages read of ranges.
    pub queries: u64,
    /// Whole items written.
    pub puts: u64,
    /// Items changed.
    pub updates: u64,
    /// Single deletes.
    pub deletes: u64,
    /// Batch deletes.
    pub batch_deletes: u64,
    /// Transactions.
    pub transactions: u64,
    /// Writes and transactions among them whose condition did not hold.
    pub refused: u64,
    /// Read units used.
    pub read_units: f64,
    /// Write units used, refused writes included.
    pub write_units: f64,
}

impl Meter {
    /// A meter that has counted nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the counts so far.
    pub fn snapshot(&self) -> RequestCost {
        let calls = |call: Call| self.calls[call as usize].load(Ordering::Relaxed);
        let units = |tenths: &AtomicU64| tenths.load(Ordering::Relaxed) as f64 / TENTHS;
        RequestCost {
            gets: calls(Call::Get),
            batch_gets: calls(Call::BatchGet),
            queries: calls(Call::Query),
            puts: calls(Call::Put),
            updates: calls(Call::Update),
            deletes: calls(Call::Delete),
            batch_deletes: calls(Call::BatchDelete),
            transactions: calls(Call::Transact),
            refused: self.refused.load(Ordering::Relaxed),
            read_units: units(&self.read_tenths),
            write_units: units(&self.write_tenths),
        }
    }

    pub(super) fn sent(&self, call: Call) {
        self.calls[call as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a write whose condition did not hold.
    ///
    /// It is billed by the larger of the stored item and the one that was to be written, at least one unit
    /// (DynamoDB developer guide, "DynamoDB read and write operations", capacity unit consumption for write
    /// operations: conditional writes). How large an update would have made the item is not known; the
    /// stored item stands for it.
    pub(super) fn refused(&self, stored: Option<&Item>, offered: usize) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.used(
            Units::Write,
            write_units(stored.map_or(0, item_size).max(offered)),
        );
    }

    /// Counts a transaction that was cancelled.
    ///
    /// Every part costs twice what it would cost alone, applied or not. The size of a stored item is known
    /// only for parts that were refused; the others count as one kilobyte, so the result is a lower bound.
    pub(super) fn cancelled(&self, parts: &[Cancelled]) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let units = parts.iter().map(|part| match part {
            Cancelled::Refused(Some(stored)) => write_units(item_size(stored)),
            _ => write_units(0),
        });
        self.used(Units::Write, 2.0 * units.sum::<f64>());
    }

    /// Counts units that a request has used.
    pub(super) fn used(&self, units: Units, amount: f64) {
        let total = match units {
            Units::Read => &self.read_tenths,
            Units::Write => &self.write_tenths,
        };
        total.fetch_add((amount * TENTHS).round() as u64, Ordering::Relaxed);
    }
}

impl RequestCost {
    /// Returns the counts since an earlier snapshot of the same meter.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            gets: self.gets - earlier.gets,
            batch_gets: self.batch_gets - earlier.batch_gets,
            queries: self.queries - earlier.queries,
            puts: self.puts - earlier.puts,
            updates: self.updates - earlier.updates,
            deletes: self.deletes - earlier.deletes,
            batch_deletes: self.batch_deletes - earlier.batch_deletes,
            transactions: self.transactions - earlier.transactions,
            refused: self.refused - earlier.refused,
            read_units: self.read_units - earlier.read_units,
            write_units: self.write_units - earlier.write_units,
        }
    }

    /// Returns the counts of two meters together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            gets: self.gets.saturating_add(other.gets),
            batch_gets: self.batch_gets.saturating_add(other.batch_gets),
            queries: self.queries.saturating_add(other.queries),
            puts: self.puts.saturating_add(other.puts),
            updates: self.updates.saturating_add(other.updates),
            deletes: self.deletes.saturating_add(other.deletes),
            batch_deletes: self.batch_deletes.saturating_add(other.batch_deletes),
            transactions: self.transactions.saturating_add(other.transactions),
            refused: self.refused.saturating_add(other.refused),
            read_units: self.read_units + other.read_units,
            write_units: self.write_units + other.write_units,
        }
    }

    /// How many requests were sent.
    pub fn requests(&self) -> u64 {
        self.reads() + self.puts + self.updates + self.deletes + self.batch_deletes + self.transactions
    }

    /// How many of them only read.
    pub fn reads(&self) -> u64 {
        self.gets + self.batch_gets + self.queries
    }
}

fn write_units(bytes: usize) -> f64 {
    bytes.div_ceil(WRITE_UNIT).max(1) as f64
}

/// An item's size as DynamoDB bills it, in bytes (developer guide, "DynamoDB item sizes and formats").
pub(super) fn item_size(item: &Item) -> usize {
    item.iter()
        .map(|(name, value)| name.len() + value_size(value))
        .sum()
}

/// Maps and lists take three bytes, and one for each entry. Values of other types are not counted: this crate writes none.
fn value_size(value: &Value) -> usize {
    match value {
        Value::S(text) => text.len(),
        Value::N(digits) => number_size(digits),
        Value::Bool(_) | Value::Null => 1,
        Value::M(map) => 3 + map.len() + item_size(map),
        Value::L(list) => 3 + list.len() + list.iter().map(value_size).sum::<usize>(),
        Value::Ss(set) => set.iter().map(String::len).sum(),
        Value::Other => 0,
    }
}

/// One byte for every two significant digits, counted from the decimal point to either side, one byte more,
/// and one for a minus sign. Zeros at either end do not count.
fn number_size(digits: &str) -> usize {
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(digits) => (1, digits),
        None => (0, digits),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let (whole, fraction) = match (whole.is_empty(), fraction.is_empty()) {
        (true, true) => return 1,
        (true, false) => ("", fraction.trim_start_matches('0')),
        (false, true) => (whole.trim_end_matches('0'), ""),
        (false, false) => (whole, fraction),
    };
    whole.len().div_ceil(2) + fraction.len().div_ceil(2) + 1 + negative
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[track_caller]
    fn check_number(digits: &str, bytes: usize) {
        assert_eq!(number_size(digits), bytes, "{digits}");
    }

    #[test]
    fn numbers_take_a_byte_for_two_digits() {
        check_number("0", 1);
        check_number("42", 2);
        check_number("-42", 3);
        check_number("100000", 2);
        check_number("1795290198636", 8);
        check_number("0.001", 2);
        check_number("1.5", 3);
    }

    #[test]
    fn items_are_sized_by_names_and_values() {
        let item = BTreeMap::from([
            ("PK".to_owned(), Value::S("ab".into())),
            (
                "m".to_owned(),
                Value::M(BTreeMap::from([("k".to_owned(), Value::Bool(true))])),
            ),
            ("l".to_owned(), Value::L(vec![Value::Null])),
        ]);
        assert_eq!(item_size(&item), 4 + (1 + 3 + 1 + 2) + (1 + 3 + 1 + 1));
    }

    #[test]
    fn a_refused_write_costs_a_unit_per_started_kilobyte() {
        let meter = Meter::new();
        meter.refused(None, 0);
        let item = BTreeMap::from([("PK".to_owned(), Value::S("x".repeat(1023)))]);
        meter.refused(Some(&item), 0);
        meter.refused(Some(&item), 2049);
        let usage = meter.snapshot();
        assert_eq!((usage.refused, usage.write_units), (3, 1.0 + 2.0 + 3.0));
    }
}
