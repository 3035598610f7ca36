//! Numbers over time, in parts of equal length that follow the length of the trace.

use std::collections::BTreeMap;

use zae_limiter::InvalidInput;

/// The lengths of parts, in milliseconds. Each is a multiple of the one before it, so that parts can be joined.
const LENGTHS: [i64; 15] = [
    1_000,
    5_000,
    10_000,
    30_000,
    60_000,
    300_000,
    900_000,
    1_800_000,
    3_600_000,
    3 * 3_600_000,
    6 * 3_600_000,
    12 * 3_600_000,
    86_400_000,
    7 * 86_400_000,
    28 * 86_400_000,
];

/// The most parts that are made by default.
const MOST: i64 = 72;

/// The most parts that can be asked for.
const MOST_CHOSEN: i64 = 10_000;

/// The length of the parts, and what they must cover.
#[derive(Debug)]
pub(crate) struct Widths {
    width_ms: i64,
    is_chosen: bool,
    span: Option<(i64, i64)>,
}

impl Widths {
    pub(crate) fn new(every_ms: Option<i64>) -> Self {
        Self {
            width_ms: every_ms.unwrap_or(LENGTHS[0]).max(1),
            is_chosen: every_ms.is_some(),
            span: None,
        }
    }

    /// The length of a part.
    pub(crate) fn width_ms(&self) -> i64 {
        self.width_ms
    }

    /// Makes sure that the parts cover a time: with longer ones, if there would be too many.
    ///
    /// # Errors
    /// If the length was chosen and is too short.
    pub(crate) fn include(&mut self, at_ms: i64) -> Result<(), InvalidInput> {
        let (first, last) = self.span.unwrap_or((at_ms, at_ms));
        let (first, last) = (first.min(at_ms), last.max(at_ms));
        self.span = Some((first, last));
        while self.parts(first, last) > self.most() {
            if self.is_chosen {
                let reason =
                    format!("makes more than {MOST_CHOSEN} parts of this trace; choose a longer time");
                return Err(InvalidInput::of_request(
                    "every",
                    format!("{} ms", self.width_ms),
                    reason,
                ));
            }
            let longer = LENGTHS.iter().find(|length| **length > self.width_ms);
            self.width_ms = longer.copied().unwrap_or(self.width_ms.saturating_mul(2));
        }
        Ok(())
    }

    fn most(&self) -> i64 {
        if self.is_chosen { MOST_CHOSEN } else { MOST }
    }

    fn parts(&self, first: i64, last: i64) -> i64 {
        last.div_euclid(self.width_ms) - first.div_euclid(self.width_ms) + 1
    }

    /// The begins of all parts, in order.
    pub(crate) fn begins(&self) -> Vec<i64> {
        let Some((first, last)) = self.span else {
            return Vec::new();
        };
        let parts = first.div_euclid(self.width_ms)..=last.div_euclid(self.width_ms);
        parts.map(|part| part * self.width_ms).collect()
    }
}

/// Numbers of each part that has any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline<const N: usize> {
    width_ms: i64,
    parts: BTreeMap<i64, [u64; N]>,
}

impl<const N: usize> Timeline<N> {
    /// Adds one to the number with this index, at this time.
    pub(crate) fn count(&mut self, index: usize, at_ms: i64, widths: &Widths) {
        self.fit(widths.width_ms());
        let part = self
            .parts
            .entry(at_ms.div_euclid(self.width_ms))
            .or_insert([0; N]);
        if let Some(number) = part.get_mut(index) {
            *number += 1;
        }
    }

    fn fit(&mut self, width_ms: i64) {
        if self.width_ms == width_ms {
            return;
        }
        let before = std::mem::take(&mut self.parts);
        for (part, numbers) in before {
            let begin = part.saturating_mul(self.width_ms);
            let joined = self.parts.entry(begin.div_euclid(width_ms)).or_insert([0; N]);
            for (sum, number) in joined.iter_mut().zip(numbers) {
                *sum += number;
            }
        }
        self.width_ms = width_ms;
    }

    /// The numbers of all parts, also of those that have none.
    pub(crate) fn all(mut self, widths: &Widths) -> Vec<[u64; N]> {
        self.fit(widths.width_ms());
        let part = |begin: i64| self.parts.get(&begin.div_euclid(self.width_ms));
        widths
            .begins()
            .into_iter()
            .map(|begin| part(begin).copied().unwrap_or([0; N]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_length_is_a_multiple_of_the_one_before() {
        for pair in LENGTHS.windows(2) {
            assert_eq!(pair[1] % pair[0], 0, "{pair:?}");
        }
    }

    #[test]
    fn parts_become_longer_with_the_trace() {
        let (mut widths, mut timeline) = (Widths::new(None), Timeline::<1>::default());
        for second in 0..200 {
            widths.include(second * 1000).unwrap();
            timeline.count(0, second * 1000, &widths);
        }
        assert_eq!(widths.width_ms(), 5000);
        assert_eq!(timeline.all(&widths), [[5]; 40]);
        widths.include(40 * 365 * 86_400_000).unwrap();
        assert!(widths.begins().len() <= 72, "{}", widths.width_ms());
    }

    #[test]
    fn a_chosen_length_stays() {
        let mut widths = Widths::new(Some(60_000));
        widths.include(90_000).unwrap();
        widths.include(200_000).unwrap();
        assert_eq!(widths.begins(), [60_000, 120_000, 180_000]);
        let err = widths.include(60_000 * 20_000).unwrap_err();
        assert_eq!((err.field(), err.value()), ("every", "60000 ms"));
    }

    proptest! {
        #[test]
        fn nothing_is_lost(times in proptest::collection::vec(0_i64..10_i64.pow(12), 1..50)) {
            let (mut widths, mut timeline) = (Widths::new(None), Timeline::<2>::default());
            for at_ms in &times {
                widths.include(*at_ms).unwrap();
                timeline.count(1, *at_ms, &widths);
            }
            let all = timeline.all(&widths);
            prop_assert!(all.len() <= 72);
            prop_assert_eq!(all.iter().map(|part| part[1]).sum::<u64>(), times.len() as u64);
        }
    }
}
