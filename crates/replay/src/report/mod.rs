//! What came of a replay.

mod compare;
mod json;
mod tally;
mod timeline;

use zae_limiter_core::{EntityId, LimitName, ResourceName};

use crate::level::DeclaredAt;
use crate::options::{OnRefusal, Options};
use crate::trace::{Counts, Description};

pub(crate) use compare::{Comparer, Outcome};
pub use compare::{Comparison, Difference};
pub(crate) use tally::Tally;
pub(crate) use timeline::Widths;

/// What came of a replay.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The trace.
    pub trace: Description,
    /// Numbers of rows that were not replayed.
    pub counts: Counts,
    /// How many requests were replayed.
    pub requests: u64,
    /// When the first and the last of them arrived, in milliseconds since 1970.
    pub span_ms: (i64, i64),
    /// The seed.
    pub seed: u64,
    /// What callers did when they were refused.
    pub on_refusal: OnRefusal,
    /// The length of the parts of timelines, in milliseconds.
    pub every_ms: i64,
    /// When the parts of timelines begin, in milliseconds since 1970.
    pub begins_ms: Vec<i64>,
    /// A run for each manifest, in their order.
    pub runs: Vec<Run>,
    /// The difference between the first and the second, if there are two.
    pub comparison: Option<Comparison>,
}

/// What came of one manifest.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Run {
    /// The manifest.
    pub manifest: String,
    /// What must be known about it.
    pub notes: Vec<String>,
    /// The sums.
    pub totals: Totals,
    /// Arrivals and refusals in each part of the timeline.
    pub timeline: Vec<Part>,
    /// The entities, by the number of requests that they lost.
    pub keys: Vec<KeyRow>,
    /// The limits, by the number of refusals.
    pub limits: Vec<LimitRow>,
}

/// Sums over all requests of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Requests that were admitted, at once or later.
    pub admitted: u64,
    /// Of these, those that were refused before.
    pub admitted_later: u64,
    /// Requests that were refused, and not admitted later.
    pub refused: u64,
    /// Of these, those that no wait would have helped: more was asked than a limit can hold.
    pub never: u64,
    /// Requests that failed: disabled, or without a limit that they name.
    pub failed: u64,
    /// All refusals, those of calls that came back included.
    pub refusals: u64,
}

/// A part of a timeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// Requests that arrived.
    pub arrived: u64,
    /// Refusals.
    pub refused: u64,
    /// Requests that failed.
    pub failed: u64,
}

/// The requests of an entity on a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRow {
    /// The entity.
    pub entity: EntityId,
    /// The resource.
    pub resource: ResourceName,
    /// Its requests.
    pub requests: u64,
    /// Those that were admitted, at once or later.
    pub admitted: u64,
    /// Those that were refused, and not admitted later.
    pub refused: u64,
    /// Those that failed.
    pub failed: u64,
    /// Why the first of those failed.
    pub failure: Option<String>,
    /// The first and the last refusal, in milliseconds since 1970.
    pub refusals_ms: Option<(i64, i64)>,
}

/// What a limit did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LimitRow {
    /// Whose bucket it is: the entity of requests, or one above it.
    pub entity: EntityId,
    /// The resource.
    pub resource: ResourceName,
    /// The limit.
    pub limit: LimitName,
    /// Where it is declared.
    pub level: Option<DeclaredAt>,
    /// The limit as it is declared. Schedules can change it.
    pub declared: Option<zae_limiter_core::Limit>,
    /// How often it refused.
    pub refusals: u64,
    /// Of these, how often it could never admit the request.
    pub never: u64,
    /// Tokens of refused requests, of those that came back again and again each time.
    pub tokens_refused: u128,
    /// The first and the last refusal, in milliseconds since 1970.
    pub refusals_ms: Option<(i64, i64)>,
    /// The longest wait until it would have held enough, in milliseconds.
    pub longest_wait_ms: i64,
    /// Tokens that were taken and kept.
    pub taken: i128,
    /// The largest part of the capacity that was in use after an admission, in thousandths; above 1000 in debt.
    pub peak_permille: u64,
    /// When that was, in milliseconds since 1970.
    pub peak_ms: Option<i64>,
    /// Its refusals in each part of the timeline; empty if it did not refuse.
    pub timeline: Vec<u64>,
}

impl Report {
    pub(crate) fn new(
        trace: Description,
        counts: Counts,
        requests: u64,
        span_ms: (i64, i64),
        options: &Options,
        widths: &Widths,
        runs: Vec<Run>,
        comparer: Comparer,
    ) -> Self {
        Self {
            trace,
            counts,
            requests,
            span_ms,
            seed: options.seed,
            on_refusal: options.on_refusal,
            every_ms: widths.width_ms(),
            begins_ms: widths.begins(),
            runs,
            comparison: comparer.finish(),
        }
    }
}
