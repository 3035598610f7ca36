//! The reference bucket: what one limit of one bucket may admit, all its shards together.
//!
//! It does not use shards, shares or stored instants. It gains `refill / period` in true time, pays every
//! net consumption that the table applied, is credited every refund, and must never be overdrawn by more
//! than the debts that charges after the fact have made.
//!
//! **The bound.** It holds at most `C + r * (H + L + A + B)`, where `C` is the capacity and `r` the rate; so in a
//! window of length `W` at most `C + r * (W + H + L + A + B)` is admitted. This is what README and docs promise:
//!
//! - `H`, the horizon: a plain debit does not move the refill instant, and is allowed while that is at most
//!   `max(C / 8r, 4R)` old. `R` is the round trip, the longest that any answer has taken so far.
//! - `L`, the lag: the longest time between reading the clock for a write and the write's arrival at the table.
//! - `A` and `B`: how far the most advanced clock is ahead, and the most delayed one behind.
//!
//! Why it is enough: let `X` be a shard's balance plus what it earns from its refill instant until now by the most
//! advanced clock. What can be spent in an instant is at most `min(X, K)`, where `K` is the level's bound. Time
//! raises `X` at the rate. A plain debit happens only while the refill instant is at most `H + L + B` ago, hence
//! `X <= K`, and lowers `X` by what it takes. A refilling write leaves at most the share's capacity at an instant at
//! most `L + B` ago, hence `X <= K` after it, and never raises `X`. What an idle shard earns beyond `K` is lost to
//! spenders, but it still pays for a charge after the fact.
//!
//! Beside it runs a strict bucket, which holds at most `C + r * (L + A + B)`; what it would have refused is counted,
//! not judged.

use crate::plan::Clocks;

/// The part of the time to fill for which a bucket is spent without being refilled.
const HORIZON: i128 = 8;

/// How many round trips the horizon is at least.
const ROUND_TRIPS: i64 = 4;

/// The longest round trip that stretches the horizon.
const MAX_ROUND_TRIP_MS: i64 = 2000;

/// The longest delays seen so far, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lags {
    /// Until an answer was heard.
    pub answer_ms: i64,
    /// Until a write arrived.
    pub arrival_ms: i64,
}

/// One limit's reference bucket. Balances in millitokens.
#[derive(Debug, Clone)]
pub struct Account {
    capacity: i128,
    refill: i128,
    period_ms: i128,
    clocks: Clocks,
    lags: Lags,
    level: i128,
    strict: i128,
    /// Parts of a millitoken, in `1 / (period_ms * 1000)`.
    fraction: i128,
    at_us: u64,
}

impl Account {
    /// A bucket that comes into being at `at_us` with this much to spend.
    pub fn new(
        cell: &crate::rows::row::Cell,
        clocks: Clocks,
        lags: Lags,
        spendable: i128,
        at_us: u64,
    ) -> Self {
        let mut account = Self {
            capacity: cell.cp,
            refill: cell.ra,
            period_ms: cell.rp,
            clocks,
            lags,
            level: 0,
            strict: 0,
            fraction: 0,
            at_us,
        };
        account.level = spendable + account.slack();
        account.strict = spendable + account.earned(account.error_ms());
        account
    }

    fn earned(&self, millis: i64) -> i128 {
        i128::from(millis) * self.refill / self.period_ms + 1
    }

    /// How far the instants that writes are decided by may be off.
    fn error_ms(&self) -> i64 {
        self.lags.arrival_ms + self.clocks.ahead_ms + self.clocks.behind_ms + 1
    }

    fn horizon_ms(&self) -> i64 {
        let part = self.capacity * self.period_ms / self.refill.max(1) / HORIZON;
        let floor = ROUND_TRIPS * self.lags.answer_ms.min(MAX_ROUND_TRIP_MS);
        (part as i64).max(1).max(floor)
    }

    /// What is earned in the time that the bound grants beyond the window itself.
    pub fn slack(&self) -> i128 {
        self.earned(self.horizon_ms() + self.error_ms())
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
        self.level = self.level.min(self.capacity + self.slack());
        self.strict = self.strict.min(self.capacity + self.earned(self.error_ms()));
    }

    /// Answers or writes have taken longer than any before.
    pub fn lag(&mut self, lags: Lags) {
        let (slack, error) = (self.slack(), self.earned(self.error_ms()));
        self.lags = lags;
        self.level += self.slack() - slack;
        self.strict += self.earned(self.error_ms()) - error;
    }

    /// The limit was changed. A raised limit starts anew; a lowered limit cuts the balance.
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

    /// Pays for consumption (or, if negative, takes a refund). Returns whether a strict bucket would have refused.
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

    /// An item expired in debt, which will not be paid.
    pub fn forgive(&mut self, debt: i128) {
        self.level += debt;
        self.strict += debt;
        self.cap();
    }

    /// A bucket that another client had dated far ahead is dated back, by a clock that may itself be off. While it was
    /// ahead it earned nothing, so this is where what clocks and lags may be off begins to count.
    pub fn dated_back(&mut self) {
        self.mint(self.earned(self.error_ms()));
    }

    /// Another client has added tokens that were not earned.
    pub fn mint(&mut self, tokens: i128) {
        self.level += tokens;
        self.strict += tokens;
    }

    /// The rest.
    pub fn level(&self) -> i128 {
        self.level
    }
}
