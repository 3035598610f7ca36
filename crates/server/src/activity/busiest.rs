//! Which entities ask most: a sketch whose size does not depend on how many names clients send.

use std::collections::BTreeSet;
use std::hash::RandomState;
use std::time::Duration;

use heavykeeper::TopK;
use serde::Serialize;
use tokio::time::Instant;

use super::Target;

/// How many are listed.
const LISTED: usize = 20;

/// How many are followed: more than are listed, so that those at the end of the list are counted well.
const FOLLOWED: usize = 4 * LISTED;

/// The size of a sketch: 64 KiB. With 4 rows of 1024 counters, one that makes 1 of 1000 requests is found.
const COLUMNS: usize = 1024;
const ROWS: usize = 4;

/// How fast rare names make room, as in the paper of the algorithm (`HeavyKeeper`, 2018).
const DECAY: f64 = 0.9;

/// How long a generation lasts. Counts are those of the last one and of the one that runs.
const GENERATION: Duration = Duration::from_mins(5);

/// Counts of who asked, and who was refused.
#[derive(Debug)]
pub(super) struct Busiest {
    current: Generation,
    last: Option<Generation>,
}

type Sketch = TopK<Target, RandomState>;

struct Generation {
    began: Instant,
    requests: Sketch,
    refusals: Sketch,
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Rank {
    pub(super) entity_id: String,
    pub(super) resource: String,
    /// Never more than there were.
    pub(super) requests: u64,
    pub(super) refusals: u64,
}

impl Generation {
    fn new(began: Instant) -> Self {
        // Not a constant seed, with which clients could choose names that hide each other.
        let sketch = || TopK::with_hasher(FOLLOWED, COLUMNS, ROWS, DECAY, RandomState::new());
        Self {
            began,
            requests: sketch(),
            refusals: sketch(),
        }
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("began", &self.began)
            .finish_non_exhaustive()
    }
}

impl Busiest {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            current: Generation::new(now),
            last: None,
        }
    }

    /// Notes a request.
    pub(super) fn note(&mut self, target: &Target, is_refused: bool, now: Instant) {
        self.turn(now);
        self.current.requests.add(target, 1);
        if is_refused {
            self.current.refusals.add(target, 1);
        }
    }

    /// Begins a generation if it is time.
    pub(super) fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.current.began);
        if age < GENERATION {
            return;
        }
        let ended = std::mem::replace(&mut self.current, Generation::new(now));
        self.last = (age < 2 * GENERATION).then_some(ended);
    }

    /// How long the counts reach back.
    pub(super) fn window(&self, now: Instant) -> Duration {
        let began = self.last.as_ref().unwrap_or(&self.current).began;
        now.saturating_duration_since(began)
    }

    /// Who asked most, in descending order.
    pub(super) fn most_requests(&self) -> Vec<Rank> {
        self.ranks(|generation| &generation.requests, |rank| rank.requests)
    }

    /// Who was refused most, in descending order.
    pub(super) fn most_refusals(&self) -> Vec<Rank> {
        self.ranks(|generation| &generation.refusals, |rank| rank.refusals)
    }

    fn ranks(&self, sketch: fn(&Generation) -> &Sketch, count: fn(&Rank) -> u64) -> Vec<Rank> {
        let generations = || self.last.iter().chain([&self.current]);
        let mut followed: BTreeSet<Target> = BTreeSet::new();
        for generation in generations() {
            followed.extend(sketch(generation).list().into_iter().map(|node| node.item));
        }
        let sum = |target: &Target, sketch: fn(&Generation) -> &Sketch| {
            generations()
                .map(|generation| sketch(generation).count(target))
                .sum()
        };
        let ranks = followed.into_iter().map(|target| Rank {
            requests: sum(&target, |generation| &generation.requests),
            refusals: sum(&target, |generation| &generation.refusals),
            entity_id: target.0.to_string(),
            resource: target.1.to_string(),
        });
        let mut ranks: Vec<Rank> = ranks.collect();
        // Those with the same count stay in the order of their names.
        ranks.sort_by_key(|rank| std::cmp::Reverse(count(rank)));
        ranks.truncate(LISTED);
        ranks
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

    use zae_limiter::{EntityId, ResourceName};

    use super::*;

    fn target(entity: &str) -> Target {
        (
            EntityId::new(entity).unwrap(),
            ResourceName::new("gpt-4").unwrap(),
        )
    }

    #[test]
    fn those_that_ask_most_are_found_among_many_names() {
        let now = Instant::now();
        let mut busiest = Busiest::new(now);
        for round in 0_u32..1000 {
            for heavy in 0..10 {
                let is_refused = heavy == 3 && round % 2 == 0;
                for _ in 0..=heavy {
                    busiest.note(&target(&format!("heavy-{heavy}")), is_refused, now);
                }
            }
            for light in 0..100 {
                busiest.note(&target(&format!("light-{round}-{light}")), false, now);
            }
        }
        let most = busiest.most_requests();
        assert_eq!(most.len(), LISTED);
        for (rank, heavy) in most.iter().zip((0_u64..10).rev()) {
            assert_eq!(rank.entity_id, format!("heavy-{heavy}"));
            let exact = 1000 * (heavy + 1);
            assert!(
                rank.requests <= exact && rank.requests * 100 >= exact * 95,
                "{rank:?}"
            );
        }
        let refused = busiest.most_refusals();
        assert_eq!(refused.len(), 1);
        let expected = ("heavy-3", 2000);
        assert_eq!((refused[0].entity_id.as_str(), refused[0].refusals), expected);
    }

    #[test]
    fn counts_are_of_the_last_generations() {
        let begin = Instant::now();
        let mut busiest = Busiest::new(begin);
        busiest.note(&target("a"), false, begin);
        let next = begin + GENERATION;
        busiest.note(&target("a"), false, next);
        assert_eq!(busiest.most_requests()[0].requests, 2);
        assert_eq!(busiest.window(next), GENERATION);
        let after = next + GENERATION;
        busiest.turn(after);
        assert_eq!(busiest.most_requests()[0].requests, 1);
        assert_eq!(busiest.window(after), GENERATION);
        // After a silence, what is older is forgotten.
        let late = after + 3 * GENERATION;
        busiest.turn(late);
        assert!(busiest.most_requests().is_empty());
        assert_eq!(busiest.window(late), Duration::ZERO);
    }
}
