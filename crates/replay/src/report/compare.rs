//! What a second manifest refuses that the first admits, and the other way round.

use std::collections::{BTreeMap, HashMap};

use zae_limiter_core::{EntityId, ResourceName};

use crate::trace::Request;

/// The difference between two runs, request by request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Comparison {
    /// Requests that both admit.
    pub both_admit: u64,
    /// Requests that neither admits.
    pub neither_admits: u64,
    /// Requests that only the first admits.
    pub only_first_admits: u64,
    /// Requests that only the second admits.
    pub only_second_admits: u64,
    /// The entities with a difference, by the number of requests that the second admits less.
    pub differences: Vec<Difference>,
}

/// The difference for an entity on a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The entity.
    pub entity: EntityId,
    /// The resource.
    pub resource: ResourceName,
    /// Requests that only the first manifest admits.
    pub lost: u64,
    /// Requests that only the second manifest admits.
    pub gained: u64,
    /// When the first and the last request that is lost arrived, in milliseconds since 1970.
    pub lost_ms: Option<(i64, i64)>,
    /// The limits of the second manifest that refuse what is lost, as `LIMIT of ENTITY`, and how many requests each.
    pub lost_by: BTreeMap<String, u64>,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was admitted.
    Admitted,
    /// Limits refused it. The names of these, with their entities.
    Refused(Vec<String>),
    /// It failed, because it is disabled, or its limit is not declared.
    Failed,
}

/// Compares the outcomes of each request, of which the second can come much later than the first.
#[derive(Debug)]
pub(crate) struct Comparer {
    is_on: bool,
    open: HashMap<u64, Open>,
    counts: [[u64; 2]; 2],
    differences: BTreeMap<(EntityId, ResourceName), Difference>,
}

#[derive(Debug)]
struct Open {
    at_ms: i64,
    of: (EntityId, ResourceName),
    outcomes: [Option<Outcome>; 2],
}

impl Comparer {
    pub(crate) fn new(runs: usize) -> Self {
        Self {
            is_on: runs == 2,
            open: HashMap::new(),
            counts: [[0; 2]; 2],
            differences: BTreeMap::new(),
        }
    }

    /// A request arrives.
    pub(crate) fn arrived(&mut self, number: u64, request: &Request) {
        if self.is_on {
            let open = Open {
                at_ms: request.at_ms,
                of: (request.entity.clone(), request.resource.clone()),
                outcomes: [None, None],
            };
            self.open.insert(number, open);
        }
    }

    /// A request has its outcome in a run.
    pub(crate) fn concluded(&mut self, number: u64, run: usize, outcome: Outcome) {
        let Some(open) = self.open.get_mut(&number) else {
            return;
        };
        if let Some(place) = open.outcomes.get_mut(run) {
            *place = Some(outcome);
        }
        if open.outcomes.iter().any(Option::is_none) {
            return;
        }
        let Some(Open {
            at_ms,
            of,
            outcomes: [Some(first), Some(second)],
        }) = self.open.remove(&number)
        else {
            return;
        };
        let admits = |outcome: &Outcome| *outcome == Outcome::Admitted;
        let (by_first, by_second) = (admits(&first), admits(&second));
        self.counts[usize::from(by_first)][usize::from(by_second)] += 1;
        if by_first == by_second {
            return;
        }
        let difference = self.differences.entry(of.clone()).or_insert_with(|| Difference {
            entity: of.0,
            resource: of.1,
            lost: 0,
            gained: 0,
            lost_ms: None,
            lost_by: BTreeMap::new(),
        });
        if by_second {
            difference.gained += 1;
            return;
        }
        difference.lost += 1;
        let (begin, end) = difference.lost_ms.unwrap_or((at_ms, at_ms));
        difference.lost_ms = Some((begin.min(at_ms), end.max(at_ms)));
        let limits = match second {
            Outcome::Refused(limits) => limits,
            _ => vec!["a failure".to_owned()],
        };
        for limit in limits {
            *difference.lost_by.entry(limit).or_default() += 1;
        }
    }

    /// The comparison, if there is something to compare.
    pub(crate) fn finish(self) -> Option<Comparison> {
        if !self.is_on {
            return None;
        }
        let mut differences: Vec<Difference> = self.differences.into_values().collect();
        let more = |one: &Difference| i128::from(one.lost) - i128::from(one.gained);
        // Stable: those with as many stay in the order of their names.
        differences.sort_by_key(|one| std::cmp::Reverse(more(one)));
        let [[neither, only_second], [only_first, both]] = self.counts;
        Some(Comparison {
            both_admit: both,
            neither_admits: neither,
            only_first_admits: only_first,
            only_second_admits: only_second,
            differences,
        })
    }
}
