//! Sorts requests that are nearly in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Request;

/// The most requests that are held back.
const MOST: usize = 1_000_000;

/// Holds requests back until no earlier one can follow. Those of one time keep their order.
#[derive(Debug)]
pub(crate) struct Order {
    held: BinaryHeap<Reverse<Held>>,
    /// How much earlier than one before it a request can be, in milliseconds.
    disorder: i64,
    most: usize,
    arrived: u64,
    latest: i64,
    /// The request that was handed out last: its time and its line.
    last: Option<(i64, u64)>,
}

#[derive(Debug)]
struct Held {
    when: (i64, u64),
    request: Request,
}

/// A request that comes after a later one was handed out: that one's time and line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLate {
    pub(crate) after_ms: i64,
    pub(crate) line: u64,
}

impl Order {
    pub(crate) fn new(disorder: i64) -> Self {
        Self::of_size(disorder, MOST)
    }

    fn of_size(disorder: i64, most: usize) -> Self {
        Self {
            held: BinaryHeap::new(),
            disorder,
            most,
            arrived: 0,
            latest: i64::MIN,
            last: None,
        }
    }

    /// Takes a request in.
    pub(crate) fn push(&mut self, request: Request) -> Result<(), TooLate> {
        if let Some((after_ms, line)) = self.last.filter(|(at_ms, _)| request.at_ms < *at_ms) {
            return Err(TooLate { after_ms, line });
        }
        self.latest = self.latest.max(request.at_ms);
        self.arrived += 1;
        let when = (request.at_ms, self.arrived);
        self.held.push(Reverse(Held { when, request }));
        Ok(())
    }

    /// The next request, if no earlier one can follow.
    pub(crate) fn ready(&mut self) -> Option<Request> {
        let Reverse(first) = self.held.peek()?;
        let is_ready =
            first.when.0 <= self.latest.saturating_sub(self.disorder) || self.held.len() > self.most;
        if is_ready { self.next() } else { None }
    }

    /// The next request, if no request follows at all.
    pub(crate) fn next(&mut self) -> Option<Request> {
        let Reverse(Held { request, .. }) = self.held.pop()?;
        self.last = Some((request.at_ms, request.line));
        Some(request)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.when == other.when
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.when.cmp(&other.when)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(at_ms: i64, line: u64) -> Request {
        Request {
            at_ms,
            line,
            entity: "a".try_into().unwrap(),
            resource: "r".try_into().unwrap(),
            parent: None,
            amounts: Vec::new(),
            lasts_ms: 0,
            fails: false,
        }
    }

    fn sorted(mut order: Order, times: &[i64]) -> Result<Vec<(i64, u64)>, (u64, TooLate)> {
        let mut found = Vec::new();
        for (at_ms, line) in times.iter().zip(1..) {
            order.push(request(*at_ms, line)).map_err(|late| (line, late))?;
            while let Some(request) = order.ready() {
                found.push((request.at_ms, request.line));
            }
        }
        while let Some(request) = order.next() {
            found.push((request.at_ms, request.line));
        }
        Ok(found)
    }

    #[test]
    fn nearly_sorted_requests_are_sorted() {
        let found = sorted(Order::new(10), &[5, 3, 5, 12, 13, 4, 30]);
        assert_eq!(
            found.unwrap(),
            [(3, 2), (4, 6), (5, 1), (5, 3), (12, 4), (13, 5), (30, 7)]
        );
    }

    #[test]
    fn a_request_that_is_too_late_is_refused() {
        let late = sorted(Order::new(10), &[5, 15, 4]);
        assert_eq!(late, Err((3, TooLate { after_ms: 5, line: 1 })));
        let late = sorted(Order::new(0), &[5, 4]);
        assert_eq!(late, Err((2, TooLate { after_ms: 5, line: 1 })));
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let late = sorted(Order::of_size(1000, 2), &[5, 6, 7, 4]);
        assert_eq!(late, Err((4, TooLate { after_ms: 5, line: 1 })));
    }

    proptest! {
        #[test]
        fn either_all_are_sorted_or_one_is_too_late(
            times in proptest::collection::vec(0_i64..50, 0..40), disorder in 0_i64..60
        ) {
            let mut expected: Vec<_> = times.iter().copied().zip(1_u64..).collect();
            expected.sort_by_key(|(at_ms, _)| *at_ms);
            let within = (0..times.len()).all(|i| times[..i].iter().all(|before| before - times[i] <= disorder));
            match sorted(Order::new(disorder), &times) {
                Ok(found) => prop_assert_eq!(found, expected),
                Err(_) => prop_assert!(!within),
            }
        }
    }
}
