//! Random numbers, and the choices of an acquire that a test can make instead.

use std::fmt;
use std::sync::Arc;

use zae_limiter_core::random::Random;

/// Random numbers for jitter, shard draws and marks.
pub(crate) struct FastRandom;

impl Random for FastRandom {
    fn bits(&mut self) -> u64 {
        fastrand::u64(..)
    }
}

/// Chooses one of so many.
type Choose = dyn Fn(u32) -> u32 + Send + Sync;

/// Chooses at random, unless a test has brought its own choices. Marks are random in either case, since they must be
/// unique.
#[derive(Clone, Default)]
pub(crate) struct Draws(Option<Arc<Choose>>);

impl Draws {
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn by(choose: impl Fn(u32) -> u32 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(choose)))
    }
}

impl Random for &Draws {
    fn bits(&mut self) -> u64 {
        FastRandom.bits()
    }

    fn below(&mut self, bound: u32) -> u32 {
        match &self.0 {
            Some(choose) if bound > 0 => choose(bound) % bound,
            _ => FastRandom.below(bound),
        }
    }
}

impl fmt::Debug for Draws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.0.is_some() { "chosen" } else { "random" };
        f.debug_tuple("Draws").field(&kind).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_those_of_the_test_and_marks_are_not() {
        let mut draws = &Draws::by(|choices| choices + 2);
        assert_eq!((draws.below(4), draws.below(1), draws.below(0)), (2, 0, 0));
        assert_ne!(draws.bits(), draws.bits());
        let mut random = &Draws::default();
        assert!((0..100).all(|_| random.below(3) < 3));
    }
}
