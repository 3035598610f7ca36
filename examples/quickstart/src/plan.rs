//! Turns a trace into calls: the API key, the estimate, the duration, and whether the call fails.
//!
//! A trace contains none of these. They are drawn from one seed before the first call is made, so that the plan does
//! not depend on the decisions of the limiter.

use crate::trace::Request;
use crate::zipf::Zipf;

/// The tokens of the answer in an estimate.
const ASSUMED_ANSWER: f64 = 64.0;

/// Callers estimate the tokens of a prompt from its length, between these fractions of the true number. Some estimates
/// are low enough to lead to a debt.
const GUESS: (f64, f64) = (0.6, 1.0);

/// The part of calls that fail after they were admitted.
const FAILING: f64 = 0.02;

/// The time before a model's first token, and for each token.
const FIRST_TOKEN_MS: i64 = 150;
const TOKEN_MS: i64 = 8;

/// One call to the model, as planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// Milliseconds after the start of the replay.
    pub(crate) at_ms: i64,
    /// The rank of the API key that makes it.
    pub(crate) key: usize,
    /// Tokens that the caller takes: the estimate.
    pub(crate) estimate: u64,
    /// Tokens that the model reports at the end.
    pub(crate) used: u64,
    /// Its duration.
    pub(crate) takes_ms: i64,
    /// Whether it fails. A failed call is rolled back.
    pub(crate) fails: bool,
}

/// Plans a call for every request of a trace.
pub(crate) fn plan(trace: &[Request], traffic: &Zipf, seed: u64) -> Vec<Call> {
    let mut random = fastrand::Rng::with_seed(seed);
    let call = |request: &Request| {
        let (low, high) = GUESS;
        let prompt = f64::from(request.context) * (low + random.f64() * (high - low));
        let generated = request.generated;
        Call {
            at_ms: request.at_ms,
            key: traffic.rank(random.f64()),
            estimate: (prompt + ASSUMED_ANSWER).ceil() as u64,
            used: u64::from(request.context) + u64::from(generated),
            takes_ms: FIRST_TOKEN_MS + i64::from(generated) * TOKEN_MS,
            fails: random.f64() < FAILING,
        }
    };
    trace.iter().map(call).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan() {
        let (trace, traffic) = (crate::trace::sample().unwrap(), Zipf::new(8));
        let first = plan(&trace, &traffic, 1);
        assert_eq!(first, plan(&trace, &traffic, 1));
        assert_ne!(first, plan(&trace, &traffic, 2));
        assert!(
            first
                .iter()
                .all(|call| call.key < 8 && call.estimate > 0 && call.used > 0)
        );
        assert!(first.iter().any(|call| call.fails));
    }
}
