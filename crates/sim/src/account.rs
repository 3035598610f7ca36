//! The reference bucket: what one limit of one bucket may admit, all its shards together.
//!
//! It knows nothing of shards, shares or stored instants. It gains `refill / period` in true time, pays every
//! net consumption that the table applied, is credited every refund, and must never be overdrawn by more
//! than the debts that charges after the fact have made.
//!
//! **Lazy refill.** A stored balance stands for the instant of its last refill, and plain debits do not move
//! that instant: a bucket that lies idle with a full balance may be spent, and then refilled for the time it
//! lay idle, though it was full. A debit therefore demands that the last refill is not older than an eighth of
//! the time to fill (ADR 11). So the reference holds at most `C + C/8 + slack`, and starts with `C + slack`.
//! What an idle shard has earned beyond its ceiling is lost to spenders, but it still pays for a charge after
//! the fact.
//!
//! **Clocks.** A client whose clock is ahead earns early; one whose clock is behind, or whose write is slow to
//! arrive, dates a full bucket too early, so that the difference is earned again. The slack is what is earned
//! in the time that the most advanced clock is ahead plus the longest lag seen so far.
//!
//! Beside it runs a strict bucket, which holds at most `C + slack`; what it would have refused is counted,
//! not judged.

/// The part of the time to fill for which a bucket is spent without being refilled.
const HORIZON: i128 = 8;

/// One limit's reference bucket. Balances in millitokens.
#[derive(Debug, Clone)]
pub struct Account {
    capacity: i128,
    refill: i128,
    period_ms: i128,
    /// How far the most advanced clock is ahead.
    ahead_ms: i128,
    /// The longest lag behind true time of an instant written with a full balance.
    behind_ms: i128,
    level: i128,
    strict: i128,
    /// Parts of a millitoken, in `1 / (period_ms * 1000)`.
    fraction: i128,
    at_us: u64,
}

impl Account {
    /// A bucket that comes into being at `at_us` with this much to spend.
    pub fn new(cell: &crate::row::Cell, ahead_ms: i64, spendable: i128, at_us: u64) -> Self {
        let mut account = Self {
            capacity: cell.cp,
            refill: cell.ra,
            period_ms: cell.rp,
            ahead_ms: ahead_ms.into(),
            behind_ms: 1,
            level: 0,
            strict: 0,
            fraction: 0,
            at_us,
        };
        account.level = spendable + account.slack();
        account.strict = account.level;
        account
    }

    /// What is earned in the time that clocks and lags may be off.
    pub fn slack(&self) -> i128 {
        (self.ahead_ms + self.behind_ms) * self.refill / self.period_ms + 1
    }

    /// Lets time pass.
    pub fn advance(&mut self, now_us: u64) {
        let elapsed = i128::from(now_us.saturating_sub(self.at_us));
        self.at_us = now_us;
        let scale = self.period_ms * 1000;
        let earned = elapsed * self.refill + self.fraction;
        self.fraction = earned % scale;
        self.level += earned / scale;
        self.strict += earned / scale;
        self.cap();
    }

    fn cap(&mut self) {
        self.level = self
            .level
            .min(self.capacity + self.capacity / HORIZON + self.slack());
        self.strict = self.strict.min(self.capacity + self.slack());
    }

    /// A full balance was dated this far behind true time.
    pub fn lagged(&mut self, lag_ms: i64) {
        let lag = i128::from(lag_ms);
        if lag > self.behind_ms {
            let before = self.slack();
            self.behind_ms = lag;
            let more = self.slack() - before;
            self.level += more;
            self.strict += more;
        }
    }

    /// Somebody changed the limit. A raised one is taken as a fresh start; a lowered one cuts.
    pub fn change(&mut self, capacity: i128, refill: i128, period_ms: i128) {
        if (capacity, refill, period_ms) == (self.capacity, self.refill, self.period_ms) {
            return;
        }
        let raised = capacity > self.capacity || refill * self.period_ms > self.refill * period_ms;
        (self.capacity, self.refill, self.period_ms) = (capacity, refill, period_ms);
        self.fraction = 0;
        if raised {
            self.level = i128::MAX / 4;
            self.strict = i128::MAX / 4;
        }
        self.cap();
    }

    /// Pays for consumption (or, if negative, takes a refund). Tells whether a strict bucket would have refused.
    pub fn pay(&mut self, consumed: i128) -> bool {
        self.level -= consumed;
        self.strict -= consumed;
        let refused = consumed > 0 && self.strict < 0;
        if refused {
            // Count each excess once.
            self.strict = 0;
        }
        self.cap();
        refused
    }

    /// An item expired in debt: nobody will collect it.
    pub fn forgive(&mut self, debt: i128) {
        self.level += debt;
        self.strict += debt;
        self.cap();
    }

    /// What is left.
    pub fn level(&self) -> i128 {
        self.level
    }
}
