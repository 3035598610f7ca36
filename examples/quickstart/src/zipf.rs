//! Zipf's law: the second of a ranking gets half of what the first gets, the third a third, and so on. API
//! keys share traffic roughly like this: a few make most of it.
//!
//! See <https://en.wikipedia.org/wiki/Zipf%27s_law>.

/// Draws ranks by Zipf's law, with an exponent of 1.
#[derive(Debug)]
pub(crate) struct Zipf {
    /// For each rank, the weight of it and of all before it.
    sums: Vec<f64>,
}

impl Zipf {
    /// Weights for this many ranks, at least one.
    pub(crate) fn new(ranks: usize) -> Self {
        let sums = (1..=ranks.max(1)).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Self { sums: sums.collect() }
    }

    /// The rank, counted from 0, for a number drawn evenly from 0 to 1.
    pub(crate) fn rank(&self, even: f64) -> usize {
        let last = self.sums.len() - 1;
        let point = even * self.sums[last];
        self.sums.partition_point(|sum| *sum <= point).min(last)
    }

    /// The part of the whole that a rank gets.
    pub(crate) fn part(&self, rank: usize) -> f64 {
        let before = rank.checked_sub(1).map_or(0.0, |before| self.sums[before]);
        (self.sums[rank] - before) / self.sums[self.sums.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fall_off_by_rank_and_make_up_the_whole() {
        let zipf = Zipf::new(8);
        assert!((zipf.part(1) * 2.0 - zipf.part(0)).abs() < 1e-12);
        assert!((zipf.part(7) * 8.0 - zipf.part(0)).abs() < 1e-12);
        assert!(((0..8).map(|rank| zipf.part(rank)).sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn draws_follow_the_parts() {
        let (zipf, mut drawn) = (Zipf::new(5), [0_usize; 5]);
        for i in 0..100_000 {
            drawn[zipf.rank((f64::from(i) + 0.5) / 100_000.0)] += 1;
        }
        for (rank, drawn) in drawn.iter().enumerate() {
            assert!(
                (*drawn as f64 / 100_000.0 - zipf.part(rank)).abs() < 1e-4,
                "rank {rank}"
            );
        }
    }

    #[test]
    fn the_ends_of_the_range_are_ranks() {
        assert_eq!(Zipf::new(3).rank(0.0), 0);
        assert_eq!(Zipf::new(3).rank(1.0), 2);
        assert_eq!(Zipf::new(1).rank(0.999), 0);
    }
}
