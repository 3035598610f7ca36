//! The reference bucket of a limit with a schedule: what all shards of its bucket may admit together.
//!
//! It is the one of [`super::account`] with what is in force at each time: it gains by the largest rate, and is cut to the largest
//! capacity, that are in force within the time by which clocks and requests may be off. Its slack is that of the horizon and of
//! that time. Balances in parts of a millitoken.

use super::account::Lags;
use crate::plan::Clocks;
use crate::rows::row::Cell;
use crate::rows::terms::{PARTS, Params};

/// The part of the time to fill for which a bucket is spent without being refilled.
const HORIZON: i128 = 8;

/// How many round trips the horizon is at least.
const ROUND_TRIPS: i64 = 4;

/// The longest round trip that stretches the horizon.
const MAX_ROUND_TRIP_MS: i64 = 2000;

/// More than any bucket holds.
const FULL: i128 = i128::MAX / 4;

/// One limit's reference bucket.
#[derive(Debug)]
pub(crate) struct Scheduled {
    /// The rules of its shards, which may differ while they are changed.
    cells: Vec<Cell>,
    clocks: Clocks,
    lags: Lags,
    level: i128,
    at: i64,
}

impl Scheduled {
    /// A bucket that is full.
    pub(crate) fn new(clocks: Clocks, lags: Lags, now: i64) -> Self {
        Self {
            cells: Vec::new(),
            clocks,
            lags,
            level: FULL,
            at: now,
        }
    }

    fn error_ms(&self) -> i64 {
        self.lags.arrival_ms + self.clocks.ahead_ms + self.clocks.behind_ms + 1
    }

    /// The largest rate in force between two instants, and the most that it holds then.
    fn most(&self, from: i64, to: i64) -> (i128, i128) {
        let error = self.error_ms();
        let most = self
            .cells
            .iter()
            .map(|cell| cell.terms.most(cell.base(), from - error, to + error));
        let (capacity, rate) = most.fold((0, 0), |(cp, rate), (other_cp, other_rate)| {
            (cp.max(other_cp), rate.max(other_rate))
        });
        let round_trips = ROUND_TRIPS * self.lags.answer_ms.min(MAX_ROUND_TRIP_MS);
        let slack = capacity * PARTS / HORIZON + rate * i128::from(round_trips + error + 2);
        (rate, capacity * PARTS + slack + PARTS)
    }

    /// Answers or writes have taken longer than any before.
    pub(crate) fn lag(&mut self, lags: Lags, now: i64) {
        let before = self.error_ms();
        self.lags = lags;
        let error = self.error_ms();
        if error > before {
            let (rate, _) = self.most(now, now);
            self.level += rate * i128::from(error - before);
            if self
                .cells
                .iter()
                .any(|cell| cell.terms.changes_in(now - 2 * error, now + error))
            {
                self.level = FULL;
            }
        }
    }

    /// Lets time pass until `now`, for shards of these rules. Under other rules than before, it starts anew.
    pub(crate) fn advance(&mut self, cells: &[Cell], now: i64) {
        let rules = |cells: &[Cell]| -> Vec<(Params, crate::rows::terms::Terms)> {
            let mut rules: Vec<_> = Vec::new();
            for cell in cells {
                let rule = (cell.base(), cell.terms);
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
            rules
        };
        let (before, after) = (rules(&self.cells), rules(cells));
        if after.iter().any(|rule| !before.contains(rule)) {
            self.level = FULL;
        }
        self.cells = cells.to_vec();
        while self.at < now {
            let until = (self.at - self.at.rem_euclid(60_000) + 60_000).min(now);
            let (rate, most) = self.most(self.at, until);
            self.level = (self.level + rate * i128::from(until - self.at)).min(most);
            self.at = until;
        }
        let (_, most) = self.most(now, now);
        self.level = self.level.min(most);
    }

    /// Pays for consumption (or, if negative, takes a refund).
    pub(crate) fn pay(&mut self, consumed: i128) {
        self.level -= consumed * PARTS;
    }

    /// Another client has added tokens that were not earned, or an item expired in debt.
    pub(crate) fn mint(&mut self, tokens: i128) {
        self.level += tokens * PARTS;
    }

    /// The rest, in millitokens.
    pub(crate) fn level(&self) -> i128 {
        self.level / PARTS
    }
}
