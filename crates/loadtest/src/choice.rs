//! Which entity a request is for.

use std::time::Duration;

use tokio::time::Instant;

use crate::scenario::{EntityChoice, Skew};

/// How long the random end of a name is.
const DIGITS: usize = 8;

/// A name with a random end, of hexadecimal digits.
pub(crate) fn random_name(prefix: &str, rng: &mut fastrand::Rng) -> String {
    format!("{prefix}{:0DIGITS$x}", rng.u32(..))
}

/// A user's choice of entities.
pub(crate) enum Choice<'a> {
    /// Always the same.
    Own(String),
    /// By a distribution that all users share.
    Skewed(&'a Skewed),
}

/// The distribution of a [`Skew`].
#[derive(Debug)]
pub(crate) struct Skewed {
    skew: Skew,
    /// The sums of the weights of the other entities.
    weights: Vec<f64>,
    /// When the spike ends that all users take part in.
    spike_until: std::sync::Mutex<Option<Instant>>,
}

impl Skewed {
    /// The distribution of a class, if it has one.
    pub(crate) fn of(choice: &EntityChoice) -> Option<Self> {
        let EntityChoice::Skewed(skew) = choice else {
            return None;
        };
        let weights = (1..=skew.others.max(1)).scan(0.0, |sum, rank| {
            *sum += (rank as f64).powf(-skew.exponent);
            Some(*sum)
        });
        Some(Self {
            skew: skew.clone(),
            weights: weights.collect(),
            spike_until: std::sync::Mutex::new(None),
        })
    }

    fn choose(&self, now: Instant, rng: &mut fastrand::Rng) -> String {
        let skew = &self.skew;
        if self.is_spike(now, rng) {
            return skew.spiker.clone();
        }
        let part = rng.f64();
        if part < skew.whale_share {
            return skew.whale.clone();
        }
        if part < skew.whale_share + skew.spiker_share {
            return skew.spiker.clone();
        }
        let all = self.weights.last().copied().unwrap_or(0.0);
        let point = rng.f64() * all;
        let rank = self.weights.partition_point(|sum| *sum < point);
        format!("{}{rank:05}", skew.prefix)
    }

    fn is_spike(&self, now: Instant, rng: &mut fastrand::Rng) -> bool {
        if self.skew.spike_probability <= 0.0 {
            return false;
        }
        let mut until = self
            .spike_until
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if until.is_some_and(|until| now < until) {
            return true;
        }
        let starts = rng.f64() < self.skew.spike_probability;
        *until = starts.then(|| now + self.skew.spike.min(Duration::from_hours(24)));
        starts
    }
}

impl Choice<'_> {
    /// The entity of the next request.
    pub(crate) fn next(&self, now: Instant, rng: &mut fastrand::Rng) -> String {
        match self {
            Self::Own(name) => name.clone(),
            Self::Skewed(skewed) => skewed.choose(now, rng),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipped;

    #[tokio::test(start_paused = true)]
    async fn shares_are_those_of_the_scenario() {
        let stress = shipped::find("stress").unwrap();
        let skewed = Skewed::of(&stress.classes[0].entity).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut whale, mut first, mut all, mut spikes) = (0, 0, 0, 0);
        for _ in 0..200_000 {
            tokio::time::advance(Duration::from_millis(10)).await;
            let now = Instant::now();
            let entity = skewed.choose(now, &mut rng);
            if skewed
                .spike_until
                .lock()
                .unwrap()
                .is_some_and(|until| now < until)
            {
                assert_eq!(entity, "entity-spiker");
                spikes += 1;
                continue;
            }
            all += 1;
            whale += u32::from(entity == "entity-whale");
            first += u32::from(entity == "entity-00000");
        }
        // Zipf with exponent 1.5 over 15,998 gives the first 1 / 2.5966 of its 47 %.
        let part = |count: u32| f64::from(count) / f64::from(all);
        assert!((part(whale) - 0.5).abs() < 0.02, "{}", part(whale));
        assert!((part(first) - 0.47 / 2.5966).abs() < 0.02, "{}", part(first));
        // A spike lasts 3,000 choices, and starts after 600 on average.
        let spiking = f64::from(spikes) / 200_000.0;
        assert!((0.6..0.95).contains(&spiking), "{spiking}");
    }
}
