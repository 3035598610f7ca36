//! Which class each user has.

/// The class of each place among the users, by the weights of the classes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    places: Vec<usize>,
    counts: Vec<u64>,
}

impl Places {
    /// The class of a place: the one that is furthest below its share of the weights.
    pub(crate) fn class(&mut self, place: usize, weights: &[u32]) -> usize {
        self.counts.resize(weights.len(), 0);
        let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        while self.places.len() <= place {
            let next = self.places.len() as u64 + 1;
            let of = |(weight, count): (&u32, &u64)| {
                i128::from(u64::from(*weight) * next) - i128::from(*count) * i128::from(all)
            };
            let missing: Vec<_> = weights.iter().zip(&self.counts).map(of).collect();
            // The first of several.
            let class = (0..missing.len())
                .rev()
                .max_by_key(|class| missing.get(*class))
                .unwrap_or(0);
            if let Some(count) = self.counts.get_mut(class) {
                *count += 1;
            }
            self.places.push(class);
        }
        self.places.get(place).copied().unwrap_or(0)
    }
}
